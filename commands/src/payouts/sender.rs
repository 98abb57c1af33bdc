//! Sends the transfers of approved runs, each once, whatever breaks off where.
//!
//! First the transfer groups of all lines that have not ended are looked up at Stripe, then those of a few lines that this journal
//! has not: beyond the run's last, and of the runs after it. A transfer that is not what was approved, or of a line that is not there,
//! is the trace of a future that this journal has lost (it was restored to an earlier moment). Then nothing is made at all, since what
//! is made beside it may be paid twice. Only after that the transfers are asked for, eight at a time. For each line, in this order: it
//! has ended → nothing. Else it was found → that is it; else the creator's hold is looked at; else Stripe is asked to make it. The
//! answer is recorded first as the transfer's own fact, so that the books hold it at once, then as the line's end.
//!
//! The transfer group and the `Idempotency-Key` are the same text, unique to journal, run and line. The key makes a request that
//! is sent twice within a day one transfer, also while the first is still under way; Stripe forgets keys after 24 hours at the
//! earliest, and from then on the group finds what was made. Asked always, so that there is one way through here: a request more
//! for each line, and no clock that has to be right.
//!
//! A line is not looked up a second time right before it is asked for. What was made before this attempt was there to be found. What
//! was still under way then is young, so its key is known for a day, and an attempt is over in three hours at most: 500 lines by
//! eights, twice, each for as long as its tries take. Whoever was suspended for longer is kept from going on by looking at the run,
//! and at each line, again before each eight: another has ended them by then. A kill begins the whole attempt anew.
//!
//! A run that was stopped is ended by the event that says so, not by its approval: that may have been passed over, and what it began
//! may still be under way. Nothing is asked for from then on. Once whatever was asked for before must have come to its end, all lines
//! are looked up; what was made as approved is sent, everything else failed ([`STOPPED`]). A transfer that is another's is recorded as
//! its own fact all the same: the books must hold it before the next run is reckoned. The run is finished by then, and only by then may
//! another be proposed.
//!
//! What may pass (no answer, 409, 429, 5xx) records nothing and is tried again for as long as it takes. What Stripe refuses ends
//! the line as failed; the money stays available and the next run takes it. A refusal of the key, an answer that cannot be read,
//! and a transfer that is not what was asked for halt this manager, with the reason in its status: nothing more is sent until a
//! person has looked.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use fanledger_domain::event::{Event, TransferObserved};
use fanledger_domain::facts::{EventStamp, TransferSnapshot};
use fanledger_domain::payout_run::hold::CreatorPayouts;
use fanledger_domain::payout_run::line::{Line, LineEnd};
use fanledger_domain::payout_run::run::{PayoutRun, Stage};
use fanledger_domain::payout_run::{
    PayoutLine, PayoutRunApproved, PayoutRunId, PayoutRunStopped, PayoutTransferFailed, PayoutTransferSent,
};
use fanledger_domain::time::{Timestamp, TimestampError};
use fanledger_journal::event::{Metadata, RecordedEvent, StreamId};
use fanledger_journal::runner::{ApplyError, Effects, Projection, Schema};
use futures::future::join_all;
use sqlx::{PgConnection, types::Uuid};

use crate::executor::{ActError, ExecuteError, Executor};
use crate::metrics::transfer;
use crate::payouts::desk::{creator_stream, run_stream};
use crate::payouts::transaction::Transaction;
use crate::store::{JournalStore, Store};
use crate::stripe::api::{Created, StripeApi, StripeApiError, TransferRequest};
use crate::stripe::delivery::Delivery;

