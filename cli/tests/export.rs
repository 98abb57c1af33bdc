//! `fanledger ledger export`, opened by the programs that others keep books with: their balances are ours, to the last unit.
//!
//! They are fetched by `cargo xtask bookkeepers`, which `cargo xtask test` runs; without them these tests fail, and say so.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[allow(unused, reason = "of the running system only its tools are used here")]
mod e2e;
mod journal;

use std::path::PathBuf;
use std::process::Stdio;

use e2e::{Finished, PATIENCE, eventually, finish, program};
use fanledger_cli::output::amount_of;
use fanledger_devkit::bookkeepers::{self, Balances, BookkeeperError};
use fanledger_domain::entry::{Cause, EntryPosted, Posting, Side};
use fanledger_domain::event::Event;
use fanledger_domain::money::Money;
use fanledger_domain::period::{PeriodClosed, PeriodReopened};
use fanledger_domain::time::Timestamp;
use journal::Journal;
use rustix::process::{Pid, Signal, kill_process};
use sqlx::{Connection, PgConnection};
use tokio::process::Command;

/// Every kind of name that there is, and those that only differ where another program may not look.
const ACCOUNTS: &[&str] = &[
    "assets:stripe:clearing",
    "assets:creators:crt_a-B_9:receivable",
    "equity:fx:usd",
    "expenses:processing-fees:payments",
    "income:platform-fees",
    "liabilities:creators:crt_A:held",
    "liabilities:creators:crt_a:held",
    "liabilities:creators:crt__a:held",
    "liabilities:creators:crt_-a:held",
    "liabilities:creators:crt_a-:held",
    "liabilities:creators:crt_a_:held",
    "liabilities:fans:fan_0:credit",
    "liabilities:tax:us-ca",
    "liabilities:tax:-1",
    "liabilities:tax:1",
];

const DESCRIPTIONS: &[&str] = &[
    "a subscription's payment",
    "=HYPERLINK(\"http://example.com\"); date:2020-01-01, \"quoted\" \\ and | more",
    "zwei\nZeilen\r\n    assets:bank  5 usd",
    "ümläut – 日本語",
    "@SUM(A1)",
    "* ! (code) ; comment",
    "",
];

/// SplitMix64, by Sebastiano Vigna; in the public domain.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[usize::try_from(self.roll(of.len() as u64)).unwrap()]
    }
}

/// A quarter of a year, out of order, with dates at the edges of months, in currencies of two, no and three decimals.
fn entries(count: u64) -> Vec<EntryPosted> {
    let mut dice = Dice(17);
    let mut at = move || -> Timestamp {
        let edges =
            ["2026-01-31T23:59:59Z", "2026-02-01T00:00:00Z", "2026-02-28T23:59:59.999999Z", "2026-03-01T00:00:00Z"];
        match dice.roll(4) {
            0 => dice.pick(&edges).parse().unwrap(),
            _ => {
                let second = i64::try_from(dice.roll(90 * 86_400)).unwrap();
                Timestamp::from_unix_seconds(1_767_225_600 + second).unwrap()
            }
        }
    };
    let mut dice = Dice(4);
    (0..count)
        .map(|n| {
            let occurred_at = at();
            let effective_at = if n % 5 == 0 { at() } else { occurred_at };
            let object = if n % 7 == 0 { format!("-odd:{n}") } else { format!("ch_{n}") };
            let mut postings = Vec::new();
            for _ in 0..=dice.roll(3) {
                let currency = dice.pick(&["usd", "jpy", "kwd"]).parse().unwrap();
                let minor = if n == 3 { (1 << 53) - 1 } else { 1 + i64::try_from(dice.roll(100_000)).unwrap() };
                let money = Money::new(minor, currency);
                for side in [Side::Debit, Side::Credit] {
                    postings.push(Posting { account: dice.pick(ACCOUNTS).parse().unwrap(), side, money });
                }
            }
            EntryPosted {
                entry_id: format!("{object}:1:{}", occurred_at.compact()).parse().unwrap(),
                cause: Cause {
                    object: object.parse().unwrap(),
                    facts: Vec::new(),
                    stripe_event: (n % 3 > 0).then(|| format!("evt_{n}").parse().unwrap()),
                    clears: None,
                },
                description: (*dice.pick(DESCRIPTIONS)).to_owned(),
                occurred_at,
                effective_at,
                postings,
                activity: Vec::new(),
            }
        })
        .collect()
}

