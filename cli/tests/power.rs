//! R8, a power cut: the journal on a disk of its own, whose content at one instant is all that is left while webhooks were being
//! acknowledged. On a disk with just that, Postgres recovers; every event that was acknowledged before is there, and whatever was
//! derived catches up or starts over, with no hand but what starts the processes again.
//!
//! One cut here; `FANLEDGER_FULL_COUNTS=1` makes it five, each on the disk that the one before left. `FANLEDGER_SEED` repeats a run's
//! choices. Where this machine has no disk whose power can be cut, the test says so, and says what is missing.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod e2e;

use std::sync::{Arc, Mutex};

use e2e::books::{
    books, equal_a_fresh_rebuild, every_acknowledged_event_is_there, every_acknowledged_event_is_there_once,
    nats_mirrors, undisturbed, verified,
};
use e2e::load::{Acknowledged, Gateways, Load};
use e2e::{Process, Site, gateway_url};
use fanledger_devkit::history::{self, History};
use fanledger_journal::database::Role;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;

fn full() -> bool {
    std::env::var_os("FANLEDGER_FULL_COUNTS").is_some()
}

const ROLES: &[&str] = &["gateway", "relay", "projector", "manager"];

struct Roles {
    processes: Vec<Process>,
    gateways: Gateways,
}

impl Roles {
    async fn start(site: &Site) -> Self {
        let mut processes: Vec<Process> = ROLES.iter().map(|role| site.role(role)).collect();
        let url = gateway_url(&mut processes[0]).await;
        Self { processes, gateways: Arc::new(Mutex::new(vec![url])) }
    }

    /// All of them at once, as the power goes.
    async fn kill(self) {
        for process in self.processes {
            process.kill().await;
        }
    }
}

/// What nobody asked to be on the disk: a power cut must be able to take something.
const UNSYNCHRONIZED: &str = "written-and-not-synchronised";
const UNSYNCHRONIZED_BYTES: usize = 1 << 20;

/// Cuts the power while webhooks come in, and brings everything back on what the disk then held. Returns what was acknowledged
/// until then.
async fn cut(site: &mut Site, roles: Roles, events: &[Value], moment: usize) -> Acknowledged {
    let mut load = Load::start(events, Arc::clone(&roles.gateways));
    load.reached(moment).await;
    let volume = site.volume.as_ref().unwrap();
    let lost = volume.path().join(UNSYNCHRONIZED);
    std::fs::write(&lost, vec![1; UNSYNCHRONIZED_BYTES]).unwrap();
    let frozen = volume.freeze().await;
    // Nothing more can be committed, so nothing more is acknowledged: those that were are all that count.
    let acknowledged = load.abandon().await;
    roles.kill().await;
    let copy = frozen.thaw().await;
    site.servers.postgres().kill().await.unwrap();
    site.volume.as_mut().unwrap().replace(&copy);
    let left = std::fs::metadata(&lost).map_or(0, |file| file.len());
    assert!(left < UNSYNCHRONIZED_BYTES as u64, "this disk holds what was never synchronised, so it proves nothing");
    std::fs::remove_file(&lost).ok();
    site.servers.postgres().restart().await.unwrap();
    acknowledged
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_power_cut_every_acknowledged_webhook_is_there_and_projections_catch_up() {
    let seed: u64 = std::env::var("FANLEDGER_SEED").map_or_else(|_| rand::random(), |text| text.parse().unwrap());
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let (payments, cuts) = if full() { (600, 5) } else { (60, 1) };
    let mut site = match Site::start_on_a_volume().await {
        Ok(site) => site,
        Err(missing) => {
            println!("R8 was NOT RUN: it needs root, loop devices, mkfs.ext4 and fsfreeze; {missing}");
            return;
        }
    };
    let History { events, balance_transactions } = history::random(random.random(), payments);
    site.stand_in.put_all(balance_transactions);
    let superuser = site.superuser().await;
    let cluster: String = sqlx::query_scalar("SHOW data_directory").fetch_one(&superuser).await.unwrap();
    superuser.close().await;
    let volume = site.volume.as_ref().unwrap();
    assert!(cluster.starts_with(volume.path().to_str().unwrap()), "{cluster} is not on the volume");
    volume.synchronize();

    let mut all = Acknowledged::default();
    for part in events.chunks(events.len().div_ceil(cuts)) {
        let roles = Roles::start(&site).await;
        let moment = random.random_range(1..part.len());
        let acknowledged = cut(&mut site, roles, part, moment).await;
        assert!(acknowledged.positions.len() >= moment / 2, "the load was under way");
        let pool = site.pool(Role::Operator).await;
        every_acknowledged_event_is_there(&pool, &acknowledged).await;
        pool.close().await;
        all.positions.extend(acknowledged.positions);
        verified(&site).await;
        println!(
            "cut at {moment} of {}: {} webhooks were acknowledged by then, and all are there",
            part.len(),
            all.positions.len()
        );
    }

    // Stripe sends again what was not acknowledged; here it sends all of it, and what is there is a duplicate.
    let roles = Roles::start(&site).await;
    let again = Load::start(&events, Arc::clone(&roles.gateways)).finish().await;
    let head = site.read(again.positions.values().max().copied().unwrap()).await;
    let mirrored = nats_mirrors(&site, head).await;
    for process in roles.processes {
        assert!(process.terminate().await.success());
    }
    let pool = site.pool(Role::Operator).await;
    for (id, position) in &all.positions {
        assert_eq!(again.positions.get(id), Some(position), "{id} is where it was acknowledged before the cut");
    }
    every_acknowledged_event_is_there_once(&pool, &again).await;
    verified(&site).await;
    let found = books(&pool).await;
    pool.close().await;
    let rows = equal_a_fresh_rebuild(&site).await;
    assert_eq!(found, undisturbed(&mut site, &events).await);
    println!(
        "{cuts} power cuts, {} of {} webhooks acknowledged before them and none lost, {head} events, {mirrored} mirrored in \
         NATS, {rows} rows equal a fresh rebuild",
        all.positions.len(),
        again.positions.len(),
    );
    site.servers.stop().await.unwrap();
}
