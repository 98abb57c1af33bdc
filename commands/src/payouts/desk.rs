//! What finance asks for: a run proposed, approved, cancelled; a creator's payouts held and resumed.

use chrono::{DateTime, Utc};
use fanledger_domain::event::Event;
use fanledger_domain::id::{CreatorId, Subject};
use fanledger_domain::payout_run::hold::{CreatorPayouts, HoldError, Say};
use fanledger_domain::payout_run::proposal::{PaidAlone, Payable, propose};
use fanledger_domain::payout_run::run::{PayoutRun, PayoutRunError};
use fanledger_domain::payout_run::{PayoutRunId, PayoutRunProposed};
use fanledger_domain::policy;
use fanledger_domain::time::Timestamp;
use fanledger_journal::event::{Position, StreamId};

use crate::executor::{ActError, ExecuteError, Executed, Executor};
use crate::store::Store;
use crate::stripe::acted_by;

/// What a proposal is reckoned from: one snapshot of the books.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reckoned {
    /// Everything up to here is in the balances.
    pub position: u64,
    /// And everything up to here in what is known of runs, accounts and holds.
    pub payouts_position: u64,
    /// Whom the books owe.
    pub payables: Vec<Payable>,
    /// What each person paid out alone of late; complete, since no run is open and the last ended before both positions.
    pub paid_alone: Vec<PaidAlone>,
    /// The last run that was known then; later ones are looked for.
    pub last_run: Option<PayoutRunId>,
}

/// Why a run was not proposed.
#[derive(Debug, thiserror::Error)]
pub enum ProposeError {
    /// The decision refused.
    #[error(transparent)]
    Refused(#[from] PayoutRunError),
    /// What the run before sent may not be in the books yet that this one would be reckoned from.
    #[error(
        "the books are read up to position {position}, and the last payout run ended at {ended}: try again in a moment"
    )]
    Behind {
        /// As of which position the balances are.
        position: u64,
        /// Where the last run ended.
        ended: u64,
    },
    /// It could not be decided, or not recorded.
    #[error(transparent)]
    Failed(#[from] ExecuteError),
}

/// A run, and where its last event is.
struct Found {
    id: PayoutRunId,
    run: PayoutRun,
    last: Position,
}

pub(crate) fn run_stream(run: PayoutRunId) -> StreamId {
    StreamId::new(PayoutRun::STREAM, run.to_string())
}

pub(crate) fn creator_stream(creator: &CreatorId) -> StreamId {
    StreamId::new(CreatorPayouts::STREAM, creator.as_str())
}