/// A ledger, and where its exports go.
struct Ledger {
    journal: Journal,
}

impl Ledger {
    async fn of(count: u64) -> Self {
        let mut journal = Journal::create().await;
        let events = entries(count).into_iter().map(Event::from).collect();
        journal.append("stripe_charge", "ch_0", None, events).await;
        journal.catch_up().await;
        Self { journal }
    }

    fn command(&self, line: &str) -> Command {
        let mut command = program(self.journal.settings(), self.journal.directory());
        command.args(line.split_whitespace());
        command
    }

    async fn run(&self, line: &str) -> Finished {
        finish(self.command(line)).await
    }

    /// Exports, and says what was written and where.
    async fn export(&self, format: &str, options: &str) -> (serde_json::Value, PathBuf) {
        let name = format!("books.{format}");
        let written = self.run(&format!("ledger export --format {format} --out {name} {options} --json")).await.json(0);
        let path = self.journal.directory().join(name);
        assert_eq!(written["bytes"], std::fs::metadata(&path).unwrap().len());
        (written, path)
    }

    /// Our own balances, without those that are zero.
    async fn balances(&self, options: &str) -> Balances {
        let trial = self.run(&format!("ledger trial-balance {options} --json")).await.json(0);
        let mut balances = Balances::new();
        for currency in trial["currencies"].as_array().unwrap() {
            let code = currency["currency"].as_str().unwrap();
            for account in currency["accounts"].as_array().unwrap() {
                let minor = account["balance_minor"].as_i64().unwrap();
                let key = (account["account"].as_str().unwrap().to_owned(), code.to_owned());
                balances.insert(key, amount_of(i128::from(minor), code));
            }
        }
        without_zeros(balances)
    }
}

fn without_zeros(mut balances: Balances) -> Balances {
    balances.retain(|_, balance| balance.chars().any(|c| ('1'..='9').contains(&c)));
    balances
}

async fn theirs(format: &str, path: &std::path::Path) -> Balances {
    let balances = match format {
        "hledger" => match bookkeepers::hledger_check(path).await {
            Ok(()) => bookkeepers::hledger_balances(path).await,
            Err(refused) => Err(refused),
        },
        "beancount" => match bookkeepers::bean_check(path).await {
            Ok(()) => bookkeepers::beancount_balances(path).await,
            Err(refused) => Err(refused),
        },
        "csv" => bookkeepers::csv_balances(path).await,
        _ => bookkeepers::parquet_balances(path).await,
    };
    without_zeros(balances.unwrap_or_else(|error| panic!("{format}: {error}")))
}

const FORMATS: [&str; 4] = ["hledger", "beancount", "csv", "parquet"];

#[tokio::test]
async fn whoever_opens_it_has_our_balances() {
    let ledger = Ledger::of(400).await;
    let ours = ledger.balances("").await;
    assert!(ours.len() > 30, "{ours:?}");
    for format in FORMATS {
        let (written, path) = ledger.export(format, "").await;
        assert_eq!((written["entries"].as_u64(), written["position"].as_u64()), (Some(400), Some(400)), "{format}");
        assert_eq!(theirs(format, &path).await, ours, "{format}");
        // The same books again are the same bytes.
        let bytes = std::fs::read(&path).unwrap();
        let (again, path) = ledger.export(format, "").await;
        assert_eq!(again["sha256"], written["sha256"], "{format}");
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "{format}");
    }
}

#[tokio::test]
async fn a_part_begins_with_its_opening_balances_and_ends_with_ours() {
    let ledger = Ledger::of(400).await;
    for (options, as_of) in [
        ("--period 2026-02", "--as-of 2026-02-28T23:59:59.999999Z"),
        ("--from 2026-02-01 --to 2026-02-28 --by occurred", "--as-of 2026-02-28T23:59:59.999999Z --by occurred"),
        ("--from 2026-02-10T06:00:00Z --currency kwd", "--currency kwd"),
        ("--to 2026-01-31T23:59:58Z", "--as-of 2026-01-31T23:59:58Z"),
        // After the last entry: nothing but what stands.
        ("--period 2030-01", ""),
    ] {
        let ours = ledger.balances(as_of).await;
        assert!(!ours.is_empty());
        for format in FORMATS {
            let (written, path) = ledger.export(format, options).await;
            assert_eq!(theirs(format, &path).await, ours, "{format} {options}");
            assert_eq!(written["entries"] == 0, options.contains("2030"), "{format} {options}");
        }
    }
    // A month and the one after it make the two of them together.
    let count = async |options| ledger.export("csv", options).await.0["postings"].as_u64().unwrap();
    let both = count("--from 2026-01-01 --to 2026-02-28").await;
    assert_eq!(count("--period 2026-01").await + count("--period 2026-02").await, both);
}

