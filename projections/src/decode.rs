//! From the journal's bytes to the domain's events.

use fanledger_domain::entry::EntryPosted;
use fanledger_domain::event::Event;
use fanledger_journal::event::RecordedEvent;
use fanledger_journal::runner::ApplyError;

/// The type of the events that move balances.
pub(crate) const ENTRY_POSTED: &str = EntryPosted::TYPE;

/// Reads an event; one that cannot be read halts the projection at its position.
pub(crate) fn event(recorded: &RecordedEvent) -> Result<Event, ApplyError> {
    Event::decode(&recorded.event_type, &recorded.event_version, &recorded.payload)
        .map_err(|error| ApplyError::poison(recorded.position, error))
}

/// Reads an entry, in a projection that wants nothing else.
pub(crate) fn entry(recorded: &RecordedEvent) -> Result<EntryPosted, ApplyError> {
    match event(recorded)? {
        Event::EntryPosted(entry) => Ok(entry),
        other => Err(unwanted(recorded, &other)),
    }
}

/// The runner hands over only what `wants` asked for, so this is a mistake in a projection.
pub(crate) fn unwanted(recorded: &RecordedEvent, event: &Event) -> ApplyError {
    ApplyError::poison(recorded.position, Unwanted(event.type_name()))
}

#[derive(Debug, thiserror::Error)]
#[error("this projection does not want {0}, and was given one; this is a fault of the program")]
struct Unwanted(&'static str);
