//! Closed months: what a close fixed is read again, whatever came later. Statements of a span, and suspense as it was.

use std::collections::BTreeMap;
use std::sync::Arc;

use fanledger_domain::entry::{Posting, Side};
use fanledger_domain::event::Event;
use fanledger_domain::manual_entry::ManualEntryProposed;
use fanledger_domain::money::Money;
use fanledger_domain::period::{Month, PeriodClosed, PeriodReopened};
use fanledger_domain::time::Timestamp;
use fanledger_gateway::read::{self, AsOf, Asked, By, ExportRange, ExportSnapshot, PeriodError, ReadError, Span};
use fanledger_gateway_api::{
    MinorNumber, OpenKind, PeriodActKind, PeriodState, Side as WireSide, SuspenseItem, TrialBalance,
};
use fanledger_journal::event::RecordedEvent;
use futures::StreamExt as _;
use sha2::{Digest, Sha256};
use sqlx::PgPool;

use crate::made::{ACCOUNTS, ALL_BY, Books, Dice, Made, charge, edges, history, plain, recorded};

fn month() -> Month {
    "2024-02".parse().unwrap()
}

fn last_instant() -> Timestamp {
    Timestamp::from_unix_micros(month().end().unwrap().as_unix_micros() - 1).unwrap()
}

fn closed(position: u64, by: &str) -> Arc<RecordedEvent> {
    let at = "2024-03-02T09:00:00Z".parse().unwrap();
    let event = PeriodClosed { period: month(), first_open: month().end().unwrap(), at, by: by.parse().unwrap() };
    recorded(position, at.to_chrono(), "period", "platform", None, &Event::PeriodClosed(event))
}

fn reopened(position: u64, by: &str) -> Arc<RecordedEvent> {
    let at = "2024-03-03T09:00:00Z".parse().unwrap();
    let (first_open, reason) = (None, "a statement came late".to_owned());
    let event = PeriodReopened { period: month(), first_open, at, by: by.parse().unwrap(), reason };
    recorded(position, at.to_chrono(), "period", "platform", None, &Event::PeriodReopened(event))
}

async fn closing(pool: &PgPool, close: Option<u32>) -> TrialBalance<MinorNumber> {
    read::closed_balance(pool, month(), close, None).await.unwrap().value
}

fn balances(balance: &TrialBalance<MinorNumber>) -> BTreeMap<(String, String), (i128, i128)> {
    let of = |currency: &str, account: &fanledger_gateway_api::AccountTurnover<MinorNumber>| {
        ((currency.to_owned(), account.account.clone()), (account.debits_minor.0, account.credits_minor.0))
    };
    let currencies = balance.currencies.iter();
    currencies.flat_map(|part| part.accounts.iter().map(|account| of(&part.currency, account))).collect()
}

/// A history with a close in it, a reopening, and a second close; with the positions of both closes.
struct Closes {
    books: Books,
    made: Vec<Made>,
    first: u64,
    second: u64,
}

impl Closes {
    async fn new(seed: u64) -> Self {
        let books = Books::empty().await;
        let mut made = history(&mut Dice(seed), 60);
        // Room for three events of the period after the twentieth and the fortieth entry.
        made[20..].iter_mut().for_each(|made| made.position += 10);
        made[40..].iter_mut().for_each(|made| made.position += 10);
        for entry in &mut made {
            entry.entry.entry_id = format!("ch_1:{}:x", entry.position).parse().unwrap();
        }
        let (first, second) = (made[19].position + 1, made[39].position + 1);
        let mut events: Vec<_> = made.iter().map(Made::event).collect();
        events.extend([closed(first, "ada"), reopened(first + 1, "bel"), closed(second, "bel")]);
        events.sort_by_key(|event| event.position);
        let of = |name: &str| matches!(name, "balances" | "postings" | "periods");
        books.apply(&events[..=20], of).await;
        Self { books, made, first, second }.then(&events[21..]).await
    }

    /// What the first close fixed is the same before and after the rest of the history.
    async fn then(self, rest: &[Arc<RecordedEvent>]) -> Self {
        let before = closing(&self.books.pool, None).await;
        let of = |name: &str| matches!(name, "balances" | "postings" | "periods");
        for batch in rest.chunks(9) {
            self.books.apply(batch, of).await;
            assert_eq!(closing(&self.books.pool, Some(1)).await, before);
        }
        self
    }
}

