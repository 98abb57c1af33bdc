//! Reading event files: one event, an array, or JSON lines, alone or in folders. Bytes are kept as they are written.

use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::value::RawValue;

/// An event as a file holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventBody {
    /// Which file, and which of its events, from 1: for messages.
    pub origin: String,
    /// Its exact text.
    pub body: String,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Found {
    /// The events, files in order of their paths.
    pub events: Vec<EventBody>,
    /// Files of a folder that hold no events.
    pub passed_over: Vec<PathBuf>,
}

/// Why the events could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A file or folder could not be read.
    #[error("read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file is not JSON.
    #[error("{} is not JSON: expected an event, an array of events or one event a line", path.display())]
    Json {
        /// Which.
        path: PathBuf,
        /// What is wrong, and where.
        #[source]
        source: serde_json::Error,
    },
    /// A file that was named holds something else.
    #[error("{} holds something that is no Stripe event: expected objects with an `id`, and `data.object` or `\"object\": \"event\"`", path.display())]
    NoEvent {
        /// Which.
        path: PathBuf,
    },
    /// Nothing at all.
    #[error("there are no events in what was named")]
    Nothing,
}

/// What makes a JSON object an event, a thin one (`v2.core.event`) too; everything else in it is the gateway's to judge.
#[derive(Deserialize)]
struct Shape<'a> {
    #[serde(borrow)]
    id: &'a RawValue,
    #[serde(borrow, default)]
    object: Option<&'a RawValue>,
    #[serde(borrow, default)]
    data: Option<Data<'a>>,
}

#[derive(Deserialize)]
struct Data<'a> {
    #[serde(borrow, default)]
    object: Option<&'a RawValue>,
}

impl Shape<'_> {
    fn is_event(&self) -> bool {
        let says_so = self.object.is_some_and(|object| object.get().ends_with("event\""));
        let holds_object =
            self.data.as_ref().and_then(|data| data.object).is_some_and(|object| object.get().starts_with('{'));
        self.id.get().starts_with('"') && (says_so || holds_object)
    }
}

/// Reads all events of `paths`. A file that is named must hold events; a folder's files that hold none are passed over.
///
/// # Errors
/// When something cannot be read, or nothing is found.
pub fn read(paths: &[PathBuf]) -> Result<Found, ReadError> {
    let mut found = Found::default();
    for path in paths {
        if path.is_dir() {
            for file in files_below(path)? {
                match read_file(&file)? {
                    Some(events) => found.events.extend(events),
                    None => found.passed_over.push(file),
                }
            }
        } else {
            let events = read_file(path)?.ok_or_else(|| ReadError::NoEvent { path: path.clone() })?;
            found.events.extend(events);
        }
    }
    if found.events.is_empty() { Err(ReadError::Nothing) } else { Ok(found) }
}

fn files_below(folder: &Path) -> Result<Vec<PathBuf>, ReadError> {
    let error = |source| ReadError::Read { path: folder.to_owned(), source };
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(error)? {
        entries.push(entry.map_err(error)?.path());
    }
    entries.sort();
    let mut files = Vec::new();
    for path in entries {
        if path.is_dir() {
            files.extend(files_below(&path)?);
        } else if matches!(path.extension().and_then(|end| end.to_str()), Some("json" | "jsonl" | "ndjson")) {
            files.push(path);
        }
    }
    Ok(files)
}

fn read_file(path: &Path) -> Result<Option<Vec<EventBody>>, ReadError> {
    let text = std::fs::read_to_string(path).map_err(|source| ReadError::Read { path: path.to_owned(), source })?;
    let json_error = |source| ReadError::Json { path: path.to_owned(), source };
    // A file with one event, one event a line, and one array are all a sequence of JSON values.
    let mut bodies: Vec<&RawValue> = Vec::new();
    for value in serde_json::Deserializer::from_str(&text).into_iter::<&RawValue>() {
        let value = value.map_err(json_error)?;
        if value.get().starts_with('[') {
            bodies.extend(serde_json::from_str::<Vec<&RawValue>>(value.get()).map_err(json_error)?);
        } else {
            bodies.push(value);
        }
    }
    let is_event = |body: &&RawValue| serde_json::from_str::<Shape<'_>>(body.get()).is_ok_and(|shape| shape.is_event());
    if bodies.is_empty() || !bodies.iter().all(is_event) {
        return Ok(None);
    }
    let events = bodies.iter().enumerate().map(|(index, body)| EventBody {
        origin: format!("{} event {}", path.display(), index + 1),
        body: body.get().to_owned(),
    });
    Ok(Some(events.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("fanledger-events-{}", uuid::Uuid::now_v7()));
        for (name, text) in files {
            let path = dir.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        dir
    }

    const ONE: &str = r#"{ "id": "evt_1",  "amount": 1.50, "data": {"object": {}} }"#;

    #[test]
    fn a_thin_event_is_an_event() {
        let dir =
            folder(&[("thin.json", r#"{"id": "evt_1", "object": "v2.core.event", "related_object": {"id": "x"}}"#)]);
        assert_eq!(read(&[dir.join("thin.json")]).unwrap().events.len(), 1);
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn single_events_arrays_and_lines_are_read_with_their_bytes_kept() {
        let dir = folder(&[
            ("a.json", ONE),
            ("b/c.json", &format!("[{ONE},\n {ONE}]")),
            ("d.jsonl", &format!("{ONE}\n{ONE}\n\n")),
            ("resources.json", r#"{"resources": {}}"#),
            ("object.json", r#"{"id": "ch_1", "object": "charge"}"#),
            ("notes.txt", "not json"),
        ]);
        let found = read(std::slice::from_ref(&dir)).unwrap();
        assert_eq!(found.events.len(), 5);
        assert!(found.events.iter().all(|event| event.body == ONE));
        assert_eq!(found.passed_over, [dir.join("object.json"), dir.join("resources.json")]);
        assert!(matches!(read(&[dir.join("resources.json")]), Err(ReadError::NoEvent { .. })));
        assert!(matches!(read(&[dir.join("notes.txt")]), Err(ReadError::Json { .. })));
        assert!(matches!(read(&[dir.join("nothing.json")]), Err(ReadError::Read { .. })));
        std::fs::remove_dir_all(dir).unwrap();
    }
}
