//! Reads a long stretch of the journal into a projection's tables, much faster than a runner at the head needs to: pages come
//! through `COPY` ahead of whoever takes them, without the payloads of events that nobody wants, and many pages share a
//! transaction.
//!
//! The chain is not recomputed here, as it is not in [`crate::reader`]: that is [`crate::verify`]'s work. Positions must be dense.
//!
//! What is not here: when to load and what comes after it (`generation`), and how rows are written (each projection's
//! [`Loader`], or its `apply`).

use std::any::Any;
use std::collections::{BTreeSet, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use chrono::DateTime;
use futures::{FutureExt, TryStreamExt};
use sqlx::{Connection as _, PgConnection};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::checkpoint::{Checkpoint, Moved, Mover, advance};
use crate::copy::{self, COLUMNS, RawEvent};
use crate::event::{ChainDigest, Position, RecordedEvent, StreamId};
use crate::reader::ReadError;
use crate::runner::{ApplyError, Effects, Projection, RunnerContext, RunnerError, Stop, apply};

/// A page ends at so many bytes or rows. At most four pages are in memory: one is read, two wait, one is taken.
const PAGE_BYTES: usize = 4 << 20;
const PAGE_ROWS: usize = 20_000;
const PAGES_WAITING: usize = 2;

/// Positions per COPY statement: about a second's work, so that no snapshot is held long.
const STATEMENT_POSITIONS: u64 = 100_000;

/// Events per transaction of a [`Loader`], which then writes what it has held back: with half a million, an account that each
/// page touches is written a few times a minute, and a crash costs seconds. `apply` holds nothing back and commits each page.
const TRANSACTION_EVENTS: usize = 500_000;

/// Fills a projection's tables page by page, holding back in memory what later pages would only change again.
///
/// It lives from the beginning of a load to its end. A transaction that fails ends the load: the next one begins with a new
/// loader at the checkpoint, over tables that hold what was committed.
#[async_trait]
pub trait Loader: Send {
    /// Takes a page in, in the transaction that [`Loader::flush`] will end. Unqualified names mean this generation's tables.
    /// Of its events only positions, types, versions, payloads and times were read.
    ///
    /// # Errors
    /// As `Projection::apply`.
    async fn load(&mut self, page: Page, connection: &mut PgConnection) -> Result<(), ApplyError>;

    /// Writes what was held back, so that the tables are those that `apply` would have made of the same events.
    ///
    /// # Errors
    /// As `Projection::apply`.
    async fn flush(&mut self, connection: &mut PgConnection) -> Result<(), ApplyError>;
}

/// Consecutive events of the journal, as they came from Postgres.
pub struct Page {
    bytes: Vec<u8>,
    rows: Vec<Row>,
    /// The chain before the first row.
    previous_chain: ChainDigest,
}

struct Row {
    /// In `bytes`: rows are parsed once, on the way in.
    fields: Places,
    wanted: bool,
}

impl Page {
    /// The events that the projection wants, in order, without a copy of their bytes.
    pub fn events(&self) -> impl Iterator<Item = RawEvent<'_>> {
        self.rows.iter().filter(|row| row.wanted).map(|row| self.raw(row))
    }

    fn raw(&self, row: &Row) -> RawEvent<'_> {
        RawEvent::of(row.fields.map(|(start, end)| self.bytes.get(start as usize..end as usize).unwrap_or_default()))
    }

    /// The same, as `Projection::apply` takes them.
    fn recorded(&self) -> Result<Vec<Arc<RecordedEvent>>, sqlx::Error> {
        let mut previous_chain = self.previous_chain;
        let mut recorded = Vec::new();
        for row in &self.rows {
            let raw = self.raw(row);
            let chain = digest(raw.chain)?;
            if row.wanted {
                recorded.push(Arc::new(event(&raw, chain, previous_chain)?));
            }
            previous_chain = chain;
        }
        Ok(recorded)
    }

    /// Marks what is wanted, and returns the checkpoint after the page; `None` where it does not follow on `from`.
    fn follow(&mut self, from: Checkpoint, mut wants: impl FnMut(&str, Position) -> bool) -> Option<Checkpoint> {
        self.previous_chain = from.chain;
        let mut end = from;
        for n in 0..self.rows.len() {
            let raw = self.raw(self.rows.get(n)?);
            let position = Position::from_i64(raw.position);
            if position != end.position.next() {
                return None;
            }
            let wanted = wants(std::str::from_utf8(raw.event_type).ok()?, position);
            end = Checkpoint { position, chain: digest(raw.chain).ok()?, ..end };
            self.rows.get_mut(n)?.wanted = wanted;
        }
        Some(end)
    }
}

