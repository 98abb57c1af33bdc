//! What was seen: snapshots by object, links between objects, and balance transactions by id.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::Knows;

/// How an object looked when an event was made. Sorted, the last is the newest: by the event's `created`, then by the place
/// of the status in the object's life, then by the event's id.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) created: i64,
    rank: i64,
    event: String,
    pub(crate) object: Value,
}

#[derive(Default)]
pub(crate) struct Seen {
    /// By Stripe's word for the kind of object, then by id; oldest first.
    objects: BTreeMap<String, BTreeMap<String, Vec<Snapshot>>>,
    pub(crate) transactions: BTreeMap<String, Value>,
    /// Which object a balance transaction belongs to.
    pub(crate) owner: BTreeMap<String, String>,
    by_owner: BTreeMap<String, Vec<String>>,
    refunds_of: BTreeMap<String, BTreeSet<String>>,
    disputes_of: BTreeMap<String, BTreeSet<String>>,
    /// Charge or payment intent → invoices.
    pub(crate) invoices_of: BTreeMap<String, BTreeSet<String>>,
    /// Payment intent or invoice → checkout sessions.
    pub(crate) sessions_of: BTreeMap<String, BTreeSet<String>>,
}

const REFUND_LIFE: &[&str] = &["pending", "requires_action", "succeeded", "canceled", "failed"];
const PAYOUT_LIFE: &[&str] = &["pending", "in_transit", "paid", "canceled", "failed"];
const TOPUP_LIFE: &[&str] = &["pending", "succeeded", "canceled", "failed", "reversed"];
const DISPUTE_LIFE: &[&str] = &[
    "warning_needs_response",
    "warning_under_review",
    "warning_closed",
    "prevented",
    "needs_response",
    "under_review",
    "won",
    "lost",
];

pub(crate) fn text(value: &Value, field: &str) -> Option<String> {
    value[field].as_str().map(str::to_owned)
}

/// An id, whether it stands alone or the object was expanded.
pub(crate) fn id_of(value: &Value) -> Option<String> {
    value.as_str().or_else(|| value["id"].as_str()).map(str::to_owned)
}

pub(crate) fn minor(value: &Value, field: &str) -> i128 {
    i128::from(value[field].as_i64().unwrap_or_else(|| panic!("{field} of {value}")))
}

pub(crate) fn succeeded(charge: &Value) -> bool {
    match charge["status"].as_str() {
        Some(status) => status == "succeeded" || status == "paid",
        None => charge["paid"] == true,
    }
}

pub(crate) fn is_captured(charge: &Value) -> bool {
    charge["captured"] == true && succeeded(charge)
}

fn rank(kind: &str, object: &Value) -> i64 {
    let status = object["status"].as_str().unwrap_or_default();
    let place = |life: &[&str]| i64::try_from(life.iter().position(|known| *known == status).unwrap_or(0)).unwrap();
    match kind {
        "charge" if status == "failed" => 3,
        "charge" if is_captured(object) => 2,
        "charge" if succeeded(object) => 1,
        "refund" => place(REFUND_LIFE),
        "payout" => place(PAYOUT_LIFE),
        "topup" => place(TOPUP_LIFE),
        "dispute" => place(DISPUTE_LIFE),
        _ => 0,
    }
}

/// Whether events of this type say how the object itself stands. `charge.refunded` does only for the refunds that it embeds.
fn counts(event_type: &str) -> bool {
    match event_type {
        "charge.pending"
        | "charge.succeeded"
        | "charge.captured"
        | "charge.updated"
        | "charge.failed"
        | "charge.expired"
        | "refund.created"
        | "refund.updated"
        | "refund.failed"
        | "charge.refund.updated"
        | "charge.dispute.created"
        | "charge.dispute.updated"
        | "charge.dispute.closed"
        | "charge.dispute.funds_withdrawn"
        | "charge.dispute.funds_reinstated"
        | "transfer.created"
        | "transfer.updated"
        | "transfer.reversed"
        | "payout.created"
        | "payout.updated"
        | "payout.paid"
        | "payout.failed"
        | "payout.canceled"
        | "application_fee.created"
        | "application_fee.refunded"
        | "application_fee.updated"
        | "invoice_payment.paid" => true,
        other => ["topup.", "payment_intent.", "checkout.session.", "invoice.", "customer.subscription."]
            .iter()
            .any(|prefix| other.starts_with(prefix)),
    }
}

