//! A disk whose power can be cut: a file system in an image, which lies in another file system in an image, all of it through loop
//! devices.
//!
//! What a program writes to the inner file system lies in the kernel's memory until it is synchronised or written back; the image
//! has what reached the device. To copy it at one instant, the outer file system is frozen: no write to the image begins, and
//! whatever is written inside waits. So the copy is what a power cut leaves of a disk, whatever its writers were doing, and
//! mounted it needs the file system's own recovery first. (A disk may also forget what it took and was not told to flush; this
//! one keeps it.)
//!
//! That needs root, loop devices, and `mkfs.ext4` and `fsfreeze`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin};

use super::PATIENCE;

/// Both are sparse: a full run wrote a tenth of it.
const INNER_BYTES: u64 = 3 << 30;
const OUTER_BYTES: u64 = 8 << 30;

/// The inner file system, mounted.
pub struct Volume {
    /// Where the inner one is mounted.
    mount: PathBuf,
    /// Where the outer one is mounted, which holds the image of the inner.
    outer: PathBuf,
    /// Copies are made here.
    directory: PathBuf,
    /// How many images there were.
    images: u32,
}

/// The outer file system, in which nothing is written until this is dropped, or this process ends, however it does.
pub struct Frozen {
    /// It thaws when its input ends.
    input: Option<ChildStdin>,
    child: Child,
    /// The copy of the inner one's image.
    copy: PathBuf,
}

impl Volume {
    /// Makes one and mounts it at `directory/<name>`; its images lie beside it. The error says what this machine lacks.
    pub fn mount(directory: &Path, name: &str) -> Result<Self, String> {
        let (outer, mount) = (directory.join("outer"), directory.join(name));
        let outer_image = directory.join("outer.img");
        // The outer one is never cut off, and a journal below a journal makes each synchronisation four times as slow.
        make(&outer_image, OUTER_BYTES, &["-O", "^has_journal"])?;
        attach(&outer_image, &outer)?;
        let volume = Self { mount, outer, directory: directory.to_owned(), images: 1 };
        make(&volume.image(), INNER_BYTES, &[])?;
        attach(&volume.image(), &volume.mount)?;
        Ok(volume)
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.mount
    }

    fn image(&self) -> PathBuf {
        self.outer.join(format!("inner{}.img", self.images))
    }

    /// Everything that was written so far is on the disk.
    pub fn synchronize(&self) {
        run("sync", &["-f", text(&self.mount)]).unwrap();
    }

    /// From some instant on nothing reaches the disk; returns once it is copied as it was then.
    pub async fn freeze(&self) -> Frozen {
        let copy = self.directory.join(format!("cut{}.img", self.images));
        // The shell outlives a test that is killed, and then thaws what a program would else wait for, for ever.
        let script = "trap 'fsfreeze --unfreeze \"$1\"' EXIT; trap 'exit 1' TERM INT HUP; \
                      fsfreeze --freeze \"$1\" && cp --sparse=always \"$2\" \"$3\" && echo copied && read -r line; :";
        let mut shell = tokio::process::Command::new("sh");
        shell.args(["-c", script, "sh"]).arg(&self.outer).arg(self.image()).arg(&copy);
        let mut child = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("copied"));
        Frozen { input: child.stdin.take(), child, copy }
    }

    /// Puts a disk with what the copy has in the place of this one, which nobody uses any more.
    pub fn replace(&mut self, copy: &Path) {
        // Those who had files open were killed just now, and may not be gone yet.
        let deadline = Instant::now() + PATIENCE;
        while let Err(busy) = run("umount", &[text(&self.mount)]) {
            assert!(Instant::now() < deadline, "{busy}");
            std::thread::sleep(Duration::from_millis(50));
        }
        std::fs::remove_file(self.image()).unwrap();
        self.images += 1;
        run("cp", &["--sparse=always", text(copy), text(&self.image())]).unwrap();
        std::fs::remove_file(copy).unwrap();
        attach(&self.image(), &self.mount).unwrap();
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // Lazily: a server that was told to end may still be at it, and after it the loop devices go by themselves.
        run("umount", &["--lazy", text(&self.mount)]).ok();
        run("umount", &["--lazy", text(&self.outer)]).ok();
    }
}

impl Frozen {
    /// Lets writes go on; returns the copy.
    pub async fn thaw(mut self) -> PathBuf {
        let mut input = self.input.take().unwrap();
        input.shutdown().await.unwrap();
        drop(input);
        assert!(self.child.wait().await.unwrap().success());
        self.copy.clone()
    }
}

fn make(image: &Path, bytes: u64, options: &[&str]) -> Result<(), String> {
    let file = std::fs::File::create(image).map_err(|error| format!("{}: {error}", image.display()))?;
    file.set_len(bytes).map_err(|error| format!("{}: {error}", image.display()))?;
    run("mkfs.ext4", &[&["-q", "-F"], options, &[text(image)]].concat())
}

fn attach(image: &Path, mount: &Path) -> Result<(), String> {
    std::fs::create_dir_all(mount).map_err(|error| format!("{}: {error}", mount.display()))?;
    run("mount", &["-o", "loop", text(image), text(mount)])
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output().map_err(|error| format!("{program}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("{program}: {}", said.trim())) }
}
