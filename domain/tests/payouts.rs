//! Payout runs: who gets how much, and who decides.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use fanledger_domain::account::{Account, Bucket};
use fanledger_domain::event::Event;
use fanledger_domain::facts::ConnectedAccountSnapshot;
use fanledger_domain::id::Subject;
use fanledger_domain::money::{Currency, Money};
use fanledger_domain::payout_run::hold::{CreatorPayouts, HoldError, Say};
use fanledger_domain::payout_run::proposal::{LINES_MAX, PaidAlone, Payable, Proposal, RECOVERIES_MAX, propose};
use fanledger_domain::payout_run::run::{PROPOSAL_DAYS, PayoutRun, PayoutRunError, Stage};
use fanledger_domain::payout_run::{PayoutRunId, Recovery, Withheld};
use fanledger_domain::period::FirstOpen;
use fanledger_domain::policy::{self, Policy};
use fanledger_domain::time::Timestamp;
use proptest::prelude::*;

const RUN: PayoutRunId = PayoutRunId::FIRST;

fn now() -> Timestamp {
    "2026-11-03T09:00:00Z".parse().unwrap()
}

fn in_force() -> Policy {
    policy::in_force(now())
}

fn account(creator: &str, number: usize) -> ConnectedAccountSnapshot {
    ConnectedAccountSnapshot {
        id: format!("acct_{creator}{number}").parse().unwrap(),
        creator: Some(creator.parse().unwrap()),
        transfers_active: true,
        payouts_enabled: true,
        requirements_due: 0,
        disabled_reason: None,
    }
}

/// A creator with one good account, nothing pending and nothing owed.
fn owed(creator: &str, available: i128, currency: &str) -> Payable {
    Payable {
        creator: creator.parse().unwrap(),
        currency: currency.parse().unwrap(),
        pending: 0,
        available,
        held: 0,
        receivable: 0,
        accounts: vec![account(creator, 1)],
        on_hold: false,
    }
}

fn of(payables: &[Payable]) -> Proposal {
    propose(payables, &in_force())
}

/// The amounts that are sent, and why the rest is not.
fn told(payables: &[Payable]) -> (Vec<i64>, Vec<Withheld>) {
    let proposal = of(payables);
    assert_eq!(proposal.withheld.len(), proposal.withheld_count as usize);
    (
        proposal.lines.iter().map(|line| line.money.minor()).collect(),
        proposal.withheld.iter().map(|withheld| withheld.reason).collect(),
    )
}

#[test]
fn who_can_be_paid_is_paid_and_who_cannot_is_told_why() {
    let good = owed("crt_a", 5_000, "usd");
    assert_eq!(told(std::slice::from_ref(&good)), (vec![5_000], vec![]));
    for (reason, payable) in [
        (Withheld::Held, Payable { on_hold: true, ..good.clone() }),
        (Withheld::PendingNegative, Payable { pending: -5_000, ..good.clone() }),
        (Withheld::BelowMinimum, Payable { available: 999, ..good.clone() }),
        (Withheld::NoAccount, Payable { accounts: vec![], ..good.clone() }),
        (
            Withheld::SeveralAccounts,
            Payable { accounts: vec![account("crt_a", 1), account("crt_a", 2)], ..good.clone() },
        ),
        (
            Withheld::AccountRestricted,
            Payable {
                accounts: vec![ConnectedAccountSnapshot { requirements_due: 1, ..account("crt_a", 1) }],
                ..good.clone()
            },
        ),
    ] {
        assert_eq!(told(&[payable]), (vec![], vec![reason]), "{reason:?}");
    }
    // What is pending and negative comes off; what is pending and positive is not paid yet.
    assert_eq!(told(&[Payable { pending: -1_500, ..good.clone() }]), (vec![3_500], vec![]));
    assert_eq!(told(&[Payable { pending: 1_500, ..good }]), (vec![5_000], vec![]));
    // Who is owed nothing is neither paid nor left out.
    assert_eq!(told(&[owed("crt_b", 0, "usd")]), (vec![], vec![]));
}

