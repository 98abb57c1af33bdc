//! What the check of the books finds, and what it does not take for a fault.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use fanledger_domain::entry::{Cause, EntryPosted, Posting, Side};
use fanledger_domain::event::{BalanceTransactionObserved, Event, StripeObjectsLinked};
use fanledger_domain::facts::{BalanceTransaction, Category};
use fanledger_domain::money::Money;
use fanledger_domain::period::{Month, PeriodClosed, PeriodReopened};
use fanledger_domain::tie_out::{ClearingTotal, TieOut, TieOutError};
use fanledger_domain::time::Timestamp;

fn now() -> Timestamp {
    "2026-02-02T02:40:00Z".parse().unwrap()
}

fn seen(net: i64) -> Event {
    let transaction = BalanceTransaction {
        id: "txn_1".parse().unwrap(),
        created: now(),
        available_on: now(),
        currency: "usd".parse().unwrap(),
        amount: net,
        fee: 0,
        net,
        fee_details: Vec::new(),
        category: Category::Charge,
        reported_as: "charge".to_owned(),
        source: None,
    };
    BalanceTransactionObserved { owner: "ch_1".parse().unwrap(), transaction }.into()
}

/// Dr `debited`, Cr `credited` of two accounts, one of them clearing.
fn posted(debit: (&str, i64), credit: (&str, i64)) -> Event {
    let posting = |(account, minor): (&str, i64), side| Posting {
        account: account.parse().unwrap(),
        side,
        money: Money::new(minor, "usd".parse().unwrap()),
    };
    EntryPosted {
        entry_id: "ch_1:1:20260202T024000Z".parse().unwrap(),
        cause: Cause { object: "ch_1".parse().unwrap(), facts: Vec::new(), stripe_event: None, clears: None },
        description: String::new(),
        occurred_at: now(),
        effective_at: now(),
        postings: vec![posting(debit, Side::Debit), posting(credit, Side::Credit)],
        activity: Vec::new(),
    }
    .into()
}

fn into_clearing(minor: i64) -> Event {
    posted(("assets:stripe:clearing", minor), ("assets:stripe:unconfirmed", minor))
}

fn out_of_clearing(minor: i64) -> Event {
    posted(("assets:stripe:unconfirmed", minor), ("assets:stripe:clearing", minor))
}

fn linked() -> Event {
    StripeObjectsLinked { from: "re_1".parse().unwrap(), to: "ch_1".parse().unwrap() }.into()
}

const CHARGE: &str = "stripe_charge/ch_1";
const REFUND: &str = "stripe_refund/re_1";
const PERIOD: &str = "period/platform";

/// The end of a journal that holds these events from position 1 on: the totals, or what does not tie out and where. What the
/// check reads of them as they are recorded must come to the same.
fn end(events: &[(&str, Event)]) -> Result<Vec<ClearingTotal>, (u64, TieOutError)> {
    let (mut check, mut recorded) = (TieOut::default(), TieOut::default());
    for (position, (stream, event)) in (1..).zip(events) {
        let judged = check.event(stream, event, position);
        let payload = event.to_payload().unwrap();
        let kind = (event.type_name(), event.version());
        let entry_id = recorded.recorded(stream.split_once('/').unwrap(), kind, &payload, position);
        match (&judged, &entry_id, event) {
            (Ok(()), Ok(entry_id), Event::EntryPosted(entry)) => {
                assert_eq!(entry_id.as_deref(), Some(entry.entry_id.as_str()));
            }
            (judged, entry_id, _) => assert_eq!(judged.is_ok(), entry_id.is_ok(), "at {position}"),
        }
        judged.map_err(|error| (position, error))?;
    }
    assert_eq!(format!("{:?}", check.end()), format!("{:?}", recorded.end()));
    check.end()
}

