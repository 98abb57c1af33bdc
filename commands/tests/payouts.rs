//! Payout runs over a real Postgres and a stand-in for Stripe's API that speaks HTTP: each transfer is made once, whatever
//! breaks off where.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use fanledger_commands::executor::Executor;
use fanledger_commands::payouts::desk::{ProposeError, Reckoned};
use fanledger_commands::payouts::sender::{HELD, NAME, STOPPED, Sender};
use fanledger_commands::stripe::api::{Created, HttpStripeApi, Page, StripeApi, StripeApiError, TransferRequest};
use fanledger_devkit::stripe::{Call, Failure};
use fanledger_domain::event::Event;
use fanledger_domain::facts::{BalanceTransaction, ConnectedAccountSnapshot, TransferSnapshot};
use fanledger_domain::id::{StripeId, Subject};
use fanledger_domain::payout_run::PayoutRunId;
use fanledger_domain::payout_run::hold::Say;
use fanledger_domain::payout_run::proposal::Payable;
use fanledger_domain::payout_run::run::{PayoutRunError, Stage};
use fanledger_domain::time::Timestamp;
use fanledger_journal::append::Command;
use fanledger_journal::event::{Metadata, Position};
use fanledger_journal::runner::{CatchUpError, Effects, Projection, skip_event};
use fanledger_journal::writer::{Writer, WriterOptions};
use reqwest::StatusCode;
use serde_json::json;
use support::{Pipeline, Trial};

const RUN: PayoutRunId = PayoutRunId::FIRST;

fn who(name: &str) -> Subject {
    name.parse().unwrap()
}

fn now() -> Timestamp {
    "2026-11-03T09:00:00Z".parse().unwrap()
}

fn owed(creator: &str, available: i128) -> Payable {
    let account = ConnectedAccountSnapshot {
        id: format!("acct_{creator}").parse().unwrap(),
        creator: Some(creator.parse().unwrap()),
        transfers_active: true,
        payouts_enabled: true,
        requirements_due: 0,
        disabled_reason: None,
    };
    Payable {
        creator: creator.parse().unwrap(),
        currency: "usd".parse().unwrap(),
        pending: 0,
        available,
        held: 0,
        receivable: 0,
        accounts: vec![account],
        on_hold: false,
    }
}

/// The platform's balance at Stripe: a top-up, which needs no books of anybody.
fn cash(net: i64) -> serde_json::Value {
    json!({
        "id": "txn_cash", "object": "balance_transaction", "amount": net, "available_on": 1, "created": 1, "currency": "usd",
        "fee": 0, "fee_details": [], "net": net, "reporting_category": "topup", "source": "tu_cash", "status": "available",
        "type": "topup",
    })
}

async fn pipeline() -> Pipeline {
    Pipeline::start(Some(&[cash(1_000_000)])).await
}

/// Proposes and approves a run of these, at the journal's head.
async fn approved(pipeline: &Pipeline, payables: &[Payable]) -> PayoutRunId {
    let reckoned = reckoned(pipeline, payables).await;
    let executor = &pipeline.executor;
    let (proposed, _) = executor.propose_payout_run(&reckoned, &who("ada"), now()).await.unwrap();
    executor.approve_payout_run(proposed.run, &who("grace"), payables, now()).await.unwrap();
    proposed.run
}

async fn reckoned(pipeline: &Pipeline, payables: &[Payable]) -> Reckoned {
    let position = pipeline.reader.head().await.unwrap().position.get();
    Reckoned {
        position,
        payouts_position: position,
        payables: payables.to_vec(),
        paid_alone: Vec::new(),
        last_run: None,
    }
}

/// Has Stripe make a transfer under a line's name, as another life of this journal did.
async fn at_stripe(pipeline: &Pipeline, line: &str, minor: i64, creator: &str) {
    let journal = pipeline.reader.head().await.unwrap().journal_id;
    let reference = format!("fanledger-payout-{journal}-{line}");
    let money = fanledger_domain::money::Money::new(minor, "usd".parse().unwrap());
    let (destination, creator) = (format!("acct_{creator}").parse().unwrap(), creator.parse().unwrap());
    let request =
        TransferRequest { money, destination: &destination, creator: &creator, run: RUN, reference: &reference };
    assert!(matches!(pipeline.api.as_ref().unwrap().create_transfer(&request).await, Ok(Created::Made(_))));
}

