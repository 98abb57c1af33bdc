//! An account's lines with the balance after each, page by page.

use std::collections::BTreeMap;

use fanledger_domain::time::Timestamp;
use fanledger_gateway::read::{self, AsOf, By, Span};
use fanledger_gateway_api::{Minor, MinorNumber, PostingLine, Side as WireSide};

use crate::made::{ACCOUNTS, ALL_BY, Books, Dice, Made, history, plain, questions};

/// What a statement must show, newest first: (position, line, currency, signed amount, balance after it).
fn plain_statement(made: &[Made], account: &str, as_of: AsOf, by: By) -> Vec<(u64, String, i128, i128)> {
    let by = if matches!(as_of, AsOf::Position(_)) { By::Recorded } else { by };
    let mut lines = Vec::new();
    for made in made.iter().filter(|made| made.within(as_of, by)) {
        for (line, posting) in
            made.entry.postings.iter().enumerate().filter(|(_, posting)| posting.account.to_string() == account)
        {
            lines.push((
                (made.at(by), made.position, line),
                posting.money.currency().to_string(),
                i128::from(posting.signed_minor()),
            ));
        }
    }
    lines.sort();
    let mut running: BTreeMap<String, i128> = BTreeMap::new();
    let mut statement: Vec<_> = lines
        .into_iter()
        .map(|((_, position, _), currency, amount)| {
            let balance = running.entry(currency.clone()).or_default();
            *balance += amount;
            (position, currency, amount, *balance)
        })
        .collect();
    statement.reverse();
    statement
}

fn shown(line: &PostingLine) -> (u64, String, i128, i128) {
    let amount = match line.side {
        WireSide::Debit => line.amount_minor.0,
        WireSide::Credit => -line.amount_minor.0,
    };
    (line.position, line.currency.clone(), amount, line.balance_minor.0)
}

#[tokio::test]
async fn every_page_of_a_statement_carries_the_balance_after_each_line() {
    let books = Books::empty().await;
    let made = history(&mut Dice(7), 30);
    let events: Vec<_> = made.iter().map(Made::event).collect();
    books.apply(&events, |name| matches!(name, "balances" | "postings")).await;
    for (at, (as_of, by)) in questions(&made).into_iter().enumerate() {
        let account = ACCOUNTS[at % ACCOUNTS.len()];
        let label = format!("{account} as of {as_of:?} by {by:?}");
        let expected = plain_statement(&made, account, as_of, by);
        let mut found = Vec::new();
        let mut after = None;
        loop {
            let page = read::postings::<Minor>(
                &books.pool,
                &account.parse().unwrap(),
                None,
                Span::up_to(as_of, by),
                after.as_ref(),
                4,
            )
            .await
            .unwrap();
            found.extend(page.value.items.iter().map(shown));
            after = page.value.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(found, expected, "{label}");
    }
    let account = ACCOUNTS[0].parse().unwrap();
    let statement =
        read::statement::<MinorNumber>(&books.pool, &account, None, Span::up_to(AsOf::Latest, By::Occurred))
            .await
            .unwrap()
            .value;
    let expected = plain(&made, AsOf::Latest, By::Occurred);
    for part in &statement {
        let (debits, credits) = expected[&(part.currency.clone(), part.account.clone())];
        assert_eq!(part.balance_minor.0, debits - credits);
        assert_eq!(part.postings.last().unwrap().balance_minor, part.balance_minor);
        assert!(part.postings.is_sorted_by_key(|line| line.occurred_at.parse::<Timestamp>().unwrap()));
    }
    assert_eq!(statement.len(), 2);
}

#[tokio::test]
async fn a_statement_is_exact_while_its_projections_are_apart() {
    let made = history(&mut Dice(11), 40);
    let events: Vec<_> = made.iter().map(Made::event).collect();
    let (early, late) = (25, 40);
    let early_end = AsOf::Position(made[early - 1].position);
    for (balances, postings) in [(early, late), (late, early)] {
        let books = Books::empty().await;
        books.apply(&events[..balances], |name| name == "balances").await;
        books.apply(&events[..postings], |name| name == "postings").await;
        for by in ALL_BY {
            let account = ACCOUNTS[2];
            let of_both: Vec<_> = made[..early].to_vec();
            let first = read::postings::<Minor>(
                &books.pool,
                &account.parse().unwrap(),
                None,
                Span::up_to(AsOf::Latest, by),
                None,
                3,
            )
            .await
            .unwrap();
            assert_eq!(AsOf::Position(first.position), early_end);
            let mut found: Vec<_> = first.value.items.iter().map(shown).collect();
            // While the pages are read, the one behind catches up: the pages that follow stay at their position.
            if by == By::Recorded {
                books.apply(&events[balances..], |name| name == "balances").await;
                books.apply(&events[postings..], |name| name == "postings").await;
            }
            let mut after = first.value.next;
            while let Some(key) = after {
                let page = read::postings::<Minor>(
                    &books.pool,
                    &account.parse().unwrap(),
                    None,
                    Span::up_to(AsOf::Latest, by),
                    Some(&key),
                    3,
                )
                .await
                .unwrap();
                assert_eq!(AsOf::Position(page.position), early_end);
                found.extend(page.value.items.iter().map(shown));
                after = page.value.next;
            }
            assert_eq!(found, plain_statement(&of_both, account, AsOf::Latest, by), "{by:?}");
        }
    }
}
