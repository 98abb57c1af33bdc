//! Who takes the next step, and when: the run itself. One thread; of all that could happen next, the seed chooses.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use fanledger_commands::executor::Executor;
use fanledger_commands::operations;
use fanledger_commands::periods;
use fanledger_commands::stripe::intake::Intake;
use fanledger_commands::stripe::signature::{BlankSecret, Secret};
use fanledger_domain::event::Event;
use fanledger_domain::period::{Month, PeriodCommand};
use fanledger_journal::event::Metadata;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rand::{Rng as _, SeedableRng as _};

use crate::finance::{Desk, Errand};
use crate::invariants::{Checker, check_rest, unrest};
use crate::journal::Recorded;
use crate::rebuild::rebuild;
use crate::runner::run as run_worker;
use crate::stripe::{Api, SECRET, Stripe, handle};
use crate::vault::SimulatedVault;
use crate::worker::{MANAGERS, PROJECTIONS, Worker};
use crate::world::{Due, MILLISECOND, Micros, Node, ProcessId, Role, World};
use crate::writer::{SimulatedStore, write};
use crate::{Failure, Options, Report, broker, expectation};

/// Steps for each payment of the history, of those in which things go wrong.
const STEPS_PER_PAYMENT: u64 = 250;
/// Webhooks come for a while, and creators are paid for so many times as long.
const PAID_FOR: u64 = 2;
/// A run that is not at rest after so many quiet steps never will be.
const QUIET_STEPS_MAX: u64 = 60_000;

/// Histories are of the ninety days from here on.
const FIRST_MONTH: &str = "2026-01";

type Body = Pin<Box<dyn Future<Output = ()> + Send>>;

/// One thing that a process does.
struct Task {
    body: Body,
    /// Those parts of it that wait.
    waiting: Vec<Waker>,
    /// Since when it waits, and until when: the world's version, and its own deadline.
    idle: Option<(u64, Option<Micros>)>,
    /// The webhook that it handles.
    delivery: Option<usize>,
    /// Its end is the end of its process.
    is_whole: bool,
}

struct Process {
    role: Role,
    intake: Option<Arc<Intake<SimulatedStore, SimulatedVault>>>,
    /// The runner that is being rebuilt.
    rebuilds: Option<&'static str>,
    /// The runner that somebody is resuming.
    minds: Option<&'static str>,
    tasks: Vec<Task>,
}

/// A run under way.
pub(crate) struct Simulation {
    world: Arc<Mutex<World>>,
    processes: BTreeMap<ProcessId, Process>,
    next_process: ProcessId,
    checker: Checker,
}

/// Plays one seed.
pub fn run(seed: u64, options: &Options) -> Report {
    let mut random = StdRng::seed_from_u64(seed);
    let payments = usize::try_from(options.steps / STEPS_PER_PAYMENT).unwrap_or(usize::MAX).clamp(1, 1000);
    let stripe = Stripe::new(seed, payments, &mut random);
    let world = Arc::new(Mutex::new(World::new(seed, options.plant, stripe)));
    let checker = Checker::new(&Node::new(Arc::clone(&world), 0, "check"));
    let mut simulation = Simulation { world, processes: BTreeMap::new(), next_process: 0, checker };
    simulation.play(options.steps);
    let mut world = simulation.world();
    let chain = world.journal.head().chain;
    world.trace.mix(&chain.0);
    world.counts.events = world.journal.position().get();
    let is_close = |recorded: &&Arc<Recorded>| matches!(recorded.event, Event::PeriodClosed(_));
    let is_finished = |recorded: &&Arc<Recorded>| matches!(recorded.event, Event::PayoutRunFinished(_));
    world.counts.payout_runs = world.journal.events().iter().filter(is_finished).count() as u64;
    world.counts.closes = world.journal.events().iter().filter(is_close).count() as u64;
    let failure = world.broken.clone().map(|what| Failure { step: world.trace.steps, what, last: world.trace.lines() });
    Report { seed, steps: world.trace.steps, trace: world.trace.digest(), counts: world.counts, failure }
}