#[test]
fn what_is_sent_is_what_stripe_takes_and_the_minimum_is_the_currencys() {
    for (currency, available, sent) in [
        ("usd", 1_000, Some(1_000)),
        ("jpy", 999, None),
        ("jpy", 1_001, Some(1_001)),
        ("kwd", 9_999, None),
        ("kwd", 12_345, Some(12_340)),
        ("huf", 123_456, Some(123_400)),
        ("isk", 199_999, Some(199_900)),
    ] {
        let (lines, withheld) = told(&[owed("crt_a", available, currency)]);
        match sent {
            Some(sent) => assert_eq!((lines, withheld), (vec![sent], vec![]), "{available} {currency}"),
            None => assert_eq!((lines, withheld), (vec![], vec![Withheld::BelowMinimum]), "{available} {currency}"),
        }
    }
}

#[test]
fn what_is_owed_is_claimed_and_recovered_before_anything_is_paid() {
    let claimed = of(&[owed("crt_a", -700, "usd")]);
    assert_eq!((claimed.lines.len(), claimed.withheld_count), (0, 0));
    assert_eq!((claimed.recoveries[0].recovery, claimed.recoveries[0].money.minor()), (Recovery::Claimed, 700));
    let recovered = of(&[Payable { receivable: 700, ..owed("crt_a", 5_000, "usd") }]);
    assert_eq!((recovered.recoveries[0].recovery, recovered.recoveries[0].money.minor()), (Recovery::Recovered, 700));
    assert_eq!(recovered.lines[0].money.minor(), 4_300);
    // All of it, where more is owed; and also of whom nothing is sent.
    let all = of(&[Payable { receivable: 9_000, on_hold: true, ..owed("crt_a", 5_000, "usd") }]);
    assert_eq!((all.recoveries[0].money.minor(), all.lines.len(), all.withheld_count), (5_000, 0, 0));
}

#[test]
fn a_run_is_full_at_some_time_and_says_so() {
    let many: Vec<Payable> = (0..LINES_MAX + 3).map(|n| owed(&format!("crt_{n:04}"), 2_000, "usd")).collect();
    let proposal = of(&many);
    assert_eq!((proposal.lines.len(), proposal.withheld_count), (LINES_MAX, 3));
    assert!(proposal.withheld.iter().all(|withheld| withheld.reason == Withheld::RunFull));
    assert_eq!(proposal.lines.last().unwrap().line as usize, LINES_MAX);
}

#[test]
fn above_the_limit_of_any_currency_a_second_person_is_needed() {
    let needs = |payables: &[Payable], paid: &[PaidAlone]| {
        of(payables).needs_approval(&PaidAlone::of(&who("ada"), paid), &in_force())
    };
    assert!(!needs(&[owed("crt_a", 60_000, "usd"), owed("crt_b", 40_000, "usd"), owed("crt_a", 40_000, "eur")], &[]));
    assert!(needs(&[owed("crt_a", 60_000, "usd"), owed("crt_b", 40_001, "usd")], &[]));
    // Many small runs of one person are one: of that currency, and whatever the case of the name.
    let paid = |by: &str, minor, currency: &str| PaidAlone { by: who(by), currency: currency.parse().unwrap(), minor };
    let small = [owed("crt_a", 40_000, "usd")];
    assert!(!needs(&small, &[paid("ada", 60_000, "usd"), paid("ada", 99_000, "eur"), paid("grace", 99_000, "usd")]));
    assert!(needs(&small, &[paid("ada", 30_000, "usd"), paid("Ada", 30_001, "usd")]));
    // A run that only claims pays nothing out.
    assert!(!needs(&[owed("crt_a", -700, "usd")], &[paid("ada", 200_000, "usd")]));
}