#[tokio::test]
async fn what_a_close_fixed_is_read_again_whatever_came_later() {
    let Closes { books, made, first, second } = Closes::new(21).await;
    let known = |position| AsOf::Known { instant: last_instant(), position };
    for (close, position) in [(1, first), (2, second)] {
        let balance = closing(&books.pool, Some(close)).await;
        let expected = plain(&made, known(position), By::Effective);
        assert!(!expected.is_empty() && expected != plain(&made, AsOf::Latest, By::Effective));
        assert_eq!(balances(&balance), expected, "close {close}");
        let fixed = balance.closing.unwrap();
        assert_eq!((fixed.close, fixed.position, balance.position), (close, position, position));
        assert_eq!((fixed.closed_by.as_str(), fixed.chain.len()), (["ada", "bel"][close as usize - 1], 64));
        // The digest is of the text that the documentation gives, and nothing else.
        let mut text =
            format!("fanledger closing balances v1\nperiod 2024-02\nposition {position}\nchain {}\n", fixed.chain);
        for ((currency, account), (debits, credits)) in &expected {
            if debits != credits {
                text += &format!("{currency} {account} {}\n", debits - credits);
            }
        }
        assert_eq!(fixed.digest, hex::encode(Sha256::digest(text)));
    }
    let of = async |close| balances(&closing(&books.pool, close).await);
    assert_ne!(of(Some(1)).await, of(Some(2)).await, "something came in while it was open");
    assert_eq!(of(None).await, of(Some(2)).await);

    // One currency is shown, and the digest is still that of all.
    let usd = read::closed_balance::<MinorNumber>(&books.pool, month(), None, Some("usd".parse().unwrap())).await;
    let usd = usd.unwrap().value;
    assert_eq!(usd.currencies.len(), 1);
    assert_eq!(usd.closing.unwrap().digest, closing(&books.pool, None).await.closing.unwrap().digest);
}

#[tokio::test]
async fn closes_are_told_with_who_and_why() {
    let Closes { books, first, second, .. } = Closes::new(22).await;
    let periods = read::periods(&books.pool).await.unwrap().value;
    assert_eq!(
        (periods.first_open.as_deref(), periods.next.as_deref()),
        (Some("2024-03-01T00:00:00Z"), Some("2024-03"))
    );
    let [february] = periods.periods.as_slice() else { panic!("{periods:?}") };
    assert_eq!((february.period.as_str(), february.state), ("2024-02", PeriodState::Closed));
    let acts: Vec<_> = february
        .acts
        .iter()
        .map(|act| (act.act, act.close, act.position, act.by.as_str(), act.reason.as_deref()))
        .collect();
    assert_eq!(
        acts,
        [
            (PeriodActKind::Closed, 1, first, "ada", None),
            (PeriodActKind::Reopened, 1, first + 1, "bel", Some("a statement came late")),
            (PeriodActKind::Closed, 2, second, "bel", None),
        ]
    );
    let refused = async |period: &str, close| {
        read::closed_balance::<MinorNumber>(&books.pool, period.parse().unwrap(), close, None).await.unwrap_err()
    };
    assert!(matches!(refused("2024-03", None).await, ReadError::Period(PeriodError::NeverClosed(_))));
    assert!(
        matches!(refused("2024-01", Some(1)).await, ReadError::Period(PeriodError::NeverClosed(_))),
        "not by itself"
    );
    assert!(matches!(refused("2024-02", Some(3)).await, ReadError::Period(PeriodError::NoSuchClose { closes: 2, .. })));

    let empty = Books::empty().await;
    let none = read::periods(&empty.pool).await.unwrap().value;
    assert_eq!((none.first_open, none.next, none.periods.len()), (None, None, 0));
}