impl Simulation {
    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn play(&mut self, steps: u64) {
        for role in Role::SERVICES {
            self.start(role);
        }
        let span = i64::try_from(steps).unwrap_or(i64::MAX / 1000).saturating_mul(MILLISECOND / 5);
        self.world().plan_deliveries(span.max(MILLISECOND));
        self.go_wrong(steps);
        self.world().faults = false;
        self.come_to_rest();
        self.start_release();
        self.come_to_rest();
        {
            let mut world = self.world();
            (world.faults, world.is_paying) = (true, true);
        }
        self.go_wrong(steps.saturating_mul(PAID_FOR));
        self.world().faults = false;
        self.come_to_rest();
        self.start_payday();
        self.come_to_rest();
        {
            // One of a reversal right before may come later than all this takes.
            let mut world = self.world();
            let now = world.now;
            world.stripe.list_all(now);
        }
        self.start_sync();
        self.come_to_rest();
        self.finish();
    }

    /// For so many steps everything may happen.
    fn go_wrong(&mut self, steps: u64) {
        let until = self.world().trace.steps.saturating_add(steps);
        let mut seen = 0;
        while self.world().trace.steps < until && self.goes_on() {
            // While creators are paid, most turns find nothing to do: what goes wrong then goes by steps.
            let (steps, is_paying) = {
                let world = self.world();
                (world.trace.steps, world.is_paying)
            };
            if !is_paying || steps != seen {
                seen = steps;
                self.disturb();
                self.pay();
            }
            self.operate();
            self.advance();
        }
    }

    fn goes_on(&self) -> bool {
        self.world().broken.is_none()
    }

    /// Nothing goes wrong any more: all that is left is done, however long it takes.
    fn come_to_rest(&mut self) {
        for role in Role::SERVICES {
            if self.count(role) == 0 {
                self.start(role);
            }
        }
        let until = self.world().trace.steps + QUIET_STEPS_MAX;
        while self.goes_on() {
            let reason = { unrest(&mut self.world()) };
            let reason =
                reason.or_else(|| (self.count(Role::Operator) > 0).then(|| "an operator is at work".to_owned()));
            let Some(reason) = reason else { return };
            if self.world().trace.steps >= until {
                self.world().fail(format!("it does not come to rest: {reason}"));
            }
            self.operate();
            self.advance();
        }
    }

    fn finish(&mut self) {
        if !self.goes_on() {
            return;
        }
        let expected = { expectation::balances(&self.world()) };
        let mut world = self.world();
        match expected {
            Ok(expected) => check_rest(&mut world, &expected),
            Err(fault) => world.fail(fault),
        }
    }

