//! `cqrs_es::Aggregate` over `decide` and `evolve`: a thin adapter, so that streams load through postgres-es and decisions are
//! tested with cqrs-es's own framework.
//!
//! Aggregates are never stored themselves: the snapshot and aggregate modes of cqrs-es 0.5.0 apply events twice. So the
//! serialisation that the trait asks for refuses.

use cqrs_es::Aggregate;
use cqrs_es::event_sink::EventSink;
use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::books::Books;
use crate::event::Event;
use crate::id::StripeId;
use crate::ledgered::{LedgerCommand, LedgerError, Ledgered};
use crate::period::FirstOpen;

const NEVER_STORED: &str = "aggregates are never stored; load them from their events";

impl<B> Serialize for Ledgered<B> {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(S::Error::custom(NEVER_STORED))
    }
}

impl<'de, B> Deserialize<'de> for Ledgered<B> {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(D::Error::custom(NEVER_STORED))
    }
}

/// A command, with the object that it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addressed {
    /// The object; also its stream's id.
    pub object: StripeId,
    /// What is asked.
    pub command: LedgerCommand,
}

impl<B: Books> Aggregate for Ledgered<B> {
    const TYPE: &'static str = B::STREAM;
    type Command = Addressed;
    type Event = Event;
    type Error = LedgerError;
    /// From when on the book is open.
    type Services = FirstOpen;

    async fn handle(
        &mut self,
        command: Addressed,
        first_open: &FirstOpen,
        sink: &EventSink<Self>,
    ) -> Result<(), LedgerError> {
        for event in self.decide(&command.object, command.command, *first_open)? {
            sink.write(event, self).await;
        }
        Ok(())
    }

    fn apply(&mut self, event: Event) {
        self.evolve(&event);
    }
}
