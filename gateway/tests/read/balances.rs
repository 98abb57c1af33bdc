//! Trial balance and accounts, against plain sums.

use std::collections::BTreeMap;

use fanledger_domain::entry::{Posting, Side};
use fanledger_domain::money::Money;
use fanledger_gateway::read::{self, AsOf, By, Span};
use fanledger_gateway_api::{AccountBalance, Minor};
use sqlx::PgPool;

use crate::made::{ACCOUNTS, ALL_BY, Books, Dice, Made, history, plain, questions};

#[tokio::test]
async fn balances_equal_plain_sums_as_of_every_instant_and_position() {
    for seed in 0..2 {
        let books = Books::empty().await;
        let mut dice = Dice(seed);
        let made = history(&mut dice, 40);
        let events: Vec<_> = made.iter().map(Made::event).collect();
        for batch in events.chunks(7) {
            books.apply(batch, |name| name == "balances").await;
        }
        let end = made.last().unwrap().position;
        for (as_of, by) in questions(&made) {
            let label = format!("seed {seed}, as of {as_of:?} by {by:?}");
            let expected = plain(&made, as_of, by);
            let trial = read::trial_balance::<Minor>(&books.pool, as_of, by, None).await.unwrap();
            assert_eq!(trial.position, end, "{label}");
            let mut found = BTreeMap::new();
            let mut order = Vec::new();
            for currency in &trial.value.currencies {
                let (debits, credits) = (currency.debits_minor.0, currency.credits_minor.0);
                assert_eq!(debits, credits, "{label}");
                assert_eq!(
                    debits,
                    currency.accounts.iter().map(|account| account.debits_minor.0).sum::<i128>(),
                    "{label}"
                );
                for account in &currency.accounts {
                    assert_eq!(account.balance_minor.0, account.debits_minor.0 - account.credits_minor.0, "{label}");
                    let key = (currency.currency.clone(), account.account.clone());
                    order.push(key.clone());
                    found.insert(key, (account.debits_minor.0, account.credits_minor.0));
                }
            }
            assert_eq!(found, expected, "{label}");
            assert!(order.is_sorted(), "{label}: {order:?}");

            // The other way to the same figures: account by account, by probes.
            if dice.roll(4) == 0 {
                assert_eq!(accounts_in_pages(&books.pool, as_of, by).await, expected, "{label}");
            }
        }
        let usd = read::trial_balance::<Minor>(&books.pool, AsOf::Latest, By::Effective, Some("usd".parse().unwrap()))
            .await
            .unwrap();
        assert_eq!(usd.value.currencies.iter().map(|currency| currency.currency.as_str()).collect::<Vec<_>>(), ["usd"]);
    }
}

/// What is asked for may be far from any entry, and one event with a mistaken date may be: neither makes the other slow.
#[tokio::test]
async fn months_without_entries_cost_nothing() {
    let books = Books::empty().await;
    let mut made = history(&mut Dice(11), 40);
    let far = "0000-01-01T00:00:00Z".parse().unwrap();
    (made[0].entry.occurred_at, made[0].entry.effective_at) = (far, far);
    let events: Vec<_> = made.iter().map(Made::event).collect();
    books.apply(&events, |name| name == "balances").await;
    for as_of in ["2027-01-01T00:00:00Z", "9999-12-31T23:59:59Z"].map(|at| AsOf::Instant(at.parse().unwrap())) {
        for by in ALL_BY {
            // The gateway's statements are cut after 5 s; these few rows take milliseconds.
            let pages = accounts_in_pages(&books.pool, as_of, by);
            let found = tokio::time::timeout(std::time::Duration::from_secs(1), pages).await.expect("in time");
            assert_eq!(found, plain(&made, as_of, by), "as of {as_of:?} by {by:?}");
        }
    }
}

async fn accounts_in_pages(pool: &PgPool, as_of: AsOf, by: By) -> BTreeMap<(String, String), (i128, i128)> {
    let mut found = BTreeMap::new();
    let mut after = None;
    loop {
        let page = read::accounts::<Minor>(pool, as_of, by, after.as_ref(), 3).await.unwrap().value;
        assert!(page.items.len() <= 3);
        for AccountBalance { account, currency, debits_minor, credits_minor, balance_minor } in page.items {
            assert_eq!(balance_minor.0, debits_minor.0 - credits_minor.0);
            assert!(found.insert((currency, account), (debits_minor.0, credits_minor.0)).is_none());
        }
        after = page.next;
        if after.is_none() {
            return found;
        }
    }
}

#[tokio::test]
async fn sums_pass_sixty_four_bits_exactly() {
    let books = Books::empty().await;
    let most = Money::new(fanledger_domain::entry::POSTING_MINOR_MAX, "usd".parse().unwrap());
    let mut made = history(&mut Dice(5), 1);
    made[0].entry.postings = (0..1500)
        .flat_map(|_| {
            [(ACCOUNTS[0], Side::Debit), (ACCOUNTS[1], Side::Credit)].map(|(account, side)| Posting {
                account: account.parse().unwrap(),
                side,
                money: most,
            })
        })
        .collect();
    books.apply(&[made[0].event()], |name| matches!(name, "balances" | "postings")).await;
    let exact = i128::from(most.minor()) * 1500;
    assert!(exact > i128::from(i64::MAX));
    let read =
        read::account::<Minor>(&books.pool, &ACCOUNTS[0].parse().unwrap(), AsOf::Latest, By::Effective).await.unwrap();
    assert_eq!(read.value.currencies[0].balance_minor.0, exact);
    let page = read::postings::<Minor>(
        &books.pool,
        &ACCOUNTS[1].parse().unwrap(),
        None,
        Span::up_to(AsOf::Latest, By::Effective),
        None,
        10,
    )
    .await
    .unwrap();
    assert_eq!(page.value.items[0].balance_minor.0, -exact);
    assert_eq!(page.value.items[9].balance_minor.0, -exact + i128::from(most.minor()) * 9);
}
