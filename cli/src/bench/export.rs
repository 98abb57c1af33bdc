//! A year of a mid-size platform, exported in every format: how fast, how large, in how much memory; and whether the programs that
//! open it agree with the trial balance, where they are here (`cargo xtask bookkeepers`).

use std::path::{Path, PathBuf};
use std::time::Instant;

use fanledger_devkit::bookkeepers::{self, Balances, BookkeeperError};
use fanledger_gateway::read::{self, AsOf, By, ExportRange, ExportSnapshot};
use fanledger_gateway_api::MinorNumber;
use fanledger_journal::database::{self, Role, role_url};
use fanledger_journal::runner::{Projection, RunnerContext, catch_up};
use fanledger_projections::balances::Balances as BalancesProjection;
use fanledger_projections::entries::Entries;
use fanledger_projections::postings::Postings;
use sqlx::PgPool;

use crate::bench::ground::Ground;
use crate::bench::rebuild::{forget_peak_memory, peak_memory_mib};
use crate::bench::report::{Figure, Raw, Report};
use crate::bench::{ExportBenchArgs, history};
use crate::commands::ledger::{FormatName, format_of};
use crate::export::sink::Sink;
use crate::export::write;
use crate::failure::Failure;
use crate::output::{Output, amount_of};

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
enum ExportBenchError {
    #[error("read this process's memory")]
    Memory(#[source] std::io::Error),
    #[error("open {}", path.display())]
    Open {
        path: PathBuf,
        #[source]
        source: BookkeeperError,
    },
    #[error("{program} has another balance of {account} in {currency}: {theirs}, ours is {ours}")]
    Differs { program: &'static str, account: String, currency: String, ours: String, theirs: String },
}

const FORMATS: [(&str, FormatName); 4] = [
    ("hledger", FormatName::Hledger),
    ("beancount", FormatName::Beancount),
    ("csv", FormatName::Csv),
    ("parquet", FormatName::Parquet),
];

pub(super) async fn run(args: ExportBenchArgs, ground: &Ground, output: Output) -> Result<Report, Failure> {
    let url = ground.create_database("export").await?;
    database::migrate(&url).await?;
    let bar = output.bar(args.entries, "writing a history");
    history::write(&url, args.entries, &bar).await?;
    bar.finish_and_clear();
    let bar = output.spinner("projections built");
    let context = RunnerContext::without_feed(database::connect(&role_url(&url, Role::Projector)?, 2).await?);
    let projections: [&mut dyn Projection; 3] = [&mut BalancesProjection, &mut Postings, &mut Entries];
    for projection in projections {
        catch_up(&context, projection).await?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    let pool = database::connect(&role_url(&url, Role::Finance)?, 2).await?;
    let ours = trial_balance(&pool).await?;
    let mut bench = Bench { ground, pool, ours, raw: Vec::new(), figures: Vec::new(), notes: Vec::new() };
    let bar = output.bar(FORMATS.len() as u64 * 2, "exporting");
    for (name, format) in FORMATS {
        let path = bench.export(name, format).await?;
        bar.inc(1);
        bench.open(name, &path).await?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    let what = format!(
        "{} entries of a year, three postings each on average, on {} accounts. Entries a second and peak memory are of one whole \
         export each, to the disk and synchronised; Postgres's own memory is not in it.",
        args.entries,
        bench.ours.len()
    );
    bench.notes.insert(0, what);
    Ok(Report {
        bench: "export",
        machine: ground.machine.clone(),
        notes: bench.notes,
        rounds: bench.raw,
        figures: bench.figures,
    })
}

struct Bench<'g> {
    ground: &'g Ground,
    pool: PgPool,
    /// Without those that are zero.
    ours: Balances,
    raw: Vec<Raw>,
    figures: Vec<Figure>,
    notes: Vec<String>,
}

impl Bench<'_> {
    async fn export(&mut self, name: &'static str, format: FormatName) -> Result<PathBuf, Failure> {
        let path = self.ground.dir().join(format!("books.{name}"));
        forget_peak_memory().map_err(ExportBenchError::Memory)?;
        let begun = Instant::now();
        let mut snapshot = ExportSnapshot::begin(&self.pool, ExportRange::default()).await?;
        let writer = format_of(format, Sink::file(&path)?, snapshot.range())?;
        let (written, sink) = write(&mut snapshot, writer, &mut |_, _| {}).await?;
        let through = sink.keep()?;
        let took = begun.elapsed().as_secs_f64();
        let memory = peak_memory_mib().map_err(ExportBenchError::Memory)?;
        let rate = written.entries as f64 / took;
        for (what, value, unit) in [
            (format!("{name}, exported"), rate, "entries/s"),
            (format!("{name}, size"), through.bytes as f64 / 1_048_576.0, "MiB"),
            (format!("{name}, peak memory"), memory, "MiB"),
        ] {
            self.raw.push(Raw { round: 1, what, value, unit });
        }
        self.figures.push(Figure::alone("", format!("{name}, exported"), rate, "entries/s", "–"));
        self.figures.push(Figure::alone("", format!("{name}, peak memory"), memory, "MiB", "bounded"));
        Ok(path)
    }

    /// What the other program makes of it; the file is gone afterwards.
    async fn open(&mut self, name: &'static str, path: &Path) -> Result<(), Failure> {
        let begun = Instant::now();
        let theirs = match name {
            "hledger" => bookkeepers::hledger_balances(path).await,
            "beancount" => bookkeepers::beancount_balances(path).await,
            "csv" => bookkeepers::csv_balances(path).await,
            _ => bookkeepers::parquet_balances(path).await,
        };
        let took = begun.elapsed().as_secs_f64();
        match theirs {
            Ok(theirs) => {
                compare(name, &self.ours, &theirs)?;
                let what = format!("{name}, checked and summed up by the other program");
                self.raw.push(Raw { round: 1, what, value: took, unit: "s" });
                self.notes.push(format!("{name}: all {} balances are the trial balance's.", self.ours.len()));
            }
            Err(error @ BookkeeperError::Missing { .. }) => self.notes.push(format!("{name}: not opened, {error}")),
            Err(
                source @ (BookkeeperError::Run { .. }
                | BookkeeperError::Refused { .. }
                | BookkeeperError::Answer { .. }),
            ) => {
                return Err(ExportBenchError::Open { path: path.to_owned(), source }.into());
            }
        }
        // Room for the next; the whole directory goes at the end anyway.
        std::fs::remove_file(path).ok();
        Ok(())
    }
}

async fn trial_balance(pool: &PgPool) -> Result<Balances, Failure> {
    let trial = read::trial_balance::<MinorNumber>(pool, AsOf::Latest, By::Effective, None).await?.value;
    let mut balances = Balances::new();
    for currency in trial.currencies {
        for account in currency.accounts.into_iter().filter(|account| account.balance_minor.0 != 0) {
            let balance = amount_of(account.balance_minor.0, &currency.currency);
            balances.insert((account.account, currency.currency.clone()), balance);
        }
    }
    Ok(balances)
}

/// To the last unit, and no account more.
fn compare(program: &'static str, ours: &Balances, theirs: &Balances) -> Result<(), ExportBenchError> {
    let is_zero = |balance: &String| !balance.chars().any(|c| ('1'..='9').contains(&c));
    let none = "0".to_owned();
    for key in ours.keys().chain(theirs.keys()) {
        let (mine, other) = (ours.get(key).unwrap_or(&none), theirs.get(key).unwrap_or(&none));
        if mine != other && !(is_zero(mine) && is_zero(other)) {
            let (account, currency) = key.clone();
            let (ours, theirs) = (mine.clone(), other.clone());
            return Err(ExportBenchError::Differs { program, account, currency, ours, theirs });
        }
    }
    Ok(())
}
