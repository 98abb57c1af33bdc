//! What can happen to money at Stripe, and the events and balance transactions that it makes of that.

mod returns;

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use super::History;
use super::objects::{Api, ApplicationFee, Charge, Metadata, Payout, Transaction, Transfer, topup};

pub(super) const HOUR: i64 = 3_600;
pub(super) const DAY: i64 = 86_400;

/// A platform's account at Stripe while things happen to it.
pub(super) struct World {
    rng: StdRng,
    /// By the time at which they are made; equal times keep their order.
    events: Vec<(i64, Value)>,
    transactions: Vec<Transaction>,
    /// Σ net of the balance transactions so far, by currency: what a payout can take.
    balance: BTreeMap<&'static str, i64>,
    /// Whether changes are now and then announced under two event ids, and balance transactions told in the older form.
    pub(super) repeats: bool,
}

/// When a charge's balance transaction becomes known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// With `charge.succeeded`.
    AtOnce,
    /// With `charge.updated`, this many seconds later; `charge.succeeded` says null.
    Later(i64),
    /// Never by a webhook: only the list has it.
    ByListOnly,
}

/// How a refund ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RefundEnd {
    Succeeds,
    SucceedsLater,
    Fails,
    FailsAfterSuccess,
    Canceled,
    NeverStands,
}

/// How a dispute ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DisputeEnd {
    Open,
    Won,
    Lost,
    WonAfterLost,
    LostAfterWon,
    PartlyWon,
    /// `won`, and the money never comes back.
    WonWithoutMoney,
    InquiryClosed,
    InquiryBecomesLost,
    Prevented,
}

