//! Checks the journal against itself and names the first position where it is not what was appended.
//!
//! Streams the events by position in pages, each page a short transaction, in memory bounded whatever the journal's size.
//! What the books must add up to is not known here: the caller passes a [`BooksCheck`].

use std::sync::Arc;

use chrono::DateTime;
use sqlx::{PgPool, Row};

use crate::copy::{RawEvent, each_event};
use crate::digest::{self, Content};
use crate::event::{ChainDigest, Position, RecordedEvent, StreamId};
use crate::sequences::Sequences;

/// Positions per page: a fraction of a second's work, so that no snapshot is held long.
const PAGE: i64 = 20_000;

/// What differs, in the order in which it is told where several hold at one position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DivergenceKind {
    /// A row is missing although later ones are there.
    Gap,
    /// The content does not agree with its leaf.
    Content,
    /// The sequence is out of place within its stream.
    Order,
    /// The chain or the time does not follow from what is before; or the row of `batches` that covers it is wrong.
    Chain,
    /// The journal ends before its head: the tail was cut.
    Head,
    /// The books do not add up.
    Balance,
}

impl DivergenceKind {
    /// Its name on the command line and in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gap => "gap",
            Self::Content => "content",
            Self::Order => "order",
            Self::Chain => "chain",
            Self::Head => "head",
            Self::Balance => "balance",
        }
    }
}

/// The first place where the journal is not what was appended.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Divergence {
    /// Where.
    pub position: Position,
    /// What.
    pub kind: DivergenceKind,
    /// In words.
    pub detail: String,
}

/// What was checked and what was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Events that were read.
    pub events: u64,
    /// The head when the check began.
    pub head: Position,
    /// `None`: everything agrees.
    pub first_divergence: Option<Divergence>,
}

/// Which part to check; by default all. What is appended after the check began is left for the next one.
#[derive(Clone, Copy, Debug, Default)]
pub struct VerifyOptions {
    /// The first position; the chain before it is taken as it is.
    pub from: Option<Position>,
    /// The last position.
    pub to: Option<Position>,
}

/// How far the check has come.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// The last position that was checked.
    pub position: Position,
    /// The last that will be.
    pub last: Position,
}

/// What the books must add up to. It sees every event that it wants, in order, and only when the check begins at
/// position 1: books cannot be judged from their middle.
pub trait BooksCheck {
    /// Whether events of this type concern the books; the others are not decoded.
    fn wants(&self, event_type: &str) -> bool {
        let _ = event_type;
        true
    }

    /// Takes an event in.
    ///
    /// # Errors
    /// What does not add up at this event.
    fn event(&mut self, event: &RecordedEvent) -> Result<(), String>;

    /// Judges the books as they are after the last event.
    ///
    /// # Errors
    /// What does not add up; told at the last position.
    fn end(&mut self) -> Result<(), String>;
}

