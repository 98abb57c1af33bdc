//! Small histories in which everything goes wrong, for property tests.

use super::History;
use super::objects::{Api, Charge, Invoice, Metadata, checkout_session, payment_intent, subscription};
use super::world::{DAY, DisputeEnd, HOUR, Known, PayoutEnd, RefundEnd, World};

/// 2026-01-01 00:00 UTC; a fixed start makes failures easy to read.
const START: i64 = 1_767_225_600;
const CREATORS: &[&str] = &["crt_ada", "crt_bel", "crt_cho"];
const CURRENCIES: &[&str] = &["usd", "usd", "eur", "jpy", "kwd"];
const REFUND_ENDS: &[RefundEnd] = &[
    RefundEnd::Succeeds,
    RefundEnd::Succeeds,
    RefundEnd::SucceedsLater,
    RefundEnd::Fails,
    RefundEnd::FailsAfterSuccess,
    RefundEnd::Canceled,
    RefundEnd::NeverStands,
];
const DISPUTE_ENDS: &[DisputeEnd] = &[
    DisputeEnd::Open,
    DisputeEnd::Won,
    DisputeEnd::Lost,
    DisputeEnd::WonAfterLost,
    DisputeEnd::LostAfterWon,
    DisputeEnd::PartlyWon,
    DisputeEnd::WonWithoutMoney,
    DisputeEnd::InquiryClosed,
    DisputeEnd::InquiryBecomesLost,
    DisputeEnd::Prevented,
];
/// Balance transactions that come by the list alone: type and category, among them some that nobody knows.
const BARE: &[(&str, &str)] = &[
    ("stripe_fee", "fee"),
    ("stripe_fx_fee", "fee"),
    ("network_cost", "network_cost"),
    ("tax_fee", "tax"),
    ("tax_withholding", "tax_withholding"),
    ("tax_fund", "tax_fund"),
    ("fee_credit_funding", "fee_credit_funding"),
    ("connect_collection_transfer", "connect_collection_transfer"),
    ("reserve_transaction", "risk_reserved_funds"),
    ("connect_reserved_funds", "connect_reserved_funds"),
    ("payment_network_reserve_hold", "payment_network_reserve_hold"),
    ("payment_network_reserve_release", "payment_network_reserve_release"),
    ("payout_minimum_balance_hold", "payout_minimum_balance_hold"),
    ("payout_minimum_balance_release", "payout_minimum_balance_release"),
    ("advance", "advance"),
    ("advance_funding", "advance_funding"),
    ("balance_transfer_inbound", "balance_transfer_inbound"),
    ("balance_transfer_outbound", "balance_transfer_outbound"),
    ("inbound_transfer", "inbound_transfer"),
    ("inbound_transfer_reversal", "inbound_transfer_reversal"),
    ("issuing_authorization_hold", "issuing_authorization_hold"),
    ("issuing_authorization_release", "issuing_authorization_release"),
    ("currency_conversion", "currency_conversion"),
    ("financing_payout", "financing_payout"),
    ("anticipation_repayment", "anticipation_repayment"),
    ("obligation_outbound", "obligation_outbound"),
    ("contribution", "contribution"),
    ("climate_order_purchase", "climate_order_purchase"),
    ("unreconciled_customer_funds", "unreconciled_customer_funds"),
    ("reward", "reward"),
    ("revenue_share", "revenue_share"),
    ("issuing_transaction", "issuing_transaction"),
    ("issuing_dispute", "issuing_dispute"),
    ("platform_fee_transfer", "platform_fee_transfer"),
    ("other_adjustment", "other_adjustment"),
    ("something_new", "something_new"),
];

/// What Stripe writes beside them, which for its own fees says what for.
const DESCRIPTIONS: &[&str] = &[
    "by the list alone",
    "Billing - Usage Fee",
    "Radar (2026-01)",
    "Connect (2026-01): Active Account Fee",
    "Dispute fee",
    "Payout fee",
];

