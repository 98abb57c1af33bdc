//! The reader's pages, streams and heads.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use fanledger_journal::event::{ChainDigest, Position};
use support::{Journal, appended, command, event, stream};

#[tokio::test]
async fn pages_follow_on_each_other_and_carry_the_chain_across() {
    let journal = Journal::start().await;
    for n in 0..7 {
        appended(journal.writer.append(command(&format!("evt_{n}"), 0, 3)).await.unwrap());
    }
    let mut position = Position::START;
    let mut chain = ChainDigest::START;
    let mut pages = Vec::new();
    loop {
        let page = journal.reader.after(position, 4, 1 << 20).await.unwrap();
        if page.is_empty() {
            break;
        }
        pages.push(page.len());
        for event in page {
            assert_eq!(event.position, position.next());
            assert_eq!(event.previous_chain, chain);
            (position, chain) = (event.position, event.chain);
            assert_eq!(journal.reader.at(event.position).await.unwrap(), Some(event));
        }
    }
    assert_eq!(pages, [4, 4, 4, 4, 4, 1]);
    let head = journal.reader.head().await.unwrap();
    assert_eq!((head.position, head.chain), (position, chain));
    assert_eq!(journal.reader.at(position.next()).await.unwrap(), None);
    assert_eq!(journal.reader.at(Position::START).await.unwrap(), None);
}

#[tokio::test]
async fn a_page_is_bounded_in_bytes_and_always_moves_on() {
    let journal = Journal::start().await;
    for n in 0..4 {
        let mut large = command(&format!("evt_{n}"), 0, 0);
        // Inline and barely compressible, so that the stored size is near the real one.
        let noise: String =
            (0..1500_u32).map(|i| char::from(b'a' + (i.wrapping_mul(2_654_435_761) >> 27) as u8 % 26)).collect();
        large.events = vec![event(format!("\"{noise}\""))];
        appended(journal.writer.append(large).await.unwrap());
    }
    let lengths = |limit| {
        let reader = journal.reader.clone();
        async move { reader.after(Position::new(1), 10, limit).await.unwrap().len() }
    };
    assert_eq!(lengths(1).await, 1);
    assert_eq!(lengths(3200).await, 2);
    assert_eq!(lengths(1 << 20).await, 3);
}

#[tokio::test]
async fn streams_are_read_whole_and_listed_by_id() {
    let journal = Journal::start().await;
    for (id, expected, events) in [("evt_b", 0, 2), ("evt_a", 0, 1), ("evt_b", 2, 1), ("evt_C", 0, 1)] {
        appended(journal.writer.append(command(id, expected, events)).await.unwrap());
    }
    let events = journal.reader.stream(&stream("evt_b")).await.unwrap();
    assert_eq!(
        events.iter().map(|event| (event.position.get(), event.sequence)).collect::<Vec<_>>(),
        [(1, 1), (2, 2), (4, 3)]
    );
    assert_eq!(events[2].previous_chain, journal.reader.at(Position::new(3)).await.unwrap().unwrap().chain);
    assert_eq!(journal.reader.stream(&stream("evt_none")).await.unwrap(), []);
    assert_eq!(journal.reader.last_sequence(&stream("evt_b")).await.unwrap(), 3);
    assert_eq!(journal.reader.last_sequence(&stream("evt_none")).await.unwrap(), 0);
    // In byte order, whatever the database's collation.
    assert_eq!(journal.reader.stream_ids("stripe_event", "", 10).await.unwrap(), ["evt_C", "evt_a", "evt_b"]);
    assert_eq!(journal.reader.stream_ids("stripe_event", "evt_C", 1).await.unwrap(), ["evt_a"]);
    assert_eq!(journal.reader.stream_ids("stripe_charge", "", 10).await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn a_journal_keeps_its_identity() {
    let journal = Journal::start().await;
    let id = journal.reader.head().await.unwrap().journal_id;
    assert!(!id.is_nil());
    journal.fill(1).await;
    assert_eq!(journal.reader.head().await.unwrap().journal_id, id);
}
