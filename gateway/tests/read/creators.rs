//! Creators' statements against plain sums, and every figure of them against the entries behind it.

use std::collections::{BTreeMap, BTreeSet};

use fanledger_domain::entry::{Activity, StatementLine};
use fanledger_domain::event::Event;
use fanledger_domain::facts::PaymentKind;
use fanledger_domain::id::CreatorId;
use fanledger_domain::period::{Month, PeriodClosed, PeriodReopened};
use fanledger_domain::time::Timestamp;
use fanledger_gateway::read::{
    self, ActivityFilter, AsOf, Asked, By, CreatorSpan, ReadError, creator_activity, creator_statement,
};
use fanledger_gateway_api::{CreatorStatement, MinorNumber};

use crate::made::{ALL_BY, Books, Dice, Made, edges, history, questions, recorded};

const CREATORS: [&str; 2] = ["crt_1", "crt_2"];
const BUCKETS: [&str; 4] = ["pending", "available", "held", "receivable"];

fn account(creator: &str, bucket: &str) -> String {
    if bucket == "receivable" {
        format!("assets:creators:{creator}:receivable")
    } else {
        format!("liabilities:creators:{creator}:{bucket}")
    }
}

/// Made-up entries that move creators' money to and fro, and say about it whatever they like.
fn of_creators(dice: &mut Dice, entries: usize) -> Vec<Made> {
    let mut accounts: Vec<String> = vec!["assets:stripe:clearing".to_owned()];
    accounts.extend(CREATORS.iter().flat_map(|creator| BUCKETS.iter().map(|bucket| account(creator, bucket))));
    let kinds = [None, Some(PaymentKind::Subscription), Some(PaymentKind::Tip)];
    let mut made = history(dice, entries);
    for made in &mut made {
        for posting in &mut made.entry.postings {
            posting.account = dice.pick(&accounts).parse().unwrap();
        }
        let currency = made.entry.postings[0].money.currency();
        for _ in 0..dice.roll(4) {
            made.entry.activity.push(Activity {
                creator: dice.pick(&CREATORS).parse().unwrap(),
                line: StatementLine::ALL[dice.roll(5)],
                kind: *dice.pick(&kinds),
                minor: i64::try_from(dice.roll(900)).unwrap() - 450,
                currency,
            });
        }
    }
    made
}

/// By line and kind.
type Figures = BTreeMap<(StatementLine, Option<PaymentKind>), i128>;

/// What an entry is to a creator in a currency, and what it adds to each of the four accounts.
fn plain(made: &Made, creator: &str, currency: &str) -> (Figures, [i128; 4]) {
    let (mut figures, mut buckets, mut rest) = (Figures::new(), [0; 4], 0);
    for posting in made.entry.postings.iter().filter(|posting| posting.money.currency().to_string() == currency) {
        let credited = -i128::from(posting.signed_minor());
        for (bucket, sum) in BUCKETS.iter().zip(&mut buckets) {
            if posting.account.to_string() == account(creator, bucket) {
                *sum += if *bucket == "receivable" { -credited } else { credited };
                rest += credited;
            }
        }
    }
    for said in &made.entry.activity {
        if said.creator.as_str() == creator && said.currency.to_string() == currency {
            *figures.entry((said.line, said.kind)).or_default() += i128::from(said.minor);
            rest -= i128::from(said.minor);
        }
    }
    *figures.entry((StatementLine::Adjustments, None)).or_default() += rest;
    figures.retain(|_, minor| *minor != 0);
    (figures, buckets)
}

/// Before `from`, and from there on.
fn is_before(made: &Made, from: Option<Timestamp>, by: By) -> bool {
    from.is_some_and(|from| made.at(by) < from)
}

