//! A journal that strangers can check: checkpoints, proofs and exports through the built program, over books with all that
//! happens at Stripe, beside the second verifier; and what becomes of every kind of fault.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod e2e;

use std::path::{Path, PathBuf};

use e2e::load::{Gateways, Load};
use e2e::{Finished, Process, Site, finish, gateway_url};
use fanledger_devkit::history;
use serde_json::{Value, json};
use sqlx::PgPool;

/// A journal with real books, and nobody who writes to it any more.
async fn site() -> Site {
    let site = Site::start().await;
    let made = history::random(11, 40);
    site.stand_in.put_all(made.balance_transactions.clone());
    let mut roles: Vec<Process> = ["gateway", "relay", "projector", "manager"].map(|role| site.role(role)).into();
    let url = gateway_url(&mut roles[0]).await;
    let acknowledged = Load::start(&made.events, Gateways::new(vec![url].into())).finish().await;
    site.read(acknowledged.positions.values().max().copied().unwrap()).await;
    for role in roles {
        assert!(role.terminate().await.success());
    }
    site
}

fn file(site: &Site, name: &str) -> PathBuf {
    site.directory().join(name)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The second verifier's answer, which must come with this exit code.
async fn python(arguments: &[&str], code: i32) -> Value {
    let mut command = tokio::process::Command::new("python3");
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/verify.py")).args(arguments);
    finish(command).await.json(code)
}

fn refused(finished: &Finished, code: i32, why: &str) {
    let said = format!("{}{}", finished.stdout, finished.stderr);
    assert_eq!(finished.code, code, "{said}");
    assert!(said.contains(why), "{why}: {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_signed_can_be_checked_without_the_journal_and_what_was_forged_is_found() {
    let site = site().await;
    let verified = site.run("journal verify").await.json(0);
    let head = verified["head"].as_u64().unwrap();
    assert!(head > 100, "{verified}");
    let key = site.run("journal checkpoint --public-key").await.json(0);
    let (key, origin) = (key["public_key"].as_str().unwrap(), key["origin"].as_str().unwrap());

    let signed = file(&site, "a.checkpoint");
    let answer = site.run(&format!("journal checkpoint --out {}", text(&signed))).await.json(0);
    assert_eq!((&answer["size"], &answer["root"]), (&verified["head"], &verified["root"]));
    let opened = python(&["checkpoint", text(&signed), "--public-key", key], 0).await;
    assert_eq!(opened["root"], verified["root"]);
    site.run(&format!("journal verify --against {}", text(&signed))).await.json(0);
    // A checkpoint that the journal extends is replaced; the same state signs to the same text.
    let before = std::fs::read_to_string(&signed).unwrap();
    site.run(&format!("journal checkpoint --out {}", text(&signed))).await.json(0);
    assert_eq!(std::fs::read_to_string(&signed).unwrap(), before);

    let exported = file(&site, "journal.jsonl");
    let answer = site.run(&format!("journal export --out {}", text(&exported))).await.json(0);
    assert_eq!(answer["events"], verified["head"]);
    let agreed = python(&["journal", text(&exported), "--against", text(&signed), "--public-key", key], 0).await;
    assert_eq!((&agreed["events"], &agreed["root"]), (&verified["events"], &verified["root"]));

    let proof = file(&site, "7.tlog-proof");
    let made = format!("journal prove 7 --checkpoint {} --out {}", text(&signed), text(&proof));
    site.run(&made).await.json(0);
    let checked = site.run(&format!("journal check-proof {} --origin {origin}", text(&proof))).await.json(0);
    assert_eq!((&checked["event"]["position"], &checked["key_is_trusted"]), (&json!(7), &json!(true)));
    assert_eq!(python(&["proof", text(&proof), "--public-key", key], 0).await["event"], checked["event"]);
    // Signed now, to standard output.
    let bare = finish(site.command(["journal", "prove", "7"])).await;
    assert_eq!((bare.code, bare.stdout), (0, std::fs::read_to_string(&proof).unwrap()));

    bad_input(&site, &signed, &proof).await;
    forged(&site, &signed, key).await;
    site.servers.stop().await.unwrap();
}

/// Another key, another journal, no such file, no such position, no key at all: each a clear word and its exit code.
async fn bad_input(site: &Site, signed: &Path, proof: &Path) {
    let other = "11".repeat(32);
    let zeros = format!("fanledger/journal/{}", uuid::Uuid::nil());
    let other_key =
        fanledger_journal::merkle::checkpoint::CheckpointSigner::new(uuid::Uuid::nil(), &[1; 32]).verifier();
    let (signed, proof) = (text(signed), text(proof));
    for (line, code, why) in [
        (format!("journal verify --against {signed} --public-key {other_key}"), 1, "another journal"),
        (format!("journal check-proof {proof} --public-key {other_key}"), 1, "another journal"),
        (format!("journal check-proof {proof} --origin {zeros}"), 1, "another journal"),
        (format!("journal check-proof {signed}"), 1, "not a proof"),
        (format!("journal verify --against {proof}"), 1, "not a checkpoint"),
        (format!("journal verify --against {signed} --from 3"), 2, "cannot be used with"),
        (format!("journal verify --against {signed} --public-key nonsense"), 2, "expected a public key"),
        ("journal verify --against /nowhere/a.checkpoint".to_owned(), 2, "/nowhere/a.checkpoint"),
        ("journal check-proof /nowhere/7.tlog-proof".to_owned(), 2, "/nowhere/7.tlog-proof"),
        ("journal prove 99999999".to_owned(), 2, "there is no position 99999999"),
        ("journal checkpoint --out /nowhere/a.checkpoint".to_owned(), 3, "/nowhere/a.checkpoint"),
    ] {
        refused(&site.run(&line).await, code, why);
    }
    // The same tools elsewhere, where another key is set, or none.
    for (line, key, code, why) in [
        (format!("journal verify --against {signed}"), Some(&other), 1, "signed by another key"),
        (format!("journal check-proof {proof}"), Some(&other), 1, "signed by another key"),
        (format!("journal check-proof {proof}"), None, 0, "This key came with the proof"),
        (format!("journal verify --against {signed}"), None, 2, "--public-key"),
        ("journal checkpoint".to_owned(), None, 3, "FANLEDGER_CHECKPOINT_KEY"),
    ] {
        let mut command = site.command(line.split_whitespace());
        match key {
            Some(key) => command.env("FANLEDGER_CHECKPOINT_KEY", key),
            None => command.env("FANLEDGER_ENV", "production").env("FANLEDGER_STRIPE_LIVEMODE", "false"),
        };
        refused(&finish(command).await, code, why);
    }
}

async fn tampered(superuser: &PgPool, statements: &str) {
    let guards = |word: &str| {
        ["events", "batches", "entry_ids"]
            .map(|table| format!("ALTER TABLE journal.{table} {word} TRIGGER guard;"))
            .concat()
    };
    let sql = format!("{} {statements}; {}", guards("DISABLE"), guards("ENABLE ALWAYS"));
    sqlx::raw_sql(&sql).execute(superuser).await.unwrap();
}

/// Both verifiers find each kind of fault at one place; and what both take for a sound journal a checkpoint does not.
async fn forged(site: &Site, signed: &Path, key: &str) {
    let superuser = site.superuser().await;
    sqlx::raw_sql(include_str!("../../journal/tests/support/forge.sql")).execute(&superuser).await.unwrap();
    let copies: String = ["events", "batches", "entry_ids"]
        .map(|table| format!("CREATE TABLE public.{table} AS TABLE journal.{table};"))
        .concat();
    sqlx::raw_sql(&copies).execute(&superuser).await.unwrap();
    let restore: String = ["events", "batches", "entry_ids"]
        .map(|table| format!("DELETE FROM journal.{table}; INSERT INTO journal.{table} TABLE public.{table};"))
        .concat();
    let position = |sql: &'static str| {
        let superuser = superuser.clone();
        async move { sqlx::query_scalar::<_, i64>(sql).fetch_one(&superuser).await.unwrap() }
    };
    let head = position("SELECT max(position) FROM journal.events").await;
    let entry = position("SELECT min(position) FROM journal.entry_ids WHERE position > 50").await;
    let cash = position("SELECT min(position) FROM journal.events WHERE event_type = 'BalanceTransactionObserved' AND (payload -> 'transaction' ->> 'net')::bigint > 0").await;
    let second = position("SELECT max(position) FROM journal.events WHERE sequence = 2").await;
    let exported = file(site, "forged.jsonl");
    for (statements, at, kind) in [
        ("DELETE FROM journal.events WHERE position = 20".to_owned(), 20, "gap"),
        (
            "UPDATE journal.events SET payload = (payload::text || ' ')::json WHERE position = 21".to_owned(),
            21,
            "content",
        ),
        (
            format!(
                "UPDATE journal.events SET sequence = 9 WHERE position = {second}; SELECT public.forge({second}, true)"
            ),
            second,
            "order",
        ),
        (
            "UPDATE journal.events SET recorded_at = recorded_at + interval '1 us' WHERE position = 22".to_owned(),
            22,
            "chain",
        ),
        (format!("DELETE FROM journal.events WHERE position > {head} - 3"), head - 2, "head"),
        (
            format!(
                "UPDATE journal.events SET payload = regexp_replace(payload::text, '\"minor\":', '\"minor\":1')::json WHERE position = {entry}; SELECT public.forge({entry}, true)"
            ),
            entry,
            "balance",
        ),
        (format!("DELETE FROM journal.entry_ids WHERE position = {entry}"), entry, "balance"),
        // The entries balance, and clearing is not what Stripe says any more: that shows in the end.
        (
            format!(
                "UPDATE journal.events SET payload = regexp_replace(payload::text, '\"net\":', '\"net\":1')::json WHERE position = {cash}; SELECT public.forge({cash}, true)"
            ),
            head,
            "balance",
        ),
    ] {
        tampered(&superuser, &statements).await;
        let found = site.run("journal verify").await.json(1);
        assert_eq!(
            (&found["first_divergence"]["position"], &found["first_divergence"]["kind"]),
            (&json!(at), &json!(kind)),
            "{statements}: {found}"
        );
        site.run(&format!("journal export --out {}", text(&exported))).await.json(0);
        let other = python(&["journal", text(&exported)], 1).await;
        assert_eq!(
            (&other["first_divergence"]["position"], &other["first_divergence"]["kind"]),
            (&json!(at), &json!(kind)),
            "{statements}: {other}"
        );
        tampered(&superuser, &restore).await;
    }
    site.run("journal verify").await.json(0);

    // A store has the true state before the forger comes.
    let store = file(site, "store");
    let checkpoint = |out: Option<&Path>| {
        let mut command = site.command(["journal", "checkpoint", "--json"]);
        match out {
            Some(out) => command.arg("--out").arg(out),
            None => command.env("FANLEDGER_OBJECT_STORE_URL", format!("file://{}", text(&store))),
        };
        command
    };
    let kept = finish(checkpoint(None)).await.json(0)["kept_at"].as_str().unwrap().to_owned();
    finish(checkpoint(None)).await.json(0);
    site.run(&format!("journal verify --against {kept}")).await.json(0);
    let forgery = "UPDATE journal.events SET metadata = '{}' WHERE position = 30; SELECT public.forge(30, true)";
    tampered(&superuser, forgery).await;
    site.run("journal verify").await.json(0);
    for against in [text(signed), &kept] {
        let found = site.run(&format!("journal verify --against {against}")).await.json(1);
        assert_eq!(
            found["first_divergence"],
            json!({"position": head, "kind": "chain", "detail": found["first_divergence"]["detail"]})
        );
    }
    site.run(&format!("journal export --out {}", text(&exported))).await.json(0);
    assert_eq!(python(&["journal", text(&exported)], 0).await["events"], json!(head));
    let other = python(&["journal", text(&exported), "--against", text(signed), "--public-key", key], 1).await;
    assert_eq!(
        (&other["first_divergence"]["position"], &other["first_divergence"]["kind"]),
        (&json!(head), &json!("chain"))
    );
    // Nothing is signed over it, and nothing is overwritten.
    let before = std::fs::read_to_string(signed).unwrap();
    finish(checkpoint(Some(signed))).await.json(1);
    finish(checkpoint(None)).await.json(1);
    assert_eq!(std::fs::read_to_string(signed).unwrap(), before);
    refused(
        &site.run(&format!("journal prove 7 --checkpoint {}", text(signed))).await,
        1,
        "not what the checkpoint signed",
    );
    superuser.close().await;
}