#[tokio::test]
async fn a_closed_month_is_the_same_for_ever() {
    let mut ledger = Ledger::of(200).await;
    let (january, february) = ("2026-02-01T00:00:00Z", "2026-03-01T00:00:00Z");
    let close = |period: &str, first_open: &str| {
        Event::PeriodClosed(PeriodClosed {
            period: period.parse().unwrap(),
            first_open: first_open.parse().unwrap(),
            at: "2026-03-05T00:00:00Z".parse().unwrap(),
            by: "grace".parse().unwrap(),
        })
    };
    let closes = vec![close("2026-01", january), close("2026-02", february)];
    ledger.journal.append("period", "platform", None, closes).await;
    ledger.journal.catch_up().await;
    let mut before = Vec::new();
    for format in FORMATS {
        let (written, path) = ledger.export(format, "--period 2026-02").await;
        assert_eq!((&written["is_closed"], &written["position"]), (&true.into(), &202.into()));
        before.push(std::fs::read(path).unwrap());
    }
    // What comes late happened in the month, and is booked after it.
    let late = entries(300).into_iter().skip(200).map(|entry| {
        let effective_at = entry.occurred_at.max(february.parse().unwrap());
        Event::from(EntryPosted { effective_at, ..entry })
    });
    ledger.journal.append("stripe_charge", "ch_0", None, late.collect()).await;
    ledger.journal.catch_up().await;
    let ours = ledger.balances("--period 2026-02").await;
    for (format, before) in FORMATS.into_iter().zip(&before) {
        let (_, path) = ledger.export(format, "--period 2026-02").await;
        assert!(std::fs::read(&path).unwrap() == *before, "{format}");
        assert_eq!(theirs(format, &path).await, ours, "{format}");
    }
    // By occurrence it is what happened, whenever that was told; and the month after is open.
    let (written, _) = ledger.export("csv", "--period 2026-02 --by occurred").await;
    assert_eq!((&written["is_closed"], &written["position"]), (&false.into(), &302.into()));
    let (written, _) = ledger.export("csv", "--period 2026-03").await;
    assert_eq!((&written["is_closed"], &written["position"]), (&false.into(), &302.into()));

    // Opened again it is as it is, and says so; what close 1 fixed is still there.
    let reopened = PeriodReopened {
        period: "2026-02".parse().unwrap(),
        first_open: Some(january.parse().unwrap()),
        at: "2026-03-06T00:00:00Z".parse().unwrap(),
        by: "ada".parse().unwrap(),
        reason: "a statement came late".to_owned(),
    };
    ledger.journal.append("period", "platform", None, vec![Event::PeriodReopened(reopened)]).await;
    ledger.journal.catch_up().await;
    let said = ledger.run("ledger export --format hledger --out - --period 2026-02").await;
    for told in [&said.stdout, &said.stderr] {
        assert!(told.contains("2026-02 is open: what is booked in it later is not here"), "{told}");
    }
    for (format, before) in FORMATS.into_iter().zip(before) {
        let (written, path) = ledger.export(format, "--period 2026-02 --close 1").await;
        assert_eq!((&written["is_closed"], &written["position"]), (&true.into(), &202.into()));
        assert!(std::fs::read(&path).unwrap() == before, "{format}");
    }
    for (options, told) in [
        ("--period 2026-02 --close 2", "there is no close 2 of 2026-02"),
        ("--period 2026-02 --close 1 --by occurred", "--close goes without --by occurred"),
        ("--close 1", "--period"),
    ] {
        let refused = ledger.run(&format!("ledger export --format csv --out - {options}")).await;
        assert_eq!(refused.code, 2, "{}", refused.stderr);
        assert!(refused.stderr.contains(told), "{}", refused.stderr);
    }
}