/// The statement, as plain sums say it: opening, lines with their kinds, and the four accounts, by currency.
fn check(statement: &CreatorStatement<MinorNumber>, within: &[&Made], from: Option<Timestamp>, by: By, label: &str) {
    let currencies: BTreeSet<String> = within
        .iter()
        .map(|made| made.entry.postings[0].money.currency().to_string())
        .filter(|currency| {
            // One in which money only went to and fro is shown, too.
            within.iter().any(|made| {
                let touches = made.entry.postings.iter().any(|posting| {
                    posting.money.currency().to_string() == *currency
                        && BUCKETS
                            .iter()
                            .any(|bucket| posting.account.to_string() == account(&statement.creator, bucket))
                });
                touches || !plain(made, &statement.creator, currency).0.is_empty()
            })
        })
        .collect();
    let shown: Vec<&str> = statement.currencies.iter().map(|shown| shown.currency.as_str()).collect();
    let currencies: Vec<&str> = currencies.iter().map(String::as_str).collect();
    assert_eq!(shown, currencies, "{label}");
    for shown in &statement.currencies {
        let (mut opening, mut buckets, mut lines) = (0, [0; 4], BTreeMap::new());
        for made in within {
            let (figures, moved) = plain(made, &statement.creator, &shown.currency);
            buckets.iter_mut().zip(moved).for_each(|(sum, moved)| *sum += moved);
            for ((line, kind), minor) in figures {
                if is_before(made, from, by) {
                    opening += minor;
                } else {
                    let (sum, entries) = lines.entry((line, kind)).or_insert((0, BTreeSet::new()));
                    *sum += minor;
                    entries.insert(made.position);
                }
            }
        }
        assert_eq!(shown.opening_minor.0, opening, "{label}");
        let closing = &shown.closing;
        let found = [closing.pending_minor, closing.available_minor, closing.held_minor, closing.receivable_minor];
        assert_eq!(found.map(|minor| minor.0), buckets, "{label}");
        let named: Vec<&str> = shown.lines.iter().map(|line| line.line.as_str()).collect();
        assert_eq!(named, StatementLine::ALL.map(StatementLine::as_str), "{label}");
        for line in &shown.lines {
            let of: Vec<_> = lines.iter().filter(|((name, _), _)| name.as_str() == line.line).collect();
            let entries: BTreeSet<u64> = of.iter().flat_map(|(_, (_, entries))| entries).copied().collect();
            assert_eq!(line.amount_minor.0, of.iter().map(|(_, (sum, _))| sum).sum::<i128>(), "{label} {line:?}");
            assert_eq!(line.entries, entries.len() as u64, "{label} {line:?}");
            let kinds: BTreeMap<_, _> =
                line.kinds.iter().map(|kind| (kind.kind.clone(), (kind.amount_minor.0, kind.entries))).collect();
            let expected: BTreeMap<_, _> = of
                .iter()
                .map(|((_, kind), (sum, entries))| {
                    (kind.map(|kind| kind.as_str().to_owned()), (*sum, entries.len() as u64))
                })
                .collect();
            assert_eq!(kinds, expected, "{label} {line:?}");
        }
        let all: BTreeSet<u64> = lines.values().flat_map(|(_, entries)| entries).copied().collect();
        assert_eq!(shown.entries, all.len() as u64, "{label}");
        let total: i128 = shown.lines.iter().map(|line| line.amount_minor.0).sum();
        assert_eq!(shown.closing_minor.0, opening + total, "{label}");
        assert_eq!(shown.closing_minor.0, buckets[0] + buckets[1] + buckets[2] - buckets[3], "{label}");
    }
}

/// Every figure, and the sum of the entries behind it, page by page.
async fn drill_down(books: &Books, statement: &CreatorStatement<MinorNumber>, span: CreatorSpan, label: &str) {
    let creator: CreatorId = statement.creator.parse().unwrap();
    for shown in &statement.currencies {
        for line in &shown.lines {
            let whole = (None, line.amount_minor.0, line.entries);
            let kinds = line.kinds.iter().map(|kind| {
                let named = kind.kind.as_deref().map(|kind| PaymentKind::from_text(kind).unwrap());
                (Some(named), kind.amount_minor.0, kind.entries)
            });
            for (kind, amount, entries) in [whole].into_iter().chain(kinds) {
                let filter = ActivityFilter {
                    line: StatementLine::from_text(&line.line),
                    kind,
                    currency: Some(shown.currency.parse().unwrap()),
                };
                let (mut sum, mut positions, mut after) = (0, Vec::new(), None);
                loop {
                    let page =
                        creator_activity::<MinorNumber>(&books.pool, &creator, span, filter, after.as_ref(), 3).await;
                    let page = page.unwrap().value;
                    sum += page.items.iter().map(|item| item.amount_minor.0).sum::<i128>();
                    positions.extend(page.items.iter().map(|item| item.position));
                    after = page.next;
                    if after.is_none() {
                        break;
                    }
                }
                assert_eq!(sum, amount, "{label} {filter:?}");
                let distinct: BTreeSet<u64> = positions.iter().copied().collect();
                assert_eq!(distinct.len() as u64, entries, "{label} {filter:?}");
            }
        }
    }
}

