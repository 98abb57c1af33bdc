//! What an operator or finance starts by hand: translate again, list Stripe's balance transactions, converge, release.
//!
//! All of them may be stopped and started again at any time: what was done is done, and the rest follows.

use chrono::{DateTime, Utc};
use fanledger_domain::books::Books;
use fanledger_domain::books::balance_transaction::OwnBalanceTransaction;
use fanledger_domain::books::charge::Charge;
use fanledger_domain::books::platform::{ApplicationFee, Payout, Topup, Transfer};
use fanledger_domain::books::satellite::{Dispute, FeeRefund, Refund, Satellite, TransferReversal};
use fanledger_domain::event::{ChargeReleased, Event, StripeEventReceived};
use fanledger_domain::id::{IdError, StripeId};
use fanledger_domain::ledgered::LedgerCommand;
use fanledger_domain::period::FirstOpen;
use fanledger_domain::time::Timestamp;
use fanledger_journal::checkpoint::with_causes;
use fanledger_journal::event::{Metadata, Position, RecordedEvent};
use fanledger_journal::reader::{ReadError, Reader};

use crate::executor::{ExecuteError, Executor, STRIPE_EVENT};
use crate::store::Store;
use crate::stripe::api::{StripeApi, StripeApiError};
use crate::stripe::delivery::of_balance_transaction;
use crate::stripe::translator::{JudgeError, Verdict, judge, nothing_refused, refused, untranslatable};
use crate::stripe::{SYNC_ACTOR, TRANSLATOR_ACTOR, acted_by, caused_by};
use crate::vault::{Bodies as _, Vault, VaultError};

/// Streams or events read at a time.
const PAGE: u32 = 500;
/// Bytes of payload read at a time.
const PAGE_BYTES: u64 = 8 * 1024 * 1024;

