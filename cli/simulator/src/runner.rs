//! The runner's protocol, and a rebuild beside it, as `fanledger_journal::runner` and `generation` have them: two sources, one
//! checkpoint that moves with the tables, a halt where the journal no longer holds what was read.
//!
//! Theirs hold a transaction of Postgres throughout, so this is a model of them, statement by statement; [`Checkpoint`], which
//! says what follows on what, is theirs, and so are the managers.

use std::sync::Arc;

use fanledger_commands::stripe::fetcher::{self, Fetcher};
use fanledger_commands::stripe::translator::{self, Translator};
use fanledger_journal::checkpoint::{Checkpoint, HaltKind};
use fanledger_journal::event::{ChainDigest, Position, RecordedEvent};
use fanledger_journal::runner::Effects;
use rand::Rng as _;

use crate::Bug;
use crate::broker::{BACKOFF, FeedMessage};
use crate::postgres::{Connection, Gone, RunnerRow};
use crate::tables::{BALANCES, INBOX, Tables};
use crate::vault::SimulatedVault;
use crate::world::{MILLISECOND, Micros, Node, World};
use crate::writer::SimulatedStore;

const STANDBY: Micros = 250 * MILLISECOND;
const QUIET: Micros = 250 * MILLISECOND;
const QUIET_WITHOUT_FEED: Micros = 50 * MILLISECOND;
/// The largest page or batch; how large one is, is chosen anew each time, since where a batch ends must not matter.
const BATCH_MAX: usize = 9;

/// Every runner.
pub(crate) const RUNNERS: [&str; 4] = [BALANCES, INBOX, translator::NAME, fetcher::NAME];

/// What a runner does with events.
pub(crate) enum Worker {
    Projection(&'static str),
    Translator(Translator<SimulatedStore, SimulatedVault>),
    Fetcher(Fetcher<SimulatedStore>),
}

/// An event that cannot be applied. There is none in any history, so to find one is a failure of the run.
#[derive(Clone, Debug)]
struct Poison(String);

enum ApplyFailure {
    Transient,
    Poison(Poison),
}

impl Worker {
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Projection(name) => name,
            Self::Translator(_) => translator::NAME,
            Self::Fetcher(_) => fetcher::NAME,
        }
    }

    fn wants(&self, event_type: &str) -> bool {
        match self {
            Self::Projection(_) => true,
            Self::Translator(_) => translator::wants(event_type),
            Self::Fetcher(_) => fetcher::wants(event_type),
        }
    }

    const fn sends_commands(&self) -> bool {
        match self {
            Self::Projection(_) => false,
            Self::Translator(_) | Self::Fetcher(_) => true,
        }
    }

    /// Where the journal ends by now, as a checkpoint that moves notes it.
    fn head(&self, world: &World) -> (Position, ChainDigest) {
        let head = world.journal.head();
        let is_noted = self.sends_commands() && world.plant != Some(Bug::HeadForgotten);
        if is_noted { (head.position, head.chain) } else { (Position::START, ChainDigest::START) }
    }

    async fn apply(
        &self,
        node: &Node,
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
                    folded.map_err(|fault| ApplyFailure::Poison(Poison(fault)))?;
                }
                return Ok(());
            }
            (Self::Translator(translator), Tables::Links(links)) => translator.step(&wanted, effects, links).await,
            (Self::Fetcher(fetcher), _) => fetcher.step(&wanted, effects, &mut ()).await,
            (Self::Translator(_), Tables::Balances(_) | Tables::Inbox(_) | Tables::None) => Ok(()),
        };
        applied.map_err(|error| {
            if error.transient {
                return ApplyFailure::Transient;
            }
            ApplyFailure::Poison(Poison(format!("{error}: {}", error.source)))
        })
    }
}

/// Why a term does not go on.
enum Stop {
    SteppedDown,
    Halted(HaltKind),
    StillHalted,
    Failed,
}

impl From<Gone> for Stop {
    fn from(Gone: Gone) -> Self {
        Self::Failed
    }
}

/// A runner, through every outage.
pub(crate) async fn run(node: Node, worker: Worker) {
    loop {
        let _: Result<(), Gone> = term(&node, &worker).await;
        node.sleep(BACKOFF).await;
    }
}

