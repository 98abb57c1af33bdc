//! Entries that finance makes by hand, and reversals: who proposes, who agrees, who refuses.

use fanledger_domain::entry::EntryPosted;
use fanledger_domain::event::{DecodeError, Event};
use fanledger_domain::id::{EntryId, IdError, StripeId, Subject};
use fanledger_domain::manual_entry::{
    Act, Draft, DraftFault, DraftText, ManualEntry, ManualEntryCommand, ManualEntryError, ReversalError,
};
use fanledger_domain::policy;
use fanledger_domain::time::{Timestamp, TimestampError};
use fanledger_journal::event::{Position, StreamId};
use fanledger_journal::reader::ReadError;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::executor::ActError;
use crate::finance::{Finance, now};
use crate::stripe::acted_by;

/// Why finance's hand was held back.
#[derive(Debug, thiserror::Error)]
pub enum ManualEntriesError {
    /// What was written cannot be proposed.
    #[error("the entry cannot be proposed as it is written")]
    Faults(Vec<DraftFault>),
    /// It was refused, or could not be done.
    #[error(transparent)]
    Act(#[from] ActError<ManualEntryError>),
    /// The entry that is to be taken back is not there.
    #[error("there is no entry {0}")]
    UnknownEntry(EntryId),
    /// It cannot be taken back by hand.
    #[error(transparent)]
    Reversal(ReversalError),
    /// An entry could not be looked for, or a stream not read.
    #[error("read the journal")]
    Read(#[from] ReadError),
    /// The journal holds something else where the entry or the stream should be.
    #[error("read what is in the journal at position {position}")]
    Decode {
        /// Where.
        position: Position,
        /// What is wrong with it.
        #[source]
        source: DecodeError,
    },
    /// The clock is not one.
    #[error("read the clock")]
    Clock(#[source] TimestampError),
    /// The id that was made up is none.
    #[error("make an id")]
    Id(#[source] IdError),
}

/// Where a manual entry stands after an act.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// What its stream tells.
    pub entry: ManualEntry,
    /// The entry, once it is posted.
    pub posted: Option<EntryId>,
    /// Where its stream ends in the journal.
    pub position: Position,
}

fn id_of(uuid: Uuid) -> Result<StripeId, ManualEntriesError> {
    ManualEntry::id(&uuid.to_string()).map_err(ManualEntriesError::Id)
}

/// A UUID made from what must be unique, so that a second stream for it cannot be.
fn derived(label: &str, parts: &[&str]) -> Uuid {
    let mut hash = Sha256::new();
    for part in std::iter::once(&label).chain(parts) {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let mut bytes = [0; 16];
    bytes.iter_mut().zip(hash.finalize()).for_each(|(byte, hashed)| *byte = hashed);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

impl Finance {
    /// Proposes an entry, and posts it where one person may. With a `key` of this person's, proposing the same again is answered
    /// with what became of it.
    ///
    /// # Errors
    /// When it is written wrongly, the key stands for another entry, or the journal does not take it.
    pub async fn propose(
        &self,
        by: Subject,
        draft: DraftText,
        key: Option<&str>,
    ) -> Result<Standing, ManualEntriesError> {
        let now = now().map_err(ManualEntriesError::Clock)?;
        let draft = draft.parse(now).map_err(ManualEntriesError::Faults)?;
        let id = id_of(match key {
            Some(key) => derived("fanledger manual entry", &[by.as_str(), key]),
            None => Uuid::now_v7(),
        })?;
        self.act_on(&id, ManualEntryCommand::Propose(draft), Act { by, now }).await
    }

    /// Takes an entry back with one of its own, once; posts it where one person may.
    ///
    /// # Errors
    /// When there is no such entry, an object's books posted it, it is taken back already, or the journal does not take it.
    pub async fn reverse(
        &self,
        by: Subject,
        entry_id: &EntryId,
        reason: String,
        occurred_at: Option<Timestamp>,
    ) -> Result<Standing, ManualEntriesError> {
        let now = now().map_err(ManualEntriesError::Clock)?;
        let entry = self.entry(entry_id).await?.ok_or_else(|| ManualEntriesError::UnknownEntry(entry_id.clone()))?;
        let draft = Draft::reversal(&entry, reason, occurred_at, now).map_err(|error| match error {
            ReversalError::Faults(faults) => ManualEntriesError::Faults(faults),
            error @ ReversalError::OfAnObject { .. } => ManualEntriesError::Reversal(error),
        })?;
        let id = id_of(derived("fanledger reversal", &[entry_id.as_str()]))?;
        self.act_on(&id, ManualEntryCommand::Propose(draft), Act { by, now }).await
    }

    /// Agrees to what somebody else proposed, and posts it.
    ///
    /// # Errors
    /// When it does not wait, or waits for somebody else; or the journal does not take it.
    pub async fn approve(&self, by: Subject, id: &StripeId) -> Result<Standing, ManualEntriesError> {
        let now = now().map_err(ManualEntriesError::Clock)?;
        self.act_on(id, ManualEntryCommand::Approve, Act { by, now }).await
    }

    /// Sees to it that what was proposed is never posted.
    ///
    /// # Errors
    /// When it does not wait; or the journal does not take it.
    pub async fn reject(&self, by: Subject, id: &StripeId, reason: String) -> Result<Standing, ManualEntriesError> {
        let now = now().map_err(ManualEntriesError::Clock)?;
        self.act_on(id, ManualEntryCommand::Reject { reason }, Act { by, now }).await
    }

    async fn act_on(
        &self,
        id: &StripeId,
        command: ManualEntryCommand,
        act: Act,
    ) -> Result<Standing, ManualEntriesError> {
        let stream = StreamId::new(ManualEntry::STREAM, id.as_str());
        let policy = policy::in_force(act.now);
        let metadata = acted_by(act.by.as_str());
        let decide =
            |known: &ManualEntry, first_open| known.decide(id, command.clone(), act.clone(), &policy, first_open);
        self.executor.act(&stream, &metadata, ManualEntry::evolve, decide).await?;
        self.standing(&stream).await
    }

    /// What the stream says now; whoever acted since has acted, and is shown.
    async fn standing(&self, stream: &StreamId) -> Result<Standing, ManualEntriesError> {
        let mut standing = Standing { entry: ManualEntry::default(), posted: None, position: Position::START };
        for recorded in self.reader.stream(stream).await? {
            let event = Event::decode(&recorded.event_type, &recorded.event_version, &recorded.payload)
                .map_err(|source| ManualEntriesError::Decode { position: recorded.position, source })?;
            standing.entry.evolve(&event);
            standing.position = recorded.position;
            if let Event::EntryPosted(entry) = event {
                standing.posted = Some(entry.entry_id);
            }
        }
        Ok(standing)
    }

    async fn entry(&self, entry_id: &EntryId) -> Result<Option<EntryPosted>, ManualEntriesError> {
        let Some(recorded) = self.reader.entry(entry_id.as_str()).await? else { return Ok(None) };
        let event = Event::decode(&recorded.event_type, &recorded.event_version, &recorded.payload)
            .map_err(|source| ManualEntriesError::Decode { position: recorded.position, source })?;
        Ok(if let Event::EntryPosted(entry) = event { Some(entry) } else { None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_must_be_unique_makes_one_id_and_another_makes_another() {
        let of = |parts: &[&str]| derived("reversal", parts);
        assert_eq!(of(&["ch_1:2:x"]), of(&["ch_1:2:x"]));
        assert_eq!(of(&["ch_1:2:x"]).get_version_num(), 8);
        let different =
            [of(&["ch_1:2:x"]), of(&["ch_1:2:y"]), derived("entry", &["ch_1:2:x"]), of(&["a", "bc"]), of(&["ab", "c"])];
        let once: std::collections::BTreeSet<Uuid> = different.into_iter().collect();
        assert_eq!(once.len(), different.len());
    }
}