/// The first close closes everything before it, and fixes each month of that as its own.
#[tokio::test]
async fn a_month_before_the_first_close_is_as_that_close_fixed_it() {
    let Closes { books, made, second, .. } = Closes::new(27).await;
    let january: Month = "2024-01".parse().unwrap();
    let balance = read::closed_balance::<MinorNumber>(&books.pool, january, None, None).await.unwrap().value;
    let instant = Timestamp::from_unix_micros(january.end().unwrap().as_unix_micros() - 1).unwrap();
    assert_eq!(balances(&balance), plain(&made, AsOf::Known { instant, position: second }, By::Effective));
    let fixed = balance.closing.unwrap();
    assert_eq!((fixed.period.as_str(), fixed.closed_with.as_deref(), fixed.close), ("2024-01", Some("2024-02"), 2));
    assert_eq!((fixed.position, fixed.first_open.as_str()), (second, "2024-02-01T00:00:00Z"));
    assert_eq!(closing(&books.pool, None).await.closing.unwrap().closed_with, None);
}

/// Sums that the journal cannot have led to: whoever reads them is told.
#[tokio::test]
async fn books_that_do_not_balance_say_so() {
    let books = Books::empty().await;
    let mut made = history(&mut Dice(5), 3);
    let event = |made: &Made| made.event();
    books.apply(&made[..2].iter().map(event).collect::<Vec<_>>(), |_| true).await;
    let balance = async || {
        read::trial_balance::<MinorNumber>(&books.pool, AsOf::Latest, By::Effective, None).await.unwrap().value
    };
    assert!(balance().await.currencies.iter().all(|currency| currency.imbalance_minor.is_none()));
    let one_sided = Posting {
        account: ACCOUNTS[0].parse().unwrap(),
        side: Side::Debit,
        money: Money::new(7, "usd".parse().unwrap()),
    };
    made[2].entry.postings = vec![one_sided];
    books.apply(&[made[2].event()], |name| name == "balances").await;
    let told: Vec<_> = balance()
        .await
        .currencies
        .into_iter()
        .filter_map(|currency| Some((currency.currency, currency.imbalance_minor?.0)))
        .collect();
    assert_eq!(told, [("usd".to_owned(), 7)]);
}

#[tokio::test]
async fn a_month_that_is_open_again_is_not_shown_as_closed() {
    let books = Books::empty().await;
    let made = history(&mut Dice(24), 20);
    let events: Vec<_> = made.iter().map(Made::event).collect();
    books.apply(&events, |_| true).await;
    let close = made[19].position + 1;
    books.apply(&[closed(close, "ada")], |_| true).await;
    let fixed = closing(&books.pool, None).await;
    books.apply(&[reopened(close + 1, "bel")], |_| true).await;

    let refused = read::closed_balance::<MinorNumber>(&books.pool, month(), None, None).await.unwrap_err();
    assert!(matches!(refused, ReadError::Period(PeriodError::Reopened { closes: 1, .. })), "{refused:?}");
    assert_eq!(closing(&books.pool, Some(1)).await, fixed);
    // What was closed with it is open with it, too.
    let before = read::closed_balance::<MinorNumber>(&books.pool, "2024-01".parse().unwrap(), None, None).await;
    assert!(matches!(before, Err(ReadError::Period(PeriodError::NeverClosed(_)))), "{before:?}");
    let periods = read::periods(&books.pool).await.unwrap().value;
    assert_eq!((periods.first_open, periods.next, periods.periods[0].state), (None, None, PeriodState::Open));
}

/// A month that was closed before anything was posted has no balances, and still has none when older entries follow.
#[tokio::test]
async fn a_month_closed_without_an_entry_has_no_balances() {
    let books = Books::empty().await;
    let made = history(&mut Dice(3), 10);
    books.apply(&[closed(1, "ada")], |_| true).await;
    let before = closing(&books.pool, None).await;
    assert!(before.currencies.is_empty() && before.closing.is_some());
    let events: Vec<_> = made.iter().map(Made::event).collect();
    books.apply(&events, |_| true).await;
    assert_eq!(closing(&books.pool, None).await, before);
}

