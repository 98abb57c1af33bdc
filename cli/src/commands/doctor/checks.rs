//! The checks. Each ends in a finding; none ends the others.

use fanledger_journal::checkpoint::{Halt, HaltKind};
use fanledger_journal::database::{self, Role};
use fanledger_journal::merkle::checkpoint::CheckpointSigner;
use fanledger_journal::nats;
use fanledger_journal::reader::Reader;
use fanledger_journal::runner::{self, RunnerState};
use sqlx::{PgPool, Row};

use super::Check;
use crate::clock;
use crate::connect;
use crate::failure::one_line;
use crate::roles::schema_version_needed;
use crate::settings::{Environment, Need, Secret, Settings, SettingsError};

/// Beyond this the writer refuses to append.
const CLOCK_SKEW_SECONDS_MAX: i64 = 60;
/// Each role logs in within this, where a pool would wait longer: doctor is asked when things are bad.
const LOGIN_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(3);
/// What `journal.append` and `sha256()` in SQL were tested on.
const POSTGRES_VERSION_MIN: i32 = 150_000;

/// A failed check for each bad or missing setting.
pub(super) fn settings_problems(error: &SettingsError) -> Vec<Check> {
    error.problems.iter().map(|problem| Check::failed("settings", problem, "")).collect()
}

/// All of them, in the order in which one needs the other.
pub(super) async fn all(settings: &Settings, checks: &mut Vec<Check>) {
    let needs = [
        Need::Database(Role::Gateway),
        Need::Database(Role::Command),
        Need::Database(Role::Projector),
        Need::Nats,
        Need::WebhookSecrets,
        Need::JwtKey,
        Need::VaultKey,
        Need::Livemode,
    ];
    match settings.require(&needs) {
        Ok(()) => checks.push(Check::ok("settings", "all that the roles need is set")),
        Err(error) => checks.extend(settings_problems(&error)),
    }
    checks.extend(settings.unknown.iter().map(|unknown| {
        Check::warning("settings", unknown, "correct the name, or unset it; the README lists what can be set")
    }));
    checks.push(keys(settings));
    match &settings.stripe_api_key {
        Some(_) => checks.push(Check::ok("stripe", "there is an API key: balance transactions are fetched")),
        None => checks.push(Check::warning(
            "stripe",
            "no API key: balance transactions that webhooks only name are awaited",
            "set FANLEDGER_STRIPE_API_KEY to a restricted key that may read balance transactions",
        )),
    }
    for role in Role::ALL {
        if let Some(pool) = login(settings, role, checks).await {
            if role == Role::Operator {
                postgres(settings, &pool, checks).await;
                checks.push(checkpoints(settings, &pool).await);
            }
            if role == Role::Gateway {
                checks.push(gateway_rights(&pool).await);
            }
        }
    }
    nats(settings, checks).await;
}

fn keys(settings: &Settings) -> Check {
    let tried = [settings.jwt_key().map(drop), settings.vault_key().map(drop), settings.webhook_secrets().map(drop)];
    match (tried.into_iter().find_map(Result::err), settings.environment) {
        (Some(error), _) => Check::failed("keys", one_line(&error), "give the roles their keys"),
        (None, Environment::Production) => Check::ok("keys", "all are set"),
        (None, Environment::Development) => {
            Check::ok("keys", "set, or made and kept in the data directory (development)")
        }
    }
}

/// Which key signs the journal's checkpoints. No role needs one, so its absence stops nothing.
async fn checkpoints(settings: &Settings, pool: &PgPool) -> Check {
    let seed = match settings.require(&[Need::CheckpointKey]) {
        Ok(()) => settings.checkpoint_key(),
        Err(_) => {
            return Check::warning(
                "checkpoints",
                "no key to sign them with: whoever owns the database can rewrite the journal unnoticed",
                "set FANLEDGER_CHECKPOINT_KEY where `fanledger journal checkpoint` runs, and keep what it signs elsewhere",
            );
        }
    };
    match (seed, Reader::new(pool.clone()).head().await) {
        (Ok(seed), Ok(head)) => {
            let key = CheckpointSigner::new(head.journal_id, &seed).verifier();
            Check::ok("checkpoints", format!("are checked with the public key {key}"))
        }
        (Err(error), _) => Check::failed("checkpoints", one_line(&error), "see the data directory's keys"),
        (_, Err(error)) => Check::failed("checkpoints", one_line(&error), "run `fanledger migrate`"),
    }
}

