//! The client of Stripe's API against a server that speaks HTTP: what is tried again, what is not, and what stays awaited.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use fanledger_commands::operations;
use fanledger_commands::stripe::api::{API_VERSION, HttpStripeApi, PATIENCE, StripeApi as _, StripeApiError};
use fanledger_devkit::history;
use fanledger_devkit::stripe::StandIn;
use fanledger_domain::id::StripeId;
use fanledger_domain::time::Timestamp;
use serde_json::Value;
use support::Pipeline;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

const KEY: &str = "sk_test_client";

fn transactions() -> Vec<Value> {
    history::random(5, 250).balance_transactions
}

fn id_of(transaction: &Value) -> StripeId {
    transaction["id"].as_str().unwrap().parse().unwrap()
}

async fn stand_in(transactions: &[Value]) -> (StandIn, HttpStripeApi) {
    let stand_in = StandIn::start(KEY).await.unwrap();
    stand_in.put_all(transactions.iter().cloned());
    // A slash at the end is a person's habit.
    let api = HttpStripeApi::new(&format!("{}/", stand_in.base_url()), KEY.to_owned()).unwrap();
    (stand_in, api)
}

#[tokio::test]
async fn what_may_pass_is_tried_again_and_what_will_not_is_not() {
    let known = &transactions()[..1];
    let id = id_of(&known[0]);
    let (stand_in, api) = stand_in(known).await;
    for status in [500, 503, 429] {
        let before = stand_in.calls().len();
        stand_in.fail_next(2, status);
        assert_eq!(api.balance_transaction(&id).await.unwrap().unwrap().id, id, "after {status}");
        assert_eq!(stand_in.calls().len() - before, 3, "calls with {status}");
    }
    assert!(stand_in.calls().iter().all(|call| call.stripe_version.as_deref() == Some(API_VERSION)));

    for status in [400, 401, 403, 302] {
        let before = stand_in.calls().len();
        stand_in.fail_next(1, status);
        let refused = api.balance_transaction(&id).await.unwrap_err();
        // Whether it is the key that is refused, which no request gets past, or this request.
        let said = match &refused {
            StripeApiError::Refused(said) => (true, said.as_u16()),
            StripeApiError::BadRequest(said) => (false, said.as_u16()),
            other => panic!("{other}"),
        };
        assert_eq!(said, (matches!(status, 401 | 403), status), "{refused}");
        assert_eq!(stand_in.calls().len() - before, 1, "calls with {status}");
    }

    let before = stand_in.calls().len();
    assert_eq!(api.balance_transaction(&"txn_unknown".parse().unwrap()).await.unwrap(), None);
    assert_eq!(stand_in.calls().len() - before, 1);
}

#[tokio::test]
async fn trying_again_has_an_end() {
    let (stand_in, api) = stand_in(&[]).await;
    stand_in.fail_next(100, 500);
    let refused = api.balance_transaction(&"txn_1".parse().unwrap()).await.unwrap_err();
    assert!(matches!(refused, StripeApiError::Unavailable(_)), "{refused}");
    assert_eq!(stand_in.calls().len(), 5);
}

/// Takes connections and answers each request with this text, or never.
async fn server(answer: Option<&'static str>) -> HttpStripeApi {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let api = HttpStripeApi::new(&format!("http://{}", listener.local_addr().unwrap()), KEY.to_owned()).unwrap();
    tokio::spawn(async move {
        let mut open = Vec::new();
        loop {
            let (mut connection, _) = listener.accept().await.unwrap();
            let Some(body) = answer else {
                open.push(connection);
                continue;
            };
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(connection.read_u8().await.unwrap());
            }
            let length = body.len();
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
            connection.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        }
    });
    api
}

/// A transaction that waits for an answer may idle for 30 s. So all tries of one request have one deadline.
#[tokio::test]
async fn who_does_not_answer_is_not_waited_for_longer_than_all_tries_may_take() {
    assert!(PATIENCE <= Duration::from_secs(20));
    let api = server(None).await.with_patience(Duration::from_millis(300));
    let asked = Instant::now();
    let lost = api.balance_transaction(&"txn_1".parse().unwrap()).await.unwrap_err();
    assert!(matches!(lost, StripeApiError::Transport(_)), "{lost}");
    // One try alone would take ten seconds; the rest is for a machine that has other things to do.
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
}