    /// What is due, one step of somebody, or else the time until something can happen.
    fn advance(&mut self) {
        let due = {
            let mut world = self.world();
            let now = world.now;
            match world.agenda.first_key_value() {
                Some(((at, _), _)) if *at <= now => world.agenda.pop_first().map(|(_, due)| due),
                Some(_) | None => None,
            }
        };
        if let Some(due) = due {
            self.happen(due);
        } else {
            match self.choose() {
                Some((process, task)) => self.poll(process, task),
                None => self.wait(),
            }
        }
        let mut world = self.world.lock().unwrap_or_else(PoisonError::into_inner);
        self.checker.check(&mut world);
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::Deliver(number) => self.deliver(number),
            Due::Start(role) => self.start(role),
            Due::Transfer(number) => self.world().end_transfer(number),
            Due::PostgresUp => self.world().postgres_up(),
            Due::NatsUp => self.world().nats_up(),
            Due::Disconnect(connection) => {
                let mut world = self.world();
                world.postgres.disconnect(connection);
                world.happened("postgres", 0, "notices that nobody is at connection", connection);
            }
        }
    }

    /// Somebody for whom something may have changed.
    fn choose(&mut self) -> Option<(ProcessId, usize)> {
        let mut world = self.world();
        let (version, now) = (world.version, world.now);
        let mut ready = Vec::new();
        for (id, process) in &self.processes {
            for (number, task) in process.tasks.iter().enumerate() {
                let waits =
                    task.idle.is_some_and(|(since, until)| since == version && until.is_none_or(|until| until > now));
                if !waits {
                    ready.push((*id, number));
                }
            }
        }
        ready.choose(&mut world.random).copied()
    }

    fn poll(&mut self, id: ProcessId, number: usize) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        let Some(task) = process.tasks.get_mut(number) else { return };
        {
            let mut world = self.world.lock().unwrap_or_else(PoisonError::into_inner);
            world.turn.may_step = true;
            world.turn.deadline = None;
            // Which part of it is first, is chance too.
            task.waiting.shuffle(&mut world.random);
        }
        task.waiting.drain(..).for_each(Waker::wake);
        let outcome = task.body.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        let mut world = self.world.lock().unwrap_or_else(PoisonError::into_inner);
        task.waiting = std::mem::take(&mut world.turn.waiting);
        let stepped = !std::mem::take(&mut world.turn.may_step);
        let version = world.version;
        task.idle = if stepped { None } else { Some((version, world.turn.deadline)) };
        drop(world);
        if outcome == Poll::Ready(()) {
            if task.is_whole {
                self.crash(id);
            } else {
                process.tasks.swap_remove(number);
            }
        }
    }

    /// Nobody has anything to do now: on to when somebody has.
    fn wait(&mut self) {
        let deadlines = self.processes.values().flat_map(|process| &process.tasks);
        let deadlines = deadlines.filter_map(|task| task.idle.and_then(|(_, until)| until));
        let mut world = self.world.lock().unwrap_or_else(PoisonError::into_inner);
        let due = world.agenda.keys().next().map(|(at, _)| *at);
        match deadlines.chain(due).min() {
            Some(next) => world.now = world.now.max(next),
            None => world.fail("everybody waits, and for nothing"),
        }
    }

    pub(crate) fn count(&self, role: Role) -> usize {
        self.processes.values().filter(|process| process.role == role).count()
    }

    pub(crate) fn running(&self) -> Vec<ProcessId> {
        self.processes.keys().copied().collect()
    }

    fn deliver(&mut self, number: usize) {
        if self.world().stripe.deliveries[number].is_done {
            return;
        }
        let gateways = self.processes.iter().filter(|(_, process)| process.role == Role::Gateway);
        let gateways: Vec<ProcessId> = gateways.map(|(id, _)| *id).collect();
        let chosen = gateways.choose(&mut self.world().random).copied();
        let intake = chosen.and_then(|id| self.processes.get(&id)?.intake.clone());
        let (Some(id), Some(intake)) = (chosen, intake) else {
            return self.world().plan_retry(number);
        };
        let node = Node::new(Arc::clone(&self.world), id, "gateway");
        self.world().happened("stripe", id, "sends webhook", number as u64 + 1);
        self.spawn(id, Box::pin(handle(node, intake, number)), Some(number), false);
    }

    fn spawn(&mut self, id: ProcessId, body: Body, delivery: Option<usize>, is_whole: bool) {
        if let Some(process) = self.processes.get_mut(&id) {
            process.tasks.push(Task { body, waiting: Vec::new(), idle: None, delivery, is_whole });
        }
    }

    fn new_process(&mut self, role: Role) -> (ProcessId, Node) {
        self.next_process += 1;
        let id = self.next_process;
        self.processes.insert(id, Process { role, intake: None, rebuilds: None, minds: None, tasks: Vec::new() });
        let node = Node::new(Arc::clone(&self.world), id, role.as_str());
        self.world().happened(role.as_str(), id, "starts", 0);
        (id, node)
    }

    /// Starts one process with everything that it does.
    pub(crate) fn start(&mut self, role: Role) {
        let (id, node) = self.new_process(role);
        match role {
            Role::Gateway => {
                let executor = Executor::over(SimulatedStore::new(node.clone()));
                let intake = secrets().map(|secrets| Intake::new(executor, SimulatedVault::new(node.clone()), secrets));
                if let (Some(process), Ok(intake)) = (self.processes.get_mut(&id), intake) {
                    process.intake = Some(Arc::new(intake));
                }
                self.spawn(id, Box::pin(write(node.named("gateway's writer"))), None, false);
            }
            Role::Relay => self.spawn(id, Box::pin(broker::relay(node)), None, false),
            Role::Projector => {
                for name in PROJECTIONS {
                    self.spawn(id, Box::pin(run_worker(node.named(name), Worker::Projection(name))), None, false);
                }
                self.spawn(id, Box::pin(broker::consume(node.named("projector's feed"))), None, false);
            }
            Role::Manager => {
                for name in MANAGERS {
                    let node = node.named(name);
                    self.spawn(id, Box::pin(run_worker(node.clone(), Worker::new(name, &node))), None, false);
                }
                self.spawn(id, Box::pin(broker::consume(node.named("manager's feed"))), None, false);
                self.spawn(id, Box::pin(write(node.named("manager's writer"))), None, false);
            }
            Role::Operator => {}
        }
    }

    /// `fanledger projections rebuild`, unless it is under way.
    pub(crate) fn start_rebuild(&mut self, runner: &'static str) {
        if self.processes.values().any(|process| process.rebuilds == Some(runner)) {
            return;
        }
        let (id, node) = self.new_process(Role::Operator);
        if let Some(process) = self.processes.get_mut(&id) {
            process.rebuilds = Some(runner);
        }
        let worker = Worker::new(runner, &node.named("rebuild"));
        self.spawn(id, Box::pin(rebuild(node.named("rebuild"), worker)), None, true);
        self.spawn(id, Box::pin(write(node.named("operator's writer"))), None, false);
    }

    /// `fanledger stripe sync`.
    pub(crate) fn start_sync(&mut self) {
        let (id, node) = self.new_process(Role::Operator);
        let executor = Executor::over(SimulatedStore::new(node.named("sync")));
        let api = Api::new(node.named("sync"));
        let body = async move {
            // What fails is tried again by whoever started it; in the end it is run once with nothing failing.
            let _: Result<operations::Synced, _> = operations::sync(&executor, &api, None, |_| {}).await;
        };
        self.spawn(id, Box::pin(body), None, true);
        self.spawn(id, Box::pin(write(node.named("operator's writer"))), None, false);
    }

    /// Somebody of finance, on one errand.
    pub(crate) fn start_finance(&mut self, errand: impl FnOnce(Desk) -> Errand) -> ProcessId {
        let (id, node) = self.new_process(Role::Operator);
        let errand = errand(Desk::new(node.named("finance")));
        let body = async move {
            // What did not come to its end is left as it is.
            let _: Option<()> = errand.await;
        };
        self.spawn(id, Box::pin(body), None, true);
        self.spawn(id, Box::pin(write(node.named("operator's writer"))), None, false);
        id
    }

    /// Whether somebody is at work to have this runner go on.
    pub(crate) fn is_minded(&self, runner: &'static str) -> bool {
        self.processes.values().any(|process| process.minds == Some(runner))
    }

    pub(crate) fn mind(&mut self, id: ProcessId, runner: &'static str) {
        if let Some(process) = self.processes.get_mut(&id) {
            process.minds = Some(runner);
        }
    }

    pub(crate) fn role(&self, id: ProcessId) -> Option<Role> {
        Some(self.processes.get(&id)?.role)
    }

    /// `fanledger ledger close` of the month that is next.
    pub(crate) fn start_close(&mut self) {
        let (id, node) = self.new_process(Role::Operator);
        let executor = Executor::over(SimulatedStore::new(node.named("close")));
        let body = async move {
            // Refused, or lost with its process: then the month stays open.
            let Ok(first_open) = executor.first_open().await else { return };
            let (Ok(first), Ok(by)) = (FIRST_MONTH.parse(), "finance".parse()) else { return };
            let period = first_open.instant().map_or(first, Month::of);
            let Ok(now) = period.end() else { return };
            let command = PeriodCommand::Close { period, by };
            let _: Result<_, _> = periods::act(&executor, command, now, &Metadata::default()).await;
        };
        self.spawn(id, Box::pin(body), None, true);
        self.spawn(id, Box::pin(write(node.named("operator's writer"))), None, false);
    }

    /// A process is gone, with all that it had in memory.
    pub(crate) fn crash(&mut self, id: ProcessId) -> Role {
        let Some(process) = self.processes.remove(&id) else { return Role::Operator };
        let mut world = self.world();
        world.queues.remove(&id);
        world.nats.feeds.remove(&id);
        world.muted.remove(&id);
        let open: Vec<u64> =
            world.postgres.connections.iter().filter(|(_, of)| **of == id).map(|(connection, _)| *connection).collect();
        for connection in open {
            // Postgres need not notice at once.
            if world.goes_wrong(300) {
                let after = world.random.random_range(0..400 * MILLISECOND);
                world.plan(after, Due::Disconnect(connection));
                world.postgres.orphans.insert(connection);
            } else {
                world.postgres.disconnect(connection);
            }
        }
        for number in process.tasks.iter().filter_map(|task| task.delivery) {
            world.plan_retry(number);
        }
        world.version += 1;
        // Its connections look at the world when they are dropped.
        drop(world);
        process.role
    }
}

fn secrets() -> Result<Vec<Secret>, BlankSecret> {
    Ok(vec![Secret::new(SECRET)?])
}

impl World {
    fn postgres_up(&mut self) {
        self.postgres.is_up = true;
        self.happened("postgres", 0, "is back", 0);
    }

    fn nats_up(&mut self) {
        self.nats.is_up = true;
        self.happened("nats", 0, "is back", 0);
    }
}
