//! The relay against a real Postgres and a real NATS.

#![allow(clippy::unwrap_used, reason = "a test's helper fails its test")]

mod transport;

use async_nats::jetstream;
use fanledger_devkit::TestNats;
use fanledger_devkit::servers::{NatsPasswords, NatsUser};
use fanledger_journal::event::{Metadata, Position, StreamId};
use fanledger_journal::message;
use fanledger_journal::nats::{STREAM, connect, permissions_config};
use fanledger_journal::reader::Reader;
use fanledger_journal::relay::RelayOptions;
use transport::{RunningRelay, World, append_event, eventually};

fn authorization(passwords: &NatsPasswords) -> String {
    permissions_config(&passwords.relay, &passwords.reader)
}

async fn stream(url: &str) -> jetstream::stream::Stream {
    jetstream::new(connect(url, "test").await.unwrap()).get_stream(STREAM).await.unwrap()
}

/// Every message from `first` to the stream's end stands at its position and says what the journal says.
async fn assert_mirrors(url: &str, reader: &Reader, first: u64) {
    let mut stream = stream(url).await;
    let head = reader.head().await.unwrap();
    let state = stream.info().await.unwrap().state.clone();
    assert_eq!((state.first_sequence, state.last_sequence), (first, head.position.get()));
    for sequence in first..=head.position.get() {
        let stored = stream.get_raw_message(sequence).await.unwrap();
        let decoded = message::decode_parts(&stored.headers, &stored.payload).unwrap();
        let event = reader.at(Position::new(sequence)).await.unwrap().unwrap();
        assert_eq!(stored.subject.as_str(), message::subject(&event));
        assert_eq!(
            (decoded.journal_id, decoded.position, decoded.event),
            (head.journal_id, event.position, Some(event))
        );
    }
}

#[tokio::test]
async fn the_stream_s_sequence_is_the_position_and_its_messages_say_what_the_journal_says() {
    let (world, nats) = (World::new().await, TestNats::start_with(authorization).await);
    world.append(700).await;
    let options = RelayOptions { wake: Some(world.writer.appended()), ..RelayOptions::new(nats.url()) };
    let mut relay = RunningRelay::start(&world.projector, options);
    relay.reached(Position::new(700)).await;
    let last = world.append(50).await;
    let status = relay.reached(last).await;
    assert_eq!((status.refills, status.error), (1, None));
    assert_mirrors(&nats.url(), &world.reader, 1).await;
    relay.running.stop().await;
}

#[tokio::test]
async fn a_restarted_relay_goes_on_where_the_stream_ends() {
    let (world, nats) = (World::new().await, TestNats::start().await);
    let first = world.append(20).await;
    let mut relay = RunningRelay::start(&world.projector, RelayOptions::new(nats.url()));
    relay.reached(first).await;
    relay.running.kill().await;
    let last = world.append(20).await;
    let mut relay = RunningRelay::start(&world.projector, RelayOptions::new(nats.url()));
    assert_eq!(relay.reached(last).await.refills, 0);
    assert_mirrors(&nats.url(), &world.reader, 1).await;
}

#[tokio::test]
async fn a_new_stream_begins_with_the_journal_s_last_events() {
    let (world, nats) = (World::new().await, TestNats::start().await);
    world.append(300).await;
    let options = RelayOptions { refill_events: 100, ..RelayOptions::new(nats.url()) };
    let mut relay = RunningRelay::start(&world.projector, options);
    relay.reached(Position::new(300)).await;
    assert_mirrors(&nats.url(), &world.reader, 201).await;
}

#[tokio::test]
async fn a_second_relay_stands_by_and_takes_over() {
    let (world, nats) = (World::new().await, TestNats::start().await);
    let mut first = RunningRelay::start(&world.projector, RelayOptions::new(nats.url()));
    first.until("is active", |status| status.active).await;
    let mut second = RunningRelay::start(&world.projector, RelayOptions::new(nats.url()));
    let position = world.append(30).await;
    first.reached(position).await;
    assert!(!second.status.borrow().active);
    first.running.kill().await;
    second.until("is active", |status| status.active).await;
    let position = world.append(30).await;
    second.reached(position).await;
    assert_mirrors(&nats.url(), &world.reader, 1).await;
}

