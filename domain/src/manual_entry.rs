//! Entries that finance makes by hand: for what Stripe does not know, and to take an entry back. Stream `manual_entry/<id>`.
//!
//! Somebody proposes; what moves no more than one person may alone is posted by the same command, and the rest when a second
//! person agrees. Read [`DraftText::parse`] (what may be proposed), then [`ManualEntry::decide`].

mod draft;

use crate::entry::{Cause, EntryError, EntryPosted, FactReference, Posting, check_postings};
use crate::event::{Event, payload};
use crate::id::{EntryId, IdError, StripeId, Subject};
use crate::period::FirstOpen;
use crate::policy::Policy;
use crate::reason::{REASON_FORM, is_reason};
use crate::time::Timestamp;

pub use draft::{DESCRIPTION_CHARS_MAX, Draft, DraftFault, DraftText, POSTINGS_MAX, PostingText, ReversalError};

/// What Stripe gives no object.
const ID_PREFIX: &str = "mne_";

payload! {
    /// An entry as somebody wants it. Posted by the same command where nobody else need agree.
    pub struct ManualEntryProposed {
        /// `mne_…`; also the stream's id, and the object that its entry names as cause.
        pub id: StripeId,
        /// One line for people.
        pub description: String,
        /// Why.
        pub reason: String,
        /// When what it books happened.
        pub occurred_at: Timestamp,
        /// The entry that it takes back, where it does.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        pub reverses: Option<EntryId>,
        /// The object whose suspense it clears, where it does: it waits in that object's name, not in this entry's.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        pub clears: Option<StripeId>,
        /// At least two; each currency sums to zero.
        pub postings: Vec<Posting>,
        /// When it was proposed.
        pub at: Timestamp,
        /// Who proposed it.
        pub by: Subject,
        /// Whether a second person must agree: it moves more than one may alone.
        pub needs_approval: bool,
    }
}

payload! {
    /// A second person agreed; the entry follows in the same command.
    pub struct ManualEntryApproved {
        /// The manual entry.
        pub id: StripeId,
        /// When.
        pub at: Timestamp,
        /// Who; never who proposed it.
        pub by: Subject,
    }
}

payload! {
    /// It will not be posted.
    pub struct ManualEntryRejected {
        /// The manual entry.
        pub id: StripeId,
        /// When.
        pub at: Timestamp,
        /// Who; may be who proposed it.
        pub by: Subject,
        /// Why.
        pub reason: String,
    }
}

/// What may be asked of a manual entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ManualEntryCommand {
    /// Propose it, and post it where one person may.
    Propose(Draft),
    /// Agree, as a second person, and post it.
    Approve,
    /// See to it that it is never posted.
    Reject {
        /// Why.
        reason: String,
    },
}

/// Who acts, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Act {
    /// Who.
    pub by: Subject,
    /// When.
    pub now: Timestamp,
}

/// Why a manual entry was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManualEntryError {
    /// There is none.
    #[error("there is no manual entry {id}")]
    Unknown {
        /// Which.
        id: StripeId,
    },
    /// The proposer cannot be the second person.
    #[error("{id} was proposed by {by}: somebody else must approve it")]
    SamePerson {
        /// Which.
        id: StripeId,
        /// Who proposed it.
        by: Subject,
    },
    /// It is in the books.
    #[error("{id} is posted; take its entry back with a reversal if it is wrong")]
    Posted {
        /// Which.
        id: StripeId,
    },
    /// Somebody said no.
    #[error("{id} was rejected; propose it anew")]
    Rejected {
        /// Which.
        id: StripeId,
    },
    /// The id is taken by another proposal.
    #[error("{id} was proposed with other content")]
    Other {
        /// Which.
        id: StripeId,
    },
    /// An entry is taken back once.
    #[error("{entry_id} is taken back by {id} already")]
    ReversedAlready {
        /// The entry.
        entry_id: EntryId,
        /// The reversal.
        id: StripeId,
    },
    /// A refusal is told why.
    #[error("say why it is rejected, {REASON_FORM}")]
    Reason,
    /// The entry would break an invariant.
    #[error("{id} cannot be posted")]
    Entry {
        /// Which.
        id: StripeId,
        /// What is wrong.
        #[source]
        source: EntryError,
    },
    /// The id is too long to name an entry by.
    #[error("no entry id can be made for {id}")]
    EntryId {
        /// Which.
        id: StripeId,
        /// What is wrong.
        #[source]
        source: IdError,
    },
}

/// Where a manual entry stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It waits for a second person.
    Proposed,
    /// It is in the books.
    Posted,
    /// It never will be.
    Rejected,
}

/// A manual entry, as its stream tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ManualEntry {
    proposed: Option<(ManualEntryProposed, Stage)>,
    sequence: u64,
}

impl ManualEntry {
    /// The type of its stream.
    pub const STREAM: &'static str = "manual_entry";

    /// An id from what makes it unique.
    ///
    /// # Errors
    /// When that is no part of an id.
    pub fn id(unique: &str) -> Result<StripeId, IdError> {
        format!("{ID_PREFIX}{unique}").parse()
    }

    /// Whether an id is one of a manual entry.
    pub fn is_id(id: &StripeId) -> bool {
        id.as_str().starts_with(ID_PREFIX)
    }

    /// The sequence of the last event of the stream.
    pub const fn sequence(&self) -> u64 {
        self.sequence
    }

    /// What was proposed, and where it stands.
    pub const fn proposed(&self) -> Option<&(ManualEntryProposed, Stage)> {
        self.proposed.as_ref()
    }