async fn login(settings: &Settings, role: Role, checks: &mut Vec<Check>) -> Option<PgPool> {
    // A missing setting was named already.
    let url = settings.database_url_for(role).ok()?;
    // Plainly first: a pool tries a refused connection again until its time is over, and then says only that.
    let login = async {
        connect::plainly(&url, LOGIN_TIMEOUT).await?;
        database::connect(&url, 1).await
    };
    let failure = match tokio::time::timeout(LOGIN_TIMEOUT, login).await {
        Ok(Ok(pool)) => return Some(pool),
        Ok(Err(error)) => one_line(&error),
        Err(_) => format!("no answer within {} s", LOGIN_TIMEOUT.as_secs()),
    };
    let remedy = format!("is Postgres running, and migrated (`fanledger migrate`), and may {} log in?", role.name());
    checks.push(Check::failed("postgres", format!("{}: {failure}", role.name()), remedy));
    None
}

async fn postgres(settings: &Settings, pool: &PgPool, checks: &mut Vec<Check>) {
    let asked = sqlx::query(
        "SELECT current_setting('server_version_num')::int, current_setting('server_version'), current_setting('fsync'), \
         current_setting('full_page_writes'), current_setting('synchronous_commit'), \
         extract(epoch FROM clock_timestamp())::bigint, coalesce(control.schema_version(), 0)::bigint, \
         current_setting('synchronous_standby_names')",
    )
    .fetch_one(pool)
    .await;
    let row = match asked {
        Ok(row) => row,
        Err(error) => {
            checks.push(Check::failed("postgres", one_line(&error), "run `fanledger migrate`"));
            return;
        }
    };
    let text = |index: usize| row.try_get::<String, _>(index).unwrap_or_default();
    let number = row.try_get::<i32, _>(0).unwrap_or_default();
    checks.push(if number >= POSTGRES_VERSION_MIN {
        Check::ok("postgres", format!("version {}", text(1)))
    } else {
        Check::failed("postgres", format!("version {}", text(1)), "Postgres 15 or newer is needed")
    });
    checks.push(durability(settings, &text(2), &text(3), &text(4), &text(7)));
    let skew = (row.try_get::<i64, _>(5).unwrap_or_default() - clock::unix_seconds()).abs();
    checks.push(match skew {
        0..=2 => Check::ok("clock", "this machine's and the database's agree"),
        3..=CLOCK_SKEW_SECONDS_MAX => {
            Check::warning("clock", format!("{skew} s from the database's"), "set both by NTP")
        }
        _ => Check::failed("clock", format!("{skew} s from the database's: appends are refused"), "set both by NTP"),
    });
    let (found, needed) = (row.try_get::<i64, _>(6).unwrap_or_default(), schema_version_needed());
    checks.push(if found < needed {
        Check::failed("schema", format!("version {found}, this program needs {needed}"), "run `fanledger migrate`")
    } else if found > needed {
        Check::warning("schema", format!("version {found}, this program knows {needed}"), "upgrade this program")
    } else {
        Check::ok("schema", format!("version {found}"))
    });
    checks.push(disk(pool).await);
    runners(pool, checks).await;
}

/// Whether Postgres takes something that is written. No role may make a table, and an append would stay for ever; but a sort that
/// has no memory writes to the same disk, and leaves nothing.
async fn disk(pool: &PgPool) -> Check {
    match spill(pool).await {
        Ok(false) => Check::ok("disk", "Postgres can write to it"),
        Ok(true) => Check::failed(
            "disk",
            "Postgres takes no writes: it is a standby, or its sessions are read-only",
            "let the settings name the primary; is default_transaction_read_only off?",
        ),
        Err(error) => Check::failed(
            "disk",
            format!("Postgres cannot write: {}", one_line(&error)),
            "make room on its disk (`df`): until then nothing is appended, and Stripe sends its webhooks again for three days",
        ),
    }
}

/// Has Postgres write some megabytes to a file of its own, which goes with the statement. Gives whether it is read-only.
async fn spill(pool: &PgPool) -> Result<bool, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    sqlx::query("SET LOCAL work_mem = '64kB'").execute(&mut *transaction).await?;
    sqlx::query("SELECT count(*) FROM generate_series(1, 200000)").execute(&mut *transaction).await?;
    let read_only = sqlx::query_scalar("SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::bool")
        .fetch_one(&mut *transaction)
        .await?;
    transaction.rollback().await?;
    Ok(read_only)
}

