//! Transfers to connected accounts, as the stand-in makes them. <https://docs.stripe.com/api/transfers>

use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::{Query, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{Received, Shared, StandIn, Store, lock, problem};

/// What was answered under an idempotency key, and to what.
#[derive(Clone, Debug)]
pub(super) struct Answered {
    asked: Vec<(String, String)>,
    status: StatusCode,
    body: Value,
}

impl Answered {
    fn response(&self) -> Response {
        (self.status, axum::Json(self.body.clone())).into_response()
    }
}

impl StandIn {
    /// Transfers to these accounts are refused from now on, as those to an account without the capability; to others not.
    pub fn restrict(&self, accounts: &[&str]) {
        lock(&self.shared).restricted = accounts.iter().map(|account| (*account).to_owned()).collect();
    }

    /// The transfers that were made, oldest first.
    pub fn transfers(&self) -> Vec<Value> {
        lock(&self.shared).transfers.clone()
    }

    /// Forgets its idempotency keys, as Stripe does after a day.
    pub fn forget_keys(&self) {
        lock(&self.shared).answered.clear();
    }

    /// Reverses a transfer whole, and gives the webhook that says so; `None` where there is no such transfer.
    pub fn reverse(&self, id: &str) -> Option<Value> {
        let mut store = lock(&self.shared);
        let at = store.transfers.iter().position(|transfer| transfer["id"] == id)?;
        let now = now();
        let transfer = &mut store.transfers[at];
        let amount = transfer["amount"].as_i64()?;
        let reversal = id.replacen("tr_", "trr_", 1);
        let transaction =
            transaction(&reversal, amount, &transfer["currency"], "transfer_refund", "transfer_reversal", now);
        transfer["amount_reversed"] = amount.into();
        transfer["reversed"] = true.into();
        transfer["reversals"]["data"] = json!([{
            "id": reversal, "object": "transfer_reversal", "amount": amount, "balance_transaction": transaction["id"],
            "created": now, "currency": transfer["currency"], "transfer": id,
        }]);
        let event = event("transfer.reversed", transfer, now);
        store.put(transaction);
        Some(event)
    }
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed())
}

/// A webhook about an object as it stands.
fn event(kind: &str, object: &Value, now: i64) -> Value {
    let id = format!("evt_{}", name(&format!("{kind} {object}")));
    json!({
        "id": id, "object": "event", "api_version": "2026-10-28.endive", "created": now, "livemode": false,
        "type": kind, "data": { "object": object },
    })
}

/// The rest of an id, from what it stands for: a stand-in that was started again makes the same of the same.
fn name(of: &str) -> String {
    hex::encode(Sha256::digest(of.as_bytes())).chars().take(24).collect()
}

fn transaction(source: &str, amount: i64, currency: &Value, kind: &str, category: &str, now: i64) -> Value {
    json!({
        "id": format!("txn_{}", name(source)), "object": "balance_transaction", "amount": amount, "available_on": now,
        "balance_type": "payments", "created": now, "currency": currency, "description": null, "exchange_rate": null,
        "fee": 0, "fee_details": [], "net": amount, "reporting_category": category, "source": source,
        "status": "available", "type": kind,
    })
}

/// A form as it is sent, in its order.
fn form(body: &str) -> Vec<(String, String)> {
    let uri = format!("/?{body}").parse::<Uri>().ok();
    uri.and_then(|uri| Query::try_from_uri(&uri).ok()).map_or_else(Vec::new, |Query(pairs)| pairs)
}

pub(super) async fn create(
    State(shared): State<Shared>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: String,
) -> Response {
    let asked = form(&body);
    let received = Received { method, uri, headers };
    let key = received.header("idempotency-key");
    let destination = value(&asked, "destination").map(str::to_owned);
    let answer = |store: &mut Store| match key.as_ref().and_then(|key| store.answered.get(key)) {
        Some(known) if known.asked == asked => known.response(),
        Some(_) => problem(
            StatusCode::BAD_REQUEST,
            "idempotency_error",
            None,
            "Keys for idempotent requests can only be used with the same parameters they were first used with.",
        ),
        None => match made(store, &asked, key.as_deref()) {
            // What was not begun is not kept, as at Stripe.
            Err(refused) => refused,
            Ok(answered) => {
                let response = answered.response();
                if let Some(key) = key {
                    store.answered.insert(key, answered);
                }
                response
            }
        },
    };
    received.answered(&shared, destination.as_deref(), answer).await
}