fn payable() -> impl Strategy<Value = Payable> {
    let money = prop_oneof![-20_000_i128..50_000, -3_i128..3, Just(i128::from(i64::MAX) * 3)];
    let currency = prop::sample::select(vec!["usd", "jpy", "kwd", "huf", "isk"]);
    (0_u8..6, currency, money.clone(), money, 0_i128..9_000, 0_usize..3, any::<bool>(), 0_u8..9).prop_map(
        |(creator, currency, pending, available, receivable, accounts, restricted, on_hold)| {
            let name = format!("crt_{creator}");
            let mut accounts: Vec<_> = (0..accounts.max(usize::from(creator > 2))).map(|n| account(&name, n)).collect();
            accounts.iter_mut().for_each(|account| account.transfers_active = !restricted || creator > 2);
            Payable {
                pending: pending.min(1 << 50),
                receivable,
                accounts,
                on_hold: on_hold == 0,
                ..owed(&name, available, currency)
            }
        },
    )
}

proptest! {
    /// Nobody is sent more than is there, whatever the books say; and the order of what was read does not matter.
    #[test]
    fn nothing_is_sent_that_is_not_there(payables in prop::collection::vec(payable(), 0..12)) {
        let unique: BTreeMap<_, Payable> = payables.into_iter().map(|payable| ((payable.creator.clone(), payable.currency), payable)).collect();
        let payables: Vec<Payable> = unique.values().cloned().collect();
        let proposal = of(&payables);
        let reversed: Vec<Payable> = payables.iter().rev().cloned().collect();
        prop_assert_eq!(&of(&reversed), &proposal);
        for line in &proposal.lines {
            let payable = &unique[&(line.creator.clone(), line.money.currency())];
            let recovered: i128 = proposal.recoveries.iter()
                .filter(|recovery| recovery.creator == line.creator && recovery.money.currency() == line.money.currency())
                .map(|recovery| i128::from(recovery.money.minor())).sum();
            let sent = i128::from(line.money.minor());
            prop_assert!(sent > 0 && sent + recovered <= payable.available + payable.pending.min(0));
            prop_assert!(line.money.check_payable().is_ok());
            prop_assert!(!payable.on_hold && payable.accounts.len() == 1 && payable.accounts[0].is_payable());
            prop_assert_eq!(recovered, payable.available.min(payable.receivable));
        }
        for recovery in &proposal.recoveries {
            let payable = &unique[&(recovery.creator.clone(), recovery.money.currency())];
            let minor = i128::from(recovery.money.minor());
            match recovery.recovery {
                Recovery::Claimed => prop_assert!(minor <= -payable.available),
                Recovery::Recovered => prop_assert!(minor <= payable.available && minor <= payable.receivable),
            }
        }
        // Each is in one place: sent, left out, or with nothing left.
        let mut places: Vec<_> = proposal.lines.iter().map(|line| (line.creator.clone(), line.money.currency())).collect();
        places.extend(proposal.withheld.iter().map(|withheld| (withheld.creator.clone(), withheld.money.currency())));
        places.sort();
        let expected: Vec<_> = unique.values().filter(|payable| payable.available > payable.receivable.max(0))
            .map(|payable| (payable.creator.clone(), payable.currency)).collect();
        prop_assert_eq!(places, expected);
        let totals: BTreeMap<Currency, i128> = proposal.totals();
        prop_assert_eq!(totals.values().sum::<i128>(), proposal.lines.iter().map(|line| i128::from(line.money.minor())).sum::<i128>());
    }
}

fn who(name: &str) -> Subject {
    name.parse().unwrap()
}

fn known(events: &[Event]) -> PayoutRun {
    let mut run = PayoutRun::default();
    events.iter().for_each(|event| run.evolve(event));
    run
}

fn proposed(payables: &[Payable]) -> Vec<Event> {
    let (proposal, by) = (of(payables), who("ada"));
    vec![PayoutRun::propose(RUN, proposal, &BTreeMap::new(), &in_force(), 17, by, now()).unwrap()]
}

