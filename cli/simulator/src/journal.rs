//! The journal in memory, with the contract of `journal.append` (`migrations/0003_append.sql`): dense positions, expected
//! sequences, guards, keys, times that never go back, the chain. And, since backups get restored, what it once held.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use fanledger_domain::entry::check_postings;
use fanledger_domain::event::Event;
use fanledger_domain::money::Currency;
use fanledger_journal::append::{Command, Outcome};
use fanledger_journal::digest::{Content, chain, leaf};
use fanledger_journal::event::{ChainDigest, Metadata, Position, RecordedEvent, StreamId};
use fanledger_journal::reader::Head;
use uuid::Uuid;

use crate::world::Micros;

/// An event as it is recorded, and what it says.
#[derive(Debug)]
pub(crate) struct Recorded {
    pub row: Arc<RecordedEvent>,
    pub event: Event,
    /// The webhook, or whatever else, that led to it.
    pub cause: Option<String>,
}

/// A rule of the journal's that a call broke: the caller is at fault.
pub(crate) type BrokenRule = String;

struct Key {
    request: [u8; 32],
    first: Position,
    last: Position,
}

/// See the module.
pub(crate) struct Journal {
    pub id: Uuid,
    events: Vec<Arc<Recorded>>,
    streams: BTreeMap<StreamId, Vec<Arc<Recorded>>>,
    keys: HashMap<[u8; 32], Key>,
    entry_ids: HashSet<String>,
    /// Everything that was ever recorded, by its chain: also what a restore took away. Never iterated.
    ever: HashMap<[u8; 32], Arc<Recorded>>,
    totals: BTreeMap<Currency, i128>,
    /// Makes event ids: unique over every history.
    recorded: u128,
}

impl Journal {
    pub fn new(id: Uuid) -> Self {
        Self {
            id,
            events: Vec::new(),
            streams: BTreeMap::new(),
            keys: HashMap::new(),
            entry_ids: HashSet::new(),
            ever: HashMap::new(),
            totals: BTreeMap::new(),
            recorded: 0,
        }
    }

    pub fn head(&self) -> Head {
        let last = self.events.last();
        Head {
            journal_id: self.id,
            position: last.map_or(Position::START, |last| last.row.position),
            chain: last.map_or(ChainDigest::START, |last| last.row.chain),
        }
    }

    pub fn position(&self) -> Position {
        Position::new(self.events.len() as u64)
    }

    pub fn events(&self) -> &[Arc<Recorded>] {
        &self.events
    }

    pub fn at(&self, position: Position) -> Option<&Arc<Recorded>> {
        self.events.get(usize::try_from(position.get().checked_sub(1)?).ok()?)
    }

    pub fn after(&self, position: Position, limit: usize) -> &[Arc<Recorded>] {
        let from = usize::try_from(position.get()).unwrap_or(usize::MAX).min(self.events.len());
        &self.events[from..(from + limit).min(self.events.len())]
    }

    pub fn stream(&self, stream: &StreamId) -> &[Arc<Recorded>] {
        self.streams.get(stream).map_or(&[], Vec::as_slice)
    }

    fn last_sequence(&self, stream: &StreamId) -> u64 {
        self.stream(stream).len() as u64
    }

    /// Whether the journal, as it is, goes through this point.
    pub fn contains(&self, position: Position, chain: ChainDigest) -> bool {
        match self.at(position) {
            Some(recorded) => recorded.row.chain == chain,
            None => position == Position::START && chain == ChainDigest::START,
        }
    }

    /// What was recorded with this chain, in this history or in one that was lost.
    pub fn ever(&self, chain: ChainDigest) -> Option<&Arc<Recorded>> {
        self.ever.get(&chain.0)
    }

    /// One call of `journal.append`: each command is judged alone, and those that stand are recorded at one instant.
    pub fn append(&mut self, commands: &[Command], now: Micros) -> Result<Vec<Outcome>, BrokenRule> {
        check_batch(commands)?;
        let outcomes: Vec<Option<Outcome>> = commands.iter().map(|command| self.judge(command)).collect();
        let last = self.events.last().map_or(i64::MIN, |last| last.row.recorded_at.timestamp_micros());
        let at = now.max(last);
        commands
            .iter()
            .zip(outcomes)
            .map(|(command, judged)| match judged {
                Some(outcome) => Ok(outcome),
                None => self.record(command, at),
            })
            .collect()
    }

    /// `None` where the command stands. A key that was seen outweighs a conflict.
    fn judge(&self, command: &Command) -> Option<Outcome> {
        if let Some(key) = &command.key
            && let Some(known) = self.keys.get(&key.key)
        {
            return Some(if known.request == key.request {
                Outcome::Duplicate { first: known.first, last: known.last }
            } else {
                Outcome::Misuse
            });
        }
        let actual = self.last_sequence(&command.stream);
        if actual != command.expected {
            return Some(Outcome::Conflict { stream: command.stream.clone(), actual });
        }
        command.guards.iter().find_map(|guard| {
            let actual = self.last_sequence(&guard.stream);
            (actual != guard.sequence).then(|| Outcome::Conflict { stream: guard.stream.clone(), actual })
        })
    }