/// Whoever hands the sums on must not learn of it from somebody else.
#[tokio::test]
async fn books_that_do_not_balance_are_no_success() {
    let ledger = Ledger::of(20).await;
    let balanced = ledger.run("ledger trial-balance").await;
    assert_eq!(balanced.code, 0, "{}", balanced.stderr);
    // The journal refuses such an entry, so it is the sums that go wrong.
    let mut superuser = PgConnection::connect(ledger.journal.database_url()).await.unwrap();
    let tampering = "UPDATE balances_g1.balance_totals SET debits = debits + 7
                     WHERE (account, currency) = (SELECT account, currency FROM balances_g1.balance_totals WHERE currency = 'usd' LIMIT 1)";
    sqlx::raw_sql(tampering).execute(&mut superuser).await.unwrap();
    for options in ["", "--json", "--currency usd"] {
        let told = ledger.run(&format!("ledger trial-balance {options}")).await;
        assert_eq!(told.code, 1, "{options}: {}{}", told.stdout, told.stderr);
        assert!(told.stderr.contains("THE BOOKS DO NOT BALANCE: in usd"), "{options}: {}", told.stderr);
        assert!(told.stderr.contains("differ by 0.07"), "{options}: {}", told.stderr);
    }
}

#[tokio::test]
async fn they_notice_a_changed_amount() {
    let ledger = Ledger::of(50).await;
    for format in ["hledger", "beancount"] {
        let (_, path) = ledger.export(format, "--currency usd").await;
        // Two lines of one transaction, so that it still balances, and the closing balances do not.
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let is_posting = |line: &str| line.starts_with("  ") && line.to_ascii_lowercase().ends_with(" usd");
        let at = lines
            .windows(2)
            .position(|pair| {
                let account = |line: &str| line.split_whitespace().next().unwrap_or_default().to_owned();
                pair.iter().all(|line| is_posting(line)) && account(pair[0]) != account(pair[1])
            })
            .unwrap();
        let doctored: String = lines
            .iter()
            .enumerate()
            .map(|(n, line)| match n.checked_sub(at) {
                Some(0) => format!("{}\n", with_amount(line, "7.77")),
                Some(1) => format!("{}\n", with_amount(line, "-7.77")),
                _ => format!("{line}\n"),
            })
            .collect();
        std::fs::write(&path, doctored).unwrap();
        let refused = match format {
            "hledger" => bookkeepers::hledger_check(&path).await,
            _ => bookkeepers::bean_check(&path).await,
        };
        assert!(matches!(refused, Err(BookkeeperError::Refused { .. })), "{format}: {refused:?}");
    }
}

fn with_amount(line: &str, amount: &str) -> String {
    let mut words: Vec<&str> = line.split_whitespace().collect();
    words[1] = amount;
    format!("    {}  {}", words[0], words[1..].join(" "))
}

#[tokio::test]
async fn what_cannot_be_exported_leaves_nothing() {
    let ledger = Ledger::of(200).await;
    let empty = Journal::create().await;
    empty.catch_up().await;
    let files = || -> Vec<String> {
        let listed = std::fs::read_dir(ledger.journal.directory()).unwrap();
        let names = listed.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.contains("books")).collect()
    };
    let export = "ledger export --format csv --out books.csv";
    for (line, code, says) in [
        (format!("{export} --period 2020-01"), 2, "before the first entry"),
        (format!("{export} --period 2026-13"), 2, "not a month"),
        (format!("{export} --period 2026-01 --from 2026-01-01"), 2, "cannot be used with"),
        (format!("{export} --from 2026-02-01 --to 2026-01-01"), 2, "ends before it begins"),
        (format!("{export} --currency USD"), 2, "lowercase"),
        ("ledger export --format parquet --out -".to_owned(), 2, "give --out a file"),
        ("ledger export --format csv --out nowhere/books.csv".to_owned(), 3, "write nowhere/books.csv"),
        ("ledger export --format csv --out /dev/full".to_owned(), 3, "No space left on device"),
        ("ledger export --format parquet --out /dev/full".to_owned(), 3, "No space left on device"),
    ] {
        let refused = ledger.run(&line).await;
        assert_eq!(refused.code, code, "{line}: {}", refused.stderr);
        assert!(refused.stderr.contains(says), "{line}: {}", refused.stderr);
        assert_eq!(files(), Vec::<String>::new(), "{line}");
    }
    // A file that may not grow beyond a few KiB: half of it was written when it was refused.
    for format in FORMATS {
        let inner = ledger.command(&format!("ledger export --format {format} --out books.{format}"));
        let mut limited = Command::new("sh");
        limited.args(["-c", "trap '' XFSZ; ulimit -f 16; exec \"$0\" \"$@\""]).arg(inner.as_std().get_program());
        limited.args(inner.as_std().get_args()).current_dir(ledger.journal.directory()).env_clear();
        limited.envs(inner.as_std().get_envs().filter_map(|(name, value)| Some((name, value?))));
        let refused = finish(limited).await;
        assert_eq!(refused.code, 3, "{format}: {}{}", refused.stdout, refused.stderr);
        assert!(refused.stderr.contains("File too large"), "{format}: {}", refused.stderr);
        assert_eq!(files(), Vec::<String>::new(), "{format}");
    }
    // An empty ledger is an empty export, and has no months.
    let on_empty = async |line: &str| {
        let mut command = program(empty.settings(), empty.directory());
        command.args(line.split_whitespace());
        finish(command).await
    };
    assert_eq!(on_empty(&format!("{export} --json")).await.json(0)["entries"], 0);
    assert_eq!(on_empty(&format!("{export} --period 2026-01")).await.code, 2);
}