    /// The events that `command` leads to, under `policy` and where the book is open from `first_open` on; none where the very
    /// same was proposed before by the same person.
    ///
    /// # Errors
    /// When it is not at that stage, or not this person's to do.
    pub fn decide(
        &self,
        id: &StripeId,
        command: ManualEntryCommand,
        act: Act,
        policy: &Policy,
        first_open: FirstOpen,
    ) -> Result<Vec<Event>, ManualEntryError> {
        match command {
            ManualEntryCommand::Propose(draft) => self.propose(id, draft, act, policy, first_open),
            ManualEntryCommand::Approve => self.approve(id, act, first_open),
            ManualEntryCommand::Reject { reason } => self.reject(id, act, reason),
        }
    }

    fn propose(
        &self,
        id: &StripeId,
        draft: Draft,
        act: Act,
        policy: &Policy,
        first_open: FirstOpen,
    ) -> Result<Vec<Event>, ManualEntryError> {
        let needs_approval = draft.needs_approval(policy);
        let Draft { description, reason, occurred_at, reverses, clears, postings } = draft;
        let Act { by, now: at } = act;
        let id = id.clone();
        let proposed = ManualEntryProposed {
            id,
            description,
            reason,
            occurred_at,
            reverses,
            clears,
            postings,
            at,
            by,
            needs_approval,
        };
        match (&self.proposed, &proposed.reverses) {
            // A reversal's id is made from the entry's, so a rejected one gives way to the next.
            (None, _) | (Some((_, Stage::Rejected)), Some(_)) => {}
            (Some(_), Some(entry_id)) => {
                return Err(ManualEntryError::ReversedAlready { entry_id: entry_id.clone(), id: proposed.id });
            }
            (Some((known, _)), None) if is_same(known, &proposed) => return Ok(Vec::new()),
            (Some(_), None) => return Err(ManualEntryError::Other { id: proposed.id }),
        }
        let mut events: Vec<Event> = vec![proposed.clone().into()];
        if !needs_approval {
            events.push(self.entry(&proposed, &events, first_open)?);
        }
        Ok(events)
    }

    fn approve(&self, id: &StripeId, act: Act, first_open: FirstOpen) -> Result<Vec<Event>, ManualEntryError> {
        let proposed = self.waiting(id)?;
        if proposed.by.is_same_person(&act.by) {
            return Err(ManualEntryError::SamePerson { id: id.clone(), by: act.by });
        }
        let mut events: Vec<Event> = vec![ManualEntryApproved { id: id.clone(), at: act.now, by: act.by }.into()];
        events.push(self.entry(proposed, &events, first_open)?);
        Ok(events)
    }

    fn reject(&self, id: &StripeId, act: Act, reason: String) -> Result<Vec<Event>, ManualEntryError> {
        self.waiting(id)?;
        if !is_reason(&reason) {
            return Err(ManualEntryError::Reason);
        }
        Ok(vec![ManualEntryRejected { id: id.clone(), at: act.now, by: act.by, reason }.into()])
    }

    /// What waits for a second person.
    fn waiting(&self, id: &StripeId) -> Result<&ManualEntryProposed, ManualEntryError> {
        match &self.proposed {
            None => Err(ManualEntryError::Unknown { id: id.clone() }),
            Some((_, Stage::Posted)) => Err(ManualEntryError::Posted { id: id.clone() }),
            Some((_, Stage::Rejected)) => Err(ManualEntryError::Rejected { id: id.clone() }),
            Some((proposed, Stage::Proposed)) => Ok(proposed),
        }
    }

    /// The entry, caused by `facts` of the same command.
    fn entry(
        &self,
        proposed: &ManualEntryProposed,
        facts: &[Event],
        first_open: FirstOpen,
    ) -> Result<Event, ManualEntryError> {
        let id = &proposed.id;
        check_postings(&proposed.postings).map_err(|source| ManualEntryError::Entry { id: id.clone(), source })?;
        let first_sequence = self.sequence + 1;
        let entry_id = entry_id(id, first_sequence, proposed.occurred_at)
            .map_err(|source| ManualEntryError::EntryId { id: id.clone(), source })?;
        let facts = (first_sequence..)
            .zip(facts)
            .map(|(sequence, fact)| FactReference { event_type: fact.type_name().to_owned(), sequence })
            .collect();
        let entry = EntryPosted {
            entry_id,
            cause: Cause { object: id.clone(), facts, stripe_event: None, clears: proposed.clears.clone() },
            description: proposed.description.clone(),
            occurred_at: proposed.occurred_at,
            effective_at: first_open.effective(proposed.occurred_at),
            postings: proposed.postings.clone(),
            activity: Vec::new(),
        };
        Ok(entry.into())
    }

    /// Takes in an event of the stream.
    pub fn evolve(&mut self, event: &Event) {
        self.sequence += 1;
        if let Event::ManualEntryProposed(proposed) = event {
            self.proposed = Some((proposed.clone(), Stage::Proposed));
        } else if let Some((_, stage)) = &mut self.proposed {
            if matches!(event, Event::EntryPosted(_)) {
                *stage = Stage::Posted;
            } else if matches!(event, Event::ManualEntryRejected(_)) {
                *stage = Stage::Rejected;
            }
        }
    }
}

/// The id of the entry that the command posts whose first event has this sequence in the stream.
///
/// # Errors
/// When the manual entry's own id leaves no room.
pub fn entry_id(id: &StripeId, first_sequence: u64, occurred_at: Timestamp) -> Result<EntryId, IdError> {
    format!("{id}:{first_sequence}:{}", occurred_at.compact()).parse()
}

/// Whether one person asked for the same twice.
fn is_same(known: &ManualEntryProposed, asked: &ManualEntryProposed) -> bool {
    let content = |of: &ManualEntryProposed| {
        let text = (of.description.clone(), of.reason.clone());
        (of.by.clone(), text, of.occurred_at, of.clears.clone(), of.postings.clone())
    };
    content(known) == content(asked)
}
