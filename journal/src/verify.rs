//! Checks the journal against itself and names the first position where it is not what was appended; and, where checkpoints are
//! given, against what the journal was when those were signed.
//!
//! Streams the events by position in pages, each page a short transaction, in memory bounded whatever the journal's size. One
//! task reads what Postgres sends, a thread of its own decodes, hashes and judges it ([`check`]), so that reading and hashing
//! each have a core. What the books must add up to is not known here: the caller passes a [`BooksCheck`].
//!
//! `docs/verify.md` says the same for a verifier in another language: a change of one is a change of the other.

mod batches;
mod check;

use std::borrow::Cow;

use sqlx::{PgConnection, Row};
use tokio::sync::mpsc;

use crate::batch_rows;
use crate::copy;
use crate::entry_ids;
use crate::event::{ChainDigest, Position};
use crate::merkle::NodeHash;
use crate::merkle::checkpoint::Checkpoint;
use crate::sequences::{self, Doubtful};
use check::{Check, Checked, Work};

/// Positions per page: a fraction of a second's work, so that no snapshot is held long.
const PAGE: i64 = 20_000;
/// Bytes handed over at a time, some three hundred events: few enough to stay in the processor's cache.
const PIECE_BYTES: usize = 256 * 1024;
/// Pieces on their way: what evens out that the two sides take turns in being slow.
const PIECES_MAX: usize = 16;

/// What differs, in the order in which it is told where several hold at one position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DivergenceKind {
    /// A row is missing although later ones are there.
    Gap,
    /// The content does not agree with its leaf.
    Content,
    /// The sequence is out of place within its stream.
    Order,
    /// The chain or the time does not follow from what is before; or the row of `batches` that covers it is wrong; or the
    /// journal up to here is not what a checkpoint says.
    Chain,
    /// The journal ends before its head, or before a checkpoint: the tail was cut.
    Head,
    /// The books do not add up, or `entry_ids` does not say what was posted.
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
    /// The Merkle root of the events that were read, where the check began at the first and all agrees.
    pub root: Option<NodeHash>,
    /// `None`: everything agrees.
    pub first_divergence: Option<Divergence>,
}

/// Which part to check; by default all. What is appended after the check began is left for the next one.
#[derive(Clone, Debug, Default)]
pub struct VerifyOptions {
    /// The first position; the chain before it is taken as it is.
    pub from: Option<Position>,
    /// The last position.
    pub to: Option<Position>,
    /// Earlier states of this journal, already believed: it must extend each of them. Those that lie outside the part that
    /// is checked are not judged.
    pub against: Vec<Checkpoint>,
}

/// How far the check has come.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// The last position that was checked.
    pub position: Position,
    /// The last that will be.
    pub last: Position,
}

/// An event whose content was found to agree with its leaf, as the check of the books sees it.
#[derive(Clone, Copy, Debug)]
pub struct SeenEvent<'a> {
    /// Its position.
    pub position: Position,
    /// The stream's type.
    pub aggregate_type: &'a str,
    /// The stream's id.
    pub aggregate_id: &'a str,
    /// The event's type.
    pub event_type: &'a str,
    /// The version of the payload's shape.
    pub event_version: &'a str,
    /// The payload's exact text.
    pub payload: &'a str,
}

/// What the books must add up to. It sees every event that it wants, in order, and only when the check begins at
/// position 1: books cannot be judged from their middle.
pub trait BooksCheck: Send {
    /// Whether events of this type concern the books; the others are not shown.
    fn wants(&self, event_type: &str) -> bool {
        let _ = event_type;
        true
    }

    /// Takes an event in. Answers the id of the ledger entry that it posts, if it posts one.
    ///
    /// # Errors
    /// What does not add up at this event.
    fn event<'a>(&mut self, event: &SeenEvent<'a>) -> Result<Option<Cow<'a, str>>, String>;

    /// Judges the books as they are after the last event.
    ///
    /// # Errors
    /// What does not add up; told at the last position.
    fn end(&mut self) -> Result<(), String>;
}

