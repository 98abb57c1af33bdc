//! A long ledger in no time: rows of `journal.events` as `journal.append` would have written them, with their leaves and chain, but
//! through COPY, by the superuser, with the guards off. Only ever in a bench's own throwaway database.
//!
//! What is left out, because no rebuild reads it: `journal.entry_ids`; `journal verify`, which does, would say so.

use std::fmt::Write as _;

use fanledger_domain::account::{Account, Bucket, Processing};
use fanledger_domain::entry::{Cause, EntryPosted, FactReference, Posting, Side};
use fanledger_domain::event::Event;
use fanledger_domain::money::{Currency, Money};
use fanledger_domain::time::Timestamp;
use fanledger_journal::digest::{self, Content};
use fanledger_journal::event::{ChainDigest, Position};
use indicatif::ProgressBar;
use sqlx::{Connection, Executor, PgConnection};
use uuid::Uuid;

/// Why there is no history.
#[derive(Debug, thiserror::Error)]
pub(super) enum HistoryError {
    #[error("write a made-up history")]
    Postgres(#[source] sqlx::Error),
    #[error("make up an entry: {0}")]
    Entry(Box<dyn std::error::Error + Send + Sync>),
}

/// 2025-01-01T00:00:00Z, in microseconds.
const BEGINS: i64 = 1_735_689_600_000_000;
const YEAR_MICROS: i64 = 365 * 86_400 * 1_000_000;
const SECOND: i64 = 1_000_000;
/// Creators; the first have many more fans than the last.
const CREATORS: u64 = 10_000;
const BATCH: u64 = 256;
const PART_BYTES: usize = 64 << 10;
const METADATA: &str = r#"{"actor":"system:bench"}"#;

const PREPARE: &str = "
    BEGIN;
    ALTER TABLE journal.events DISABLE TRIGGER guard;
    ALTER TABLE journal.batches DISABLE TRIGGER guard;
    ALTER TABLE journal.events DROP CONSTRAINT events_pkey, DROP CONSTRAINT events_stream_sequence;
    TRUNCATE journal.events, journal.batches;
";
/// Frozen, as rows are that have been there for a while.
const COPY: &str = "COPY journal.events (position, aggregate_type, aggregate_id, sequence, event_type, event_version, payload, \
     metadata, event_id, recorded_at, leaf, chain) FROM STDIN (FREEZE)";
const FINISH: &str = "
    SET LOCAL maintenance_work_mem = '512MB';
    ALTER TABLE journal.events ADD CONSTRAINT events_pkey PRIMARY KEY (position);
    ALTER TABLE journal.events ADD CONSTRAINT events_stream_sequence UNIQUE (aggregate_type, aggregate_id, sequence);
    INSERT INTO journal.batches (last_position, first_position, recorded_at, chain)
        SELECT e.position, (e.position - 1) / 256 * 256 + 1, e.recorded_at, e.chain FROM journal.events AS e
        WHERE e.position % 256 = 0 OR e.position = (SELECT max(position) FROM journal.events);
    ALTER TABLE journal.events ENABLE ALWAYS TRIGGER guard;
    ALTER TABLE journal.batches ENABLE ALWAYS TRIGGER guard;
    COMMIT;
";

/// Writes a year of so many entries into an empty journal: for each sale one with four postings, and one with two that
/// releases the creator's share.
pub(super) async fn write(superuser_url: &str, entries: u64, bar: &ProgressBar) -> Result<(), HistoryError> {
    let mut connection = PgConnection::connect(superuser_url).await.map_err(HistoryError::Postgres)?;
    connection.execute(PREPARE).await.map_err(HistoryError::Postgres)?;
    let mut copy = connection.copy_in_raw(COPY).await.map_err(HistoryError::Postgres)?;
    let mut maker = Maker::new(entries)?;
    let mut rows = String::with_capacity(2 * PART_BYTES);
    for n in 0..entries {
        maker.push(n, &mut rows)?;
        if rows.len() >= PART_BYTES {
            copy.send(rows.as_bytes()).await.map_err(HistoryError::Postgres)?;
            rows.clear();
            bar.set_position(n);
        }
    }
    copy.send(rows.as_bytes()).await.map_err(HistoryError::Postgres)?;
    copy.finish().await.map_err(HistoryError::Postgres)?;
    connection.execute(FINISH).await.map_err(HistoryError::Postgres)?;
    // Outside of the transaction: the planner's statistics and the visibility map.
    connection.execute("VACUUM (ANALYZE) journal.events").await.map_err(HistoryError::Postgres)?;
    connection.execute("CHECKPOINT").await.map_err(HistoryError::Postgres)?;
    Ok(())
}

struct Maker {
    /// Between one entry and the next.
    step_micros: i64,
    usd: Currency,
    random: u64,
    chain: ChainDigest,
    recorded_micros: i64,
}

impl Maker {
    fn new(entries: u64) -> Result<Self, HistoryError> {
        Ok(Self {
            step_micros: YEAR_MICROS / i64::try_from(entries.max(1)).unwrap_or(i64::MAX),
            usd: "usd".parse().map_err(made)?,
            random: 42,
            chain: ChainDigest::START,
            recorded_micros: BEGINS,
        })
    }

