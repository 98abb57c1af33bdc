//! Webhooks for the generator: subscription renewals as Stripe tells them, ten events to a payment, each with its own id.

use fanledger_devkit::stripe::sign;
use serde_json::{Value, json};

use crate::bench::ground::WEBHOOK_SECRET;

/// A renewal in the order in which Stripe usually sends it. One of the ten moves money, two say whose it is.
const TYPES: [(&str, Object); 10] = [
    ("invoice.created", Object::Invoice),
    ("invoice.finalized", Object::Invoice),
    ("payment_intent.created", Object::PaymentIntent),
    ("customer.updated", Object::Customer),
    ("charge.succeeded", Object::Charge),
    ("payment_intent.succeeded", Object::PaymentIntent),
    ("invoice.updated", Object::Invoice),
    ("invoice.paid", Object::Invoice),
    ("invoice.payment_succeeded", Object::Invoice),
    ("customer.subscription.updated", Object::Subscription),
];

#[derive(Clone, Copy)]
enum Object {
    Invoice,
    PaymentIntent,
    Customer,
    Charge,
    Subscription,
}

/// Event number `n` of a run; the same number and run make the same event.
pub(super) fn body(run: &str, n: usize, created: i64) -> String {
    let (event_type, object) = TYPES[n % TYPES.len()];
    let payment = format!("{run}{:010}", n / TYPES.len());
    json!({
        "id": format!("evt_{run}{n:010}"),
        "object": "event",
        "api_version": "2026-10-28.endive",
        "created": created,
        "livemode": false,
        "pending_webhooks": 1,
        "request": {"id": null, "idempotency_key": null},
        "type": event_type,
        "data": {"object": object_of(object, &payment, event_type, created)},
    })
    .to_string()
}

fn object_of(object: Object, payment: &str, event_type: &str, created: i64) -> Value {
    let metadata = json!({"creator_id": "crt_bench", "fan_id": format!("fan_{payment}"), "kind": "subscription"});
    match object {
        Object::Invoice => json!({
            "id": format!("in_{payment}"), "object": "invoice", "amount_due": 1099, "amount_paid": 1099, "currency": "usd",
            "billing_reason": "subscription_cycle", "collection_method": "charge_automatically", "created": created,
            "customer": format!("cus_{payment}"), "status": if event_type == "invoice.created" { "draft" } else { "paid" },
            "livemode": false, "metadata": {}, "subtotal": 1099, "total": 1099, "total_taxes": [],
            "parent": {"type": "subscription_details",
                       "subscription_details": {"subscription": format!("sub_{payment}"), "metadata": metadata}},
            "payments": {"object": "list", "data": [{"id": format!("inpay_{payment}"), "object": "invoice_payment",
                "payment": {"type": "payment_intent", "payment_intent": format!("pi_{payment}")}}]},
            "lines": {"object": "list", "data": [{"id": format!("il_{payment}"), "object": "line_item", "amount": 1099,
                "currency": "usd", "description": "1 × Gold tier (at $10.99 / month)", "quantity": 1}]},
        }),
        Object::PaymentIntent => json!({
            "id": format!("pi_{payment}"), "object": "payment_intent", "amount": 1099, "amount_received": 1099,
            "currency": "usd", "created": created, "customer": format!("cus_{payment}"), "livemode": false, "metadata": {},
            "capture_method": "automatic_async", "confirmation_method": "automatic",
            "latest_charge": if event_type == "payment_intent.created" { Value::Null } else { format!("ch_{payment}").into() },
            "status": if event_type == "payment_intent.created" { "requires_confirmation" } else { "succeeded" },
        }),
        Object::Customer => json!({
            "id": format!("cus_{payment}"), "object": "customer", "balance": 0, "created": created, "currency": "usd",
            "email": "fan@example.com", "livemode": false, "metadata": {}, "name": "A Fan", "preferred_locales": ["en"],
        }),
        Object::Charge => json!({
            "id": format!("ch_{payment}"), "object": "charge", "amount": 1099, "amount_captured": 1099, "amount_refunded": 0,
            "balance_transaction": null, "captured": true, "created": created, "currency": "usd",
            "customer": format!("cus_{payment}"), "description": "Subscription update", "disputed": false, "livemode": false,
            "metadata": {}, "outcome": {"network_status": "approved_by_network", "risk_level": "normal", "type": "authorized"},
            "paid": true, "payment_intent": format!("pi_{payment}"), "payment_method": format!("pm_{payment}"),
            "payment_method_details": {"type": "card", "card": {"brand": "visa", "country": "US", "exp_month": 12,
                "exp_year": 2030, "funding": "credit", "last4": "4242", "network": "visa"}},
            "refunded": false, "status": "succeeded",
        }),
        Object::Subscription => json!({
            "id": format!("sub_{payment}"), "object": "subscription", "cancel_at_period_end": false, "created": created,
            "currency": "usd", "customer": format!("cus_{payment}"), "livemode": false, "metadata": metadata, "status": "active",
            "items": {"object": "list", "data": [{"id": format!("si_{payment}"), "object": "subscription_item", "quantity": 1,
                "current_period_start": created, "current_period_end": created + 2_592_000}]},
        }),
    }
}

/// The whole HTTP request for an event, signed now.
pub(super) fn request(host: &str, body: &str, unix_seconds: i64) -> Vec<u8> {
    let signature = sign(WEBHOOK_SECRET, unix_seconds, body.as_bytes());
    format!(
        "POST /webhooks/stripe HTTP/1.1\r\nhost: {host}\r\nuser-agent: Stripe/1.0 (+https://stripe.com/docs/webhooks)\r\n\
         content-type: application/json; charset=utf-8\r\nstripe-signature: {signature}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}