/// How a payout ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PayoutEnd {
    Pending,
    Paid,
    FailedAfterPaid,
    Canceled,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            rng: StdRng::seed_from_u64(seed),
            events: Vec::new(),
            transactions: Vec::new(),
            balance: BTreeMap::new(),
            repeats: false,
        }
    }

    /// All that happened up to `end`.
    pub(super) fn history(mut self, end: i64) -> History {
        self.events.retain(|(at, _)| *at <= end);
        self.events.sort_by_key(|(at, _)| *at);
        self.transactions.retain(|transaction| transaction.created <= end);
        self.transactions.sort_by_key(|transaction| transaction.created);
        History {
            events: self.events.into_iter().map(|(_, event)| event).collect(),
            balance_transactions: self.transactions.iter().map(Transaction::json).collect(),
        }
    }

    /// True in `percent` of cases.
    pub(super) fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }

    /// From `low` to `high`, both included.
    pub(super) fn between(&mut self, low: i64, high: i64) -> i64 {
        self.rng.random_range(low..=high)
    }

    /// One of the choices, which must not be empty.
    pub(super) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.rng.random_range(0..choices.len())]
    }

    /// An id as Stripe's look: a prefix and 24 letters and digits.
    pub(super) fn id(&mut self, prefix: &str) -> String {
        const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
        let mut id = format!("{prefix}_1");
        for _ in 0..23 {
            id.push(char::from(self.pick(ALPHABET)));
        }
        id
    }

    /// Announces the object as it stands.
    pub(super) fn emit(&mut self, at: i64, api: Api, kind: &str, object: Value) {
        self.emit_from(at, api, kind, object, None);
    }

    /// As [`World::emit`], from a connected account if one is named.
    pub(super) fn emit_from(&mut self, at: i64, api: Api, kind: &str, object: Value, account: Option<&str>) {
        let times = if self.repeats && self.chance(8) { 2 } else { 1 };
        for _ in 0..times {
            let mut event = json!({
                "id": self.id("evt"), "object": "event", "api_version": api.version(), "created": at,
                "data": { "object": object.clone() }, "livemode": object["livemode"].as_bool().unwrap_or(false),
                "pending_webhooks": 1, "request": { "id": null, "idempotency_key": null }, "type": kind,
            });
            if let Some(account) = account {
                event["account"] = account.into();
            }
            self.events.push((at, event));
        }
    }

    /// Books a balance transaction and returns its id.
    pub(super) fn book(&mut self, transaction: Transaction) -> String {
        *self.balance.entry(transaction.currency).or_default() += transaction.net();
        let id = transaction.id.clone();
        self.transactions.push(transaction);
        id
    }

    /// Σ net so far.
    pub(super) fn balance(&self, currency: &str) -> i64 {
        self.balance.get(currency).copied().unwrap_or(0)
    }

    /// A balance transaction without fees.
    pub(super) fn transaction(
        &mut self,
        kind: &'static str,
        category: &'static str,
        amount: i64,
        currency: &'static str,
        at: i64,
    ) -> Transaction {
        Transaction {
            id: self.id("txn"),
            amount,
            currency,
            fee_details: Vec::new(),
            created: at,
            available_on: at,
            kind,
            category,
            source: None,
            description: None,
            exchange_rate: None,
            uncategorised: self.repeats && self.chance(10),
        }
    }

    /// A balance transaction over an amount of a charge's currency, settled as the platform settles that currency.
    fn settled(
        &mut self,
        kind: &'static str,
        category: &'static str,
        amount: i64,
        charge: &Charge,
        at: i64,
    ) -> Transaction {
        // Euros settle in dollars, at a rate that moves from day to day.
        if charge.currency != "eur" {
            return self.transaction(kind, category, amount, charge.currency, at);
        }
        let rate = 10_600 + (at / DAY * 37) % 500;
        let converted = (amount.abs() * rate + 5_000) / 10_000 * amount.signum();
        let mut transaction = self.transaction(kind, category, converted, "usd", at);
        transaction.exchange_rate = Some(format!("{}.{:04}", rate / 10_000, rate % 10_000));
        transaction
    }

    /// Books the charge's own balance transaction, over `gross`, with Stripe's fee.
    pub(super) fn capture(&mut self, charge: &mut Charge, gross: i64, at: i64) {
        let mut transaction = self.settled("charge", "charge", gross, charge, at);
        let fixed = match transaction.currency {
            "jpy" => 0,
            "kwd" => 100,
            _ => 30,
        };
        transaction.fee_details.push(("stripe_fee", "Stripe processing fees", transaction.amount * 29 / 1000 + fixed));
        if self.chance(4) {
            transaction.fee_details.push(("tax", "VAT", 3));
        }
        transaction.available_on = at + 2 * DAY;
        transaction.source = Some(charge.id.clone());
        let id = self.book(transaction);
        charge.balance_transaction = Some(id);
    }

    /// The charge succeeds and is captured at once.
    pub(super) fn succeed(&mut self, charge: &mut Charge, known: Known) {
        charge.status = "succeeded";
        charge.captured = true;
        charge.amount_captured = charge.amount;
        let (at, api) = (charge.created, charge.api);
        self.capture(charge, charge.amount, at);
        let transaction = charge.balance_transaction.take();
        match known {
            Known::AtOnce => {
                charge.balance_transaction = transaction;
                self.emit(at, api, "charge.succeeded", charge.json());
            }
            Known::Later(delay) => {
                self.emit(at, api, "charge.succeeded", charge.json());
                charge.balance_transaction = transaction;
                self.emit(at + delay, api, "charge.updated", charge.json());
            }
            Known::ByListOnly => self.emit(at, api, "charge.succeeded", charge.json()),
        }
    }

    /// A bank debit that had succeeded comes back.
    pub(super) fn fail_after_success(&mut self, charge: &mut Charge, at: i64) {
        let mut transaction =
            self.settled("payment_failure_refund", "charge_failure", -charge.amount_captured, charge, at);
        transaction.source = Some(charge.id.clone());
        charge.failure_balance_transaction = Some(self.book(transaction));
        charge.status = "failed";
        self.emit(at, charge.api, "charge.failed", charge.json());
    }

    /// A payout of the platform from its creation to its end.
    pub(super) fn payout(&mut self, api: Api, amount: i64, currency: &'static str, at: i64, end: PayoutEnd) {
        let id = self.id("po");
        let mut transaction = self.transaction("payout", "payout", -amount, currency, at);
        transaction.source = Some(id.clone());
        let balance_transaction = self.book(transaction);
        let failure = None;
        let mut payout = Payout {
            id,
            amount,
            currency,
            created: at,
            status: "pending",
            balance_transaction,
            failure_balance_transaction: failure,
        };
        self.emit(at, api, "payout.created", payout.json());
        let (back, kind) = match end {
            PayoutEnd::Pending => return,
            PayoutEnd::Canceled => (at + HOUR, "payout_cancel"),
            PayoutEnd::Paid | PayoutEnd::FailedAfterPaid => {
                payout.status = "in_transit";
                self.emit(at + 8 * HOUR, api, "payout.updated", payout.json());
                payout.status = "paid";
                self.emit(at + 2 * DAY, api, "payout.paid", payout.json());
                if end == PayoutEnd::Paid {
                    return;
                }
                (at + 4 * DAY, "payout_failure")
            }
        };
        let mut transaction = self.transaction(kind, "payout_reversal", amount, currency, back);
        transaction.source = Some(payout.id.clone());
        payout.failure_balance_transaction = Some(self.book(transaction));
        payout.status = if end == PayoutEnd::Canceled { "canceled" } else { "failed" };
        let kind = if end == PayoutEnd::Canceled { "payout.canceled" } else { "payout.failed" };
        self.emit(back, api, kind, payout.json());
    }

    /// A transfer to a connected account, reversed in parts if asked.
    pub(super) fn transfer(
        &mut self,
        (amount, currency): (i64, &'static str),
        at: i64,
        destination: String,
        metadata: Metadata,
        reversals: &[i64],
    ) {
        let id = self.id("tr");
        let mut transaction = self.transaction("transfer", "transfer", -amount, currency, at);
        transaction.source = Some(id.clone());
        let balance_transaction = self.book(transaction);
        let mut transfer = Transfer {
            id,
            amount,
            currency,
            created: at,
            destination,
            balance_transaction,
            metadata,
            reversals: Vec::new(),
        };
        self.emit(at, Api::New, "transfer.created", transfer.json());
        for (n, part) in (1..).zip(reversals) {
            let back = at + n * DAY;
            let id = self.id("trr");
            let mut transaction = self.transaction("transfer_refund", "transfer_reversal", *part, currency, back);
            transaction.source = Some(id.clone());
            let booked = self.book(transaction);
            transfer.reversals.push((id, *part, booked, back));
            self.emit(back, Api::New, "transfer.reversed", transfer.json());
        }
    }

    /// An application fee, and what of it is given back.
    pub(super) fn application_fee(
        &mut self,
        (amount, currency): (i64, &'static str),
        at: i64,
        account: String,
        originating_transaction: Option<String>,
        refunded: Option<i64>,
    ) {
        let id = self.id("fee");
        let mut transaction = self.transaction("application_fee", "platform_earning", amount, currency, at);
        transaction.source = Some(id.clone());
        let balance_transaction = self.book(transaction);
        let charge = self.id("ch");
        let mut fee = ApplicationFee {
            id,
            account,
            amount,
            currency,
            created: at,
            charge,
            originating_transaction,
            balance_transaction,
            refunds: Vec::new(),
        };
        // A platform that also listens to its connected accounts hears of it from there.
        let heard_from = (self.repeats && self.chance(30)).then(|| fee.account.clone());
        self.emit_from(at, Api::New, "application_fee.created", fee.json(), heard_from.as_deref());
        if let Some(part) = refunded {
            let back = at + 3 * DAY;
            let id = self.id("fr");
            let mut transaction =
                self.transaction("application_fee_refund", "platform_earning_refund", -part, currency, back);
            transaction.source = Some(id.clone());
            let booked = self.book(transaction);
            fee.refunds.push((id, part, booked, back));
            self.emit(back, Api::New, "application_fee.refunded", fee.json());
        }
    }

    /// Money of the platform's bank comes into its balance.
    pub(super) fn top_up(&mut self, amount: i64, currency: &'static str, at: i64) {
        let id = self.id("tu");
        self.emit(at, Api::New, "topup.created", topup(&id, amount, currency, at, "pending", None));
        let settled = at + 2 * DAY;
        let mut transaction = self.transaction("topup", "topup", amount, currency, settled);
        transaction.source = Some(id.clone());
        let booked = self.book(transaction);
        self.emit(settled, Api::New, "topup.succeeded", topup(&id, amount, currency, at, "succeeded", Some(&booked)));
    }

    /// What Stripe takes without a webhook: only the list of balance transactions has it.
    pub(super) fn bare(
        &mut self,
        (kind, category): (&'static str, &'static str),
        (amount, currency): (i64, &'static str),
        at: i64,
        description: &str,
    ) {
        let mut transaction = self.transaction(kind, category, amount, currency, at);
        transaction.description = Some(description.to_owned());
        // Of these the type alone says it all.
        transaction.uncategorised &= matches!(kind, "stripe_fee" | "stripe_fx_fee" | "tax_fee");
        self.book(transaction);
    }
}