/// What became of each line: its transfer, or why it failed.
async fn ends(pipeline: &Pipeline) -> BTreeMap<(u64, u32), Result<String, String>> {
    let mut ends = BTreeMap::new();
    for (_, event) in pipeline.events().await {
        let (key, end) = match event {
            Event::PayoutTransferSent(sent) => ((sent.run.number(), sent.line), Ok(sent.transfer.to_string())),
            Event::PayoutTransferFailed(failed) => ((failed.run.number(), failed.line), Err(failed.code)),
            _ => continue,
        };
        assert!(ends.insert(key, end).is_none(), "line {key:?} ended twice");
    }
    ends
}

async fn finished(pipeline: &Pipeline) -> Vec<(u64, u32, u32)> {
    let events = pipeline.events().await;
    events
        .iter()
        .filter_map(|(_, event)| match event {
            Event::PayoutRunFinished(finished) => Some((finished.run.number(), finished.sent, finished.failed)),
            _ => None,
        })
        .collect()
}

fn balance(trial: &Trial, account: &str) -> i128 {
    trial.get(&(account.to_owned(), "usd".to_owned())).copied().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_sent_and_booked_and_what_was_refused_is_taken_by_the_next() {
    let mut pipeline = pipeline().await;
    let stand_in = pipeline.stand_in.as_ref().unwrap();
    stand_in.restrict(&["acct_crt_b"]);
    let mut payables = [owed("crt_a", 5_000), owed("crt_b", 7_000), owed("crt_c", -600)];
    payables[0].receivable = 1_500;
    approved(&pipeline, &payables).await;
    pipeline.settle().await;
    let made = pipeline.stand_in.as_ref().unwrap().transfers();
    assert_eq!(made.len(), 1);
    assert_eq!((&made[0]["amount"], &made[0]["destination"]), (&json!(3_500), &json!("acct_crt_a")));
    assert_eq!(made[0]["metadata"], json!({"creator_id": "crt_a", "payout_run": "por_1"}));
    let refused = Err("insufficient_capabilities_for_transfer".to_owned());
    let transfer = made[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(ends(&pipeline).await, BTreeMap::from([((1, 1), Ok(transfer.clone())), ((1, 2), refused)]));
    assert_eq!(finished(&pipeline).await, [(1, 1, 1)]);

    // The books: what was sent left, against cash that its balance transaction confirms; what was owed is claimed and recovered.
    let trial = pipeline.trial().await;
    assert_eq!(balance(&trial, "liabilities:creators:crt_a:available"), 3_500 + 1_500);
    assert_eq!(balance(&trial, "assets:creators:crt_a:receivable"), -1_500);
    assert_eq!(balance(&trial, "assets:stripe:clearing"), -3_500);
    assert_eq!(balance(&trial, "assets:stripe:unconfirmed"), 0);
    assert_eq!(balance(&trial, "assets:creators:crt_c:receivable"), 600);
    assert_eq!(balance(&trial, "liabilities:creators:crt_c:available"), -600);
    assert_eq!(balance(&trial, "liabilities:creators:crt_b:available"), 0);

    // The next run takes what is left; a reversal brings back what was sent.
    let stand_in = pipeline.stand_in.as_ref().unwrap();
    stand_in.restrict(&[]);
    let event = stand_in.reverse(&transfer).unwrap();
    pipeline.receive(&event).await.unwrap();
    approved(&pipeline, &[owed("crt_b", 7_000)]).await;
    pipeline.settle().await;
    assert_eq!(finished(&pipeline).await, [(1, 1, 1), (2, 1, 0)]);
    let trial = pipeline.trial().await;
    assert_eq!(balance(&trial, "liabilities:creators:crt_b:available"), 7_000);
    assert_eq!(balance(&trial, "liabilities:creators:crt_a:available"), 1_500);
    assert_eq!(balance(&trial, "assets:stripe:clearing"), -7_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_pass_is_tried_again_and_makes_one_transfer() {
    let mut pipeline = pipeline().await;
    let stand_in = pipeline.stand_in.as_ref().unwrap();
    stand_in.fail_next_for("acct_crt_a", 1, Failure::AnswerLost);
    stand_in.fail_next_for("acct_crt_a", 1, Failure::Status(409));
    stand_in.fail_next_for("acct_crt_a", 1, Failure::Status(429));
    approved(&pipeline, &[owed("crt_a", 5_000)]).await;
    pipeline.settle().await;
    let stand_in = pipeline.stand_in.as_ref().unwrap();
    assert_eq!((stand_in.transfers().len(), finished(&pipeline).await), (1, vec![(1, 1, 0)]));
    let posts: Vec<_> = stand_in.calls().into_iter().filter(|call| call.method == "POST").collect();
    let journal = pipeline.reader.head().await.unwrap().journal_id;
    let key = format!("fanledger-payout-{journal}-prl_1_1");
    assert!(posts.len() == 4 && posts.iter().all(|call| call.idempotency_key.as_ref() == Some(&key)), "{posts:?}");
    assert_eq!(stand_in.transfers()[0]["transfer_group"], key.as_str());
}

/// Where a sender can be cut off: the API is asked, and this process is gone before, or after, the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    BeforeLookup,
    BeforeCreate,
    AfterCreate,
    /// Not cut off: the transfer of this line is under way at Stripe, and cannot be looked up yet.
    UnderWay(&'static str),
}

/// Cut off `times` times, as a kill is to whatever comes after: what was done at Stripe is done, and nothing is recorded.
struct CutOff {
    api: HttpStripeApi,
    cut: Cut,
    times: AtomicUsize,
}

impl CutOff {
    fn is_now(&self, here: Cut) -> bool {
        let is_left = |times: usize| times.checked_sub(1);
        self.cut == here && self.times.fetch_update(Ordering::SeqCst, Ordering::SeqCst, is_left).is_ok()
    }

    fn cut(&self, here: Cut) -> Result<(), StripeApiError> {
        let cut = StripeApiError::Unavailable(StatusCode::SERVICE_UNAVAILABLE);
        if self.is_now(here) { Err(cut) } else { Ok(()) }
    }
}

#[async_trait]
impl StripeApi for CutOff {
    async fn balance_transaction(&self, id: &StripeId) -> Result<Option<BalanceTransaction>, StripeApiError> {
        self.api.balance_transaction(id).await
    }

    async fn balance_transactions(
        &self,
        since: Option<Timestamp>,
        after: Option<&str>,
    ) -> Result<Page, StripeApiError> {
        self.api.balance_transactions(since, after).await
    }

    async fn create_transfer(&self, request: &TransferRequest<'_>) -> Result<Created, StripeApiError> {
        self.cut(Cut::BeforeCreate)?;
        let created = self.api.create_transfer(request).await;
        self.cut(Cut::AfterCreate)?;
        created
    }

    async fn transfers_of_group(&self, group: &str) -> Result<Vec<TransferSnapshot>, StripeApiError> {
        self.cut(Cut::BeforeLookup)?;
        if let Cut::UnderWay(line) = self.cut
            && group.ends_with(line)
            && self.is_now(self.cut)
        {
            return Ok(Vec::new());
        }
        self.api.transfers_of_group(group).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_that_is_cut_off_anywhere_pays_once() {
    for cut in [Cut::BeforeLookup, Cut::BeforeCreate, Cut::AfterCreate] {
        // With Stripe's memory of keys, and, as after a day, without.
        for forgets in [false, true] {
            let mut pipeline = pipeline().await;
            approved(&pipeline, &[owed("crt_a", 5_000), owed("crt_b", 6_000)]).await;
            let stand_in = pipeline.stand_in.as_ref().unwrap();
            let api = HttpStripeApi::new(&stand_in.base_url(), support::KEY.to_owned()).unwrap();
            let cut_off: Arc<dyn StripeApi> = Arc::new(CutOff { api, cut, times: AtomicUsize::new(3) });
            let mut attempts = 0;
            loop {
                // Each attempt is another process: nothing is left but the journal and Stripe.
                let mut sender = Sender::new(pipeline.executor.clone(), Some(Arc::clone(&cut_off)));
                attempts += 1;
                match pipeline.catch_up(&mut sender).await {
                    Ok(_) => break,
                    Err(CatchUpError::Failed(_)) if attempts < 10 => {}
                    Err(error) => panic!("{cut:?}: {error}"),
                }
                if forgets {
                    pipeline.stand_in.as_ref().unwrap().forget_keys();
                }
            }
            assert!(attempts > 1, "{cut:?}: nothing was cut off");
            pipeline.settle().await;
            let made = pipeline.stand_in.as_ref().unwrap().transfers();
            assert_eq!(made.len(), 2, "{cut:?} {forgets}: {made:?}");
            assert_eq!((ends(&pipeline).await.len(), finished(&pipeline).await), (2, vec![(1, 2, 0)]), "{cut:?}");
            assert_eq!(balance(&pipeline.trial().await, "assets:stripe:clearing"), -11_000, "{cut:?}");
        }
    }
}

/// The journal's side of a cut: the transfer's fact is there and the line's end is not, or the end is and the run's is not.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_recorded_before_a_cut_is_recorded_once() {
    let mut pipeline = pipeline().await;
    approved(&pipeline, &[owed("crt_a", 5_000), owed("crt_b", 6_000)]).await;
    // The second line cannot be asked for at all; the first is done meanwhile.
    let stand_in = pipeline.stand_in.as_ref().unwrap();
    stand_in.fail_next_for("acct_crt_b", 5, Failure::Status(500));
    let mut sender = Sender::new(pipeline.executor.clone(), pipeline.api.clone());
    assert!(matches!(pipeline.catch_up(&mut sender).await, Err(CatchUpError::Failed(_))));
    assert_eq!((ends(&pipeline).await.len(), finished(&pipeline).await), (1, vec![]));
    pipeline.settle().await;
    assert_eq!((ends(&pipeline).await.len(), finished(&pipeline).await), (2, vec![(1, 2, 0)]));
    let facts = pipeline.events().await;
    let observed = facts.iter().filter(|(_, event)| matches!(event, Event::TransferObserved(_))).count();
    assert_eq!(observed, 2, "each transfer is learnt once");
    // Seen again from the beginning, as by a sender whose checkpoint was lost: nothing more.
    let head = pipeline.reader.head().await.unwrap().position;
    let approval: Vec<_> = facts
        .into_iter()
        .filter(|(_, event)| matches!(event, Event::PayoutRunApproved(_)))
        .map(|(recorded, _)| Arc::new(recorded))
        .collect();
    let projector =
        fanledger_journal::database::connect(&pipeline.database.url_for("fanledger_projector"), 1).await.unwrap();
    let mut connection = projector.acquire().await.unwrap();
    let mut again = Sender::new(pipeline.executor.clone(), pipeline.api.clone());
    again.apply(&approval, Effects::Live, &mut connection).await.unwrap();
    assert_eq!(pipeline.reader.head().await.unwrap().position, head);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_creator_held_after_the_approval_is_not_paid() {
    let mut pipeline = pipeline().await;
    approved(&pipeline, &[owed("crt_a", 5_000), owed("crt_b", 6_000)]).await;
    let creator = "crt_a".parse().unwrap();
    pipeline.executor.say_of_payouts(&creator, Say::Hold, &who("ada"), "a claim", now()).await.unwrap();
    // So soon nothing is said of the line: what an attempt before may have asked for may still be made. The others go on.
    let mut soon = Sender::new(pipeline.executor.clone(), pipeline.api.clone());
    assert!(matches!(pipeline.catch_up(&mut soon).await, Err(CatchUpError::Failed(_))));
    assert_eq!(ends(&pipeline).await.into_keys().collect::<Vec<_>>(), [(1, 2)]);
    let mut sender = settled(&pipeline, pipeline.api.clone());
    pipeline.catch_up(&mut sender).await.unwrap();
    pipeline.settle().await;
    assert_eq!(ends(&pipeline).await[&(1, 1)], Err(HELD.to_owned()));
    assert_eq!(
        (pipeline.stand_in.as_ref().unwrap().transfers().len(), finished(&pipeline).await),
        (1, vec![(1, 1, 1)])
    );
}

/// An attempt was killed with its request under way, then the creator was held. Found by the simulator (`fanledger simulate`).
#[tokio::test(flavor = "multi_thread")]
async fn what_was_under_way_when_its_creator_was_held_is_found() {
    let mut pipeline = pipeline().await;
    at_stripe(&pipeline, "prl_1_1", 5_000, "crt_a").await;
    approved(&pipeline, &[owed("crt_a", 5_000)]).await;
    let creator = "crt_a".parse().unwrap();
    pipeline.executor.say_of_payouts(&creator, Say::Hold, &who("ada"), "a claim", now()).await.unwrap();
    let base = pipeline.stand_in.as_ref().unwrap().base_url();
    let api = HttpStripeApi::new(&base, support::KEY.to_owned()).unwrap();
    let under_way = CutOff { api, cut: Cut::UnderWay("prl_1_1"), times: AtomicUsize::new(1) };
    let mut sender = settled(&pipeline, Some(Arc::new(under_way)));
    pipeline.catch_up(&mut sender).await.unwrap();
    assert!(ends(&pipeline).await[&(1, 1)].is_ok(), "it would be paid again by the next run");
    pipeline.settle().await;
    assert_eq!(finished(&pipeline).await, [(1, 1, 0)]);
    assert_eq!(balance(&pipeline.trial().await, "liabilities:creators:crt_a:available"), 5_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_key_or_with_a_wrong_one_the_sender_halts_and_nothing_is_lost() {
    let mut pipeline = pipeline().await;
    approved(&pipeline, &[owed("crt_a", 5_000)]).await;
    let mut keyless = Sender::new(pipeline.executor.clone(), None);
    let halted = pipeline.catch_up(&mut keyless).await.unwrap_err().to_string();
    assert!(halted.contains("FANLEDGER_STRIPE_API_KEY") && halted.contains("por_1"), "{halted}");
    pipeline.resume("payout_sender").await;
    let wrong = HttpStripeApi::new(&pipeline.stand_in.as_ref().unwrap().base_url(), "sk_wrong".to_owned()).unwrap();
    let mut refused = Sender::new(pipeline.executor.clone(), Some(Arc::new(wrong)));
    assert!(matches!(pipeline.catch_up(&mut refused).await, Err(CatchUpError::Halted { .. })));
    assert_eq!((ends(&pipeline).await.len(), finished(&pipeline).await), (0, vec![]));
    pipeline.resume("payout_sender").await;
    pipeline.settle().await;
    assert_eq!(finished(&pipeline).await, [(1, 1, 0)]);
}

/// What stands at Stripe under a line's name and is not what was approved: a person has to look.
#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_that_is_not_what_was_approved_halts_the_sender() {
    let pipeline = pipeline().await;
    at_stripe(&pipeline, "prl_1_1", 4_999, "crt_a").await;
    approved(&pipeline, &[owed("crt_a", 5_000)]).await;
    let mut sender = Sender::new(pipeline.executor.clone(), pipeline.api.clone());
    let halted = pipeline.catch_up(&mut sender).await.unwrap_err().to_string();
    assert!(halted.contains("another amount") && halted.contains("prl_1_1"), "{halted}");
    assert_eq!((ends(&pipeline).await.len(), pipeline.stand_in.as_ref().unwrap().transfers().len()), (0, 1));
}

/// Restored to before a run that was sent: Stripe knows the transfers of a future that this journal has lost. Wherever one of them
/// stands (under a line far behind, one that this run has not, or the next run's), nothing is made before a person has looked.
#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_of_a_future_that_was_lost_halts_the_sender_before_the_first_is_made() {
    let payables: Vec<Payable> = (0..20).map(|n| owed(&format!("crt_{n:02}"), 5_000)).collect();
    for lost in ["prl_1_20", "prl_1_21", "prl_2_1", "prl_3_2"] {
        let pipeline = pipeline().await;
        at_stripe(&pipeline, lost, 4_999, "crt_19").await;
        approved(&pipeline, &payables).await;
        let mut sender = Sender::new(pipeline.executor.clone(), pipeline.api.clone());
        let halted = pipeline.catch_up(&mut sender).await.unwrap_err();
        assert!(matches!(halted, CatchUpError::Halted { .. }), "{lost}: {halted}");
        assert!(halted.to_string().contains(lost), "{halted}");
        let made = pipeline.stand_in.as_ref().unwrap().transfers();
        assert_eq!((made.len(), ends(&pipeline).await.len()), (1, 0), "{lost}: {made:?}");
    }
}

/// Restored to the middle of a run: what was made since is what was approved, and is found before anything else is made.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_made_already_is_found_before_the_rest_is_made() {
    let mut pipeline = pipeline().await;
    at_stripe(&pipeline, "prl_1_10", 5_000, "crt_09").await;
    pipeline.stand_in.as_ref().unwrap().forget_keys();
    let payables: Vec<Payable> = (0..10).map(|n| owed(&format!("crt_{n:02}"), 5_000)).collect();
    approved(&pipeline, &payables).await;
    pipeline.settle().await;
    let stand_in = pipeline.stand_in.as_ref().unwrap();
    assert_eq!((stand_in.transfers().len(), finished(&pipeline).await), (10, vec![(1, 10, 0)]));
    let calls = stand_in.calls();
    let first_made = calls.iter().skip(1).position(|call| call.method == "POST").unwrap() + 1;
    let looked_up = |calls: &[Call]| calls.iter().filter(|call| call.target.starts_with("/v1/transfers?")).count();
    assert!(looked_up(&calls[..first_made]) >= 10, "all are looked up first");
    assert_eq!(looked_up(&calls[first_made..]), 0, "and once");
}

/// A sender for which whatever was asked for before a stop has come to its end.
fn settled(pipeline: &Pipeline, api: Option<Arc<dyn StripeApi>>) -> Sender {
    Sender::new(pipeline.executor.clone(), api).settled_after(Duration::ZERO)
}

async fn stop(executor: &Executor, run: PayoutRunId) {
    let stopped = executor.cancel_payout_run(run, &who("ada"), "the journal was restored", now()).await.unwrap();
    assert!(matches!(stopped.events[..], [Event::PayoutRunStopped(_)]), "{stopped:?}");
}

/// An operator has the sender pass over the approval on which it halted. The run waits for ever then, and so does the next, until
/// somebody stops it.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_the_sender_passed_over_ends_when_it_is_stopped() {
    let mut pipeline = pipeline().await;
    let payables = [owed("crt_a", 5_000), owed("crt_b", 6_000)];
    let run = approved(&pipeline, &payables).await;
    let mut keyless = Sender::new(pipeline.executor.clone(), None);
    let Err(CatchUpError::Halted { halt, .. }) = pipeline.catch_up(&mut keyless).await else { panic!("it halts") };
    let operator = Writer::start(WriterOptions::new(pipeline.database.url_for("fanledger_operator"))).await.unwrap();
    let position = halt.event.unwrap().position;
    let (stream, skip) = skip_event(NAME, keyless.version(), position, "as it halted");
    operator.append(Command::new(stream, 0, Metadata::default(), vec![skip])).await.unwrap();
    pipeline.resume(NAME).await;
    let mut sender = settled(&pipeline, pipeline.api.clone());
    pipeline.catch_up(&mut sender).await.unwrap();
    assert_eq!((ends(&pipeline).await.len(), finished(&pipeline).await), (0, vec![]));
    let next = reckoned(&pipeline, &payables).await;
    let refused = pipeline.executor.propose_payout_run(&next, &who("ada"), now()).await.unwrap_err();
    assert!(matches!(refused, ProposeError::Refused(PayoutRunError::Open { run: RUN, .. })), "{refused:?}");

    stop(&pipeline.executor, run).await;
    let refused = pipeline.executor.propose_payout_run(&next, &who("ada"), now()).await.unwrap_err();
    assert!(
        matches!(refused, ProposeError::Refused(PayoutRunError::Open { stage: Stage::Stopped, .. })),
        "{refused:?}"
    );
    pipeline.catch_up(&mut sender).await.unwrap();
    assert_eq!(finished(&pipeline).await, [(1, 0, 2)]);
    assert!(ends(&pipeline).await.values().all(|end| *end == Err(STOPPED.to_owned())));
    assert_eq!(pipeline.stand_in.as_ref().unwrap().transfers().len(), 0);

    // The next run takes all of it.
    approved(&pipeline, &payables).await;
    pipeline.settle().await;
    assert_eq!(finished(&pipeline).await, [(1, 0, 2), (2, 2, 0)]);
    assert_eq!(balance(&pipeline.trial().await, "assets:stripe:clearing"), -11_000);
}

/// Somebody stops the run while Stripe makes its first transfer.
struct StoppedMeanwhile {
    api: Arc<dyn StripeApi>,
    executor: Executor,
    is_stopped: AtomicBool,
}

#[async_trait]
impl StripeApi for StoppedMeanwhile {
    async fn balance_transaction(&self, id: &StripeId) -> Result<Option<BalanceTransaction>, StripeApiError> {
        self.api.balance_transaction(id).await
    }

    async fn balance_transactions(
        &self,
        since: Option<Timestamp>,
        after: Option<&str>,
    ) -> Result<Page, StripeApiError> {
        self.api.balance_transactions(since, after).await
    }

    async fn create_transfer(&self, request: &TransferRequest<'_>) -> Result<Created, StripeApiError> {
        if !self.is_stopped.swap(true, Ordering::SeqCst) {
            stop(&self.executor, request.run).await;
        }
        self.api.create_transfer(request).await
    }

    async fn transfers_of_group(&self, group: &str) -> Result<Vec<TransferSnapshot>, StripeApiError> {
        self.api.transfers_of_group(group).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_under_way_when_a_run_is_stopped_stays_sent_and_the_rest_is_not_sent() {
    let mut pipeline = pipeline().await;
    let payables: Vec<Payable> = (0..20).map(|n| owed(&format!("crt_{n:02}"), 5_000)).collect();
    approved(&pipeline, &payables).await;
    let meanwhile = StoppedMeanwhile {
        api: pipeline.api.clone().unwrap(),
        executor: pipeline.executor.clone(),
        is_stopped: AtomicBool::new(false),
    };
    let api: Arc<dyn StripeApi> = Arc::new(meanwhile);
    // What was asked for at that moment may still be under way: nothing is said to have failed before it cannot be any more.
    let mut hasty = Sender::new(pipeline.executor.clone(), Some(Arc::clone(&api)));
    let early = pipeline.catch_up(&mut hasty).await.unwrap_err();
    assert!(matches!(early, CatchUpError::Failed(_)), "{early}");
    let sent = ends(&pipeline).await;
    assert!(sent.len() == 8 && sent.values().all(Result::is_ok), "{sent:?}");
    assert_eq!(finished(&pipeline).await, []);

    pipeline.catch_up(&mut settled(&pipeline, Some(api))).await.unwrap();
    pipeline.settle().await;
    assert_eq!(finished(&pipeline).await, [(1, 8, 12)]);
    let failed = ends(&pipeline).await.into_values().filter_map(Result::err).collect::<Vec<_>>();
    assert_eq!(failed, vec![STOPPED; 12]);
    assert_eq!(pipeline.stand_in.as_ref().unwrap().transfers().len(), 8);
    assert_eq!(balance(&pipeline.trial().await, "assets:stripe:clearing"), -40_000);
}

/// After a restore: what stands at Stripe under the run's lines is in the books before the next run is reckoned, whatever it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_run_ends_by_what_stripe_has_of_it() {
    let mut pipeline = pipeline().await;
    at_stripe(&pipeline, "prl_1_1", 5_000, "crt_a").await;
    at_stripe(&pipeline, "prl_1_2", 700, "crt_z").await;
    let run = approved(&pipeline, &[owed("crt_a", 5_000), owed("crt_b", 6_000), owed("crt_c", 7_000)]).await;
    let mut sender = settled(&pipeline, pipeline.api.clone());
    assert!(matches!(pipeline.catch_up(&mut sender).await, Err(CatchUpError::Halted { .. })));
    stop(&pipeline.executor, run).await;
    pipeline.resume(NAME).await;
    pipeline.catch_up(&mut sender).await.unwrap();
    pipeline.settle().await;
    let made = pipeline.stand_in.as_ref().unwrap().transfers();
    let first = made[0]["id"].as_str().unwrap().to_owned();
    let stopped = || Err(STOPPED.to_owned());
    assert_eq!(ends(&pipeline).await, BTreeMap::from([((1, 1), Ok(first)), ((1, 2), stopped()), ((1, 3), stopped())]));
    assert_eq!((made.len(), finished(&pipeline).await), (2, vec![(1, 1, 2)]));
    let trial = pipeline.trial().await;
    assert_eq!(balance(&trial, "liabilities:creators:crt_a:available"), 5_000);
    assert_eq!(balance(&trial, "liabilities:creators:crt_z:available"), 700);
    assert_eq!(balance(&trial, "assets:stripe:clearing"), -5_700);

    // Seen again from the beginning: nothing more.
    let head = pipeline.reader.head().await.unwrap().position;
    let wanted: Vec<_> = pipeline
        .events()
        .await
        .into_iter()
        .filter(|(recorded, _)| sender.wants(&recorded.event_type))
        .map(|(recorded, _)| Arc::new(recorded))
        .collect();
    assert_eq!(wanted.len(), 2);
    let projector =
        fanledger_journal::database::connect(&pipeline.database.url_for("fanledger_projector"), 1).await.unwrap();
    let mut connection = projector.acquire().await.unwrap();
    sender.apply(&wanted, Effects::Live, &mut connection).await.unwrap();
    assert_eq!(pipeline.reader.head().await.unwrap().position, head);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_run_is_open_at_a_time_and_is_reckoned_after_the_one_before() {
    let mut pipeline = pipeline().await;
    let executor = pipeline.executor.clone();
    let payables = [owed("crt_a", 5_000)];
    let propose = async |reckoned: &Reckoned| executor.propose_payout_run(reckoned, &who("ada"), now()).await;
    let first = reckoned(&pipeline, &payables).await;
    // Two at the same moment: one is proposed.
    let both = tokio::join!(propose(&first), propose(&first));
    let refused = match both {
        (Ok(_), Err(refused)) | (Err(refused), Ok(_)) => refused,
        both => panic!("{both:?}"),
    };
    assert!(
        matches!(refused, ProposeError::Refused(PayoutRunError::Open { run: RUN, stage: Stage::Proposed })),
        "{refused:?}"
    );
    executor.approve_payout_run(RUN, &who("ada"), &payables, now()).await.unwrap();
    let refused = propose(&first).await.unwrap_err();
    assert!(
        matches!(refused, ProposeError::Refused(PayoutRunError::Open { stage: Stage::Approved, .. })),
        "{refused:?}"
    );
    pipeline.settle().await;
    // It has ended; what it sent is not in what was read before it.
    let refused = propose(&first).await.unwrap_err();
    assert!(matches!(refused, ProposeError::Behind { position: 0, .. }), "{refused:?}");
    let after = reckoned(&pipeline, &payables).await;
    assert_eq!(propose(&after).await.unwrap().0.run.number(), 2);
    assert!(pipeline.reader.head().await.unwrap().position > Position::START);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_reference_is_one_transfer_and_nothing_else() {
    let pipeline = pipeline().await;
    let api = pipeline.api.as_ref().unwrap();
    let (destination, creator) = ("acct_crt_a".parse().unwrap(), "crt_a".parse().unwrap());
    let of = |minor, reference| TransferRequest {
        money: fanledger_domain::money::Money::new(minor, "usd".parse().unwrap()),
        destination: &destination,
        creator: &creator,
        run: RUN,
        reference,
    };
    let Created::Made(made) = api.create_transfer(&of(5_000, "one")).await.unwrap() else { panic!("it is made") };
    assert_eq!(api.create_transfer(&of(5_000, "one")).await.unwrap(), Created::Made(made.clone()));
    assert!(matches!(api.create_transfer(&of(5_001, "one")).await, Err(StripeApiError::KeyReused)));
    assert_eq!(api.transfers_of_group("one").await.unwrap(), [made]);
    assert_eq!(api.transfers_of_group("two").await.unwrap(), []);
    let beyond = api.create_transfer(&of(995_001, "two")).await.unwrap();
    assert_eq!(beyond, Created::Declined { code: "balance_insufficient".to_owned() });
}
