//! Stripe's objects in Stripe's shapes, as far as money and attribution need them.

use serde_json::{Map, Value, json};

/// The generations of Stripe's API whose shapes differ where it matters to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Api {
    /// A charge embeds its refunds and names its invoice; an invoice names its charge and its subscription.
    Old,
    /// Since 2022-11-15 a charge embeds no refunds.
    Middle,
    /// Since basil a charge names no invoice, and an invoice finds its subscription under `parent`.
    New,
}

impl Api {
    /// A version of that generation.
    pub(super) const fn version(self) -> &'static str {
        match self {
            Self::Old => "2020-08-27",
            Self::Middle => "2024-06-20",
            Self::New => "2026-10-28.endive",
        }
    }
}

/// Metadata in Stripe's form: flat, string to string.
pub(super) type Metadata = Vec<(&'static str, String)>;

fn metadata_json(metadata: &Metadata) -> Value {
    Value::Object(metadata.iter().map(|(key, value)| ((*key).to_owned(), Value::from(value.as_str()))).collect())
}

fn list(url: String, data: Vec<Value>) -> Value {
    json!({ "object": "list", "data": data, "has_more": false, "url": url })
}

/// A balance transaction; immutable once made.
#[derive(Clone, Debug)]
pub(super) struct Transaction {
    pub id: String,
    pub amount: i64,
    pub currency: &'static str,
    pub fee_details: Vec<(&'static str, &'static str, i64)>,
    pub created: i64,
    pub available_on: i64,
    pub kind: &'static str,
    pub category: &'static str,
    pub source: Option<String>,
    pub description: Option<String>,
    /// As text: a rate is no money and never computed with here.
    pub exchange_rate: Option<String>,
    /// Told without `reporting_category`, as older data is.
    pub uncategorised: bool,
}

impl Transaction {
    pub(super) fn fee(&self) -> i64 {
        self.fee_details.iter().map(|(_, _, amount)| amount).sum()
    }

    pub(super) fn net(&self) -> i64 {
        self.amount - self.fee()
    }

    pub(super) fn json(&self) -> Value {
        let details: Vec<Value> = self
            .fee_details
            .iter()
            .map(|(kind, description, amount)| {
                json!({ "amount": amount, "application": null, "currency": self.currency,
                        "description": description, "type": kind })
            })
            .collect();
        let rate = self.exchange_rate.as_deref().and_then(|rate| serde_json::from_str::<Value>(rate).ok());
        let mut transaction = json!({
            "id": self.id, "object": "balance_transaction", "amount": self.amount, "available_on": self.available_on,
            "balance_type": "payments", "created": self.created, "currency": self.currency,
            "description": self.description, "exchange_rate": rate, "fee": self.fee(), "fee_details": details,
            "net": self.net(), "source": self.source, "status": "available", "type": self.kind,
        });
        if !self.uncategorised {
            transaction["reporting_category"] = self.category.into();
        }
        transaction
    }
}

/// A charge as it stands.
#[derive(Clone, Debug)]
pub(super) struct Charge {
    pub id: String,
    pub api: Api,
    pub created: i64,
    pub amount: i64,
    pub amount_captured: i64,
    pub currency: &'static str,
    pub customer: Option<String>,
    pub payment_intent: Option<String>,
    pub invoice: Option<String>,
    pub metadata: Metadata,
    pub status: &'static str,
    pub captured: bool,
    pub balance_transaction: Option<String>,
    pub failure_balance_transaction: Option<String>,
    pub disputed: bool,
    /// How each of its refunds looked from when on; later ones follow earlier ones of the same refund.
    pub refunds: Vec<(i64, Refund)>,
    pub livemode: bool,
}

impl Charge {
    /// Its refunds as they looked then, newest first, as Stripe lists.
    fn refunds_at(&self, at: i64) -> Vec<&Refund> {
        let mut refunds: Vec<&Refund> = Vec::new();
        for (_, refund) in self.refunds.iter().filter(|(since, _)| *since <= at) {
            refunds.retain(|known| known.id != refund.id);
            refunds.insert(0, refund);
        }
        refunds
    }

    /// As it stands after all that was made up of it so far.
    pub(super) fn json(&self) -> Value {
        self.json_at(i64::MAX)
    }

    /// The same, with the refunds as they looked then.
    pub(super) fn json_at(&self, at: i64) -> Value {
        let refunds = self.refunds_at(at);
        let refunded: i64 = refunds.iter().filter(|refund| refund.stands()).map(|refund| refund.amount).sum();
        let mut charge = json!({
            "id": self.id, "object": "charge", "amount": self.amount, "amount_captured": self.amount_captured,
            "amount_refunded": refunded, "application": null, "application_fee": null,
            "balance_transaction": self.balance_transaction, "billing_details": { "email": null, "name": null },
            "captured": self.captured, "created": self.created, "currency": self.currency, "customer": self.customer,
            "description": null, "disputed": self.disputed,
            "failure_balance_transaction": self.failure_balance_transaction,
            "failure_code": if self.status == "failed" { json!("payment_method_provider_decline") } else { Value::Null },
            "livemode": self.livemode, "metadata": metadata_json(&self.metadata),
            "paid": self.status == "succeeded", "payment_intent": self.payment_intent,
            "refunded": refunded > 0 && refunded == self.amount_captured, "source_transfer": null,
            "status": self.status, "transfer_data": null,
        });
        if self.api != Api::New {
            charge["invoice"] = self.invoice.clone().into();
        }
        if self.api == Api::Old {
            let refunds = refunds.into_iter().map(Refund::json).collect();
            charge["refunds"] = list(format!("/v1/charges/{}/refunds", self.id), refunds);
        }
        charge
    }
}

/// A refund as it stands.
#[derive(Clone, Debug)]
pub(super) struct Refund {
    pub id: String,
    pub charge: String,
    pub payment_intent: Option<String>,
    pub amount: i64,
    pub currency: &'static str,
    pub created: i64,
    pub status: &'static str,
    pub balance_transaction: Option<String>,
    pub failure_balance_transaction: Option<String>,
}

impl Refund {
    pub(super) fn stands(&self) -> bool {
        matches!(self.status, "pending" | "succeeded")
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "id": self.id, "object": "refund", "amount": self.amount, "balance_transaction": self.balance_transaction,
            "charge": self.charge, "created": self.created, "currency": self.currency,
            "failure_balance_transaction": self.failure_balance_transaction,
            "failure_reason": if self.status == "failed" { json!("lost_or_stolen_card") } else { Value::Null },
            "metadata": {}, "payment_intent": self.payment_intent, "reason": "requested_by_customer",
            "receipt_number": null, "source_transfer_reversal": null, "status": self.status, "transfer_reversal": null,
        })
    }
}

