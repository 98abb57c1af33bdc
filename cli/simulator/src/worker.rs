//! What runners do with events: the projections fold them, the managers are the real ones.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use fanledger_commands::executor::Executor;
use fanledger_commands::payouts::sender::{self, SendError, Sender};
use fanledger_commands::payouts::transaction::Transaction;
use fanledger_commands::stripe::api::StripeApiError;
use fanledger_commands::stripe::fetcher::{self, Fetcher};
use fanledger_commands::stripe::translator::{self, Translator};
use fanledger_domain::payout_run::PayoutRunId;
use fanledger_journal::event::{ChainDigest, Position, RecordedEvent};
use fanledger_journal::runner::{ApplyError, Effects};
use uuid::Uuid;

use crate::Bug;
use crate::postgres::{Connection, Gone};
use crate::stripe::Api;
use crate::tables::{BALANCES, INBOX, PAYOUTS, Tables};
use crate::vault::SimulatedVault;
use crate::world::{MILLISECOND, Micros, Node, World};
use crate::writer::SimulatedStore;

/// From the stop of a run, or the hold of a creator, until lines end: more than a request is under way for at Stripe, more than the clock of Postgres may be
/// set by, and more than whoever read the run right before needs to ask for what he then asks for. Three minutes in truth.
const SETTLED_AFTER: Duration = Duration::from_millis(1000);
/// How long a question that is answered "not yet" takes, so that it is not asked all the time.
const NOT_YET: Micros = 40 * MILLISECOND;

/// Every runner.
pub(crate) const RUNNERS: [&str; 6] = [BALANCES, INBOX, PAYOUTS, translator::NAME, fetcher::NAME, sender::NAME];
/// Those that send commands.
pub(crate) const MANAGERS: [&str; 3] = [translator::NAME, fetcher::NAME, sender::NAME];
/// Those that make tables to be read.
pub(crate) const PROJECTIONS: [&str; 3] = [BALANCES, INBOX, PAYOUTS];

/// What a runner does with events.
pub(crate) enum Worker {
    Projection(&'static str),
    Translator(Translator<SimulatedStore, SimulatedVault>),
    Fetcher(Fetcher<SimulatedStore>),
    Sender(Sender<SimulatedStore>),
}

pub(crate) enum ApplyFailure {
    Transient,
    /// The sender found at Stripe what the journal has lost: a person has to look.
    LostFuture,
    /// An event that cannot be applied. There is none in any history, so to find one is a failure of the run.
    Poison(String),
}

/// The sender's transaction, in its runner's session.
struct Open<'a> {
    node: &'a Node,
    connection: &'a Connection,
}

fn lost(_: Gone) -> sqlx::Error {
    sqlx::Error::WorkerCrashed
}

impl Transaction for Open<'_> {
    async fn journal_id(&mut self) -> Result<Uuid, sqlx::Error> {
        self.connection.run(self.node, "reads which journal this is", |world| world.journal.id).await.map_err(lost)
    }

    async fn has_passed(&mut self, recorded_at: DateTime<Utc>, span: Duration) -> Result<bool, sqlx::Error> {
        let from = recorded_at.timestamp_micros() + i64::try_from(span.as_micros()).unwrap_or(i64::MAX / 2);
        let asks = |world: &mut World| world.now + world.skew >= from;
        let has_passed = self.connection.run(self.node, "asks how long ago it was", asks).await.map_err(lost)?;
        if !has_passed {
            self.node.sleep(NOT_YET).await;
        }
        Ok(has_passed)
    }
}

impl Worker {
    /// What a runner of this name does.
    pub fn new(name: &'static str, node: &Node) -> Self {
        let executor = || Executor::over(SimulatedStore::new(node.clone()));
        let api = || Arc::new(Api::new(node.clone()));
        match name {
            translator::NAME => Self::Translator(Translator::new(executor(), SimulatedVault::new(node.clone()), false)),
            fetcher::NAME => Self::Fetcher(Fetcher::new(executor(), Some(api()))),
            sender::NAME => {
                let clock = node.clone();
                let time = move || DateTime::from_timestamp_micros(clock.world().now).unwrap_or_default();
                Self::Sender(Sender::new(executor(), Some(api())).settled_after(SETTLED_AFTER).with_clock(time))
            }
            projection => Self::Projection(projection),
        }
    }