#[tokio::test]
async fn a_statement_of_a_span_leads_from_its_opening_to_its_closing_balance() {
    let Closes { books, made, second, .. } = Closes::new(23).await;
    let pool = &books.pool;
    let edges = edges();
    let mut without_lines = 0;
    for (number, by) in ALL_BY.into_iter().cycle().take(60).enumerate() {
        let (from, to) = (edges[number % edges.len()], edges[(number * 5 + 9) % edges.len()]);
        let (from, to) = (from.min(to), from.max(to));
        if made.iter().all(|made| made.at(by) > to) {
            continue;
        }
        let account = ACCOUNTS[number % ACCOUNTS.len()];
        let until = [AsOf::Instant(to), AsOf::Known { instant: to, position: second }][number % 2];
        let span = Span { from: Some(from), as_of: until, by };
        let label = format!("{account} {span:?}");
        let statement =
            read::statement::<MinorNumber>(pool, &account.parse().unwrap(), None, span).await.unwrap().value;
        let before = |made: &&Made| made.within(until, by) && made.at(by) < from;
        let earlier: Vec<Made> = made.iter().filter(before).cloned().collect();
        let (opening, closing) = (plain(&earlier, AsOf::Latest, by), plain(&made, until, by));
        let balance = |sums: &BTreeMap<_, (i128, i128)>, currency: &str| {
            sums.get(&(currency.to_owned(), account.to_owned())).map_or(0, |(debits, credits)| debits - credits)
        };
        for part in &statement {
            assert_eq!(part.opening_minor.0, balance(&opening, &part.currency), "{label}");
            assert_eq!(part.balance_minor.0, balance(&closing, &part.currency), "{label}");
            let mut running = part.opening_minor.0;
            for line in &part.postings {
                running += match line.side {
                    WireSide::Debit => line.amount_minor.0,
                    WireSide::Credit => -line.amount_minor.0,
                };
                assert_eq!(line.balance_minor.0, running, "{label}");
                let at = match by {
                    By::Effective => &line.effective_at,
                    By::Occurred => &line.occurred_at,
                    By::Recorded => &line.recorded_at,
                };
                assert!((from..=to).contains(&at.parse().unwrap()), "{label}");
            }
            assert_eq!(running, part.balance_minor.0, "{label}");
            without_lines += usize::from(part.postings.is_empty());
        }
        let stands = closing.keys().filter(|(_, named)| named == account).count();
        assert_eq!(statement.len(), stands, "{label}: every currency that ever moved");
    }
    assert!(without_lines > 0, "some have a balance and no line");
}

#[tokio::test]
async fn suspense_is_told_as_it_was() {
    let books = Books::empty().await;
    let mut dice = Dice(31);
    let made: Vec<Made> = history(&mut dice, 50)
        .into_iter()
        .map(|mut made| {
            let object = format!("ch_{}", dice.roll(6));
            made.entry.cause.object = object.parse().unwrap();
            // Some are by hand, and clear the suspense of another object than their own.
            made.entry.cause.clears = (dice.roll(3) == 0).then(|| format!("ch_{}", dice.roll(6)).parse().unwrap());
            made.entry.entry_id = format!("{object}:{}:x", made.position).parse().unwrap();
            // Amounts of few sizes, so that what is open is cleared again.
            let money = Money::new([100, 200][dice.roll(2)], "usd".parse().unwrap());
            let sides = if dice.roll(2) == 0 { [Side::Debit, Side::Credit] } else { [Side::Credit, Side::Debit] };
            let reason = ["unattributed", "unknown-charge"][dice.roll(2)];
            made.entry.postings = vec![
                Posting { account: ACCOUNTS[0].parse().unwrap(), side: sides[0], money },
                Posting { account: format!("liabilities:suspense:{reason}").parse().unwrap(), side: sides[1], money },
            ];
            made
        })
        .collect();
    let events: Vec<_> = made.iter().map(Made::event).collect();
    books.apply(&events, |name| matches!(name, "balances" | "postings" | "suspense")).await;

    let in_pages = async |asked| {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = read::suspense::<MinorNumber>(&books.pool, asked, after.as_ref(), 2).await.unwrap().value;
            found.extend(page.items);
            after = page.next;
            if after.is_none() {
                return found;
            }
        }
    };
    // The two ways to what is open now are one.
    let last = made.last().unwrap().position;
    let now = in_pages(Asked::AsOf(AsOf::Latest, By::Effective)).await;
    assert!(!now.is_empty());
    assert_eq!(in_pages(Asked::AsOf(AsOf::Position(last), By::Effective)).await, now);
    for (as_of, by) in crate::made::questions(&made).into_iter().step_by(3) {
        if as_of == AsOf::Latest {
            continue;
        }
        let found = in_pages(Asked::AsOf(as_of, by)).await;
        assert_eq!(sorted(found), plain_suspense(&made, as_of, by), "{as_of:?} {by:?}");
    }
    let before = Asked::AsOf(AsOf::Position(1), By::Effective);
    let refused = read::suspense::<MinorNumber>(&books.pool, before, None, 2).await;
    assert!(matches!(refused, Err(ReadError::BeforeFirstEntry { .. })));
}

