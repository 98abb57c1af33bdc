//! Finance: releases what is available, proposes payout runs and approves them, holds creators and resumes them, stops runs, and does
//! what docs/runbooks/payouts.md says where the sender has halted. And what goes on meanwhile at Stripe, and in the calendar.
//!
//! A proposal is reckoned as `gateway/src/desks/payouts.rs` has it: from the balances and the payouts at one moment, once both are where the
//! journal was when it was asked for.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;

use fanledger_commands::executor::{ActError, Executor};
use fanledger_commands::payouts::desk::{ProposeError, Reckoned};
use fanledger_commands::payouts::sender;
use fanledger_domain::account::{Account, Bucket};
use fanledger_domain::books::Books as _;
use fanledger_domain::books::charge::Charge;
use fanledger_domain::event::Event;
use fanledger_domain::id::{CreatorId, StripeId, Subject};
use fanledger_domain::money::Currency;
use fanledger_domain::payout_run::PayoutRunId;
use fanledger_domain::payout_run::hold::Say;
use fanledger_domain::payout_run::proposal::Payable;
use fanledger_domain::payout_run::run::{PayoutRunError, Stage};
use fanledger_domain::policy;
use fanledger_domain::time::Timestamp;
use fanledger_journal::checkpoint::HaltKind;
use fanledger_journal::event::{Metadata, Position};
use rand::Rng as _;
use rand::seq::IndexedRandom as _;

use crate::Bug;
use crate::creators::CREATORS;
use crate::postgres::Connection;
use crate::scheduler::Simulation;
use crate::tables::{BALANCES, PAYOUTS, Tables};
use crate::world::{Due, MILLISECOND, Micros, Node, Role, SECOND, World};
use crate::writer::SimulatedStore;

/// In so many of a thousand steps finance, or Stripe's dashboard, or the calendar is at it.
const PER_THOUSAND: u32 = 2;
/// And once there is something to be paid.
const PAYING_PER_THOUSAND: u32 = 36;
const DAY: Micros = 86_400 * SECOND;
/// 2027-06-01 00:00 UTC: what histories tell of is available by then.
const THROUGH: Micros = 1_811_808_000 * SECOND;
/// How often somebody looks again whether the books are where the journal was, and what he waits in between.
const LOOKS: usize = 12;
const LOOK: Micros = 30 * MILLISECOND;
/// Of a thousand steps in which a transfer was made and nobody has written it down, as many are followed by days.
const HALF_WAY_DAYS: u32 = 6;
/// The same of its creator's hold.
const HALF_WAY_HOLDS: u32 = 8;
const PERSONS: [&str; 2] = ["ada", "bob"];
const REASON: &str = "finance says so";

impl Simulation {
    /// Now and then, between two steps.
    pub(crate) fn pay(&mut self) {
        let (happens, what) = {
            let mut world = self.world();
            let often = if world.is_paying { PAYING_PER_THOUSAND } else { PER_THOUSAND };
            (world.random.random_range(0..1000) < often, world.random.random_range(0..100))
        };
        if self.is_half_way(HALF_WAY_DAYS) {
            self.let_days_pass();
        }
        if self.is_half_way(HALF_WAY_HOLDS) {
            self.start_saying(Say::Hold);
        }
        if !happens {
            return;
        }
        match what {
            0..20 => self.start_release(),
            20..45 => self.start_alone("propose", |desk| Box::pin(async move { desk.propose().await.map(drop) })),
            45..75 => self.start_alone("approve", |desk| Box::pin(async move { desk.approve_last().await })),
            75..81 => self.start_saying(Say::Hold),
            81..88 => self.start_saying(Say::Resume),
            88..92 => self.start_cancel(),
            92..96 => self.world().reverse_one(),
            _ => self.let_days_pass(),
        }
    }

    /// Days that pass matter most where a transfer was made and nobody has written it down; and so do holds.
    fn is_half_way(&self, in_thousand: u32) -> bool {
        let mut world = self.world();
        world.goes_wrong(in_thousand) && !world.half_way().is_empty()
    }

    /// `fanledger ledger release`.
    pub(crate) fn start_release(&mut self) {
        self.start_alone("release", |desk| Box::pin(async move { desk.release().await }));
    }

    /// Releases everything, proposes a run where none is open, and approves it.
    pub(crate) fn start_payday(&mut self) {
        self.start_alone("payday", |desk| {
            Box::pin(async move {
                desk.release().await?;
                let run = desk.propose().await?;
                desk.approve(run).await
            })
        });
    }

    /// Sends somebody on an errand, unless somebody is on it.
    fn start_alone(&mut self, errand: &'static str, go: impl FnOnce(Desk) -> Errand) {
        if !self.is_minded(errand) {
            let id = self.start_finance(go);
            self.mind(id, errand);
        }
    }