/// Whoever looks at a run later sees why it took two persons.
#[test]
fn a_run_remembers_what_its_proposer_paid_out_alone() {
    let small = [owed("crt_a", 40_000, "usd")];
    let usd: Currency = "usd".parse().unwrap();
    let before = BTreeMap::from([(usd, 60_001), ("eur".parse().unwrap(), 5)]);
    let event = PayoutRun::propose(RUN, of(&small), &before, &in_force(), 17, who("ada"), now()).unwrap();
    let Event::PayoutRunProposed(proposed) = &event else { panic!("{event:?}") };
    assert!(proposed.needs_approval);
    assert_eq!(proposed.paid_alone, [Money::new(60_001, usd)], "of the currencies that it pays");
    // Another way to write the name is the same person, and the refusal names who proposed it.
    let refused = known(&[event]).approve(RUN, who("ADA"), &small, now(), FirstOpen::default()).unwrap_err();
    let told = "payout run por_1 moves 400.00 usd, and ada proposed it, who has paid out 600.01 usd alone in the weeks before: more \
                than one person may, so somebody else must approve it";
    assert_eq!(refused.to_string(), told);
}

fn day(days: i64) -> Timestamp {
    now().plus_days(days)
}

#[test]
fn a_run_above_the_limit_needs_another_person_and_one_below_does_not() {
    let open = FirstOpen::default();
    let rich = [owed("crt_a", 100_001, "usd")];
    let above = known(&proposed(&rich));
    let refused = above.approve(RUN, who("ada"), &rich, now(), open).unwrap_err();
    let moves = vec![Money::new(100_001, "usd".parse().unwrap())];
    assert_eq!(refused, PayoutRunError::SecondPerson { run: RUN, by: who("ada"), moves, paid_alone: Vec::new() });
    assert!(matches!(
        &above.approve(RUN, who("grace"), &rich, now(), open).unwrap()[..],
        [Event::PayoutRunApproved(_)]
    ));
    let below = known(&proposed(&[owed("crt_a", 100_000, "usd")]));
    assert!(below.approve(RUN, who("ada"), &rich, now(), open).is_ok());
}

/// Between a proposal and its approval money may go back. What was earned meanwhile does not matter.
#[test]
fn a_run_that_would_send_more_than_is_there_by_now_is_not_approved() {
    let then = Payable { receivable: 1_000, ..owed("crt_a", 5_000, "usd") };
    let run = known(&proposed(std::slice::from_ref(&then)));
    let approve = |payables: &[Payable]| run.approve(RUN, who("ada"), payables, now(), FirstOpen::default());
    let overtaken = Err(PayoutRunError::Overtaken { run: RUN, creator: then.creator.clone() });
    for by_now in [
        vec![],
        vec![Payable { available: 4_999, ..then.clone() }],
        vec![Payable { pending: -1, ..then.clone() }],
        vec![Payable { currency: "eur".parse().unwrap(), ..then.clone() }],
        vec![Payable { accounts: vec![account("crt_a", 2)], ..then.clone() }],
        vec![Payable { accounts: vec![account("crt_a", 1), account("crt_a", 2)], ..then.clone() }],
        vec![Payable { receivable: 999, ..then.clone() }],
    ] {
        assert_eq!(approve(&by_now), overtaken, "{by_now:?}");
    }
    assert!(approve(&[Payable { available: 9_000, pending: 700, ..then }]).is_ok());
}

/// Each line is looked up among the creators, not looked for: a full run among very many is approved while somebody waits.
#[test]
fn a_full_run_among_very_many_creators_is_approved() {
    let payables: Vec<Payable> = (0..100_000)
        .map(|n| Payable { receivable: i128::from(n % 3 == 0), ..owed(&format!("crt_{n:06}"), 5_000, "usd") })
        .collect();
    let run = known(&proposed(&payables));
    assert_eq!(run.lines().len(), LINES_MAX);
    let began = std::time::Instant::now();
    // As the books give them: in no order that helps.
    let by_now: Vec<Payable> = payables.into_iter().rev().collect();
    let events = run.approve(RUN, who("grace"), &by_now, now(), FirstOpen::default()).unwrap();
    assert_eq!(events.len(), 1 + RECOVERIES_MAX);
    println!("approved in {:?}", began.elapsed());
}

