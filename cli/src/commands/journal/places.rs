//! Where checkpoints and proofs are kept: files, and an object store.
//!
//! A store is `file:///<folder>` or `s3://<bucket>[/<prefix>]`; for S3 the rest (region, endpoint, credentials) comes from the
//! usual AWS_… variables. In a store each checkpoint is an object of its own that is never overwritten, so that a lock on the
//! bucket does no harm and a forged journal cannot replace what an honest one signed.

use std::io::{self, Write};
use std::path::Path as FilePath;
use std::sync::Arc;

use futures::TryStreamExt;
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use uuid::Uuid;

use crate::draft::{Draft, DraftError};
use crate::failure::Failure;

/// Why something could not be fetched or kept.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// Neither a file nor a URL that is known.
    #[error("`{0}` is no place for a checkpoint: expected a file, file:///… or s3://<bucket>/<object>")]
    Url(String),
    /// No client for the store.
    #[error("open the object store {url}; for S3, are AWS_REGION and credentials set?")]
    Store {
        /// Its URL.
        url: String,
        /// What is wrong.
        #[source]
        source: object_store::Error,
    },
    /// It is not there, or cannot be read.
    #[error("read {place}")]
    Read {
        /// The file or URL.
        place: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It cannot be written.
    #[error(transparent)]
    Write(#[from] DraftError),
    /// The store did not do it.
    #[error("{what} {url}")]
    Object {
        /// What was tried.
        what: &'static str,
        /// The object's URL.
        url: String,
        /// What the store said.
        #[source]
        source: object_store::Error,
    },
    /// Another checkpoint of the same size is there.
    #[error(
        "{url} already holds another checkpoint of as many events: one of the two was signed for a journal that was rewritten"
    )]
    Taken {
        /// Its URL.
        url: String,
    },
}

impl PlaceError {
    /// How a command ends that was to read what the user named: without it there is nothing to do, and that is theirs to mend;
    /// a store that does not answer is not.
    fn into_failure(self) -> Failure {
        match &self {
            Self::Url(_) | Self::Read { .. } | Self::Object { source: object_store::Error::NotFound { .. }, .. } => {
                Failure::usage(self)
            }
            Self::Store { .. } | Self::Object { .. } | Self::Write(_) | Self::Taken { .. } => Failure::from(self),
        }
    }
}

/// Takes what has the form of a place.
pub(super) fn parse(place: &str) -> Result<String, PlaceError> {
    match place.split_once("://") {
        None | Some(("file", _)) => Ok(place.to_owned()),
        Some(("s3", rest)) => bucket_and_object(rest, place).map(|_| place.to_owned()),
        Some(_) => Err(PlaceError::Url(place.to_owned())),
    }
}

fn bucket_and_object<'a>(rest: &'a str, place: &str) -> Result<(&'a str, Path), PlaceError> {
    let no_place = || PlaceError::Url(place.to_owned());
    let (bucket, object) = rest.split_once('/').ok_or_else(no_place)?;
    Ok((bucket, Path::parse(object).map_err(|_| no_place())?))
}

/// The text of a file or object that the user named.
pub(super) async fn read_named(place: &str) -> Result<String, Failure> {
    read(place).await.map_err(PlaceError::into_failure)
}

/// The text of a file or object.
pub(super) async fn read(place: &str) -> Result<String, PlaceError> {
    let failed = |source| PlaceError::Read { place: place.to_owned(), source };
    match place.split_once("://") {
        None => std::fs::read_to_string(place).map_err(failed),
        Some(("file", path)) => std::fs::read_to_string(path).map_err(failed),
        Some(("s3", rest)) => {
            let (bucket, object) = bucket_and_object(rest, place)?;
            let store = s3(bucket, place)?;
            get(store.as_ref(), &object, place).await
        }
        Some(_) => Err(PlaceError::Url(place.to_owned())),
    }
}

