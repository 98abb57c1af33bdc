//! `fanledger dev` and the tools around it, as a person uses them: the built program, its exit codes, its JSON.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use fanledger_devkit::history;
use serde_json::Value;
use sqlx::{Connection, PgConnection};
use tokio::process::Child;

/// What one data directory sees.
struct Machine {
    data_dir: PathBuf,
}

impl Machine {
    fn new() -> Self {
        let data_dir = std::env::temp_dir().join(format!("fanledger-dev-{}", uuid::Uuid::now_v7()));
        std::fs::create_dir_all(&data_dir).unwrap();
        Self { data_dir }
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fanledger"));
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("FANLEDGER_")) {
            // Which Postgres and NATS to use is the environment's to say; everything else is this test's.
            if !name.to_string_lossy().ends_with("_BIN") {
                command.env_remove(name);
            }
        }
        command.env("FANLEDGER_DATA_DIR", &self.data_dir).args(line.split_whitespace()).stdin(Stdio::null());
        command
    }

    fn run(&self, line: &str) -> Output {
        self.command(line).output().unwrap()
    }

    /// The answer of a command that must end with `code`.
    fn json(&self, line: &str, code: i32) -> Value {
        let output = self.run(&format!("{line} --json"));
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{line}: {errors}");
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{line}: {error}: {errors}"))
    }

    /// What a command that must end with `code` says on standard error.
    fn refusal(&self, line: &str, code: i32) -> String {
        let output = self.run(line);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{line}: {errors}");
        errors
    }

    /// A `dev` that is ready.
    async fn dev(&self) -> Child {
        let mut command = tokio::process::Command::from(self.command("dev"));
        command.stdout(Stdio::null()).stderr(Stdio::inherit()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(90);
        while !self.run("dev env --json").status.success() {
            assert_eq!(child.try_wait().unwrap(), None, "dev ended");
            assert!(Instant::now() < deadline, "dev is not ready");
        }
        child
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.data_dir.join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.data_dir).ok();
    }
}