/// Why an operation stopped. What it had done by then stays done.
#[derive(Debug, thiserror::Error)]
pub enum OperationError {
    /// The journal could not be read.
    #[error("read the journal")]
    Read(#[from] ReadError),
    /// The charges could not be listed.
    #[error("list the charges that were not released yet")]
    Charges(#[source] sqlx::Error),
    /// A command failed.
    #[error("execute a command")]
    Execute(#[from] ExecuteError),
    /// A raw event could not be opened.
    #[error("translate a raw event")]
    Judge(#[from] JudgeError),
    /// The vault could not be asked for keys.
    #[error("read keys from the vault")]
    Vault(#[from] VaultError),
    /// Stripe did not answer.
    #[error("list balance transactions")]
    Stripe(#[from] StripeApiError),
    /// A stream's id names no object at Stripe.
    #[error("stream id in the journal is not an id at Stripe")]
    StreamId(#[from] IdError),
}

/// What translating again came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Retranslated {
    /// Raw events looked at.
    pub events: u64,
    /// Of these, that this program cannot decode: it is older than they are, or they were damaged. Nothing was done about them.
    pub unreadable: u64,
    /// Of these, with facts.
    pub translated: u64,
    /// Of these, without.
    pub not_translated: u64,
    /// Facts refused by the ledger.
    pub refused: u64,
    /// Events appended that were not known before: facts, entries, reasons.
    pub appended: u64,
}

/// Which raw events to translate again.
#[derive(Clone, Debug, Default)]
pub struct RetranslateFilter {
    /// Only events of this Stripe type.
    pub event_type: Option<String>,
    /// Only events received at or after this instant.
    pub since: Option<DateTime<Utc>>,
}

/// Translates raw events again; only the difference to what was posted is posted.
pub async fn retranslate(
    executor: &Executor,
    reader: &Reader,
    vault: &Vault,
    livemode: bool,
    filter: &RetranslateFilter,
    mut progress: impl FnMut(Position),
) -> Result<Retranslated, OperationError> {
    let mut done = Retranslated::default();
    let head = reader.head().await?.position;
    let mut position = Position::START;
    while position < head {
        let page = reader.after(position, PAGE, PAGE_BYTES).await?;
        let Some(last) = page.last() else { break };
        position = last.position;
        let (raw, unreadable) = wanted(&page, filter);
        done.events += unreadable;
        done.unreadable += unreadable;
        let ids: Vec<&str> = raw.iter().map(|received| received.id.as_str()).collect();
        let keys = vault.keys(STRIPE_EVENT, &ids).await?;
        for received in &raw {
            done.events += 1;
            let metadata = caused_by(TRANSLATOR_ACTOR, &received.id);
            let verdict = judge(vault, &keys, received, livemode)?;
            perform(executor, &received.id, verdict, &metadata, &mut done).await?;
        }
        progress(position);
    }
    Ok(done)
}

/// The raw events of a page that the filter lets through, and how many there are of which that cannot be told: they may be wanted,
/// whatever Stripe's type is asked for.
fn wanted(page: &[RecordedEvent], filter: &RetranslateFilter) -> (Vec<StripeEventReceived>, u64) {
    let (mut raw, mut unreadable) = (Vec::new(), 0);
    let is_recent = |recorded: &&RecordedEvent| filter.since.is_none_or(|since| recorded.recorded_at >= since);
    for recorded in page.iter().filter(|recorded| recorded.event_type == StripeEventReceived::TYPE).filter(is_recent) {
        match Event::decode(&recorded.event_type, &recorded.event_version, &recorded.payload) {
            Ok(Event::StripeEventReceived(received)) => {
                if filter.event_type.is_none() || filter.event_type == received.event_type {
                    raw.push(received);
                }
            }
            // A receipt's type decodes to a receipt.
            Ok(_) => unreadable += 1,
            Err(error) => {
                let (position, error) = (recorded.position, with_causes(&error));
                tracing::error!(%position, error, "a stored webhook cannot be decoded, and is not translated again");
                unreadable += 1;
            }
        }
    }
    (raw, unreadable)
}

async fn perform(
    executor: &Executor,
    id: &StripeId,
    verdict: Verdict,
    metadata: &Metadata,
    done: &mut Retranslated,
) -> Result<(), OperationError> {
    let deliveries = match verdict {
        Verdict::Nothing(fact) => {
            done.not_translated += 1;
            done.appended += executor.record_not_translated(fact, metadata).await?.events.len() as u64;
            return Ok(());
        }
        Verdict::Facts(deliveries) => deliveries,
    };
    done.translated += 1;
    let mut refusal = None;
    for delivery in deliveries {
        let object = delivery.object.clone();
        let delivered = executor.deliver(delivery, Some(id), metadata).await;
        // What a satellite holds is of its webhooks, too, and its owner may have refused it.
        let handed_on = executor.hand_on(&object, &acted_by(TRANSLATOR_ACTOR)).await;
        for executed in [delivered, handed_on] {
            match executed {
                Ok(executed) => done.appended += executed.events.len() as u64,
                Err(error) if error.is_transient() => return Err(error.into()),
                Err(error) => {
                    done.refused += 1;
                    refusal = Some(refused(&error, Some(id)));
                }
            }
        }
    }
    // That it carries facts does not say that none was refused, then or now: this word does.
    let recorded = match refusal {
        Some(detail) => executor.record_not_translated(untranslatable(id.clone(), detail), metadata).await?,
        None => executor.record_nothing_refused(nothing_refused(id.clone()), metadata).await?,
    };
    done.appended += recorded.events.len() as u64;
    Ok(())
}

/// What listing Stripe's balance transactions came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Synced {
    /// Balance transactions listed.
    pub listed: u64,
    /// Of these, not known before.
    pub new: u64,
    /// Entries posted for them.
    pub entries: u64,
    /// Ids of those that could not be read or were refused; raised.
    pub failed: Vec<String>,
}

/// Lists Stripe's balance transactions since an instant and takes in those that are not known: the only way to Stripe's own fees
/// and reserves.
pub async fn sync<S: Store>(
    executor: &Executor<S>,
    stripe: &dyn StripeApi,
    since: Option<Timestamp>,
    mut progress: impl FnMut(&Synced),
) -> Result<Synced, OperationError> {
    let mut done = Synced::default();
    let mut after = None;
    loop {
        let page = stripe.balance_transactions(since, after.as_deref()).await?;
        done.failed.extend(page.unreadable);
        for transaction in page.transactions {
            done.listed += 1;
            let id = transaction.id.to_string();
            match executor.deliver_all(of_balance_transaction(None, transaction), None, &acted_by(SYNC_ACTOR)).await {
                Ok(executed) => {
                    done.new += u64::from(!executed.events.is_empty());
                    done.entries += entries(&executed.events);
                }
                Err(error) if error.is_transient() => return Err(error.into()),
                Err(error) => {
                    tracing::error!(
                        transaction = id,
                        error = with_causes(&error),
                        "a listed balance transaction was refused"
                    );
                    done.failed.push(id);
                }
            }
        }
        progress(&done);
        match page.after {
            Some(next) => after = Some(next),
            None => return Ok(done),
        }
    }
}

fn entries(events: &[Event]) -> u64 {
    events.iter().filter(|event| matches!(event, Event::EntryPosted(_))).count() as u64
}

/// What converging came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Converged {
    /// Objects whose books were evaluated again.
    pub objects: u64,
    /// Objects whose books differ from what was posted.
    pub differing: Vec<String>,
    /// Entries posted; in a dry run, that would be.
    pub entries: u64,
    /// Objects whose books cannot be posted, with the reason.
    pub refused: Vec<(String, String)>,
}

/// Evaluates every object's books again and posts what they differ by, as entries of their own.
pub async fn converge(
    executor: &Executor,
    reader: &Reader,
    actor: &str,
    dry_run: bool,
    mut progress: impl FnMut(&Converged),
) -> Result<Converged, OperationError> {
    let mut done = Converged::default();
    let first_open = executor.first_open().await?;
    let mut run = Converge { executor, reader, actor, dry_run, first_open, done: &mut done, progress: &mut progress };
    run.kind::<Charge>().await?;
    run.kind::<Satellite<Refund>>().await?;
    run.kind::<Satellite<Dispute>>().await?;
    run.kind::<Transfer>().await?;
    run.kind::<Satellite<TransferReversal>>().await?;
    run.kind::<Payout>().await?;
    run.kind::<ApplicationFee>().await?;
    run.kind::<Satellite<FeeRefund>>().await?;
    run.kind::<Topup>().await?;
    run.kind::<OwnBalanceTransaction>().await?;
    Ok(done)
}

struct Converge<'a, P> {
    executor: &'a Executor,
    reader: &'a Reader,
    actor: &'a str,
    dry_run: bool,
    /// Of a dry run.
    first_open: FirstOpen,
    done: &'a mut Converged,
    progress: &'a mut P,
}

impl<P: FnMut(&Converged)> Converge<'_, P> {
    async fn kind<B: Books>(&mut self) -> Result<(), OperationError> {
        let mut after = String::new();
        loop {
            let ids = self.reader.stream_ids(B::STREAM, &after, PAGE).await?;
            let Some(last) = ids.last() else { return Ok(()) };
            after.clone_from(last);
            for id in &ids {
                self.object::<B>(&id.parse()?).await?;
            }
            (self.progress)(self.done);
        }
    }

    async fn object<B: Books>(&mut self, object: &StripeId) -> Result<(), OperationError> {
        self.done.objects += 1;
        let decided = if self.dry_run {
            let aggregate = self.executor.load::<B>(object).await?;
            aggregate.decide(object, LedgerCommand::Converge, self.first_open).map_err(ExecuteError::Refused)
        } else {
            let executed = self.executor.execute::<B>(object, LedgerCommand::Converge, &acted_by(self.actor)).await;
            executed.map(|executed| executed.events)
        };
        self.note(object, decided)?;
        if !self.dry_run {
            // What a satellite's owner has refused is in nobody's books.
            let handed_on = self.executor.hand_on(object, &acted_by(self.actor)).await;
            self.note(object, handed_on.map(|executed| executed.events))?;
        }
        Ok(())
    }

    fn note(&mut self, object: &StripeId, decided: Result<Vec<Event>, ExecuteError>) -> Result<(), OperationError> {
        match decided {
            Ok(events) => {
                if !events.is_empty() {
                    self.done.differing.push(object.to_string());
                }
                self.done.entries += entries(&events);
                Ok(())
            }
            Err(ExecuteError::Refused(reason)) => {
                self.done.refused.push((object.to_string(), with_causes(&reason)));
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// What a release came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Released {
    /// Charges looked at: those that were not released yet.
    pub charges: u64,
    /// Charges released.
    pub released: u64,
    /// Entries posted.
    pub entries: u64,
    /// Charges whose release cannot be posted, with the reason.
    pub refused: Vec<(String, String)>,
}

/// A page of charges, and whether each was released. A charge is released once; so of the others alone the events need be read,
/// which are most of what it would cost. The index of streams has no event types: for each charge its rows are looked at, newest first
/// and without their payloads. As in `journal.append`, ORDER BY … LIMIT 1 leaves the planner nothing but that index; an EXISTS could
/// be hashed, by a scan of all events for each page.
const CHARGES: &str = "SELECT s.aggregate_id, coalesce((
     SELECT true FROM journal.events AS e
     WHERE e.aggregate_type = $1 AND e.aggregate_id = s.aggregate_id AND e.event_type = $4
     ORDER BY e.sequence DESC LIMIT 1), false)
 FROM (SELECT aggregate_id FROM journal.events WHERE aggregate_type = $1 AND aggregate_id > $2 AND sequence = 1
       ORDER BY aggregate_id LIMIT $3) AS s
 ORDER BY s.aggregate_id";

/// Releases each charge whose money is available by `through`. One that is refused holds up no other.
pub async fn release(
    executor: &Executor,
    reader: &Reader,
    actor: &str,
    through: Timestamp,
    mut progress: impl FnMut(&Released),
) -> Result<Released, OperationError> {
    let mut done = Released::default();
    let mut after = String::new();
    loop {
        let charges: Vec<(String, bool)> = sqlx::query_as(CHARGES)
            .bind(Charge::STREAM)
            .bind(&after)
            .bind(i64::from(PAGE))
            .bind(ChargeReleased::TYPE)
            .fetch_all(reader.pool())
            .await
            .map_err(OperationError::Charges)?;
        let Some((last, _)) = charges.last() else { return Ok(done) };
        after.clone_from(last);
        for (id, _) in charges.iter().filter(|(_, is_released)| !is_released) {
            done.charges += 1;
            match executor.release(&id.parse()?, through, &acted_by(actor)).await {
                Ok(executed) => {
                    done.released += u64::from(!executed.events.is_empty());
                    done.entries += entries(&executed.events);
                }
                Err(ExecuteError::Refused(reason)) => done.refused.push((id.clone(), with_causes(&reason))),
                Err(error) => return Err(error.into()),
            }
        }
        progress(&done);
    }
}