    fn start_saying(&mut self, say: Say) {
        self.start_finance(move |desk| Box::pin(async move { desk.say(say).await }));
    }

    fn start_cancel(&mut self) {
        self.start_finance(|desk| Box::pin(async move { desk.cancel().await }));
    }

    /// Stops the runs that the sender halted on, and then lets it go on, unless somebody is at it.
    pub(crate) fn start_stops(&mut self) {
        if self.is_minded(sender::NAME) {
            return;
        }
        let id = self.start_finance(|desk| Box::pin(async move { desk.stop_what_halts().await }));
        self.mind(id, sender::NAME);
    }

    /// Nobody who may ask Stripe for transfers is there for days. Whoever is suspended for so long in the middle of an attempt, and then
    /// goes on, is not simulated: the ADR says what he does.
    fn let_days_pass(&mut self) {
        for process in self.running() {
            let role = self.role(process);
            if matches!(role, Some(Role::Manager | Role::Operator)) {
                self.crash(process);
            }
        }
        let mut world = self.world();
        let days = *[1, 1, 2, 8].choose(&mut world.random).unwrap_or(&1);
        world.let_pass(days * DAY + DAY / 24);
        let after = world.random.random_range(0..20 * MILLISECOND);
        world.plan(after, Due::Start(Role::Manager));
    }
}

pub(crate) type Errand = Pin<Box<dyn Future<Output = Option<()>> + Send>>;

/// Somebody at the desk, for one errand. What fails there is left; somebody will come again.
pub(crate) struct Desk {
    node: Node,
    executor: Executor<SimulatedStore>,
}

impl Desk {
    pub fn new(node: Node) -> Self {
        Self { executor: Executor::over(SimulatedStore::new(node.clone())), node }
    }

    fn now(&self) -> Option<Timestamp> {
        Timestamp::from_unix_micros(self.node.world().now).ok()
    }

    fn person(&self) -> Option<Subject> {
        let mut world = self.node.world();
        PERSONS.choose(&mut world.random)?.parse().ok()
    }

    /// The run that waits for approval from then on.
    async fn propose(&self) -> Option<PayoutRunId> {
        let reckoned = self.books().await?;
        let by = self.person()?;
        match self.executor.propose_payout_run(&reckoned, &by, self.now()?).await {
            Ok((proposed, _)) => Some(proposed.run),
            // Left by somebody before.
            Err(ProposeError::Refused(PayoutRunError::Open { run, stage: Stage::Proposed })) => Some(run),
            Err(ProposeError::Refused(_) | ProposeError::Behind { .. } | ProposeError::Failed(_)) => None,
        }
    }

    /// Approves, or cancels what the books have overtaken.
    async fn approve(&self, run: PayoutRunId) -> Option<()> {
        let Reckoned { payables, .. } = self.books().await?;
        let by = self.person()?;
        match self.executor.approve_payout_run(run, &by, &payables, self.now()?).await {
            Ok(_) | Err(ActError::Failed(_)) => {}
            Err(ActError::Refused(PayoutRunError::Overtaken { .. } | PayoutRunError::Stale { .. })) => {
                // Should it fail, the next one cancels it.
                let _: Result<_, _> = self.executor.cancel_payout_run(run, &by, REASON, self.now()?).await;
            }
            Err(ActError::Refused(_)) => {}
        }
        Some(())
    }

    async fn approve_last(&self) -> Option<()> {
        self.approve(self.last_run().await?).await
    }

    async fn last_run(&self) -> Option<PayoutRunId> {
        let last = self.node.step("looks for the last run", |world| {
            let row = world.postgres.runner(PAYOUTS);
            Some(if let Tables::Payouts(payouts) = &*row.tables { payouts.last_run } else { None })
        });
        last.await
    }

    /// `fanledger ledger release`.
    async fn release(&self) -> Option<()> {
        let charges = self.node.step("lists charges", |world| {
            let mut charges: BTreeMap<&str, bool> = BTreeMap::new();
            for recorded in world.journal.events() {
                let stream = &recorded.row.stream;
                if stream.aggregate_type == Charge::STREAM {
                    let is_released = matches!(recorded.event, Event::ChargeReleased(_));
                    *charges.entry(&stream.aggregate_id).or_default() |= is_released;
                }
            }
            let open = charges.into_iter().filter(|(_, is_released)| !is_released);
            Some(open.filter_map(|(charge, _)| charge.parse().ok()).collect::<Vec<StripeId>>())
        });
        let through = Timestamp::from_unix_micros(THROUGH).ok()?;
        for charge in charges.await {
            // One that is refused, or lost, holds up no other.
            let _: Result<_, _> = self.executor.release(&charge, through, &Metadata::default()).await;
        }
        Some(())
    }

