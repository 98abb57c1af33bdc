//! A charge with its refunds and disputes: `ledger.md`, "A charge", line by line.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::attribution;
use super::cash::{PROCESSING, UNCONFIRMED, cash, category};
use super::seen::{Seen, is_captured, minor, text};
use super::{Acts, Lines};

/// What refunds, or disputes that are lost, or those that are not, took back: in the charge's currency (R, L, H), as their own
/// objects name that currency; and as it was settled.
#[derive(Default)]
struct Taken {
    presented_in: BTreeMap<String, i128>,
    settled_in: BTreeMap<String, i128>,
}

impl Taken {
    fn present(&mut self, currency: &str, minor: i128) {
        *self.presented_in.entry(currency.to_owned()).or_default() += minor;
    }

    fn settle(&mut self, currency: &str, minor: i128) {
        *self.settled_in.entry(currency.to_owned()).or_default() += minor;
    }

    fn presented(&self) -> i128 {
        self.presented_in.values().sum()
    }
}

fn ceil_div(a: i128, b: i128) -> i128 {
    (a + b - 1).div_euclid(b)
}

/// Stands from `pending` or `succeeded`, dated its `created`, until the earliest event that says `failed` or `canceled`. One of
/// which only the failure was seen stood before; one of which only `canceled` was seen may have waited for the fan.
fn stands(seen: &Seen, refund: &str, instant: i64) -> bool {
    let snapshots = seen.snapshots("refund", refund);
    let any = |wanted: &[&str]| {
        snapshots
            .iter()
            .any(|snapshot| snapshot.object["status"].as_str().is_none_or(|status| wanted.contains(&status)))
    };
    let stood = any(&["pending", "succeeded"]) || (any(&["failed"]) && !any(&["requires_action"]));
    let over = |object: &Value| ["failed", "canceled"].contains(&object["status"].as_str().unwrap_or_default());
    let created = snapshots[0].object["created"].as_i64().unwrap();
    stood && created <= instant && !seen.newest_at("refund", refund, instant).is_some_and(over)
}

/// Every balance transaction of the refunds; what stands; and what of it has only one of object and balance transaction.
fn refunds(seen: &Seen, charge: &str, charge_lives: bool, instant: i64, lines: &mut Lines) -> Taken {
    let mut taken = Taken::default();
    for id in seen.refunds_of(charge) {
        let refund = seen.newest("refund", &id).unwrap();
        let (amount, currency) = (minor(refund, "amount"), text(refund, "currency").unwrap());
        let (mut out, mut back) = (None, None);
        for transaction in seen.transactions_of(&id, instant) {
            cash(lines, transaction, PROCESSING);
            let settled = (text(transaction, "currency").unwrap(), minor(transaction, "amount"));
            match category(transaction).as_str() {
                "refund" => out = Some(settled),
                "refund_failure" => back = Some(settled),
                other => panic!("{other} of a refund"),
            }
        }
        let stands = charge_lives && stands(seen, &id, instant);
        if stands {
            taken.present(&currency, amount);
        }
        match (stands, out, back) {
            // It stands, and its money went.
            (true, Some(_), None) => {}
            // It stands, and no balance transaction says so yet.
            (true, None, None) => lines.cr(UNCONFIRMED, &currency, amount),
            // It stands, and what came back says that it failed.
            (true, Some(_), Some((settled_in, settled))) => lines.cr(UNCONFIRMED, &settled_in, settled),
            (true, None, Some((settled_in, settled))) => {
                lines.cr(UNCONFIRMED, &currency, amount);
                lines.cr(UNCONFIRMED, &settled_in, settled);
            }
            // It does not stand, and only one of the two balance transactions is there.
            (false, Some((settled_in, settled)), None) | (false, None, Some((settled_in, settled))) => {
                lines.cr(UNCONFIRMED, &settled_in, settled);
            }
            (false, None, None) | (false, Some(_), Some(_)) => {}
        }
    }
    taken
}

