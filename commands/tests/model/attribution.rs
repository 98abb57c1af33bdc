//! Whose money a charge is: `stripe.md`, Attribution.

use serde_json::Value;

use super::seen::{Seen, id_of, minor};

pub(crate) struct Attribution {
    pub(crate) creator: String,
    pub(crate) share_bps: i128,
    pub(crate) tax: i128,
    pub(crate) jurisdiction: String,
    pub(crate) kind: String,
}

fn is_id(text: &str, prefix: &str) -> bool {
    text.strip_prefix(prefix).is_some_and(|rest| {
        (1..=64).contains(&rest.len())
            && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
    })
}

pub(crate) fn is_creator(text: &str) -> bool {
    is_id(text, "crt_")
}

/// Everything that hangs together with a charge, in the order in which metadata is looked for.
struct Places {
    metadata: Vec<Value>,
    invoices: Vec<Value>,
    sessions: Vec<Value>,
}

fn places(seen: &Seen, charge_id: &str) -> Places {
    let snapshots = seen.snapshots("charge", charge_id);
    let mut handles = vec![charge_id.to_owned()];
    handles.extend(snapshots.iter().filter_map(|snapshot| id_of(&snapshot.object["payment_intent"])));
    let of = |links: &std::collections::BTreeMap<String, std::collections::BTreeSet<String>>, from: &[String]| {
        let found: std::collections::BTreeSet<String> =
            from.iter().filter_map(|handle| links.get(handle)).flatten().cloned().collect();
        found.into_iter().collect::<Vec<String>>()
    };
    let invoice_ids = of(&seen.invoices_of, &handles);
    let newest =
        |kind: &str, ids: &[String]| ids.iter().filter_map(|id| seen.newest(kind, id)).cloned().collect::<Vec<Value>>();
    let invoices = newest("invoice", &invoice_ids);
    let mut session_handles = handles.clone();
    session_handles.extend(invoice_ids);
    let sessions = newest("checkout.session", &of(&seen.sessions_of, &session_handles));
    let mut metadata = Vec::new();
    metadata.extend(seen.newest("charge", charge_id).map(|charge| charge["metadata"].clone()));
    metadata.extend(newest("payment_intent", &handles).iter().map(|intent| intent["metadata"].clone()));
    metadata.extend(sessions.iter().map(|session| session["metadata"].clone()));
    metadata.extend(invoices.iter().map(|invoice| invoice["metadata"].clone()));
    for invoice in &invoices {
        // As the invoice remembers its subscription; then the subscription itself.
        metadata.push(invoice["subscription_details"]["metadata"].clone());
        metadata.push(invoice["parent"]["subscription_details"]["metadata"].clone());
    }
    for invoice in &invoices {
        let named = [&invoice["subscription"], &invoice["parent"]["subscription_details"]["subscription"]];
        let ids: Vec<String> = named.into_iter().filter_map(id_of).collect();
        metadata.extend(newest("subscription", &ids).iter().map(|subscription| subscription["metadata"].clone()));
    }
    Places { metadata, invoices, sessions }
}

/// The tax that an invoice or a checkout session tells, where metadata is silent: of each unit of its total the same.
fn told_tax(places: &Places, captured: i128) -> i128 {
    let part = |tax: i128, total: i128| if captured < total { (tax * captured).div_euclid(total) } else { tax };
    for invoice in &places.invoices {
        let total = minor(invoice, "total");
        if invoice["tax"].is_i64() {
            return part(minor(invoice, "tax"), total);
        }
        for field in ["total_taxes", "total_tax_amounts"] {
            if let Some(taxes) = invoice[field].as_array().filter(|taxes| !taxes.is_empty()) {
                return part(taxes.iter().map(|tax| minor(tax, "amount")).sum(), total);
            }
        }
    }
    for session in &places.sessions {
        if session["total_details"]["amount_tax"].is_i64() {
            return part(minor(&session["total_details"], "amount_tax"), minor(session, "amount_total"));
        }
    }
    0
}

/// None where nothing says so, or where what says so is invalid: that is not guessed at.
pub(crate) fn of(seen: &Seen, charge_id: &str, charge: &Value, captured: i128) -> Option<Attribution> {
    let places = places(seen, charge_id);
    let with_invoice = !charge["invoice"].is_null() || !places.invoices.is_empty();
    let metadata = places.metadata.iter().find(|metadata| !metadata["creator_id"].is_null())?;
    let value = |key: &str| metadata[key].as_str();
    let creator = value("creator_id").filter(|creator| is_creator(creator))?;
    if value("fan_id").is_some_and(|fan| !is_id(fan, "fan_")) {
        return None;
    }
    if value("kind").is_some_and(|kind| !["subscription", "tip", "unlock"].contains(&kind)) {
        return None;
    }
    let share_bps = match value("creator_share_bps") {
        Some(share) => share.parse().ok().filter(|share| (0..=10_000).contains(share))?,
        None => 8_000,
    };
    let tax = match value("tax_minor") {
        Some(tax) => tax.parse().ok()?,
        None => told_tax(&places, captured),
    };
    if tax < 0 || tax > captured {
        return None;
    }
    let jurisdiction = value("tax_jurisdiction").unwrap_or("unknown");
    let well_formed = (1..=32).contains(&jurisdiction.len())
        && jurisdiction.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    well_formed.then(|| Attribution {
        creator: creator.to_owned(),
        share_bps,
        tax,
        jurisdiction: jurisdiction.to_owned(),
        kind: value("kind").unwrap_or(if with_invoice { "subscription" } else { "tip" }).to_owned(),
    })
}
