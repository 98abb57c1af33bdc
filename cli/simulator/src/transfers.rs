//! Stripe's transfers: requests that take their time and go on when nobody waits for them any more, idempotency keys that are
//! forgotten after a day, transfers that are looked up by their group, and the webhooks that tell of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use fanledger_commands::stripe::api::{Created, StripeApiError, TransferRequest};
use fanledger_domain::event::Event;
use fanledger_domain::facts::TransferSnapshot;
use fanledger_domain::id::{CreatorId, StripeId};
use fanledger_domain::money::Money;
use fanledger_domain::payout_run::PayoutRunId;
use fanledger_domain::payout_run::hold::CreatorPayouts;
use fanledger_domain::payout_run::line::Line;
use fanledger_domain::stripe::{read_balance_transaction, read_transfer};
use fanledger_journal::event::{ChainDigest, Position, StreamId};
use rand::Rng as _;
use rand::seq::IndexedRandom as _;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::Bug;
use crate::stripe::{Api, Delivery};
use crate::world::{Due, MILLISECOND, Micros, ProcessId, SECOND, World};

const HOUR: Micros = 3600 * SECOND;
/// For how long Stripe keeps an idempotency key, at the least.
const KEY_KEPT: Micros = 24 * HOUR;
/// How long Stripe takes to make a transfer, whether or not somebody still waits for it.
const MADE_AFTER: std::ops::Range<Micros> = MILLISECOND / 10..20 * MILLISECOND;
/// And now and then: longer than it takes whoever asked to come back.
const MADE_LATE: std::ops::Range<Micros> = 100 * MILLISECOND..600 * MILLISECOND;
/// How long a client waits for the answer.
const PATIENCE: std::ops::Range<Micros> = 5 * MILLISECOND..60 * MILLISECOND;
/// How much later the webhook comes.
const TOLD_AFTER: std::ops::Range<Micros> = MILLISECOND..150 * MILLISECOND;
const CODES: [&str; 3] = ["balance_insufficient", "account_invalid", "insufficient_capabilities_for_transfer"];

/// What was asked for under a key.
#[derive(Debug)]
struct Request {
    reference: String,
    money: Money,
    destination: StripeId,
    creator: CreatorId,
    run: PayoutRunId,
    by: ProcessId,
    /// How often the journal had been restored when whoever asks looked the line up.
    restores: u64,
    /// What became of it; none while it is under way.
    end: Option<End>,
}

impl Request {
    fn is(&self, other: &TransferRequest<'_>) -> bool {
        (self.money, &self.destination, &self.creator, self.run)
            == (other.money, other.destination, other.creator, other.run)
    }
}

#[derive(Clone, Copy, Debug)]
enum End {
    Made(usize),
    Declined(&'static str),
}

/// A transfer, and under which name it was asked for.
#[derive(Debug)]
pub(crate) struct Made {
    pub reference: String,
    pub restores: u64,
    object: Value,
    pub snapshot: TransferSnapshot,
}

/// What was at hand when a line was looked up.
#[derive(Clone, Copy, Debug)]
struct Looked {
    position: Position,
    chain: ChainDigest,
    restores: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Transfers {
    requests: Vec<Request>,
    /// Which request each key stands for, and since when it is known.
    keys: BTreeMap<String, (Micros, usize)>,
    pub made: Vec<Made>,
    looked: BTreeMap<(ProcessId, String), Looked>,
    /// Webhooks that nobody was sent: Stripe sends them again where it is asked to.
    unsent: Vec<usize>,
    reversals: usize,
}

impl Transfers {
    /// How many were asked for by a process, of one run.
    pub fn asked_by(&self, process: ProcessId, run: PayoutRunId) -> usize {
        self.requests.iter().filter(|request| request.by == process && request.run == run).count()
    }

    /// Whether Stripe may know of something that the journal has lost: it was asked for before the last restore.
    pub fn may_be_of_a_lost_future(&self, restores: u64) -> bool {
        self.requests.iter().any(|request| request.restores < restores)
    }