async fn ask(
    books: &Books,
    creator: &str,
    from: Option<Timestamp>,
    asked: Asked,
) -> (CreatorSpan, Result<CreatorStatement<MinorNumber>, ReadError>) {
    let span = CreatorSpan::resolve(&books.pool, from, asked).await.unwrap();
    let creator: CreatorId = creator.parse().unwrap();
    (span, creator_statement(&books.pool, &creator, span, None).await.map(|read| read.value))
}

fn is_creators(name: &str) -> bool {
    matches!(name, "creator_activity" | "postings" | "periods")
}

#[tokio::test]
async fn a_statement_is_the_plain_sum_and_its_figures_are_those_of_their_entries() {
    let books = Books::empty().await;
    let dice = &mut Dice(11);
    let made = of_creators(dice, 30);
    let events: Vec<_> = made.iter().map(Made::event).collect();
    books.apply(&events, is_creators).await;
    let edges = edges();
    let mut statements = 0;
    for (number, (as_of, by)) in questions(&made).into_iter().enumerate() {
        let creator = CREATORS[number % 2];
        let from = (!matches!(as_of, AsOf::Position(_)) && dice.roll(3) > 0).then(|| *dice.pick(&edges));
        let label = format!("{creator} from {from:?} as of {as_of:?} by {by:?}");
        let (span, answer) = ask(&books, creator, from, Asked::AsOf(as_of, by)).await;
        let is_own = |made: &&Made| ["usd", "jpy"].iter().any(|currency| !plain(made, creator, currency).0.is_empty());
        let by_axis = if matches!(as_of, AsOf::Position(_)) { By::Recorded } else { by };
        // What was known at a close is an answer, even if it is nothing.
        let is_fixed = matches!(as_of, AsOf::Known { .. });
        if !is_fixed && !made.iter().filter(is_own).any(|made| made.within(as_of, by_axis)) {
            assert!(matches!(answer, Err(ReadError::BeforeFirstEntry { .. })), "{label}");
            continue;
        }
        let statement = answer.unwrap();
        let within: Vec<&Made> = made.iter().filter(|made| made.within(as_of, by)).collect();
        check(&statement, &within, from, by, &label);
        statements += 1;
        if number % 9 == 0 {
            drill_down(&books, &statement, span, &label).await;
        }
    }
    assert!(statements > 60, "only {statements} of the questions had an answer");
}

#[tokio::test]
async fn a_statement_is_of_the_lower_of_two_positions_and_its_pages_stay_there() {
    let books = Books::empty().await;
    let made = of_creators(&mut Dice(5), 24);
    let events: Vec<_> = made.iter().map(Made::event).collect();
    books.apply(&events, |name| name == "creator_activity").await;
    books.apply(&events[..16], |name| name == "postings").await;
    let (span, statement) = ask(&books, "crt_1", None, Asked::AsOf(AsOf::Latest, By::Effective)).await;
    let statement = statement.unwrap();
    assert_eq!(statement.position, made[15].position);
    check(&statement, &made[..16].iter().collect::<Vec<_>>(), None, By::Effective, "the lower");

    let creator: CreatorId = "crt_1".parse().unwrap();
    let filter = ActivityFilter::default();
    let page = async |after, limit| {
        creator_activity::<MinorNumber>(&books.pool, &creator, span, filter, after, limit).await.unwrap().value
    };
    let whole = page(None, 500).await.items;
    let first = page(None, 2).await;
    books.apply(&events[16..], |name| name == "postings").await;
    let rest = page(first.next.as_ref(), 500).await;
    assert_eq!([first.items, rest.items].concat(), whole);
    assert!(page(None, 500).await.items.len() > whole.len());
}