#[test]
fn an_entry_is_judged_by_what_is_recorded_of_it() {
    let judge = |payload: &str| {
        TieOut::default().recorded(("stripe_charge", "b"), ("EntryPosted", "1"), payload, 1).map(|_| ())
    };
    let entry = |postings: &str| format!(r#"{{"other": [1e400], "entry_id": "a\u002db", "postings": [{postings}]}}"#);
    let line = |account: &str, side: &str, minor: &str, currency: &str| {
        format!(r#"{{"account": "{account}", "side": "{side}", "minor": {minor}, "currency": "{currency}"}}"#)
    };
    let pair = |minor: &str| [line("a:b", "debit", minor, "usd"), line("a:c", "credit", minor, "usd")].join(",");
    judge(&entry(&pair("9007199254740991"))).unwrap();
    judge(&entry(&[pair("1"), line("a:b", "debit", "2", "eur"), line("a:c", "credit", "2", "eur")].join(","))).unwrap();
    for bad in ["0", "-1", "9007199254740992", "1.0", "1e3", "\"1\"", "true", "null"] {
        assert!(judge(&entry(&pair(bad))).is_err(), "{bad}");
    }
    let other = |second: String| judge(&entry(&[line("a:b", "debit", "1", "usd"), second].join(",")));
    for bad in [
        line("a:c", "credit", "2", "usd"),
        line("a:c", "debit", "1", "usd"),
        line("a:c", "credit", "1", "eur"),
        line("a:c", "credit", "1", "USD"),
        line("a:c", "Credit", "1", "usd"),
        line("", "credit", "1", "usd"),
    ] {
        assert!(other(bad.clone()).is_err(), "{bad}");
    }
    assert!(judge(&entry(&line("a:b", "debit", "1", "usd"))).is_err(), "one posting");
    assert!(judge(r#"{"entry_id": "a"}"#).is_err() && judge("[]").is_err() && judge("{").is_err());
    assert!(TieOut::default().recorded(("stripe_charge", "b"), ("EntryPosted", "2"), &entry(&pair("1")), 1).is_err());
}

/// Where the first stream stands that does not tie out, and by how much clearing is too high.
fn fault(events: &[(&str, Event)]) -> (u64, String, i128) {
    match end(events).unwrap_err() {
        (position, TieOutError::Clearing { stream, difference_minor, .. }) => (position, stream, difference_minor),
        (
            position,
            other @ (TieOutError::Decode(_)
            | TieOutError::Entry { .. }
            | TieOutError::ClosedPeriod { .. }
            | TieOutError::CountedTwice { .. }
            | TieOutError::Misplaced { .. }),
        ) => {
            panic!("at {position}: {other}")
        }
    }
}

#[test]
fn clearing_that_is_the_sum_of_the_nets_ties_out() {
    let usd = "usd".parse().unwrap();
    let total = ClearingTotal { currency: usd, clearing_minor: 100, net_minor: 100 };
    assert_eq!(end(&[(CHARGE, seen(100)), (CHARGE, into_clearing(100))]).unwrap(), [total]);
    assert_eq!(end(&[]).unwrap(), []);
}

#[test]
fn cash_without_a_balance_transaction_or_the_reverse_is_found_where_it_last_moved() {
    let charge = CHARGE.to_owned();
    assert_eq!(fault(&[(CHARGE, seen(100))]), (1, charge.clone(), -100));
    assert_eq!(fault(&[(CHARGE, into_clearing(100))]), (1, charge.clone(), 100));
    let off_by_one = [(CHARGE, seen(100)), (CHARGE, into_clearing(99)), (REFUND, linked())];
    assert_eq!(fault(&off_by_one), (2, charge.clone(), -1));
    // In sum they agree; neither does by itself.
    let crossed = [(CHARGE, seen(100)), ("stripe_charge/ch_2", into_clearing(100))];
    assert_eq!(fault(&crossed), (1, charge, -100));
}

#[test]
fn an_entry_that_does_not_balance_is_found_at_its_position() {
    let unbalanced = posted(("assets:bank", 2), ("income:other", 1));
    let found = end(&[(CHARGE, linked()), (CHARGE, unbalanced)]).unwrap_err();
    assert!(matches!(found, (2, TieOutError::Entry { .. })), "{found:?}");
}

#[test]
fn an_entry_that_is_booked_into_a_closed_period_is_found_at_its_position() {
    let entry = || (CHARGE, posted(("assets:bank", 1), ("income:other", 1)));
    let closed = |period: &str| {
        let period: Month = period.parse().unwrap();
        let first_open = period.end().unwrap();
        (PERIOD, Event::from(PeriodClosed { period, first_open, at: now(), by: "ada".parse().unwrap() }))
    };
    let reopened = |period: &str| {
        let period: Month = period.parse().unwrap();
        let (first_open, reason) = (Some(period.start().unwrap()), "a test".to_owned());
        (PERIOD, Event::from(PeriodReopened { period, first_open, at: now(), by: "bel".parse().unwrap(), reason }))
    };
    // Booked at `now`, in February: before the close of that month, and after that of the month before.
    end(&[entry(), closed("2026-01"), entry(), closed("2026-02")]).unwrap();
    let found = end(&[closed("2026-01"), closed("2026-02"), entry()]).unwrap_err();
    assert!(matches!(&found, (3, TieOutError::ClosedPeriod { .. })), "{found:?}");
    end(&[closed("2026-02"), reopened("2026-02"), entry()]).unwrap();
    let found = end(&[closed("2026-02"), closed("2026-03"), reopened("2026-03"), entry()]).unwrap_err();
    assert!(matches!(&found, (4, TieOutError::ClosedPeriod { .. })), "{found:?}");
}

#[test]
fn what_moves_the_books_is_in_a_stream_that_does() {
    let entry = posted(("assets:bank", 1), ("income:other", 1));
    let found = end(&[("projection_skip/nobody", entry.clone())]).unwrap_err();
    assert!(matches!(found, (1, TieOutError::Misplaced { event_type: "EntryPosted", .. })), "{found:?}");
    end(&[("manual_entry/mne_1", entry)]).unwrap();
    let period: Month = "2026-01".parse().unwrap();
    let close = PeriodClosed { period, first_open: period.end().unwrap(), at: now(), by: "ghost".parse().unwrap() };
    for stream in ["projection_skip/nobody", "period/other"] {
        let found = end(&[(stream, close.clone().into())]).unwrap_err();
        assert!(matches!(found, (1, TieOutError::Misplaced { event_type: "PeriodClosed", .. })), "{found:?}");
    }
}

#[test]
fn a_balance_transaction_counts_in_one_stream() {
    const OWN: &str = "stripe_balance_transaction/txn_1";
    let twice = [(CHARGE, seen(40)), (CHARGE, into_clearing(40)), (OWN, seen(40)), (OWN, into_clearing(40))];
    let found = end(&twice).unwrap_err();
    let (3, TieOutError::CountedTwice { transaction, stream }) = &found else { panic!("{found:?}") };
    assert_eq!((transaction.as_str(), stream.as_str()), ("txn_1", OWN));
    // Known to be the charge's, it counts there alone, whichever of the two came first.
    end(&[&twice[..], &[(OWN, linked()), (OWN, out_of_clearing(40))]].concat()).unwrap();
    let [a, b, c, d] = twice;
    end(&[c, d, a, b, (OWN, linked()), (OWN, out_of_clearing(40))]).unwrap();
    let other = "stripe_charge/ch_2";
    let by_two = [(CHARGE, seen(7)), (CHARGE, into_clearing(7)), (other, seen(7)), (other, into_clearing(7))];
    assert!(matches!(end(&by_two), Err((3, TieOutError::CountedTwice { .. }))));
}

#[test]
fn what_a_satellite_gives_up_counts_again_where_it_is_taken_over() {
    let alone = [(REFUND, seen(-40)), (REFUND, out_of_clearing(40))];
    end(&alone).unwrap();
    let given_up = [&alone[..], &[(REFUND, linked()), (REFUND, into_clearing(40))]].concat();
    end(&given_up).unwrap();
    // Linked again, or reached by a late balance transaction that waits to be handed on: nothing more is given up.
    let waiting = [&given_up[..], &[(REFUND, linked()), (REFUND, seen(-7))]].concat();
    end(&waiting).unwrap();
    let taken_over = [&given_up[..], &[(CHARGE, seen(-40)), (CHARGE, out_of_clearing(40))]].concat();
    end(&taken_over).unwrap();

    // Linked, and its cash is still there: it would be counted twice.
    let kept = [&alone[..], &[(REFUND, linked())]].concat();
    assert_eq!(fault(&kept), (3, REFUND.to_owned(), -40));
}