/// A history of about `size` payments and other movements, a function of `seed` and `size`.
///
/// It covers captures, partial captures, failures after success, refunds in pieces that fail, several disputes of a
/// charge with every end, foreign currency, attribution early and late in each way, refunds and disputes whose charge
/// is unknown, transfers, payouts, application fees, changes announced under two event ids, events of the other mode
/// and of connected accounts, and balance transactions that only the list has.
pub fn random(seed: u64, size: usize) -> History {
    let mut world = World::new(seed);
    world.repeats = true;
    for _ in 0..size {
        let at = START + world.between(0, 90 * DAY);
        match world.between(0, 99) {
            0..70 => payment(&mut world, at),
            70..74 => orphan(&mut world, at),
            74..79 => transfer(&mut world, at),
            79..84 => {
                let currency = world.pick(CURRENCIES);
                let ends = [PayoutEnd::Pending, PayoutEnd::Paid, PayoutEnd::FailedAfterPaid, PayoutEnd::Canceled];
                let (amount, end) = (world.between(1, 100_000), world.pick(&ends));
                world.payout(Api::New, amount, currency, at, end);
            }
            84..88 => application_fee(&mut world, at),
            88..90 => {
                let amount = world.between(1, 100_000);
                world.top_up(amount, "usd", at);
            }
            90..95 => {
                let (kind, amount) = (world.pick(BARE), world.between(-5_000, 5_000));
                let (currency, description) = (world.pick(CURRENCIES), world.pick(DESCRIPTIONS));
                world.bare(kind, (if amount == 0 { -1 } else { amount }, currency), at, description);
            }
            95..97 => elsewhere(&mut world, at, true),
            _ => elsewhere(&mut world, at, false),
        }
    }
    world.history(i64::MAX)
}