/// What follows a list that cannot be followed would be missing, and whoever listed it be told that this was all.
#[tokio::test]
async fn a_list_that_does_not_say_how_it_goes_on_is_an_error_and_no_end() {
    for answer in [
        r#"{"object": "list", "has_more": true, "data": []}"#,
        r#"{"object": "list", "has_more": true, "data": [{"object": "balance_transaction"}]}"#,
        r#"{"object": "list", "data": []}"#,
        r#"{"has_more": false}"#,
        r#"[]"#,
    ] {
        let api = server(Some(answer)).await;
        let unreadable = api.balance_transactions(None, None).await.unwrap_err();
        assert!(matches!(unreadable, StripeApiError::UnreadableList(_)), "{answer}: {unreadable}");
        assert!(!unreadable.to_string().contains("KEY"), "the key is not at fault: {unreadable}");
    }
    for answer in [r#"{"has_more": false}"#, "{}"] {
        let unreadable = server(Some(answer)).await.transfers_of_group("a group").await.unwrap_err();
        assert!(matches!(unreadable, StripeApiError::UnreadableList(_)), "{answer}: {unreadable}");
    }
}

#[tokio::test]
async fn a_list_is_followed_by_pages_since_an_instant() {
    let known = transactions();
    assert!(known.len() > 200, "more than two pages: {}", known.len());
    let (_stand_in, api) = stand_in(&known).await;
    let created = |transaction: &Value| transaction["created"].as_i64().unwrap();
    let mut times: Vec<i64> = known.iter().map(created).collect();
    times.sort_unstable();
    for since in [None, Some(times[times.len() / 2])] {
        let wanted: BTreeSet<StripeId> = known
            .iter()
            .filter(|transaction| since.is_none_or(|since| created(transaction) >= since))
            .map(id_of)
            .collect();
        let since = since.map(|seconds| Timestamp::from_unix_seconds(seconds).unwrap());
        let (mut listed, mut after) = (Vec::new(), None);
        loop {
            let page = api.balance_transactions(since, after.as_deref()).await.unwrap();
            assert_eq!(page.unreadable, Vec::<String>::new());
            listed.extend(page.transactions.into_iter().map(|transaction| transaction.id));
            after = page.after;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(listed.len(), wanted.len(), "none twice");
        assert_eq!(listed.into_iter().collect::<BTreeSet<_>>(), wanted);
    }
}

/// One that cannot be read is named, and hides none of its neighbours.
#[tokio::test]
async fn an_unreadable_one_is_named_in_a_list_and_an_error_by_itself() {
    let mut known = transactions()[..3].to_vec();
    known[1]["currency"] = "no such".into();
    let id = id_of(&known[1]);
    let (_stand_in, api) = stand_in(&known).await;
    let page = api.balance_transactions(None, None).await.unwrap();
    assert_eq!((page.transactions.len(), page.unreadable), (2, vec![id.to_string()]));
    let unreadable = api.balance_transaction(&id).await.unwrap_err();
    assert!(matches!(unreadable, StripeApiError::Unreadable(_)), "{unreadable}");
}

/// Answered 404, a balance transaction is awaited as it is without a key, and holds nothing; listed later, it is taken in.
#[tokio::test(flavor = "multi_thread")]
async fn what_stripe_does_not_know_holds_nothing_and_may_come_later() {
    let history = history::random(21, 25);
    let mut trials = Vec::new();
    for known in [None, Some(&[][..]), Some(&history.balance_transactions[..])] {
        let mut pipeline = Pipeline::start(known).await;
        for event in &history.events {
            pipeline.receive(event).await.unwrap();
        }
        pipeline.settle().await;
        trials.push(pipeline.trial().await);
        if known.is_some() {
            pipeline.stand_in.as_ref().unwrap().put_all(history.balance_transactions.iter().cloned());
            operations::sync(&pipeline.executor, pipeline.api.as_deref().unwrap(), None, |_| {}).await.unwrap();
            pipeline.settle().await;
            trials.push(pipeline.trial().await);
        }
    }
    let [without_a_key, unknown, listed_later, fetched, listed] = trials.try_into().unwrap();
    assert_eq!(without_a_key, unknown);
    assert_ne!(unknown, fetched);
    assert_eq!(listed_later, listed);
}