/// One term as the active runner.
async fn term(node: &Node, worker: &Worker) -> Result<(), Gone> {
    let connection = Connection::open(node).await?;
    let generation =
        connection.run(node, "reads its row", |world| world.postgres.runner(worker.name()).generation).await?;
    while !connection.try_lock(node, &lock_name(worker.name(), generation)).await? {
        node.sleep(STANDBY).await;
        let live =
            connection.run(node, "reads its row", |world| world.postgres.runner(worker.name()).generation).await?;
        if live != generation {
            return Ok(());
        }
    }
    let mut session = Session { node, worker, connection, generation, checkpoint: None, effects: Effects::Live };
    loop {
        let stop = match session.open().await {
            Ok(()) => session.follow().await,
            Err(stop) => stop,
        };
        match stop {
            Stop::SteppedDown => return Ok(()),
            Stop::Failed => return Err(Gone),
            Stop::StillHalted => {}
            Stop::Halted(kind) => session.halt(kind).await?,
        }
        if !session.wait_for_operator().await? {
            return Ok(());
        }
    }
}

fn lock_name(runner: &str, generation: u32) -> String {
    format!("runner:{runner}:{generation}")
}

struct Session<'a> {
    node: &'a Node,
    worker: &'a Worker,
    connection: Connection,
    generation: u32,
    checkpoint: Option<Checkpoint>,
    effects: Effects,
}