fn event(raw: &RawEvent<'_>, chain: ChainDigest, previous_chain: ChainDigest) -> Result<RecordedEvent, sqlx::Error> {
    Ok(RecordedEvent {
        position: Position::from_i64(raw.position),
        event_id: raw.event_id,
        recorded_at: DateTime::from_timestamp_micros(raw.recorded_at_micros)
            .ok_or_else(|| sqlx::Error::Decode("recorded_at is beyond what a time can be".into()))?,
        stream: StreamId::new(text(raw.aggregate_type)?, text(raw.aggregate_id)?),
        sequence: raw.sequence.cast_unsigned(),
        event_type: text(raw.event_type)?.to_owned(),
        event_version: text(raw.event_version)?.to_owned(),
        payload: text(raw.payload)?.into(),
        metadata: text(raw.metadata)?.into(),
        chain,
        previous_chain,
    })
}

fn text(bytes: &[u8]) -> Result<&str, sqlx::Error> {
    std::str::from_utf8(bytes).map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

fn digest(bytes: &[u8]) -> Result<ChainDigest, sqlx::Error> {
    bytes.try_into().map(ChainDigest).map_err(|_| sqlx::Error::Decode("a chain digest is not 32 bytes long".into()))
}

/// Where a load writes: one generation of one projection, whose lock `connection` holds and whose schema is on its search path.
pub(crate) struct Target<'a> {
    pub projection: &'a mut dyn Projection,
    pub connection: &'a mut PgConnection,
    pub generation: i32,
    pub skips: &'a HashSet<Position>,
    pub effects: Effects,
}

/// Why a load stops. What was committed before stays.
pub(crate) enum LoadError {
    /// The checkpoint is not where it was left, or not to be moved.
    NotMoved,
    /// What comes next does not follow on the checkpoint.
    HistoryChanged,
    /// Some event of the transaction cannot be applied; a runner, from the checkpoint on, finds out which.
    Poison(ApplyError),
    /// An operator, or another step of the rebuild, wants it so.
    Stopped(Stop),
    /// Something that may pass.
    Failed(RunnerError),
}

impl From<RunnerError> for LoadError {
    fn from(error: RunnerError) -> Self {
        Self::Failed(error)
    }
}

impl From<ApplyError> for LoadError {
    fn from(error: ApplyError) -> Self {
        if error.transient { Self::Failed(RunnerError::Apply(error)) } else { Self::Poison(error) }
    }
}

/// A load under way.
pub(crate) struct Load {
    pages: mpsc::Receiver<Result<Page, ReadError>>,
    _reading: AbortOnDropHandle<()>,
    loader: Option<Box<dyn Loader>>,
    unwanted: Unwanted,
}

/// The types that came and were not wanted: their payloads are not read again.
type Unwanted = Arc<Mutex<BTreeSet<String>>>;

impl Load {
    /// Begins to read after a position, up to and including another, on a connection of its own.
    pub async fn begin(
        context: &RunnerContext,
        loader: Option<Box<dyn Loader>>,
        after: Position,
        to: Position,
    ) -> Result<Self, RunnerError> {
        let connection = context.connect().await?;
        let (sender, pages) = mpsc::channel(PAGES_WAITING);
        let unwanted = Unwanted::default();
        let columns = if loader.is_some() { Columns::Loader } else { Columns::All };
        let reading = tokio::spawn(read(connection, columns, after, to, Arc::clone(&unwanted), sender));
        Ok(Self { pages, _reading: AbortOnDropHandle::new(reading), loader, unwanted })
    }