fn new_charge(world: &mut World, at: i64) -> Charge {
    let currency = world.pick(CURRENCIES);
    let amount = match world.between(0, 9) {
        0 => world.between(1, 9),
        1 => world.between(100_000, 99_999_999),
        _ => world.between(50, 20_000),
    };
    Charge {
        id: world.id("ch"),
        api: world.pick(&[Api::Old, Api::Middle, Api::New, Api::New]),
        created: at,
        amount,
        amount_captured: 0,
        currency,
        customer: Some(world.id("cus")),
        payment_intent: Some(world.id("pi")),
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

fn payment(world: &mut World, at: i64) {
    let mut charge = new_charge(world, at);
    if (charge.api == Api::Old && world.chance(20)) || (charge.api == Api::New && world.chance(5)) {
        // Charges made without an intent, as the oldest integrations make them; an invoice then lists the charge itself.
        charge.payment_intent = None;
    }
    if world.chance(10) {
        failed_attempt(world, &charge);
    }
    attribute(world, &mut charge);
    let at = capture(world, &mut charge);
    if charge.amount_captured == 0 || charge.status != "succeeded" {
        return;
    }
    let gross = charge.amount_captured;
    if world.chance(5) {
        let back = at + world.between(3, 9) * DAY;
        world.fail_after_success(&mut charge, back);
        return;
    }
    let mut left = gross;
    while left > 0 && world.chance(35) {
        let (part, back) = (world.between(1, left), at + world.between(1, 40) * DAY);
        let end = world.pick(REFUND_ENDS);
        world.refund(&mut charge, part, back, end);
        if matches!(end, RefundEnd::Succeeds | RefundEnd::SucceedsLater) {
            left -= part;
        }
    }
    while world.chance(12) {
        // A dispute's amount need not be the charge's.
        let amount = if world.chance(60) { gross } else { world.between(1, gross) };
        let (opened, end) = (at + world.between(1, 40) * DAY, world.pick(DISPUTE_ENDS));
        world.dispute(&mut charge, amount, opened, end);
    }
}

/// The first card was declined: one payment intent, two charges.
fn failed_attempt(world: &mut World, charge: &Charge) {
    let declined = Charge { id: world.id("ch"), status: "failed", created: charge.created - HOUR, ..charge.clone() };
    world.emit(declined.created, declined.api, "charge.failed", declined.json());
}

/// How the money comes, or does not, and when it is there for good.
fn capture(world: &mut World, charge: &mut Charge) -> i64 {
    let (at, api) = (charge.created, charge.api);
    match world.between(0, 99) {
        0..50 => {
            let delay = world.between(0, 2 * DAY);
            let known = world.pick(&[Known::AtOnce, Known::Later(delay), Known::Later(2), Known::ByListOnly]);
            world.succeed(charge, known);
        }
        50..60 => {
            charge.status = "failed";
            world.emit(at, api, "charge.failed", charge.json());
        }
        60..70 => {
            // A bank debit: pending for days, with its balance transaction, then a success or a failure.
            charge.captured = true;
            charge.amount_captured = charge.amount;
            world.capture(charge, charge.amount, at);
            world.emit(at, api, "charge.pending", charge.json());
            if world.chance(70) {
                charge.status = "succeeded";
                world.emit(at + 4 * DAY, api, "charge.succeeded", charge.json());
            } else if world.chance(70) {
                world.fail_after_success(charge, at + 4 * DAY);
            }
            return at + 4 * DAY;
        }
        _ => return authorised(world, charge),
    }
    at
}

/// Authorised first; then captured in whole or in part, or expired.
fn authorised(world: &mut World, charge: &mut Charge) -> i64 {
    let (at, api) = (charge.created, charge.api);
    charge.status = "succeeded";
    world.emit(at, api, "charge.succeeded", charge.json());
    if world.chance(25) {
        if world.chance(50) {
            world.void(charge, at + 2 * DAY);
        } else {
            world.emit(at + 7 * DAY, api, "charge.expired", charge.json());
        }
        return at;
    }
    let captured_at = at + world.between(1, 6) * DAY;
    charge.captured = true;
    charge.amount_captured = if world.chance(50) { charge.amount } else { world.between(1, charge.amount) };
    if charge.amount_captured < charge.amount && world.chance(50) {
        // Older accounts book the whole and take back what was not captured.
        world.capture(charge, charge.amount, captured_at);
        let booked = charge.balance_transaction.clone();
        let rest = charge.amount - charge.amount_captured;
        world.release_uncaptured(charge, rest, captured_at);
        charge.balance_transaction = booked;
    } else {
        world.capture(charge, charge.amount_captured, captured_at);
    }
    world.emit(captured_at, api, "charge.captured", charge.json());
    captured_at
}

/// Says whose money it is, in one of the ways that there are, before the charge or after it, or not at all.
fn attribute(world: &mut World, charge: &mut Charge) {
    let metadata = metadata(world, charge.amount);
    let at = (charge.created + world.between(-3, 12) * HOUR).max(START);
    match world.between(0, 99) {
        0..25 => charge.metadata = metadata,
        25..40 => {
            if let Some(id) = charge.payment_intent.clone() {
                let (kind, status) = if world.chance(70) {
                    ("payment_intent.succeeded", "succeeded")
                } else {
                    ("payment_intent.created", "requires_payment_method")
                };
                world.emit(at, charge.api, kind, payment_intent(&id, charge, &metadata, status));
            }
        }
        40..52 => {
            let id = world.id("cs");
            let tax = if world.chance(40) { Some(charge.amount / 11) } else { None };
            let session = checkout_session(&id, charge, &metadata, tax);
            world.emit(at, charge.api, "checkout.session.completed", session);
        }
        52..85 => invoice(world, charge, metadata, at),
        // Something is there, but it does not say whose.
        85..92 => charge.metadata = vec![("campaign", "spring".to_owned())],
        _ => {}
    }
    if world.chance(10) {
        // A second place that says otherwise: the order among places decides, not the order of arrival.
        if let Some(id) = charge.payment_intent.clone() {
            let other = vec![("creator_id", "crt_other".to_owned())];
            world.emit(
                at + HOUR,
                charge.api,
                "payment_intent.succeeded",
                payment_intent(&id, charge, &other, "succeeded"),
            );
        }
    }
}

fn invoice(world: &mut World, charge: &mut Charge, metadata: Metadata, at: i64) {
    let on_subscription = world.chance(60);
    let linked_by_charge = world.chance(50);
    let mut invoice = Invoice {
        id: world.id("in"),
        api: charge.api,
        created: at,
        currency: charge.currency,
        customer: charge.customer.clone(),
        amount_paid: charge.amount,
        total: if world.chance(20) { charge.amount + charge.amount / 3 } else { charge.amount },
        tax: if world.chance(40) { Some(charge.amount / 12) } else { None },
        charge: Some(charge.id.clone()),
        payment_intent: charge.payment_intent.clone(),
        subscription: Some(world.id("sub")),
        metadata: Vec::new(),
        subscription_metadata: Vec::new(),
        tells_subscription_metadata: world.chance(75),
        period_days: 30,
        lists_payments: world.chance(50),
        payment_id: world.id("inpay"),
    };
    if on_subscription {
        invoice.subscription_metadata = metadata;
    } else {
        invoice.metadata = metadata;
    }
    if charge.api != Api::New && linked_by_charge {
        // Found by what the charge says, not by what the invoice says.
        charge.invoice = Some(invoice.id.clone());
        (invoice.charge, invoice.payment_intent) = (None, None);
    }
    if charge.api == Api::New && !invoice.lists_payments {
        world.emit(at + world_delay(linked_by_charge), Api::New, "invoice_payment.paid", invoice.payment());
    }
    if let (Some(id), Some(customer)) = (&invoice.subscription, &invoice.customer) {
        let object = subscription(id, charge.api, "active", customer, at, &invoice.subscription_metadata);
        world.emit(at, charge.api, "customer.subscription.created", object);
    }
    world.emit(at, charge.api, "invoice.paid", invoice.json());
    if world.chance(30) {
        world.emit(at, charge.api, "invoice.payment_succeeded", invoice.json());
    }
}

/// Either at once or hours later.
fn world_delay(at_once: bool) -> i64 {
    if at_once { 0 } else { 5 * HOUR }
}

fn metadata(world: &mut World, amount: i64) -> Metadata {
    let mut metadata = vec![("creator_id", world.pick(CREATORS).to_owned())];
    if world.chance(70) {
        metadata.push(("fan_id", format!("fan_{}", world.between(1, 9))));
    }
    if world.chance(60) {
        metadata.push(("kind", world.pick(&["subscription", "tip", "unlock"]).to_owned()));
    }
    if world.chance(50) {
        let share = world.pick(&["0", "1", "5000", "8333", "9999", "10000"]);
        metadata.push(("creator_share_bps", share.to_owned()));
    }
    if world.chance(40) {
        metadata.push(("tax_minor", world.between(0, amount / 5).to_string()));
        if world.chance(70) {
            metadata.push(("tax_jurisdiction", world.pick(&["us-ca", "de", "jp"]).to_owned()));
        }
    }
    if world.chance(8) {
        let wrong = [
            ("creator_share_bps", "12000"),
            ("creator_share_bps", "eighty"),
            ("creator_id", "nobody"),
            ("tax_minor", "999999999999"),
            ("tax_minor", "-1"),
            ("kind", "gift"),
            ("tax_jurisdiction", "US CA"),
        ];
        let (key, value) = world.pick(&wrong);
        metadata.retain(|(known, _)| *known != key);
        metadata.push((key, value.to_owned()));
    }
    metadata
}

/// A refund or a dispute of a charge that we never hear of.
fn orphan(world: &mut World, at: i64) {
    let mut charge = new_charge(world, at);
    charge.api = Api::New;
    charge.status = "succeeded";
    charge.captured = true;
    charge.amount_captured = charge.amount;
    if world.chance(50) {
        world.orphan_refund(&charge, at);
    } else {
        let (amount, end) = (charge.amount, world.pick(DISPUTE_ENDS));
        world.dispute(&mut charge, amount, at, end);
    }
}

fn transfer(world: &mut World, at: i64) {
    let amount = world.between(2, 50_000);
    let metadata = match world.between(0, 2) {
        0 => Vec::new(),
        1 => vec![("creator_id", "not a creator".to_owned())],
        _ => vec![("creator_id", world.pick(CREATORS).to_owned())],
    };
    let first = world.between(1, amount - 1);
    let reversals = match world.between(0, 2) {
        0 => Vec::new(),
        1 => vec![amount],
        _ => vec![first, amount - first],
    };
    let destination = world.id("acct");
    world.transfer((amount, "usd"), at, destination, metadata, &reversals);
}

fn application_fee(world: &mut World, at: i64) {
    let amount = world.between(1, 5_000);
    let originating = if world.chance(50) { Some(world.id("ch")) } else { None };
    let refunded = if world.chance(50) { Some(world.between(1, amount)) } else { None };
    let account = world.id("acct");
    world.application_fee((amount, "usd"), at, account, originating, refunded);
}

/// A charge that is not ours to book: of the other mode, or of a connected account.
fn elsewhere(world: &mut World, at: i64, other_mode: bool) {
    let mut charge = new_charge(world, at);
    charge.status = "succeeded";
    charge.captured = true;
    charge.amount_captured = charge.amount;
    charge.livemode = other_mode;
    charge.metadata = metadata(world, charge.amount);
    let account = (!other_mode).then(|| world.id("acct"));
    world.emit_from(at, charge.api, "charge.succeeded", charge.json(), account.as_deref());
}