#[test]
fn a_run_is_decided_once_and_while_it_is_fresh() {
    let open = FirstOpen::default();
    let payables = [owed("crt_a", 5_000, "usd")];
    let mut events = proposed(&payables);
    let waiting = known(&events);
    assert_eq!(
        waiting.approve(RUN, who("grace"), &payables, day(PROPOSAL_DAYS + 1), open),
        Err(PayoutRunError::Stale { run: RUN })
    );
    assert_eq!(waiting.cancel(RUN, who("ada"), " ".to_owned(), now()), Err(PayoutRunError::Reason));
    assert_eq!(waiting.check_closed(RUN), Err(PayoutRunError::Open { run: RUN, stage: Stage::Proposed }));
    // Nothing is finished that was not approved.
    assert_eq!(waiting.finish(RUN, 0, 0, now()), vec![]);

    let canceled = waiting.cancel(RUN, who("ada"), "a typo".to_owned(), now()).unwrap();
    let canceled = known(&[events.clone(), canceled].concat());
    assert_eq!(canceled.check_closed(RUN), Ok(()));
    let decided = |stage| Err(PayoutRunError::Decided { run: RUN, stage });
    assert_eq!(canceled.approve(RUN, who("grace"), &payables, now(), open), decided(Stage::Canceled));

    events.extend(waiting.approve(RUN, who("grace"), &payables, now(), open).unwrap());
    let approved = known(&events);
    assert_eq!(approved.approve(RUN, who("ada"), &payables, now(), open), decided(Stage::Approved));
    assert_eq!(approved.check_closed(RUN), Err(PayoutRunError::Open { run: RUN, stage: Stage::Approved }));
    events.extend(approved.finish(RUN, 1, 0, now()));
    let finished = known(&events);
    assert_eq!((finished.stage(), finished.check_closed(RUN)), (Some(Stage::Finished), Ok(())));
    assert_eq!(finished.finish(RUN, 1, 0, now()), vec![]);
    assert_eq!(known(&[]).approve(RUN, who("ada"), &payables, now(), open), Err(PayoutRunError::Unknown(RUN)));
    assert_eq!(
        PayoutRun::propose(RUN, of(&[]), &BTreeMap::new(), &in_force(), 1, who("ada"), now()),
        Err(PayoutRunError::Nothing)
    );
}

/// Stopping money needs one person, whoever that is; and it can be said again, in case that nobody listened.
#[test]
fn a_run_that_is_approved_is_stopped_and_then_finished() {
    let payables = [owed("crt_a", 200_000, "usd")];
    let mut events = proposed(&payables);
    events.extend(known(&events).approve(RUN, who("grace"), &payables, now(), FirstOpen::default()).unwrap());
    let cancel = |run: &PayoutRun, reason: &str| run.cancel(RUN, who("ada"), reason.to_owned(), now());
    for _ in 0..2 {
        let run = known(&events);
        assert_eq!(cancel(&run, ""), Err(PayoutRunError::Reason));
        let stopped = cancel(&run, "the journal was restored").unwrap();
        assert!(matches!(&stopped[..], [Event::PayoutRunStopped(stopped)] if stopped.by == who("ada")), "{stopped:?}");
        events.extend(stopped);
    }
    let stopped = known(&events);
    assert_eq!(stopped.check_closed(RUN), Err(PayoutRunError::Open { run: RUN, stage: Stage::Stopped }));
    let decided = |stage| Err(PayoutRunError::Decided { run: RUN, stage });
    assert_eq!(stopped.approve(RUN, who("grace"), &payables, now(), FirstOpen::default()), decided(Stage::Stopped));
    events.extend(stopped.finish(RUN, 0, 1, now()));
    let finished = known(&events);
    assert_eq!((finished.stage(), finished.check_closed(RUN)), (Some(Stage::Finished), Ok(())));
    assert_eq!(cancel(&finished, "too late"), decided(Stage::Finished));
    assert_eq!(known(&[]).cancel(RUN, who("ada"), "none".to_owned(), now()), Err(PayoutRunError::Unknown(RUN)));
}

