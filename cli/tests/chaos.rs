//! The running system, killed and robbed of its broker under load: the end state equals that of a quiet run and that of a
//! fresh rebuild, with no hand but what a supervisor does, which is to start again what died.
//!
//! Short here; `FANLEDGER_FULL_COUNTS=1` makes it the longer run. Each test prints its counts; `FANLEDGER_SEED` repeats a run's
//! choices, as far as the machine's timing lets it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod e2e;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use e2e::books::{
    books, build_all_anew, equal_a_fresh_rebuild, every_acknowledged_event_is_there_once, nats_mirrors, undisturbed,
    verified,
};
use e2e::load::{Acknowledged, Gateways, Load};
use e2e::{Process, Site, eventually, gateway_url};
use fanledger_devkit::history::{self, History};
use fanledger_journal::database::Role;
use fanledger_journal::runner::{self, RunnerState};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use serde_json::Value;

fn of_length(short: usize, full: usize) -> usize {
    if std::env::var_os("FANLEDGER_FULL_COUNTS").is_some() { full } else { short }
}

fn seed() -> u64 {
    let seed = std::env::var("FANLEDGER_SEED").map_or_else(|_| rand::random(), |text| text.parse().unwrap());
    println!("seed {seed}");
    seed
}

/// Every role, twice: one is active, the other stands by; of gateways both serve.
const ROLES: &[&str] = &["gateway", "relay", "projector", "manager", "gateway", "relay", "projector", "manager"];

/// The roles of a site, as a supervisor keeps them.
struct Supervised {
    processes: Vec<Process>,
    gateways: Gateways,
}

impl Supervised {
    async fn start(site: &Site, roles: &'static [&'static str]) -> Self {
        let mut processes: Vec<Process> = roles.iter().map(|role| site.role(role)).collect();
        let mut urls = Vec::new();
        for (role, process) in roles.iter().zip(&mut processes) {
            if *role == "gateway" {
                urls.push(gateway_url(process).await);
            }
        }
        Self { processes, gateways: Arc::new(Mutex::new(urls)) }
    }

    /// kill -9, and another in its place.
    async fn replace(&mut self, site: &Site, index: usize) {
        let role = ROLES[index];
        let next = site.role(role);
        std::mem::replace(&mut self.processes[index], next).kill().await;
        if role == "gateway" {
            let url = gateway_url(&mut self.processes[index]).await;
            let slot = ROLES[..index].iter().filter(|role| **role == "gateway").count();
            self.gateways.lock().unwrap()[slot] = url;
        }
    }

    /// SIGTERM to all; each ends well and in time.
    async fn stop(self) {
        for process in self.processes {
            assert!(process.terminate().await.success());
        }
    }
}

/// Sends everything and waits until it is read.
async fn play(site: &Site, roles: &Supervised, events: &[Value]) -> Acknowledged {
    let acknowledged = Load::start(events, Arc::clone(&roles.gateways)).finish().await;
    site.read(acknowledged.positions.values().max().copied().unwrap()).await;
    acknowledged
}

/// What happens to the system.
#[derive(Clone, Copy, Debug)]
enum Blow {
    /// kill -9 of one role's process, by its index in [`ROLES`].
    Role(usize),
    /// kill -9 of NATS, its data kept.
    Nats,
    /// NATS stopped, its data deleted, started empty.
    NatsWiped,
    /// kill -9 of NATS, and the half of each file of messages gone, as after a power cut.
    NatsTruncated,
    /// kill -9 of Postgres.
    Postgres,
}

/// Each kind several times, in an order that the seed chooses.
fn blows(random: &mut StdRng) -> Vec<Blow> {
    let mut blows = Vec::new();
    for _ in 0..of_length(2, 20) {
        blows.extend((0..ROLES.len()).map(Blow::Role));
        blows.extend([Blow::Nats, Blow::NatsWiped, Blow::NatsTruncated, Blow::Postgres]);
    }
    blows.shuffle(random);
    blows
}

