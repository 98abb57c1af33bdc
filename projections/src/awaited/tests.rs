use super::*;

fn id(text: &str) -> StripeId {
    text.parse().unwrap()
}

fn refund_at(seconds: i64, status: RefundStatus, named: Option<&str>, named_return: Option<&str>) -> Snapshot {
    let at = Timestamp::from_unix_seconds(seconds).unwrap();
    let snapshot = RefundSnapshot {
        id: id("re_1"),
        created: Timestamp::from_unix_seconds(1).unwrap(),
        currency: "usd".parse().unwrap(),
        amount: 500,
        status,
        charge: None,
        payment_intent: None,
        balance_transaction: named.map(id),
        failure_balance_transaction: named_return.map(id),
    };
    let stamp = EventStamp { created: at, event: id(&format!("evt_{seconds}")) };
    refund(&stamp, &snapshot, &StreamId::new("stripe_charge", "ch_1"))
}

fn parts(snapshot: &Snapshot, seen: &SeenSoFar) -> Vec<(Part, Option<String>)> {
    open(snapshot, seen).into_iter().map(|open| (open.part, open.named.map(ToString::to_string))).collect()
}

fn seen_of(object: &str, transactions: &[(&str, Part)]) -> SeenSoFar {
    SeenSoFar {
        parts: HashMap::from([(object.to_owned(), transactions.iter().map(|(_, part)| *part).collect())]),
        transactions: transactions.iter().map(|(transaction, _)| (*transaction).to_owned()).collect(),
    }
}

#[test]
fn merging_does_not_depend_on_the_order() {
    let snapshots = [
        refund_at(1, RefundStatus::Pending, Some("txn_1"), None),
        refund_at(2, RefundStatus::Succeeded, None, None),
        refund_at(3, RefundStatus::Failed, None, Some("txn_2")),
        refund_at(3, RefundStatus::Succeeded, None, None),
    ];
    let mut orders = vec![vec![0, 1, 2, 3], vec![3, 2, 1, 0], vec![2, 0, 3, 1], vec![1, 3, 0, 2]];
    let results: BTreeSet<_> = orders
        .drain(..)
        .map(|order| format!("{:?}", order.into_iter().map(|at| snapshots[at].clone()).reduce(merge).unwrap()))
        .collect();
    assert_eq!(results.len(), 1);
    let merged = snapshots.into_iter().reduce(merge).unwrap();
    assert!(merged.ended && !merged.live);
    assert_eq!((merged.named, merged.named_return), (Some(id("txn_1")), Some(id("txn_2"))));
}

#[test]
fn a_refund_awaits_its_movement_and_then_its_return() {
    let nothing = SeenSoFar::default();
    let standing = refund_at(1, RefundStatus::Pending, None, None);
    assert_eq!(parts(&standing, &nothing), [(Part::Movement, None)]);
    let moved = seen_of("re_1", &[("txn_1", Part::Movement)]);
    assert_eq!(parts(&standing, &moved), []);

    let failed = refund_at(2, RefundStatus::Failed, None, None);
    assert_eq!(parts(&failed, &nothing), [], "no money moved, as far as anybody says");
    assert_eq!(parts(&failed, &moved), [(Part::Return, None)]);
    assert_eq!(parts(&failed, &seen_of("re_1", &[("txn_1", Part::Movement), ("txn_2", Part::Return)])), []);

    let names_both = refund_at(2, RefundStatus::Failed, Some("txn_1"), Some("txn_2"));
    let both = [(Part::Movement, Some("txn_1".to_owned())), (Part::Return, Some("txn_2".to_owned()))];
    assert_eq!(parts(&names_both, &nothing), both);
    assert_eq!(
        parts(&names_both, &seen_of("ch_9", &[("txn_1", Part::Other)])),
        both[1..],
        "by its name, whoever owns it"
    );
}
