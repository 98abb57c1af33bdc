//! What must hold after every step, and what must hold once everything has come to rest.

use std::collections::BTreeMap;
use std::sync::Arc;

use fanledger_commands::executor::Executor;
use fanledger_commands::stripe::translator::{self, Translator};
use fanledger_domain::event::Event;
use fanledger_domain::tie_out::TieOut;
use fanledger_journal::checkpoint::Checkpoint;
use fanledger_journal::event::{ChainDigest, RecordedEvent, StreamId};
use fanledger_journal::runner::Effects;
use futures::FutureExt as _;

use crate::journal::Recorded;
use crate::payout_checks;
use crate::tables::{BALANCES, INBOX, Sums, Tables};
use crate::vault::SimulatedVault;
use crate::worker::RUNNERS;
use crate::world::{Node, World};
use crate::writer::SimulatedStore;

/// What a runner's tables must be at a checkpoint: a fold of the journal from its beginning, continued as the checkpoint moves.
struct Reference {
    chain: ChainDigest,
    tables: Tables,
}

/// Compares the world with what it must be, as far as it changed.
pub(crate) struct Checker {
    references: BTreeMap<&'static str, Reference>,
    /// Tables as they were compared last, so that only news are compared.
    seen: BTreeMap<&'static str, (Checkpoint, Arc<Tables>)>,
    /// Only its state is used: with its effects muted it asks nobody.
    translator: Translator<SimulatedStore, SimulatedVault>,
    acknowledged: (usize, u64),
}

impl Checker {
    pub fn new(node: &Node) -> Self {
        let executor = Executor::over(SimulatedStore::new(node.clone()));
        Self {
            references: BTreeMap::new(),
            seen: BTreeMap::new(),
            translator: Translator::new(executor, SimulatedVault::new(node.clone()), false),
            acknowledged: (0, 0),
        }
    }

    /// After a step.
    pub fn check(&mut self, world: &mut World) {
        if let Some((currency, minor)) = world.journal.imbalance() {
            world.fail(format!("all postings in {currency} together are {minor}, not zero"));
        }
        self.check_acknowledged(world);
        check_stream(world);
        for name in RUNNERS {
            self.check_runner(name, world);
        }
    }

    /// Each acknowledged webhook is in the journal, where the answer said, and once.
    fn check_acknowledged(&mut self, world: &mut World) {
        let now = (world.stripe.acknowledged.len(), world.counts.restores);
        if now == self.acknowledged {
            return;
        }
        self.acknowledged = now;
        let missing = world.stripe.acknowledged.iter().find(|(id, position)| {
            let is_there = world.journal.at(**position).is_some_and(|recorded| is_receipt_of(recorded, id));
            let stream = world.journal.stream(&StreamId::new("stripe_event", id.as_str()));
            !is_there || stream.iter().filter(|recorded| is_receipt_of(recorded, id)).count() != 1
        });
        if let Some((id, position)) = missing {
            let fault = format!("{id} was acknowledged at position {position} and is not in the journal there, once");
            world.fail(fault);
        }
    }

    /// Tables are the fold of the journal, as their runner read it, up to their checkpoint.
    fn check_runner(&mut self, name: &'static str, world: &mut World) {
        let row = world.postgres.runner(name).clone();
        let is_seen = self
            .seen
            .get(name)
            .is_some_and(|(checkpoint, tables)| *checkpoint == row.checkpoint && Arc::ptr_eq(tables, &row.tables));
        if is_seen {
            return;
        }
        self.seen.insert(name, (row.checkpoint, Arc::clone(&row.tables)));
        let reference = match self.reference(name, row.checkpoint.chain, world) {
            Ok(reference) => reference,
            Err(fault) => return world.fail(format!("{name}: {fault}")),
        };
        if *reference != *row.tables {
            let fault = difference(reference, &row.tables);
            world.fail(format!(
                "{name} at position {} is not what the journal up to there adds up to: {fault}",
                row.checkpoint.position
            ));
        }
    }

    /// The fold up to a chain, whichever history that is of.
    fn reference(&mut self, name: &'static str, chain: ChainDigest, world: &World) -> Result<&Tables, String> {
        let fresh = || Reference { chain: ChainDigest::START, tables: Tables::of(name) };
        let reference = self.references.entry(name).or_insert_with(fresh);
        let mut path: Vec<&Arc<Recorded>> = Vec::new();
        let mut at = chain;
        while at != reference.chain {
            if at == ChainDigest::START {
                // It went back: another generation, a power cut, a restored backup.
                *reference = fresh();
                break;
            }
            let recorded = world.journal.ever(at).ok_or("its checkpoint was never a place in any journal")?;
            at = recorded.row.previous_chain;
            path.push(recorded);
        }
        path.reverse();
        if let Tables::Links(links) = &mut reference.tables {
            let batch: Vec<Arc<RecordedEvent>> = path
                .iter()
                .filter(|recorded| translator::wants(&recorded.row.event_type))
                .map(|recorded| Arc::clone(&recorded.row))
                .collect();
            let step = self.translator.step(&batch, Effects::Muted, links).now_or_never();
            step.ok_or("a muted translator waits for somebody")?.map_err(|error| error.to_string())?;
        } else {
            path.iter().try_for_each(|recorded| reference.tables.fold(recorded))?;
        }
        reference.chain = chain;
        Ok(&reference.tables)
    }
}