fn halve_messages(folder: &Path) {
    // NATS may be killed before its store is there.
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            halve_messages(&path);
        } else if path.extension().is_some_and(|extension| extension == "blk") {
            let file = std::fs::File::options().write(true).open(&path).unwrap();
            file.set_len(file.metadata().unwrap().len() / 2).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_killed_under_load_every_acknowledged_webhook_counts_once() {
    let mut random = StdRng::seed_from_u64(seed());
    let History { events, balance_transactions } = history::random(random.random(), of_length(120, 1500));
    let mut site = Site::start().await;
    site.stand_in.put_all(balance_transactions);
    let mut roles = Supervised::start(&site, ROLES).await;

    let started = Instant::now();
    let mut load = Load::start(&events, Arc::clone(&roles.gateways));
    let blows = blows(&mut random);
    // At random moments of the load, not of the clock: however slow the machine, webhooks are under way at each blow.
    let mut moments: Vec<usize> = blows.iter().map(|_| random.random_range(0..load.deliveries())).collect();
    moments.sort_unstable();
    for (blow, moment) in blows.iter().zip(moments) {
        load.reached(moment).await;
        println!("{:>7.2?} {moment:>4} deliveries: {blow:?}", started.elapsed());
        match *blow {
            Blow::Role(index) => roles.replace(&site, index).await,
            Blow::Nats => {
                site.servers.nats().kill().await.unwrap();
                site.servers.nats().restart().await.unwrap();
            }
            Blow::NatsWiped => {
                site.servers.nats().stop().await.unwrap();
                site.servers.nats().wipe().await.unwrap();
                site.servers.nats().restart().await.unwrap();
            }
            Blow::NatsTruncated => {
                site.servers.nats().kill().await.unwrap();
                halve_messages(&site.servers.nats().store());
                site.servers.nats().restart().await.unwrap();
            }
            Blow::Postgres => {
                site.servers.postgres().kill().await.unwrap();
                site.servers.postgres().restart().await.unwrap();
            }
        }
    }
    let acknowledged = load.finish().await;
    let head = site.read(acknowledged.positions.values().max().copied().unwrap()).await;
    let mirrored = nats_mirrors(&site, head).await;
    roles.stop().await;

    let pool = site.pool(Role::Operator).await;
    every_acknowledged_event_is_there_once(&pool, &acknowledged).await;
    assert_eq!(acknowledged.positions.len(), events.len());
    verified(&site).await;
    let found = books(&pool).await;
    let rows = equal_a_fresh_rebuild(&site).await;
    pool.close().await;
    assert_eq!(found, undisturbed(&mut site, &events).await);
    println!(
        "{} kills, wipes and cuts ({} of roles), {} webhooks acknowledged ({} duplicates, {} attempts repeated), {head} events, \
         {mirrored} mirrored in NATS, {rows} rows equal a fresh rebuild",
        blows.len(),
        blows.iter().filter(|blow| matches!(blow, Blow::Role(_))).count(),
        acknowledged.positions.len(),
        acknowledged.duplicates,
        acknowledged.repeated,
    );
    site.servers.stop().await.unwrap();
}

/// One of each.
const SINGLE: &[&str] = &["gateway", "relay", "projector", "manager"];

/// Postgres's files, copied while it stands still.
async fn copy(from: &Path, to: &Path) {
    let status = tokio::process::Command::new("cp").arg("-a").arg(from).arg(to).status().await.unwrap();
    assert!(status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn after_postgres_was_restored_nats_that_is_ahead_is_refilled() {
    let History { events, balance_transactions } = history::random(seed(), of_length(40, 600));
    let (kept, rest) = events.split_at(events.len() / 2);
    let (lost, new) = rest.split_at(rest.len() / 2);
    let mut site = Site::start().await;
    site.stand_in.put_all(balance_transactions);
    let superuser = site.superuser().await;
    let cluster: String = sqlx::query_scalar("SHOW data_directory").fetch_one(&superuser).await.unwrap();
    superuser.close().await;
    let (cluster, backup) = (Path::new(&cluster), site.directory().join("backup"));

    let roles = Supervised::start(&site, SINGLE).await;
    play(&site, &roles, kept).await;
    roles.stop().await;
    let backed_up = site.head().await;
    site.servers.postgres().stop().await.unwrap();
    copy(cluster, &backup).await;

    site.servers.postgres().restart().await.unwrap();
    let roles = Supervised::start(&site, SINGLE).await;
    play(&site, &roles, lost).await;
    let ahead = site.head().await;
    nats_mirrors(&site, ahead).await;
    roles.stop().await;
    site.servers.postgres().stop().await.unwrap();
    std::fs::remove_dir_all(cluster).unwrap();
    copy(&backup, cluster).await;
    site.servers.postgres().restart().await.unwrap();

    // NATS has run all the time and holds what the journal has lost.
    assert!(ahead > backed_up);
    let roles = Supervised::start(&site, SINGLE).await;
    nats_mirrors(&site, backed_up).await;
    play(&site, &roles, new).await;
    let head = site.head().await;
    let mirrored = nats_mirrors(&site, head).await;
    roles.stop().await;

    verified(&site).await;
    let pool = site.pool(Role::Operator).await;
    let found = books(&pool).await;
    pool.close().await;
    let rows = equal_a_fresh_rebuild(&site).await;
    assert_eq!(found, undisturbed(&mut site, &[kept, new].concat()).await);
    println!(
        "restored to {backed_up} of {ahead} events, then {head}; {} webhooks kept, {} lost, {} new; \
         {mirrored} events mirrored in NATS, {rows} rows equal a fresh rebuild",
        kept.len(),
        lost.len(),
        new.len()
    );
    site.servers.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_journal_lost_its_tail_what_is_ahead_halts_and_is_right_once_it_is_built_anew() {
    let History { events, balance_transactions } = history::random(seed(), of_length(40, 600));
    let (kept, rest) = events.split_at(events.len() / 2);
    let (lost, new) = rest.split_at(rest.len() / 2);
    let mut site = Site::start().await;
    site.stand_in.put_all(balance_transactions);
    let roles = Supervised::start(&site, SINGLE).await;
    play(&site, &roles, kept).await;
    let left = site.head().await;
    play(&site, &roles, lost).await;
    let ahead = site.head().await;
    roles.stop().await;

    // As a failover to a standby that was behind, for the journal alone: projections, NATS and the vault stay ahead.
    let superuser = site.superuser().await;
    sqlx::raw_sql(&format!(
        "ALTER TABLE journal.events DISABLE TRIGGER ALL; ALTER TABLE journal.batches DISABLE TRIGGER ALL; \
         ALTER TABLE journal.entry_ids DISABLE TRIGGER ALL; \
         DELETE FROM journal.events WHERE position > {left}; DELETE FROM journal.batches WHERE last_position > {left}; \
         DELETE FROM journal.entry_ids WHERE position > {left}; \
         ALTER TABLE journal.events ENABLE ALWAYS TRIGGER guard; ALTER TABLE journal.batches ENABLE ALWAYS TRIGGER guard; \
         ALTER TABLE journal.entry_ids ENABLE ALWAYS TRIGGER guard"
    ))
    .execute(&superuser)
    .await
    .unwrap();
    superuser.close().await;

    let roles = Supervised::start(&site, SINGLE).await;
    let pool = site.pool(Role::Operator).await;
    eventually("every runner halts", async || {
        let runners = runner::status(&pool).await.unwrap();
        runners.iter().all(|runner| runner.state == RunnerState::Halted)
    })
    .await;
    nats_mirrors(&site, left).await;
    // Stripe sends again what it may, and what is new, some of it to the very positions that were lost.
    let again = [lost, new].concat();
    let acknowledged = Load::start(&again, Arc::clone(&roles.gateways)).finish().await;
    build_all_anew(&site).await;
    let head = site.read(acknowledged.positions.values().max().copied().unwrap()).await;
    let mirrored = nats_mirrors(&site, head).await;
    roles.stop().await;

    verified(&site).await;
    let found = books(&pool).await;
    pool.close().await;
    let rows = equal_a_fresh_rebuild(&site).await;
    assert_eq!(found, undisturbed(&mut site, &events).await);
    println!(
        "cut from {ahead} events to {left}, then {head}; {} webhooks kept, {} lost and sent again, {} new; \
         {mirrored} events mirrored in NATS, {rows} rows equal a fresh rebuild",
        kept.len(),
        lost.len(),
        new.len()
    );
    site.servers.stop().await.unwrap();
}