/// Every balance transaction of the disputes; what the lost ones took and what the others hold.
fn disputes(seen: &Seen, charge: &str, instant: i64, lines: &mut Lines) -> (Taken, Taken) {
    let (mut lost, mut held) = (Taken::default(), Taken::default());
    for id in seen.disputes_of(charge) {
        let dispute = seen.newest("dispute", &id).unwrap();
        let (amount, currency) = (minor(dispute, "amount"), text(dispute, "currency").unwrap());
        let transactions = seen.transactions_of(&id, instant);
        for transaction in &transactions {
            cash(lines, transaction, "expenses:dispute-fees");
        }
        let Some(first) = transactions.iter().find(|transaction| minor(transaction, "amount") < 0) else { continue };
        let settled_in = text(first, "currency").unwrap();
        assert!(transactions.iter().all(|transaction| text(transaction, "currency").unwrap() == settled_in));
        let net: i128 = -transactions.iter().map(|transaction| minor(transaction, "amount")).sum::<i128>();
        let status = seen.newest_at("dispute", &id, instant).and_then(|dispute| dispute["status"].as_str());
        let reinstated = transactions.iter().any(|transaction| minor(transaction, "amount") > 0);
        let presented = if settled_in == currency {
            net
        } else if status == Some("won") && reinstated {
            0
        } else {
            amount.min(ceil_div(amount * net, -minor(first, "amount")))
        };
        let taken = if status == Some("lost") { &mut lost } else { &mut held };
        taken.present(&currency, presented);
        taken.settle(&settled_in, net);
    }
    (lost, held)
}

fn released(acts: &Acts, transactions: &[&Value], instant: i64) -> bool {
    acts.released_through.is_some_and(|through| {
        through <= instant
            && transactions.iter().any(|transaction| {
                category(transaction) == "charge" && transaction["available_on"].as_i64().unwrap() <= through
            })
    })
}