/// What is where: the first difference of two tables.
fn difference(expected: &Tables, found: &Tables) -> String {
    match (expected, found) {
        (Tables::Balances(expected), Tables::Balances(found)) => difference_of_sums(&expected.sums, &found.sums)
            .unwrap_or_else(|| "the sums are right, of another number of entries".to_owned()),
        (Tables::Inbox(expected), Tables::Inbox(found)) => {
            format!("{} webhooks are there, of {}, or what became of them differs", found.len(), expected.len())
        }
        (Tables::Links(_), Tables::Links(_)) => "the graph differs".to_owned(),
        (Tables::Payouts(_), Tables::Payouts(_)) => "accounts, holds or the last run differ".to_owned(),
        _ => "the tables are of another kind".to_owned(),
    }
}

/// The first account whose balances differ.
pub(crate) fn difference_of_sums(expected: &Sums, found: &Sums) -> Option<String> {
    let of = |sums: &Sums, key| sums.get(key).copied().unwrap_or(0);
    let key = expected.keys().chain(found.keys()).find(|key| of(expected, key) != of(found, key))?;
    Some(format!("{} in {} is {}, not {}", key.0, key.1, of(found, key), of(expected, key)))
}

fn is_receipt_of(recorded: &Recorded, id: &str) -> bool {
    matches!(&recorded.event, Event::StripeEventReceived(received) if received.id.as_str() == id)
}

/// Stream sequence = position, always; each message is an event of the journal, or of a history that a restore took away and that
/// the relay has not noticed yet.
fn check_stream(world: &mut World) {
    if !std::mem::take(&mut world.nats.is_dirty) {
        return;
    }
    let Some(stream) = &world.nats.stream else { return };
    let fault = stream.messages.iter().find_map(|(sequence, message)| {
        if *sequence != message.position.get() {
            return Some(format!("the stream holds position {} at sequence {sequence}", message.position));
        }
        let known = world.journal.ever(message.chain);
        if known.is_none_or(|known| message.event.as_ref() != Some(&*known.row)) {
            return Some(format!("the stream holds at {sequence} what never was in a journal"));
        }
        let is_lost = !world.journal.contains(message.position, message.chain);
        (is_lost && world.counts.restores == 0)
            .then(|| format!("the stream holds at {sequence} what is not in the journal"))
    });
    if let Some(fault) = fault {
        world.fail(fault);
    }
}

/// Why the world has not come to rest yet; `None` where it has.
pub(crate) fn unrest(world: &mut World) -> Option<String> {
    if let Some(delivery) = world.stripe.deliveries.iter().find(|delivery| !delivery.is_done) {
        return Some(format!("{} is not acknowledged", delivery.id));
    }
    let head = world.journal.head();
    let is_mirrored = world.nats.stream.as_ref().is_some_and(|stream| stream.last == head.position.get());
    if !is_mirrored {
        return Some("the stream does not end where the journal does".to_owned());
    }
    for name in RUNNERS {
        let row = world.postgres.runner(name);
        if let Some(halted) = row.halted {
            return Some(format!("{name} is halted: {halted:?}"));
        }
        if (row.checkpoint.position, row.checkpoint.chain) != (head.position, head.chain) {
            return Some(format!("{name} is at position {} of {}", row.checkpoint.position, head.position));
        }
    }
    if world.stripe.transfers.are_under_way() {
        return Some("Stripe is at work on a transfer".to_owned());
    }
    let busy = world.queues.values().any(|queue| !queue.is_idle());
    busy.then(|| "commands wait for a writer".to_owned())
}

/// At rest: the stream mirrors the journal, every webhook is in the inbox, the books tie out, and balances are `expected`.
pub(crate) fn check_rest(world: &mut World, expected: &Sums) {
    let lost = world.nats.stream.as_ref().and_then(|stream| {
        stream.messages.values().find(|message| !world.journal.contains(message.position, message.chain))
    });
    if let Some(position) = lost.map(|message| message.position) {
        world.fail(format!("the stream still serves position {position} of a history that was lost"));
    }
    let mut tie_out = TieOut::default();
    let mut receipts = 0;
    let mut fault = None;
    for recorded in world.journal.events() {
        receipts += usize::from(matches!(recorded.event, Event::StripeEventReceived(_)));
        let row = &recorded.row;
        if let Err(error) = tie_out.event(&row.stream.to_string(), &recorded.event, row.position.get()) {
            fault.get_or_insert(format!("the books do not tie out at position {}: {error}", row.position));
        }
    }
    if let Err((position, error)) = tie_out.end() {
        fault.get_or_insert(format!("the books do not tie out at position {position}: {error}"));
    }
    if let Tables::Inbox(inbox) = &*world.postgres.runner(INBOX).tables
        && inbox.len() != receipts
    {
        fault.get_or_insert(format!("the inbox holds {} webhooks, the journal {receipts}", inbox.len()));
    }
    if let Tables::Balances(balances) = &*world.postgres.runner(BALANCES).tables
        && let Some(difference) = difference_of_sums(expected, &balances.sums)
    {
        fault.get_or_insert(format!("told in plain order, the same webhooks come to other balances: {difference}"));
    }
    let fault = fault.or_else(|| payout_checks::fault(world));
    if let Some(fault) = fault {
        world.fail(fault);
    }
}
