//! Stripe: a generated history of fans and creators, sent as webhooks late, twice, out of order or not at all, until each is
//! acknowledged; and an API that fails, limits, and does not know yet what it will know.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use fanledger_commands::stripe::api::{Created, Page, StripeApi, StripeApiError, TransferRequest};
use fanledger_commands::stripe::intake::{Intake, IntakeError, Receipt};
use fanledger_devkit::history::{self, History};
use fanledger_devkit::stripe::sign;
use fanledger_domain::facts::{BalanceTransaction, TransferSnapshot};
use fanledger_domain::id::StripeId;
use fanledger_domain::stripe::read_balance_transaction;
use fanledger_domain::time::Timestamp;
use fanledger_journal::event::Position;
use rand::Rng as _;
use rand::rngs::StdRng;
use reqwest::StatusCode;
use serde_json::Value;

use crate::Bug;
use crate::creators::{accounts, sales};
use crate::transfers::Transfers;
use crate::vault::SimulatedVault;
use crate::world::{Due, MILLISECOND, Micros, Node, ProcessId, SECOND, World};
use crate::writer::SimulatedStore;

pub(crate) const SECRET: &str = "whsec_simulated";
/// How long Stripe waits before it sends a webhook again. Hours in truth; the run has no time for that, and nothing depends on it.
const RETRY: std::ops::Range<Micros> = 20 * MILLISECOND..900 * MILLISECOND;
/// Balance transactions of a page of the list.
const PAGE: usize = 5;

/// A webhook that Stripe sends until it is acknowledged.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub id: String,
    pub body: Arc<[u8]>,
    /// Signed by somebody else.
    pub is_forged: bool,
    pub is_done: bool,
}

/// A balance transaction, and from when on the API has it.
#[derive(Debug)]
struct Listed {
    transaction: BalanceTransaction,
    from: Micros,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Stripe {
    pub deliveries: Vec<Delivery>,
    /// Newest first.
    listed: Vec<Listed>,
    /// Where each acknowledged webhook is said to be.
    pub acknowledged: BTreeMap<String, Position>,
    /// Requests so far.
    pub asked: u64,
    pub transfers: Transfers,
}

fn text(value: &Value) -> Arc<[u8]> {
    value.to_string().into_bytes().into()
}

impl Stripe {
    /// A history of about `payments` payments, and how it will be told.
    pub fn new(seed: u64, payments: usize, random: &mut StdRng) -> Self {
        let History { mut events, mut balance_transactions } = history::random(seed, payments);
        events.extend(accounts(random));
        let (sold, moved) = sales(random);
        events.extend(sold);
        balance_transactions.extend(moved);
        let mut deliveries = Vec::new();
        let mut add = |id: &str, value: &Value, is_forged| {
            deliveries.push(Delivery { id: id.to_owned(), body: text(value), is_forged, is_done: false });
        };
        for event in &events {
            let id = event["id"].as_str().unwrap_or_default();
            let mut other = event.clone();
            other["pending_webhooks"] = 2.into();
            match random.random_range(0..100) {
                // Lost for good: the endpoint was away for more than three days.
                0..4 => {}
                4..16 => {
                    add(id, event, false);
                    add(id, event, false);
                }
                // The same event with another body.
                16..19 => {
                    add(id, event, false);
                    add(id, &other, false);
                }
                19..21 => {
                    add(id, event, false);
                    add(&format!("{id}F"), &other, true);
                }
                _ => add(id, event, false),
            }
        }
        let mut listed: Vec<Listed> = balance_transactions
            .iter()
            .filter_map(|value| read_balance_transaction(value).ok())
            .map(|transaction| Listed { transaction, from: 0 })
            .collect();
        listed.reverse();
        Self { deliveries, listed, ..Self::default() }
    }

    /// The same API, all of it known, and nothing to send.
    pub fn api_only(&self) -> Self {
        let listed = self.listed.iter().map(|known| Listed { transaction: known.transaction.clone(), from: 0 });
        Self { listed: listed.collect(), ..Self::default() }
    }

    /// What the API was to have later, it has by now.
    pub fn list_all(&mut self, now: Micros) {
        self.listed.iter_mut().for_each(|known| known.from = known.from.min(now));
    }

    /// A balance transaction more, which the API has from then on.
    pub fn list(&mut self, transaction: BalanceTransaction, from: Micros) {
        self.listed.insert(0, Listed { transaction, from });
    }
}

impl World {
    /// Everything that Stripe will send, at moments of the first `span`; and some of what the API knows, only later.
    pub fn plan_deliveries(&mut self, span: Micros) {
        for number in 0..self.stripe.deliveries.len() {
            let after = self.random.random_range(0..span);
            self.plan(after, Due::Deliver(number));
        }
        for number in 0..self.stripe.listed.len() {
            if self.random.random_range(0..10) < 3 {
                self.stripe.listed[number].from = self.now + self.random.random_range(0..span);
            }
        }
    }

    /// Stripe tries again, since it heard nothing, or not well.
    pub fn plan_retry(&mut self, number: usize) {
        let after = self.random.random_range(RETRY);
        self.plan(after, Due::Deliver(number));
    }

