//! Questions that have no answer.

use fanledger_domain::time::Timestamp;
use fanledger_gateway::read::{self, AsOf, By, ReadError, Span};
use fanledger_gateway_api::Minor;

use crate::made::{ACCOUNTS, ALL_BY, Books, Dice, Made, history};

#[tokio::test]
async fn a_question_without_an_answer_is_refused_by_name() {
    let books = Books::empty().await;
    let instant = |text: &str| AsOf::Instant(text.parse().unwrap());
    let trial = async |as_of, by| read::trial_balance::<Minor>(&books.pool, as_of, by, None).await;
    let account: fanledger_domain::account::Account = ACCOUNTS[0].parse().unwrap();

    let empty = trial(AsOf::Latest, By::Effective).await.unwrap();
    assert_eq!((empty.position, empty.value.currencies.len()), (0, 0));
    assert!(matches!(
        trial(instant("2024-01-01T00:00:00Z"), By::Effective).await,
        Err(ReadError::BeforeFirstEntry { first: None, .. })
    ));
    assert!(matches!(
        trial(AsOf::Position(0), By::Effective).await,
        Err(ReadError::BeforeFirstEntry { first: None, .. })
    ));
    assert!(matches!(
        trial(AsOf::Position(1), By::Effective).await,
        Err(ReadError::AsOfPositionAhead { as_of: AsOf::Position(1), position: 0 })
    ));
    let unknown = read::account::<Minor>(&books.pool, &account, AsOf::Latest, By::Effective).await;
    assert!(matches!(unknown, Err(ReadError::UnknownAccount(_))));

    let made = history(&mut Dice(3), 10);
    let events: Vec<_> = made.iter().map(Made::event).collect();
    books.apply(&events, |name| name != "stripe_inbox").await;
    for by in ALL_BY {
        let first = made.iter().map(|made| made.at(by)).min().unwrap();
        let before = Timestamp::from_unix_micros(first.as_unix_micros() - 1).unwrap();
        match trial(AsOf::Instant(before), by).await {
            Err(ReadError::BeforeFirstEntry { first: Some(AsOf::Instant(told)), .. }) => {
                assert_eq!(told, first, "{by:?}")
            }
            other => panic!("{other:?}"),
        }
        assert!(trial(AsOf::Instant(first), by).await.is_ok());
        let lines =
            read::postings::<Minor>(&books.pool, &account, None, Span::up_to(AsOf::Instant(before), by), None, 1).await;
        assert!(matches!(lines, Err(ReadError::BeforeFirstEntry { .. })));
    }
    let (first, last) = (made[0].position, made[9].position);
    match trial(AsOf::Position(first - 1), By::Effective).await {
        Err(error @ ReadError::BeforeFirstEntry { first: Some(AsOf::Position(told)), .. }) => {
            assert_eq!(told, first);
            assert_eq!(
                error.to_string(),
                format!("position {} is before the first entry, which is at position {first}", first - 1)
            );
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(trial(AsOf::Position(last + 1), By::Effective).await, Err(ReadError::AsOfPositionAhead { .. })));
    assert!(matches!(trial(AsOf::Position(u64::MAX), By::Effective).await, Err(ReadError::AsOfPositionAhead { .. })));
    let entry = read::entry::<Minor>(&books.pool, &"ch_1:none".parse().unwrap(), AsOf::Latest, By::Effective).await;
    assert!(matches!(entry, Err(ReadError::UnknownEntry(_))));
    let item = read::inbox_item(&books.pool, &"evt_none".parse().unwrap()).await;
    assert!(matches!(item, Err(ReadError::UnknownStripeEvent(_))));
}
