//! The part of the check that needs no database: takes rows in position order and judges each.

use tokio::sync::mpsc;

use super::batches::Batches;
use super::{BooksCheck, Divergence, DivergenceKind, Page, SeenEvent};
use crate::batch_rows::BatchRow;
use crate::copy::{RawEvent, Rows};
use crate::digest::{self, Content};
use crate::entry_ids::EntryIdSum;
use crate::event::{ChainDigest, Position};
use crate::merkle::checkpoint::Checkpoint;
use crate::merkle::{NodeHash, Tree};
use crate::sequences::Sequences;

/// What the reading side hands over.
pub(super) enum Work {
    /// A page begins: its last position, and the batches around it.
    Page { to: i64, batches: Vec<BatchRow> },
    /// Bytes of its rows.
    Rows(Vec<u8>),
    /// All of them were sent.
    PageEnd,
}

/// What is known while the rows go by.
pub(super) struct Check {
    books: Option<Box<dyn BooksCheck>>,
    sequences: Sequences,
    /// The position that must come next.
    next: i64,
    /// The chain before it.
    chain: ChainDigest,
    /// The time before it.
    recorded_at_micros: i64,
    batches: Batches,
    against: Against,
    checked: Checked,
    /// The last row that there is: what is missing before it is a gap, after it a cut tail.
    last_row: i64,
}

/// What came out of it.
pub(super) struct Checked {
    /// The lowest divergence so far; once there is one, rows after it are not looked at.
    pub found: Option<Divergence>,
    /// The last position up to which nothing was found while the rows went by.
    pub last_sound: i64,
    /// Events that were read.
    pub events: u64,
    /// The tree of them; `None` where the check began in the middle.
    pub tree: Option<Tree>,
    /// The entries that they post.
    pub posted: EntryIdSum,
    /// Postgres did not keep to its own format.
    pub broken: Option<sqlx::Error>,
    /// What can be said only once it is known that nothing else is wrong: the first position that no batch covers, what does
    /// not add up in the end, and the first checkpoint that lies beyond the journal.
    uncovered: Option<i64>,
    books_end: Result<(), String>,
    cut: Option<String>,
}

impl Checked {
    pub fn find(&mut self, position: i64, kind: DivergenceKind, detail: String) {
        let found = Divergence { position: Position::from_i64(position), kind, detail };
        let lowest = match self.found.take() {
            Some(before) => before.min(found),
            None => found,
        };
        self.found = Some(lowest);
    }

    /// What can be said only after the last row.
    pub fn end(&mut self, last: i64, end: i64) {
        if self.found.is_some() {
            return;
        }
        if last == end
            && let Some(uncovered) = self.uncovered
        {
            self.find(uncovered, DivergenceKind::Chain, "no row of journal.batches covers this position".to_owned());
        } else if let Err(detail) = std::mem::replace(&mut self.books_end, Ok(())) {
            self.find(last, DivergenceKind::Balance, detail);
        } else if last == end
            && let Some(detail) = self.cut.take()
        {
            self.find(last + 1, DivergenceKind::Head, detail);
        }
    }
}

/// Earlier states that the journal must extend, the smallest first.
struct Against {
    checkpoints: Vec<Checkpoint>,
    next: usize,
}

impl Against {
    /// Judges the checkpoints of the tree's size.
    fn judge(&mut self, tree: &Tree) -> Result<(), String> {
        while let Some(checkpoint) = self.checkpoints.get(self.next).filter(|next| next.size == tree.size()) {
            let root = tree.root();
            if root != checkpoint.root {
                let known = match self.next.checked_sub(1).and_then(|before| self.checkpoints.get(before)) {
                    Some(before) => format!("after position {}, up to which an earlier checkpoint agrees", before.size),
                    None => "at or before this position".to_owned(),
                };
                return Err(format!(
                    "the checkpoint of {} events has the root {}, the journal's first {} events have {root}: it was rewritten {known}",
                    checkpoint.size, checkpoint.root, checkpoint.size
                ));
            }
            self.next += 1;
        }
        Ok(())
    }

    fn beyond(&self) -> Option<String> {
        let beyond = self.checkpoints.get(self.next)?;
        Some(format!("the journal ends here, and a checkpoint was signed when it held {} events", beyond.size))
    }
}

impl Check {
    pub fn new(from: i64, last_row: i64, books: Option<Box<dyn BooksCheck>>, mut against: Vec<Checkpoint>) -> Self {
        against.sort_by_key(|checkpoint| checkpoint.size);
        let mut against = Against { checkpoints: if from == 1 { against } else { Vec::new() }, next: 0 };
        let mut checked = Checked {
            found: None,
            last_sound: from - 1,
            events: 0,
            tree: (from == 1).then(Tree::default),
            posted: EntryIdSum::default(),
            broken: None,
            uncovered: None,
            books_end: Ok(()),
            cut: None,
        };
        // A checkpoint of the empty journal has one root; another is a forgery.
        if let Some(Err(detail)) = checked.tree.as_ref().map(|tree| against.judge(tree)) {
            checked.find(1, DivergenceKind::Chain, detail);
        }
        Self {
            books,
            sequences: Sequences::new(),
            next: from,
            chain: ChainDigest::START,
            recorded_at_micros: i64::MIN,
            batches: Batches::new(from),
            against,
            checked,
            last_row,
        }
    }