type Open = (String, String, i128, String, u64);

fn sorted(items: Vec<SuspenseItem<MinorNumber>>) -> Vec<Open> {
    let of = |item: SuspenseItem<MinorNumber>| {
        (item.account, item.object, item.balance_minor.0, item.since, item.last_position)
    };
    let mut open: Vec<_> = items.into_iter().map(of).collect();
    open.sort();
    open
}

/// By a walk over the entries in the order of their positions.
fn plain_suspense(made: &[Made], as_of: AsOf, by: By) -> Vec<Open> {
    let mut open: BTreeMap<(String, String), (i128, Option<Timestamp>, u64)> = BTreeMap::new();
    for made in made.iter().filter(|made| made.within(as_of, by)) {
        let posting = &made.entry.postings[1];
        let key = (posting.account.to_string(), made.entry.cause.suspense_object().to_string());
        let (balance, since, last) = open.entry(key).or_default();
        *balance += i128::from(posting.signed_minor());
        *since = Some(since.map_or(made.entry.occurred_at, |since| since.min(made.entry.occurred_at)));
        *last = made.position;
        if *balance == 0 {
            *since = None;
        }
    }
    let still = open.into_iter().filter(|(_, (balance, ..))| *balance != 0);
    let mut open: Vec<_> = still
        .map(|((account, object), (balance, since, last))| (account, object, balance, since.unwrap().to_string(), last))
        .collect();
    open.sort();
    open
}

/// An entry by hand that nobody has agreed to yet.
fn waiting(position: u64, occurred_at: &str) -> Arc<RecordedEvent> {
    let money = Money::new(500, "usd".parse().unwrap());
    let line = |account: &str, side| Posting { account: account.parse().unwrap(), side, money };
    let at: Timestamp = "2024-03-01T09:00:00Z".parse().unwrap();
    let proposed = ManualEntryProposed {
        id: format!("mne_{position}").parse().unwrap(),
        description: "interest".to_owned(),
        reason: "bank statement".to_owned(),
        occurred_at: occurred_at.parse().unwrap(),
        reverses: None,
        clears: None,
        postings: vec![line("assets:bank", Side::Debit), line("income:other", Side::Credit)],
        at,
        by: "ada".parse().unwrap(),
        needs_approval: true,
    };
    let stream = format!("mne_{position}");
    recorded(position, at.to_chrono(), "manual_entry", &stream, None, &Event::ManualEntryProposed(proposed))
}

