//! A run: proposed, then approved or cancelled; approved, then finished, and stopped before that where somebody says so.

use std::collections::BTreeMap;

use crate::account::{Account, Bucket};
use crate::entry::{Cause, EntryError, EntryPosted, FactReference, Posting, Side, check_postings};
use crate::event::Event;
use crate::id::{CreatorId, EntryId, IdError, StripeId, Subject};
use crate::money::{Currency, Money};
use crate::payout_run::proposal::{Payable, Proposal, sendable, totals};
use crate::payout_run::{
    PayoutLine, PayoutRecovery, PayoutRunApproved, PayoutRunCanceled, PayoutRunFinished, PayoutRunId,
    PayoutRunProposed, PayoutRunStopped, Recovery,
};
use crate::period::FirstOpen;
use crate::policy::Policy;
use crate::reason::{REASON_FORM, is_reason};
use crate::time::Timestamp;

/// How long a proposal may be approved. After it the books have moved on too far: cancel it and propose anew.
pub const PROPOSAL_DAYS: i64 = 7;

/// Where a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It waits for approval.
    Proposed,
    /// Its transfers are being sent.
    Approved,
    /// It was approved, and nothing more of it is sent; what was sent before is still looked for.
    Stopped,
    /// It will not be sent.
    Canceled,
    /// Every transfer was made or refused.
    Finished,
}

impl Stage {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Proposed => "proposed",
            Self::Approved => "approved",
            Self::Stopped => "stopped",
            Self::Canceled => "canceled",
            Self::Finished => "finished",
        }
    }

    /// Whether the next run has to wait for it.
    pub const fn is_open(self) -> bool {
        match self {
            Self::Proposed | Self::Approved | Self::Stopped => true,
            Self::Canceled | Self::Finished => false,
        }
    }
}

/// Why a run was not proposed, approved or cancelled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PayoutRunError {
    /// No such run.
    #[error("there is no payout run {0}; `GET /api/v1/ledger/payout-runs` lists them")]
    Unknown(PayoutRunId),
    /// One at a time.
    #[error("payout run {run} is {}: {}", .stage.as_str(), match .stage {
        Stage::Proposed => "approve it or cancel it first",
        Stage::Approved | Stage::Canceled | Stage::Finished => "wait until its transfers are sent, or stop it by `cancel`",
        Stage::Stopped => "wait until the sender has ended what is left of it",
    })]
    Open {
        /// The one that is open.
        run: PayoutRunId,
        /// Where it stands.
        stage: Stage,
    },
    /// Nobody is paid, and nobody owes anything that is not claimed yet.
    #[error("there is nothing to pay, to claim or to recover; the proposal says who is left out and why")]
    Nothing,
    /// It was decided before.
    #[error("payout run {run} is {} already", .stage.as_str())]
    Decided {
        /// The run.
        run: PayoutRunId,
        /// Where it stands.
        stage: Stage,
    },
    /// Two persons are needed.
    #[error(
        "payout run {run} moves {}, and {by} proposed it{}: more than one person may, so somebody else must approve it",
        listed(.moves), besides(.paid_alone)
    )]
    SecondPerson {
        /// The run.
        run: PayoutRunId,
        /// Who proposed it.
        by: Subject,
        /// What its transfers add up to.
        moves: Vec<Money>,
        /// What the proposer paid out alone before.
        paid_alone: Vec<Money>,
    },
    /// The books have moved on.
    #[error("payout run {run} was proposed more than {PROPOSAL_DAYS} days ago: cancel it and propose anew")]
    Stale {
        /// The run.
        run: PayoutRunId,
    },
    /// Money went back meanwhile, and would be paid twice over.
    #[error(
        "payout run {run} is no longer what the books hold for {creator}, or what they owe, or goes to an account that is no longer theirs: cancel it and propose anew"
    )]
    Overtaken {
        /// The run.
        run: PayoutRunId,
        /// The first one of whom it is so.
        creator: CreatorId,
    },
    /// A cancellation is told why.
    #[error("say why, {REASON_FORM}")]
    Reason,
    /// A claim or recovery cannot be posted.
    #[error("what payout run {run} recovers cannot be posted")]
    Entry {
        /// The run.
        run: PayoutRunId,
        /// What is wrong.
        #[source]
        source: EntryError,
    },
    /// An entry of it cannot be named.
    #[error("an entry of payout run {run} cannot be named")]
    EntryId {
        /// The run.
        run: PayoutRunId,
        /// What is wrong.
        #[source]
        source: IdError,
    },
}

fn moneys(sums: impl IntoIterator<Item = (Currency, i128)>) -> Vec<Money> {
    sums.into_iter().map(|(currency, minor)| Money::new(sendable(minor), currency)).collect()
}

fn listed(moneys: &[Money]) -> String {
    moneys.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
}

fn besides(paid_alone: &[Money]) -> String {
    if paid_alone.is_empty() {
        return String::new();
    }
    format!(", who has paid out {} alone in the weeks before", listed(paid_alone))
}

/// What is known of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PayoutRun {
    proposed: Option<PayoutRunProposed>,
    stage: Option<Stage>,
    sequence: u64,
}