    fn record(&mut self, command: &Command, at: Micros) -> Result<Outcome, BrokenRule> {
        let metadata: Arc<str> =
            serde_json::to_string(&command.metadata).map_err(|error| format!("metadata: {error}"))?.into();
        let first = self.position().next();
        for (sequence, new) in (command.expected + 1..).zip(&command.events) {
            let event = Event::decode(&new.event_type, &new.event_version, &new.payload)
                .map_err(|error| format!("an event that cannot be read back: {error}"))?;
            self.check_entry(&event)?;
            let head = self.head();
            let position = head.position.next();
            self.recorded += 1;
            let event_id = Uuid::from_u128((0x0198_u128 << 112) | (0x7_u128 << 76) | (0x2_u128 << 62) | self.recorded);
            let leaf = leaf(&Content {
                aggregate_type: command.stream.aggregate_type.as_bytes(),
                aggregate_id: command.stream.aggregate_id.as_bytes(),
                sequence: sequence.cast_signed(),
                event_type: new.event_type.as_bytes(),
                event_version: new.event_version.as_bytes(),
                event_id,
                payload: new.payload.as_bytes(),
                metadata: metadata.as_bytes(),
            });
            let row = RecordedEvent {
                position,
                event_id,
                recorded_at: DateTime::<Utc>::from_timestamp_micros(at).unwrap_or_default(),
                stream: command.stream.clone(),
                sequence,
                event_type: new.event_type.clone(),
                event_version: new.event_version.clone(),
                payload: new.payload.as_str().into(),
                metadata: Arc::clone(&metadata),
                chain: chain(head.chain, position, at, &leaf),
                previous_chain: head.chain,
            };
            self.push(Arc::new(Recorded { row: Arc::new(row), event, cause: cause(&command.metadata) }));
        }
        let last = self.position();
        if let Some(key) = &command.key {
            self.keys.insert(key.key, Key { request: key.request, first, last });
        }
        Ok(Outcome::Appended { first, last })
    }

    fn check_entry(&mut self, event: &Event) -> Result<(), BrokenRule> {
        let Event::EntryPosted(entry) = event else { return Ok(()) };
        check_postings(&entry.postings).map_err(|error| format!("entry {} refused: {error}", entry.entry_id))?;
        if self.entry_ids.contains(entry.entry_id.as_str()) {
            return Err(format!("entry {} is in the journal already", entry.entry_id));
        }
        Ok(())
    }

    fn push(&mut self, recorded: Arc<Recorded>) {
        if let Event::EntryPosted(entry) = &recorded.event {
            self.entry_ids.insert(entry.entry_id.to_string());
            for posting in &entry.postings {
                *self.totals.entry(posting.money.currency()).or_default() += i128::from(posting.signed_minor());
            }
        }
        self.streams.entry(recorded.row.stream.clone()).or_default().push(Arc::clone(&recorded));
        self.ever.insert(recorded.row.chain.0, Arc::clone(&recorded));
        self.events.push(recorded);
    }

    /// Goes back to how it was at a position, as a restored backup does.
    pub fn restore(&mut self, head: Position) {
        let kept: Vec<Arc<Recorded>> = self.after(Position::START, usize::try_from(head.get()).unwrap_or(0)).to_vec();
        self.events.clear();
        self.streams.clear();
        self.entry_ids.clear();
        self.totals.clear();
        self.keys.retain(|_, key| key.last <= head);
        kept.into_iter().for_each(|recorded| self.push(recorded));
    }

    /// The currencies in which all postings together are not zero.
    pub fn imbalance(&self) -> Option<(Currency, i128)> {
        self.totals.iter().find(|(_, minor)| **minor != 0).map(|(currency, minor)| (*currency, *minor))
    }
}

fn cause(metadata: &Metadata) -> Option<String> {
    metadata.causation_id.clone()
}

/// What the function refuses of a whole call: the writer never sends it.
fn check_batch(commands: &[Command]) -> Result<(), BrokenRule> {
    let mut written = HashSet::new();
    for command in commands {
        if command.events.is_empty() {
            return Err(format!("a command on {} without events", command.stream));
        }
        if !written.insert(&command.stream) {
            return Err(format!("two commands of a batch write {}", command.stream));
        }
    }
    let guarded = commands.iter().flat_map(|command| &command.guards).find(|guard| written.contains(&guard.stream));
    guarded.map_or(Ok(()), |guard| Err(format!("a batch writes {}, which is guarded in it", guard.stream)))
}