/// The runner's name.
pub const NAME: &str = "payout_sender";
/// The actor that its events carry.
pub const ACTOR: &str = "system:payout_sender";
/// How a line ends whose creator is held between proposal and sending.
pub const HELD: &str = "payouts_held";
/// How a line ends that was not sent when its run was stopped.
pub const STOPPED: &str = "run_stopped";
/// From a stop until its lines end. What was asked for right before it is tried for 65 s at most (five times ten seconds, and a quarter
/// of a minute between them), and Stripe may be at the last of it when this process is killed.
const SETTLED_AFTER: Duration = Duration::from_secs(180);
/// Requests under way at once; Stripe allows 100 reads and 100 writes a second in live mode, 25 in test mode.
const CONCURRENCY: usize = 8;
/// Of lines that are not there, as many are looked up: beyond the last of the run, and the first ones of each run after it. More than
/// one, since a line may have failed; and 16 look-ups in all, which is nothing beside the run's own.
const AHEAD_LINES: usize = 4;
/// Of so many runs after it: one may have been cancelled, or have claimed only.
const AHEAD_RUNS: usize = 3;

/// See the module.
pub struct Sender<S = JournalStore> {
    executor: Executor<S>,
    stripe: Option<Arc<dyn StripeApi>>,
    settled_after: Duration,
    clock: Clock,
}

/// What tells the time of what is recorded.
type Clock = Arc<dyn Fn() -> DateTime<Utc> + Send + Sync>;

/// Why a line did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// A stream could not be read or appended to.
    #[error("load the payout run, or record what became of a line")]
    Execute(#[from] ExecuteError),
    /// Stripe did not answer, or refuses the key.
    #[error("ask Stripe for the transfer of {line}")]
    Stripe {
        /// The line.
        line: String,
        /// What it said.
        #[source]
        source: StripeApiError,
    },
    /// There is no key to ask Stripe with.
    #[error(
        "{0} is to be sent, or ended, and there is no key to Stripe's API to do it with: set FANLEDGER_STRIPE_API_KEY, start the \
         manager again, then run `fanledger projections resume {NAME}`; nothing was asked for"
    )]
    NoKey(PayoutRunId),
    /// What was asked for before the run was stopped may not have come to its end.
    #[error("{run} was stopped less than {} s ago: what was asked of Stripe before may still be made", .settled_after.as_secs())]
    Settling {
        /// The run.
        run: PayoutRunId,
        /// For how long that is so.
        settled_after: Duration,
    },
    /// Postgres did not say how long ago the run was stopped.
    #[error("tell how long ago {run} was stopped")]
    Age {
        /// The run.
        run: PayoutRunId,
        /// What it said.
        #[source]
        source: sqlx::Error,
    },
    /// What is at Stripe under this line's name is something else.
    #[error(
        "Stripe's {transfer} stands for {line} and is not what was approved ({what}): was the journal restored? See \
         docs/runbooks/payouts.md"
    )]
    Mismatch {
        /// The line.
        line: String,
        /// The transfer at Stripe.
        transfer: String,
        /// In what it differs.
        what: &'static str,
    },
    /// This machine's clock is out of the calendar.
    #[error("tell the time")]
    Clock(#[source] TimestampError),
    /// The journal's id could not be read.
    #[error("read which journal this is")]
    Journal(#[source] sqlx::Error),
}

impl SendError {
    fn is_transient(&self) -> bool {
        match self {
            Self::Execute(error) => error.is_transient(),
            Self::Stripe { source, .. } => source.may_pass(),
            Self::Settling { .. } => true,
            Self::NoKey(_) | Self::Mismatch { .. } | Self::Clock(_) => false,
            Self::Journal(error) | Self::Age { source: error, .. } => fanledger_journal::runner::is_transient(error),
        }
    }
}

impl From<ActError<Infallible>> for SendError {
    fn from(error: ActError<Infallible>) -> Self {
        match error {
            ActError::Refused(never) => match never {},
            ActError::Failed(error) => Self::Execute(error),
        }
    }
}

/// What is to be done with a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Errand {
    /// It is approved: make its transfers.
    Send,
    /// It is stopped: make none, and end the lines that are left.
    Stop,
}

