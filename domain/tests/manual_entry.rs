//! Entries by hand: what may be written, who may post it, and what takes it back.
#![expect(clippy::unwrap_used, reason = "the helpers of a test may panic as the test may")]

use fanledger_domain::entry::{Cause, EntryPosted, FactReference, Posting, Side, check_postings};
use fanledger_domain::event::Event;
use fanledger_domain::id::{StripeId, Subject};
use fanledger_domain::manual_entry::*;
use fanledger_domain::money::Money;
use fanledger_domain::period::FirstOpen;
use fanledger_domain::policy;
use fanledger_domain::time::Timestamp;

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn now() -> Timestamp {
    time("2026-11-20T12:00:00Z")
}

fn id() -> StripeId {
    "mne_1".parse().unwrap()
}

fn by(subject: &str) -> Act {
    Act { by: subject.parse().unwrap(), now: now() }
}

fn line(account: &str, side: &str, amount_minor: &str, currency: &str) -> PostingText {
    PostingText {
        account: account.to_owned(),
        side: side.to_owned(),
        amount_minor: amount_minor.to_owned(),
        currency: currency.to_owned(),
    }
}

fn interest(amount_minor: &str) -> DraftText {
    DraftText {
        description: "interest of October".to_owned(),
        reason: "bank statement".to_owned(),
        occurred_at: "2026-10-31T00:00:00Z".to_owned(),
        clears: None,
        postings: vec![
            line("assets:bank", "debit", amount_minor, "usd"),
            line("income:other", "credit", amount_minor, "usd"),
        ],
    }
}

fn fields(text: DraftText) -> Vec<String> {
    text.parse(now()).unwrap_err().iter().map(DraftFault::field).collect()
}

struct Played {
    entry: ManualEntry,
    stream: Vec<Event>,
}

impl Played {
    fn new() -> Self {
        Self { entry: ManualEntry::default(), stream: Vec::new() }
    }

    fn ask(&mut self, command: ManualEntryCommand, act: Act) -> Result<Vec<Event>, ManualEntryError> {
        self.ask_when_open_from(FirstOpen::default(), command, act)
    }

    fn ask_when_open_from(
        &mut self,
        first_open: FirstOpen,
        command: ManualEntryCommand,
        act: Act,
    ) -> Result<Vec<Event>, ManualEntryError> {
        let policy = policy::in_force(act.now);
        let events = self.entry.decide(&id(), command, act, &policy, first_open)?;
        events.iter().for_each(|event| self.entry.evolve(event));
        self.stream.extend(events.clone());
        Ok(events)
    }

    fn propose(&mut self, text: DraftText, subject: &str) -> Result<Vec<Event>, ManualEntryError> {
        self.ask(ManualEntryCommand::Propose(text.parse(now()).unwrap()), by(subject))
    }

    fn stage(&self) -> Stage {
        self.entry.proposed().unwrap().1
    }
}