#[tokio::test]
async fn a_review_counts_what_is_open_by_the_end_of_the_month() {
    let books = Books::empty().await;
    let empty = read::period_review::<MinorNumber>(&books.pool, month()).await.unwrap().value;
    assert_eq!((empty.period.as_str(), empty.open.len()), ("2024-02", 0));

    let template = history(&mut Dice(1), 1).remove(0);
    let entry = |position: u64, at: &str, debit: &str, credit: &str, minor| {
        let mut made = Made { position, ..template.clone() };
        let money = Money::new(minor, "usd".parse().unwrap());
        (made.entry.occurred_at, made.entry.effective_at) = (at.parse().unwrap(), at.parse().unwrap());
        made.entry.entry_id = format!("ch_{position}:1:x").parse().unwrap();
        made.entry.cause.object = format!("ch_{position}").parse().unwrap();
        made.entry.postings = vec![
            Posting { account: debit.parse().unwrap(), side: Side::Debit, money },
            Posting { account: credit.parse().unwrap(), side: Side::Credit, money },
        ];
        made.event()
    };
    const UNCONFIRMED: &str = "assets:stripe:unconfirmed";
    const SUSPENSE: &str = "liabilities:suspense:unattributed";
    const BANK: &str = "assets:bank";
    let inside = "2024-02-29T23:59:59.999999Z";
    let events = [
        entry(5, inside, UNCONFIRMED, SUSPENSE, 100),
        entry(6, inside, UNCONFIRMED, SUSPENSE, 30),
        entry(7, inside, "liabilities:creators:crt_1:available", BANK, 70),
        entry(8, inside, BANK, "liabilities:creators:crt_2:available", 20),
        entry(9, "2024-03-01T00:00:00Z", UNCONFIRMED, SUSPENSE, 1000),
        charge(10, "ch_10", "2024-01-31T00:00:00Z", 250, None),
        charge(11, "ch_11", inside, 75, Some("txn_11")),
        charge(12, "ch_12", "2024-03-01T00:00:00Z", 4000, None),
        entry(13, inside, SUSPENSE, BANK, 130),
        entry(14, inside, "liabilities:suspense:unknown-charge", BANK, 9),
        waiting(15, inside),
        waiting(16, "2024-03-01T00:00:00Z"),
    ];
    books.apply(&events, |_| true).await;
    let review = read::period_review::<MinorNumber>(&books.pool, month()).await.unwrap().value;
    let open: Vec<_> = review.open.iter().map(|open| (open.kind, open.count, open.balance_minor.0)).collect();
    assert_eq!(
        open,
        [
            // What is owed and what is due, and each reason, apart: together they would seem to be next to nothing.
            (OpenKind::Suspense, 2, -130),
            (OpenKind::Suspense, 1, 130),
            (OpenKind::Suspense, 1, 9),
            (OpenKind::Awaited, 2, 325),
            (OpenKind::Unconfirmed, 1, 130),
            (OpenKind::NegativeAvailable, 1, 70),
            (OpenKind::WaitingForApproval, 1, 500),
        ]
    );
    let accounts: Vec<_> = review.open.iter().map(|open| open.account.as_deref()).collect();
    let unknown = Some("liabilities:suspense:unknown-charge");
    assert_eq!(accounts, [Some(SUSPENSE), Some(SUSPENSE), unknown, None, Some(UNCONFIRMED), None, None]);
    assert_eq!((review.position, review.open[0].currency.as_str()), (16, "usd"));
    let of = async |month: &str| {
        let review = read::period_review::<MinorNumber>(&books.pool, month.parse().unwrap()).await.unwrap().value;
        review.open.into_iter().map(|open| (open.kind, open.count, open.balance_minor.0)).collect::<Vec<_>>()
    };
    let march = of("2024-03").await;
    assert_eq!(march[0], (OpenKind::Suspense, 3, -1130));
    assert!(march.contains(&(OpenKind::Awaited, 3, 4325)) && march.contains(&(OpenKind::WaitingForApproval, 2, 1000)));
    // Before the first entry nothing is posted, and something may be awaited all the same.
    assert_eq!(of("2024-01").await, [(OpenKind::Awaited, 1, 250)]);
    assert_eq!(of("2023-12").await, []);
}

/// Who reads that nothing is awaited must be able to see that `awaited` has not come so far.
#[tokio::test]
async fn a_review_reflects_no_more_than_the_least_of_what_it_is_read_from() {
    for behind in ["awaited", "postings", "balances", "manual_entries", "payouts"] {
        let books = Books::empty().await;
        let review = async || read::period_review::<MinorNumber>(&books.pool, month()).await.unwrap();
        let made = history(&mut Dice(12), 3);
        let first = charge(20, "ch_20", "2024-02-03T00:00:00Z", 100, None);
        let second = charge(30, "ch_30", "2024-02-04T00:00:00Z", 10, None);
        let mut events: Vec<_> = made.iter().map(Made::event).collect();
        events.push(first);
        books.apply(&events, |_| true).await;
        books.apply(std::slice::from_ref(&second), |name| name != behind).await;
        let read = review().await;
        assert_eq!((read.position, read.value.position), (20, 20), "{behind}");
        books.apply(&[second], |name| name == behind).await;
        let read = review().await;
        assert_eq!((read.position, read.value.position), (30, 30), "{behind}");
        let awaited = read.value.open.iter().find(|open| open.kind == OpenKind::Awaited).unwrap();
        assert_eq!((awaited.count, awaited.balance_minor.0), (2, 110), "{behind}");
    }
}