impl Errand {
    /// Where the run stands for as long as that is to be done.
    const fn stage(self) -> Stage {
        match self {
            Self::Send => Stage::Approved,
            Self::Stop => Stage::Stopped,
        }
    }
}

/// A run under way.
struct Sending<'a> {
    errand: Errand,
    stripe: &'a dyn StripeApi,
    journal: Uuid,
    run: PayoutRunId,
    metadata: Metadata,
}

impl Sending<'_> {
    /// What Stripe knows a line's transfer by: its group and its key.
    fn reference(&self, line: &str) -> String {
        format!("fanledger-payout-{}-{line}", self.journal)
    }

    /// The transfers at Stripe under a line's name.
    async fn transfers_of(&self, line: &str) -> Result<Vec<TransferSnapshot>, SendError> {
        let there = self.stripe.transfers_of_group(&self.reference(line)).await;
        there.map_err(|source| SendError::Stripe { line: line.to_owned(), source })
    }
}

/// What a line was found to be before anything was asked for.
enum Look {
    /// It has ended.
    Ended(LineEnd),
    /// It has not, and these are at Stripe under its name.
    Open(Vec<TransferSnapshot>),
}

impl<S: Store> Sender<S> {
    /// A sender that asks `stripe`, where there is a key for it.
    pub fn new(executor: Executor<S>, stripe: Option<Arc<dyn StripeApi>>) -> Self {
        Self { executor, stripe, settled_after: SETTLED_AFTER, clock: Arc::new(Utc::now) }
    }

    /// The same, for tests: the lines of a run end so long after it was stopped.
    #[must_use]
    pub fn settled_after(self, settled_after: Duration) -> Self {
        Self { settled_after, ..self }
    }

    /// The same, where time is made up.
    #[must_use]
    pub fn with_clock(self, clock: impl Fn() -> DateTime<Utc> + Send + Sync + 'static) -> Self {
        Self { clock: Arc::new(clock), ..self }
    }

    /// Sends the runs that a batch approves, and ends those that it stops, where effects are live.
    ///
    /// # Errors
    /// As [`Projection::apply`].
    pub async fn step(
        &self,
        batch: &[Arc<RecordedEvent>],
        effects: Effects,
        connection: &mut impl Transaction,
    ) -> Result<(), ApplyError> {
        if effects == Effects::Muted {
            return Ok(());
        }
        for recorded in batch {
            let run = recorded
                .stream
                .aggregate_id
                .parse::<PayoutRunId>()
                .map_err(|error| ApplyError::poison(recorded.position, error))?;
            let done = if recorded.event_type == PayoutRunStopped::TYPE {
                self.stop(run, recorded.recorded_at, connection).await
            } else {
                self.send(run, connection).await
            };
            done.map_err(|error| {
                if error.is_transient() {
                    ApplyError::transient(error)
                } else {
                    ApplyError::poison(recorded.position, error)
                }
            })?;
        }
        Ok(())
    }

    /// Sends what is left of an approved run. `connection` idles while Stripe is asked, and is kept awake.
    async fn send(&self, run: PayoutRunId, connection: &mut impl Transaction) -> Result<(), SendError> {
        let Some((known, sending)) = self.begin(run, Errand::Send, connection).await? else { return Ok(()) };
        let looks = self.look_up(&sending, known.lines(), connection).await?;
        let mut is_complete = true;
        for (line, look) in known.lines().iter().zip(&looks) {
            if let Look::Open(there) = look {
                is_complete &= approved_one(&run.line(line.line), line, there)?.is_some();
            }
        }
        if !is_complete {
            check_ahead(&sending, known.lines().len(), connection).await?;
        }
        self.end(&sending, known.lines(), &looks, connection).await
    }

