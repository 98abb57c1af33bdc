//! Development keys: made once, kept in the data directory, readable by their owner alone.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Why a key could not be had.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Production makes nothing up.
    #[error("FANLEDGER_{setting} is not set, and keys are never made up in production: set it")]
    Refused {
        /// Which.
        setting: &'static str,
    },
    /// It could not be written or read.
    #[error("keep a development key in {}; is the data directory writable?", path.display())]
    Keep {
        /// Where.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The kept file was changed.
    #[error("the kept {name} key is not 32 bytes in hex: restore it, or delete the data directory and begin anew")]
    Form {
        /// Which.
        name: &'static str,
    },
}

/// Whether there is a key called `name`.
pub(super) fn is_kept(data_dir: &Path, name: &str) -> bool {
    data_dir.join("keys").join(name).exists()
}

/// The key called `name`, made if there is none: 32 random bytes in hex.
pub(super) fn kept(data_dir: &Path, name: &str) -> Result<String, KeyError> {
    let path = data_dir.join("keys").join(name);
    let keep = || -> io::Result<String> {
        if let Ok(text) = std::fs::read_to_string(&path) {
            return Ok(text.trim().to_owned());
        }
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(data_dir.join("keys"))?;
        // Written whole under another name and then linked, so that of two processes that start at once both end
        // up with the same key and neither ever sees half of it.
        let draft = path.with_extension(format!("{}.draft", std::process::id()));
        let mut file: File = File::options().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        writeln!(file, "{}", hex::encode(rand::random::<[u8; 32]>()))?;
        file.sync_all()?;
        let linked = std::fs::hard_link(&draft, &path);
        std::fs::remove_file(&draft)?;
        match linked {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        Ok(std::fs::read_to_string(&path)?.trim().to_owned())
    };
    keep().map_err(|source| KeyError::Keep { path: path.clone(), source })
}

/// The bytes of a kept key.
pub(super) fn parse(text: &str, name: &'static str) -> Result<[u8; 32], KeyError> {
    super::key_bytes(text).ok_or(KeyError::Form { name })
}
