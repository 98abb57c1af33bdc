//! Sends the transfers of approved runs, each once, whatever breaks off where.
//!
//! First the transfer groups of all lines that have not ended are looked up at Stripe, then those of a few lines that this journal
//! has not: beyond the run's last, and of the runs after it. A transfer that is not what was approved, or of a line that is not there,
//! is the trace of a future that this journal has lost (it was restored to an earlier moment). Then nothing is made at all, since what
//! is made beside it may be paid twice. Only after that the transfers are asked for, eight at a time. For each line, in this order: it
//! has ended → nothing. Else it was found → that is it; else, where the creator is held, it fails; else Stripe is asked to make it. The
//! answer is recorded first as the transfer's own fact, so that the books hold it at once, then as the line's end.
//!
//! Holds are looked at before each eight. A line whose creator is held fails ([`HELD`]) only once whatever was asked for before the hold
//! must have come to its end, and after another look: an attempt that was killed may have left a request under way, and a line that
//! has failed is paid again by the next run.
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
use fanledger_domain::event::Event;
use fanledger_domain::facts::TransferSnapshot;
use fanledger_domain::id::CreatorId;
use fanledger_domain::payout_run::hold::CreatorPayouts;
use fanledger_domain::payout_run::line::{Line, LineEnd};
use fanledger_domain::payout_run::run::PayoutRun;
use fanledger_domain::payout_run::{
    PayoutLine, PayoutRunApproved, PayoutRunId, PayoutRunStopped, PayoutTransferFailed, PayoutTransferSent,
};
use fanledger_domain::time::Timestamp;
use fanledger_journal::event::{Metadata, RecordedEvent, StreamId};
use fanledger_journal::runner::{ApplyError, Effects, Projection, Schema};
use futures::future::join_all;
use sqlx::PgConnection;

use crate::executor::{ExecuteError, Executor};
use crate::metrics::transfer;
use crate::payouts::desk::{creator_stream, run_stream};
use crate::payouts::look::{CONCURRENCY, Errand, Look, Sending, approved_one, as_made, check, check_ahead, journal_id};
pub use crate::payouts::send_error::SendError;
use crate::payouts::transaction::Transaction;
use crate::store::{JournalStore, Store};
use crate::stripe::api::{Created, StripeApi, TransferRequest};

/// The runner's name.
pub const NAME: &str = "payout_sender";
/// The actor that its events carry.
pub const ACTOR: &str = "system:payout_sender";
/// How a line ends whose creator is held between proposal and sending.
pub const HELD: &str = "payouts_held";
/// How a line ends that was not sent when its run was stopped.
pub const STOPPED: &str = "run_stopped";
/// From a stop until its lines end, and from a hold until its creator's lines do. What was asked for right before it is tried for 65 s
/// at most (five times ten seconds, and a quarter of a minute between them), and Stripe may be at the last of it when this process is
/// killed.
const SETTLED_AFTER: Duration = Duration::from_secs(180);

/// See the module.
pub struct Sender<S = JournalStore> {
    executor: Executor<S>,
    stripe: Option<Arc<dyn StripeApi>>,
    settled_after: Duration,
    clock: Clock,
}

/// What tells the time of what is recorded.
type Clock = Arc<dyn Fn() -> DateTime<Utc> + Send + Sync>;

/// Whether the creator of a line is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hold {
    /// Not held.
    None,
    /// Held so lately that what was asked for before may still be made.
    Lately,
    /// Held for so long that it is not.
    Settled,
}

impl<S: Store> Sender<S> {
    /// A sender that asks `stripe`, where there is a key for it.
    pub fn new(executor: Executor<S>, stripe: Option<Arc<dyn StripeApi>>) -> Self {
        Self { executor, stripe, settled_after: SETTLED_AFTER, clock: Arc::new(Utc::now) }
    }

    /// The same, for tests: lines end so long after their run was stopped, or their creator held.
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
            let holds = self.holds(sending, lines, connection).await?;
            let mut asked = Vec::new();
            for ((line, look), hold) in lines.iter().zip(holds) {
                asked.push(self.end_line(sending, line, look, hold));
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

    async fn end_line(
        &self,
        sending: &Sending<'_>,
        line: &PayoutLine,
        look: &Look,
        hold: Hold,
    ) -> Result<LineEnd, SendError> {
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
            Errand::Send => self.make(sending, &name, line, there, hold).await?,
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
        hold: Hold,
    ) -> Result<Created, SendError> {
        if let Some(transfer) = approved_one(name, line, there)? {
            return Ok(Created::Made(transfer.clone()));
        }
        match hold {
            Hold::None => {}
            Hold::Lately => {
                return Err(SendError::HeldLately { line: name.to_owned(), settled_after: self.settled_after });
            }
            Hold::Settled => {
                let there = sending.transfers_of(name).await?;
                return Ok(match approved_one(name, line, &there)? {
                    Some(transfer) => Created::Made(transfer.clone()),
                    None => Created::Declined { code: HELD.to_owned() },
                });
            }
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

    /// Whether the creators of lines that would be asked for are held, each line's in its place.
    async fn holds(
        &self,
        sending: &Sending<'_>,
        lines: &[(&PayoutLine, &Look)],
        connection: &mut impl Transaction,
    ) -> Result<Vec<Hold>, SendError> {
        let asked = lines.iter().map(|(line, look)| async move {
            match (sending.errand, look) {
                (Errand::Send, Look::Open(there)) if there.is_empty() => self.held_since(&line.creator).await,
                (Errand::Send | Errand::Stop, Look::Open(_) | Look::Ended(_)) => Ok(None),
            }
        });
        let mut holds = Vec::with_capacity(lines.len());
        for since in join_all(asked).await {
            holds.push(match since? {
                None => Hold::None,
                Some(since) => {
                    let is_settled = connection.has_passed(since, self.settled_after).await;
                    let is_settled = is_settled.map_err(|source| SendError::Age { run: sending.run, source })?;
                    if is_settled { Hold::Settled } else { Hold::Lately }
                }
            });
        }
        Ok(holds)
    }

    /// Since when a creator's payouts are held, where they are. What was said between the two readings makes it later, which only
    /// takes longer.
    async fn held_since(&self, creator: &CreatorId) -> Result<Option<DateTime<Utc>>, ExecuteError> {
        let stream = creator_stream(creator);
        let known: CreatorPayouts = self.executor.known(&stream, CreatorPayouts::evolve).await?;
        if known.is_held() { self.executor.last_recorded_at(&stream).await } else { Ok(None) }
    }
}

fn line_stream(name: &str) -> StreamId {
    StreamId::new(Line::STREAM, name.to_owned())
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