    /// SplitMix64, by Sebastiano Vigna; in the public domain.
    fn roll(&mut self, sides: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    /// Appends entry `n` to the rows, as COPY's text.
    fn push(&mut self, n: u64, rows: &mut String) -> Result<(), HistoryError> {
        // One append has one time.
        if n.is_multiple_of(BATCH) {
            self.recorded_micros = BEGINS + i64::try_from(n).unwrap_or(i64::MAX).saturating_mul(self.step_micros);
        }
        let (position, sequence) = (Position::new(n + 1), i64::try_from(n % 2 + 1).unwrap_or(1));
        let charge = format!("ch_3PqXyZ2eZvKYlo2C{:010}", n / 2);
        let entry = self.entry(n, &charge)?;
        let payload = Event::EntryPosted(entry).to_payload().map_err(made)?;
        let event_id = Uuid::from_u128(0x0194_1f29_7c00_7000_8000_0000_0000_0000 + u128::from(n));
        let leaf = digest::leaf(&Content {
            aggregate_type: b"stripe_charge",
            aggregate_id: charge.as_bytes(),
            sequence,
            event_type: EntryPosted::TYPE.as_bytes(),
            event_version: b"1",
            event_id,
            payload: payload.as_bytes(),
            metadata: METADATA.as_bytes(),
        });
        self.chain = digest::chain(self.chain, position, self.recorded_micros, &leaf);
        let recorded_at = Timestamp::from_unix_micros(self.recorded_micros).map_err(made)?;
        // No text here holds a tab, a line's end or a backslash.
        writeln!(
            rows,
            "{position}\tstripe_charge\t{charge}\t{sequence}\tEntryPosted\t1\t{payload}\t{METADATA}\t{event_id}\t{recorded_at}\t\\\\x{}\t\\\\x{}",
            hex::encode(leaf),
            hex::encode(self.chain.0),
        )
        .map_err(made)
    }

    fn entry(&mut self, n: u64, charge: &str) -> Result<EntryPosted, HistoryError> {
        // Squared, so that the first creators sell most.
        let creator = self.roll(1_000_000).pow(2) / (1_000_000_000_000 / CREATORS);
        let creator = format!("crt_{creator:06}").parse().map_err(made)?;
        // As a rule told within seconds; one in a hundred only after days, and one in a thousand booked in the next period.
        let late_micros = match self.roll(1000) {
            0..=9 => i64::try_from(self.roll(259_200)).unwrap_or(0) * SECOND,
            _ => i64::try_from(self.roll(10)).unwrap_or(0) * SECOND,
        };
        let occurred = Timestamp::from_unix_seconds((self.recorded_micros - late_micros) / SECOND).map_err(made)?;
        let effective_at = if self.roll(1000) == 0 {
            Timestamp::from_unix_seconds(self.recorded_micros / SECOND).map_err(made)?
        } else {
            occurred
        };
        let posting = |account, side, minor| Posting { account, side, money: Money::new(minor, self.usd) };
        let gross = 499 + i64::try_from(n % 20).unwrap_or(0) * 50;
        let (fee, platform) = (gross * 29 / 1000 + 30, gross / 5);
        let share = gross - platform;
        let (fact, description, postings) = if n.is_multiple_of(2) {
            let postings = vec![
                posting(Account::StripeClearing, Side::Debit, gross - fee),
                posting(Account::ProcessingFees(Processing::Payments), Side::Debit, fee),
                posting(Account::Creator(creator, Bucket::Pending), Side::Credit, share),
                posting(Account::PlatformFees, Side::Credit, platform),
            ];
            ("ChargeObserved", "a subscription's payment", postings)
        } else {
            let postings = vec![
                posting(Account::Creator(creator.clone(), Bucket::Pending), Side::Debit, share),
                posting(Account::Creator(creator, Bucket::Available), Side::Credit, share),
            ];
            ("ChargeReleased", "a share becomes available", postings)
        };
        Ok(EntryPosted {
            entry_id: format!("{charge}:{}:{}", n % 2 + 1, occurred.compact()).parse().map_err(made)?,
            cause: Cause {
                object: charge.parse().map_err(made)?,
                facts: vec![FactReference { event_type: fact.to_owned(), sequence: n % 2 + 1 }],
                stripe_event: Some(format!("evt_1PqXyZ2eZvKYlo2C{n:010}").parse().map_err(made)?),
                clears: None,
            },
            description: description.to_owned(),
            occurred_at: occurred,
            effective_at,
            postings,
            activity: Vec::new(),
        })
    }
}

fn made(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> HistoryError {
    HistoryError::Entry(error.into())
}