fn signal(child: &Child, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(child.id().unwrap().cast_signed()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

async fn tamper(url: &str, statement: &str) {
    let mut superuser = PgConnection::connect(url).await.unwrap();
    let statement = format!(
        "ALTER TABLE journal.events DISABLE TRIGGER ALL; {statement}; ALTER TABLE journal.events ENABLE TRIGGER ALL"
    );
    sqlx::raw_sql(&statement).execute(&mut superuser).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn from_an_empty_directory_to_balanced_books_and_back_after_a_kill() {
    let machine = Machine::new();
    assert!(machine.refusal("dev env", 3).contains("no `fanledger dev` is running"));
    assert!(machine.refusal("ledger trial-balance", 3).contains("FANLEDGER_DATABASE_URL"));
    let mut dev = machine.dev().await;

    // Others find it, and a second one is refused.
    let env = machine.json("dev env", 0);
    for name in ["database_url", "superuser_url", "nats_url", "gateway_url", "metrics_url"] {
        assert!(env[name].is_string(), "{name}");
    }
    assert!(machine.refusal("dev", 3).contains("already running"));
    assert_eq!(machine.json("ledger trial-balance", 0)["currencies"], Value::Array(Vec::new()));
    assert!(machine.refusal("ledger trial-balance --as-of 2020-01-01T00:00:00Z", 2).contains("before the first entry"));
    assert_eq!(machine.json("doctor", 0)["ok"], true);

    // A small history through the real path: sent twice it changes nothing.
    let history = history::random(7, 20);
    let lines: Vec<String> = history.events.iter().map(ToString::to_string).collect();
    let file = machine.file("events.jsonl", &lines.join("\n"));
    let count = lines.len() as u64;
    let replayed = machine.json(&format!("stripe replay {file} --shuffle --seed 3"), 0);
    assert_eq!((&replayed["sent"], &replayed["refused"]), (&count.into(), &0.into()));
    let again = machine.json(&format!("stripe replay {file} --duplicate 1"), 0);
    assert_eq!(
        (&again["accepted"], &again["duplicate"], &again["conflict"]),
        (&0.into(), &(2 * count).into(), &0.into())
    );
    // Another body under an id that is known is not stored, and no success.
    let mut other = history.events[0].clone();
    other["created"] = Value::from(other["created"].as_i64().unwrap() + 1);
    let other = machine.file("other.jsonl", &other.to_string());
    let conflict = machine.json(&format!("stripe replay {other}"), 1);
    assert_eq!(
        (&conflict["duplicate"], &conflict["conflict"], &conflict["refused"]),
        (&0.into(), &1.into(), &0.into())
    );
    wait_until_read(&machine);
    let balance = machine.json("ledger trial-balance", 0);
    for currency in balance["currencies"].as_array().unwrap() {
        let accounts = currency["accounts"].as_array().unwrap();
        assert_eq!(accounts.iter().map(|account| account["balance_minor"].as_i64().unwrap()).sum::<i64>(), 0);
    }
    let verified = machine.json("journal verify", 0);
    assert_eq!(
        (&verified["ok"], verified["root"].as_str().unwrap().len(), &verified["first_divergence"]),
        (&true.into(), 64, &Value::Null)
    );
    assert_eq!(machine.json("ledger converge --dry-run", 0)["entries"], 0);
    every_line_leads_to_its_entry(&machine, &balance);

    // Killed at its busiest, it comes back with everything.
    signal(&dev, rustix::process::Signal::KILL);
    dev.wait().await.unwrap();
    assert!(machine.refusal("dev env", 3).contains("no `fanledger dev` is running"));
    let mut dev = machine.dev().await;
    wait_until_read(&machine);
    assert_eq!(machine.json("ledger trial-balance", 0), balance);

    // A hand in the database is found, and exit code 1 says so.
    let url = machine.json("dev env", 0)["superuser_url"].as_str().unwrap().to_owned();
    tamper(&url, "UPDATE journal.events SET payload = replace(payload::text, '{', '{ ')::json WHERE position = 5")
        .await;
    let found = machine.json("journal verify", 1);
    assert_eq!((&found["ok"], &found["first_divergence"]["position"]), (&false.into(), &5.into()));
    assert_eq!(found["first_divergence"]["kind"], "content");
    // So it is where somebody looks at the event alone.
    assert_eq!(machine.json("journal show 4", 0)["as_recorded"], true);
    assert_eq!(machine.json("journal show 5", 1)["as_recorded"], false);

    // Told to stop, it stops everything and says that all is well.
    assert_eq!(machine.json("dev stop", 0)["stopped"], true);
    let status = tokio::time::timeout(Duration::from_secs(30), dev.wait()).await.expect("dev stops").unwrap();
    assert!(status.success());
    assert!(!machine.data_dir.join("dev.json").exists());
    assert_eq!(machine.json("dev stop", 0)["stopped"], false);
}

/// Waits until every runner has read what is there; each round asks the program, which takes its time.
fn wait_until_read(machine: &Machine) {
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut quiet = 0;
    while quiet < 2 {
        let runners = machine.json("projections status", 0);
        let runners = runners.as_array().unwrap();
        let head = &runners[0]["head"];
        let read =
            runners.len() >= 8 && runners.iter().all(|runner| runner["position"] == *head && runner["head"] == *head);
        quiet = if read { quiet + 1 } else { 0 };
        assert!(Instant::now() < deadline, "{runners:?}");
    }
}

/// From a balance to its postings, from a posting to its entry, from an entry to the webhook that caused it.
fn every_line_leads_to_its_entry(machine: &Machine, balance: &Value) {
    let first = &balance["currencies"][0];
    let (account, currency) = (&first["accounts"][0], first["currency"].as_str().unwrap());
    let name = account["account"].as_str().unwrap();
    let statements = machine.json(&format!("ledger account {name} --currency {currency}"), 0);
    let statement = &statements[0];
    assert_eq!(statement["balance_minor"], account["balance_minor"]);
    let posting = statement["postings"].as_array().unwrap().last().unwrap();
    assert_eq!(posting["balance_minor"], statement["balance_minor"]);
    let entry = machine.json(&format!("ledger entry {}", posting["entry_id"].as_str().unwrap()), 0);
    assert_eq!(entry["position"], posting["position"]);
    let event = machine.json(&format!("journal show {}", entry["position"]), 0);
    assert_eq!(event["event_type"], "EntryPosted");
    for cause in entry["cause"]["stripe_events"].as_array().unwrap() {
        let webhook = machine.json(&format!("journal show {}", cause["position"]), 0);
        assert_eq!(webhook["payload"]["id"], cause["id"]);
    }
}

#[test]
fn questions_that_make_no_sense_are_usage() {
    let machine = Machine::new();
    let no_events = machine.file("resources.json", r#"{"resources": {}}"#);
    for (line, said) in [
        ("ledger account liabilities:nobody", "no such form of account"),
        ("ledger trial-balance --as-of yesterday", "expected a position"),
        ("ledger trial-balance --currency xxx", "unknown currency"),
        ("ledger account assets:bank --currency USD", "write usd"),
        ("token mint --role king", "there is no role"),
        ("token mint --role finance --ttl 1w", "expected a duration"),
        ("token mint --role finance --subject ä", "visible ASCII"),
        ("journal show 0", "0 is not in"),
        (&format!("stripe replay {no_events}"), "no Stripe event"),
        ("journal verify --against ftp://x", "no place for a checkpoint"),
        ("journal prove 1 --checkpoint s3://bucket", "no place for a checkpoint"),
        ("journal check-proof ftp://x", "no place for a checkpoint"),
        // A file that was named and cannot be read, whoever reads it.
        ("stripe replay nowhere.json", "No such file"),
        ("ledger post --file nowhere.json", "No such file"),
        ("journal check-proof nowhere.tlog-proof", "No such file"),
        ("doctor --config nowhere.toml", "No such file"),
        ("token mint --role finance --config nowhere.toml", "No such file"),
    ] {
        let errors = machine.refusal(line, 2);
        assert!(errors.contains(said), "{line}: {errors}");
    }
}

#[test]
fn every_bad_setting_is_named_and_no_secret_is_shown() {
    let machine = Machine::new();
    let output = machine
        .command("gateway")
        .env("FANLEDGER_ENV", "production")
        .env("FANLEDGER_LISTEN", "here")
        .env("FANLEDGER_VAULT_KEY", "hunter2")
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3));
    assert!(errors.contains("FANLEDGER_LISTEN") && errors.contains("FANLEDGER_VAULT_KEY"), "{errors}");
    assert!(!errors.contains("hunter2"));
    let output = machine.command("gateway").env("FANLEDGER_ENV", "production").output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    for name in ["GATEWAY_DATABASE_URL", "COMMAND_DATABASE_URL", "JWT_KEY", "VAULT_KEY", "STRIPE_WEBHOOK_SECRETS"] {
        assert!(errors.contains(name), "{name}: {errors}");
    }
    assert!(!Path::new(&machine.data_dir).join("keys").exists(), "production makes nothing up");
}

/// Nothing of a file or a variable is passed over because it cannot be read.
#[test]
fn settings_that_cannot_be_read_are_named_like_the_other_bad_ones() {
    use std::os::unix::ffi::OsStrExt;
    let machine = Machine::new();
    let not_text = std::ffi::OsStr::from_bytes(b"127.0.0.1:\xff");
    std::fs::write(machine.data_dir.join("fanledger.toml"), b"listen = \"\xff\"").unwrap();
    let mint = || {
        let mut command = machine.command("token mint --role finance");
        command.current_dir(&machine.data_dir).env("FANLEDGER_LOG", not_text).env("FANLEDGER_VAULT_KEY", "hunter2");
        command
    };
    let output = mint().output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{errors}");
    for named in ["3 settings", "fanledger.toml", "FANLEDGER_LOG", "FANLEDGER_VAULT_KEY"] {
        assert!(errors.contains(named), "{named}: {errors}");
    }
    let output = mint().env("FANLEDGER_ENV", not_text).env("FANLEDGER_LOG", "").output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("FANLEDGER_ENV"));
}

/// A token from a file has the file's line end; nothing was sent of one that cannot be.
#[test]
fn a_token_with_a_line_end_is_sent_without_it_and_one_that_cannot_be_sent_is_usage() {
    let machine = Machine::new();
    let act = |token: &str| {
        let mut command = machine.command("ledger approve mne_1");
        command.env("FANLEDGER_GATEWAY_URL", "http://127.0.0.1:1").env("FANLEDGER_TOKEN", token);
        let output = command.output().unwrap();
        (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, said) = act("header.payload.signature\n");
    assert!(code == 3 && said.contains("reach the gateway"), "{said}");
    for bad in ["two tokens", "header.\npayload", "tökén"] {
        let (code, said) = act(bad);
        assert!(code == 2 && said.contains("FANLEDGER_TOKEN") && !said.contains(bad), "{code} {said}");
    }
}

#[test]
fn a_variable_that_is_no_setting_is_warned_of_and_stops_nothing() {
    let machine = Machine::new();
    let run = |line: &str| machine.command(line).env("FANLEDGER_LISTN", "127.0.0.1:1").output().unwrap();
    let minted = run("token mint --role finance");
    assert_eq!(minted.status.code(), Some(0));
    let warned = String::from_utf8_lossy(&minted.stderr).into_owned();
    assert!(warned.contains("FANLEDGER_LISTN") && warned.contains("did you mean FANLEDGER_LISTEN?"), "{warned}");
    assert_eq!(String::from_utf8(minted.stdout).unwrap().lines().count(), 1, "the answer is as ever");
    let diagnosis: Value = serde_json::from_slice(&run("doctor --json").stdout).unwrap();
    let found =
        diagnosis["checks"].as_array().unwrap().iter().find(|check| {
            check["verdict"] == "warning" && check["found"].as_str().unwrap().contains("FANLEDGER_LISTN")
        });
    assert!(found.is_some(), "{diagnosis}");
}

#[test]
fn a_token_is_printed_bare() {
    let machine = Machine::new();
    let output = machine.run("token mint --role finance --role operator --subject operator:test --ttl 5m");
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.trim().split('.').count(), 3);
    assert_eq!(text.lines().count(), 1);
}