    /// Takes chain and time before the first position as they are.
    pub fn begin_after(&mut self, chain: ChainDigest, recorded_at_micros: i64) {
        (self.chain, self.recorded_at_micros) = (chain, recorded_at_micros);
    }

    /// A row that should be there is not.
    pub fn missing(&mut self, position: i64) {
        if position > self.last_row {
            let detail = format!("the journal's rows end at {}", self.last_row);
            self.checked.find(position, DivergenceKind::Head, detail);
        } else {
            self.checked.find(position, DivergenceKind::Gap, "there is no row at this position".to_owned());
        }
    }

    /// Works until nobody sends any more, or something was found: then the sender learns that nobody listens.
    pub fn run(mut self, mut work: mpsc::Receiver<Work>, pages: &mpsc::UnboundedSender<Page>) -> Checked {
        let mut page_to = self.next - 1;
        let mut rows = Rows::default();
        while self.checked.found.is_none()
            && self.checked.broken.is_none()
            && let Some(work) = work.blocking_recv()
        {
            let mut page_is_over = false;
            match work {
                Work::Page { to, batches } => {
                    page_to = to;
                    rows = Rows::default();
                    self.batches.turn(batches);
                }
                Work::Rows(bytes) => {
                    let fed = rows.feed(&bytes, |fields| self.row(&RawEvent::of(fields)));
                    self.checked.broken = fed.err();
                }
                Work::PageEnd => {
                    self.checked.broken = std::mem::take(&mut rows).finish().err();
                    if self.checked.broken.is_none() && self.next <= page_to {
                        self.missing(self.next);
                    }
                    page_is_over = true;
                }
            }
            if page_is_over || self.checked.found.is_some() {
                let page = Page { last: self.next - 1, doubtful: self.sequences.take_doubtful() };
                // Nobody looks at pages any more when reading has failed; that failure is told.
                pages.send(page).ok();
            }
        }
        self.checked.last_sound = self.next - 1;
        self.checked.uncovered = self.batches.first_uncovered(self.next - 1);
        self.checked.books_end = self.books.as_mut().map_or(Ok(()), |books| books.end());
        self.checked.cut = self.against.beyond();
        self.checked
    }

    fn row(&mut self, row: &RawEvent<'_>) {
        if self.checked.found.is_some() {
            return;
        }
        if row.position != self.next {
            return self.missing(self.next);
        }
        if let Err((position, kind, detail)) = self.judge(row) {
            self.checked.find(position, kind, detail);
        }
    }

    /// The order of these checks is the contract's order of kinds; that of streams is told by `Sequences`, at the page's end.
    fn judge(&mut self, row: &RawEvent<'_>) -> Result<(), (i64, DivergenceKind, String)> {
        use DivergenceKind::{Balance, Chain, Content as Differs};
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
            return Err((row.position, Differs, detail));
        }
        self.sequences.see(row);
        let chain = digest::chain(self.chain, Position::from_i64(row.position), row.recorded_at_micros, &leaf);
        if row.chain != chain.0 {
            let detail = format!("chain is {}, it follows to be {}", hex::encode(row.chain), hex::encode(chain.0));
            return Err((row.position, Chain, detail));
        }
        if row.recorded_at_micros < self.recorded_at_micros {
            return Err((row.position, Chain, "recorded before the event before it".to_owned()));
        }
        self.batches.covers(row).map_err(|(position, detail)| (position, Chain, detail))?;
        if let Some(tree) = &mut self.checked.tree {
            tree.push(NodeHash::of_event(row.position, row.recorded_at_micros, &leaf));
            self.against.judge(tree).map_err(|detail| (row.position, Chain, detail))?;
        }
        self.book(row).map_err(|detail| (row.position, Balance, detail))?;
        self.chain = chain;
        self.recorded_at_micros = row.recorded_at_micros;
        self.next += 1;
        self.checked.events += 1;
        Ok(())
    }

    fn book(&mut self, row: &RawEvent<'_>) -> Result<(), String> {
        let Some(books) = &mut self.books else { return Ok(()) };
        let text = |bytes, what| std::str::from_utf8(bytes).map_err(|_| format!("{what} is not UTF-8"));
        let event_type = text(row.event_type, "event_type")?;
        if !books.wants(event_type) {
            return Ok(());
        }
        let posted = books.event(&SeenEvent {
            position: Position::from_i64(row.position),
            aggregate_type: text(row.aggregate_type, "aggregate_type")?,
            aggregate_id: text(row.aggregate_id, "aggregate_id")?,
            event_type,
            event_version: text(row.event_version, "event_version")?,
            payload: text(row.payload, "payload")?,
        })?;
        if let Some(entry_id) = posted {
            self.checked.posted.add(entry_id.as_bytes(), row.position);
        }
        Ok(())
    }
}