    /// Loads one transaction's worth and moves the checkpoint with it. `None`: everything was loaded. After an error this is of
    /// no use any more: the loader holds what was rolled back.
    pub async fn step(&mut self, target: Target<'_>, checkpoint: &mut Checkpoint) -> Result<Option<Moved>, LoadError> {
        let Target { projection, connection, generation, skips, effects } = target;
        let mover = Mover { name: projection.name(), generation, sends_commands: projection.sends_commands() };
        let mut end = *checkpoint;
        let mut transaction = connection.begin().await.map_err(RunnerError::Transaction)?;
        let mut events = 0;
        while let Some(page) = self.pages.recv().await {
            let mut page = page.map_err(RunnerError::Journal)?;
            end = self.choose(&mut page, end, &*projection, skips).ok_or(LoadError::HistoryChanged)?;
            events += page.rows.len();
            match &mut self.loader {
                Some(loader) => caught(loader.load(page, &mut transaction)).await?,
                None => {
                    let wanted = page.recorded().map_err(|source| {
                        RunnerError::Journal(ReadError::Page { after: checkpoint.position, source })
                    })?;
                    if !wanted.is_empty() {
                        apply(projection, &wanted, effects, &mut transaction).await?;
                    }
                }
            }
            if self.loader.is_none() || events >= TRANSACTION_EVENTS {
                break;
            }
        }
        if events == 0 {
            transaction.rollback().await.map_err(RunnerError::Transaction)?;
            return Ok(None);
        }
        if let Some(loader) = &mut self.loader {
            caught(loader.flush(&mut transaction)).await?;
        }
        let moved = advance(&mut transaction, mover, checkpoint.position, &end)
            .await
            .map_err(RunnerError::Checkpoint)?
            .ok_or(LoadError::NotMoved)?;
        transaction.commit().await.map_err(RunnerError::Transaction)?;
        *checkpoint = end;
        Ok(Some(moved))
    }

    fn choose(
        &self,
        page: &mut Page,
        from: Checkpoint,
        projection: &dyn Projection,
        skips: &HashSet<Position>,
    ) -> Option<Checkpoint> {
        page.follow(from, |event_type, position| {
            if projection.wants(event_type) {
                return !skips.contains(&position);
            }
            let mut unwanted = self.unwanted.lock().unwrap_or_else(PoisonError::into_inner);
            if !unwanted.contains(event_type) {
                unwanted.insert(event_type.to_owned());
            }
            false
        })
    }
}

/// A panic in a loader is an error like any other.
async fn caught(loading: impl Future<Output = Result<(), ApplyError>>) -> Result<(), ApplyError> {
    AssertUnwindSafe(loading).catch_unwind().await.unwrap_or_else(|panic: Box<dyn Any + Send>| {
        let text = panic.downcast_ref::<&'static str>().map(|text| (*text).to_owned());
        let message = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        Err(ApplyError { position: None, transient: false, source: format!("the loader panicked: {message}").into() })
    })
}

/// What is read of each row. Every column costs Postgres some 60 ns a row, a null one too.
#[derive(Clone, Copy)]
enum Columns {
    /// Those of [`RawEvent`], but for the leaf.
    All,
    /// Those that a [`Loader`] is promised.
    Loader,
}

impl Columns {
    /// Those before the payload, and those after it.
    const fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::All => (
                "position, aggregate_type, aggregate_id, sequence, event_type, event_version",
                "metadata, event_id, recorded_at, NULL::bytea, chain",
            ),
            Self::Loader => ("position, event_type, event_version", "recorded_at, chain"),
        }
    }

    /// Where the fields of the row that begins at `start` lie, and where it ends, once it is whole; no fields for the end marker.
    fn places(self, bytes: &[u8], start: usize) -> Result<Option<(Option<Places>, usize)>, sqlx::Error> {
        // Of the loader's columns, which of a raw event's each is.
        const LOADER: [usize; 6] = [0, 4, 5, 6, 9, 11];
        let input = bytes.get(start..).unwrap_or_default();
        Ok(match self {
            Self::All => {
                copy::tuple(input)?.map(|(row, rest)| (row.map(|row| places(row, start)), bytes.len() - rest.len()))
            }
            Self::Loader => copy::tuple(input)?.map(|(row, rest)| {
                let spread = |places: [(u32, u32); LOADER.len()]| {
                    let mut all = [(0, 0); COLUMNS];
                    for (column, place) in LOADER.into_iter().zip(places) {
                        if let Some(of_column) = all.get_mut(column) {
                            *of_column = place;
                        }
                    }
                    all
                };
                (row.map(|row| spread(places(row, start))), bytes.len() - rest.len())
            }),
        })
    }
}