#[tokio::test]
async fn a_closed_month_is_as_it_was_closed_and_an_open_one_as_it_is() {
    let books = Books::empty().await;
    let mut made = of_creators(&mut Dice(8), 24);
    let month: Month = "2024-02".parse().unwrap();
    let (start, end) = (month.start().unwrap(), month.end().unwrap());
    let (before, late) = made.split_at_mut(16);
    // What came after the close has dates inside the month all the same, as after a reopening.
    late.iter_mut().for_each(|made| made.entry.effective_at = start);
    let events: Vec<_> = before.iter().map(Made::event).collect();
    books.apply(&events, is_creators).await;
    let within =
        |made: &[Made]| -> Vec<Made> { made.iter().filter(|made| made.entry.effective_at < end).cloned().collect() };
    let open = ask(&books, "crt_1", None, Asked::Period(month, None)).await.1.unwrap();
    assert!(!open.closed);
    assert_eq!((open.period.as_deref(), open.by.as_str()), (Some("2024-02"), "effective"));
    check(&open, &within(before).iter().collect::<Vec<_>>(), Some(start), By::Effective, "open");

    // Two months of silence later it is closed; then come the late ones.
    let closed_at = before[15].position + 1;
    let close =
        Event::PeriodClosed(PeriodClosed { period: month, first_open: end, at: end, by: "ada".parse().unwrap() });
    let close = recorded(closed_at, before[15].recorded_at.to_chrono(), "period", "platform", None, &close);
    books.apply(&[close], is_creators).await;
    late.iter_mut().for_each(|made| made.position += 1);
    let events: Vec<_> = late.iter().map(Made::event).collect();
    books.apply(&events, is_creators).await;
    let (span, closed) = ask(&books, "crt_1", None, Asked::Period(month, None)).await;
    let closed = closed.unwrap();
    assert_eq!((closed.closed, closed.position), (true, closed_at));
    assert_eq!(closed.currencies, open.currencies, "a closed month changed");
    drill_down(&books, &closed, span, "closed").await;
    // The first close closed everything before it.
    let january = ask(&books, "crt_1", None, Asked::Period("2024-01".parse().unwrap(), None)).await.1.unwrap();
    assert_eq!((january.closed, january.closed_with.as_deref()), (true, Some("2024-02")));
    assert_eq!(january.position, closed_at);
    let march = ask(&books, "crt_1", None, Asked::Period("2024-03".parse().unwrap(), None)).await.1.unwrap();
    assert_eq!((march.closed, march.close, march.closed_with), (false, None, None));

    // By date alone it would be another.
    let last = Timestamp::from_unix_micros(end.as_unix_micros() - 1).unwrap();
    let now = ask(&books, "crt_1", Some(start), Asked::AsOf(AsOf::Instant(last), By::Effective)).await.1.unwrap();
    check(&now, &within(&made).iter().collect::<Vec<_>>(), Some(start), By::Effective, "now");
    assert_ne!(now.currencies, closed.currencies);

    // Opened again it is as it is, and its close is asked for by number.
    let reopened = PeriodReopened {
        period: month,
        first_open: None,
        at: end,
        by: "bel".parse().unwrap(),
        reason: "a statement came late".to_owned(),
    };
    let (at, reopened) = (made[made.len() - 1].clone(), Event::PeriodReopened(reopened));
    let reopened = recorded(at.position + 1, at.recorded_at.to_chrono(), "period", "platform", None, &reopened);
    books.apply(&[reopened], is_creators).await;
    let open = ask(&books, "crt_1", None, Asked::Period(month, None)).await.1.unwrap();
    assert!(!open.closed);
    assert_eq!(open.currencies, now.currencies);
    let first = ask(&books, "crt_1", None, Asked::Period(month, Some(1))).await.1.unwrap();
    assert_eq!(
        (first.closed, first.close, first.superseded),
        (true, Some(1), true),
        "it is what was, and does not stand"
    );
    assert_eq!((closed.close, closed.closed_with, closed.superseded), (Some(1), None, false));
    assert_eq!(first.currencies, closed.currencies);
}

/// Whether a month is closed is known as far as `periods` has come, and so is what is said of it.
#[tokio::test]
async fn a_months_statement_is_of_no_later_position_than_what_says_whether_it_is_closed() {
    let books = Books::empty().await;
    let made = of_creators(&mut Dice(8), 24);
    let month: Month = "2024-02".parse().unwrap();
    let (start, end) = (month.start().unwrap(), month.end().unwrap());
    let events: Vec<_> = made.iter().map(Made::event).collect();
    books.apply(&events[..12], is_creators).await;
    let position = made[11].position;
    let close =
        Event::PeriodClosed(PeriodClosed { period: month, first_open: end, at: end, by: "ada".parse().unwrap() });
    let close = recorded(position + 1, made[11].recorded_at.to_chrono(), "period", "platform", None, &close);
    let rest: Vec<_> =
        made[12..].iter().map(|made| Made { position: made.position + 1, ..made.clone() }.event()).collect();
    books.apply(std::slice::from_ref(&close), |name| is_creators(name) && name != "periods").await;
    books.apply(&rest, |name| is_creators(name) && name != "periods").await;

    let creator: CreatorId = "crt_1".parse().unwrap();
    let asked = Asked::Period(month, None);
    let statement = async |span| creator_statement::<MinorNumber>(&books.pool, &creator, span, None).await.unwrap();
    let (span, _) = ask(&books, "crt_1", None, asked).await;
    let open = statement(span).await;
    assert_eq!((open.position, open.value.position, open.value.closed), (position, position, false));
    let known: Vec<&Made> = made[..12].iter().filter(|made| made.entry.effective_at < end).collect();
    check(&open.value, &known, Some(start), By::Effective, "as far as the periods are known");
    drill_down(&books, &open.value, span, "as far as the periods are known").await;
    let activity = creator_activity::<MinorNumber>(&books.pool, &creator, span, ActivityFilter::default(), None, 500);
    assert_eq!(activity.await.unwrap().position, position);

    books.apply(&[close], |name| name == "periods").await;
    let (span, _) = ask(&books, "crt_1", None, asked).await;
    let closed = statement(span).await;
    assert_eq!((closed.position, closed.value.position, closed.value.closed), (position + 1, position + 1, true));
    // What was decided before stays so, whatever `periods` has learnt since.
    let (span, _) = ask(&books, "crt_1", None, Asked::Period("2024-03".parse().unwrap(), None)).await;
    books.apply(&rest, |name| name == "periods").await;
    assert_eq!(statement(span).await.position, position + 1);
}