    pub fn are_under_way(&self) -> bool {
        self.requests.iter().any(|request| request.end.is_none())
    }

    pub fn of_group<'a>(&'a self, reference: &'a str) -> impl Iterator<Item = &'a Made> {
        self.made.iter().filter(move |made| made.reference == reference)
    }

    /// The webhooks that were never sent; they are to be, from now on.
    pub fn take_unsent(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.unsent)
    }

    fn answer(&self, request: usize) -> Option<Created> {
        Some(match self.requests[request].end? {
            End::Made(made) => Created::Made(self.made[made].snapshot.clone()),
            End::Declined(code) => Created::Declined { code: code.to_owned() },
        })
    }
}

impl Api {
    pub(crate) async fn look_up(&self, group: &str) -> Result<Vec<TransferSnapshot>, StripeApiError> {
        let process = self.process();
        self.ask("looks up a transfer group", |world| {
            let head = world.journal.head();
            let looked = Looked { position: head.position, chain: head.chain, restores: world.counts.restores };
            world.stripe.transfers.looked.insert((process, group.to_owned()), looked);
            if world.plant == Some(Bug::GroupNotAsked) {
                return Vec::new();
            }
            world.stripe.transfers.of_group(group).map(|made| made.snapshot.clone()).collect()
        })
        .await
    }

    /// Two steps: the request arrives, and its answer does, or does not. Between them the process may be gone.
    pub(crate) async fn create(&self, request: &TransferRequest<'_>) -> Result<Created, StripeApiError> {
        let process = self.process();
        let (number, until) =
            self.ask("asks Stripe for a transfer", |world| world.ask_for_transfer(process, request)).await??;
        let lost = || StripeApiError::Unavailable(StatusCode::GATEWAY_TIMEOUT);
        self.node()
            .step("hears of the transfer", |world| match world.stripe.transfers.answer(number) {
                Some(_) if world.goes_wrong(100) => Some(Err(lost())),
                Some(created) => Some(Ok(created)),
                None => world.until(until).then(|| Err(lost())),
            })
            .await
    }
}

impl World {
    fn ask_for_transfer(
        &mut self,
        process: ProcessId,
        request: &TransferRequest<'_>,
    ) -> Result<(usize, Micros), StripeApiError> {
        let reference = request.reference.to_owned();
        let looked = self.stripe.transfers.looked.get(&(process, reference.clone())).copied();
        self.check_hold(request.creator, looked);
        let until = self.now + self.random.random_range(PATIENCE);
        let now = self.now;
        let transfers = &mut self.stripe.transfers;
        transfers.keys.retain(|_, (since, _)| now - *since < KEY_KEPT);
        if let Some((_, known)) = transfers.keys.get(&reference) {
            return match &transfers.requests[*known] {
                known if !known.is(request) => Err(StripeApiError::KeyReused),
                known if known.end.is_none() => Err(StripeApiError::Unavailable(StatusCode::CONFLICT)),
                Request { .. } => Ok((*known, until)),
            };
        }
        let number = transfers.requests.len();
        transfers.requests.push(Request {
            reference: reference.clone(),
            money: request.money,
            destination: request.destination.clone(),
            creator: request.creator.clone(),
            run: request.run,
            by: process,
            restores: looked.map_or(0, |looked| looked.restores),
            end: None,
        });
        if self.plant != Some(Bug::KeyForgotten) {
            self.stripe.transfers.keys.insert(reference, (now, number));
        }
        let takes = if self.goes_wrong(300) { MADE_LATE } else { MADE_AFTER };
        let after = self.random.random_range(takes);
        self.plan(after, Due::Transfer(number));
        Ok((number, until))
    }