/// A dispute as it stands, with its balance transactions inside, as Stripe sends it.
#[derive(Clone, Debug)]
pub(super) struct Dispute {
    pub id: String,
    pub charge: String,
    pub payment_intent: Option<String>,
    pub amount: i64,
    pub currency: &'static str,
    pub created: i64,
    pub status: &'static str,
    pub transactions: Vec<Transaction>,
}

impl Dispute {
    pub(super) fn json(&self) -> Value {
        let transactions: Vec<Value> = self.transactions.iter().map(Transaction::json).collect();
        json!({
            "id": self.id, "object": "dispute", "amount": self.amount, "balance_transactions": transactions,
            "charge": self.charge, "created": self.created, "currency": self.currency,
            "evidence_details": { "due_by": self.created + 864_000, "has_evidence": false, "past_due": false,
                                  "submission_count": 0 },
            "is_charge_refundable": self.status.starts_with("warning"), "livemode": false, "metadata": {},
            "payment_intent": self.payment_intent, "reason": "fraudulent", "status": self.status,
        })
    }
}

/// What an invoice or a session is for and where its metadata lies.
#[derive(Clone, Debug)]
pub(super) struct Invoice {
    pub id: String,
    pub api: Api,
    pub created: i64,
    pub currency: &'static str,
    pub customer: Option<String>,
    pub amount_paid: i64,
    /// More than `amount_paid` where the rest comes from elsewhere: the customer's balance at Stripe, another charge.
    pub total: i64,
    /// Inside the total.
    pub tax: Option<i64>,
    pub charge: Option<String>,
    pub payment_intent: Option<String>,
    pub subscription: Option<String>,
    pub metadata: Metadata,
    pub subscription_metadata: Metadata,
    /// Whether it repeats its subscription's metadata; else only the subscription's own events tell it.
    pub tells_subscription_metadata: bool,
    pub period_days: i64,
    /// Whether a new-style invoice lists its payments; else only `invoice_payment.paid` tells.
    pub lists_payments: bool,
    /// The id of its one payment.
    pub payment_id: String,
}

impl Invoice {
    fn told_metadata(&self) -> Value {
        if self.tells_subscription_metadata { metadata_json(&self.subscription_metadata) } else { json!({}) }
    }