/// Why the journal could not be checked: something else than a divergence.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// No connection.
    #[error("connect to the journal to verify it")]
    Connect(#[source] sqlx::Error),
    /// The head could not be read.
    #[error("read the journal's head to verify it")]
    Head(#[source] sqlx::Error),
    /// A page could not be read.
    #[error("read the journal from position {from} to verify it")]
    Page {
        /// The page's first position.
        from: i64,
        /// What went wrong.
        #[source]
        source: sqlx::Error,
    },
    /// The rows of `batches` could not be read.
    #[error("read the batches from position {from} to verify them")]
    Batches {
        /// The page's first position.
        from: i64,
        /// What went wrong.
        #[source]
        source: sqlx::Error,
    },
    /// Streams could not be looked up.
    #[error("look up the streams of the page from position {from} to verify their order")]
    Order {
        /// The page's first position.
        from: i64,
        /// What went wrong.
        #[source]
        source: sqlx::Error,
    },
}

/// Checks the journal. `progress` is called after each page.
///
/// # Errors
/// When the journal cannot be read; a divergence is no error.
pub async fn verify(
    pool: &PgPool,
    options: VerifyOptions,
    books: Option<&mut (dyn BooksCheck + Send)>,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<Report, VerifyError> {
    let mut connection = pool.acquire().await.map_err(VerifyError::Connect)?;
    // One snapshot, so that an append in between is not taken for a difference.
    let ends = sqlx::query(
        "SELECT coalesce((SELECT max(position) FROM journal.events), 0), \
                coalesce((SELECT max(last_position) FROM journal.batches), 0)",
    )
    .fetch_one(&mut *connection)
    .await
    .map_err(VerifyError::Head)?;
    let (last_row, head): (i64, i64) = (ends.get(0), ends.get(1));
    let end = last_row.max(head);
    let from = options.from.map_or(1, |from| from.as_i64().max(1));
    let last = options.to.map_or(end, |to| to.as_i64().min(end));
    let mut check = Check {
        books: books.filter(|_| from == 1),
        sequences: Sequences::new(),
        next: from,
        chain: ChainDigest::START,
        recorded_at_micros: i64::MIN,
        batches: Batches { covered: None, page: Vec::new(), current: 0, from },
        found: None,
        last_row,
        events: 0,
    };
    if from == 1 {
        check.batches.covered = Some(0);
    } else {
        check.begin_after(&mut connection, from).await?;
    }
    while check.found.is_none() && check.next <= last {
        let (page_from, page_to) = (check.next, last.min(check.next.saturating_add(PAGE - 1)));
        check.batches.load(&mut connection, page_from, page_to).await?;
        each_event(&mut connection, page_from, page_to, |row| check.row(row))
            .await
            .map_err(|source| VerifyError::Page { from: page_from, source })?;
        if check.found.is_none() && check.next <= page_to {
            check.missing(check.next);
        }
        let misplaced = check.sequences.first_misplaced(&mut connection).await;
        if let Some((position, detail)) = misplaced.map_err(|source| VerifyError::Order { from: page_from, source })? {
            check.find(position, DivergenceKind::Order, detail);
        }
        progress(Progress { position: Position::from_i64(check.next - 1), last: Position::from_i64(last) });
    }
    check.end(last, last == end);
    Ok(Report { events: check.events, head: Position::from_i64(head), first_divergence: check.found })
}

struct Check<'a> {
    books: Option<&'a mut (dyn BooksCheck + Send)>,
    sequences: Sequences,
    /// The position that must come next.
    next: i64,
    /// The chain before it.
    chain: ChainDigest,
    /// The time before it.
    recorded_at_micros: i64,
    batches: Batches,
    /// The lowest divergence so far; once there is one, rows after it are not looked at.
    found: Option<Divergence>,
    /// The last row that there is: what is missing before it is a gap, after it a cut tail.
    last_row: i64,
    events: u64,
}

impl Check<'_> {
    /// Takes the chain and time before the first position as they are.
    async fn begin_after(&mut self, connection: &mut sqlx::PgConnection, from: i64) -> Result<(), VerifyError> {
        let mut before = None;
        each_event(connection, from - 1, from - 1, |row| {
            before = Some((row.chain.try_into().unwrap_or_default(), row.recorded_at_micros));
        })
        .await
        .map_err(|source| VerifyError::Page { from: from - 1, source })?;
        match before {
            Some((chain, at)) => (self.chain, self.recorded_at_micros) = (ChainDigest(chain), at),
            None => self.missing(from - 1),
        }
        Ok(())
    }

    fn find(&mut self, position: i64, kind: DivergenceKind, detail: String) {
        let found = Divergence { position: Position::from_i64(position), kind, detail };
        let lowest = match self.found.take() {
            Some(before) => before.min(found),
            None => found,
        };
        self.found = Some(lowest);
    }

    fn missing(&mut self, position: i64) {
        if position > self.last_row {
            self.find(position, DivergenceKind::Head, format!("the journal's rows end at {}", self.last_row));
        } else {
            self.find(position, DivergenceKind::Gap, "there is no row at this position".to_owned());
        }
    }

    fn row(&mut self, row: &RawEvent<'_>) {
        if self.found.is_some() {
            return;
        }
        if row.position != self.next {
            return self.missing(self.next);
        }
        let leaf = digest::leaf(&Content {
            aggregate_type: row.aggregate_type,
            aggregate_id: row.aggregate_id,
            sequence: row.sequence,
            event_type: row.event_type,
            event_version: row.event_version,
            event_id: row.event_id,
            payload: row.payload,
            metadata: row.metadata,
        });
        if row.leaf != leaf {
            let detail = format!("content digests to {}, its leaf is {}", hex::encode(leaf), hex::encode(row.leaf));
            return self.find(row.position, DivergenceKind::Content, detail);
        }
        self.sequences.see(row);
        let position = Position::from_i64(row.position);
        let chain = digest::chain(self.chain, position, row.recorded_at_micros, &leaf);
        if row.chain != chain.0 {
            let detail = format!("chain is {}, it follows to be {}", hex::encode(row.chain), hex::encode(chain.0));
            return self.find(row.position, DivergenceKind::Chain, detail);
        }
        if row.recorded_at_micros < self.recorded_at_micros {
            return self.find(row.position, DivergenceKind::Chain, "recorded before the event before it".to_owned());
        }
        if let Err((position, detail)) = self.batches.covers(row) {
            return self.find(position, DivergenceKind::Chain, detail);
        }
        if let Err((kind, detail)) = self.books(row, chain) {
            return self.find(row.position, kind, detail);
        }
        self.chain = chain;
        self.recorded_at_micros = row.recorded_at_micros;
        self.next += 1;
        self.events += 1;
    }

    fn books(&mut self, row: &RawEvent<'_>, chain: ChainDigest) -> Result<(), (DivergenceKind, String)> {
        let Some(books) = &mut self.books else { return Ok(()) };
        let text = |bytes, what| {
            std::str::from_utf8(bytes).map_err(|_| (DivergenceKind::Content, format!("{what} is not UTF-8")))
        };
        let event_type = text(row.event_type, "event_type")?;
        if !books.wants(event_type) {
            return Ok(());
        }
        let event = RecordedEvent {
            position: Position::from_i64(row.position),
            event_id: row.event_id,
            recorded_at: DateTime::from_timestamp_micros(row.recorded_at_micros).unwrap_or_default(),
            stream: StreamId::new(text(row.aggregate_type, "aggregate_type")?, text(row.aggregate_id, "aggregate_id")?),
            sequence: row.sequence.cast_unsigned(),
            event_type: event_type.to_owned(),
            event_version: text(row.event_version, "event_version")?.to_owned(),
            payload: Arc::from(text(row.payload, "payload")?),
            metadata: Arc::from(text(row.metadata, "metadata")?),
            chain,
            previous_chain: self.chain,
        };
        books.event(&event).map_err(|detail| (DivergenceKind::Balance, detail))
    }

    /// What can be said only after the last row.
    fn end(&mut self, last: i64, to_the_end: bool) {
        if self.found.is_some() {
            return;
        }
        if to_the_end && let Some(uncovered) = self.batches.first_uncovered(last) {
            self.find(uncovered, DivergenceKind::Chain, "no row of journal.batches covers this position".to_owned());
        } else if let Some(Err(detail)) = self.books.as_mut().map(|books| books.end()) {
            self.find(last, DivergenceKind::Balance, detail);
        }
    }
}