/// Replaces a file whole.
pub(super) fn write_file(path: &FilePath, text: &str) -> Result<(), PlaceError> {
    let mut draft = Draft::of(path)?;
    let written = draft.file().write_all(text.as_bytes());
    written.map_err(|source| DraftError { place: path.display().to_string(), source })?;
    Ok(draft.keep()?)
}

fn s3(bucket: &str, url: &str) -> Result<Arc<dyn ObjectStore>, PlaceError> {
    let store = AmazonS3Builder::from_env().with_bucket_name(bucket).build();
    Ok(Arc::new(store.map_err(|source| PlaceError::Store { url: url.to_owned(), source })?))
}

async fn get(store: &dyn ObjectStore, object: &Path, url: &str) -> Result<String, PlaceError> {
    let failed = |source| PlaceError::Object { what: "read", url: url.to_owned(), source };
    let bytes = store.get(object).await.map_err(failed)?.bytes().await.map_err(failed)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The checkpoints of one journal in an object store.
pub(super) struct CheckpointStore {
    store: Arc<dyn ObjectStore>,
    folder: Path,
    /// What an object's name within the store is put behind to make its URL.
    base: String,
}

impl CheckpointStore {
    /// The folder of this journal in the store that `url` names.
    pub fn open(url: &str, journal_id: Uuid) -> Result<Self, PlaceError> {
        let opened = |source| PlaceError::Store { url: url.to_owned(), source };
        let (store, base, prefix): (Arc<dyn ObjectStore>, String, &str) = match url.split_once("://") {
            Some(("file", folder)) => {
                std::fs::create_dir_all(folder).map_err(|source| DraftError { place: url.to_owned(), source })?;
                let store = LocalFileSystem::new_with_prefix(folder).map_err(opened)?;
                (Arc::new(store), format!("file://{}", folder.trim_end_matches('/')), "")
            }
            Some(("s3", rest)) => {
                let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
                (s3(bucket, url)?, format!("s3://{bucket}"), prefix)
            }
            Some(_) | None => return Err(PlaceError::Url(url.to_owned())),
        };
        let prefix = Path::parse(prefix.trim_end_matches('/')).map_err(|_| PlaceError::Url(url.to_owned()))?;
        let folder = prefix.join("checkpoints").join(journal_id.to_string());
        Ok(Self { store, folder, base })
    }

    fn url(&self, object: &Path) -> String {
        format!("{}/{object}", self.base)
    }

    /// The checkpoint of the greatest size: its URL and text.
    pub async fn newest(&self) -> Result<Option<(String, String)>, PlaceError> {
        let failed = |source| PlaceError::Object { what: "list", url: self.url(&self.folder), source };
        let objects: Vec<_> = self.store.list(Some(&self.folder)).try_collect().await.map_err(failed)?;
        let names = objects.into_iter().map(|object| object.location);
        // Sizes are written with leading zeros, so the last name is the greatest size.
        let Some(newest) = names.filter(|name| name.as_ref().ends_with(".checkpoint")).max() else { return Ok(None) };
        let url = self.url(&newest);
        let text = get(self.store.as_ref(), &newest, &url).await?;
        Ok(Some((url, text)))
    }

    /// Keeps a checkpoint, and answers its URL. To keep the same one again is no change.
    pub async fn put(&self, size: u64, text: &str) -> Result<String, PlaceError> {
        let object = self.folder.clone().join(format!("{size:020}.checkpoint"));
        let url = self.url(&object);
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.store.put_opts(&object, text.to_owned().into(), options).await {
            Ok(_) => Ok(url),
            Err(object_store::Error::AlreadyExists { .. }) => {
                let there = get(self.store.as_ref(), &object, &url).await?;
                if there == text { Ok(url) } else { Err(PlaceError::Taken { url }) }
            }
            Err(source) => Err(PlaceError::Object { what: "write", url, source }),
        }
    }
}