    pub(super) fn json(&self) -> Value {
        let mut invoice = json!({
            "id": self.id, "object": "invoice", "amount_due": self.amount_paid, "amount_paid": self.amount_paid,
            "amount_remaining": 0, "billing_reason": "subscription_cycle", "collection_method": "charge_automatically",
            "created": self.created, "currency": self.currency, "customer": self.customer, "livemode": false,
            "metadata": metadata_json(&self.metadata), "status": "paid", "starting_balance": self.amount_paid - self.total,
            "total": self.total,
            "lines": list(format!("/v1/invoices/{}/lines", self.id), vec![json!({
                "object": "line_item", "amount": self.total, "currency": self.currency,
                "period": { "start": self.created, "end": self.created + self.period_days * 86_400 },
            })]),
        });
        let fields = match self.api {
            Api::Old | Api::Middle => json!({
                "charge": self.charge, "payment_intent": self.payment_intent, "subscription": self.subscription,
                "paid": true, "paid_out_of_band": false, "tax": self.tax,
                "subscription_details": { "metadata": self.told_metadata() },
            }),
            Api::New => self.new_fields(),
        };
        merge(&mut invoice, fields);
        invoice
    }

    fn new_fields(&self) -> Value {
        let parent = self.subscription.as_ref().map(|subscription| {
            json!({ "type": "subscription_details", "quote_details": null,
                    "subscription_details": { "subscription": subscription,
                                              "metadata": self.told_metadata() } })
        });
        let taxes: Vec<Value> = self
            .tax
            .iter()
            .map(|tax| {
                json!({ "amount": tax, "tax_behavior": "inclusive", "tax_rate_details": null,
                        "taxability_reason": "standard_rated", "taxable_amount": self.total - tax,
                        "type": "tax_rate_details" })
            })
            .collect();
        let mut fields = json!({ "parent": parent, "total_taxes": taxes });
        if self.lists_payments {
            fields["payments"] = list(format!("/v1/invoice_payments?invoice={}", self.id), vec![self.payment()]);
        }
        fields
    }

    /// The object of `invoice_payment.paid`.
    pub(super) fn payment(&self) -> Value {
        let payment = match (&self.payment_intent, &self.charge) {
            (Some(intent), _) => json!({ "type": "payment_intent", "payment_intent": intent }),
            (None, charge) => json!({ "type": "charge", "charge": charge }),
        };
        json!({
            "id": self.payment_id, "object": "invoice_payment", "amount_paid": self.amount_paid, "amount_requested": self.amount_paid,
            "created": self.created, "currency": self.currency, "invoice": self.id, "is_default": true,
            "livemode": false, "payment": payment, "status": "paid",
            "status_transitions": { "canceled_at": null, "paid_at": self.created },
        })
    }
}

/// A subscription, newly active.
pub(super) fn subscription(id: &str, api: Api, status: &str, customer: &str, start: i64, metadata: &Metadata) -> Value {
    let end = start + 30 * 86_400;
    let mut subscription = json!({
        "id": id, "object": "subscription", "cancel_at_period_end": false, "canceled_at": null, "created": start,
        "customer": customer, "livemode": false, "metadata": metadata_json(metadata), "start_date": start,
        "status": status,
    });
    let mut item = json!({ "id": format!("si_{}", &id[4..]), "object": "subscription_item", "quantity": 1 });
    let period = json!({ "current_period_start": start, "current_period_end": end });
    // The period moved from the subscription to its items with basil.
    merge(if api == Api::New { &mut item } else { &mut subscription }, period);
    subscription["items"] = list(format!("/v1/subscription_items?subscription={id}"), vec![item]);
    subscription
}

/// A payment intent that succeeded.
pub(super) fn payment_intent(id: &str, charge: &Charge, metadata: &Metadata, status: &str) -> Value {
    json!({
        "id": id, "object": "payment_intent", "amount": charge.amount, "amount_received": charge.amount_captured,
        "capture_method": "automatic_async", "created": charge.created, "currency": charge.currency,
        "customer": charge.customer, "latest_charge": charge.id, "livemode": charge.livemode,
        "metadata": metadata_json(metadata), "status": status,
    })
}

/// A checkout session in payment mode that was completed.
pub(super) fn checkout_session(id: &str, charge: &Charge, metadata: &Metadata, tax: Option<i64>) -> Value {
    json!({
        "id": id, "object": "checkout.session", "amount_subtotal": charge.amount - tax.unwrap_or(0),
        "amount_total": charge.amount, "created": charge.created - 60, "currency": charge.currency,
        "customer": charge.customer, "livemode": charge.livemode, "metadata": metadata_json(metadata),
        "mode": "payment", "payment_intent": charge.payment_intent, "payment_status": "paid", "status": "complete",
        "total_details": { "amount_discount": 0, "amount_shipping": 0, "amount_tax": tax.unwrap_or(0) },
    })
}