/// The rows of `journal.batches` around the page, followed along with the events.
struct Batches {
    /// Up to where batches that were seen cover; `None` until the first one, where the check began in the middle.
    covered: Option<i64>,
    page: Vec<BatchRow>,
    current: usize,
    from: i64,
}

struct BatchRow {
    first: i64,
    last: i64,
    recorded_at_micros: i64,
    chain: Vec<u8>,
}

impl Batches {
    /// The rows that end within the page, and the one that goes beyond it.
    async fn load(&mut self, connection: &mut sqlx::PgConnection, from: i64, to: i64) -> Result<(), VerifyError> {
        let rows = sqlx::query(
            "SELECT first_position, last_position, (extract(epoch FROM recorded_at) * 1000000)::bigint, chain \
             FROM journal.batches WHERE last_position >= $1 AND last_position <= coalesce( \
                 (SELECT last_position FROM journal.batches WHERE last_position >= $2 ORDER BY last_position LIMIT 1), $2) \
             ORDER BY last_position",
        )
        .bind(from)
        .bind(to)
        .fetch_all(connection)
        .await
        .map_err(|source| VerifyError::Batches { from, source })?;
        self.page = rows
            .iter()
            .map(|row| BatchRow {
                first: row.get(0),
                last: row.get(1),
                recorded_at_micros: row.get(2),
                chain: row.get(3),
            })
            .collect();
        self.current = 0;
        Ok(())
    }

    /// Whether the batch that covers this event, which is itself in order, agrees with it.
    fn covers(&mut self, event: &RawEvent<'_>) -> Result<(), (i64, String)> {
        let should_begin = self.covered.map(|covered| covered + 1);
        let blamed = should_begin.unwrap_or(self.from);
        let Some(batch) = self.page.get(self.current) else {
            return Err((blamed, "no row of journal.batches covers this position".to_owned()));
        };
        // Checked at every event of the batch, because a page may begin within one.
        let begins_wrong = match should_begin {
            Some(first) => batch.first != first,
            None => batch.first > self.from,
        };
        if begins_wrong {
            return Err((blamed, format!("the batch that ends at {} begins at {}", batch.last, batch.first)));
        }
        if batch.recorded_at_micros != event.recorded_at_micros {
            return Err((blamed, format!("the batch that ends at {} has another time than its events", batch.last)));
        }
        if batch.last == event.position {
            if batch.chain != event.chain {
                return Err((
                    blamed,
                    format!("the batch that ends at {} has another chain than its last event", batch.last),
                ));
            }
            self.covered = Some(batch.last);
            self.current += 1;
        }
        Ok(())
    }

    /// The first position up to the last that no batch covers.
    fn first_uncovered(&self, last: i64) -> Option<i64> {
        self.covered.filter(|covered| *covered < last).map(|covered| covered + 1)
    }
}
