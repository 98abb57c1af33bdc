//! Dropping a generation whose tables somebody uses: it is dropped once they are free, or stays, marked, for the next time. The live
//! tables serve throughout.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod transport;

use fanledger_journal::generation::{RebuildOptions, RetireError, rebuild, retire};
use fanledger_journal::runner::{GenerationState, catch_up};
use sqlx::{Connection as _, PgConnection};
use transport::{World, eventually, expected, tally};

/// A world whose tally was rebuilt once: generation 1 is kept, 2 is live.
async fn rebuilt() -> World {
    let world = World::new().await;
    world.append(20).await;
    catch_up(&world.context(), &mut tally!("tally")).await.unwrap();
    rebuild(&world.context(), &mut tally!("tally"), &RebuildOptions::unattended()).await.unwrap();
    world
}

async fn generations(world: &World) -> Vec<(u32, GenerationState)> {
    let status = world.status_of("tally").await.unwrap();
    status.generations.iter().map(|generation| (generation.generation, generation.state)).collect()
}

/// A session that uses a table of the first generation, as a vacuum does.
async fn in_use(world: &World) -> PgConnection {
    let mut session = PgConnection::connect(world.database.url()).await.unwrap();
    sqlx::raw_sql("BEGIN; LOCK TABLE tally_g1.tally_seen IN SHARE UPDATE EXCLUSIVE MODE")
        .execute(&mut session)
        .await
        .unwrap();
    session
}

#[tokio::test]
async fn tables_that_are_in_use_for_a_moment_are_dropped_once_they_are_free() {
    let world = rebuilt().await;
    let session = in_use(&world).await;
    let context = world.context();
    let retiring = tokio::spawn(async move { retire(&context, "tally").await });
    let superuser = world.superuser().await;
    eventually("it waits for the tables", || async {
        let waits =
            "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation = to_regclass('tally_g1.tally_seen'))";
        sqlx::query_scalar(waits).fetch_one(&superuser).await.unwrap()
    })
    .await;
    session.close().await.unwrap();
    assert_eq!(retiring.await.unwrap().unwrap(), [1]);
    assert_eq!(generations(&world).await, [(2, GenerationState::Live)]);
    assert_eq!(world.tally("tally").await, expected(&world.projector).await);
}

#[tokio::test]
async fn tables_that_stay_in_use_are_in_nobody_s_way_and_go_the_next_time() {
    let world = rebuilt().await;
    let session = in_use(&world).await;
    let context = world.context();
    let Err(error @ RetireError::InUse { .. }) = retire(&context, "tally").await else {
        panic!("dropped, though in use")
    };
    assert!(error.to_string().contains("fanledger projections retire tally"), "{error}");
    assert_eq!(generations(&world).await, [(1, GenerationState::Retiring), (2, GenerationState::Live)]);

    rebuild(&context, &mut tally!("tally"), &RebuildOptions::unattended()).await.unwrap();
    let beside = [(1, GenerationState::Retiring), (2, GenerationState::Kept), (3, GenerationState::Live)];
    assert_eq!(generations(&world).await, beside, "what could not be dropped is not taken for the one to go back to");
    assert_eq!(world.tally("tally").await, expected(&world.projector).await);

    session.close().await.unwrap();
    rebuild(&context, &mut tally!("tally"), &RebuildOptions::unattended()).await.unwrap();
    assert_eq!(generations(&world).await, [(3, GenerationState::Kept), (4, GenerationState::Live)]);
}