impl Session<'_> {
    async fn open(&mut self) -> Result<(), Stop> {
        let name = self.worker.name();
        let row =
            self.connection.run(self.node, "opens its generation", |world| world.postgres.runner(name).clone()).await?;
        if row.generation != self.generation {
            return Err(Stop::SteppedDown);
        }
        if row.halted.is_some() {
            return Err(Stop::StillHalted);
        }
        self.checkpoint = Some(row.checkpoint);
        self.is_behind().await?;
        self.holds_what_was_sent(&row).await
    }

    /// Halts where the journal lacks its end as it was when this checkpoint was committed.
    async fn holds_what_was_sent(&self, row: &RunnerRow) -> Result<(), Stop> {
        let (position, chain) = row.head;
        if position <= row.checkpoint.position {
            return Ok(());
        }
        let seen = self.node.step("looks for the head that it knows", |world| {
            Some(world.postgres.is_up.then(|| world.journal.contains(position, chain)))
        });
        if seen.await.ok_or(Stop::Failed)? { Ok(()) } else { Err(Stop::Halted(HaltKind::HistoryChanged)) }
    }

    fn checkpoint(&self, world: &World) -> Checkpoint {
        self.checkpoint.unwrap_or_else(|| Checkpoint::start(world.journal.id))
    }

    /// Whether the journal has more than was applied; halts where it does not contain what was applied.
    async fn is_behind(&self) -> Result<bool, Stop> {
        let seen = self.node.step("compares itself with the head", |world| {
            let up = world.postgres.is_up;
            Some(up.then(|| (world.journal.head(), self.checkpoint(world))))
        });
        let (head, checkpoint) = seen.await.ok_or(Stop::Failed)?;
        let at_head = head.position == checkpoint.position;
        if head.position < checkpoint.position || (at_head && head.chain != checkpoint.chain) {
            return Err(Stop::Halted(HaltKind::HistoryChanged));
        }
        Ok(!at_head)
    }

    /// Stays at the head: Postgres up to it, messages from then on, Postgres again wherever they do not fit.
    async fn follow(&mut self) -> Stop {
        let name = self.worker.name();
        self.node
            .step("subscribes to the feed", |world| {
                world.nats.feeds.entry(self.node.process).or_default().subscribe(name);
                Some(())
            })
            .await;
        loop {
            if let Err(stop) = self.read_to_head().await {
                return stop;
            }
            if let Err(stop) = self.take_messages().await {
                return stop;
            }
        }
    }

    /// The next page from Postgres, and whether it was a short one.
    async fn page(&self, limit: Option<Position>) -> Result<(Vec<Arc<RecordedEvent>>, bool), Stop> {
        let read = self.node.step_with("reads a page", |world| {
            if !world.postgres.is_up || world.goes_wrong(3) {
                return Some((None, 0));
            }
            let size = world.random.random_range(1..=BATCH_MAX);
            let after = self.checkpoint(world).position;
            let rows = world.journal.after(after, size).iter().map(|recorded| Arc::clone(&recorded.row));
            let page: Vec<_> = rows.filter(|row| limit.is_none_or(|limit| row.position <= limit)).collect();
            let count = page.len();
            Some((Some((page, count < size)), count as u64))
        });
        read.await.ok_or(Stop::Failed)
    }

    async fn read_to_head(&mut self) -> Result<(), Stop> {
        loop {
            let (page, is_short) = self.page(None).await?;
            if page.is_empty() {
                if self.is_behind().await? {
                    continue;
                }
                return Ok(());
            }
            self.process(&page).await?;
            if is_short {
                return Ok(());
            }
        }
    }

    /// Takes messages for as long as each follows on the one before; `Ok` means "ask Postgres".
    async fn take_messages(&mut self) -> Result<(), Stop> {
        loop {
            match self.gather().await {
                None => {
                    if self.may_go_on().await? {
                        return Ok(());
                    }
                }
                Some((batch, ask_postgres)) => {
                    if !batch.is_empty() {
                        self.process(&batch).await?;
                    }
                    if ask_postgres {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// The messages at hand that follow on the checkpoint, and whether something came that does not; `None` in the quiet.
    async fn gather(&self) -> Option<(Vec<Arc<RecordedEvent>>, bool)> {
        let name = self.worker.name();
        let began = self.node.world().now;
        self.node
            .step_with("takes messages", |world| {
                let trusts = world.plant == Some(Bug::GapsTaken);
                let mut end = self.checkpoint(world);
                let feed = world.nats.feeds.entry(self.node.process).or_default();
                let quiet = if feed.is_connected { QUIET } else { QUIET_WITHOUT_FEED };
                let queue = feed.queue(name);
                let mut batch = Vec::new();
                while let Some(message) = queue.pop_front() {
                    match message {
                        FeedMessage::Event(event)
                            if end.is_followed_by(&event) || (trusts && event.position > end.position) =>
                        {
                            end = end.after(&event);
                            batch.push(event);
                        }
                        // Known from Postgres already.
                        FeedMessage::Event(event) if event.position <= end.position => {}
                        FeedMessage::Event(_) | FeedMessage::Lagged => {
                            let count = batch.len() as u64;
                            return Some((Some((batch, true)), count));
                        }
                    }
                    if batch.len() == BATCH_MAX {
                        break;
                    }
                }
                let count = batch.len() as u64;
                if count > 0 {
                    return Some((Some((batch, false)), count));
                }
                world.until(began + quiet).then_some((None, 0))
            })
            .await
    }

    /// In the quiet: whether something was missed, or somebody else took over.
    async fn may_go_on(&self) -> Result<bool, Stop> {
        let name = self.worker.name();
        let row =
            self.connection.run(self.node, "looks at its row", |world| world.postgres.runner(name).clone()).await?;
        let moved = self.checkpoint.is_none_or(|checkpoint| checkpoint.position != row.checkpoint.position);
        if row.generation != self.generation || moved {
            return Err(Stop::SteppedDown);
        }
        self.holds_what_was_sent(&row).await?;
        self.is_behind().await
    }

    /// Applies events that must be the next ones, as one batch.
    async fn process(&mut self, events: &[Arc<RecordedEvent>]) -> Result<(), Stop> {
        let (from, trusts) = {
            let world = self.node.world();
            (self.checkpoint(&world), world.plant == Some(Bug::GapsTaken))
        };
        let mut end = from;
        for event in events {
            if !end.is_followed_by(event) && !trusts {
                return Err(Stop::Halted(HaltKind::HistoryChanged));
            }
            end = end.after(event);
        }
        let (name, generation) = (self.worker.name(), self.generation);
        let row = self.connection.run(self.node, "begins", |world| world.postgres.runner(name).clone()).await?;
        if row.generation != generation {
            // Its own tables are not the live ones any more. In production they are there still, and it finds that out when it moves
            // the checkpoint; here there are the live ones only.
            return Err(Stop::SteppedDown);
        }
        let mut tables = (*row.tables).clone();
        match self.worker.apply(self.node, events, self.effects, &mut tables).await {
            Ok(()) => {}
            Err(ApplyFailure::Transient) => return Err(Stop::Failed),
            Err(ApplyFailure::Poison(Poison(fault))) => {
                self.node
                    .world()
                    .fail(format!("{name} cannot apply an event after position {}: {fault}", from.position));
                return Err(Stop::Halted(HaltKind::Poison));
            }
        }
        self.commit(from, end, tables).await
    }

    /// Rows and checkpoint, in one transaction.
    async fn commit(&mut self, from: Checkpoint, to: Checkpoint, tables: Tables) -> Result<(), Stop> {
        let (name, generation) = (self.worker.name(), self.generation);
        let tables = Arc::new(tables);
        let is_apart = self.node.world().plant == Some(Bug::CheckpointApart);
        if is_apart {
            self.connection
                .run(self.node, "commits rows", |world| world.postgres.runner(name).tables = Arc::clone(&tables))
                .await?;
        }
        let moved = self.node.step_with("commits", |world| {
            if self.connection.is_open(world).is_err() {
                return Some((Err(Gone), 0));
            }
            let head = self.worker.head(world);
            let (position, chain) = world.postgres.runner(name).head;
            let holds_what_was_sent = world.journal.contains(position, chain);
            let row = world.postgres.runner(name);
            if row.generation != generation || row.checkpoint.position != from.position || !holds_what_was_sent {
                return Some((Ok(false), 0));
            }
            row.checkpoint = to;
            row.head = head;
            if !is_apart {
                row.tables = Arc::clone(&tables);
            }
            // Committed, and the answer lost with the connection.
            let answer = if world.goes_wrong(6) { Err(Gone) } else { Ok(true) };
            Some((answer, to.position.get()))
        });
        if !moved.await? {
            return Err(Stop::SteppedDown);
        }
        self.checkpoint = Some(to);
        Ok(())
    }

    async fn halt(&self, kind: HaltKind) -> Result<(), Gone> {
        let (name, generation) = (self.worker.name(), self.generation);
        self.connection
            .run(self.node, "halts", |world| {
                let row = world.postgres.runner(name);
                if row.generation == generation {
                    row.halted = Some(kind);
                }
            })
            .await
    }

    /// Stands still until resumed; `false` if another generation went live meanwhile.
    async fn wait_for_operator(&self) -> Result<bool, Gone> {
        let name = self.worker.name();
        loop {
            let row = self
                .connection
                .run(self.node, "waits for an operator", |world| world.postgres.runner(name).clone())
                .await?;
            if row.generation != self.generation {
                return Ok(false);
            }
            if row.halted.is_none() {
                return Ok(true);
            }
            self.node.sleep(STANDBY).await;
        }
    }
}

/// Builds the next generation from the journal's beginning and makes it the live one. Commands are muted up to where the live one
/// has come; one whose history is not the journal's has sent unknown ones, so then all are sent again.
pub(crate) async fn rebuild(node: Node, worker: Worker) {
    let _: Result<(), Stop> = rebuild_once(&node, &worker).await;
}

async fn rebuild_once(node: &Node, worker: &Worker) -> Result<(), Stop> {
    let name = worker.name();
    let connection = Connection::open(node).await?;
    if !connection.try_lock(node, &format!("rebuild:{name}")).await? {
        return Ok(());
    }
    let (live, shares_history) = connection
        .run(node, "looks at the live generation", |world| {
            let live = world.postgres.runner(name).clone();
            let shares = live.halted != Some(HaltKind::HistoryChanged)
                && world.journal.contains(live.checkpoint.position, live.checkpoint.chain)
                && world.journal.contains(live.head.0, live.head.1);
            (live, shares)
        })
        .await?;
    let generation = live.generation + 1;
    if !connection.try_lock(node, &lock_name(name, generation)).await? {
        return Ok(());
    }
    let effects = if shares_history { Effects::Muted } else { Effects::Live };
    if shares_history {
        node.world().muted.insert(node.process);
    }
    let mut session = Session { node, worker, connection, generation, checkpoint: None, effects };
    let mut tables = Tables::of(name);
    let mut head = (Position::START, ChainDigest::START);
    loop {
        let limit = {
            let mut world = node.world();
            let live = world.postgres.runner(name).checkpoint.position;
            shares_history.then_some(live)
        };
        let (page, _) = session.page(limit).await?;
        let Some(last) = page.last() else {
            if session.switch(&live, shares_history, &tables, head).await? {
                return Ok(());
            }
            continue;
        };
        let from = { session.checkpoint(&node.world()) };
        if !from.is_followed_by(&page[0]) {
            return Err(Stop::Failed);
        }
        match worker.apply(node, &page, effects, &mut tables).await {
            Ok(()) => {
                session.checkpoint = Some(from.after(last));
                head = worker.head(&node.world());
            }
            Err(ApplyFailure::Transient) => return Err(Stop::Failed),
            Err(ApplyFailure::Poison(Poison(fault))) => {
                node.world().fail(format!("a rebuild of {name} cannot apply an event: {fault}"));
                return Err(Stop::Failed);
            }
        }
    }
}

impl Session<'_> {
    /// In one transaction: the live checkpoint held still, the generations exchanged. `false` where events came meanwhile.
    async fn switch(
        &self,
        old: &RunnerRow,
        shares_history: bool,
        tables: &Tables,
        head: (Position, ChainDigest),
    ) -> Result<bool, Stop> {
        let name = self.worker.name();
        let switched = self
            .connection
            .run(self.node, "switches generations", |world| {
                let checkpoint = self.checkpoint(world);
                let end = world.journal.position();
                let row = world.postgres.runner(name);
                let is_level = if shares_history { row.checkpoint == checkpoint } else { checkpoint.position == end };
                if row.generation != old.generation || !is_level {
                    return (row.generation == old.generation).then_some(false);
                }
                let tables = Arc::new(tables.clone());
                *row = RunnerRow { generation: self.generation, checkpoint, head, halted: None, tables };
                world.counts.rebuilds += 1;
                Some(true)
            })
            .await?;
        switched.ok_or(Stop::SteppedDown)
    }
}