/// Why the journal could not be checked: something else than a divergence.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
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
    #[error("look up the streams of the page up to position {to} to verify their order")]
    Order {
        /// The page's last position.
        to: i64,
        /// What went wrong.
        #[source]
        source: sqlx::Error,
    },
    /// The ids of entries could not be read.
    #[error("read the ids of ledger entries to verify them")]
    EntryIds(#[source] sqlx::Error),
    /// Postgres sent what is not its own format.
    #[error("decode the journal after position {after} to verify it")]
    Decode {
        /// The last position that was decoded.
        after: i64,
        /// What is wrong with it.
        #[source]
        source: sqlx::Error,
    },
    /// The thread that checks ended early: a fault of this program.
    #[error("the checking thread ended before the journal did")]
    Thread(#[source] tokio::task::JoinError),
}

/// Checks the journal over one connection. `progress` is called after each page. Where no `books` are given, `entry_ids` is not
/// looked at either.
///
/// # Errors
/// When the journal cannot be read; a divergence is no error.
pub async fn verify(
    connection: &mut PgConnection,
    options: VerifyOptions,
    books: Option<Box<dyn BooksCheck>>,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<Report, VerifyError> {
    let Ends { last_row, head } = ends(connection).await?;
    let end = last_row.max(head);
    let from = options.from.map_or(1, |from| from.as_i64().max(1));
    let last = options.to.map_or(end, |to| to.as_i64().min(end));
    let books = books.filter(|_| from == 1);
    let with_books = books.is_some();
    let mut check = Check::new(from, last_row, books, options.against);
    if from > 1 {
        match chain_before(connection, from).await? {
            Some((chain, at)) => check.begin_after(chain, at),
            None => check.missing(from - 1),
        }
    }
    let mut checker = Checker::start(check);
    let mut reader = PageReader { connection, progress, last, misplaced: None, finished_early: false };
    let read = reader.pages(from, &mut checker).await;
    // However reading went, the thread is waited for: it must not outlive this call.
    let (mut checked, pages) = checker.finish().await?;
    read?;
    for page in pages {
        reader.page_done(page).await?;
    }
    let misplaced = reader.misplaced;
    if let Some(source) = checked.broken {
        return Err(VerifyError::Decode { after: checked.last_sound, source });
    }
    if let Some((position, detail)) = misplaced {
        checked.find(position, DivergenceKind::Order, detail);
    }
    checked.end(last, end);
    if with_books {
        // Whatever was found, an entry id that is wrong before it comes first.
        let until = checked.found.as_ref().map_or(checked.last_sound, |found| found.position.as_i64() - 1);
        let posted = (until == checked.last_sound).then_some(&checked.posted);
        let wrong = entry_ids::first_difference(connection, posted, until).await.map_err(VerifyError::EntryIds)?;
        if let Some(Divergence { position, kind, detail }) = wrong {
            checked.find(position.as_i64(), kind, detail);
        }
    }
    let root = checked.tree.filter(|_| checked.found.is_none()).map(|tree| tree.root());
    Ok(Report { events: checked.events, head: Position::from_i64(head), root, first_divergence: checked.found })
}

/// Where the journal ends by its rows and by its batches.
struct Ends {
    last_row: i64,
    head: i64,
}

async fn ends(connection: &mut PgConnection) -> Result<Ends, VerifyError> {
    // One snapshot, so that an append in between is not taken for a difference.
    let ends = sqlx::query(
        "SELECT coalesce((SELECT max(position) FROM journal.events), 0), \
                coalesce((SELECT max(last_position) FROM journal.batches), 0)",
    )
    .fetch_one(connection)
    .await
    .map_err(VerifyError::Head)?;
    let ends = || Ok(Ends { last_row: ends.try_get(0)?, head: ends.try_get(1)? });
    ends().map_err(VerifyError::Head)
}

/// Chain and time of the event before the first one, taken as they are.
async fn chain_before(connection: &mut PgConnection, from: i64) -> Result<Option<(ChainDigest, i64)>, VerifyError> {
    let mut before = None;
    copy::each_event(connection, from - 1, from - 1, |row| {
        before = Some((ChainDigest(row.chain.try_into().unwrap_or_default()), row.recorded_at_micros));
    })
    .await
    .map_err(|source| VerifyError::Page { from: from - 1, source })?;
    Ok(before)
}

/// The thread that checks, and the ways to it and back.
struct Checker {
    work: mpsc::Sender<Work>,
    pages: mpsc::UnboundedReceiver<Page>,
    thread: tokio::task::JoinHandle<Checked>,
}

/// What the thread has to say of a page that it has seen whole, or as far as the first divergence.
pub(super) struct Page {
    last: i64,
    doubtful: Doubtful,
}

impl Checker {
    fn start(check: Check) -> Self {
        let (work, incoming) = mpsc::channel(PIECES_MAX);
        let (outgoing, pages) = mpsc::unbounded_channel();
        let thread = tokio::task::spawn_blocking(move || check.run(incoming, &outgoing));
        Self { work, pages, thread }
    }

    /// Lets it finish what it was given; what it found, and the pages that nobody has looked at.
    async fn finish(mut self) -> Result<(Checked, Vec<Page>), VerifyError> {
        drop(self.work);
        let mut pages = Vec::new();
        while let Some(page) = self.pages.recv().await {
            pages.push(page);
        }
        Ok((self.thread.await.map_err(VerifyError::Thread)?, pages))
    }
}

/// The side that talks to Postgres.
struct PageReader<'a> {
    connection: &'a mut PgConnection,
    progress: &'a mut (dyn FnMut(Progress) + Send),
    last: i64,
    /// The first event that does not follow its predecessor in its stream.
    misplaced: Option<(i64, String)>,
    /// The thread wants no more: it has found something.
    finished_early: bool,
}

impl PageReader<'_> {
    async fn pages(&mut self, from: i64, checker: &mut Checker) -> Result<(), VerifyError> {
        let mut next = from;
        while next <= self.last && !self.finished_early && self.misplaced.is_none() {
            let to = self.last.min(next.saturating_add(PAGE - 1));
            let rows = batch_rows::load(self.connection, next, to);
            let batches = rows.await.map_err(|source| VerifyError::Batches { from: next, source })?;
            let mut wanted = checker.work.send(Work::Page { to, batches }).await.is_ok();
            let work = &checker.work;
            copy::events_in_pieces(self.connection, next, to, PIECE_BYTES, async |piece| {
                wanted = work.send(Work::Rows(piece)).await.is_ok();
                wanted
            })
            .await
            .map_err(|source| VerifyError::Page { from: next, source })?;
            wanted = wanted && checker.work.send(Work::PageEnd).await.is_ok();
            self.finished_early = !wanted;
            while let Ok(page) = checker.pages.try_recv() {
                self.page_done(page).await?;
            }
            next = to + 1;
        }
        Ok(())
    }

    async fn page_done(&mut self, page: Page) -> Result<(), VerifyError> {
        if self.misplaced.is_none() {
            self.misplaced = sequences::first_misplaced(self.connection, page.doubtful)
                .await
                .map_err(|source| VerifyError::Order { to: page.last, source })?;
        }
        (self.progress)(Progress { position: Position::from_i64(page.last), last: Position::from_i64(self.last) });
        Ok(())
    }
}