fn list(value: &Value) -> Vec<Value> {
    value["data"].as_array().or_else(|| value.as_array()).cloned().unwrap_or_default()
}

impl Seen {
    pub(crate) fn new(events: &[Value], api: &[Value], knows: Knows) -> Self {
        let mut seen = Self::default();
        let mut named = BTreeMap::new();
        let mut known = BTreeSet::new();
        for event in events {
            let (id, event_type) = (text(event, "id").unwrap(), text(event, "type").unwrap());
            let of_connected = event["account"].is_string() && !event_type.starts_with("application_fee.");
            if event["livemode"] != false || of_connected || !known.insert(id.clone()) {
                continue;
            }
            let (object, created) = (&event["data"]["object"], event["created"].as_i64().unwrap());
            if event_type == "charge.refunded" {
                for refund in list(&object["refunds"]) {
                    seen.snapshot(&id, created, &refund, &mut named);
                }
            } else if counts(&event_type) {
                seen.snapshot(&id, created, object, &mut named);
            }
        }
        for of_kind in seen.objects.values_mut() {
            for snapshots in of_kind.values_mut() {
                snapshots.sort_by(|a, b| (a.created, a.rank, &a.event).cmp(&(b.created, b.rank, &b.event)));
            }
        }
        for transaction in api {
            let id = text(transaction, "id").unwrap();
            let fetched = match knows {
                Knows::Embedded => false,
                Knows::Named => named.contains_key(&id),
                Knows::Listed => true,
            };
            if fetched {
                seen.transactions.insert(id, transaction.clone());
            }
        }
        for (id, transaction) in &seen.transactions {
            if let Some(owner) = id_of(&transaction["source"]).or_else(|| named.get(id).cloned()) {
                seen.owner.insert(id.clone(), owner.clone());
                seen.by_owner.entry(owner).or_default().push(id.clone());
            }
        }
        seen
    }

    fn snapshot(&mut self, event: &str, created: i64, object: &Value, named: &mut BTreeMap<String, String>) {
        let (kind, id) = (text(object, "object").unwrap(), text(object, "id").unwrap());
        let mut name = |value: &Value, owner: &str| {
            if let Some(transaction) = id_of(value) {
                named.insert(transaction, owner.to_owned());
            }
        };
        if ["charge", "refund", "payout", "transfer", "application_fee", "topup"].contains(&kind.as_str()) {
            name(&object["balance_transaction"], &id);
            name(&object["failure_balance_transaction"], &id);
        }
        for part in list(&object["reversals"]) {
            name(&part["balance_transaction"], &text(&part, "id").unwrap());
        }
        if kind == "application_fee" {
            for part in list(&object["refunds"]) {
                name(&part["balance_transaction"], &text(&part, "id").unwrap());
            }
        }
        if kind == "dispute" {
            for transaction in list(&object["balance_transactions"]) {
                let transaction_id = text(&transaction, "id").unwrap();
                name(&transaction["id"], &id);
                self.transactions.insert(transaction_id, transaction);
            }
        }
        self.link(&kind, &id, object);
        let snapshot = Snapshot { created, rank: rank(&kind, object), event: event.to_owned(), object: object.clone() };
        self.objects.entry(kind).or_default().entry(id).or_default().push(snapshot);
    }