#[tokio::test]
async fn what_is_cut_short_leaves_nothing_under_the_name() {
    let ledger = Ledger::of(20).await;
    let files = || -> Vec<String> {
        let listed = std::fs::read_dir(ledger.journal.directory()).unwrap();
        let names = listed.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.contains("books")).collect()
    };
    // Held up where the sums are known and no entry is: the file is begun by then.
    let mut superuser = PgConnection::connect(ledger.journal.database_url()).await.unwrap();
    let mut held = superuser.begin().await.unwrap();
    sqlx::query("LOCK TABLE entries_g1.entries IN ACCESS EXCLUSIVE MODE").execute(&mut *held).await.unwrap();
    for signal in [Signal::INT, Signal::KILL] {
        let mut command = ledger.command("ledger export --format csv --out books.csv");
        let child = command.stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        eventually("the file is begun", async || files().iter().any(|name| name.ends_with(".draft"))).await;
        kill_process(Pid::from_raw(child.id().unwrap().cast_signed()).unwrap(), signal).unwrap();
        let ended = tokio::time::timeout(PATIENCE, child.wait_with_output()).await.unwrap().unwrap();
        if signal == Signal::INT {
            assert_eq!(ended.status.code(), Some(3));
            assert!(String::from_utf8_lossy(&ended.stderr).contains("interrupted: nothing was kept"));
            assert_eq!(files(), Vec::<String>::new());
        } else {
            assert!(!files().contains(&"books.csv".to_owned()));
        }
    }
    held.rollback().await.unwrap();
    ledger.export("csv", "").await;
}

#[tokio::test]
async fn books_that_do_not_add_up_are_not_kept() {
    let ledger = Ledger::of(20).await;
    let mut superuser = PgConnection::connect(ledger.journal.database_url()).await.unwrap();
    // A line of another amount than its entry has; then entries of accounts of which no balance is known.
    for (tampering, said) in [
        ("UPDATE postings_g1.postings SET amount = amount + 1 WHERE position = 7", "adds up to"),
        ("DELETE FROM postings_g1.postings", "lines were written, and the balances are of 0"),
    ] {
        sqlx::raw_sql(tampering).execute(&mut superuser).await.unwrap();
        for format in FORMATS {
            let refused = ledger.run(&format!("ledger export --format {format} --out books.{format}")).await;
            assert_eq!(refused.code, 3, "{tampering}, {format}: {}{}", refused.stdout, refused.stderr);
            assert!(refused.stderr.contains(said), "{tampering}, {format}: {}", refused.stderr);
            assert!(!ledger.journal.directory().join(format!("books.{format}")).exists(), "{tampering}, {format}");
        }
    }
}

#[tokio::test]
async fn standard_output_holds_the_export_alone() {
    let ledger = Ledger::of(20).await;
    let (written, path) = ledger.export("hledger", "").await;
    let printed = ledger.run("ledger export --format hledger --out -").await;
    assert_eq!(printed.code, 0, "{}", printed.stderr);
    assert_eq!(printed.stdout, std::fs::read_to_string(path).unwrap());
    assert!(printed.stderr.contains(written["sha256"].as_str().unwrap()), "{}", printed.stderr);
    assert!(!ledger.journal.directory().join("-").exists());
}
