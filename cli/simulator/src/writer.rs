//! The way into the journal: the group-commit writer of each process, and the store over it that the executor loads from.
//!
//! As in production, commands that wait while one call is under way go together in the next; what cannot share a call is held
//! back; and a connection that breaks leaves open whether the call was committed.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;

use cqrs_es::Aggregate;
use cqrs_es::persist::PersistenceError;
use fanledger_commands::executor::ExecuteError;
use fanledger_commands::store::Store;
use fanledger_domain::event::Event;
use fanledger_journal::append::{AppendError, Command, Outcome};
use fanledger_journal::event::{RecordedEvent, StreamId};
use fanledger_journal::reader::ReadError;

use crate::Bug;
use crate::world::{Node, World};

/// Commands of one call. Small, so that many calls are made.
const BATCH: usize = 5;

/// Commands that wait in one process, and answers that nobody has taken yet.
#[derive(Default)]
pub(crate) struct Queue {
    next: u64,
    waiting: VecDeque<(u64, Command)>,
    answers: BTreeMap<u64, Result<Outcome, AppendError>>,
    /// Whether the process's connection is the one that it had before Postgres went away.
    is_stale: bool,
}

impl Queue {
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Postgres went away: the first call after it finds the connection broken.
    pub fn break_connection(&mut self) {
        self.is_stale = true;
    }

    /// From the front what may go together; the rest keeps its order.
    fn take(&mut self) -> Vec<(u64, Command)> {
        let (mut written, mut guarded) = (HashSet::new(), HashSet::new());
        let (mut taken, mut left) = (Vec::new(), VecDeque::new());
        for (number, command) in self.waiting.drain(..) {
            let fits = taken.len() < BATCH
                && !written.contains(&command.stream)
                && !guarded.contains(&command.stream)
                && command.guards.iter().all(|guard| !written.contains(&guard.stream));
            // What is held back keeps its turn: nothing behind it may write its stream first.
            written.insert(command.stream.clone());
            guarded.extend(command.guards.iter().map(|guard| guard.stream.clone()));
            if fits {
                taken.push((number, command));
            } else {
                left.push_back((number, command));
            }
        }
        self.waiting = left;
        taken
    }
}

fn away(may_have_committed: bool) -> AppendError {
    AppendError::Unavailable { may_have_committed, source: Arc::new(sqlx::Error::WorkerCrashed) }
}

/// The writer's loop: take what waits, call, answer. Each is a step of its own.
pub(crate) async fn write(node: Node) {
    loop {
        let batch = node
            .step_with("takes a batch", |world| {
                let taken = world.queues.entry(node.process).or_default().take();
                let count = taken.len() as u64;
                (count > 0).then_some((taken, count))
            })
            .await;
        let commands: Vec<Command> = batch.iter().map(|(_, command)| command.clone()).collect();
        let answer = node.step_with("appends", |world| Some(call(world, &node, &commands))).await;
        node.step("answers", |world| {
            let queue = world.queues.entry(node.process).or_default();
            for (at, (number, _)) in batch.iter().enumerate() {
                let answer = match &answer {
                    Ok(outcomes) => outcomes.get(at).cloned().ok_or(AppendError::Closed),
                    Err(error) => Err(error.clone()),
                };
                queue.answers.insert(*number, answer);
            }
            Some(())
        })
        .await;
    }
}

/// One call of `journal.append`, with the positions that the journal then has.
fn call(world: &mut World, node: &Node, commands: &[Command]) -> (Result<Vec<Outcome>, AppendError>, u64) {
    let queue = world.queues.entry(node.process).or_default();
    if std::mem::take(&mut queue.is_stale) {
        return (Err(away(true)), 0);
    }
    if !world.postgres.is_up || world.goes_wrong(8) {
        return (Err(away(false)), 0);
    }
    if world.muted.contains(&node.process) {
        world.fail("a rebuild of what has sent its commands before sent one");
    }
    let outcomes = append(world, commands);
    let position = world.journal.position().get();
    if world.goes_wrong(12) {
        // It was committed, and the answer is lost with the connection.
        return (Err(away(true)), position);
    }
    (outcomes, position)
}