    pub const fn name(&self) -> &'static str {
        match self {
            Self::Projection(name) => name,
            Self::Translator(_) => translator::NAME,
            Self::Fetcher(_) => fetcher::NAME,
            Self::Sender(_) => sender::NAME,
        }
    }

    fn wants(&self, event_type: &str) -> bool {
        match self {
            Self::Projection(_) => true,
            Self::Translator(_) => translator::wants(event_type),
            Self::Fetcher(_) => fetcher::wants(event_type),
            Self::Sender(_) => sender::wants(event_type),
        }
    }

    const fn sends_commands(&self) -> bool {
        match self {
            Self::Projection(_) => false,
            Self::Translator(_) | Self::Fetcher(_) | Self::Sender(_) => true,
        }
    }

    /// Where the journal ends by now, as a checkpoint that moves notes it.
    pub fn head(&self, world: &World) -> (Position, ChainDigest) {
        let head = world.journal.head();
        let is_noted = self.sends_commands() && world.plant != Some(Bug::HeadForgotten);
        if is_noted { (head.position, head.chain) } else { (Position::START, ChainDigest::START) }
    }

    pub async fn apply(
        &self,
        node: &Node,
        connection: &Connection,
        batch: &[Arc<RecordedEvent>],
        effects: Effects,
        tables: &mut Tables,
    ) -> Result<(), ApplyFailure> {
        let wanted: Vec<Arc<RecordedEvent>> =
            batch.iter().filter(|event| self.wants(&event.event_type)).cloned().collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let applied = match (self, tables) {
            (Self::Projection(_), tables) => {
                let world = node.world();
                for event in &wanted {
                    let recorded = world.journal.ever(event.chain);
                    let folded =
                        recorded.map_or_else(|| Err("an event from nowhere".to_owned()), |known| tables.fold(known));
                    folded.map_err(ApplyFailure::Poison)?;
                }
                return Ok(());
            }
            (Self::Translator(translator), Tables::Links(links)) => translator.step(&wanted, effects, links).await,
            (Self::Fetcher(fetcher), _) => fetcher.step(&wanted, effects, &mut ()).await,
            (Self::Sender(sender), _) => return send(node, connection, sender, &wanted, effects).await,
            (Self::Translator(_), Tables::Balances(_) | Tables::Inbox(_) | Tables::Payouts(_) | Tables::None) => Ok(()),
        };
        applied.map_err(failure)
    }
}

fn failure(error: ApplyError) -> ApplyFailure {
    if error.transient {
        return ApplyFailure::Transient;
    }
    ApplyFailure::Poison(format!("{error}: {}", error.source))
}

/// One event at a time, so that it is known which run a failure is of. That Stripe has something that the journal has not is found
/// before anything is asked for, and only where a restore has lost what was asked for.
async fn send(
    node: &Node,
    connection: &Connection,
    sender: &Sender<SimulatedStore>,
    batch: &[Arc<RecordedEvent>],
    effects: Effects,
) -> Result<(), ApplyFailure> {
    for event in batch {
        let Ok(run) = event.stream.aggregate_id.parse::<PayoutRunId>() else {
            return Err(ApplyFailure::Poison(format!("{} is no payout run", event.stream)));
        };
        let asked = node.world().stripe.transfers.asked_by(node.process, run);
        let sent = sender.step(std::slice::from_ref(event), effects, &mut Open { node, connection }).await;
        let Err(error) = sent else { continue };
        let mut world = node.world();
        let restores = world.counts.restores;
        let is_lost_future = match error.source.downcast_ref::<SendError>() {
            Some(SendError::Mismatch { .. }) if world.stripe.transfers.asked_by(node.process, run) > asked => {
                world.fail(format!("{run}: {}, which was not found before something was asked for", error.source));
                false
            }
            Some(SendError::Mismatch { .. } | SendError::Stripe { source: StripeApiError::KeyReused, .. }) => {
                world.stripe.transfers.may_be_of_a_lost_future(restores)
            }
            Some(_) | None => false,
        };
        if is_lost_future {
            world.mismatched.insert(run);
            world.counts.lost_futures += 1;
            return Err(ApplyFailure::LostFuture);
        }
        return Err(failure(error));
    }
    Ok(())
}