fn value<'a>(asked: &'a [(String, String)], name: &str) -> Option<&'a str> {
    asked.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

/// Makes a transfer or refuses it; an error where the request itself is none.
fn made(store: &mut Store, asked: &[(String, String)], key: Option<&str>) -> Result<Answered, Response> {
    let missing = |name: &str| {
        let message = format!("Missing required param: {name}.");
        problem(StatusCode::BAD_REQUEST, "invalid_request_error", Some("parameter_missing"), &message)
    };
    let amount = value(asked, "amount").and_then(|text| text.parse::<i64>().ok()).filter(|amount| *amount > 0);
    let amount = amount.ok_or_else(|| missing("amount"))?;
    let currency = value(asked, "currency").ok_or_else(|| missing("currency"))?;
    let destination = value(asked, "destination").ok_or_else(|| missing("destination"))?;
    let refused = |code: &str, message: &str| {
        let body = json!({ "error": { "type": "invalid_request_error", "code": code, "message": message } });
        Answered { asked: asked.to_vec(), status: StatusCode::BAD_REQUEST, body }
    };
    if store.restricted.contains(destination) {
        let message = "Your destination account needs to have the `transfers` capability enabled.";
        return Ok(refused("insufficient_capabilities_for_transfer", message));
    }
    let balance: i128 = store
        .transactions
        .iter()
        .filter(|transaction| transaction["currency"] == currency)
        .filter_map(|transaction| transaction["net"].as_i64())
        .map(i128::from)
        .sum();
    if balance < i128::from(amount) {
        return Ok(refused("balance_insufficient", "You have insufficient available funds in your Stripe account."));
    }
    let now = now();
    let id = format!("tr_{}", name(key.unwrap_or(&format!("{} {now}", store.transfers.len()))));
    let currency = Value::from(currency);
    let transaction = transaction(&id, -amount, &currency, "transfer", "transfer", now);
    let metadata: serde_json::Map<String, Value> = asked
        .iter()
        .filter_map(|(key, value)| {
            let name = key.strip_prefix("metadata[")?.strip_suffix(']')?;
            Some((name.to_owned(), value.as_str().into()))
        })
        .collect();
    let transfer = json!({
        "id": id, "object": "transfer", "amount": amount, "amount_reversed": 0,
        "balance_transaction": transaction["id"], "created": now, "currency": currency, "description": null,
        "destination": destination, "livemode": false, "metadata": metadata,
        "reversals": { "object": "list", "data": [], "has_more": false, "url": format!("/v1/transfers/{id}/reversals") },
        "reversed": false, "source_transaction": null, "transfer_group": value(asked, "transfer_group"),
    });
    store.put(transaction);
    store.transfers.push(transfer.clone());
    Ok(Answered { asked: asked.to_vec(), status: StatusCode::OK, body: transfer })
}

pub(super) async fn list(
    State(shared): State<Shared>,
    Query(query): Query<Vec<(String, String)>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let answer = |store: &mut Store| {
        let group = value(&query, "transfer_group");
        let of_group = |transfer: &&Value| group.is_none_or(|group| transfer["transfer_group"] == group);
        let data: Vec<&Value> = store.transfers.iter().rev().filter(of_group).take(100).collect();
        axum::Json(json!({ "object": "list", "url": "/v1/transfers", "has_more": false, "data": data })).into_response()
    };
    Received { method, uri, headers }.answered(&shared, None, answer).await
}

pub(super) async fn restrict(State(shared): State<Shared>, axum::Json(accounts): axum::Json<Vec<String>>) -> Response {
    let mut store = lock(&shared);
    store.restricted = accounts.into_iter().collect();
    axum::Json(json!({ "restricted": store.restricted })).into_response()
}