impl PayoutRun {
    /// The type of its stream.
    pub const STREAM: &'static str = "payout_run";

    /// The sequence of the last event of the stream; 0 where there is no such run.
    pub const fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Where it stands; `None` where there is no such run.
    pub const fn stage(&self) -> Option<Stage> {
        self.stage
    }

    /// Its transfers.
    pub fn lines(&self) -> &[PayoutLine] {
        self.proposed.as_ref().map_or(&[], |proposed| &proposed.lines)
    }

    /// Refuses the run after this one while this one is open.
    ///
    /// # Errors
    /// [`PayoutRunError::Open`].
    pub fn check_closed(&self, run: PayoutRunId) -> Result<(), PayoutRunError> {
        match self.stage {
            Some(stage) if stage.is_open() => Err(PayoutRunError::Open { run, stage }),
            Some(_) | None => Ok(()),
        }
    }

    /// The first event of a new run, from a proposal that was reckoned at a position; `paid_alone` is what `by` paid out alone before
    /// ([`PaidAlone::of`](super::proposal::PaidAlone::of)).
    ///
    /// # Errors
    /// When there is nothing to do.
    pub fn propose(
        run: PayoutRunId,
        proposal: Proposal,
        paid_alone: &BTreeMap<Currency, i128>,
        policy: &Policy,
        as_of_position: u64,
        by: Subject,
        now: Timestamp,
    ) -> Result<Event, PayoutRunError> {
        if proposal.is_empty() {
            return Err(PayoutRunError::Nothing);
        }
        let needs_approval = proposal.needs_approval(paid_alone, policy);
        let paid_alone = moneys(proposal.totals().into_keys().filter_map(|currency| {
            let minor = paid_alone.get(&currency).copied().filter(|minor| *minor > 0);
            minor.map(|minor| (currency, minor))
        }));
        let Proposal { lines, recoveries, withheld, withheld_count } = proposal;
        Ok(PayoutRunProposed {
            run,
            as_of_position,
            at: now,
            by,
            needs_approval,
            paid_alone,
            lines,
            recoveries,
            withheld,
            withheld_count,
        }
        .into())
    }

    /// The approval, and an entry for each claim and recovery. `payables` is what the books say by now: what was earned since the
    /// proposal is the next run's; what went back since then is missing here.
    ///
    /// # Errors
    /// When it is not proposed, too old, overtaken, or needs somebody else.
    pub fn approve(
        &self,
        run: PayoutRunId,
        by: Subject,
        payables: &[Payable],
        now: Timestamp,
        first_open: FirstOpen,
    ) -> Result<Vec<Event>, PayoutRunError> {
        let proposed = self.waiting(run)?;
        if proposed.needs_approval && proposed.by.is_same_person(&by) {
            let (moves, paid_alone) = (moneys(totals(&proposed.lines)), proposed.paid_alone.clone());
            return Err(PayoutRunError::SecondPerson { run, by: proposed.by.clone(), moves, paid_alone });
        }
        if now > proposed.at.plus_days(PROPOSAL_DAYS) {
            return Err(PayoutRunError::Stale { run });
        }
        if let Some(creator) = overtaken(proposed, payables) {
            return Err(PayoutRunError::Overtaken { run, creator: creator.clone() });
        }
        let approved = self.sequence + 1;
        let mut events: Vec<Event> = vec![PayoutRunApproved { run, at: now, by }.into()];
        for (recovery, sequence) in proposed.recoveries.iter().zip(approved + 1..) {
            events.push(entry(run, recovery, approved, sequence, now, first_open)?.into());
        }
        Ok(events)
    }

    /// The cancellation of a run that waits; of one that is approved, the end of its sending. One that is stopped may be stopped
    /// again: whoever sends looks at a run when told of it, and may have been made to pass over the first time.
    ///
    /// # Errors
    /// When it has ended, or no reason is given.
    pub fn cancel(
        &self,
        run: PayoutRunId,
        by: Subject,
        reason: String,
        now: Timestamp,
    ) -> Result<Vec<Event>, PayoutRunError> {
        let event: Event = match self.stage {
            None => return Err(PayoutRunError::Unknown(run)),
            Some(stage @ (Stage::Canceled | Stage::Finished)) => return Err(PayoutRunError::Decided { run, stage }),
            Some(_) if !is_reason(&reason) => return Err(PayoutRunError::Reason),
            Some(Stage::Proposed) => PayoutRunCanceled { run, at: now, by, reason }.into(),
            Some(Stage::Approved | Stage::Stopped) => PayoutRunStopped { run, at: now, by, reason }.into(),
        };
        Ok(vec![event])
    }

    /// The end, once every line has come to its own; nothing where it has ended.
    pub fn finish(&self, run: PayoutRunId, sent: u32, failed: u32, now: Timestamp) -> Vec<Event> {
        match self.stage {
            Some(Stage::Approved | Stage::Stopped) => vec![PayoutRunFinished { run, at: now, sent, failed }.into()],
            Some(Stage::Proposed | Stage::Canceled | Stage::Finished) | None => Vec::new(),
        }
    }

