//! A rebuild beside a runner, as `fanledger_journal::generation` has it.

use std::sync::Arc;

use fanledger_journal::checkpoint::HaltKind;
use fanledger_journal::event::{ChainDigest, Position};
use fanledger_journal::runner::Effects;

use crate::postgres::{Connection, RunnerRow};
use crate::runner::{Session, Stop, lock_name};
use crate::tables::Tables;
use crate::worker::{ApplyFailure, Worker};
use crate::world::Node;

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
        match worker.apply(node, &session.connection, &page, effects, &mut tables).await {
            Ok(()) => {
                session.checkpoint = Some(from.after(last));
                head = worker.head(&node.world());
            }
            Err(ApplyFailure::Transient | ApplyFailure::LostFuture) => return Err(Stop::Failed),
            Err(ApplyFailure::Poison(fault)) => {
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