#[tokio::test]
async fn creators_are_listed_with_what_they_have() {
    let books = Books::empty().await;
    let made = of_creators(&mut Dice(2), 24);
    let events: Vec<_> = made.iter().map(Made::event).collect();
    books.apply(&events, is_creators).await;
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let page = read::creators::<MinorNumber>(&books.pool, after.as_ref(), 1).await.unwrap();
        assert_eq!(page.position, made[23].position);
        found.extend(page.value.items);
        after = page.value.next;
        if after.is_none() {
            break;
        }
    }
    let keys: Vec<_> = found.iter().map(|has| (has.creator.as_str(), has.currency.as_str())).collect();
    assert_eq!(keys, [("crt_1", "jpy"), ("crt_1", "usd"), ("crt_2", "jpy"), ("crt_2", "usd")]);
    for has in found {
        let sum = made
            .iter()
            .map(|made| plain(made, &has.creator, &has.currency).1)
            .fold([0; 4], |sum, moved| std::array::from_fn(|at| sum[at] + moved[at]));
        let buckets = has.buckets;
        let shown = [buckets.pending_minor, buckets.available_minor, buckets.held_minor, buckets.receivable_minor];
        assert_eq!(shown.map(|minor| minor.0), sum, "{} {}", has.creator, has.currency);
        assert_eq!(has.balance_minor.0, sum[0] + sum[1] + sum[2] - sum[3]);
    }
}

#[tokio::test]
async fn there_is_no_statement_of_nobody_nor_of_before_nor_beyond() {
    let books = Books::empty().await;
    let made = of_creators(&mut Dice(4), 12);
    let events: Vec<_> = made.iter().map(Made::event).collect();
    books.apply(&events, is_creators).await;
    for by in ALL_BY {
        let ask = async |creator, as_of| ask(&books, creator, None, Asked::AsOf(as_of, by)).await.1.unwrap_err();
        assert!(matches!(ask("crt_9", AsOf::Latest).await, ReadError::UnknownCreator(_)));
        let ahead = AsOf::Position(made[11].position + 1);
        assert!(matches!(ask("crt_1", ahead).await, ReadError::AsOfPositionAhead { .. }));
        let early = "2020-01-01T00:00:00Z".parse().unwrap();
        assert!(matches!(ask("crt_1", AsOf::Instant(early)).await, ReadError::BeforeFirstEntry { .. }));
        assert!(matches!(ask("crt_1", AsOf::Position(1)).await, ReadError::BeforeFirstEntry { .. }));
    }
}

/// The two projections contradict each other: better no statement than a wrong one.
#[tokio::test]
async fn a_statement_that_is_not_what_the_accounts_hold_is_none() {
    let books = Books::empty().await;
    let made = of_creators(&mut Dice(4), 12);
    let events: Vec<_> = made.iter().map(Made::event).collect();
    books.apply(&events, is_creators).await;
    let changed = "UPDATE creator_activity_g1.creator_activity SET minor = minor + 1 WHERE (creator, position, item) =
        (SELECT creator, position, item FROM creator_activity_g1.creator_activity WHERE creator = 'crt_1' AND minor <> -1
         ORDER BY position, item LIMIT 1)";
    sqlx::query(changed).execute(&books.superuser).await.unwrap();
    let answer = ask(&books, "crt_1", None, Asked::AsOf(AsOf::Latest, By::Effective)).await.1;
    assert!(matches!(answer, Err(ReadError::StatementDiffers { .. })), "{answer:?}");
}
