//! Where an export's bytes go: a file that appears whole or not at all, or standard output; counted and digested on their way.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::draft::{Draft, DraftError};
use crate::output::Stdout;

/// What is gathered before it is written.
const BUFFER_BYTES: usize = 256 << 10;

/// Why an export was not written.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The file.
    #[error(transparent)]
    File(#[from] DraftError),
    /// Bytes could not be written, for instance to a full disk.
    #[error("write {}", place.display())]
    Write {
        /// Where to.
        place: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Where bytes go.
enum Target {
    File(Draft),
    /// Neither a file nor the name of one to be: a pipe, a device. It is written as it is.
    Special(File),
    Stdout(Stdout),
}

/// What went through a [`Sink`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Through {
    /// How many bytes.
    pub bytes: u64,
    /// Their SHA-256, in hexadecimal.
    pub sha256: String,
}

/// See the module. What is dropped without [`Sink::keep`] leaves nothing behind.
pub struct Sink {
    target: Target,
    place: PathBuf,
    buffer: Vec<u8>,
    bytes: u64,
    digest: Sha256,
}

impl Sink {
    /// Standard output.
    pub fn stdout() -> Self {
        Self::to(Target::Stdout(Stdout::new()), Path::new("standard output"))
    }

    /// A file, which appears when it is complete.
    ///
    /// # Errors
    /// When no file can be made there.
    pub fn file(path: &Path) -> Result<Self, SinkError> {
        let is_special = std::fs::metadata(path).is_ok_and(|there| !there.is_file() && !there.is_dir());
        let target = if is_special {
            let opened = OpenOptions::new().write(true).open(path);
            Target::Special(opened.map_err(|source| SinkError::Write { place: path.to_owned(), source })?)
        } else {
            Target::File(Draft::of(path)?)
        };
        Ok(Self::to(target, path))
    }

    fn to(target: Target, place: &Path) -> Self {
        let buffer = Vec::with_capacity(BUFFER_BYTES);
        Self { target, place: place.to_owned(), buffer, bytes: 0, digest: Sha256::new() }
    }

    /// Writes text.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn text(&mut self, text: &str) -> Result<(), SinkError> {
        self.write_all(text.as_bytes()).map_err(|source| SinkError::Write { place: self.place.clone(), source })
    }

    /// Puts what was written in its place.
    ///
    /// # Errors
    /// When the rest cannot be written.
    pub fn keep(mut self) -> Result<Through, SinkError> {
        self.flush().map_err(|source| SinkError::Write { place: self.place.clone(), source })?;
        match self.target {
            Target::File(draft) => draft.keep()?,
            Target::Special(_) | Target::Stdout(_) => {}
        }
        Ok(Through { bytes: self.bytes, sha256: hex::encode(self.digest.finalize()) })
    }

    fn write_out(&mut self) -> io::Result<()> {
        match &mut self.target {
            Target::File(draft) => draft.file().write_all(&self.buffer)?,
            Target::Special(file) => file.write_all(&self.buffer)?,
            Target::Stdout(stdout) => stdout.write_all(&self.buffer)?,
        }
        self.digest.update(&self.buffer);
        self.bytes += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= BUFFER_BYTES {
            self.write_out()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.write_out()?;
        match &mut self.target {
            Target::File(draft) => draft.file().flush(),
            Target::Special(file) => file.flush(),
            Target::Stdout(stdout) => stdout.flush(),
        }
    }
}