/// What is said of a closed month was found in `periods`, and is no newer than that.
#[tokio::test]
async fn a_closed_month_is_of_no_later_position_than_what_says_that_it_is_closed() {
    let books = Books::empty().await;
    let made = history(&mut Dice(24), 40);
    let events: Vec<_> = made[..20].iter().map(Made::event).collect();
    let close = made[19].position + 1;
    let rest: Vec<_> =
        made[20..].iter().map(|made| Made { position: made.position + 10, ..made.clone() }.event()).collect();
    books.apply(&events, |_| true).await;
    books.apply(&[closed(close, "ada")], |_| true).await;
    books.apply(&rest, |name| name != "periods").await;
    let asked = Asked::Period(month(), None);
    let balance = read::closed_balance::<MinorNumber>(&books.pool, month(), None, None).await.unwrap();
    assert_eq!((balance.position, balance.value.position), (close, close));
    let suspense = read::suspense::<MinorNumber>(&books.pool, asked, None, 10).await.unwrap();
    assert_eq!(suspense.position, close);
}

/// An export says whether its month is closed, so it is of no later position than `periods` knows of.
#[tokio::test]
async fn an_export_of_a_month_is_as_far_as_it_is_known_whether_it_is_closed() {
    let books = Books::empty().await;
    let made = history(&mut Dice(24), 20);
    let events: Vec<_> = made.iter().map(Made::event).collect();
    let range = ExportRange {
        from: Some(month().start().unwrap()),
        until: Some(month().end().unwrap()),
        month: Some(month()),
        ..ExportRange::default()
    };
    let begin = async |range| ExportSnapshot::begin(&books.pool, range).await;
    let at = async |range| {
        let mut snapshot = begin(range).await.unwrap();
        let entries: Vec<u64> = snapshot.entries().map(|entry| entry.unwrap().position).collect().await;
        (snapshot.position, snapshot.is_closed, entries.into_iter().max())
    };
    let close = made[19].position + 1;
    let is_within = |made: &&Made| (range.from..range.until).contains(&Some(made.entry.effective_at));
    let last_of = |made: &[Made]| made.iter().filter(is_within).map(|made| made.position).max();
    assert_ne!(last_of(&made[..10]), last_of(&made));
    books.apply(&events[..10], |_| true).await;
    books.apply(&events[10..], |name| name != "periods").await;
    books.apply(&[closed(close, "ada")], |name| !matches!(name, "periods" | "entries")).await;
    assert_eq!(at(range).await, (made[9].position, false, last_of(&made[..10])));
    // What is no month's is not held up by it.
    assert_eq!(at(ExportRange { month: None, ..range }).await, (made[19].position, false, last_of(&made)));

    books.apply(&[closed(close, "ada")], |name| name == "periods").await;
    let refused = begin(range).await.map(|_| ()).unwrap_err();
    assert!(
        matches!(refused, ReadError::AsOfPositionAhead { position, .. } if position == made[19].position),
        "{refused:?}"
    );
    books.apply(&[closed(close, "ada")], |name| name == "entries").await;
    assert_eq!(at(range).await, (close, true, last_of(&made)));
}

/// A moment later there is an answer, so it is not that there is none.
#[tokio::test]
async fn a_close_that_the_balances_have_not_reached_is_told_from_a_position_that_nobody_knows() {
    let books = Books::empty().await;
    let made = history(&mut Dice(24), 20);
    let events: Vec<_> = made.iter().map(Made::event).collect();
    let (last, close) = (made[19].position, made[19].position + 1);
    books.apply(&events, |_| true).await;
    books.apply(&[closed(close, "ada")], |name| name == "periods").await;
    let refused = read::closed_balance::<MinorNumber>(&books.pool, month(), None, None).await.unwrap_err();
    assert!(
        matches!(
            refused,
            ReadError::AsOfPositionAhead { as_of: AsOf::Known { position: asked, .. }, position }
                if (asked, position) == (close, last)
        ),
        "{refused:?}"
    );
}