fn append(world: &mut World, commands: &[Command]) -> Result<Vec<Outcome>, AppendError> {
    match world.journal.append(commands, world.now + world.skew) {
        Ok(outcomes) => {
            let appended = |outcome: &Outcome| matches!(outcome, Outcome::Appended { .. });
            for (command, outcome) in commands.iter().zip(&outcomes) {
                if let (true, Some(key)) = (appended(outcome), &command.vault_key) {
                    world.vault.insert(command.stream.to_string(), key.clone());
                }
            }
            if outcomes.iter().any(appended) {
                world.postgres.flush();
            }
            Ok(outcomes)
        }
        Err(rule) => {
            world.fail(format!("the journal was asked for what it never takes: {rule}"));
            Err(AppendError::Malformed)
        }
    }
}

/// The journal as one process sees it.
pub(crate) struct SimulatedStore {
    node: Node,
}

impl SimulatedStore {
    pub const fn new(node: Node) -> Self {
        Self { node }
    }

    async fn events<T>(&self, stream: &StreamId, read: impl Fn(&World) -> T) -> Result<T, Arc<sqlx::Error>> {
        self.node
            .step("loads a stream", |world| {
                if !world.postgres.is_up || world.goes_wrong(4) {
                    return Some(Err(Arc::new(sqlx::Error::PoolTimedOut)));
                }
                debug_assert!(!stream.aggregate_id.is_empty());
                Some(Ok(read(world)))
            })
            .await
    }
}

impl Store for SimulatedStore {
    async fn load<A: Aggregate>(&self, id: &str) -> Result<Vec<Event>, ExecuteError> {
        let stream = StreamId::new(A::TYPE, id);
        let read = |world: &World| -> Vec<Event> {
            let events = world.journal.stream(&stream).iter().map(|recorded| recorded.event.clone());
            if world.plant == Some(Bug::WholePosted) && world.counts.crashes > 0 {
                // As if what was posted before were not known: each fact then posts the whole again.
                return events.map(forget_postings).collect();
            }
            events.collect()
        };
        self.events(&stream, read).await.map_err(|error| ExecuteError::Load {
            stream: stream.clone(),
            source: PersistenceError::ConnectionError(Box::new(error)),
        })
    }

    async fn stream(&self, stream: &StreamId) -> Result<Vec<RecordedEvent>, ReadError> {
        let read = |world: &World| -> Vec<RecordedEvent> {
            world.journal.stream(stream).iter().map(|recorded| (*recorded.row).clone()).collect()
        };
        self.events(stream, read)
            .await
            .map_err(|_| ReadError::Stream { stream: stream.clone(), source: sqlx::Error::PoolTimedOut })
    }

    async fn append(&self, mut command: Command) -> Result<Outcome, AppendError> {
        if self.node.world().plant == Some(Bug::GuardsIgnored) {
            command.guards.clear();
        }
        let mut command = Some(command);
        if self.node.world().turn.is_free {
            let mut world = self.node.world();
            let outcomes = append(&mut world, command.as_slice())?;
            return outcomes.into_iter().next().ok_or(AppendError::Closed);
        }
        let number = self
            .node
            .step("hands over a command", |world| {
                let queue = world.queues.entry(self.node.process).or_default();
                queue.next += 1;
                queue.waiting.push_back((queue.next, command.take()?));
                Some(queue.next)
            })
            .await;
        self.node.step("is answered", |world| world.queues.get_mut(&self.node.process)?.answers.remove(&number)).await
    }
}

/// Keeps the event's place in the stream and takes away what it posted.
fn forget_postings(event: Event) -> Event {
    match event {
        Event::EntryPosted(mut entry) => {
            entry.postings.clear();
            Event::EntryPosted(entry)
        }
        other => other,
    }
}