    /// Nothing is asked for of a creator whose hold was in the journal when the line was looked up.
    fn check_hold(&mut self, creator: &CreatorId, looked: Option<Looked>) {
        let Some(looked) = looked else {
            return self.fail(format!("a transfer to {creator} was asked for, and not looked up before"));
        };
        if !self.journal.contains(looked.position, looked.chain) {
            return;
        }
        let said = self.journal.stream(&StreamId::new(CreatorPayouts::STREAM, creator.as_str())).last();
        let held = said.filter(|said| matches!(said.event, Event::CreatorPayoutsHeld(_))).map(|said| said.row.position);
        if let Some(held) = held.filter(|held| *held <= looked.position) {
            let at = looked.position;
            self.fail(format!("{creator} is held since position {held}, and is sent what was looked up at {at}"));
        }
    }

    /// What was asked for comes to its end at Stripe, whoever still waits for it.
    pub fn end_transfer(&mut self, number: usize) {
        if self.stripe.transfers.requests[number].end.is_some() {
            return;
        }
        let end = if self.goes_wrong(60) {
            End::Declined(CODES.choose(&mut self.random).copied().unwrap_or("account_invalid"))
        } else {
            match self.make(number) {
                Ok(made) => End::Made(made),
                Err(fault) => return self.fail(format!("the simulator made what is no transfer: {fault}")),
            }
        };
        self.stripe.transfers.requests[number].end = Some(end);
        self.happened("stripe", 0, "is done with request", number as u64 + 1);
    }

    fn make(&mut self, number: usize) -> Result<usize, String> {
        let request = &self.stripe.transfers.requests[number];
        let (id, created) = (format!("tr_1Simulated{number:06}"), self.now / SECOND);
        let (amount, currency) = (request.money.minor(), request.money.currency().to_string());
        let (reference, restores) = (request.reference.clone(), request.restores);
        let object = json!({
            "id": id, "object": "transfer", "amount": amount, "amount_reversed": 0,
            "balance_transaction": id.replacen("tr_", "txn_", 1), "created": created, "currency": currency,
            "destination": request.destination.as_str(), "livemode": false,
            "metadata": { "creator_id": request.creator.as_str(), "payout_run": request.run.to_string() },
            "reversals": { "object": "list", "data": [], "has_more": false, "url": format!("/v1/transfers/{id}/reversals") },
            "reversed": false, "transfer_group": reference,
        });
        let snapshot = read_transfer(&object).map_err(|error| error.to_string())?;
        self.list(&id, -amount, &currency, "transfer", "transfer")?;
        // Of what was asked for in a history that a restore took away perhaps nobody knows here but by its webhook. Where that is lost,
        // too, its balance transaction stays unconfirmed, and it is for a person to ask Stripe to send it again.
        let may_be_lost = restores == self.counts.restores;
        self.tell("transfer.created", &object, format!("evt_1Simulated{number:06}"), may_be_lost);
        if self.stripe.transfers.of_group(&reference).next().is_some() {
            self.fail(format!("two transfers were made under {reference}"));
        }
        self.counts.transfers += 1;
        self.stripe.transfers.made.push(Made { reference, restores, object, snapshot });
        Ok(self.stripe.transfers.made.len() - 1)
    }

    /// A balance transaction; what the API has of it may come a little later.
    fn list(&mut self, source: &str, amount: i64, currency: &str, kind: &str, category: &str) -> Result<(), String> {
        let created = self.now / SECOND;
        let name = source.split_once('_').map_or(source, |(_, name)| name);
        let transaction = json!({
            "id": format!("txn_{name}"), "object": "balance_transaction", "amount": amount, "available_on": created,
            "created": created, "currency": currency, "description": null, "exchange_rate": null, "fee": 0,
            "fee_details": [], "net": amount, "reporting_category": category, "source": source, "status": "available",
            "type": kind,
        });
        let transaction = read_balance_transaction(&transaction).map_err(|error| error.to_string())?;
        let late = if self.goes_wrong(200) { self.random.random_range(TOLD_AFTER) } else { 0 };
        let from = self.now + late;
        self.stripe.list(transaction, from);
        Ok(())
    }

