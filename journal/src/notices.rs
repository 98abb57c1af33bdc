//! Sees the warnings that Postgres sends with an answer.
//!
//! sqlx 0.8 hands notices to nobody: it writes each to the log, with the target `sqlx::postgres::notice`. So a call that
//! must not miss a warning is polled under a log subscriber of its own, which keeps the warning (ADR 0002).

use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};

use tracing::field::{Field, Visit};
use tracing::instrument::WithSubscriber;
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Dispatch, Event, Level, Metadata, Subscriber};

const TARGET: &str = "sqlx::postgres::notice";

/// Catches the first warning of each call that it watches.
pub(crate) struct WarningTrap {
    dispatch: Dispatch,
    caught: Arc<Mutex<Option<String>>>,
}

impl WarningTrap {
    pub fn new() -> Self {
        let caught = Arc::new(Mutex::new(None));
        Self { dispatch: Dispatch::new(Trap { caught: Arc::clone(&caught) }), caught }
    }

    /// Runs a call; answers its result, and the first warning that came with it.
    pub async fn watch<F: Future>(&self, call: F) -> (F::Output, Option<String>) {
        let output = call.with_subscriber(self.dispatch.clone()).await;
        (output, self.caught.lock().unwrap_or_else(PoisonError::into_inner).take())
    }
}

struct Trap {
    caught: Arc<Mutex<Option<String>>>,
}

impl Subscriber for Trap {
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        // Never `never`: what this subscriber does not want, others may.
        Interest::sometimes()
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == TARGET && *metadata.level() <= Level::WARN
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::WARN)
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut message = Message(String::new());
        event.record(&mut message);
        self.caught.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(message.0);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}
