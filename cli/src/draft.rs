//! A file that is being written: others see it whole under its name, or not at all.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// Why a file was not written.
#[derive(Debug, thiserror::Error)]
#[error("write {place}")]
pub struct DraftError {
    /// The file.
    pub place: String,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

/// Written beside its place and moved there when it is complete. What is dropped unfinished is removed.
#[derive(Debug)]
pub struct Draft {
    path: PathBuf,
    draft: PathBuf,
    file: File,
}

impl Draft {
    /// Begins beside where the file will be.
    ///
    /// # Errors
    /// When no file can be made there.
    pub fn of(path: &Path) -> Result<Self, DraftError> {
        let draft = PathBuf::from(format!("{}.{}.draft", path.display(), std::process::id()));
        let file = File::create(&draft).map_err(|source| failed(path, source))?;
        Ok(Self { path: path.to_owned(), draft, file })
    }

    /// Where to write.
    pub const fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Puts it in its place, where it stays through a loss of power.
    ///
    /// # Errors
    /// When the disk is full, or the place is taken by something that is no file.
    pub fn keep(self) -> Result<(), DraftError> {
        let kept = self.file.sync_all().and_then(|()| std::fs::rename(&self.draft, &self.path)).and_then(|()| {
            let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
            File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
        });
        kept.map_err(|source| failed(&self.path, source))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // It is gone already where it was put in its place.
        std::fs::remove_file(&self.draft).ok();
    }
}

fn failed(path: &Path, source: io::Error) -> DraftError {
    DraftError { place: path.display().to_string(), source }
}