    /// The webhook, once or twice; some that may be lost are.
    fn tell(&mut self, kind: &str, object: &Value, id: String, may_be_lost: bool) {
        let event = json!({
            "id": id, "object": "event", "api_version": "2026-10-28.endive", "created": self.now / SECOND,
            "livemode": false, "pending_webhooks": 1, "type": kind, "data": { "object": object },
        });
        let body: Arc<[u8]> = event.to_string().into_bytes().into();
        let is_lost = may_be_lost && self.goes_wrong(150);
        let times = if self.goes_wrong(150) { 2 } else { 1 };
        for _ in 0..times {
            let number = self.stripe.deliveries.len();
            let delivery = Delivery { id: id.clone(), body: Arc::clone(&body), is_forged: false, is_done: is_lost };
            self.stripe.deliveries.push(delivery);
            if is_lost {
                self.stripe.transfers.unsent.push(number);
            } else {
                let after = self.random.random_range(TOLD_AFTER);
                self.plan(after, Due::Deliver(number));
            }
        }
    }

    /// Somebody takes back a part of a transfer, or what is left of it, in the dashboard.
    pub fn reverse_one(&mut self) {
        let open: Vec<usize> = (0..self.stripe.transfers.made.len())
            .filter(|made| {
                let snapshot = &self.stripe.transfers.made[*made].snapshot;
                snapshot.amount_reversed < snapshot.amount
            })
            .collect();
        let Some(made) = open.choose(&mut self.random).copied() else { return };
        self.stripe.transfers.reversals += 1;
        let reversal = format!("trr_1Reversed{:06}", self.stripe.transfers.reversals);
        let snapshot = &self.stripe.transfers.made[made].snapshot;
        let (left, currency) = (snapshot.amount - snapshot.amount_reversed, snapshot.currency.to_string());
        let (reversed, amount) = (snapshot.amount_reversed, self.random.random_range(1..=left));
        let (created, whole) = (self.now / SECOND, amount == left);
        let mut object = self.stripe.transfers.made[made].object.clone();
        object["amount_reversed"] = (reversed + amount).into();
        object["reversed"] = whole.into();
        let part = json!({
            "id": reversal, "object": "transfer_reversal", "amount": amount,
            "balance_transaction": reversal.replacen("trr_", "txn_", 1), "created": created, "currency": currency,
            "transfer": object["id"],
        });
        // Newest first.
        if let Some(parts) = object["reversals"]["data"].as_array_mut() {
            parts.insert(0, part);
        }
        let listed = self.list(&reversal, amount, &currency, "transfer_refund", "transfer_reversal");
        match (listed, read_transfer(&object)) {
            (Ok(()), Ok(snapshot)) => {
                let event = reversal.replacen("trr_", "evt_", 1);
                self.tell("transfer.reversed", &object, event, false);
                let known = &mut self.stripe.transfers.made[made];
                (known.object, known.snapshot) = (object, snapshot);
                self.happened("stripe", 0, "reverses transfer", made as u64 + 1);
            }
            (listed, read) => self.fail(format!("the simulator made what is no reversal: {listed:?} {read:?}")),
        }
    }

    /// Whose transfers were made, or are about to be, while their lines have not ended.
    pub fn half_way(&self) -> Vec<CreatorId> {
        let transfers = &self.stripe.transfers;
        let prefix = format!("fanledger-payout-{}-", self.journal.id);
        let is_open = |request: &&Request| {
            let line = request.reference.strip_prefix(&prefix).unwrap_or_default();
            self.journal.stream(&StreamId::new(Line::STREAM, line)).is_empty()
        };
        transfers.requests.iter().filter(is_open).map(|request| request.creator.clone()).collect()
    }

    /// Time passes in which nobody of ours is there who could ask for something: what is under way comes to its end, and what
    /// Stripe keeps for a day is forgotten.
    pub fn let_pass(&mut self, span: Micros) {
        for number in 0..self.stripe.transfers.requests.len() {
            self.end_transfer(number);
        }
        self.now += span;
        let planned = std::mem::take(&mut self.agenda);
        self.agenda = planned.into_iter().map(|((at, number), due)| ((at + span, number), due)).collect();
        self.happened("stripe", 0, "sees days pass:", (span / (24 * HOUR)).unsigned_abs());
    }
}
