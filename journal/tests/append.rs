//! `journal.append` as it is called by the writer and by hand: outcomes, refusals, plans, density.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeSet;

use fanledger_journal::append::{AppendError, Guard, IdempotencyKey, Outcome};
use fanledger_journal::database::Role;
use fanledger_journal::digest::{self, Content};
use fanledger_journal::event::{ChainDigest, NewEvent, Position, StreamId};
use fanledger_journal::writer::{Writer, WriterOptions};
use sqlx::Row;
use support::{Journal, appended, at, code, command, event, stream};

#[tokio::test]
async fn events_get_dense_positions_and_what_rust_computes_as_their_digests() {
    let journal = Journal::start().await;
    assert_eq!(journal.reader.head().await.unwrap().position, Position::START);
    assert_eq!(journal.writer.append(command("evt_1", 0, 3)).await.unwrap(), at(1, 3));
    assert_eq!(journal.writer.append(command("evt_1", 3, 2)).await.unwrap(), at(4, 5));
    let mut wide = command("Ä", 0, 1);
    wide.stream = stream("evt.2:x-y_z");
    wide.metadata.correlation_id = Some("größer – 語".into());
    wide.events = vec![event("{\"a\" :\t1e400, \"ü\":\"\\u0000\"}")];
    assert_eq!(journal.writer.append(wide).await.unwrap(), at(6, 6));

    let mut chain = ChainDigest::START;
    let leaves: Vec<Vec<u8>> = sqlx::query_scalar("SELECT leaf FROM journal.events ORDER BY position")
        .fetch_all(&journal.admin)
        .await
        .unwrap();
    let events = journal.reader.after(Position::START, 100, 1 << 20).await.unwrap();
    assert_eq!(events.len(), 6);
    for (event, leaf) in events.iter().zip(leaves) {
        let ours = digest::leaf(&Content::of(event));
        assert_eq!(ours.as_slice(), leaf);
        assert_eq!(event.previous_chain, chain);
        chain = digest::chain(chain, event.position, digest::micros(event.recorded_at), &ours);
        assert_eq!(event.chain, chain);
    }
    assert_eq!(journal.reader.head().await.unwrap().chain, chain);
    // The bytes are as they were sent: order, spaces, numbers that JSON libraries would change.
    assert_eq!(&*events[5].payload, "{\"a\" :\t1e400, \"ü\":\"\\u0000\"}");
    assert_eq!(events[5].sequence, 1);
}

#[tokio::test]
async fn a_stream_that_moved_on_is_a_conflict_with_its_actual_sequence() {
    let journal = Journal::start().await;
    appended(journal.writer.append(command("evt_1", 0, 2)).await.unwrap());
    for (expected, id, actual) in [(0, "evt_1", 2), (1, "evt_1", 2), (3, "evt_1", 2), (1, "evt_2", 0)] {
        let outcome = journal.writer.append(command(id, expected, 1)).await.unwrap();
        assert_eq!(outcome, Outcome::Conflict { stream: stream(id), actual });
    }
    assert_eq!(journal.reader.head().await.unwrap().position, Position::new(2));
}

#[tokio::test]
async fn a_guard_holds_back_a_decision_that_read_something_older() {
    let journal = Journal::start().await;
    let period = StreamId::new("period", "platform");
    let guarded = |id: &str, sequence| {
        let mut guarded = command(id, 0, 1);
        guarded.guards = vec![Guard { stream: period.clone(), sequence }];
        guarded
    };
    assert_eq!(journal.writer.append(guarded("evt_1", 0)).await.unwrap(), at(1, 1));
    let mut close = command("x", 0, 1);
    close.stream = period.clone();
    assert_eq!(journal.writer.append(close).await.unwrap(), at(2, 2));
    let late = journal.writer.append(guarded("evt_2", 0)).await.unwrap();
    assert_eq!(late, Outcome::Conflict { stream: period.clone(), actual: 1 });
    assert_eq!(journal.writer.append(guarded("evt_2", 1)).await.unwrap(), at(3, 3));
    let mut own = command("evt_3", 0, 1);
    own.guards = vec![Guard { stream: stream("evt_3"), sequence: 0 }];
    assert!(matches!(journal.writer.append(own).await, Err(AppendError::Malformed)));
}