#[tokio::test]
async fn two_relays_that_both_think_they_are_active_fence_each_other() {
    let (world, nats) = (World::new().await, TestNats::start().await);
    world.append(2000).await;
    // Locks are per database: a copy of the journal gives a second relay that nothing but the expected sequence holds back.
    let last = world.append(1).await;
    world.writer.shutdown().await;
    world.projector.close().await;
    let copy = format!("{}_copy", world.database.url().rsplit('/').next().unwrap());
    let original = world.database.url().rsplit('/').next().unwrap().to_owned();
    let admin_url = world.database.url().replace(&original, "postgres");
    let admin = fanledger_journal::database::connect(&admin_url, 1).await.unwrap();
    sqlx::raw_sql(&format!("CREATE DATABASE {copy} TEMPLATE {original}")).execute(&admin).await.unwrap();
    let pools = [
        fanledger_journal::database::connect(world.database.url(), 4).await.unwrap(),
        fanledger_journal::database::connect(&world.database.url().replace(&original, &copy), 4).await.unwrap(),
    ];
    let mut relays = pools.each_ref().map(|pool| RunningRelay::start(pool, RelayOptions::new(nats.url())));
    for relay in &mut relays {
        relay.reached(last).await;
    }
    assert_mirrors(&nats.url(), &Reader::new(pools[0].clone()), 1).await;
    for relay in relays {
        relay.running.stop().await;
    }
    pools[1].close().await;
    sqlx::raw_sql(&format!("DROP DATABASE {copy} WITH (FORCE)")).execute(&admin).await.unwrap();
}

#[tokio::test]
async fn a_message_that_is_not_the_relay_s_makes_it_fill_the_stream_anew() {
    let (world, nats) = (World::new().await, TestNats::start().await);
    let position = world.append(10).await;
    let mut relay = RunningRelay::start(&world.projector, RelayOptions::new(nats.url()));
    relay.reached(position).await;
    let client = connect(&nats.url(), "test").await.unwrap();
    jetstream::new(client).publish("journal.manual_entry.Forged", "{}".into()).await.unwrap().await.unwrap();
    let position = world.append(1).await;
    relay.until("fills anew", |status| status.refills == 2 && status.position == position).await;
    assert_mirrors(&nats.url(), &world.reader, 1).await;
}

#[tokio::test]
async fn a_stream_that_is_lost_while_the_relay_runs_is_filled_anew() {
    let (world, mut nats) = (World::new().await, TestNats::start().await);
    world.append(40).await;
    let mut relay = RunningRelay::start(&world.projector, RelayOptions::new(nats.url()));
    relay.reached(Position::new(40)).await;
    nats.wipe().await;
    relay.until("notices", |status| !status.connected && status.error.is_some()).await;
    let position = world.append(40).await;
    nats.restart().await;
    relay.until("fills anew", |status| status.refills == 2 && status.position == position).await;
    assert_mirrors(&nats.url(), &world.reader, 1).await;

    // Deleted under its hands, with the server up.
    jetstream::new(connect(&nats.url(), "test").await.unwrap()).delete_stream(STREAM).await.unwrap();
    let position = world.append(1).await;
    relay.until("fills anew", |status| status.refills == 3 && status.position == position).await;
    assert_mirrors(&nats.url(), &world.reader, 1).await;
}

#[tokio::test]
async fn a_stream_whose_files_were_cut_is_completed() {
    let (world, mut nats) = (World::new().await, TestNats::start().await);
    let before = world.append(200).await;
    let mut relay = RunningRelay::start(&world.projector, RelayOptions::new(nats.url()));
    relay.reached(before).await;
    nats.kill().await;
    let mut cut = 0;
    for file in files_under(&nats.store()) {
        if file.extension().is_some_and(|extension| extension == "blk") {
            let file = std::fs::OpenOptions::new().write(true).open(&file).unwrap();
            file.set_len(file.metadata().unwrap().len() / 2).unwrap();
            cut += 1;
        }
    }
    assert!(cut > 0, "messages lie in files");
    nats.restart().await;
    let position = world.append(10).await;
    relay.until("completes the stream", |status| status.connected && status.position == position).await;
    let mut stream = stream(&nats.url()).await;
    let state = stream.info().await.unwrap().state.clone();
    assert_eq!(state.last_sequence, position.get());
    assert_mirrors(&nats.url(), &world.reader, state.first_sequence).await;
}

fn files_under(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { files_under(&path) } else { vec![path] }).collect()
}

