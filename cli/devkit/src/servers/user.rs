//! Whom Postgres runs as. It refuses root, so root runs it as `postgres`, else as `nobody`.

use std::path::Path;
use std::process::Command;

use super::{Error, process};

/// The user that a server runs as, and how to become it.
#[derive(Clone, Debug)]
pub(super) enum RunAs {
    /// The user that we are.
    Ourselves,
    /// Another, because we are root.
    Other {
        /// Its name.
        name: String,
        /// Its user id.
        uid: u32,
        /// Its group id.
        gid: u32,
        /// The program that becomes it.
        tool: Tool,
    },
}

/// A program with which root becomes another user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tool {
    /// util-linux; it replaces itself by the program, so the process id stays.
    Setpriv,
    /// util-linux as well.
    Runuser,
    /// Everywhere else.
    Su,
}

impl RunAs {
    /// Ourselves unless we are root.
    pub(super) async fn for_postgres() -> Result<Self, Error> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Self::Ourselves);
        }
        for name in ["postgres", "nobody"] {
            let (Some(uid), Some(gid)) = (id("-u", name).await, id("-g", name).await) else { continue };
            for tool in [Tool::Setpriv, Tool::Runuser, Tool::Su] {
                let run_as = Self::Other { name: name.to_owned(), uid, gid, tool };
                if process::run(run_as.command(Path::new("true"), &[])).await.is_ok() {
                    return Ok(run_as);
                }
            }
            return Err(Error::NoUnprivilegedUser {
                reason: format!("none of setpriv, runuser and su can become {name}"),
            });
        }
        Err(Error::NoUnprivilegedUser { reason: "there is neither a user postgres nor nobody".to_owned() })
    }

    /// `program` with `arguments`, run as this user.
    pub(super) fn command(&self, program: &Path, arguments: &[&str]) -> Command {
        let mut command;
        match self {
            Self::Ourselves => {
                command = Command::new(program);
                command.args(arguments);
            }
            Self::Other { uid, gid, tool: Tool::Setpriv, .. } => {
                command = Command::new("setpriv");
                command.arg(format!("--reuid={uid}")).arg(format!("--regid={gid}")).arg("--clear-groups");
                command.arg(program).args(arguments);
            }
            Self::Other { name, tool: Tool::Runuser, .. } => {
                command = Command::new("runuser");
                command.args(["-u", name, "--"]).arg(program).args(arguments);
            }
            Self::Other { name, tool: Tool::Su, .. } => {
                command = Command::new("su");
                let mut line = format!("exec {}", quoted(&program.to_string_lossy()));
                for argument in arguments {
                    line.push(' ');
                    line.push_str(&quoted(argument));
                }
                command.args(["-s", "/bin/sh", name, "-c", &line]);
            }
        }
        // Root's home and working directory may be closed to the other user.
        command.current_dir("/");
        command
    }

    /// Whether this user can pass through all folders above `path`, and read it.
    pub(super) async fn reaches(&self, path: &Path) -> bool {
        match self {
            Self::Ourselves => true,
            Self::Other { .. } => {
                process::run(self.command(Path::new("test"), &["-r", &path.to_string_lossy()])).await.is_ok()
            }
        }
    }

    /// The other user's id.
    pub(super) fn uid(&self) -> Option<u32> {
        match self {
            Self::Ourselves => None,
            Self::Other { uid, .. } => Some(*uid),
        }
    }

    /// Gives one file or directory to this user.
    pub(super) fn give(&self, path: &Path) -> Result<(), Error> {
        match self {
            Self::Ourselves => Ok(()),
            Self::Other { uid, gid, .. } => std::os::unix::fs::chown(path, Some(*uid), Some(*gid))
                .map_err(|source| Error::ChangeOwner { path: path.to_owned(), source }),
        }
    }
}

async fn id(flag: &str, name: &str) -> Option<u32> {
    let mut command = Command::new("id");
    command.args([flag, name]);
    process::run(command).await.ok()?.trim().parse().ok()
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Puts `setpriv --pdeathsig <signal>` before a command where setpriv can do that: the kernel then sends the signal
/// when we die, however we die. Elsewhere the command stays as it is, and the next start stops what was left.
pub(super) async fn dying_with_us(command: Command, signal: &str) -> Command {
    let mut probe = Command::new("setpriv");
    probe.args(["--pdeathsig", signal, "true"]);
    if process::run(probe).await.is_err() {
        return command;
    }
    let mut wrapped = Command::new("setpriv");
    wrapped.args(["--pdeathsig", signal]);
    let mut arguments = command.get_args();
    if command.get_program() != "setpriv" {
        wrapped.arg(command.get_program());
    }
    // One setpriv does both: the signal is set after the user is changed, which would clear it.
    wrapped.args(&mut arguments);
    if let Some(directory) = command.get_current_dir() {
        wrapped.current_dir(directory);
    }
    wrapped
}