pub(crate) fn lines(seen: &Seen, acts: &Acts, id: &str, instant: i64) -> Lines {
    let mut lines = Lines::default();
    let own = seen.transactions_of(id, instant);
    for transaction in &own {
        cash(&mut lines, transaction, PROCESSING);
    }
    let of = |wanted: &[&str]| -> Vec<&Value> {
        own.iter().copied().filter(|transaction| wanted.contains(&category(transaction).as_str())).collect()
    };
    let (charged, failed) = (of(&["charge", "partial_capture_reversal"]), of(&["charge_failure"]));
    assert_eq!(charged.len() + failed.len(), own.len(), "a balance transaction of a charge that is not a charge's");
    let settled_in: BTreeSet<String> =
        charged.iter().map(|transaction| text(transaction, "currency").unwrap()).collect();
    assert!(settled_in.len() <= 1, "a charge settled in two currencies");
    let settled: i128 = charged.iter().map(|transaction| minor(transaction, "amount")).sum();

    let snapshots = seen.snapshots("charge", id);
    let captured = snapshots.iter().rev().map(|snapshot| &snapshot.object).find(|charge| is_captured(charge));
    // Before the first event that was seen of it, a charge stood as that says, and one that failed was under way.
    let newest_at = seen.newest_at("charge", id, instant);
    let first_status = || snapshots.first().and_then(|first| text(&first.object, "status"));
    let status = match newest_at {
        Some(charge) => text(charge, "status"),
        None => first_status().map(|status| if status == "failed" { "pending".to_owned() } else { status }),
    };
    let begun = snapshots.first().is_some_and(|first| first.object["created"].as_i64().unwrap() <= instant);
    let is = |wanted: &str| status.as_deref() == Some(wanted);
    let lives = begun && captured.is_some() && !is("failed");

    let refunded = refunds(seen, id, lives || snapshots.is_empty(), instant, &mut lines);
    let (lost, held) = disputes(seen, id, instant, &mut lines);
    for (currency, net) in &held.settled_in {
        if *net > 0 {
            lines.dr("assets:disputes:held", currency, *net);
        }
    }

    if !lives {
        let presented_in = snapshots.last().and_then(|snapshot| text(&snapshot.object, "currency"));
        if begun && captured.is_none() && is("pending") {
            for currency in &settled_in {
                lines.cr("liabilities:payments-processing", currency, settled);
            }
            for transaction in &failed {
                lines.cr(UNCONFIRMED, &text(transaction, "currency").unwrap(), minor(transaction, "amount"));
            }
        } else if charged.is_empty()
            || failed.is_empty()
            || presented_in.as_ref().is_none_or(|currency| settled_in.contains(currency))
        {
            // Nothing stands; what its balance transactions do not cancel has no object. Of two that were converted at
            // different rates the rest is no such thing.
            for transaction in &own {
                lines.cr(UNCONFIRMED, &text(transaction, "currency").unwrap(), minor(transaction, "amount"));
            }
        }
        if snapshots.is_empty() {
            for (currency, minor) in refunded.presented_in.iter().chain(&lost.presented_in) {
                lines.dr("liabilities:suspense:unknown-charge", currency, *minor);
            }
        } else {
            // There is no share to take back: the whole is given back beyond the charge.
            for (currency, minor) in &lost.settled_in {
                lines.dr("expenses:dispute-losses", currency, *minor);
            }
        }
        close(id, &mut lines, presented_in, settled_in.first().cloned());
        return lines;
    }

    let charge = captured.unwrap();
    let presented_in = text(charge, "currency").unwrap();
    let g = if charge["amount_captured"].is_i64() { minor(charge, "amount_captured") } else { minor(charge, "amount") };
    let currency = settled_in.first().unwrap_or(&presented_in).clone();
    let foreign = currency != presented_in;
    let s = if foreign {
        settled
    } else {
        // What was captured; where the balance transactions that are here come to another sum (none yet, or only one of a
        // partial capture's two), the difference has only one of object and balance transaction.
        lines.dr(UNCONFIRMED, &presented_in, g - settled);
        g
    };
    // Its failure, which no event told.
    for transaction in &failed {
        lines.cr(UNCONFIRMED, &text(transaction, "currency").unwrap(), minor(transaction, "amount"));
    }
    let (r, l, h) = (refunded.presented(), lost.presented(), held.presented());
    let (rho, lambda, eta) = (r.min(g), (r + l).min(g), (r + l + h).min(g));
    let v = |x: i128| (s * x).div_euclid(g);
    match attribution::of(seen, id, charge, g) {
        None => lines.cr("liabilities:suspense:unattributed", &currency, s - v(lambda)),
        Some(whose) => {
            let ts = v(whose.tax);
            let c = ((s - ts) * whose.share_bps).div_euclid(10_000);
            let p = s - ts - c;
            let alpha = |x: i128| (c * x).div_euclid(g);
            let beta = |x: i128| (ts * x).div_euclid(g);
            let creator = format!("liabilities:creators:{}", whose.creator);
            let bucket = if released(acts, &charged, instant) { "available" } else { "pending" };
            lines.cr(&format!("{creator}:{bucket}"), &currency, c - alpha(eta));
            lines.cr(&format!("{creator}:held"), &currency, alpha(eta) - alpha(lambda));
            lines.cr("income:platform-fees", &currency, p);
            for (line, minor) in [
                ("sales", s - ts),
                ("platform_fees", -p),
                ("refunds", -alpha(rho)),
                ("disputes", alpha(rho) - alpha(lambda)),
            ] {
                lines.tell(&whose.creator, &currency, line, Some(&whose.kind), minor);
            }
            let ours = |x: i128| v(x) - alpha(x) - beta(x);
            lines.dr("income:refunds", &currency, ours(rho));
            lines.dr("income:chargebacks", &currency, ours(lambda) - ours(rho));
            let tax_account = format!("liabilities:tax:{}", whose.jurisdiction);
            if foreign {
                let invoiced = whose.tax - (whose.tax * lambda).div_euclid(g);
                lines.cr(&tax_account, &presented_in, invoiced);
                lines.dr(&format!("equity:fx:{presented_in}"), &presented_in, invoiced);
                lines.cr(&format!("equity:fx:{currency}"), &currency, ts - beta(lambda));
            } else {
                lines.cr(&tax_account, &currency, ts - beta(lambda));
            }
        }
    }
    lines.dr("expenses:dispute-losses", &currency, v(r + l - lambda));
    close(id, &mut lines, Some(presented_in), Some(currency));
    lines
}

/// What remains per charge: with one currency nothing does.
fn close(id: &str, lines: &mut Lines, presented_in: Option<String>, settled_in: Option<String>) {
    let left = lines.left();
    let written = lines.0.iter().filter(|(_, minor)| **minor != 0).map(|((_, currency), _)| currency.clone());
    let currencies: BTreeSet<String> = written.chain(presented_in).chain(settled_in.clone()).collect();
    assert!(currencies.len() > 1 || left.is_empty(), "one currency, and {left:?} remains of {id}: {lines:?}");
    let in_settlement_alone = left.keys().all(|currency| Some(currency) == settled_in.as_ref());
    for (currency, minor) in left {
        let account = if in_settlement_alone { "income:fx".to_owned() } else { format!("equity:fx:{currency}") };
        lines.cr(&account, &currency, minor);
    }
}
