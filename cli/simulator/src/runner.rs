//! The runner's protocol, as `fanledger_journal::runner` has it: two sources, one checkpoint that moves with the tables, a halt where
//! the journal no longer holds what was read. A rebuild beside it is in `rebuild`; what is done with events, in `worker`.
//!
//! Theirs hold a transaction of Postgres throughout, so this is a model of them, statement by statement; [`Checkpoint`], which
//! says what follows on what, is theirs, and so are the managers.

use std::sync::Arc;

use fanledger_journal::checkpoint::{Checkpoint, HaltKind};
use fanledger_journal::event::{Position, RecordedEvent};
use fanledger_journal::runner::Effects;
use rand::Rng as _;

use crate::Bug;
use crate::broker::{BACKOFF, FeedMessage};
use crate::postgres::{Connection, Gone, RunnerRow};
use crate::tables::Tables;
use crate::worker::{ApplyFailure, Worker};
use crate::world::{MILLISECOND, Micros, Node, World};

const STANDBY: Micros = 250 * MILLISECOND;
const QUIET: Micros = 250 * MILLISECOND;
const QUIET_WITHOUT_FEED: Micros = 50 * MILLISECOND;
/// The largest page or batch; how large one is, is chosen anew each time, since where a batch ends must not matter.
const BATCH_MAX: usize = 9;

/// Why a term does not go on.
pub(crate) enum Stop {
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

pub(crate) fn lock_name(runner: &str, generation: u32) -> String {
    format!("runner:{runner}:{generation}")
}

pub(crate) struct Session<'a> {
    pub node: &'a Node,
    pub worker: &'a Worker,
    pub connection: Connection,
    pub generation: u32,
    pub checkpoint: Option<Checkpoint>,
    pub effects: Effects,
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

    pub(crate) fn checkpoint(&self, world: &World) -> Checkpoint {
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
    pub(crate) async fn page(&self, limit: Option<Position>) -> Result<(Vec<Arc<RecordedEvent>>, bool), Stop> {
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
        match self.worker.apply(self.node, &self.connection, events, self.effects, &mut tables).await {
            Ok(()) => {}
            Err(ApplyFailure::Transient) => return Err(Stop::Failed),
            // For a person to look at.
            Err(ApplyFailure::LostFuture) => return Err(Stop::Halted(HaltKind::Poison)),
            Err(ApplyFailure::Poison(fault)) => {
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
