//! Six months of a small platform, interesting to look at: what `fanledger seed` plays.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde_json::json;

use super::History;
use super::objects::{Api, Charge, Invoice, Metadata, checkout_session, payment_intent, subscription};
use super::world::{DAY, DisputeEnd, HOUR, Known, PayoutEnd, RefundEnd, World};

const DAYS: i64 = 182;
const FANS: i64 = 300;
const SUBSCRIPTIONS: i64 = 190;
const TIPS: i64 = 420;
const UNLOCKS: i64 = 230;

struct Creator {
    id: &'static str,
    currency: &'static str,
    /// Monthly prices of the tiers.
    tiers: [i64; 2],
    /// Where the platform agreed on another share than its policy's.
    share_bps: Option<&'static str>,
    account: &'static str,
}

const CREATORS: &[Creator] = &[
    Creator { id: "crt_aurora", currency: "usd", tiers: [499, 1499], share_bps: None, account: "acct_1Aurora00000001" },
    Creator {
        id: "crt_basalt",
        currency: "usd",
        tiers: [999, 2499],
        share_bps: Some("8500"),
        account: "acct_1Basalt00000002",
    },
    Creator {
        id: "crt_cinder",
        currency: "usd",
        tiers: [1099, 4999],
        share_bps: Some("8333"),
        account: "acct_1Cinder00000003",
    },
    Creator { id: "crt_delta", currency: "eur", tiers: [599, 1299], share_bps: None, account: "acct_1Delta000000004" },
    Creator {
        id: "crt_ember",
        currency: "eur",
        tiers: [900, 1900],
        share_bps: Some("7500"),
        account: "acct_1Ember000000005",
    },
    Creator { id: "crt_fjord", currency: "gbp", tiers: [450, 1250], share_bps: None, account: "acct_1Fjord000000006" },
    Creator { id: "crt_ginkgo", currency: "jpy", tiers: [500, 1500], share_bps: None, account: "acct_1Ginkgo00000007" },
    Creator {
        id: "crt_hazel",
        currency: "kwd",
        tiers: [1500, 4100],
        share_bps: Some("9000"),
        account: "acct_1Hazel000000008",
    },
];

/// Where fans live, and the percent of tax that is inside the price there.
const JURISDICTIONS: &[(&str, i64)] =
    &[("us-ny", 0), ("us-ca", 0), ("us-wa", 10), ("de", 19), ("fr", 20), ("gb", 20), ("jp", 10)];

/// How what goes wrong in the demo ends; each at least once, in turn.
const DISPUTES: &[DisputeEnd] = &[
    DisputeEnd::Lost,
    DisputeEnd::Won,
    DisputeEnd::WonAfterLost,
    DisputeEnd::Lost,
    DisputeEnd::InquiryClosed,
    DisputeEnd::PartlyWon,
    DisputeEnd::Open,
    DisputeEnd::InquiryBecomesLost,
];

/// The demo's history up to `end`, a function of `seed` and `end`.
pub fn demo(seed: u64, end: DateTime<Utc>) -> History {
    let end = end.timestamp();
    let mut demo = Demo {
        world: World::new(seed),
        start: end - DAYS * DAY,
        end,
        customers: BTreeMap::new(),
        payments: 0,
        disputes: 0,
        earned: BTreeMap::new(),
    };
    demo.world_before();
    (0..SUBSCRIPTIONS).for_each(|_| demo.subscribe());
    (0..TIPS).for_each(|_| demo.tip());
    (0..UNLOCKS).for_each(|_| demo.unlock());
    demo.strays();
    (1..=DAYS / 30).for_each(|month| demo.month_end(month));
    demo.accounts();
    demo.world.history(end)
}

struct Demo {
    world: World,
    start: i64,
    end: i64,
    /// A fan is one customer at Stripe.
    customers: BTreeMap<i64, String>,
    payments: u32,
    disputes: usize,
    /// About what creators earned by month, creator and currency of settlement: what transfers take from.
    earned: BTreeMap<(i64, usize, &'static str), i64>,
}

impl Demo {
    /// The platform moved to newer versions of the API as time went by.
    fn api(&self, at: i64) -> Api {
        match (at - self.start) / DAY {
            ..30 => Api::Old,
            30..80 => Api::Middle,
            _ => Api::New,
        }
    }