    fn link(&mut self, kind: &str, id: &str, object: &Value) {
        let add = |links: &mut BTreeMap<String, BTreeSet<String>>, from: Option<String>, to: &str| {
            if let Some(from) = from {
                links.entry(from).or_default().insert(to.to_owned());
            }
        };
        match kind {
            "refund" => add(&mut self.refunds_of, id_of(&object["charge"]), id),
            "dispute" => add(&mut self.disputes_of, id_of(&object["charge"]), id),
            "charge" | "payment_intent" => {
                if let Some(invoice) = id_of(&object["invoice"]) {
                    add(&mut self.invoices_of, Some(id.to_owned()), &invoice);
                }
            }
            "checkout.session" => {
                add(&mut self.sessions_of, id_of(&object["payment_intent"]), id);
                add(&mut self.sessions_of, id_of(&object["invoice"]), id);
            }
            "invoice" => {
                add(&mut self.invoices_of, id_of(&object["charge"]), id);
                add(&mut self.invoices_of, id_of(&object["payment_intent"]), id);
                for payment in list(&object["payments"]) {
                    add(&mut self.invoices_of, id_of(&payment["payment"]["charge"]), id);
                    add(&mut self.invoices_of, id_of(&payment["payment"]["payment_intent"]), id);
                }
            }
            "invoice_payment" => {
                let invoice = id_of(&object["invoice"]).unwrap();
                add(&mut self.invoices_of, id_of(&object["payment"]["charge"]), &invoice);
                add(&mut self.invoices_of, id_of(&object["payment"]["payment_intent"]), &invoice);
            }
            _ => {}
        }
    }

    pub(crate) fn ids(&self, kind: &str) -> Vec<String> {
        self.objects.get(kind).map(|of_kind| of_kind.keys().cloned().collect()).unwrap_or_default()
    }

    /// Oldest first.
    pub(crate) fn snapshots(&self, kind: &str, id: &str) -> &[Snapshot] {
        self.objects.get(kind).and_then(|of_kind| of_kind.get(id)).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn newest(&self, kind: &str, id: &str) -> Option<&Value> {
        self.snapshots(kind, id).last().map(|snapshot| &snapshot.object)
    }

    /// As the newest event made by then tells it.
    pub(crate) fn newest_at(&self, kind: &str, id: &str, instant: i64) -> Option<&Value> {
        self.snapshots(kind, id)
            .iter()
            .rev()
            .find(|snapshot| snapshot.created <= instant)
            .map(|snapshot| &snapshot.object)
    }

    /// The balance transactions of an object by an instant, by their `created`, then by id.
    pub(crate) fn transactions_of(&self, owner: &str, instant: i64) -> Vec<&Value> {
        let ids = self.by_owner.get(owner).map_or(&[][..], Vec::as_slice);
        let mut all: Vec<&Value> = ids
            .iter()
            .map(|id| &self.transactions[id])
            .filter(|transaction| transaction["created"].as_i64().unwrap() <= instant)
            .collect();
        all.sort_by_key(|transaction| (transaction["created"].as_i64().unwrap(), text(transaction, "id").unwrap()));
        all
    }

    pub(crate) fn refunds_of(&self, charge: &str) -> Vec<String> {
        self.refunds_of.get(charge).map(|ids| ids.iter().cloned().collect()).unwrap_or_default()
    }

    pub(crate) fn disputes_of(&self, charge: &str) -> Vec<String> {
        self.disputes_of.get(charge).map(|ids| ids.iter().cloned().collect()).unwrap_or_default()
    }

    /// Charges that were seen, or that a refund, a dispute or a balance transaction names.
    pub(crate) fn charge_ids(&self) -> BTreeSet<String> {
        let mut ids: BTreeSet<String> = self.ids("charge").into_iter().collect();
        ids.extend(self.refunds_of.keys().cloned());
        ids.extend(self.disputes_of.keys().cloned());
        ids.extend(self.owner.values().filter(|owner| owner.starts_with("ch_") || owner.starts_with("py_")).cloned());
        ids
    }

    pub(crate) fn instants(&self) -> BTreeSet<i64> {
        let transactions = self.transactions.values().filter_map(|transaction| transaction["created"].as_i64());
        let snapshots = self.objects.values().flat_map(BTreeMap::values).flatten();
        snapshots
            .flat_map(|snapshot| [Some(snapshot.created), snapshot.object["created"].as_i64()])
            .flatten()
            .chain(transactions)
            .collect()
    }
}