    /// Ends what is left of a run that was stopped at `recorded_at`, by the clock of Postgres.
    async fn stop(
        &self,
        run: PayoutRunId,
        recorded_at: DateTime<Utc>,
        connection: &mut impl Transaction,
    ) -> Result<(), SendError> {
        let Some((known, sending)) = self.begin(run, Errand::Stop, connection).await? else { return Ok(()) };
        let is_settled = connection.has_passed(recorded_at, self.settled_after).await;
        if !is_settled.map_err(|source| SendError::Age { run, source })? {
            return Err(SendError::Settling { run, settled_after: self.settled_after });
        }
        let looks = self.look_up(&sending, known.lines(), connection).await?;
        self.end(&sending, known.lines(), &looks, connection).await
    }

    /// The run, and what is needed to ask for its transfers; `None` where there is nothing to be done with it, or something else.
    async fn begin(
        &self,
        run: PayoutRunId,
        errand: Errand,
        connection: &mut impl Transaction,
    ) -> Result<Option<(PayoutRun, Sending<'_>)>, SendError> {
        let known: PayoutRun = self.executor.known(&run_stream(run), PayoutRun::evolve).await?;
        if known.stage() != Some(errand.stage()) {
            return Ok(None);
        }
        let stripe = self.stripe.as_deref().ok_or(SendError::NoKey(run))?;
        let journal = journal_id(connection).await?;
        let metadata =
            Metadata { actor: Some(ACTOR.to_owned()), correlation_id: Some(run.to_string()), ..Metadata::default() };
        Ok(Some((known, Sending { errand, stripe, journal, run, metadata })))
    }

    /// Brings every line to its end, then the run. Before each eight the run is looked at again: it may have been stopped.
    async fn end(
        &self,
        sending: &Sending<'_>,
        lines: &[PayoutLine],
        looks: &[Look],
        connection: &mut impl Transaction,
    ) -> Result<(), SendError> {
        let stream = run_stream(sending.run);
        let (mut sent, mut failed, mut first_error) = (0, 0, None);
        for lines in lines.iter().zip(looks).collect::<Vec<_>>().chunks(CONCURRENCY) {
            let known: PayoutRun = self.executor.known(&stream, PayoutRun::evolve).await?;
            if known.stage() != Some(sending.errand.stage()) {
                return Ok(());
            }
            // Each is let come to its end, so that what was asked of Stripe is not dropped half-way for want of another.
            let mut asked = Vec::new();
            for (line, look) in lines {
                asked.push(self.end_line(sending, line, look));
            }
            let mut ended = 0;
            for end in join_all(asked).await {
                match end {
                    Ok(LineEnd::Sent) => sent += 1,
                    Ok(LineEnd::Failed) => failed += 1,
                    Err(error) if error.is_transient() => {
                        first_error.get_or_insert(error);
                        continue;
                    }
                    Err(error) => return Err(error),
                }
                ended += 1;
            }
            // One stubborn line does not hold up the others; where none of several gets through, nobody will.
            if ended == 0 {
                break;
            }
            journal_id(connection).await?;
        }
        if let Some(error) = first_error {
            return Err(error);
        }
        let now = self.now()?;
        let finish = |known: &PayoutRun, _| Ok::<_, Infallible>(known.finish(sending.run, sent, failed, now));
        self.executor.act(&stream, &sending.metadata, PayoutRun::evolve, finish).await?;
        Ok(())
    }

    /// Looks all lines up, before anything is asked for.
    async fn look_up(
        &self,
        sending: &Sending<'_>,
        lines: &[PayoutLine],
        connection: &mut impl Transaction,
    ) -> Result<Vec<Look>, SendError> {
        let mut looks = Vec::with_capacity(lines.len());
        for lines in lines.chunks(CONCURRENCY) {
            let mut asked = Vec::new();
            for line in lines {
                asked.push(self.look(sending, line));
            }
            for look in join_all(asked).await {
                looks.push(look?);
            }
            journal_id(connection).await?;
        }
        Ok(looks)
    }