    /// What the gateway answered has reached Stripe.
    fn answered(&mut self, number: usize, receipt: &Result<Receipt, IntakeError>) -> u64 {
        let delivery = &self.stripe.deliveries[number];
        let (id, is_forged) = (delivery.id.clone(), delivery.is_forged);
        match receipt {
            Ok(_) if is_forged => {
                self.fail(format!("{id} was taken, which Stripe did not sign"));
                0
            }
            Ok(receipt) => {
                self.stripe.deliveries[number].is_done = true;
                self.stripe.acknowledged.insert(id, receipt.position);
                self.counts.webhooks += 1;
                receipt.position.get()
            }
            Err(IntakeError::Signature(_)) if is_forged => {
                self.stripe.deliveries[number].is_done = true;
                0
            }
            Err(
                IntakeError::Signature(_) | IntakeError::NoEventId(_) | IntakeError::Seal(_) | IntakeError::Encode(_),
            ) => {
                self.fail(format!("{id} was refused: {receipt:?}"));
                0
            }
            Err(IntakeError::Inconsistent(outcome)) => {
                // Only a journal that was restored between the append and the look may say so.
                if self.counts.restores == 0 {
                    self.fail(format!("{id}: the journal answered {outcome:?} and has no such event"));
                }
                self.plan_retry(number);
                0
            }
            Err(IntakeError::Append(_) | IntakeError::Compare(_)) => {
                self.plan_retry(number);
                0
            }
        }
    }
}

/// One webhook in the gateway, from its arrival to the answer.
pub(crate) async fn handle(node: Node, intake: Arc<Intake<SimulatedStore, SimulatedVault>>, number: usize) {
    let (now, restores, body, secret) = {
        let world = node.world();
        let delivery = &world.stripe.deliveries[number];
        let secret = if delivery.is_forged { "whsec_somebody" } else { SECRET };
        (world.now / SECOND, world.counts.restores, Arc::clone(&delivery.body), secret)
    };
    let header = sign(secret, now, &body);
    if node.world().plant == Some(Bug::AcknowledgedFirst) {
        node.step("answers before it appends", |world| {
            let position = world.journal.position().next();
            let receipt = Receipt { position, duplicate: false, conflict: false };
            Some(world.answered(number, &Ok(receipt)))
        })
        .await;
    }
    let receipt = intake.receive_at(now, Some(header.as_bytes()), &body).await;
    node.step_with("answers Stripe", |world| {
        if world.goes_wrong(15) {
            // The answer is lost on the way.
            world.plan_retry(number);
            return Some(((), 0));
        }
        if world.counts.restores != restores {
            // Appended, perhaps, to what a restore has taken away: among what Stripe is asked to send again.
            world.plan_retry(number);
            return Some(((), 0));
        }
        let position = world.answered(number, &receipt);
        Some(((), position))
    })
    .await;
}

/// Stripe's API as one process reaches it.
pub(crate) struct Api {
    node: Node,
}

impl Api {
    pub const fn new(node: Node) -> Self {
        Self { node }
    }

    pub(crate) const fn node(&self) -> &Node {
        &self.node
    }

    pub(crate) const fn process(&self) -> ProcessId {
        self.node.process
    }

    pub(crate) async fn ask<T>(
        &self,
        what: &'static str,
        mut answer: impl FnMut(&mut World) -> T,
    ) -> Result<T, StripeApiError> {
        self.node
            .step(what, |world| {
                world.stripe.asked += 1;
                if world.muted.contains(&self.node.process) {
                    world.fail("a rebuild of what has sent its commands before called Stripe");
                }
                if world.goes_wrong(30) {
                    return Some(Err(StripeApiError::Unavailable(StatusCode::TOO_MANY_REQUESTS)));
                }
                if world.goes_wrong(20) {
                    return Some(Err(StripeApiError::Unavailable(StatusCode::GATEWAY_TIMEOUT)));
                }
                Some(Ok(answer(world)))
            })
            .await
    }
}

#[async_trait]
impl StripeApi for Api {
    async fn balance_transaction(&self, id: &StripeId) -> Result<Option<BalanceTransaction>, StripeApiError> {
        self.ask("asks Stripe", |world| {
            let known = world.stripe.listed.iter().find(|known| known.transaction.id == *id)?;
            (known.from <= world.now).then(|| known.transaction.clone())
        })
        .await
    }

    async fn balance_transactions(
        &self,
        since: Option<Timestamp>,
        after: Option<&str>,
    ) -> Result<Page, StripeApiError> {
        self.ask("asks Stripe", |world| {
            let known = world.stripe.listed.iter().filter(|known| {
                known.from <= world.now && since.is_none_or(|since| known.transaction.created >= since)
            });
            let mut rest = known
                .map(|known| &known.transaction)
                .skip_while(|transaction| after.is_some_and(|after| transaction.id.as_str() != after));
            if after.is_some() {
                rest.next();
            }
            let transactions: Vec<BalanceTransaction> = rest.by_ref().take(PAGE).cloned().collect();
            let last = transactions.last().map(|transaction| transaction.id.to_string());
            let after = rest.next().and(last);
            Page { transactions, unreadable: Vec::new(), after }
        })
        .await
    }

    async fn create_transfer(&self, request: &TransferRequest<'_>) -> Result<Created, StripeApiError> {
        self.create(request).await
    }

    async fn transfers_of_group(&self, group: &str) -> Result<Vec<TransferSnapshot>, StripeApiError> {
        self.look_up(group).await
    }
}

impl Stripe {
    /// The deliveries whose acknowledgement a restored journal no longer knows, and those of transfers that were never sent; they are
    /// open again.
    pub fn forget_after(&mut self, head: Position) -> Vec<usize> {
        let mut forgotten = Vec::new();
        for (number, delivery) in self.deliveries.iter_mut().enumerate() {
            if delivery.is_done && self.acknowledged.get(&delivery.id).is_some_and(|position| *position > head) {
                delivery.is_done = false;
                forgotten.push(number);
            }
        }
        self.acknowledged.retain(|_, position| *position <= head);
        for number in self.transfers.take_unsent() {
            self.deliveries[number].is_done = false;
            forgotten.push(number);
        }
        forgotten
    }
}