fn durability(settings: &Settings, fsync: &str, pages: &str, commit: &str, standbys: &str) -> Check {
    let found = format!("fsync {fsync}, full_page_writes {pages}, synchronous_commit {commit}");
    // `local` and `remote_write` are durable here; they weaken only what a standby promises.
    let durable = fsync == "on" && pages == "on" && commit != "off";
    match (durable, settings.environment) {
        (false, Environment::Production) => Check::failed(
            "durability",
            found,
            "acknowledged webhooks could be lost in a power cut: switch all three on",
        ),
        (false, Environment::Development) => {
            Check::warning("durability", found, "switch all three on before production")
        }
        (true, Environment::Production) if standbys.is_empty() => Check::warning(
            "durability",
            format!("{found}; no synchronous standby"),
            "with one machine the last seconds can be lost with its disk: state that RPO, or set synchronous_standby_names",
        ),
        (true, _) => Check::ok("durability", found),
    }
}

async fn gateway_rights(pool: &PgPool) -> Check {
    let asked: Result<bool, sqlx::Error> = sqlx::query_scalar(
        "SELECT has_schema_privilege('journal', 'USAGE') OR has_schema_privilege('vault', 'USAGE') \
         OR has_schema_privilege('control', 'USAGE') OR NOT has_schema_privilege('read', 'USAGE')",
    )
    .fetch_one(pool)
    .await;
    match asked {
        Ok(false) => Check::ok("rights", "the gateway's role reads `read` and nothing else"),
        Ok(true) => Check::failed(
            "rights",
            "the gateway's login may do more, or less, than read `read`",
            "let it log in as fanledger_gateway; `fanledger migrate` gives that role its rights",
        ),
        Err(error) => Check::failed("rights", one_line(&error), "run `fanledger migrate`"),
    }
}

async fn runners(pool: &PgPool, checks: &mut Vec<Check>) {
    let runners = match runner::status(pool).await {
        Ok(runners) => runners,
        Err(error) => {
            checks.push(Check::failed("projections", one_line(&error), "run `fanledger migrate`"));
            return;
        }
    };
    if runners.is_empty() {
        checks.push(Check::warning(
            "projections",
            "none has run yet",
            "start the roles projector and manager, or `fanledger dev`",
        ));
    }
    // One journal, one remedy: it is said with the first.
    let mut history_told = false;
    for runner in &runners {
        let at = format!("{} at {} of {}", runner.name, runner.position, runner.head);
        checks.push(match (runner.state, &runner.error) {
            (RunnerState::Live, _) => Check::ok("projections", at),
            (RunnerState::CatchingUp, _) => {
                Check::warning("projections", format!("{at}, catching up"), "is its role running? else give it time")
            }
            (RunnerState::Paused, _) => Check::warning(
                "projections",
                format!("{at}, paused"),
                format!("`fanledger projections resume {}`", runner.name),
            ),
            (RunnerState::Halted, Some(halt)) if halt.kind == HaltKind::HistoryChanged => Check::failed(
                "projections",
                format!("{at}, halted: the journal is another one than it has read"),
                if std::mem::replace(&mut history_told, true) { String::new() } else { remedy(&runner.name, halt) },
            ),
            (RunnerState::Halted, Some(halt)) => {
                Check::failed("projections", format!("{at}, halted: {halt}"), remedy(&runner.name, halt))
            }
            (RunnerState::Halted, None) => Check::failed("projections", format!("{at}, halted"), "see its log"),
        });
    }
}

/// What to do about a halt: docs/runbooks/halted.md in one line.
fn remedy(name: &str, halt: &Halt) -> String {
    match (halt.kind, &halt.event) {
        (HaltKind::HistoryChanged, _) => "`fanledger journal verify` first: is this the journal that is to be? if not, restore the right one \
                                          and resume; if so, `fanledger projections rebuild --all`, once for all of them"
            .to_owned(),
        (HaltKind::VersionChanged, _) => format!(
            "`fanledger projections rebuild {name}` with the program whose tables are wanted, or start the old program again"
        ),
        (HaltKind::GenerationMissing, _) => format!("`fanledger projections rebuild {name}`"),
        (HaltKind::Poison, Some(event)) => {
            let position = event.position;
            format!(
                "`fanledger journal verify --from {position} --to {position}` first; if the event is as it was recorded, mend the cause or \
                 `fanledger projections skip {name}`, then `fanledger projections resume {name}`: docs/runbooks/halted.md"
            )
        }
        (HaltKind::Poison, None) => {
            format!("`fanledger journal verify` first, then mend the cause, then `fanledger projections resume {name}`")
        }
    }
}

