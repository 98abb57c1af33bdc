//! Accounts with so many lines that their sums stand on three levels.

use fanledger_domain::entry::{Posting, Side};
use fanledger_domain::money::Money;
use fanledger_domain::time::Timestamp;
use fanledger_gateway::read::{self, AsOf, By, Span};
use fanledger_gateway_api::Minor;

use crate::made::{ACCOUNTS, ALL_BY, Books, Dice, Made, history, plain};

const ENTRIES: usize = 6_000;
/// On either side; with 6,000 entries that is more than 32 × 32 × 32 lines an account.
const LINES: i64 = 6;

/// In order but for a few that are late by up to an hour.
fn long_history(dice: &mut Dice) -> Vec<Made> {
    let template = history(dice, 1).remove(0);
    let at = |seconds: usize| Timestamp::from_unix_seconds(1_700_000_000 + i64::try_from(seconds).unwrap()).unwrap();
    (1..=ENTRIES)
        .map(|n| {
            let mut made = template.clone();
            made.position = 2 * n as u64;
            // Several are recorded in one instant, as one append does.
            made.recorded_at = at(10_000 + n / 5 * 5);
            made.entry.occurred_at = at(10_000 + n - if dice.roll(100) == 0 { dice.roll(3_600) } else { 0 });
            made.entry.effective_at = if dice.roll(50) == 0 { at(10_000 + n) } else { made.entry.occurred_at };
            made.entry.postings = (1..=LINES)
                .flat_map(|line| {
                    let money = Money::new(line + i64::try_from(dice.roll(1000)).unwrap(), "usd".parse().unwrap());
                    [(ACCOUNTS[0], Side::Debit), (ACCOUNTS[2], Side::Credit)].map(|(account, side)| Posting {
                        account: account.parse().unwrap(),
                        side,
                        money,
                    })
                })
                .collect();
            made
        })
        .collect()
}

#[tokio::test]
async fn balances_of_many_lines_equal_plain_sums() {
    let mut dice = Dice(7);
    let made = long_history(&mut dice);
    let books = Books::empty().await;
    let events: Vec<_> = made.iter().map(Made::event).collect();
    for batch in events.chunks(1_000) {
        books.apply(batch, |name| matches!(name, "balances" | "postings")).await;
    }
    let nodes: Vec<(i16, i64)> =
        sqlx::query_as("SELECT level, count(*) FROM balances_g1.balance_nodes GROUP BY level ORDER BY level")
            .fetch_all(&books.superuser)
            .await
            .unwrap();
    assert_eq!(nodes, [(1, 2 * 1125), (2, 2 * 35), (3, 2)]);

    let mut questions = vec![(AsOf::Latest, By::Effective)];
    for _ in 0..8 {
        let at = &made[dice.roll(ENTRIES)];
        questions.push((AsOf::Position((at.position + dice.roll(2) as u64).min(2 * ENTRIES as u64)), By::Recorded));
        questions.extend(ALL_BY.map(|by| (AsOf::Instant(at.at(by)), by)));
    }
    let account = ACCOUNTS[0].parse().unwrap();
    for (as_of, by) in questions {
        let label = format!("as of {as_of:?} by {by:?}");
        let expected = plain(&made, as_of, by);
        let trial = read::trial_balance::<Minor>(&books.pool, as_of, by, None).await.unwrap().value;
        let found = trial.currencies.iter().flat_map(|currency| {
            currency.accounts.iter().map(|account| {
                let sums = (account.debits_minor.0, account.credits_minor.0);
                ((currency.currency.clone(), account.account.clone()), sums)
            })
        });
        assert_eq!(found.collect::<std::collections::BTreeMap<_, _>>(), expected, "{label}");

        let page =
            read::postings::<Minor>(&books.pool, &account, None, Span::up_to(as_of, by), None, 3).await.unwrap().value;
        let (debits, credits) = expected[&("usd".to_owned(), ACCOUNTS[0].to_owned())];
        assert_eq!(page.items[0].balance_minor.0, debits - credits, "{label}");
        assert!(
            page.items
                .iter()
                .all(|line| made.iter().any(|made| made.position == line.position && made.within(as_of, by)))
        );
    }
}