    /// What the books say, once they are where the journal is now.
    async fn books(&self) -> Option<Reckoned> {
        let head = self.node.step("asks for the head", |world| Some(world.journal.position())).await;
        for _ in 0..LOOKS {
            let reckoned = self.node.step("reads the books", |world| Some(reckon(world, head))).await;
            if reckoned.is_some() {
                return reckoned;
            }
            self.node.sleep(LOOK).await;
        }
        None
    }

    async fn say(self, say: Say) -> Option<()> {
        let creator: CreatorId = {
            let mut world = self.node.world();
            let half_way = if say == Say::Hold { world.half_way() } else { Vec::new() };
            match half_way.choose(&mut world.random) {
                Some(creator) => creator.clone(),
                None => CREATORS.choose(&mut world.random)?.parse().ok()?,
            }
        };
        let by = self.person()?;
        // Refused where it is so already.
        let _: Result<_, _> = self.executor.say_of_payouts(&creator, say, &by, REASON, self.now()?).await;
        Some(())
    }

    /// Of the last run, where it has not ended.
    async fn cancel(self) -> Option<()> {
        let (run, by) = (self.last_run().await?, self.person()?);
        let _: Result<_, _> = self.executor.cancel_payout_run(run, &by, REASON, self.now()?).await;
        Some(())
    }

    async fn stop_what_halts(self) -> Option<()> {
        let halting: Vec<PayoutRunId> = self.node.world().mismatched.iter().copied().collect();
        let by = self.person()?;
        for run in halting {
            match self.executor.cancel_payout_run(run, &by, REASON, self.now()?).await {
                Err(ActError::Failed(_)) => return None,
                // One that has ended, or that a restore took away, needs nothing.
                Ok(_) | Err(ActError::Refused(_)) => {
                    self.node.world().mismatched.remove(&run);
                }
            }
        }
        let connection = Connection::open(&self.node).await.ok()?;
        let resumed = connection.run(&self.node, "resumes the sender", |world| {
            let row = world.postgres.runner(sender::NAME);
            if row.halted == Some(HaltKind::Poison) {
                row.halted = None;
            }
        });
        resumed.await.ok()
    }
}

/// Whom the books owe, as `gateway/src/read/payouts.rs` asks it; `None` where they do not hold everything up to `head`.
fn reckon(world: &mut World, head: Position) -> Option<Reckoned> {
    if !world.postgres.is_up || world.goes_wrong(4) {
        return None;
    }
    let (balances, payouts) = (world.postgres.runner(BALANCES).clone(), world.postgres.runner(PAYOUTS).clone());
    let (position, payouts_position) = (balances.checkpoint.position, payouts.checkpoint.position);
    if position.min(payouts_position) < head {
        return None;
    }
    let (Tables::Balances(balances), Tables::Payouts(payouts)) = (&*balances.tables, &*payouts.tables) else {
        return None;
    };
    let mut payables: BTreeMap<(CreatorId, Currency), Payable> = BTreeMap::new();
    let mut add = |creator: &CreatorId, currency: Currency, add: &dyn Fn(&mut Payable)| {
        let payable = payables.entry((creator.clone(), currency)).or_insert_with(|| Payable {
            creator: creator.clone(),
            currency,
            pending: 0,
            available: 0,
            held: 0,
            receivable: 0,
            accounts: payouts
                .accounts
                .values()
                .filter(|(_, account)| account.creator.as_ref() == Some(creator))
                .map(|(_, account)| account.clone())
                .collect(),
            on_hold: payouts.holds.contains(creator),
        });
        add(payable);
    };
    for ((account, currency), debit) in &balances.sums {
        if let Account::Creator(creator, bucket) = account {
            add(creator, *currency, &|payable| match bucket {
                Bucket::Pending => payable.pending = -debit,
                Bucket::Available => payable.available = -debit,
                Bucket::Held => payable.held = -debit,
            });
        } else if let Account::CreatorReceivable(creator) = account {
            add(creator, *currency, &|payable| payable.receivable = *debit);
        }
    }
    payables.retain(|_, payable| payable.available != 0);
    let now = Timestamp::from_unix_micros(world.now).ok()?;
    let since = policy::in_force(now).alone_since(now);
    let forgets = world.plant == Some(Bug::AloneForgotten);
    let paid_alone = payouts
        .paid_alone
        .values()
        .filter(|_| !forgets)
        .filter(|(at, _)| at.is_none_or(|at| at > since))
        .map(|(_, paid)| paid.clone());
    Some(Reckoned {
        position: position.get(),
        payouts_position: payouts_position.get(),
        paid_alone: paid_alone.collect(),
        payables: payables.into_values().collect(),
        last_run: payouts.last_run,
    })
}