#[tokio::test]
async fn a_journal_that_lost_its_tail_replaces_what_the_stream_holds() {
    let (world, nats) = (World::new().await, TestNats::start().await);
    let kept = world.append(30).await;
    let lost = world.append(30).await;
    let mut relay = RunningRelay::start(&world.projector, RelayOptions::new(nats.url()));
    relay.reached(lost).await;
    relay.running.kill().await;

    // The stream is ahead of the journal.
    world.lose_tail(kept).await;
    let mut relay = RunningRelay::start(&world.projector, RelayOptions::new(nats.url()));
    assert_eq!(relay.reached(kept).await.refills, 1);
    assert_mirrors(&nats.url(), &world.reader, 1).await;

    // Another history has grown past the stream's end meanwhile, before the relay's eyes and then behind its back.
    let lost = world.append(5).await;
    relay.reached(lost).await;
    world.lose_tail(kept).await;
    let position = world.append(10).await;
    relay.until("fills anew", |status| status.refills == 2 && status.position == position).await;
    assert_mirrors(&nats.url(), &world.reader, 1).await;
    relay.running.kill().await;
    world.lose_tail(kept).await;
    let position = world.append(20).await;
    let mut relay = RunningRelay::start(&world.projector, RelayOptions::new(nats.url()));
    assert_eq!(relay.reached(position).await.refills, 1);
    assert_mirrors(&nats.url(), &world.reader, 1).await;
}

#[tokio::test]
async fn what_no_header_can_carry_is_omitted() {
    let (world, nats) = (World::new().await, TestNats::start().await);
    let metadata = Metadata { correlation_id: Some("x".repeat(20_000)), ..Metadata::default() };
    let position =
        append_event(&world.writer, StreamId::new("manual_entry", "wide"), "AmountNoted", "{\"amount\":1}", metadata)
            .await;
    let mut relay = RunningRelay::start(&world.projector, RelayOptions::new(nats.url()));
    relay.reached(position).await;
    let stored = stream(&nats.url()).await.get_raw_message(1).await.unwrap();
    assert_eq!(stored.headers.get("Fanledger-Body").unwrap().as_str(), "omitted");
    assert_eq!(message::decode_parts(&stored.headers, &stored.payload).unwrap().event, None);
}

#[tokio::test]
async fn nats_away_is_a_status_and_not_a_busy_loop() {
    let (world, mut nats) = (World::new().await, TestNats::start().await);
    nats.stop().await;
    let mut relay = RunningRelay::start(&world.projector, RelayOptions::new(nats.url()));
    let status = relay.until("says so", |status| status.error.is_some()).await;
    assert!(status.error.unwrap().contains("connect to NATS"));
    nats.restart().await;
    let position = world.append(3).await;
    assert_eq!(relay.reached(position).await.error, None);
}

#[tokio::test]
async fn a_reader_reads_and_nothing_else() {
    let (world, nats) = (World::new().await, TestNats::start_with(authorization).await);
    let position = world.append(5).await;
    let mut relay = RunningRelay::start(&world.projector, RelayOptions::new(nats.url()));
    relay.reached(position).await;

    let reader = connect(&nats.urls_for(NatsUser::Reader), "test").await.unwrap();
    let mut context = jetstream::new(reader.clone());
    // A refused call is never answered.
    context.set_timeout(std::time::Duration::from_millis(300));
    let stream = context.get_stream(STREAM).await.unwrap();
    let consumer = stream.create_consumer(jetstream::consumer::pull::OrderedConfig::default()).await.unwrap();
    let mut messages = consumer.messages().await.unwrap();
    for expected in 1..=5 {
        let message = futures::StreamExt::next(&mut messages).await.unwrap().unwrap();
        assert_eq!(message::decode(&message).unwrap().position, Position::new(expected));
    }

    assert!(context.delete_stream(STREAM).await.is_err());
    assert!(stream.purge().await.is_err());
    assert!(
        context
            .update_stream(jetstream::stream::Config { name: STREAM.to_owned(), ..Default::default() })
            .await
            .is_err()
    );
    assert!(context.create_stream("OTHER").await.is_err());
    let acknowledged = context.publish("journal.manual_entry.Forged", "{}".into()).await.unwrap().await;
    assert!(acknowledged.is_err());
    reader.publish("journal.manual_entry.Forged", "{}".into()).await.unwrap();
    reader.flush().await.unwrap();

    // A consumer that delivers into the stream would write by a detour.
    let detour = jetstream::consumer::push::Config {
        deliver_subject: "journal.manual_entry.Forged".to_owned(),
        ..Default::default()
    };
    assert!(stream.create_consumer(detour).await.is_err());

    let relay_user = connect(&nats.url(), "test").await.unwrap();
    let mut context = jetstream::new(relay_user);
    context.set_timeout(std::time::Duration::from_millis(300));
    assert!(context.create_stream("OTHER").await.is_err());
    assert_mirrors(&nats.url(), &world.reader, 1).await;

    eventually("the relay goes on", || async { relay.status.borrow().connected }).await;
}