/// Each login that the roles use: a server that greets everybody may refuse one of them.
async fn nats(settings: &Settings, checks: &mut Vec<Check>) {
    let Some(relay) = &settings.nats_url else {
        checks.push(Check::failed("nats", "not known", "set FANLEDGER_NATS_URL"));
        return;
    };
    checks.push(nats_login("FANLEDGER_NATS_URL", relay).await);
    if let Some(reader) = &settings.nats_reader_url {
        checks.push(nats_login("FANLEDGER_NATS_READER_URL", reader).await);
    }
}

async fn nats_login(setting: &str, url: &Secret) -> Check {
    const AWAY: &str = "is nats-server running there, and does it answer? until then projections read Postgres, at the cost of latency";
    match tokio::time::timeout(LOGIN_TIMEOUT, nats::connect(url.reveal(), "fanledger doctor")).await {
        Ok(Ok(client)) => Check::ok("nats", format!("{setting} logs in; version {}", client.server_info().version)),
        Ok(Err(error)) if error.is_refused_login() => Check::failed(
            "nats",
            format!("{setting}: the server refuses this user or password"),
            format!("set {setting} to a user and password of its configuration; until then projections read Postgres"),
        ),
        Ok(Err(error)) => Check::warning("nats", format!("{setting}: {}", one_line(&error)), AWAY),
        Err(_elapsed) => {
            Check::warning("nats", format!("{setting}: no answer within {} s", LOGIN_TIMEOUT.as_secs()), AWAY)
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::Utc;
    use fanledger_journal::checkpoint::HaltEvent;
    use fanledger_journal::event::Position;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::commands::doctor::Verdict;

    fn halt(kind: HaltKind, position: Option<u64>) -> Halt {
        let event = position.map(|position| HaltEvent {
            position: Position::new(position),
            event_type: "EntryPosted".to_owned(),
            stream: "stripe_charge/ch_1".to_owned(),
            event_id: uuid::Uuid::nil(),
        });
        Halt { kind, message: "because".to_owned(), at: Utc::now(), event }
    }

    #[test]
    fn each_kind_of_halt_has_its_own_remedy() {
        for kind in [HaltKind::VersionChanged, HaltKind::GenerationMissing] {
            let remedy = remedy("balances", &halt(kind, None));
            assert!(remedy.contains("projections rebuild balances") && !remedy.contains("resume"), "{remedy}");
        }
        let said = remedy("balances", &halt(HaltKind::Poison, Some(4711)));
        let steps =
            ["journal verify --from 4711 --to 4711", "projections skip balances", "projections resume balances"];
        let found: Vec<usize> = steps.iter().map(|step| said.find(step).unwrap_or_else(|| panic!("{said}"))).collect();
        assert!(found.is_sorted(), "{said}");
        let said = remedy("balances", &halt(HaltKind::HistoryChanged, None));
        assert!(said.contains("journal verify") && said.contains("rebuild --all"), "{said}");
        assert!(!said.contains("balances"), "one remedy for all: {said}");
    }

    /// As nats-server answers a wrong password, after a greeting that says nothing of it.
    #[tokio::test]
    async fn a_login_that_nats_refuses_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Secret::new(format!("nats://relay:hunter2@{}", listener.local_addr().unwrap()));
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let info = r#"INFO {"server_id":"x","server_name":"x","version":"2.15.1","go":"x","host":"x","port":1,"headers":true,"max_payload":1048576,"proto":1,"auth_required":true}"#;
            stream.write_all(format!("{info}\r\n").as_bytes()).await.unwrap();
            let mut heard = [0; 4096];
            assert!(stream.read(&mut heard).await.unwrap() > 0);
            stream.write_all(b"-ERR 'Authorization Violation'\r\n").await.unwrap();
        };
        let (check, ()) = tokio::join!(nats_login("FANLEDGER_NATS_READER_URL", &url), server);
        assert_eq!(check.verdict, Verdict::Failed, "{check:?}");
        assert!(check.found.contains("refuses") && check.remedy.contains("FANLEDGER_NATS_READER_URL"), "{check:?}");
        assert!(!format!("{check:?}").contains("hunter2"), "{check:?}");
    }
}
