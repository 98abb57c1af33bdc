//! Everything at once, with parts of it killed, stopped and wiped at random moments, and an end state that equals a fresh
//! rebuild. Short here; `FANLEDGER_FULL_COUNTS=1` makes it the longer run.

#![allow(clippy::unwrap_used, reason = "a test's helper fails its test")]

mod transport;

use std::time::Duration;

use fanledger_devkit::TestNats;
use fanledger_journal::feed::Feed;
use fanledger_journal::generation::{RebuildOptions, rebuild};
use fanledger_journal::relay::RelayOptions;
use fanledger_journal::runner::RunnerContext;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio_util::sync::CancellationToken;
use transport::{Running, RunningRelay, World, expected, tally};

fn rounds(short: usize, full: usize) -> usize {
    if std::env::var_os("FANLEDGER_FULL_COUNTS").is_some() { full } else { short }
}

/// A load that goes on until it is told to stop; returns how many events were acknowledged.
fn load(world: &World, stop: CancellationToken) -> Vec<tokio::task::JoinHandle<u64>> {
    (0..8)
        .map(|_| {
            let (writer, stop) = (world.writer.clone(), stop.clone());
            tokio::spawn(async move {
                let mut acknowledged = 0;
                while !stop.is_cancelled() {
                    let n = usize::try_from(acknowledged).unwrap();
                    transport::append_one(writer.clone(), n).await;
                    acknowledged += 1;
                    // A few thousand events a second are load enough; the machine has other tests to run.
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                acknowledged
            })
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runners_and_relay_killed_and_nats_wiped_under_load_lose_and_double_nothing() {
    let seed = rand::random::<u64>();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let (world, mut nats) = (World::new().await, TestNats::start().await);
    let feeds = CancellationToken::new();
    let feed = Feed::start(nats.url(), feeds.clone());
    let context = RunnerContext::new(world.projector.clone(), feed);
    let start_relay = || RunningRelay::start(&world.projector, RelayOptions::new(nats.url()));
    let (mut relay, mut one, mut two) = (
        start_relay(),
        Running::runner(context.clone(), tally!("one")),
        Running::runner(context.clone(), tally!("two")),
    );
    let stop_load = CancellationToken::new();
    let writers = load(&world, stop_load.clone());

    let mut kills = 0;
    for _ in 0..rounds(12, 200) {
        tokio::time::sleep(Duration::from_millis(random.random_range(20..250))).await;
        match random.random_range(0..6) {
            0 | 1 => {
                one.kill().await;
                one = Running::runner(context.clone(), tally!("one"));
            }
            2 => {
                two.kill().await;
                two = Running::runner(context.clone(), tally!("two"));
            }
            3 => {
                let url = nats.url();
                relay.running.kill().await;
                relay = RunningRelay::start(&world.projector, RelayOptions::new(url));
            }
            4 => {
                nats.kill().await;
                nats.restart().await;
            }
            _ => {
                nats.wipe().await;
                nats.restart().await;
            }
        }
        kills += 1;
    }
    stop_load.cancel();
    let mut acknowledged = 0;
    for writer in writers {
        acknowledged += writer.await.unwrap();
    }
    let head = world.reader.head().await.unwrap().position;
    assert_eq!(head.get(), acknowledged, "every acknowledged event is there, once");
    world.reached("one", head).await;
    world.reached("two", head).await;
    relay.reached(head).await;
    println!("{kills} kills, {acknowledged} events");

    let all = expected(&world.projector).await;
    assert_eq!(world.tally("one").await, all);
    assert_eq!(world.tally("two").await, all);
    one.stop().await;
    rebuild(&world.context(), &mut tally!("one"), &RebuildOptions::unattended()).await.unwrap();
    assert_eq!(world.tally("one").await, all, "the end state equals a fresh rebuild");
    two.stop().await;
    feeds.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_journal_is_noticed_by_all_and_served_as_truth_after_a_rebuild() {
    let (world, nats) = (World::new().await, TestNats::start().await);
    let feeds = CancellationToken::new();
    let feed = Feed::start(nats.url(), feeds.clone());
    let context = RunnerContext::new(world.projector.clone(), feed.clone());
    let mut relay = RunningRelay::start(&world.projector, RelayOptions::new(nats.url()));
    let runner = Running::runner(context.clone(), tally!("tally"));
    let kept = world.append(100).await;
    let lost = world.append(60).await;
    relay.reached(lost).await;
    world.reached("tally", lost).await;

    // A restore closes every connection; the relay starts over on the journal as it is now.
    relay.running.kill().await;
    world.lose_tail(kept).await;
    let mut relay = RunningRelay::start(&world.projector, RelayOptions::new(nats.url()));
    relay.reached(kept).await;
    world.halted("tally").await;
    // Another history passes the position at which the old one was left.
    let head = world.append(200).await;
    relay.reached(head).await;
    world.halted("tally").await;
    rebuild(&world.context(), &mut tally!("tally"), &RebuildOptions::unattended()).await.unwrap();
    let mut connected = feed.connected();
    connected.wait_for(|connected| *connected).await.unwrap();
    let head = world.append(20).await;
    world.reached("tally", head).await;
    assert_eq!(world.tally("tally").await, expected(&world.projector).await);
    runner.stop().await;
    feeds.cancel();
}
