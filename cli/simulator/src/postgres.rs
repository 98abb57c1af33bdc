//! Postgres, besides the journal: connections with their advisory locks, and the rows of `control.runners` with the tables of
//! each generation. Whoever is connected can be cut off; a power cut takes back what was committed without waiting for the disk.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fanledger_journal::checkpoint::{Checkpoint, HaltKind};
use fanledger_journal::event::{ChainDigest, Position};
use uuid::Uuid;

use crate::tables::Tables;
use crate::world::{Node, ProcessId, World};

/// Postgres does not answer, or the connection is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gone;

/// The live generation of one runner: where it stands, and its tables, which commit together.
#[derive(Clone, Debug)]
pub(crate) struct RunnerRow {
    pub generation: u32,
    pub checkpoint: Checkpoint,
    /// Of a manager: where the journal ended when the checkpoint last moved.
    pub head: (Position, ChainDigest),
    pub halted: Option<HaltKind>,
    pub tables: Arc<Tables>,
}

/// A backup: the journal's head, and the runners as they then were.
#[derive(Clone, Debug)]
pub(crate) struct Backup {
    pub head: u64,
    pub runners: BTreeMap<&'static str, RunnerRow>,
}

/// See the module.
pub(crate) struct Postgres {
    pub is_up: bool,
    next: u64,
    /// Whose each connection is.
    pub connections: BTreeMap<u64, ProcessId>,
    /// Which connection holds each advisory lock.
    pub locks: BTreeMap<String, u64>,
    pub runners: BTreeMap<&'static str, RunnerRow>,
    /// As they are on the disk.
    flushed: BTreeMap<&'static str, RunnerRow>,
    pub backups: Vec<Backup>,
    /// Connections whose owner is gone, and of which Postgres does not know yet.
    pub orphans: BTreeSet<u64>,
    journal_id: Uuid,
}

impl Postgres {
    pub const fn new(journal_id: Uuid) -> Self {
        Self {
            is_up: true,
            next: 0,
            connections: BTreeMap::new(),
            locks: BTreeMap::new(),
            runners: BTreeMap::new(),
            flushed: BTreeMap::new(),
            backups: Vec::new(),
            orphans: BTreeSet::new(),
            journal_id,
        }
    }

    /// The runner's row; the first generation where there is none.
    pub fn runner(&mut self, name: &'static str) -> &mut RunnerRow {
        let journal_id = self.journal_id;
        self.runners.entry(name).or_insert_with(|| RunnerRow {
            generation: 1,
            checkpoint: Checkpoint::start(journal_id),
            head: (Position::START, ChainDigest::START),
            halted: None,
            tables: Arc::new(Tables::of(name)),
        })
    }

    /// An append waits for the disk; what was written before it is there then, too.
    pub fn flush(&mut self) {
        self.flushed = self.runners.clone();
    }

    /// Ends a session: its locks are free.
    pub fn disconnect(&mut self, connection: u64) {
        self.connections.remove(&connection);
        self.orphans.remove(&connection);
        self.locks.retain(|_, holder| *holder != connection);
    }

    /// Every session ends.
    pub fn go_down(&mut self) {
        self.is_up = false;
        self.connections.clear();
        self.locks.clear();
        self.orphans.clear();
    }

    /// What was not on the disk is gone.
    pub fn lose_unflushed(&mut self) {
        self.runners = self.flushed.clone();
    }

    /// Keeps a backup of now.
    pub fn back_up(&mut self, head: u64) {
        self.backups.push(Backup { head, runners: self.runners.clone() });
    }
}

/// A session of a component's own, which holds its locks. It ends when its owner lets go of it.
pub(crate) struct Connection {
    id: u64,
    node: Node,
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut world = self.node.world();
        if !world.postgres.orphans.contains(&self.id) {
            world.postgres.disconnect(self.id);
        }
    }
}

impl Connection {
    pub async fn open(node: &Node) -> Result<Self, Gone> {
        node.step("connects to Postgres", |world| {
            if !world.postgres.is_up || world.goes_wrong(5) {
                return Some(Err(Gone));
            }
            world.postgres.next += 1;
            let id = world.postgres.next;
            world.postgres.connections.insert(id, node.process);
            Some(Ok(id))
        })
        .await
        .map(|id| Self { id, node: node.clone() })
    }

    /// Whether the session is still there.
    pub fn is_open(&self, world: &World) -> Result<(), Gone> {
        let open = world.postgres.is_up && world.postgres.connections.contains_key(&self.id);
        if open { Ok(()) } else { Err(Gone) }
    }

    /// Takes an advisory lock, if nobody holds it.
    pub async fn try_lock(&self, node: &Node, name: &str) -> Result<bool, Gone> {
        node.step("asks for its lock", |world| {
            if let Err(gone) = self.is_open(world) {
                return Some(Err(gone));
            }
            let holder = *world.postgres.locks.entry(name.to_owned()).or_insert(self.id);
            Some(Ok(holder == self.id))
        })
        .await
    }

    /// One statement of this session.
    pub async fn run<T>(
        &self,
        node: &Node,
        what: &'static str,
        mut act: impl FnMut(&mut World) -> T,
    ) -> Result<T, Gone> {
        node.step(what, |world| {
            if let Err(gone) = self.is_open(world) {
                return Some(Err(gone));
            }
            Some(Ok(act(world)))
        })
        .await
    }
}
