//! Every event of the journal as it stands there: a fixture for each type and version, which is never changed once such an event
//! may be in a journal.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use fanledger_domain::event::{DecodeError, EVENT_TYPES, Event};
use serde_json::Value;

/// Type, version and text of every fixture.
fn fixtures() -> Vec<(String, String, String)> {
    fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/events"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .map(|path| {
            let (event_type, version) = path.file_stem().unwrap().to_str().unwrap().split_once(".v").unwrap();
            (event_type.to_owned(), version.to_owned(), fs::read_to_string(&path).unwrap())
        })
        .collect()
}

#[test]
fn every_event_has_a_fixture() {
    let written: BTreeSet<_> = fixtures().into_iter().map(|(event_type, version, _)| (event_type, version)).collect();
    for (event_type, version) in EVENT_TYPES {
        let fixture = ((*event_type).to_owned(), (*version).to_owned());
        assert!(written.contains(&fixture), "write domain/tests/events/{event_type}.v{version}.json");
    }
}

/// Also those of versions that are written no more.
#[test]
fn every_fixture_reads_and_is_written_again_as_it_was() {
    for (event_type, version, text) in fixtures() {
        let event = Event::decode(&event_type, &version, &text).unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(Event::decode_value(&event_type, &version, value.clone()).unwrap(), event, "{event_type}");
        assert_eq!(event.type_name(), event_type);
        if event.version() == version {
            let written: Value = serde_json::from_str(&event.to_payload().unwrap()).unwrap();
            assert_eq!(written, value, "{event_type} {version}");
        }
    }
}

#[test]
fn what_this_program_does_not_know_is_a_typed_error() {
    for (event_type, version) in [("ChargeObserved", "2"), ("ChargeObserved", ""), ("MoonLanded", "1")] {
        for refused in [
            Event::decode(event_type, version, "{}").unwrap_err(),
            Event::decode_value(event_type, version, Value::Null).unwrap_err(),
        ] {
            assert!(matches!(refused, DecodeError::Unknown { .. }), "{event_type} {version}: {refused}");
        }
    }
    let lacking = Event::decode("ChargeReleased", "1", "{}").unwrap_err();
    assert!(matches!(lacking, DecodeError::Payload { event_type: "ChargeReleased", .. }), "{lacking}");
}