/// A payout of the platform.
#[derive(Clone, Debug)]
pub(super) struct Payout {
    pub id: String,
    pub amount: i64,
    pub currency: &'static str,
    pub created: i64,
    pub status: &'static str,
    pub balance_transaction: String,
    pub failure_balance_transaction: Option<String>,
}

impl Payout {
    pub(super) fn json(&self) -> Value {
        json!({
            "id": self.id, "object": "payout", "amount": self.amount, "arrival_date": self.created + 172_800,
            "automatic": true, "balance_transaction": self.balance_transaction, "created": self.created,
            "currency": self.currency, "description": "STRIPE PAYOUT", "destination": "ba_fanledgerbank",
            "failure_balance_transaction": self.failure_balance_transaction,
            "failure_code": if self.status == "failed" { json!("account_closed") } else { Value::Null },
            "livemode": false, "metadata": {}, "method": "standard", "source_type": "card", "status": self.status,
            "type": "bank_account",
        })
    }
}

/// A transfer to a creator's connected account.
#[derive(Clone, Debug)]
pub(super) struct Transfer {
    pub id: String,
    pub amount: i64,
    pub currency: &'static str,
    pub created: i64,
    pub destination: String,
    pub balance_transaction: String,
    pub metadata: Metadata,
    /// Id, amount, balance transaction and time of each reversal.
    pub reversals: Vec<(String, i64, String, i64)>,
}

impl Transfer {
    pub(super) fn json(&self) -> Value {
        let reversed: i64 = self.reversals.iter().map(|(_, amount, _, _)| amount).sum();
        let reversals = self
            .reversals
            .iter()
            .rev()
            .map(|(id, amount, transaction, created)| {
                json!({ "id": id, "object": "transfer_reversal", "amount": amount, "balance_transaction": transaction,
                        "created": created, "currency": self.currency, "metadata": {}, "transfer": self.id })
            })
            .collect();
        json!({
            "id": self.id, "object": "transfer", "amount": self.amount, "amount_reversed": reversed,
            "balance_transaction": self.balance_transaction, "created": self.created, "currency": self.currency,
            "destination": self.destination, "livemode": false, "metadata": metadata_json(&self.metadata),
            "reversals": list(format!("/v1/transfers/{}/reversals", self.id), reversals),
            "reversed": reversed == self.amount, "source_transaction": null, "source_type": "card",
        })
    }
}

/// An application fee, earned on a connected account's charge.
#[derive(Clone, Debug)]
pub(super) struct ApplicationFee {
    pub id: String,
    pub account: String,
    pub amount: i64,
    pub currency: &'static str,
    pub created: i64,
    pub charge: String,
    pub originating_transaction: Option<String>,
    pub balance_transaction: String,
    /// Id, amount, balance transaction and time of each refund.
    pub refunds: Vec<(String, i64, String, i64)>,
}

impl ApplicationFee {
    pub(super) fn json(&self) -> Value {
        let refunded: i64 = self.refunds.iter().map(|(_, amount, _, _)| amount).sum();
        let refunds = self
            .refunds
            .iter()
            .rev()
            .map(|(id, amount, transaction, created)| {
                json!({ "id": id, "object": "fee_refund", "amount": amount, "balance_transaction": transaction,
                        "created": created, "currency": self.currency, "fee": self.id, "metadata": {} })
            })
            .collect();
        json!({
            "id": self.id, "object": "application_fee", "account": self.account, "amount": self.amount,
            "amount_refunded": refunded, "application": "ca_fanledger", "balance_transaction": self.balance_transaction,
            "charge": self.charge, "created": self.created, "currency": self.currency, "livemode": false,
            "originating_transaction": self.originating_transaction, "refunded": refunded == self.amount,
            "refunds": list(format!("/v1/application_fees/{}/refunds", self.id), refunds),
        })
    }
}

/// A top-up of the platform's balance from its bank.
pub(super) fn topup(
    id: &str,
    amount: i64,
    currency: &str,
    created: i64,
    status: &str,
    transaction: Option<&str>,
) -> Value {
    json!({
        "id": id, "object": "topup", "amount": amount, "balance_transaction": transaction, "created": created,
        "currency": currency, "description": "Top-up", "livemode": false, "metadata": {}, "status": status,
    })
}

fn merge(into: &mut Value, fields: Value) {
    if let (Value::Object(into), Value::Object(fields)) = (into, fields) {
        let fields: Map<String, Value> = fields;
        into.extend(fields);
    }
}