#[tokio::test]
async fn a_key_answers_with_the_first_positions_or_tells_of_misuse() {
    let journal = Journal::start().await;
    let keyed = |id: &str, expected, request| {
        let mut keyed = command(id, expected, 2);
        keyed.key = Some(IdempotencyKey { key: [7; 32], request: [request; 32] });
        keyed
    };
    assert_eq!(journal.writer.append(keyed("evt_1", 0, 1)).await.unwrap(), at(1, 2));
    let duplicate = Outcome::Duplicate { first: Position::new(1), last: Position::new(2) };
    // A repetition need not name the same sequence: the stream has moved on because of the first.
    assert_eq!(journal.writer.append(keyed("evt_1", 0, 1)).await.unwrap(), duplicate);
    assert_eq!(journal.writer.append(keyed("evt_1", 2, 1)).await.unwrap(), duplicate);
    assert_eq!(journal.writer.append(keyed("evt_2", 0, 2)).await.unwrap(), Outcome::Misuse);
    assert_eq!(journal.reader.head().await.unwrap().position, Position::new(2));
}

#[tokio::test]
async fn a_key_of_a_command_that_was_not_appended_is_free() {
    let journal = Journal::start().await;
    appended(journal.writer.append(command("evt_1", 0, 1)).await.unwrap());
    let mut keyed = command("evt_1", 0, 1);
    keyed.key = Some(IdempotencyKey { key: [7; 32], request: [1; 32] });
    assert!(matches!(journal.writer.append(keyed.clone()).await.unwrap(), Outcome::Conflict { .. }));
    keyed.expected = 1;
    assert_eq!(journal.writer.append(keyed).await.unwrap(), at(2, 2));
}

#[tokio::test]
async fn old_keys_are_forgotten_in_small_batches_and_young_ones_are_not() {
    let journal = Journal::start().await;
    sqlx::raw_sql(
        "SET ROLE journal_writer; INSERT INTO journal.idempotency_keys \
         SELECT sha256(n::text::bytea), sha256('x'), 1, 1, now() - CASE WHEN n <= 5 THEN interval '8 days' ELSE interval '6 days' END \
         FROM generate_series(1, 8) AS n; RESET ROLE",
    )
    .execute(&journal.admin)
    .await
    .unwrap();
    let mut forgotten = Vec::new();
    for _ in 0..3 {
        let count: i64 = sqlx::query_scalar("SELECT journal.forget_idempotency_keys(3)")
            .fetch_one(journal.reader.pool())
            .await
            .unwrap();
        forgotten.push(count);
    }
    assert_eq!(forgotten, [3, 2, 0]);
    let left: i64 =
        sqlx::query_scalar("SELECT count(*) FROM journal.idempotency_keys").fetch_one(&journal.admin).await.unwrap();
    assert_eq!(left, 3);
}

#[tokio::test]
async fn a_vault_key_is_kept_only_with_its_event_and_can_be_destroyed() {
    let journal = Journal::start().await;
    let sealed = |key: u8| {
        let mut sealed = command("evt_1", 0, 1);
        sealed.vault_key = Some(vec![key; 60]);
        sealed
    };
    appended(journal.writer.append(sealed(1)).await.unwrap());
    assert!(matches!(journal.writer.append(sealed(2)).await.unwrap(), Outcome::Conflict { .. }));
    let open = || async {
        let rows: Vec<(String, String, Option<Vec<u8>>)> = sqlx::query_as("SELECT * FROM vault.open($1, $2)")
            .bind(["stripe_event", "stripe_event"])
            .bind(["evt_1", "evt_never"])
            .fetch_all(journal.reader.pool())
            .await
            .unwrap();
        rows
    };
    assert_eq!(open().await, [("stripe_event".into(), "evt_1".into(), Some(vec![1; 60]))]);
    for destroyed in [1_i64, 0] {
        let count: i64 = sqlx::query_scalar("SELECT vault.destroy($1, $2)")
            .bind(["stripe_event"])
            .bind(["evt_1"])
            .fetch_one(journal.reader.pool())
            .await
            .unwrap();
        assert_eq!(count, destroyed);
    }
    assert_eq!(open().await, [("stripe_event".into(), "evt_1".into(), None)]);
}