    async fn look(&self, sending: &Sending<'_>, line: &PayoutLine) -> Result<Look, SendError> {
        let name = sending.run.line(line.line);
        let known: Line = self.executor.known(&line_stream(&name), Line::evolve).await?;
        match known.end() {
            Some(end) => Ok(Look::Ended(end)),
            None => Ok(Look::Open(sending.transfers_of(&name).await?)),
        }
    }

    async fn end_line(&self, sending: &Sending<'_>, line: &PayoutLine, look: &Look) -> Result<LineEnd, SendError> {
        let there = match look {
            Look::Ended(end) => return Ok(*end),
            Look::Open(there) => there,
        };
        let name = sending.run.line(line.line);
        let stream = line_stream(&name);
        let known: Line = self.executor.known(&stream, Line::evolve).await?;
        if let Some(end) = known.end() {
            return Ok(end);
        }
        let made = match sending.errand {
            Errand::Send => self.make(sending, &name, line, there).await?,
            Errand::Stop => self.leave(sending, &name, line, there).await?,
        };
        let (end, event) = match made {
            Created::Made(transfer) => {
                check(&name, line, &transfer)?;
                let sent = PayoutTransferSent {
                    run: sending.run,
                    line: line.line,
                    transfer: transfer.id.clone(),
                    at: transfer.created,
                };
                self.executor.deliver(as_made(transfer), None, &sending.metadata).await?;
                (LineEnd::Sent, Event::from(sent))
            }
            Created::Declined { code } => {
                tracing::warn!(line = name, code, "a transfer to a creator was not made; its money stays available");
                let failed = PayoutTransferFailed { run: sending.run, line: line.line, at: self.now()?, code };
                (LineEnd::Failed, Event::from(failed))
            }
        };
        let record =
            |known: &Line, _| Ok::<_, Infallible>(if known.end().is_some() { Vec::new() } else { vec![event.clone()] });
        self.executor.act(&stream, &sending.metadata, Line::evolve, record).await?;
        let outcome = match end {
            LineEnd::Sent => transfer::SENT,
            LineEnd::Failed => transfer::FAILED,
        };
        metrics::counter!("fanledger_payout_transfers_total", "outcome" => outcome).increment(1);
        Ok(end)
    }

    /// The line's transfer: found, or made now.
    async fn make(
        &self,
        sending: &Sending<'_>,
        name: &str,
        line: &PayoutLine,
        there: &[TransferSnapshot],
    ) -> Result<Created, SendError> {
        if let Some(transfer) = approved_one(name, line, there)? {
            return Ok(Created::Made(transfer.clone()));
        }
        if self.is_held(line).await? {
            return Ok(Created::Declined { code: HELD.to_owned() });
        }
        let request = TransferRequest {
            money: line.money,
            destination: &line.destination,
            creator: &line.creator,
            run: sending.run,
            reference: &sending.reference(name),
        };
        let made = sending.stripe.create_transfer(&request).await;
        made.map_err(|source| SendError::Stripe { line: name.to_owned(), source })
    }

    /// The line's transfer where it was found; else none is made, and what stands in its place is recorded for what it is.
    async fn leave(
        &self,
        sending: &Sending<'_>,
        name: &str,
        line: &PayoutLine,
        there: &[TransferSnapshot],
    ) -> Result<Created, SendError> {
        if let Ok(Some(transfer)) = approved_one(name, line, there) {
            return Ok(Created::Made(transfer.clone()));
        }
        for transfer in there {
            self.executor.deliver(as_made(transfer.clone()), None, &sending.metadata).await?;
        }
        Ok(Created::Declined { code: STOPPED.to_owned() })
    }

    fn now(&self) -> Result<Timestamp, SendError> {
        Timestamp::from_chrono((self.clock)()).map_err(SendError::Clock)
    }

    async fn is_held(&self, line: &PayoutLine) -> Result<bool, ExecuteError> {
        let known: CreatorPayouts = self.executor.known(&creator_stream(&line.creator), CreatorPayouts::evolve).await?;
        Ok(known.is_held())
    }
}