    /// The proposal, while nobody has decided.
    fn waiting(&self, run: PayoutRunId) -> Result<&PayoutRunProposed, PayoutRunError> {
        match (self.stage, &self.proposed) {
            (Some(Stage::Proposed), Some(proposed)) => Ok(proposed),
            (Some(stage), _) => Err(PayoutRunError::Decided { run, stage }),
            (None, _) => Err(PayoutRunError::Unknown(run)),
        }
    }

    /// Takes in an event of the stream.
    pub fn evolve(&mut self, event: &Event) {
        self.sequence += 1;
        if let Event::PayoutRunProposed(proposed) = event {
            self.proposed = Some(proposed.clone());
            self.stage = Some(Stage::Proposed);
        } else if let Event::PayoutRunApproved(_) = event {
            self.stage = Some(Stage::Approved);
        } else if let Event::PayoutRunCanceled(_) = event {
            self.stage = Some(Stage::Canceled);
        } else if let Event::PayoutRunStopped(_) = event {
            self.stage = Some(Stage::Stopped);
        } else if let Event::PayoutRunFinished(_) = event {
            self.stage = Some(Stage::Finished);
        }
    }
}

/// The first creator of whom the books no longer hold what the run moves. There are as many payables as creators with something
/// available, so each is looked up, not looked for.
fn overtaken<'a>(proposed: &'a PayoutRunProposed, payables: &[Payable]) -> Option<&'a CreatorId> {
    let payables: BTreeMap<_, _> =
        payables.iter().map(|payable| ((&payable.creator, payable.currency), payable)).collect();
    let mut recovered: BTreeMap<_, i128> = BTreeMap::new();
    for recovery in &proposed.recoveries {
        let key = (&recovery.creator, recovery.money.currency());
        *recovered.entry(key).or_default() += i128::from(recovery.money.minor());
    }
    let is_covered = |line: &&PayoutLine| {
        let key = (&line.creator, line.money.currency());
        let recovered = recovered.get(&key).copied().unwrap_or_default();
        payables.get(&key).is_some_and(|payable| is_covered(line, recovered, payable))
    };
    let is_recoverable = |recovery: &&PayoutRecovery| match recovery.recovery {
        // A claim only says what is owed.
        Recovery::Claimed => true,
        Recovery::Recovered => {
            let key = (&recovery.creator, recovery.money.currency());
            payables.get(&key).is_some_and(|payable| is_recoverable(recovery, payable))
        }
    };
    let line = proposed.lines.iter().find(|line| !is_covered(line)).map(|line| &line.creator);
    let recovery = || proposed.recoveries.iter().find(|it| !is_recoverable(it)).map(|it| &it.creator);
    line.or_else(recovery)
}

/// Whether the books still hold what a line sends and what is recovered of the same creator, and the account is still theirs.
fn is_covered(line: &PayoutLine, recovered: i128, payable: &Payable) -> bool {
    let is_theirs = matches!(payable.accounts.as_slice(), [account] if account.id == line.destination);
    is_theirs && i128::from(line.money.minor()) + recovered <= payable.available + payable.pending.min(0)
}

/// Whether what is recovered is still owed, and still there to recover it from.
fn is_recoverable(recovery: &PayoutRecovery, payable: &Payable) -> bool {
    let amount = i128::from(recovery.money.minor());
    payable.receivable >= amount && payable.available >= amount
}

/// The entry of one claim or recovery. All of a run occur at one instant, so each is named by its own sequence.
fn entry(
    run: PayoutRunId,
    recovery: &PayoutRecovery,
    approved: u64,
    sequence: u64,
    now: Timestamp,
    first_open: FirstOpen,
) -> Result<EntryPosted, PayoutRunError> {
    let receivable = Account::CreatorReceivable(recovery.creator.clone());
    let available = Account::Creator(recovery.creator.clone(), Bucket::Available);
    let (debit, credit) = match recovery.recovery {
        Recovery::Claimed => (receivable, available),
        Recovery::Recovered => (available, receivable),
    };
    let postings = vec![
        Posting { account: debit, side: Side::Debit, money: recovery.money },
        Posting { account: credit, side: Side::Credit, money: recovery.money },
    ];
    check_postings(&postings).map_err(|source| PayoutRunError::Entry { run, source })?;
    let id = |source| PayoutRunError::EntryId { run, source };
    let object: StripeId = run.to_string().parse().map_err(id)?;
    let entry_id: EntryId = format!("{run}:{sequence}:{}", now.compact()).parse().map_err(id)?;
    let description = match recovery.recovery {
        Recovery::Claimed => format!("{run}: {} is owed by {}", recovery.money, recovery.creator),
        Recovery::Recovered => format!("{run}: {} recovered from {}", recovery.money, recovery.creator),
    };
    let fact = FactReference { event_type: PayoutRunApproved::TYPE.to_owned(), sequence: approved };
    Ok(EntryPosted {
        entry_id,
        cause: Cause { object, facts: vec![fact], stripe_event: None, clears: None },
        description,
        occurred_at: now,
        effective_at: first_open.effective(now),
        postings,
        activity: Vec::new(),
    })
}
