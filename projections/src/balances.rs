//! `balances`: exact balances as of any instant by occurrence, booking or recording, and by position, at any size.
//!
//! Each posting is a line of its account and currency, numbered in the order of positions. Every [`FANOUT`] lines are a segment,
//! stored as one row of arrays; the last one of each account is still open. A complete segment has a node, with its sums and with
//! the first and last position and time on each axis; every [`FANOUT`] nodes have a node above them, up to [`LEVELS`] levels.
//!
//! As of an instant or position is then: the nodes that nothing stands above, from the top. One that ends before the cut counts
//! whole, one that begins after it not at all, and of one in which the cut lies the children are asked in the same way, down to
//! the lines of a segment. Times follow positions closely, so the cut lies in few nodes, and what it costs does not depend on
//! how long the history is. Lines far out of order cost more, never exactness: each makes the cut lie in one more segment.
//!
//! Nothing is summed twice, and what is complete is never written again: so a rebuild writes a fraction of what it reads, and a
//! late fact costs what any other does. Rows depend on the events alone, not on where batches end.
//!
//! The lines are kept here, beside those of `postings`, so that one checkpoint covers the whole answer: sums at one position
//! and lines at another would add up to a balance that never was.

use std::sync::Arc;

use async_trait::async_trait;
use fanledger_journal::event::RecordedEvent;
use fanledger_journal::load::{Loader, Page};
use fanledger_journal::runner::{ApplyError, Effects, Projection, Schema};
use sqlx::PgConnection;

use crate::ahead::Ahead;
use crate::decode::{self, Keys, Payload};

mod fold;
mod store;

use fold::{Fold, Moves};

/// Lines per segment, and children per node. Small enough that the open segment, which is written anew with each batch that touches
/// its account, is a kilobyte or so; large enough that complete ones are few. The queries over these tables know it too
/// (`fanledger_gateway::read`).
const FANOUT: usize = 32;

/// A node of the fourth level stands for a million lines.
const LEVELS: i16 = 4;

/// See the module.
#[derive(Debug)]
pub struct Balances;

const CREATE: &str = r#"
-- Everything up to the checkpoint. Rewritten with each batch that touches the account, so room is left for heap-only updates.
-- `lines` is how many there are; the last `lines % 32` of them are in the open segment.
CREATE TABLE balance_totals (
    account  text COLLATE "C" NOT NULL,
    currency text COLLATE "C" NOT NULL,
    debits   numeric(38) NOT NULL,
    credits  numeric(38) NOT NULL,
    lines    bigint NOT NULL,
    PRIMARY KEY (account, currency)
) WITH (fillfactor = 50);

-- One posting each: `amounts` has debits positive and credits negative. Segment n holds the account's lines 32n to 32n + 31.
-- Times, here and in `balance_nodes`, are microseconds since 1970: Postgres takes a `timestamptz` apart and looks up its zone
-- whenever one is sent to it, which made these times a tenth of what a rebuild costs.
CREATE TABLE balance_lines (
    account   text COLLATE "C" NOT NULL,
    currency  text COLLATE "C" NOT NULL,
    segment   bigint NOT NULL,
    positions bigint[] NOT NULL,
    occurred  bigint[] NOT NULL,
    effective bigint[] NOT NULL,
    recorded  bigint[] NOT NULL,
    amounts   bigint[] NOT NULL,
    PRIMARY KEY (account, currency, segment)
);
-- Nobody searches by an array's elements, and counting them is most of an ANALYZE.
ALTER TABLE balance_lines ALTER positions SET STATISTICS 0, ALTER occurred SET STATISTICS 0, ALTER effective SET STATISTICS 0,
    ALTER recorded SET STATISTICS 0, ALTER amounts SET STATISTICS 0;

-- Node n of level 1 is of segment n, once it is complete; node n of a level above is of the 32 nodes 32n to 32n + 31 below it.
-- `…_first` and `…_last` are the least and the greatest among its lines.
CREATE TABLE balance_nodes (
    account         text COLLATE "C" NOT NULL,
    currency        text COLLATE "C" NOT NULL,
    level           smallint NOT NULL,
    number          bigint NOT NULL,
    position_first  bigint NOT NULL,
    position_last   bigint NOT NULL,
    occurred_first  bigint NOT NULL,
    occurred_last   bigint NOT NULL,
    effective_first bigint NOT NULL,
    effective_last  bigint NOT NULL,
    recorded_first  bigint NOT NULL,
    recorded_last   bigint NOT NULL,
    debits          numeric(38) NOT NULL,
    credits         numeric(38) NOT NULL,
    PRIMARY KEY (account, currency, level, number)
);

-- The first entry's position, and the first instant on each axis: a question about what is before has no answer.
CREATE TABLE balance_firsts (
    only_row  boolean PRIMARY KEY CHECK (only_row),
    position  bigint NOT NULL,
    occurred  timestamptz NOT NULL,
    effective timestamptz NOT NULL,
    recorded  timestamptz NOT NULL
);
"#;

#[async_trait]
impl Projection for Balances {
    fn name(&self) -> &'static str {
        "balances"
    }

    fn version(&self) -> u32 {
        2
    }

    fn schema(&self) -> Schema {
        Schema { create: CREATE, views: &["balance_totals", "balance_lines", "balance_nodes", "balance_firsts"] }
    }

    fn loader(&self) -> Option<Box<dyn Loader>> {
        Some(Box::new(Loading::default()))
    }

    fn wants(&self, event_type: &str) -> bool {
        event_type == decode::ENTRY_POSTED
    }

    async fn apply(
        &mut self,
        batch: &[Arc<RecordedEvent>],
        _: Effects,
        connection: &mut PgConnection,
    ) -> Result<(), ApplyError> {
        let entries = batch.iter().map(|recorded| Payload::from(recorded.as_ref()));
        let mut fold = Fold::default();
        fold.add(Moves::read(&mut Keys::default(), entries)?);
        fold.write_segments(connection).await?;
        fold.write_rest(connection).await?;
        Ok(())
    }
}

/// A load under way: one page is taken apart while what came of the one before is written.
#[derive(Default)]
struct Loading {
    ahead: Ahead<Keys, Moves>,
    fold: Fold,
}

impl Loading {
    async fn advance(&mut self, page: Option<Page>, connection: &mut PgConnection) -> Result<(), ApplyError> {
        let read = |keys: &mut Keys, page: &Page| Moves::read(keys, page.events().map(Payload::from));
        if let Some(moves) = self.ahead.next(page, read).await? {
            self.fold.add(moves);
            self.fold.write_segments(connection).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl Loader for Loading {
    async fn load(&mut self, page: Page, connection: &mut PgConnection) -> Result<(), ApplyError> {
        if self.fold.is_large() {
            self.flush(connection).await?;
            *self = Self::default();
        }
        self.advance(Some(page), connection).await
    }

    async fn flush(&mut self, connection: &mut PgConnection) -> Result<(), ApplyError> {
        self.advance(None, connection).await?;
        self.fold.write_rest(connection).await?;
        Ok(())
    }
}