fn entry_of(event: &Event) -> EntryPosted {
    match event {
        Event::EntryPosted(entry) => entry.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn everything_that_is_wrong_is_told_at_once_and_where() {
    let text = DraftText {
        description: "  ".to_owned(),
        reason: String::new(),
        occurred_at: "yesterday".to_owned(),
        postings: vec![
            line("assets:nowhere", "left", "0", "USD"),
            line("assets:stripe:clearing", "debit", "-5", "usd"),
            line("assets:stripe:unconfirmed", "credit", "9007199254740992", "xxx"),
        ],
        clears: Some("no id".to_owned()),
    };
    assert_eq!(
        fields(text),
        [
            "description",
            "reason",
            "occurred_at",
            "clears",
            "postings[0].account",
            "postings[0].side",
            "postings[0].amount_minor",
            "postings[0].currency",
            "postings[1].account",
            "postings[1].amount_minor",
            "postings[2].account",
            "postings[2].amount_minor",
            "postings[2].currency",
        ]
    );
}

#[test]
fn each_rule_of_a_draft_has_its_fault() {
    let with = |change: &dyn Fn(&mut DraftText)| {
        let mut text = interest("100");
        change(&mut text);
        text.parse(now()).unwrap_err()
    };
    let only = |faults: Vec<DraftFault>| {
        assert_eq!(faults.len(), 1, "{faults:?}");
        faults.into_iter().next().unwrap()
    };
    assert_eq!(only(with(&|text| text.occurred_at = "2026-11-20T12:00:01Z".to_owned())), DraftFault::OccurredInFuture);
    assert_eq!(only(with(&|text| text.occurred_at = "1999-12-31T23:59:59Z".to_owned())), DraftFault::OccurredTooEarly);
    assert_eq!(only(with(&|text| text.description = "two\nlines".to_owned())), DraftFault::Description);
    assert_eq!(only(with(&|text| text.reason = "x".repeat(501))), DraftFault::Reason);
    for amount in ["", "0", "-1", "+1", "1.5", "1e3", " 1", "9007199254740992", "99999999999999999999999"] {
        let faults = with(&|text| text.postings[1].amount_minor = amount.to_owned());
        assert_eq!(only(faults), DraftFault::Amount { line: 1 }, "{amount}");
    }
    let clears = only(with(&|text| text.clears = Some("txn_1".to_owned())));
    assert_eq!((clears.field(), clears), ("clears".to_owned(), DraftFault::ClearsNothing));
    // A sum that is wrong is told by currency; one that cannot be known is not guessed.
    let unbalanced = only(with(&|text| text.postings[1].amount_minor = "99".to_owned()));
    assert_eq!(unbalanced.field(), "postings");
    assert!(unbalanced.to_string().contains("usd") && unbalanced.to_string().contains('1'), "{unbalanced}");
    let two = with(&|text| text.postings[1].currency = "eur".to_owned());
    assert_eq!(two.len(), 2, "{two:?}");
    assert!(with(&|text| text.postings.truncate(1)).contains(&DraftFault::TooFewPostings));
    assert!(with(&|text| text.postings.clear()).contains(&DraftFault::TooFewPostings));
    let many = with(&|text| text.postings = (0..101).flat_map(|_| text.postings.clone()).collect());
    assert_eq!(only(many), DraftFault::TooManyPostings);
    for account in ["assets:stripe:clearing", "assets:stripe:unconfirmed"] {
        let fault = only(with(&|text| text.postings[0].account = account.to_owned()));
        assert!(fault.to_string().contains("balance transactions"), "it says why, and what to do: {fault}");
    }
    // Nothing that was written is told back.
    let faults = with(&|text| text.postings[0].account = "assets:<script>".to_owned());
    assert!(!faults[0].to_string().contains("script"));
}

#[test]
fn what_one_person_may_move_alone_is_posted_at_once() {
    let mut played = Played::new();
    let events = played.propose(interest("100000"), "ada").unwrap();
    let [Event::ManualEntryProposed(proposed), posted] = &events[..] else { panic!("{events:?}") };
    assert!(!proposed.needs_approval);
    let entry = entry_of(posted);
    assert_eq!(entry.entry_id.as_str(), "mne_1:1:20261031T000000Z");
    assert_eq!(
        entry.cause,
        Cause {
            object: id(),
            facts: vec![FactReference { event_type: "ManualEntryProposed".to_owned(), sequence: 1 }],
            stripe_event: None,
            clears: None
        }
    );
    assert_eq!((entry.occurred_at, entry.effective_at), (time("2026-10-31T00:00:00Z"), time("2026-10-31T00:00:00Z")));
    check_postings(&entry.postings).unwrap();
    assert_eq!(played.stage(), Stage::Posted);
}

#[test]
fn above_the_limit_of_any_currency_another_person_posts_it() {
    // Two debits that are each within the limit are not together.
    let mut text = interest("60000");
    text.postings.extend(interest("40001").postings);
    let mut played = Played::new();
    let events = played.propose(text, "ada").unwrap();
    assert_eq!((events.len(), played.stage()), (1, Stage::Proposed));
    let refused = played.ask(ManualEntryCommand::Approve, by("ada")).unwrap_err();
    assert_eq!(refused, ManualEntryError::SamePerson { id: id(), by: "ada".parse::<Subject>().unwrap() });
    let events = played.ask(ManualEntryCommand::Approve, by("grace")).unwrap();
    let [Event::ManualEntryApproved(approved), posted] = &events[..] else { panic!("{events:?}") };
    assert_eq!(approved.by.as_str(), "grace");
    let entry = entry_of(posted);
    assert_eq!(entry.entry_id.as_str(), "mne_1:2:20261031T000000Z");
    assert_eq!(entry.cause.facts[0].event_type, "ManualEntryApproved");
    for command in [ManualEntryCommand::Approve, ManualEntryCommand::Reject { reason: "late".to_owned() }] {
        assert_eq!(played.ask(command, by("grace")), Err(ManualEntryError::Posted { id: id() }));
    }
    let limit = |currency: &str, minor: &str| {
        let mut text = interest(minor);
        text.postings.iter_mut().for_each(|posting| posting.currency = currency.to_owned());
        text.parse(now()).unwrap().needs_approval(&policy::in_force(now()))
    };
    assert_eq!((limit("usd", "100000"), limit("usd", "100001")), (false, true));
    assert_eq!((limit("jpy", "100000"), limit("jpy", "100001")), (false, true));
    assert_eq!((limit("kwd", "1000000"), limit("kwd", "1000001")), (false, true));
}

#[test]
fn a_rejected_entry_is_never_posted_and_who_proposed_it_may_reject_it() {
    let mut played = Played::new();
    played.propose(interest("100001"), "ada").unwrap();
    assert_eq!(
        played.ask(ManualEntryCommand::Reject { reason: " ".to_owned() }, by("ada")),
        Err(ManualEntryError::Reason)
    );
    played.ask(ManualEntryCommand::Reject { reason: "a slip".to_owned() }, by("ada")).unwrap();
    assert_eq!(played.stage(), Stage::Rejected);
    assert_eq!(played.ask(ManualEntryCommand::Approve, by("grace")), Err(ManualEntryError::Rejected { id: id() }));
    assert!(!played.stream.iter().any(|event| matches!(event, Event::EntryPosted(_))));
    let unknown = Played::new().ask(ManualEntryCommand::Approve, by("grace"));
    assert_eq!(unknown, Err(ManualEntryError::Unknown { id: id() }));
}

#[test]
fn the_same_proposal_again_is_one_and_another_under_its_id_is_refused() {
    let mut played = Played::new();
    played.propose(interest("100"), "ada").unwrap();
    assert_eq!(played.propose(interest("100"), "ada"), Ok(Vec::new()));
    assert_eq!(played.propose(interest("101"), "ada"), Err(ManualEntryError::Other { id: id() }));
    assert_eq!(played.propose(interest("100"), "grace"), Err(ManualEntryError::Other { id: id() }));
}

#[test]
fn what_is_approved_after_a_close_counts_from_the_first_open_instant() {
    let mut played = Played::new();
    played.propose(interest("100001"), "ada").unwrap();
    let first_open = FirstOpen::at(time("2026-11-01T00:00:00Z"));
    let events = played.ask_when_open_from(first_open, ManualEntryCommand::Approve, by("grace")).unwrap();
    let entry = entry_of(&events[1]);
    assert_eq!((entry.occurred_at, entry.effective_at), (time("2026-10-31T00:00:00Z"), time("2026-11-01T00:00:00Z")));
}

fn moved_from_suspense(clears: Option<&str>) -> DraftText {
    DraftText {
        clears: clears.map(str::to_owned),
        postings: vec![
            line("liabilities:suspense:unknown-creator", "debit", "500", "usd"),
            line("liabilities:creators:crt_a:available", "credit", "500", "usd"),
        ],
        ..interest("500")
    }
}

#[test]
fn an_entry_may_name_the_object_whose_suspense_it_clears() {
    let mut played = Played::new();
    let events = played.propose(moved_from_suspense(Some("txn_1")), "ada").unwrap();
    let Event::ManualEntryProposed(proposed) = &events[0] else { panic!("{events:?}") };
    assert_eq!(proposed.clears.as_ref().map(StripeId::as_str), Some("txn_1"));
    let entry = entry_of(&events[1]);
    assert_eq!((entry.cause.object.as_str(), entry.cause.suspense_object().as_str()), ("mne_1", "txn_1"));
    assert_eq!(played.propose(moved_from_suspense(Some("txn_1")), "ada"), Ok(Vec::new()));
    assert_eq!(
        played.propose(moved_from_suspense(Some("txn_2")), "ada"),
        Err(ManualEntryError::Other { id: id() }),
        "what it clears is part of what was proposed"
    );

    // What takes it back puts the money where it waited before.
    let reversal = Draft::reversal(&entry, "not so".to_owned(), None, now()).unwrap();
    let events = Played::new().ask(ManualEntryCommand::Propose(reversal), by("ada")).unwrap();
    assert_eq!(entry_of(&events[1]).cause.suspense_object().as_str(), "txn_1");
}

#[test]
fn what_names_no_object_is_written_as_it_always_was() {
    let events = Played::new().propose(moved_from_suspense(None), "ada").unwrap();
    for event in &events {
        let json = event.to_payload().unwrap();
        assert!(!json.contains("clears"), "{json}");
    }
    // It waits in the entry's own name, and what takes it back ends that.
    let reversal = Draft::reversal(&entry_of(&events[1]), "not so".to_owned(), None, now()).unwrap();
    let events = Played::new().ask(ManualEntryCommand::Propose(reversal), by("ada")).unwrap();
    assert_eq!(entry_of(&events[1]).cause.clears, Some(id()));
    let bank = Draft::reversal(&posted("assets:bank", 5), "not so".to_owned(), None, now()).unwrap();
    let events = Played::new().ask(ManualEntryCommand::Propose(bank), by("ada")).unwrap();
    assert_eq!(entry_of(&events[1]).cause.clears, None, "no money waits anywhere for it");
}

fn posted(account: &str, minor: i64) -> EntryPosted {
    let posting = |account: &str, side| Posting {
        account: account.parse().unwrap(),
        side,
        money: Money::new(minor, "usd".parse().unwrap()),
    };
    EntryPosted {
        entry_id: "mne_0:2:20261001T000000Z".parse().unwrap(),
        cause: Cause { object: "mne_0".parse().unwrap(), facts: Vec::new(), stripe_event: None, clears: None },
        description: "interest".to_owned(),
        occurred_at: time("2026-10-01T00:00:00Z"),
        effective_at: time("2026-10-01T00:00:00Z"),
        postings: vec![posting(account, Side::Debit), posting("income:platform-fees", Side::Credit)],
        activity: Vec::new(),
    }
}

#[test]
fn a_reversal_takes_an_entry_back_to_the_last_unit_and_once() {
    let entry = posted("liabilities:suspense:unattributed", 500);
    let reverse = |reason: &str| Draft::reversal(&entry, reason.to_owned(), None, now()).unwrap();
    let mut played = Played::new();
    let events = played.ask(ManualEntryCommand::Propose(reverse("booked twice")), by("ada")).unwrap();
    let Event::ManualEntryProposed(proposed) = &events[0] else { panic!("{events:?}") };
    assert_eq!(proposed.reverses.as_ref(), Some(&entry.entry_id));
    let reversal = entry_of(&events[1]);
    let signed = |of: &EntryPosted| -> Vec<i64> { of.postings.iter().map(Posting::signed_minor).collect() };
    assert_eq!(signed(&reversal), signed(&entry).into_iter().map(|minor| -minor).collect::<Vec<_>>());
    assert_eq!(reversal.occurred_at, now(), "until now the entry stood");
    let again = played.ask(ManualEntryCommand::Propose(reverse("booked twice")), by("ada")).unwrap_err();
    assert_eq!(again, ManualEntryError::ReversedAlready { entry_id: entry.entry_id.clone(), id: id() });
    assert!(again.to_string().contains("mne_1"), "names the first: {again}");
}

#[test]
fn a_rejected_reversal_gives_way_to_the_next() {
    let entry = posted("liabilities:suspense:unattributed", 100_001);
    let reversal =
        || ManualEntryCommand::Propose(Draft::reversal(&entry, "booked twice".to_owned(), None, now()).unwrap());
    let mut played = Played::new();
    played.ask(reversal(), by("ada")).unwrap();
    assert!(matches!(played.ask(reversal(), by("grace")), Err(ManualEntryError::ReversedAlready { .. })));
    played.ask(ManualEntryCommand::Reject { reason: "not so".to_owned() }, by("grace")).unwrap();
    played.ask(reversal(), by("grace")).unwrap();
    let events = played.ask(ManualEntryCommand::Approve, by("ada")).unwrap();
    assert_eq!(entry_of(&events[1]).entry_id.as_str(), format!("mne_1:4:{}", now().compact()));
}

#[test]
fn what_the_books_of_an_object_posted_is_not_taken_back_by_hand() {
    // Also where Stripe's own accounts are not touched, as by an attribution: the object's books would not know of it.
    for account in ["assets:stripe:clearing", "liabilities:suspense:unattributed"] {
        let mut entry = posted(account, 5);
        entry.cause.object = "ch_1".parse().unwrap();
        let refused = Draft::reversal(&entry, "wrong".to_owned(), None, now()).unwrap_err();
        assert!(matches!(&refused, ReversalError::OfAnObject { .. }), "{refused:?}");
        let told = refused.to_string();
        assert!(["ch_1", "attribute", "converge"].iter().all(|part| told.contains(part)), "{told}");
    }
    let mut entry = posted("assets:bank", 5);
    entry.cause.object = "po_1".parse().unwrap();
    let refused = Draft::reversal(&entry, "wrong".to_owned(), None, now()).unwrap_err().to_string();
    assert!(!refused.contains("attribute"), "a payout of the platform is nobody's: {refused}");
    // What a payout run claimed or recovered is no object's books, and the next run looks at the balance.
    let mut claim = posted("liabilities:creators:crt_a:available", 5);
    claim.cause.object = "por_12".parse().unwrap();
    Draft::reversal(&claim, "agreed with the creator".to_owned(), None, now()).unwrap();
    let entry = posted("assets:bank", 5);
    let faults = |reason: &str, at: &str| match Draft::reversal(&entry, reason.to_owned(), Some(time(at)), now()) {
        Err(ReversalError::Faults(faults)) => faults,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        faults("", "2026-09-30T00:00:00Z"),
        [DraftFault::Reason, DraftFault::OccurredBeforeReversed(entry.occurred_at)]
    );
    assert_eq!(faults("wrong", "2026-11-21T00:00:00Z"), [DraftFault::OccurredInFuture]);
}
