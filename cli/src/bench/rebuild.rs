//! P4: filling the tables of `balances` and of `postings` from the journal's beginning, beside a fold inside Postgres and beside
//! COPY of the finished rows.

use std::path::Path;
use std::time::Instant;

use fanledger_journal::database::{self, Role, role_url};
use fanledger_journal::generation::{Purpose, RebuildOptions, rebuild};
use fanledger_journal::runner::{Projection, RunnerContext, catch_up};
use fanledger_projections::balances::Balances;
use fanledger_projections::postings::Postings;
use sqlx::{Connection, Executor, PgConnection};

use crate::bench::RebuildArgs;
use crate::bench::ground::Ground;
use crate::bench::history;
use crate::bench::report::{Figure, Raw, Report};
use crate::failure::Failure;
use crate::output::Output;

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
enum RebuildBenchError {
    #[error("measure the fold inside Postgres")]
    Fold(#[source] sqlx::Error),
    #[error("measure COPY of the finished postings")]
    Copy(#[source] sqlx::Error),
    #[error("keep autovacuum out of the way")]
    Autovacuum(#[source] sqlx::Error),
    #[error("a rebuild went on with what another had left, and so did not load all; measure again")]
    NotWhole,
    #[error("drop a database that was measured")]
    Drop(#[source] sqlx::Error),
    #[error("read this process's memory")]
    Memory(#[source] std::io::Error),
}

/// The law's baseline: a sum over a JSON path. It reads one number of each entry and writes nothing.
const PATH_FOLD: &str =
    "SELECT sum((payload->'postings'->0->>'minor')::bigint)::text FROM journal.events WHERE event_type = 'EntryPosted'";

/// The sums that `balance_totals` holds, and nothing else of what `balances` holds.
const TOTALS_FOLD: &str = "
    SELECT count(*)::text FROM (
        SELECT p->>'account', p->>'currency', sum((p->>'minor')::bigint) FILTER (WHERE p->>'side' = 'debit'),
               sum((p->>'minor')::bigint) FILTER (WHERE p->>'side' = 'credit')
        FROM journal.events CROSS JOIN LATERAL json_array_elements(payload->'postings') AS p
        WHERE event_type = 'EntryPosted' GROUP BY 1, 2) AS totals";

pub(super) async fn run(args: RebuildArgs, ground: &Ground, output: Output) -> Result<Report, Failure> {
    without_autovacuum(ground).await.map_err(RebuildBenchError::Autovacuum)?;
    let mut rounds = Vec::new();
    for (n, &entries) in args.entries.iter().enumerate() {
        let url = ground.create_database(&format!("rebuild_{n}")).await?;
        database::migrate(&url).await?;
        let bar = output.bar(entries, "writing a history");
        history::write(&url, entries, &bar).await?;
        bar.finish_and_clear();
        // The largest history's postings would fill a disk; their figure is that of the first.
        let with_postings = n == 0;
        let bar = output.bar(u64::from(args.rounds) + 1, "measuring");
        Subject::prepare(&url, entries, with_postings).await?.measure(args.rounds, &mut rounds, &bar).await?;
        bar.finish_and_clear();
        drop_database(ground, &format!("rebuild_{n}")).await.map_err(RebuildBenchError::Drop)?;
    }
    Ok(judge(ground, &args.entries, rounds))
}

/// It would look at tables minutes after they were filled: in the middle of another's round, and while they are dropped.
async fn without_autovacuum(ground: &Ground) -> Result<(), sqlx::Error> {
    let mut connection = PgConnection::connect(ground.superuser_url()).await?;
    connection.execute("ALTER SYSTEM SET autovacuum = off").await?;
    connection.execute("SELECT pg_reload_conf()").await?;
    connection.close().await
}

/// Room for the next one. By force: pools close their connections when it suits them.
async fn drop_database(ground: &Ground, name: &str) -> Result<(), sqlx::Error> {
    let mut connection = PgConnection::connect(ground.superuser_url()).await?;
    connection.execute(format!("DROP DATABASE {name} WITH (FORCE)").as_str()).await?;
    connection.close().await
}

struct Subject {
    context: RunnerContext,
    superuser: PgConnection,
    entries: u64,
    with_postings: bool,
}

impl Subject {
    /// Brings the live generations to the head: a rebuild goes as far as they are.
    async fn prepare(url: &str, entries: u64, with_postings: bool) -> Result<Self, Failure> {
        let pool = database::connect(&role_url(url, Role::Projector)?, 2).await?;
        let context = RunnerContext::without_feed(pool);
        catch_up(&context, &mut Balances).await?;
        if with_postings {
            catch_up(&context, &mut Postings).await?;
        }
        let superuser = PgConnection::connect(url).await.map_err(RebuildBenchError::Fold)?;
        Ok(Self { context, superuser, entries, with_postings })
    }

    async fn measure(&mut self, rounds: u32, raw: &mut Vec<Raw>, bar: &indicatif::ProgressBar) -> Result<(), Failure> {
        // Round 0 warms caches and is not kept.
        for round in 0..=rounds {
            let mut measured = Vec::new();
            forget_peak_memory().map_err(RebuildBenchError::Memory)?;
            let balances = self.ours(&mut Balances).await?;
            measured.push((format!("balances, {} entries", self.entries), balances, "entries/s"));
            measured.push((
                format!("balances, {} entries, peak memory", self.entries),
                peak_memory_mib().map_err(RebuildBenchError::Memory)?,
                "MiB",
            ));
            for (what, sql) in [("sum over a JSON path", PATH_FOLD), ("sums by account", TOTALS_FOLD)] {
                let fold = self.fold(sql).await.map_err(RebuildBenchError::Fold)?;
                measured.push((format!("{what} in Postgres, {} entries", self.entries), fold, "entries/s"));
            }
            if self.with_postings {
                let postings = self.ours(&mut Postings).await?;
                measured.push((format!("postings, {} entries", self.entries), postings, "entries/s"));
                let copy = self.copy().await.map_err(RebuildBenchError::Copy)?;
                measured.push((format!("COPY of the same postings, {} entries", self.entries), copy, "entries/s"));
            }
            bar.inc(1);
            if round > 0 {
                raw.extend(measured.into_iter().map(|(what, value, unit)| Raw { round, what, value, unit }));
            }
        }
        Ok(())
    }

    /// Loads a generation beside the live one, makes its indexes, and has it proved; the proof is not in the figure.
    async fn ours(&mut self, projection: &mut dyn Projection) -> Result<f64, Failure> {
        self.checkpoint().await.map_err(RebuildBenchError::Fold)?;
        let options = RebuildOptions { purpose: Purpose::Verify, ..RebuildOptions::unattended() };
        let rebuilt = rebuild(&self.context, projection, &options).await?;
        if rebuilt.loading_ms == 0 {
            return Err(RebuildBenchError::NotWhole.into());
        }
        Ok(self.entries as f64 * 1000.0 / (rebuilt.loading_ms + rebuilt.indexing_ms) as f64)
    }

    async fn fold(&mut self, sql: &str) -> Result<f64, sqlx::Error> {
        let begun = Instant::now();
        sqlx::query_scalar::<_, String>(sql).fetch_one(&mut self.superuser).await?;
        Ok(self.entries as f64 / begun.elapsed().as_secs_f64())
    }

    /// The rows as they came out of a rebuild, from a file on the server, with the same indexes afterwards.
    async fn copy(&mut self) -> Result<f64, sqlx::Error> {
        let connection = &mut self.superuser;
        let directory: String =
            sqlx::query_scalar("SELECT current_setting('data_directory')").fetch_one(&mut *connection).await?;
        let file = format!("'{}/bench_postings'", directory.replace('\'', "''"));
        connection.execute(format!("COPY (SELECT * FROM read.postings) TO {file} (FORMAT binary)").as_str()).await?;
        connection.execute("DROP SCHEMA IF EXISTS copied CASCADE; CREATE SCHEMA copied; CHECKPOINT").await?;
        let begun = Instant::now();
        let indexes = Postings.indexes();
        let create = Postings.schema().create;
        connection
            .execute(
                format!(
                    "BEGIN; SET LOCAL search_path = copied; {create}; COPY postings FROM {file} (FORMAT binary); {indexes}; COMMIT"
                )
                .as_str(),
            )
            .await?;
        let took = begun.elapsed();
        connection.execute("DROP SCHEMA copied CASCADE").await?;
        Ok(self.entries as f64 / took.as_secs_f64())
    }

    /// So that nobody pays for writes that another has left.
    async fn checkpoint(&mut self) -> Result<(), sqlx::Error> {
        self.superuser.execute("CHECKPOINT").await.map(drop)
    }
}

/// The peak counts from here on (`proc(5)`, `clear_refs`).
pub(super) fn forget_peak_memory() -> std::io::Result<()> {
    std::fs::write("/proc/self/clear_refs", "5")
}

/// Of this process, resident, since then.
pub(super) fn peak_memory_mib() -> std::io::Result<f64> {
    let status = std::fs::read_to_string(Path::new("/proc/self/status"))?;
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:")?.trim().split(' ').next()?.parse::<f64>().ok())
        .ok_or_else(|| std::io::Error::other("no VmHWM in /proc/self/status"))?;
    Ok(kib / 1024.0)
}

fn judge(ground: &Ground, sizes: &[u64], rounds: Vec<Raw>) -> Report {
    let of = |what: String| Report::median_of(&rounds, &what);
    let mut figures = Vec::new();
    for entries in sizes {
        let ours = of(format!("balances, {entries} entries"));
        let beside = |what: &str, wanted| {
            let fold = of(format!("{what} in Postgres, {entries} entries"));
            Figure::beside(
                "P4",
                format!("balances from {entries} entries, beside the {what}"),
                ours,
                fold,
                "entries/s",
                wanted,
            )
        };
        figures.push(beside("sum over a JSON path", "ratio ≥ 0.5"));
        figures.push(beside("sums by account", "–"));
        let memory = of(format!("balances, {entries} entries, peak memory"));
        figures.push(Figure::alone("P4", format!("resident memory, {entries} entries"), memory, "MiB", "≤ 300"));
    }
    if let [first, .., last] = sizes {
        let rate = |entries: &u64| of(format!("balances, {entries} entries"));
        let what = format!("balances, {last} entries beside {first}");
        figures.push(Figure::beside("P4", what, rate(last), rate(first), "entries/s", "ratio 0.9 to 1.1"));
    }
    if let Some(entries) = sizes.first() {
        let (ours, copy) =
            (of(format!("postings, {entries} entries")), of(format!("COPY of the same postings, {entries} entries")));
        let what = format!("postings from {entries} entries, beside COPY");
        figures.push(Figure::beside("P4", what, ours, copy, "entries/s", "–"));
    }
    let notes = vec![
        "A year of entries of 10,000 creators, three postings each on average. Ours: rows, sums, indexes and checkpoint, committed; \
         the proof against the live generation is not in the figure. Each fold is one statement over the same journal, with as \
         many workers as Postgres takes. Autovacuum is off for both. COPY: the finished rows from a binary file on the server, and the same indexes."
            .to_owned(),
    ];
    Report { bench: "rebuild", machine: ground.machine.clone(), notes, rounds, figures }
}