fn line_stream(name: &str) -> StreamId {
    StreamId::new(Line::STREAM, name.to_owned())
}

/// Refuses to make anything where Stripe knows lines that this journal has not.
async fn check_ahead(sending: &Sending<'_>, lines: usize, connection: &mut impl Transaction) -> Result<(), SendError> {
    let last = u32::try_from(lines).unwrap_or(u32::MAX);
    let mut names: Vec<String> =
        (last.saturating_add(1)..).take(AHEAD_LINES).map(|line| sending.run.line(line)).collect();
    let mut run = sending.run;
    for _ in 0..AHEAD_RUNS {
        run = run.next();
        names.extend((1..).take(AHEAD_LINES).map(|line| run.line(line)));
    }
    for names in names.chunks(CONCURRENCY) {
        let mut asked = Vec::new();
        for name in names {
            asked.push(sending.transfers_of(name));
        }
        for (name, there) in names.iter().zip(join_all(asked).await) {
            if let Some(transfer) = there?.first() {
                let transfer = transfer.id.to_string();
                return Err(SendError::Mismatch { line: name.clone(), transfer, what: "there is no such line yet" });
            }
        }
        journal_id(connection).await?;
    }
    Ok(())
}

/// The line's transfer among those that were found under its name, where there is one.
fn approved_one<'a>(
    name: &str,
    line: &PayoutLine,
    there: &'a [TransferSnapshot],
) -> Result<Option<&'a TransferSnapshot>, SendError> {
    match there {
        [] => Ok(None),
        [transfer] => check(name, line, transfer).map(|()| Some(transfer)),
        several => {
            let transfer = several.iter().map(|transfer| transfer.id.as_str()).collect::<Vec<_>>().join(" and ");
            Err(SendError::Mismatch { line: name.to_owned(), transfer, what: "there are several" })
        }
    }
}

/// What an answer claims is checked against what was asked for.
fn check(name: &str, line: &PayoutLine, transfer: &TransferSnapshot) -> Result<(), SendError> {
    let differs = |what| Err(SendError::Mismatch { line: name.to_owned(), transfer: transfer.id.to_string(), what });
    if transfer.amount != line.money.minor() {
        differs("another amount")
    } else if transfer.currency != line.money.currency() {
        differs("another currency")
    } else if transfer.destination.as_ref() != Some(&line.destination) {
        differs("another account")
    } else {
        Ok(())
    }
}

/// The transfer as it was made, as a fact of its own stream. What became of it since comes by webhook, each dated as Stripe says;
/// a look that finds it reversed already would not know when. There is no event that it came with, so the transfer itself stands
/// for it: whoever looks again records the same.
fn as_made(transfer: TransferSnapshot) -> Delivery {
    let made = TransferSnapshot { amount_reversed: 0, reversals: Vec::new(), ..transfer };
    let stamp = EventStamp { created: made.created, event: made.id.clone() };
    Delivery { object: made.id.clone(), facts: vec![TransferObserved { stamp, transfer: made }.into()] }
}

/// Also a sign of life on a connection that Postgres would otherwise take back.
async fn journal_id(connection: &mut impl Transaction) -> Result<Uuid, SendError> {
    connection.journal_id().await.map_err(SendError::Journal)
}

/// Whether a run may have to be sent, or ended, after an event of this type.
pub fn wants(event_type: &str) -> bool {
    matches!(event_type, PayoutRunApproved::TYPE | PayoutRunStopped::TYPE)
}

#[async_trait]
impl Projection for Sender {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> u32 {
        1
    }

    fn schema(&self) -> Schema {
        Schema { create: "", views: &[] }
    }

    fn wants(&self, event_type: &str) -> bool {
        wants(event_type)
    }

    async fn apply(
        &mut self,
        batch: &[Arc<RecordedEvent>],
        effects: Effects,
        connection: &mut PgConnection,
    ) -> Result<(), ApplyError> {
        self.step(batch, effects, connection).await
    }
}