    fn fan(&mut self) -> (i64, String, (&'static str, i64)) {
        let fan = self.world.between(1, FANS);
        let fresh = self.world.id("cus");
        let customer = self.customers.entry(fan).or_insert(fresh).clone();
        let home = JURISDICTIONS[usize::try_from(fan).unwrap_or(0) % JURISDICTIONS.len()];
        (fan, customer, home)
    }

    fn metadata(creator: &Creator, fan: i64, kind: &str, tax: Option<(&str, i64)>) -> Metadata {
        let mut metadata = vec![("creator_id", creator.id.to_owned()), ("fan_id", format!("fan_{fan:03}"))];
        metadata.push(("kind", kind.to_owned()));
        if let Some(share) = creator.share_bps {
            metadata.push(("creator_share_bps", share.to_owned()));
        }
        if let Some((jurisdiction, tax)) = tax.filter(|(_, tax)| *tax > 0) {
            metadata.push(("tax_minor", tax.to_string()));
            metadata.push(("tax_jurisdiction", jurisdiction.to_owned()));
        }
        metadata
    }

    fn charge(&mut self, amount: i64, currency: &'static str, customer: String, at: i64) -> Charge {
        Charge {
            id: self.world.id("ch"),
            api: self.api(at),
            created: at,
            amount,
            amount_captured: 0,
            currency,
            customer: Some(customer),
            payment_intent: Some(self.world.id("pi")),
            invoice: None,
            metadata: Vec::new(),
            status: "pending",
            captured: false,
            balance_transaction: None,
            failure_balance_transaction: None,
            disputed: false,
            refunds: Vec::new(),
            livemode: false,
        }
    }

    /// The charge succeeds, and sometimes comes back in one way or another.
    fn pay(&mut self, charge: &mut Charge, creator: Option<usize>) {
        // Older versions wait for the balance transaction before they send the event.
        let known = if charge.api == Api::Old { Known::AtOnce } else { Known::Later(self.world.between(1, 4)) };
        self.world.succeed(charge, known);
        self.payments += 1;
        if let Some(creator) = creator {
            let month = (charge.created - self.start) / DAY / 30 + 1;
            let currency = if charge.currency == "eur" { "usd" } else { charge.currency };
            *self.earned.entry((month, creator, currency)).or_default() += charge.amount * 7 / 10;
        }
        let at = charge.created;
        if self.payments.is_multiple_of(97) {
            let end = DISPUTES[self.disputes % DISPUTES.len()];
            self.disputes += 1;
            let amount = charge.amount;
            if self.disputes.is_multiple_of(3) {
                // Refunded in part before the bank asked for the rest.
                self.world.refund(charge, charge.amount / 4, at + DAY, RefundEnd::Succeeds);
                self.world.dispute(charge, amount - amount / 4, at + 6 * DAY, end);
            } else {
                self.world.dispute(charge, amount, at + 6 * DAY, end);
            }
        } else if self.payments.is_multiple_of(31) {
            let step = charge.currency_step();
            let third = charge.amount / 3 / step * step;
            for n in 1..=2 {
                self.world.refund(charge, third, at + n * 3 * DAY, RefundEnd::Succeeds);
            }
            if self.world.chance(50) {
                let rest = charge.amount - 2 * third;
                self.world.refund(charge, rest, at + 20 * DAY, RefundEnd::SucceedsLater);
            }
        } else if self.payments.is_multiple_of(29) {
            let (amount, back) = (charge.amount, at + self.world.between(1, 9) * DAY);
            self.world.refund(charge, amount, back, RefundEnd::Succeeds);
        } else if self.payments.is_multiple_of(113) {
            let amount = charge.amount;
            self.world.refund(charge, amount, at + 2 * DAY, RefundEnd::FailsAfterSuccess);
        } else if self.payments.is_multiple_of(211) {
            self.world.fail_after_success(charge, at + 5 * DAY);
        }
    }

    fn subscribe(&mut self) {
        let (fan, customer, (jurisdiction, percent)) = self.fan();
        let which = usize::try_from(self.world.between(0, 7)).unwrap_or(0);
        let creator = &CREATORS[which];
        let amount = self.world.pick(&creator.tiers);
        let tax = amount * percent / (100 + percent);
        let metadata = Self::metadata(creator, fan, "subscription", Some((jurisdiction, tax)));
        let id = self.world.id("sub");
        let mut at = self.start + self.world.between(0, (DAYS - 20) * DAY);
        let object = subscription(&id, self.api(at), "active", &customer, at, &metadata);
        self.world.emit(at, self.api(at), "customer.subscription.created", object);
        while at < self.end {
            let mut charge = self.charge(amount, creator.currency, customer.clone(), at);
            let invoice = self.invoice(&mut charge, &id, metadata.clone());
            if self.world.chance(4) {
                self.decline(&charge);
            }
            self.pay(&mut charge, Some(which));
            // Invoices are now and then announced hours after the money; it waits in suspense.
            let told = at + if self.world.chance(6) { 5 * HOUR } else { 1 };
            self.world.emit(told, charge.api, "invoice.paid", invoice.json());
            if charge.api == Api::New {
                self.world.emit(told, charge.api, "invoice_payment.paid", invoice.payment());
            }
            at += 30 * DAY;
            if self.world.chance(12) {
                let object = subscription(&id, self.api(at), "canceled", &customer, at - 30 * DAY, &metadata);
                self.world.emit(at, self.api(at), "customer.subscription.deleted", object);
                return;
            }
        }
    }

    /// The card is declined at first; the second attempt, an hour later, is the charge that succeeds.
    fn decline(&mut self, charge: &Charge) {
        let mut declined = charge.clone();
        declined.id = self.world.id("ch");
        declined.created = charge.created - HOUR;
        declined.status = "failed";
        self.world.emit(declined.created, declined.api, "charge.failed", declined.json());
    }

    fn invoice(&mut self, charge: &mut Charge, subscription: &str, metadata: Metadata) -> Invoice {
        let invoice = Invoice {
            id: self.world.id("in"),
            api: charge.api,
            created: charge.created,
            currency: charge.currency,
            customer: charge.customer.clone(),
            amount_paid: charge.amount,
            total: charge.amount,
            tax: None,
            charge: Some(charge.id.clone()),
            payment_intent: charge.payment_intent.clone(),
            subscription: Some(subscription.to_owned()),
            metadata: Vec::new(),
            subscription_metadata: metadata,
            tells_subscription_metadata: true,
            period_days: 30,
            lists_payments: false,
            payment_id: self.world.id("inpay"),
        };
        charge.invoice = Some(invoice.id.clone());
        invoice
    }

    fn tip(&mut self) {
        let (fan, customer, _) = self.fan();
        let which = usize::try_from(self.world.between(0, 7)).unwrap_or(0);
        let creator = &CREATORS[which];
        let unit = if creator.currency == "kwd" { 500 } else { 100 };
        let amount = self.world.pick(&[1, 2, 3, 5, 5, 10, 20, 50]) * unit;
        let at = self.start + self.world.between(0, DAYS * DAY);
        let mut charge = self.charge(amount, creator.currency, customer, at);
        // What a checkout puts on the intent, Stripe copies to the charge.
        charge.metadata = Self::metadata(creator, fan, "tip", None);
        self.pay(&mut charge, Some(which));
        if let Some(id) = charge.payment_intent.clone().filter(|_| self.payments.is_multiple_of(2)) {
            let intent = payment_intent(&id, &charge, &charge.metadata, "succeeded");
            self.world.emit(at, charge.api, "payment_intent.succeeded", intent);
        }
    }

    fn unlock(&mut self) {
        let (fan, customer, (jurisdiction, percent)) = self.fan();
        let which = usize::try_from(self.world.between(0, 7)).unwrap_or(0);
        let creator = &CREATORS[which];
        let amount = creator.tiers[0] * self.world.pick(&[1, 2, 3]);
        let tax = amount * percent / (100 + percent);
        let at = self.start + self.world.between(0, DAYS * DAY);
        let mut charge = self.charge(amount, creator.currency, customer, at);
        let metadata = Self::metadata(creator, fan, "unlock", Some((jurisdiction, tax)));
        self.pay(&mut charge, Some(which));
        // Only the session says whose money it is, and it comes before the charge, after it, or much later.
        let told = (at + self.world.pick(&[-2, 1, 1, 2, 7_200])).clamp(self.start, self.end);
        let id = self.world.id("cs_test");
        let session = checkout_session(&id, &charge, &metadata, Some(tax).filter(|tax| *tax > 0));
        self.world.emit(told, charge.api, "checkout.session.completed", session);
    }

    /// The bank lends the platform its first balance.
    fn world_before(&mut self) {
        let at = self.start;
        self.world.top_up(50_000, "usd", at);
    }

    /// Money that nobody can say whose it is, and what happens beside the platform's own charges.
    fn strays(&mut self) {
        for n in 0..8 {
            let (_, customer, _) = self.fan();
            let at = self.start + self.world.between(20 * DAY, (DAYS - 1) * DAY);
            let mut charge = self.charge(700 + 100 * n, "usd", customer, at);
            if n >= 6 {
                charge.metadata = Self::metadata(&CREATORS[0], n, "tip", None);
                charge.metadata.push(("creator_share_bps", "12000".to_owned()));
            }
            self.pay(&mut charge, None);
        }
        for (n, refunded) in [(1, None), (2, Some(40)), (3, None)] {
            let at = self.start + n * 40 * DAY;
            let account = CREATORS[1].account.to_owned();
            self.world.application_fee((100 * n, "usd"), at, account, None, refunded);
        }
    }

    /// Whose the connected accounts are, and whether they can be paid. One is restricted of late, one creator has two, and of one
    /// nothing was ever told.
    fn accounts(&mut self) {
        for creator in CREATORS {
            if creator.id != "crt_ginkgo" {
                self.account(creator.account, creator, self.start, true);
            }
        }
        self.account("acct_1Fjord000000016", &CREATORS[5], self.start + 100 * DAY, true);
        self.account(CREATORS[4].account, &CREATORS[4], self.end - 10 * DAY, false);
    }

    fn account(&mut self, id: &str, creator: &Creator, at: i64, able: bool) {
        let (capability, due, reason) = if able {
            ("active", vec![], None)
        } else {
            ("inactive", vec!["external_account"], Some("requirements.past_due"))
        };
        let object = json!({
            "id": id, "object": "account", "capabilities": { "transfers": capability }, "charges_enabled": false,
            "created": self.start, "details_submitted": true, "livemode": false,
            "metadata": { "creator_id": creator.id }, "payouts_enabled": able,
            "requirements": { "currently_due": due, "disabled_reason": reason, "eventually_due": due, "past_due": due },
            "type": "express",
        });
        self.world.emit_from(at, self.api(at), "account.updated", object, Some(id));
    }

    /// Creators are sent most of what they earned, the platform takes some of the rest, and Stripe its own fees.
    fn month_end(&mut self, month: i64) {
        let at = self.start + month * 30 * DAY + 6 * HOUR;
        for (which, creator) in CREATORS.iter().enumerate() {
            for currency in ["usd", "gbp", "jpy", "kwd"] {
                let earned = self.earned.get(&(month, which, currency)).copied().unwrap_or(0);
                // Kuwaiti payouts and transfers end in 0.
                let amount = earned * 7 / 10 / 10 * 10;
                if amount < 100 {
                    continue;
                }
                let metadata = vec![("creator_id", creator.id.to_owned())];
                let reversals: &[i64] = if month == 3 && which == 2 { &[500] } else { &[] };
                self.world.transfer((amount, currency), at, creator.account.to_owned(), metadata, reversals);
            }
        }
        for currency in ["usd", "gbp", "jpy", "kwd"] {
            // All months' money is in the balance that the generator knows; a sixth of a tenth keeps it solvent.
            let amount = self.world.balance(currency) / 60 / 10 * 10;
            let end = match (month, currency) {
                (2, "gbp") | (4, "usd") => PayoutEnd::FailedAfterPaid,
                (5, "jpy") => PayoutEnd::Canceled,
                _ => PayoutEnd::Paid,
            };
            if amount > 0 {
                self.world.payout(self.api(at), amount, currency, at + DAY, end);
            }
        }
        self.world.bare(("stripe_fee", "fee"), (-900 - month, "usd"), at + HOUR, "Billing - Usage Fee");
        self.world.bare(("stripe_fee", "fee"), (-140 - month, "usd"), at + HOUR, "Radar for Fraud Teams");
        match month {
            2 => self.world.bare(("reserve_transaction", "risk_reserved_funds"), (-20_000, "usd"), at, "Reserve hold"),
            5 => {
                self.world.bare(("reserve_transaction", "risk_reserved_funds"), (20_000, "usd"), at, "Reserve release")
            }
            _ => {}
        }
    }
}

impl Charge {
    /// What amounts that are sent to Stripe in this currency are multiples of.
    fn currency_step(&self) -> i64 {
        if self.currency == "kwd" { 10 } else { 1 }
    }
}