#[tokio::test]
async fn a_vault_that_is_ahead_of_a_restored_journal_is_in_nobody_s_way() {
    let journal = Journal::start().await;
    let sealed = |key: u8| {
        let mut sealed = command("evt_1", 0, 1);
        sealed.vault_key = Some(vec![key; 60]);
        sealed
    };
    appended(journal.writer.append(sealed(1)).await.unwrap());
    journal.tamper("DELETE FROM journal.events; DELETE FROM journal.batches").await;
    appended(journal.writer.append(sealed(2)).await.unwrap());
    let kept: Vec<u8> = sqlx::query_scalar("SELECT wrapped_key FROM vault.open($1, $2)")
        .bind(["stripe_event"])
        .bind(["evt_1"])
        .fetch_one(journal.reader.pool())
        .await
        .unwrap();
    assert_eq!(kept, [2; 60]);
    // A second key would make what was sealed under the first unreadable.
    let mut again = command("evt_1", 1, 1);
    again.vault_key = Some(vec![3; 60]);
    assert!(journal.writer.append(again).await.is_err());
}

fn entry(entry_id: &str, postings: &str) -> NewEvent {
    NewEvent {
        event_type: "EntryPosted".into(),
        event_version: "1".into(),
        payload: format!(r#"{{"entry_id":"{entry_id}","postings":[{postings}]}}"#),
    }
}

fn posting(side: &str, minor: &str, currency: &str) -> String {
    format!(r#"{{"account":"assets:bank","side":"{side}","minor":{minor},"currency":"{currency}"}}"#)
}

#[tokio::test]
async fn an_entry_that_does_not_balance_or_lacks_its_form_is_refused() {
    let journal = Journal::start().await;
    let post = |id: &str, events: Vec<NewEvent>| {
        let mut command = command(id, 0, 0);
        command.events = events;
        journal.writer.append(command)
    };
    let two = |left: String, right: String| format!("{left},{right}");
    let bad = [
        String::new(),
        posting("debit", "1", "usd"),
        two(posting("debit", "1", "usd"), posting("credit", "2", "usd")),
        two(posting("debit", "1", "usd"), posting("credit", "1", "eur")),
        two(posting("debit", "0", "usd"), posting("credit", "0", "usd")),
        two(posting("debit", "-1", "usd"), posting("credit", "-1", "usd")),
        two(posting("debit", "1.0", "usd"), posting("credit", "1.0", "usd")),
        two(posting("debit", "1e2", "usd"), posting("credit", "1e2", "usd")),
        two(posting("debit", "\"1\"", "usd"), posting("credit", "\"1\"", "usd")),
        two(posting("debit", "9007199254740992", "usd"), posting("credit", "9007199254740992", "usd")),
        two(posting("debit", "99999999999999999999", "usd"), posting("credit", "99999999999999999999", "usd")),
        two(posting("debit", "1", "USD"), posting("credit", "1", "USD")),
        two(posting("left", "1", "usd"), posting("credit", "1", "usd")),
        two("7".into(), posting("credit", "1", "usd")),
    ];
    for (n, postings) in bad.iter().enumerate() {
        let refused = post(&format!("bad_{n}"), vec![entry(&format!("e_{n}"), postings)]).await;
        assert!(matches!(refused, Err(AppendError::Entry(_))), "{postings}: {refused:?}");
    }
    let balanced =
        [posting("debit", "9007199254740991", "usd"), posting("credit", "9007199254740991", "usd")].join(",");
    for payload in [
        format!(r#"{{"postings":[{balanced}]}}"#),
        r#"{"entry_id":"x"}"#.into(),
        r#"{"entry_id":"x","postings":7}"#.into(),
        "7".into(),
    ] {
        let shapeless = NewEvent { event_type: "EntryPosted".into(), event_version: "1".into(), payload };
        assert!(matches!(post("shapeless", vec![shapeless]).await, Err(AppendError::Entry(_))));
    }
    // One bad entry among good ones takes its command along, and only that.
    let mixed = vec![entry("m_1", &balanced), entry("m_2", &posting("debit", "1", "usd"))];
    assert!(matches!(post("mixed", mixed).await, Err(AppendError::Entry(_))));
    assert_eq!(
        appended(post("good", vec![event("{}"), entry("g_1", &balanced), entry("g_2", &balanced)]).await.unwrap()),
        (1, 3)
    );
    assert!(matches!(post("again", vec![entry("g_1", &balanced)]).await, Err(AppendError::EntryIdExists(_))));
    assert!(matches!(
        post("twice", vec![entry("t_1", &balanced), entry("t_1", &balanced)]).await,
        Err(AppendError::EntryIdExists(_))
    ));
    assert_eq!(journal.reader.head().await.unwrap().position, Position::new(3));
}

/// Calls the function by hand with one command of one event; `change` replaces one argument.
async fn by_hand(connection: &mut sqlx::PgConnection, clock: &str, batch: &str) -> Result<(), sqlx::Error> {
    let statement = format!("SELECT count(*) FROM journal.append({clock}, {batch})");
    sqlx::raw_sql(&statement).execute(connection).await.map(|_| ())
}

const ONE: &str = "'{stripe_event}', '{evt_1}', '{0}', '{1}', '{00000000-0000-7000-8000-000000000001}', '{A}', '{1}', '{\"{}\"}', '{\"{}\"}', \
     '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}'";

#[tokio::test]
async fn a_wild_clock_is_refused_either_way() {
    let journal = Journal::start().await;
    let mut connection = journal.reader.pool().acquire().await.unwrap();
    for clock in
        ["clock_timestamp() + interval '61 seconds'", "clock_timestamp() - interval '61 seconds'", "NULL", "'infinity'"]
    {
        assert_eq!(code(by_hand(&mut connection, clock, ONE).await), "FL002", "{clock}");
    }
    by_hand(&mut connection, "clock_timestamp() + interval '59 seconds'", ONE).await.unwrap();
}

#[tokio::test]
async fn recorded_at_never_goes_backwards() {
    let journal = Journal::start().await;
    journal.fill(1).await;
    // As if the database's clock had been an hour ahead when the first batch was appended.
    journal.tamper("UPDATE journal.batches SET recorded_at = recorded_at + interval '1 hour'").await;
    appended(journal.writer.append(command("evt_later", 0, 1)).await.unwrap());
    let ahead: bool =
        sqlx::query_scalar("SELECT recorded_at > now() + interval '50 minutes' FROM journal.events WHERE position = 2")
            .fetch_one(&journal.admin)
            .await
            .unwrap();
    assert!(ahead);
}

#[tokio::test]
async fn only_read_committed_will_do() {
    let journal = Journal::start().await;
    let mut connection = journal.reader.pool().acquire().await.unwrap();
    for level in ["REPEATABLE READ", "SERIALIZABLE"] {
        sqlx::raw_sql(&format!("BEGIN ISOLATION LEVEL {level}")).execute(&mut *connection).await.unwrap();
        assert_eq!(code(by_hand(&mut connection, "clock_timestamp()", ONE).await), "FL001");
        sqlx::raw_sql("ROLLBACK").execute(&mut *connection).await.unwrap();
    }
}

#[tokio::test]
async fn a_malformed_call_is_refused_whole() {
    let journal = Journal::start().await;
    let mut connection = journal.reader.pool().acquire().await.unwrap();
    let none = "'{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}'";
    let ids = "'{00000000-0000-7000-8000-000000000001,00000000-0000-7000-8000-000000000002}'";
    let events = format!("{ids}, '{{A,A}}', '{{1,1}}', '{{\"{{}}\",\"{{}}\"}}', '{{\"{{}}\",\"{{}}\"}}'");
    let two = |streams: &str, counts: &str, rest: &str| {
        format!("'{{stripe_event,stripe_event}}', '{streams}', '{{0,0}}', '{counts}', {events}, {rest}")
    };
    for (what, batch) in [
        ("one stream twice", two("{a,a}", "{1,1}", none)),
        ("more events than are counted", two("{a,b}", "{1,2}", none)),
        ("a command without events", two("{a,b}", "{0,2}", none)),
        ("a command with a negative count", two("{a,b}", "{-1,3}", none)),
        ("a command without a count", two("{a,b}", "{2,NULL}", none)),
        (
            "a guard on what is written",
            two("{a,b}", "{1,1}", "'{}', '{}', '{}', '{1}', '{stripe_event}', '{b}', '{0}', '{}', '{}'"),
        ),
        (
            "a key twice",
            two("{a,b}", "{1,1}", r"'{1,2}', '{\\x00,\\x00}', '{\\x00,\\x00}', '{}', '{}', '{}', '{}', '{}', '{}'"),
        ),
        (
            "a guard of nobody",
            two("{a,b}", "{1,1}", "'{}', '{}', '{}', '{3}', '{stripe_event}', '{c}', '{0}', '{}', '{}'"),
        ),
        ("nothing at all", format!("'{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', '{{}}', {none}")),
        ("arrays of different length", two("{a}", "{1,1}", none)),
        ("an array that begins at 0", ONE.replacen("'{stripe_event}'", "'[0:0]={stripe_event}'", 1)),
        ("an array of arrays", ONE.replacen("'{evt_1}'", "'{{evt_1}}'", 1)),
        ("null", ONE.replacen("'{0}'", "NULL", 1)),
    ] {
        assert_eq!(code(by_hand(&mut connection, "clock_timestamp()", &batch).await), "FL003", "{what}: {batch}");
    }
    by_hand(&mut connection, "clock_timestamp()", &two("{a,b}", "{1,1}", none)).await.unwrap();
}

#[tokio::test]
async fn names_and_payloads_of_another_form_are_refused() {
    let journal = Journal::start().await;
    let base = command("evt_1", 0, 1);
    for id in ["", "a b", "a/b", "ä", "a\n", &"x".repeat(201)] {
        let mut bad = base.clone();
        bad.stream.aggregate_id = id.into();
        assert!(matches!(journal.writer.append(bad).await, Err(AppendError::Form(_))), "{id:?}");
    }
    for event_type in ["", "a", "A b", "A_b", "Ä", "A\n", &"A".repeat(65)] {
        let mut bad = base.clone();
        bad.events[0].event_type = event_type.into();
        assert!(matches!(journal.writer.append(bad).await, Err(AppendError::Form(_))), "{event_type:?}");
    }
    for payload in ["", "{", "{}x", "nul", "\u{0}"] {
        let mut bad = base.clone();
        bad.events[0].payload = payload.into();
        assert!(matches!(journal.writer.append(bad).await, Err(AppendError::Form(_))), "{payload:?}");
    }
    for aggregate_type in ["nobody_registered_this", "Stripe_event", ""] {
        let mut bad = base.clone();
        bad.stream.aggregate_type = aggregate_type.into();
        assert!(matches!(journal.writer.append(bad).await, Err(AppendError::StreamType { .. })), "{aggregate_type:?}");
    }
    // Registered, but not for the role that asks.
    let operator = Writer::start(WriterOptions::new(journal.database.url_for("fanledger_operator"))).await.unwrap();
    assert!(matches!(operator.append(base.clone()).await, Err(AppendError::StreamType { .. })));
    operator.shutdown().await;
    assert_eq!(journal.writer.append(base).await.unwrap(), at(1, 1));
}

/// The right is per stream type: without this, whoever may skip could book.
#[tokio::test]
async fn an_operator_appends_skips_and_no_event_of_another_kind() {
    let journal = Journal::start().await;
    let pool = journal.pool(Role::Operator).await;
    let mut connection = pool.acquire().await.unwrap();
    let of_type = |event_type: &str| {
        ONE.replacen("stripe_event", "projection_skip", 1).replace("'{A}'", &format!("'{{{event_type}}}'"))
    };
    for other in ["EntryPosted", "PeriodClosed", "A"] {
        let refused = code(by_hand(&mut connection, "clock_timestamp()", &of_type(other)).await);
        assert!(["23514", "FL006"].contains(&refused.as_str()), "{other}: {refused}");
    }
    by_hand(&mut connection, "clock_timestamp()", &of_type("ProjectionEventSkipped")).await.unwrap();
}

#[tokio::test]
async fn the_longest_names_are_taken() {
    let journal = Journal::start().await;
    let mut long = command(&"x".repeat(200), 0, 1);
    long.events[0].event_type = "A".repeat(64);
    assert_eq!(journal.writer.append(long).await.unwrap(), at(1, 1));
}

#[tokio::test]
async fn a_superuser_may_append_what_is_registered_and_nothing_else() {
    let journal = Journal::start().await;
    let mut connection = journal.admin.acquire().await.unwrap();
    let of_type = |aggregate_type: &str| ONE.replacen("stripe_event", aggregate_type, 1);
    let skip = of_type("projection_skip").replace("'{A}'", "'{ProjectionEventSkipped}'");
    by_hand(&mut connection, "clock_timestamp()", &skip).await.unwrap();
    by_hand(&mut connection, "clock_timestamp()", &of_type("stripe_charge")).await.unwrap();
    assert_eq!(code(by_hand(&mut connection, "clock_timestamp()", &of_type("unheard_of")).await), "FL005");
}

/// The plans of a query of `journal.append` in an empty journal and in a large one, under the function's own settings. The query's
/// arguments are `text[], text[], bigint[]`; `call` gives them.
async fn plans(journal: &Journal, query: &str, call: &str) -> [String; 2] {
    let settings: Vec<String> =
        sqlx::query_scalar("SELECT unnest(proconfig) FROM pg_proc WHERE oid = 'journal.append'::regproc")
            .fetch_all(&journal.admin)
            .await
            .unwrap();
    let mut connection = journal.admin.acquire().await.unwrap();
    for setting in settings.iter().filter(|setting| !setting.starts_with("search_path")) {
        let (name, value) = setting.split_once('=').unwrap();
        sqlx::raw_sql(&format!("SET {name} = '{value}'")).execute(&mut *connection).await.unwrap();
    }
    sqlx::raw_sql(&format!("PREPARE probe (text[], text[], bigint[]) AS {query}"))
        .execute(&mut *connection)
        .await
        .unwrap();
    let explain = format!("EXPLAIN (COSTS OFF) EXECUTE probe ({call})");
    let mut plans = Vec::new();
    for large in [false, true] {
        if large {
            sqlx::raw_sql(
                "SET ROLE journal_writer; INSERT INTO journal.events SELECT n, 'stripe_event', 'evt_' || n, 1, 'A', '1', '{}', '{}', \
                 gen_random_uuid(), now(), sha256('x'), sha256('x') FROM generate_series(1, 50000) AS n; \
                 INSERT INTO journal.batches SELECT n, n, now(), sha256('x') FROM generate_series(1, 50000) AS n; RESET ROLE; \
                 ANALYZE journal.events, journal.batches",
            )
            .execute(&mut *connection)
            .await
            .unwrap();
        }
        let plan: Vec<String> =
            sqlx::raw_sql(&explain).fetch_all(&mut *connection).await.unwrap().iter().map(|row| row.get(0)).collect();
        plans.push(plan.join("\n"));
    }
    plans.try_into().unwrap()
}

/// The text of `journal.append`.
async fn append_body(journal: &Journal) -> String {
    sqlx::query_scalar("SELECT prosrc FROM pg_proc WHERE oid = 'journal.append'::regproc")
        .fetch_one(&journal.admin)
        .await
        .unwrap()
}

/// With ORDER BY … LIMIT 1, the index is read backwards: one descent, at most one row. Nothing else reads a table.
fn goes_down_the_index(plans: &[String; 2], scans: &[&str]) {
    for plan in plans {
        // Which of them Postgres prints first is its affair.
        assert_eq!(plan.matches(" Scan ").count(), scans.len(), "{plan}");
        for scan in scans {
            assert!(plan.contains(scan), "{scan}:\n{plan}");
        }
        assert!(!plan.contains("Sort"), "{plan}");
    }
    assert_eq!(plans[0], plans[1], "the plan must not depend on when it was made");
}

#[tokio::test]
async fn the_probe_goes_down_the_index_whether_the_journal_is_empty_or_large() {
    let journal = Journal::start().await;
    let body = append_body(&journal).await;
    let probe = body.split("-- Every probe").nth(1).unwrap().split_once('\n').unwrap().1.split(';').next().unwrap();
    let probe =
        probe.replace("INTO actual", "").replace("p_stream_types", "$1::text[]").replace("p_stream_ids", "$2::text[]");
    let plans = plans(&journal, &probe, "'{stripe_event}', '{evt_1}', '{0}'").await;
    goes_down_the_index(&plans, &["Index Only Scan Backward using events_stream_sequence"]);
}

/// A lone command with one event, as each webhook is: it has a probe of its own, in the query that reads the head.
#[tokio::test]
async fn the_probe_of_a_lone_command_goes_down_the_index_whether_the_journal_is_empty_or_large() {
    let journal = Journal::start().await;
    let body = append_body(&journal).await;
    let lone = body.split("IF FOUND THEN").nth(1).unwrap();
    let mut queries = lone.split(';').map(str::trim);
    let head = queries.next().unwrap();
    assert!(head.starts_with("SELECT b.last_position + 1") && head.contains("p_expected[1]"), "{head}");
    let head = head
        .replace("INTO head, at, running", "")
        .replace("p_stream_types", "$1::text[]")
        .replace("p_stream_ids", "$2::text[]")
        .replace("p_expected", "$3::bigint[]");
    // `x::text[][1]` would be a type; a subscript wants parentheses.
    let head = ["$1::text[]", "$2::text[]", "$3::bigint[]"]
        .iter()
        .fold(head, |head, argument| head.replace(argument, &format!("({argument})")));
    let found = plans(&journal, &head, "'{stripe_event}', '{evt_1}', '{0}'").await;
    goes_down_the_index(
        &found,
        &["Index Scan Backward using batches_pkey", "Index Only Scan Backward using events_stream_sequence"],
    );
}

/// The guards of a lone command: of a posting that writes one event, say.
#[tokio::test]
async fn the_probe_of_a_lone_commands_guards_goes_down_the_index_whether_the_journal_is_empty_or_large() {
    let journal = Journal::start().await;
    let body = append_body(&journal).await;
    let lone = body.split("IF FOUND THEN").nth(1).unwrap();
    let guards = lone.split(';').nth(1).unwrap().split_once("PERFORM").unwrap().1;
    assert!(guards.contains("p_guard_sequences"), "{guards}");
    let guards = guards
        .replace("p_guard_types", "$1::text[]")
        .replace("p_guard_ids", "$2::text[]")
        .replace("p_guard_sequences", "$3::bigint[]");
    let found = plans(&journal, &format!("SELECT {guards}"), "'{stripe_event}', '{evt_1}', '{0}'").await;
    goes_down_the_index(&found, &["Function Scan", "Index Only Scan Backward using events_stream_sequence"]);
}

/// R5: many writers, each with connections of its own, on few streams; every reported success is there, and once.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_writers_on_few_streams_lose_nothing_and_report_nothing_twice() {
    let attempts_per_task = if std::env::var_os("FANLEDGER_FULL_COUNTS").is_some() { 20_000_u64 } else { 100 };
    let (writers, tasks_per_writer, streams) = (6, 9, 3_u64);
    let journal = Journal::start().await;
    let mut tasks = tokio::task::JoinSet::new();
    for w in 0..writers {
        let writer = journal.writer().await;
        for t in 0..tasks_per_writer {
            let (writer, reader) = (writer.clone(), journal.reader.clone());
            tasks.spawn(async move {
                let mut seen = vec![0_u64; streams as usize];
                let mut reported = Vec::new();
                for n in 0..attempts_per_task {
                    let s = (n + t) % streams;
                    let mut command = command(&format!("evt_{s}"), seen[s as usize], 1 + (n % 2) as usize);
                    if n % 3 == 0 {
                        let guard = (s + 1) % streams;
                        command
                            .guards
                            .push(Guard { stream: stream(&format!("evt_{guard}")), sequence: seen[guard as usize] });
                    }
                    if n % 5 == 0 {
                        let mut key = [0; 32];
                        key[..8].copy_from_slice(&(n / 10 * 10).to_be_bytes());
                        key[8] = w;
                        key[9] = u8::try_from(t).unwrap();
                        command.key = Some(IdempotencyKey { key, request: [1; 32] });
                    }
                    let events = command.events.len() as u64;
                    match writer.append(command).await.unwrap() {
                        Outcome::Appended { first, last } => {
                            assert_eq!(last.get() - first.get() + 1, events);
                            seen[s as usize] += events;
                            reported.push((first.get(), last.get(), s));
                        }
                        Outcome::Conflict { stream, actual } => {
                            let of: usize = stream.aggregate_id["evt_".len()..].parse().unwrap();
                            assert!(actual >= seen[of], "a stream never goes back");
                            seen[of] = actual;
                        }
                        Outcome::Duplicate { first, last } => {
                            assert!(reported.iter().any(|r| (r.0, r.1) == (first.get(), last.get())))
                        }
                        Outcome::Misuse => panic!("no key was misused"),
                    }
                }
                drop(reader);
                reported
            });
        }
    }
    let mut positions = BTreeSet::new();
    let mut by_stream = vec![0_u64; streams as usize];
    while let Some(reported) = tasks.join_next().await {
        for (first, last, s) in reported.unwrap() {
            by_stream[s as usize] += last - first + 1;
            for position in first..=last {
                assert!(positions.insert(position), "{position} was reported twice");
            }
        }
    }
    let head = journal.reader.head().await.unwrap().position.get();
    assert_eq!(positions.len() as u64, head, "reported and there, there and reported");
    assert_eq!(positions.last().copied().unwrap_or(0), head, "dense from 1");
    for (s, events) in by_stream.iter().enumerate() {
        assert_eq!(journal.reader.last_sequence(&stream(&format!("evt_{s}"))).await.unwrap(), *events);
    }
    assert!(head > 0);
    let report = fanledger_journal::verify::verify(
        &mut journal.admin.acquire().await.unwrap(),
        Default::default(),
        None,
        &mut |_| {},
    )
    .await
    .unwrap();
    assert_eq!((report.first_divergence, report.events), (None, head));
    let attempts = u64::from(writers) * tasks_per_writer * attempts_per_task;
    println!(
        "R5: {attempts} attempts on {streams} streams by {writers} writers: {head} events, each reported once and there"
    );
}

#[tokio::test]
async fn postgres_es_loads_the_streams() {
    use sqlx::types::Json;
    let journal = Journal::start().await;
    appended(journal.writer.append(command("evt_1", 0, 2)).await.unwrap());
    // The statement and the types of postgres-es 0.5.0's repository.
    type Row = (String, String, i64, String, String, Json<serde_json::Value>, Json<serde_json::Value>);
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT aggregate_type, aggregate_id, sequence, event_type, event_version, payload, metadata \
         FROM journal.events WHERE aggregate_type = $1 AND aggregate_id = $2 ORDER BY sequence",
    )
    .bind("stripe_event")
    .bind("evt_1")
    .fetch_all(journal.reader.pool())
    .await
    .unwrap();
    assert_eq!(rows.iter().map(|row| row.2).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(rows[1].5.0["n"], 1);
}
