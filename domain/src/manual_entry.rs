//! Entries that finance makes by hand: for what Stripe does not know, and to take an entry back. Stream `manual_entry/<id>`.

use crate::entry::Posting;
use crate::event::payload;
use crate::id::{EntryId, StripeId, Subject};
use crate::time::Timestamp;

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