/// What a run claims and recovers is posted with its approval, each its own entry, dated by the period.
#[test]
fn an_approval_posts_what_it_claims_and_recovers() {
    let payables = [owed("crt_a", -700, "usd"), Payable { receivable: 300, ..owed("crt_b", 5_000, "kwd") }];
    let run = known(&proposed(&payables));
    let events = run.approve(RUN, who("grace"), &payables, now(), FirstOpen::at(day(30))).unwrap();
    let entries: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            Event::EntryPosted(entry) => Some(entry),
            _ => None,
        })
        .collect();
    let mut balances: BTreeMap<(Account, Currency), i64> = BTreeMap::new();
    for entry in &entries {
        assert_eq!((entry.occurred_at, entry.effective_at), (now(), day(30)));
        assert_eq!((entry.cause.object.as_str(), entry.cause.facts[0].sequence), ("por_1", 2));
        for posting in &entry.postings {
            *balances.entry((posting.account.clone(), posting.money.currency())).or_default() += posting.signed_minor();
        }
    }
    assert_eq!(
        entries.iter().map(|entry| entry.entry_id.as_str()).collect::<Vec<_>>(),
        ["por_1:3:20261103T090000Z", "por_1:4:20261103T090000Z"]
    );
    let money = |minor, currency: &str| Money::new(minor, currency.parse().unwrap());
    let of =
        |account: Account, money: Money| balances.get(&(account, money.currency())).copied() == Some(money.minor());
    let available = |creator: &str| Account::Creator(creator.parse().unwrap(), Bucket::Available);
    let receivable = |creator: &str| Account::CreatorReceivable(creator.parse().unwrap());
    assert!(of(receivable("crt_a"), money(700, "usd")) && of(available("crt_a"), money(-700, "usd")));
    assert!(of(receivable("crt_b"), money(-300, "kwd")) && of(available("crt_b"), money(300, "kwd")));
    assert_eq!(balances.len(), 4);
}

#[test]
fn a_creator_is_held_once_and_resumed_once() {
    let creator = || "crt_a".parse().unwrap();
    let say =
        |known: CreatorPayouts, say, reason: &str| known.decide(creator(), say, who("ada"), reason.to_owned(), now());
    let mut known = CreatorPayouts::default();
    assert_eq!(say(known, Say::Resume, "why"), Err(HoldError::NotHeld { creator: creator() }));
    assert_eq!(say(known, Say::Hold, ""), Err(HoldError::Reason));
    assert_eq!(say(known, Say::Hold, &"x".repeat(501)), Err(HoldError::Reason));
    known.evolve(&say(known, Say::Hold, "a claim is open").unwrap());
    assert!(known.is_held());
    assert_eq!(say(known, Say::Hold, "again"), Err(HoldError::HeldAlready { creator: creator() }));
    known.evolve(&say(known, Say::Resume, "settled").unwrap());
    assert!(!known.is_held() && known.sequence() == 2);
}

#[test]
fn a_run_has_one_writing() {
    assert_eq!("por_12".parse(), Ok(PayoutRunId::new(12).unwrap()));
    assert_eq!(PayoutRunId::new(12).unwrap().to_string(), "por_12");
    assert_eq!(PayoutRunId::new(12).unwrap().line(3), "prl_12_3");
    for bad in ["", "12", "por_", "por_0", "por_01", "por_+1", "por_-1", "por_1x", "prl_1", "por_99999999999999999999"]
    {
        assert!(bad.parse::<PayoutRunId>().is_err(), "{bad}");
    }
}