impl<S: Store> Executor<S> {
    /// Proposes the next run, and answers it with its position.
    ///
    /// One run is open at a time: the one before must have ended, and at or before the position that the balances are of, so that
    /// nothing that it sent is paid again. Whoever proposes at the same moment finds the stream taken.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn propose_payout_run(
        &self,
        reckoned: &Reckoned,
        by: &Subject,
        now: Timestamp,
    ) -> Result<(PayoutRunProposed, Position), ProposeError> {
        let mut next = PayoutRunId::FIRST;
        if let Some(found) = self.last_payout_run(reckoned.last_run).await? {
            found.run.check_closed(found.id)?;
            let position = reckoned.position.min(reckoned.payouts_position);
            if position < found.last.get() {
                return Err(ProposeError::Behind { position, ended: found.last.get() });
            }
            next = found.id.next();
        }
        let policy = policy::in_force(now);
        let proposal = propose(&reckoned.payables, &policy);
        let paid_alone = PaidAlone::of(by, &reckoned.paid_alone);
        let decide = |run: &PayoutRun, _| {
            // Somebody else was first: theirs is the one that is open, or was.
            if let Some(stage) = run.stage() {
                return Err(PayoutRunError::Open { run: next, stage });
            }
            PayoutRun::propose(next, proposal.clone(), &paid_alone, &policy, reckoned.position, by.clone(), now)
                .map(|event| vec![event])
        };
        match self.act(&run_stream(next), &acted_by(by.as_str()), PayoutRun::evolve, decide).await {
            Ok(Executed { events, last }) => match (events.into_iter().next(), last) {
                (Some(Event::PayoutRunProposed(proposed)), Some(last)) => Ok((proposed, last)),
                (_, _) => Err(PayoutRunError::Nothing.into()),
            },
            Err(ActError::Refused(error)) => Err(error.into()),
            Err(ActError::Failed(error)) => Err(error.into()),
        }
    }

    /// Approves a run: it is sent from now on. `payables` is what the books say at this moment.
    ///
    /// # Errors
    /// What the run refuses, and what the journal does.
    pub async fn approve_payout_run(
        &self,
        id: PayoutRunId,
        by: &Subject,
        payables: &[Payable],
        now: Timestamp,
    ) -> Result<Executed, ActError<PayoutRunError>> {
        let decide = |run: &PayoutRun, first_open| run.approve(id, by.clone(), payables, now, first_open);
        self.act(&run_stream(id), &acted_by(by.as_str()), PayoutRun::evolve, decide).await
    }

    /// Cancels a run that waits, or stops one that is approved: nothing more of it is sent.
    ///
    /// # Errors
    /// What the run refuses, and what the journal does.
    pub async fn cancel_payout_run(
        &self,
        id: PayoutRunId,
        by: &Subject,
        reason: &str,
        now: Timestamp,
    ) -> Result<Executed, ActError<PayoutRunError>> {
        let decide = |run: &PayoutRun, _| run.cancel(id, by.clone(), reason.to_owned(), now);
        self.act(&run_stream(id), &acted_by(by.as_str()), PayoutRun::evolve, decide).await
    }

    /// Holds a creator's payouts, or resumes them.
    ///
    /// # Errors
    /// Where it is so already, and what the journal refuses.
    pub async fn say_of_payouts(
        &self,
        creator: &CreatorId,
        say: Say,
        by: &Subject,
        reason: &str,
        now: Timestamp,
    ) -> Result<Executed, ActError<HoldError>> {
        let decide = |known: &CreatorPayouts, _| {
            known.decide(creator.clone(), say, by.clone(), reason.to_owned(), now).map(|event| vec![event])
        };
        self.act(&creator_stream(creator), &acted_by(by.as_str()), CreatorPayouts::evolve, decide).await
    }

    /// The last run that there is. What readers know of may be behind; runs are numbered without a gap.
    async fn last_payout_run(&self, known: Option<PayoutRunId>) -> Result<Option<Found>, ExecuteError> {
        let mut id = known.unwrap_or(PayoutRunId::FIRST);
        let mut last = None;
        loop {
            let stream = run_stream(id);
            let recorded = self.recorded(&stream).await?;
            let Some((_, position)) = recorded.last() else { return Ok(last) };
            let position = *position;
            let mut run = PayoutRun::default();
            recorded.iter().for_each(|(event, _)| run.evolve(event));
            last = Some(Found { id, run, last: position });
            id = id.next();
        }
    }

    /// The events of a stream, each with its position.
    async fn recorded(&self, stream: &StreamId) -> Result<Vec<(Event, Position)>, ExecuteError> {
        let rows = self.store().stream(stream).await;
        rows.map_err(|source| ExecuteError::Read { stream: stream.clone(), source })?
            .iter()
            .map(|row| {
                let event = Event::decode(&row.event_type, &row.event_version, &row.payload)
                    .map_err(|source| ExecuteError::Decode { stream: stream.clone(), source })?;
                Ok((event, row.position))
            })
            .collect()
    }

    /// When the last event of a stream was recorded.
    pub(super) async fn last_recorded_at(&self, stream: &StreamId) -> Result<Option<DateTime<Utc>>, ExecuteError> {
        let rows = self.store().stream(stream).await;
        let rows = rows.map_err(|source| ExecuteError::Read { stream: stream.clone(), source })?;
        Ok(rows.last().map(|row| row.recorded_at))
    }

    /// What a stream's events add up to.
    pub(super) async fn known<A: Default>(
        &self,
        stream: &StreamId,
        evolve: impl Fn(&mut A, &Event),
    ) -> Result<A, ExecuteError> {
        let mut known = A::default();
        self.recorded(stream).await?.iter().for_each(|(event, _)| evolve(&mut known, event));
        Ok(known)
    }
}