/// Where each field of a raw event begins and ends; empty where it was not read.
type Places = [(u32, u32); COLUMNS];

/// Where the fields of a tuple lie that begins at `start`: each is behind its length, which is behind the field before.
fn places<const N: usize>(fields: [&[u8]; N], start: usize) -> [(u32, u32); N] {
    let mut at = start + size_of::<i16>();
    fields.map(|field| {
        let begins = at + size_of::<i32>();
        at = begins + field.len();
        // A page is bounded, and so is an event.
        (u32::try_from(begins).unwrap_or(u32::MAX), u32::try_from(at).unwrap_or(u32::MAX))
    })
}

/// Sends the stretch in pages, until the last or until nobody takes them any more.
async fn read(
    mut connection: PgConnection,
    columns: Columns,
    after: Position,
    to: Position,
    unwanted: Unwanted,
    pages: mpsc::Sender<Result<Page, ReadError>>,
) {
    let mut after = after;
    while after < to {
        let until = Position::new((after.get() + STATEMENT_POSITIONS).min(to.get()));
        let statement = statement(columns, after, until, &unwanted);
        if let Err(source) = read_statement(&mut connection, columns, &statement, &pages).await {
            pages.send(Err(ReadError::Page { after, source })).await.ok();
            return;
        }
        if pages.is_closed() {
            return;
        }
        after = until;
    }
}

fn statement(columns: Columns, after: Position, until: Position, unwanted: &Unwanted) -> String {
    // COPY takes no parameters: what is put in here are integers, and names of which the database's CHECK says the same.
    let unwanted = unwanted.lock().unwrap_or_else(PoisonError::into_inner);
    let names: Vec<String> = unwanted
        .iter()
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_alphanumeric()))
        .map(|name| format!("'{name}'"))
        .collect();
    let payload = if names.is_empty() {
        "payload".to_owned()
    } else {
        format!("CASE WHEN event_type NOT IN ({}) THEN payload END", names.join(", "))
    };
    let (before_payload, after_payload) = columns.names();
    format!(
        "COPY (SELECT {before_payload}, {payload}, {after_payload} FROM journal.events \
         WHERE position > {after} AND position <= {until} ORDER BY position) TO STDOUT (FORMAT binary)"
    )
}

async fn read_statement(
    connection: &mut PgConnection,
    columns: Columns,
    statement: &str,
    pages: &mpsc::Sender<Result<Page, ReadError>>,
) -> Result<(), sqlx::Error> {
    let mut chunks = connection.copy_out_raw(statement).await?;
    let mut page = Page::empty();
    let mut parsed = 0;
    let mut header_seen = false;
    while let Some(chunk) = chunks.try_next().await? {
        page.bytes.extend_from_slice(&chunk);
        if !header_seen {
            let Some(rest) = copy::header(&page.bytes)? else { continue };
            parsed = page.bytes.len() - rest.len();
            header_seen = true;
        }
        while let Some((row, end)) = columns.places(&page.bytes, parsed)? {
            if let Some(fields) = row {
                page.rows.push(Row { fields, wanted: false });
            }
            parsed = end;
        }
        if page.rows.len() >= PAGE_ROWS || page.bytes.len() >= PAGE_BYTES {
            let mut next = Page::empty();
            next.bytes.extend_from_slice(page.bytes.get(parsed..).unwrap_or_default());
            page.bytes.truncate(parsed);
            parsed = 0;
            if pages.send(Ok(std::mem::replace(&mut page, next))).await.is_err() {
                // The rest of the answer is read off by whoever closes the connection.
                return Ok(());
            }
        }
    }
    if !page.rows.is_empty() {
        pages.send(Ok(page)).await.ok();
    }
    Ok(())
}

impl Page {
    fn empty() -> Self {
        // One chunk beyond the limit still fits without another allocation, as a rule.
        Self {
            bytes: Vec::with_capacity(PAGE_BYTES + (64 << 10)),
            rows: Vec::new(),
            previous_chain: ChainDigest::START,
        }
    }
}
