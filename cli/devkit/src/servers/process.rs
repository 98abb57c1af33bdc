//! Running programs: to their end, or as servers that are watched and die with us.

use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::sync::watch;

use super::Error;

/// Runs `command` to its end and returns what it printed to standard output.
pub(super) async fn run(mut command: Command) -> Result<String, Error> {
    let program = render(&command);
    command.stdin(Stdio::null());
    let output = tokio::process::Command::from(command)
        .output()
        .await
        .map_err(|source| Error::Spawn { program: program.clone(), source })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let mut printed = String::from_utf8_lossy(&output.stderr).into_owned();
    printed.push_str(&String::from_utf8_lossy(&output.stdout));
    Err(Error::Failed { program, status: output.status, output: tail(&printed) })
}

fn render(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        text.push(' ');
        text.push_str(&argument.to_string_lossy());
    }
    text
}

/// The last lines of a text, enough to see why a program failed.
pub(super) fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

/// The last lines of a log file; empty if it cannot be read.
pub(super) fn log_tail(path: &Path) -> String {
    tail(&String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()))
}

/// A server process of ours.
#[derive(Debug)]
pub(super) struct Server {
    name: &'static str,
    pid: Pid,
    ended: watch::Receiver<Option<ExitStatus>>,
}

impl Server {
    /// Starts `command` in a process group of its own (so that Ctrl-C reaches us and not it: we stop it when what
    /// uses it has stopped), with its output appended to `log`.
    ///
    /// The child is started from, and waited for by, a thread that lives exactly as long as the child: the kernel
    /// sends the parent-death signal when the *thread* that started a child ends, and an async runtime's threads
    /// come and go.
    pub(super) async fn start(name: &'static str, mut command: Command, log: &Path) -> Result<Self, Error> {
        use std::os::unix::process::CommandExt;
        let program = render(&command);
        let open = || std::fs::File::options().create(true).append(true).open(log);
        let (stdout, stderr) = (open(), open());
        let (Ok(stdout), Ok(stderr)) = (stdout, stderr) else {
            let source = open().err().unwrap_or_else(|| std::io::Error::other("the log cannot be opened"));
            return Err(Error::WriteFile { path: log.to_owned(), source });
        };
        command.stdin(Stdio::null()).stdout(stdout).stderr(stderr).process_group(0);
        let (started, has_started) = tokio::sync::oneshot::channel();
        let (end, ended) = watch::channel(None);
        std::thread::spawn(move || match command.spawn() {
            Ok(mut child) => {
                // Whoever asked may be gone (cancelled); the child is still to be waited for.
                let _ = started.send(Ok(child.id()));
                let status = child.wait().unwrap_or_default();
                let _ = end.send(Some(status));
            }
            Err(error) => {
                let _ = started.send(Err(error));
            }
        });
        let spawned = has_started.await.unwrap_or_else(|_| Err(std::io::Error::other("the spawning thread ended")));
        let id = spawned.map_err(|source| Error::Spawn { program: program.clone(), source })?;
        let pid = Pid::from_raw(id.cast_signed())
            .ok_or_else(|| Error::Spawn { program, source: std::io::Error::other("the child has no process id") })?;
        Ok(Self { name, pid, ended })
    }

    /// How it ended, if it has.
    pub(super) fn ended(&self) -> Option<ExitStatus> {
        *self.ended.borrow()
    }

    /// Waits for its end, however long that takes.
    pub(super) async fn until_ended(&mut self) {
        // The sender goes away only after it has sent the end.
        let _ = self.ended.wait_for(Option::is_some).await;
    }

    /// Waits for its end at most `patience`; whether it ended.
    pub(super) async fn wait(&mut self, patience: Duration) -> bool {
        tokio::time::timeout(patience, self.ended.wait_for(Option::is_some)).await.is_ok()
    }

    /// Sends a signal; fine if the process has ended.
    pub(super) fn signal(&self, signal: Signal) -> Result<(), Error> {
        if self.ended().is_some() {
            return Ok(());
        }
        signal_process(self.name, self.pid, signal)
    }

    /// Asks it to stop with `signal` and kills it if it has not stopped after `patience`.
    pub(super) async fn stop(&mut self, signal: Signal, patience: Duration) -> Result<(), Error> {
        self.signal(signal)?;
        if self.wait(patience).await {
            return Ok(());
        }
        tracing::warn!(server = self.name, "did not stop within {patience:?}; killing it");
        self.signal(Signal::KILL)?;
        self.wait(patience).await;
        Ok(())
    }
}

fn signal_process(server: &'static str, pid: Pid, signal: Signal) -> Result<(), Error> {
    match rustix::process::kill_process(pid, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(errno) => Err(Error::Signal { server, pid: pid.as_raw_nonzero().get(), source: errno.into() }),
    }
}

/// Sends `signal` to a process that need not be our child and waits for its end; kills it after `patience`.
pub(super) async fn end_process(
    server: &'static str,
    pid: i32,
    signal: Signal,
    patience: Duration,
) -> Result<(), Error> {
    let Some(target) = Pid::from_raw(pid) else { return Ok(()) };
    signal_process(server, target, signal)?;
    let mut deadline = tokio::time::Instant::now() + patience;
    let mut killed = false;
    while is_alive(pid) {
        if tokio::time::Instant::now() > deadline {
            if killed {
                // In the kernel's hands (a disk that does not answer); waiting longer changes nothing.
                return Ok(());
            }
            tracing::warn!(server, pid, "did not stop within {patience:?}; killing it");
            signal_process(server, target, Signal::KILL)?;
            deadline = tokio::time::Instant::now() + patience;
            killed = true;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// Whether a process with this id exists and runs.
pub(super) fn is_alive(pid: i32) -> bool {
    // EPERM says that it exists and belongs to somebody else.
    let exists = Pid::from_raw(pid)
        .is_some_and(|pid| matches!(rustix::process::test_kill_process(pid), Ok(()) | Err(rustix::io::Errno::PERM)));
    exists && !is_zombie(pid)
}

/// Ended, and not yet waited for by its parent; in a container whose first process waits for nobody, for ever.
fn is_zombie(pid: i32) -> bool {
    // The state follows the name, which is in parentheses and may hold some itself.
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|stat| stat.rsplit_once(") ").map(|(_, rest)| rest.starts_with(['Z', 'X'])))
        .unwrap_or(false)
}
