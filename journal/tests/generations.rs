//! Rebuild, proof, switch, rollback, retirement: beside running runners, killed, refused, and out of room.

#![allow(clippy::unwrap_used, reason = "a test's helper fails its test")]

mod transport;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use fanledger_journal::append::Command;
use fanledger_journal::event::{Metadata, Position, RecordedEvent};
use fanledger_journal::generation::{
    Difference, Phase, Progress, Proof, Purpose, RebuildError, RebuildOptions, RetireError, RollbackError, rebuild,
    retire, rollback,
};
use fanledger_journal::operation;
use fanledger_journal::runner::{
    ApplyError, Effects, GenerationState, GenerationStatus, Projection, Projections, RunnerContext, RunnerState,
    Schema, catch_up, skip_event, supervise,
};
use fanledger_journal::writer::{Writer, WriterOptions};
use sqlx::{PgConnection, Row};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use transport::{Running, Tallied, Tally, World, eventually, expected, tally};

/// As an operator's, without the wait for readers.
fn unconfirmed() -> RebuildOptions {
    RebuildOptions { read_age: Duration::ZERO, ..RebuildOptions::default() }
}

fn confirmed() -> RebuildOptions {
    RebuildOptions::unattended()
}

/// The same tally with another column: the schema of the next version.
fn version_2() -> Tally {
    Tally {
        version: 2,
        create: "CREATE TABLE tally (events bigint NOT NULL, amount bigint NOT NULL, note text); INSERT INTO tally VALUES (0, 0);
                 CREATE TABLE tally_seen (position bigint PRIMARY KEY);",
        ..tally!("tally")
    }
}

async fn generations(world: &World) -> Vec<(u32, u32, GenerationState)> {
    let of = |generation: GenerationStatus| (generation.generation, generation.version, generation.state);
    world.status_of("tally").await.unwrap().generations.into_iter().map(of).collect()
}

async fn schemas(world: &World) -> Vec<String> {
    sqlx::query_scalar("SELECT nspname::text FROM pg_namespace WHERE nspname LIKE 'tally\\_g%' ORDER BY 1")
        .fetch_all(&world.projector)
        .await
        .unwrap()
}

fn kept_position(status: &[GenerationStatus]) -> Option<Position> {
    status.iter().find(|generation| generation.state == GenerationState::Kept).map(|generation| generation.position)
}

/// What a process of one version runs: the live generation's runner, and the supervisor.
struct Process {
    runner: Running,
    stop: CancellationToken,
    supervisor: JoinHandle<()>,
}

impl Process {
    fn start(world: &World, make: impl Fn() -> Tally + Send + Sync + 'static) -> Self {
        let context = world.context().with_read_age(Duration::ZERO);
        let runner = Running::runner(context.clone(), make());
        let projections: Projections = Arc::new(move || vec![Box::new(make()) as Box<dyn Projection>]);
        let stop = CancellationToken::new();
        let supervisor = tokio::spawn(supervise(context, projections, stop.clone()));
        Self { runner, stop, supervisor }
    }

    async fn stop(self) {
        self.runner.stop().await;
        self.stop.cancel();
        self.supervisor.await.unwrap();
    }
}

#[tokio::test]
async fn old_and_new_are_proved_equal_and_the_old_one_is_kept() {
    let world = World::new().await;
    let head = world.append(500).await;
    catch_up(&world.context(), &mut tally!("tally")).await.unwrap();
    let (sender, progress) = watch::channel(Progress::default());
    let options = RebuildOptions { progress: Some(sender), ..unconfirmed() };
    let rebuilt = rebuild(&world.context(), &mut tally!("tally"), &options).await.unwrap();
    let proof = rebuilt.proof.unwrap();
    assert!(proof.is_equal());
    assert_eq!((proof.position, proof.live_generation, proof.new_generation), (head, 1, 2));
    assert_eq!(proof.tables.iter().map(|table| table.table.as_str()).collect::<Vec<_>>(), ["tally", "tally_seen"]);
    assert_eq!((proof.equal_rows(), proof.differing_rows()), (251, 0));
    assert_eq!((rebuilt.generation, rebuilt.position), (2, head));
    assert_eq!(generations(&world).await, [(1, 1, GenerationState::Kept), (2, 1, GenerationState::Live)]);
    assert_eq!(world.tally("tally").await, expected(&world.projector).await);
    assert_ne!(progress.borrow().phase, Phase::Queued, "it told how far it was");
    let last = operation::last(&world.projector).await.unwrap().remove(0);
    assert_eq!((last.name.as_str(), last.kind.as_str(), last.phase.as_str()), ("tally", "rebuild", "succeeded"));

    // The next one takes the place of what was kept.
    rebuild(&world.context(), &mut tally!("tally"), &unconfirmed()).await.unwrap();
    assert_eq!(generations(&world).await, [(2, 1, GenerationState::Kept), (3, 1, GenerationState::Live)]);
    assert_eq!(schemas(&world).await, ["tally_g2", "tally_g3"]);
}

#[tokio::test]
async fn a_difference_within_a_version_stops_the_switch_and_is_listed() {
    let world = World::new().await;
    world.append(100).await;
    catch_up(&world.context(), &mut tally!("tally")).await.unwrap();
    let first: i64 =
        sqlx::query_scalar("SELECT min(position) FROM tally_g1.tally_seen").fetch_one(&world.projector).await.unwrap();
    for statement in [
        "UPDATE tally_g1.tally SET amount = amount + 1".to_owned(),
        format!("DELETE FROM tally_g1.tally_seen WHERE position = {first}"),
        "INSERT INTO tally_g1.tally_seen VALUES (1000)".to_owned(),
    ] {
        sqlx::query(&statement).execute(&world.projector).await.unwrap();
    }
    let before = world.tally("tally").await;
    for options in [unconfirmed(), confirmed(), RebuildOptions { purpose: Purpose::Verify, ..unconfirmed() }] {
        let error = rebuild(&world.context(), &mut tally!("tally"), &options).await.unwrap_err();
        assert!(error.to_string().contains("4 rows differ"), "{error}");
        let RebuildError::Differs { proof, .. } = error else { panic!("{error}") };
        // Without a key a row is its own: the sum is one row gone and another come.
        let of = |table: usize| {
            let table = &proof.tables[table];
            let keys = table.keys.iter().map(|key| (key.key.clone(), key.difference)).collect::<Vec<_>>();
            (table.equal, table.changed, table.only_live, table.only_new, keys)
        };
        let Tallied { events, amount, .. } = before.clone();
        let (mut live, new) = (format!("({events},{amount})"), format!("({events},{})", amount - 1));
        let mut keys = vec![(live.clone(), Difference::OnlyLive), (new, Difference::OnlyNew)];
        keys.sort_by(|one, other| one.0.cmp(&other.0));
        assert_eq!(of(0), (0, 0, 1, 1, keys));
        live = "(1000)".to_owned();
        let mut keys = vec![(format!("({first})"), Difference::OnlyNew), (live, Difference::OnlyLive)];
        keys.sort_by(|one, other| one.0.cmp(&other.0));
        assert_eq!(of(1), (49, 0, 1, 1, keys));
    }
    assert_eq!(generations(&world).await, [(1, 1, GenerationState::Live)]);
    assert_eq!(schemas(&world).await, ["tally_g1"], "nothing is left half-done");
    assert_eq!(world.tally("tally").await, before, "what is live is untouched");
    let last = operation::last(&world.projector).await.unwrap().remove(0);
    assert_eq!(last.phase, "failed");
    assert!(last.error.unwrap().contains("4 rows differ"));
}

#[tokio::test]
async fn a_changed_row_of_a_key_is_told_as_changed() {
    let world = World::new().await;
    let keyed = || {
        Tally {
        create: "CREATE TABLE tally (one boolean PRIMARY KEY DEFAULT true, events bigint NOT NULL, amount bigint NOT NULL);
                 INSERT INTO tally (events, amount) VALUES (0, 0); CREATE TABLE tally_seen (position bigint PRIMARY KEY);",
        ..tally!("tally")
    }
    };
    world.append(10).await;
    catch_up(&world.context(), &mut keyed()).await.unwrap();
    sqlx::query("UPDATE tally_g1.tally SET amount = 0").execute(&world.projector).await.unwrap();
    let error = rebuild(&world.context(), &mut keyed(), &confirmed()).await.unwrap_err();
    let proof: &Proof = error.proof().unwrap();
    let table = &proof.tables[0];
    assert_eq!((table.equal, table.changed, table.only_live, table.only_new), (0, 1, 0, 0));
    assert_eq!((table.keys[0].key.as_str(), table.keys[0].difference), ("(t)", Difference::Changed));
}

#[tokio::test]
async fn a_verification_switches_nothing_and_leaves_nothing() {
    let world = World::new().await;
    let head = world.append(40).await;
    catch_up(&world.context(), &mut tally!("tally")).await.unwrap();
    let options = RebuildOptions { purpose: Purpose::Verify, ..RebuildOptions::default() };
    let verified = rebuild(&world.context(), &mut tally!("tally"), &options).await.unwrap();
    assert!(verified.proof.unwrap().is_equal());
    assert_eq!(verified.position, head);
    assert_eq!(generations(&world).await, [(1, 1, GenerationState::Live)]);
    assert_eq!(schemas(&world).await, ["tally_g1"]);
}

#[tokio::test]
async fn another_version_waits_for_a_yes_and_the_switch_goes_both_ways() {
    let world = World::new().await;
    world.append(100).await;
    catch_up(&world.context(), &mut tally!("tally")).await.unwrap();
    let error = rebuild(&world.context(), &mut version_2(), &unconfirmed()).await.unwrap_err();
    assert!(error.to_string().contains("--yes"), "{error}");
    let RebuildError::Unconfirmed { proof, .. } = error else { panic!("{error}") };
    assert_eq!((proof.live_version, proof.new_version), (1, 2));
    assert_eq!((proof.tables[0].columns_added.as_slice(), proof.tables[0].equal), (&["note".to_owned()][..], 1));
    assert_eq!(proof.differing_rows(), 0, "what both have is equal");
    assert_eq!(generations(&world).await, [(1, 1, GenerationState::Live), (2, 2, GenerationState::Building)]);

    // What was built waits, and is not built again.
    let built: Vec<Position> = {
        world.append(20).await;
        let again = version_2();
        let sent = Arc::clone(&again.sent);
        catch_up(&world.context(), &mut tally!("tally")).await.unwrap();
        let mut again = again;
        rebuild(&world.context(), &mut again, &confirmed()).await.unwrap();
        sent.lock().unwrap().iter().map(|(position, _)| *position).collect()
    };
    assert!(!built.is_empty() && built.iter().all(|position| position.get() > 100), "{built:?}");
    assert_eq!(generations(&world).await, [(1, 1, GenerationState::Kept), (2, 2, GenerationState::Live)]);
    let note = async || sqlx::query("SELECT note FROM read.tally").fetch_one(&world.projector).await;
    note().await.unwrap();

    let back = rollback(&world.context(), &mut version_2()).await.unwrap();
    assert_eq!((back.generation, back.version, back.kept, back.position), (1, 1, 2, Position::new(120)));
    assert!(note().await.is_err(), "the view is the earlier version's again");
    assert_eq!(world.tally("tally").await, expected(&world.projector).await);
    assert_eq!(generations(&world).await, [(1, 1, GenerationState::Live), (2, 2, GenerationState::Kept)]);
    rollback(&world.context(), &mut version_2()).await.unwrap();
    note().await.unwrap();

    assert_eq!(retire(&world.context(), "tally").await.unwrap(), [1]);
    assert_eq!(schemas(&world).await, ["tally_g2"]);
    assert!(matches!(rollback(&world.context(), &mut version_2()).await, Err(RollbackError::NothingKept("tally"))));
    assert_eq!(retire(&world.context(), "tally").await.unwrap(), [] as [u32; 0]);
    assert!(matches!(retire(&world.context(), "nobody").await, Err(RetireError::NotBuilt(_))));
}

#[tokio::test]
async fn going_back_to_what_nobody_feeds_is_refused() {
    let world = World::new().await;
    world.append(10).await;
    catch_up(&world.context(), &mut tally!("tally")).await.unwrap();
    rebuild(&world.context(), &mut version_2(), &confirmed()).await.unwrap();
    let head = world.append(10).await;
    catch_up(&world.context(), &mut version_2()).await.unwrap();
    match rollback(&world.context(), &mut version_2()).await {
        Err(RollbackError::Behind { generation: 1, version: 1, position, live, .. }) => {
            assert_eq!((position, live), (Position::new(10), head));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(generations(&world).await[1], (2, 2, GenerationState::Live));
    // A program of its version feeds it itself, where no runner does.
    assert_eq!(rollback(&world.context(), &mut tally!("tally")).await.unwrap().position, head);
    assert_eq!(world.tally("tally").await, expected(&world.projector).await);
}

/// Reads rows and position in one statement, over and over: none may fail, and none may go back.
async fn read_steadily(pool: sqlx::PgPool, stop: Arc<AtomicBool>) -> u64 {
    let (mut reads, mut last) = (0, (0, 0));
    while !stop.load(Ordering::Relaxed) {
        let row = sqlx::query(
            "SELECT t.events::bigint, p.position::bigint FROM read.tally AS t, read.positions AS p WHERE p.name = 'tally'",
        )
        .fetch_one(&pool)
        .await
        .unwrap();
        let now: (i64, i64) = (row.get(0), row.get(1));
        assert!(now.0 >= last.0 && now.1 >= last.1, "{now:?} was read after {last:?}");
        last = now;
        reads += 1;
    }
    reads
}

#[tokio::test(flavor = "multi_thread")]
async fn under_load_two_versions_run_side_by_side_and_nobody_notices_a_switch() {
    let world = World::new().await;
    let sent = Arc::new(std::sync::Mutex::new(Vec::new()));
    let (of_1, of_2) = (Arc::clone(&sent), Arc::clone(&sent));
    let old = Process::start(&world, move || Tally { sent: Arc::clone(&of_1), ..tally!("tally") });
    let head = world.append(200).await;
    world.reached("tally", head).await;
    let new = Process::start(&world, move || Tally { sent: Arc::clone(&of_2), ..version_2() });

    let stop = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> =
        (0..2).map(|_| tokio::spawn(read_steadily(world.projector.clone(), Arc::clone(&stop)))).collect();
    let load = tokio::spawn({
        let (writer, stop) = (world.writer.clone(), Arc::clone(&stop));
        async move {
            let mut n = 0;
            while !stop.load(Ordering::Relaxed) {
                transport::append_one(writer.clone(), n).await;
                n += 1;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            n
        }
    });

    // The same version first: proved equal while it grows. Then the next version, to and fro.
    let again =
        rebuild(&world.context(), &mut Tally { sent: Arc::clone(&sent), ..tally!("tally") }, &unconfirmed()).await;
    assert!(again.unwrap().proof.unwrap().is_equal());
    let changed = &mut Tally { sent: Arc::clone(&sent), ..version_2() };
    let proof = rebuild(&world.context(), changed, &confirmed()).await.unwrap().proof.unwrap();
    assert_eq!(proof.differing_rows(), 0);
    for version in [1, 2, 1] {
        // What is live is fed by the process of its version, and what is kept by the other's.
        let at = world.reader.head().await.unwrap().position;
        eventually("both generations are fed", || async {
            let status = world.status_of("tally").await.unwrap();
            status.position >= at && kept_position(&status.generations) >= Some(at)
        })
        .await;
        assert_eq!(rollback(&world.context(), changed).await.unwrap().version, version);
    }
    stop.store(true, Ordering::Relaxed);
    let appended = load.await.unwrap();
    let mut reads = 0;
    for reader in readers {
        reads += reader.await.unwrap();
    }
    assert!(reads > 100 && appended > 50, "{reads} reads, {appended} events");
    let head = world.reader.head().await.unwrap().position;
    world.reached("tally", head).await;
    let all = expected(&world.projector).await;
    assert_eq!(world.tally("tally").await, all);
    // As a process manager, nothing was left unsent by any switch.
    let live: BTreeSet<u64> = {
        let sent = sent.lock().unwrap();
        sent.iter().filter(|(_, effects)| *effects == Effects::Live).map(|(at, _)| at.get()).collect()
    };
    let live: Vec<String> = live.iter().map(ToString::to_string).collect();
    assert_eq!(live.join(","), all.positions);
    new.stop().await;
    old.stop().await;
}

/// Stops for ever at a position, as a process that was killed there.
struct Stuck {
    tally: Tally,
    at: Position,
}

#[async_trait]
impl Projection for Stuck {
    fn name(&self) -> &'static str {
        self.tally.name()
    }

    fn version(&self) -> u32 {
        self.tally.version()
    }

    fn schema(&self) -> Schema {
        self.tally.schema()
    }

    fn wants(&self, event_type: &str) -> bool {
        self.tally.wants(event_type)
    }

    async fn apply(
        &mut self,
        batch: &[Arc<RecordedEvent>],
        effects: Effects,
        connection: &mut PgConnection,
    ) -> Result<(), ApplyError> {
        if batch.iter().any(|event| event.position >= self.at) {
            std::future::pending::<()>().await;
        }
        self.tally.apply(batch, effects, connection).await
    }
}

/// Waits until a rebuild has so much and hangs there, then drops it.
async fn kill_at(world: &World, at: u64) {
    let context = world.context();
    let stuck = Stuck { tally: tally!("tally"), at: Position::new(at + 1) };
    let mut stuck = stuck;
    let building = tokio::spawn(async move { rebuild(&context, &mut stuck, &confirmed()).await });
    eventually("it hangs", || async {
        let generations = world.status_of("tally").await.unwrap().generations;
        let building = generations.iter().find(|generation| generation.state == GenerationState::Building);
        building.is_some_and(|building| building.position.get() >= at / 2000 * 2000)
    })
    .await;
    building.abort();
    let _ = building.await;
}

/// The killed one's locks are gone when Postgres notices, which is soon.
async fn rebuild_once_free(world: &World, projection: &mut dyn Projection) -> Result<u32, RebuildError> {
    loop {
        match rebuild(&world.context(), projection, &confirmed()).await {
            Ok(rebuilt) => return Ok(rebuilt.generation),
            Err(RebuildError::UnderWay(_) | RebuildError::Lost(_)) => tokio::task::yield_now().await,
            Err(error) => return Err(error),
        }
    }
}

#[tokio::test]
async fn a_killed_rebuild_is_gone_on_with_where_it_was() {
    let world = World::new().await;
    world.append(5000).await;
    catch_up(&world.context(), &mut tally!("tally")).await.unwrap();
    let before = world.tally("tally").await;
    kill_at(&world, 4000).await;
    assert_eq!(world.tally("tally").await, before, "what is live is untouched");

    let mut again = tally!("tally");
    let sent = Arc::clone(&again.sent);
    assert_eq!(rebuild_once_free(&world, &mut again).await.unwrap(), 2);
    let first = sent.lock().unwrap().iter().map(|(position, _)| position.get()).min().unwrap();
    assert!(first > 4000, "it began again at {first}");
    assert_eq!(world.tally("tally").await, before);
    assert_eq!(generations(&world).await, [(1, 1, GenerationState::Kept), (2, 1, GenerationState::Live)]);
}

#[tokio::test]
async fn what_a_killed_rebuild_left_is_not_gone_on_with_by_other_tables_and_can_be_retired() {
    let world = World::new().await;
    world.append(5000).await;
    catch_up(&world.context(), &mut tally!("tally")).await.unwrap();
    kill_at(&world, 2000).await;
    assert_eq!(generations(&world).await[1], (2, 1, GenerationState::Building));
    let mut changed = version_2();
    let sent = Arc::clone(&changed.sent);
    assert_eq!(rebuild_once_free(&world, &mut changed).await.unwrap(), 3);
    assert!(sent.lock().unwrap().iter().any(|(position, _)| position.get() <= 2), "it began at the beginning");
    assert_eq!(schemas(&world).await, ["tally_g1", "tally_g3"]);

    rollback(&world.context(), &mut tally!("tally")).await.unwrap();
    kill_at(&world, 2000).await;
    let context = world.context();
    eventually("its locks are gone", || async {
        match retire(&context, "tally").await {
            Ok(dropped) => dropped == [3, 4],
            Err(RetireError::UnderWay(_)) => false,
            Err(error) => panic!("{error}"),
        }
    })
    .await;
    assert_eq!(schemas(&world).await, ["tally_g1"]);
    let last = operation::last(&world.projector).await.unwrap().remove(0);
    assert_eq!((last.kind.as_str(), last.phase.as_str(), last.error), ("retire", "succeeded", None));
    let given_up: String =
        sqlx::query_scalar("SELECT error FROM control.operations WHERE kind = 'rebuild' ORDER BY id DESC LIMIT 1")
            .fetch_one(&world.projector)
            .await
            .unwrap();
    assert!(given_up.contains("given up"), "{given_up}");
}

#[tokio::test]
async fn a_full_disk_leaves_nothing_behind() {
    let world = World::new().await;
    world.append(5000).await;
    catch_up(&world.context(), &mut tally!("tally")).await.unwrap();
    let before = world.tally("tally").await;
    // Postgres's own error for a file that cannot grow, from the row on that no longer fits.
    let mut too_large = Tally {
        create: "CREATE TABLE tally (events bigint NOT NULL, amount bigint NOT NULL); INSERT INTO tally VALUES (0, 0);
                 CREATE TABLE tally_seen (position bigint PRIMARY KEY);
                 CREATE FUNCTION grow() RETURNS trigger LANGUAGE plpgsql AS $$
                 BEGIN
                     RAISE EXCEPTION 'could not extend file \"base/5/16384\": No space left on device' USING ERRCODE = 'disk_full';
                 END $$;
                 CREATE TRIGGER grow BEFORE INSERT ON tally_seen FOR EACH ROW WHEN (NEW.position > 3000) EXECUTE FUNCTION grow();",
        ..tally!("tally")
    };
    let error = rebuild(&world.context(), &mut too_large, &confirmed()).await.unwrap_err();
    assert!(error.to_string().contains("the disk is full"), "{error}");
    assert!(matches!(error, RebuildError::DiskFull { .. }));
    assert_eq!(schemas(&world).await, ["tally_g1"], "its room is given back");
    assert_eq!(world.tally("tally").await, before);
    rebuild(&world.context(), &mut tally!("tally"), &confirmed()).await.unwrap();
    assert_eq!(world.tally("tally").await, before);
}

#[tokio::test]
async fn an_event_that_a_new_version_cannot_apply_is_named_and_can_be_skipped() {
    let world = World::new().await;
    world.append(30).await;
    catch_up(&world.context(), &mut tally!("tally")).await.unwrap();
    let bad: i64 =
        sqlx::query_scalar("SELECT max(position) FROM read.tally_seen").fetch_one(&world.projector).await.unwrap();
    let bad = Position::from_i64(bad);
    let mut changed = version_2();
    changed.poison.lock().unwrap().insert(bad);
    let error = rebuild(&world.context(), &mut changed, &confirmed()).await.unwrap_err();
    assert!(error.to_string().contains(&format!("at position {bad}")), "{error}");
    assert!(matches!(error, RebuildError::Halted { .. }));
    assert_eq!(schemas(&world).await, ["tally_g1"]);

    let operator = Writer::start(WriterOptions::new(world.database.url_for("fanledger_operator"))).await.unwrap();
    let (stream, event) = skip_event("tally", 2, bad, "the new version cannot read it");
    operator.append(Command::new(stream, 0, Metadata::default(), vec![event])).await.unwrap();
    let proof = rebuild(&world.context(), &mut changed, &confirmed()).await.unwrap().proof.unwrap();
    let seen = &proof.tables[1];
    assert_eq!((seen.only_live, seen.only_new), (1, 0));
    assert_eq!(seen.keys[0].key, format!("({bad})"));
}

#[tokio::test]
async fn what_is_asked_for_over_the_api_is_done_by_a_projector() {
    let world = World::new().await;
    let process = Process::start(&world, || tally!("tally"));
    let head = world.append(50).await;
    world.reached("tally", head).await;
    let operator = world.pool("fanledger_operator").await;
    let ask = async |runner: &str, kind: &str| -> String {
        sqlx::query_scalar("SELECT verdict FROM control.request_operation($1, $2, false)")
            .bind(runner)
            .bind(kind)
            .fetch_one(&operator)
            .await
            .unwrap()
    };
    let done = async |kind: &'static str| {
        eventually(&format!("the {kind} is done"), || async {
            let last = operation::last(&world.projector).await.unwrap().remove(0);
            assert_eq!(last.error, None);
            last.kind == kind && last.phase == "succeeded"
        })
        .await;
    };
    assert_eq!(ask("nobody", "rebuild").await, "unknown");
    assert_eq!(ask("tally", "rollback").await, "nothing_kept");
    assert_eq!(ask("tally", "rebuild").await, "queued");
    assert_eq!(ask("tally", "rebuild").await, "under_way", "a second one is refused at once");
    done("rebuild").await;
    assert_eq!(generations(&world).await, [(1, 1, GenerationState::Kept), (2, 1, GenerationState::Live)]);
    let head = world.append(50).await;
    world.reached("tally", head).await;
    assert_eq!(ask("tally", "rollback").await, "queued");
    done("rollback").await;
    assert_eq!(generations(&world).await, [(1, 1, GenerationState::Live), (2, 1, GenerationState::Kept)]);
    assert_eq!(ask("tally", "verify").await, "queued");
    done("verify").await;
    assert_eq!(ask("tally", "retire").await, "queued");
    done("retire").await;
    assert_eq!(schemas(&world).await, ["tally_g1"]);
    world.reached("tally", head).await;
    assert_eq!(world.tally("tally").await, expected(&world.projector).await);

    // What fails says why, where who asked looks.
    sqlx::query("UPDATE tally_g1.tally SET amount = 0").execute(&world.projector).await.unwrap();
    assert_eq!(ask("tally", "rebuild").await, "queued");
    eventually("the rebuild has failed", || async {
        let last = operation::last(&world.projector).await.unwrap().remove(0);
        last.phase == "failed" && last.error.is_some_and(|error| error.contains("rows differ"))
    })
    .await;
    process.stop().await;
}

#[tokio::test]
async fn a_rebuild_whose_process_was_killed_is_finished_by_a_projector() {
    let world = World::new().await;
    world.append(5000).await;
    catch_up(&world.context(), &mut tally!("tally")).await.unwrap();
    kill_at(&world, 4000).await;
    // As if five seconds had gone by without a sign of life.
    let superuser = world.superuser().await;
    sqlx::query("UPDATE control.operations SET updated_at = updated_at - interval '1 minute'")
        .execute(&superuser)
        .await
        .unwrap();
    let process = Process::start(&world, || tally!("tally"));
    eventually("the new generation is live", || async { world.status_of("tally").await.unwrap().generation == 2 })
        .await;
    eventually("it is written down", || async {
        operation::last(&world.projector).await.unwrap().remove(0).phase == "succeeded"
    })
    .await;
    assert_eq!(world.tally("tally").await, expected(&world.projector).await);
    process.stop().await;
}

#[tokio::test]
async fn a_rollback_that_two_projectors_see_or_that_was_broken_off_after_its_switch_is_made_once() {
    let world = World::new().await;
    let head = world.append(20).await;
    catch_up(&world.context(), &mut tally!("tally")).await.unwrap();
    rebuild(&world.context(), &mut tally!("tally"), &confirmed()).await.unwrap();
    let operator = world.pool("fanledger_operator").await;
    let ask = "SELECT verdict FROM control.request_operation('tally', 'rollback', false)";
    assert_eq!(sqlx::query_scalar::<_, String>(ask).fetch_one(&operator).await.unwrap(), "queued");
    let processes = [(); 3].map(|()| Process::start(&world, || tally!("tally")));
    eventually("it is done", || async {
        operation::last(&world.projector).await.unwrap().remove(0).phase == "succeeded"
    })
    .await;
    // Each of them has looked again before this is answered.
    let head = world.append(20).await.max(head);
    world.reached("tally", head).await;
    assert_eq!(world.status_of("tally").await.unwrap().generation, 1);

    // As if whoever worked on it had been killed between the switch and the last word.
    let superuser = world.superuser().await;
    sqlx::query(
        "UPDATE control.operations SET phase = 'switching', outcome = NULL, finished_at = NULL, updated_at = updated_at - interval '1 minute' \
         WHERE kind = 'rollback'",
    )
    .execute(&superuser)
    .await
    .unwrap();
    eventually("it is done again", || async {
        operation::last(&world.projector).await.unwrap().remove(0).phase == "succeeded"
    })
    .await;
    assert_eq!(world.status_of("tally").await.unwrap().generation, 1, "the switch was not undone");
    for process in processes {
        process.stop().await;
    }
}

#[tokio::test]
async fn a_paused_projection_is_rebuilt_and_stays_paused() {
    let world = World::new().await;
    let head = world.append(10).await;
    catch_up(&world.context(), &mut tally!("tally")).await.unwrap();
    let operator = world.pool("fanledger_operator").await;
    fanledger_journal::runner::pause(&operator, "tally").await.unwrap();
    world.append(10).await;
    let rebuilt = rebuild(&world.context(), &mut tally!("tally"), &confirmed()).await.unwrap();
    let status = world.status_of("tally").await.unwrap();
    assert_eq!((rebuilt.generation, status.generation, status.state), (2, 2, RunnerState::Paused));
    assert!(status.position >= head);
}

#[tokio::test]
async fn a_program_of_another_version_leaves_the_tables_to_their_own_and_halts_them_when_nobody_feeds_them() {
    let world = World::new().await;
    let old = Running::runner(world.context(), tally!("tally"));
    let head = world.append(10).await;
    world.reached("tally", head).await;
    let new = Running::runner(world.context(), version_2());
    let head = world.append(10).await;
    world.reached("tally", head).await;
    old.stop().await;
    let halt = world.halted("tally").await.error.unwrap();
    assert!(halt.message.contains("fanledger projections rebuild tally"), "{}", halt.message);
    // The earlier program is back: nothing is wrong any more.
    let old = Running::runner(world.context(), tally!("tally"));
    let head = world.append(10).await;
    world.reached("tally", head).await;
    rebuild(&world.context(), &mut version_2(), &confirmed()).await.unwrap();
    old.stop().await;
    let head = world.append(10).await;
    world.reached("tally", head).await;
    assert_eq!(world.tally("tally").await, expected(&world.projector).await);
    new.stop().await;
}

#[tokio::test]
async fn nobody_but_the_projector_works_on_operations() {
    let world = World::new().await;
    catch_up(&world.context(), &mut tally!("tally")).await.unwrap();
    let command = world.pool("fanledger_command").await;
    let gateway = world.pool("fanledger_gateway").await;
    for (pool, refused) in [
        (&command, "INSERT INTO control.operations (runner, kind, confirmed) VALUES ('tally', 'rebuild', true)"),
        (&command, "UPDATE control.operations SET confirmed = true"),
        (&gateway, "SELECT control.request_operation('tally', 'rebuild', true)"),
        (&gateway, "SELECT * FROM control.operations"),
    ] {
        let error = sqlx::query(refused).execute(pool).await.unwrap_err();
        let code = error.as_database_error().and_then(|error| error.code()).unwrap();
        assert_eq!(code, "42501", "{refused}: {error}");
    }
    assert_eq!(operation::last(&gateway).await.unwrap(), []);
}

/// Compiles only while a rebuild can be run by a task: the supervisor does.
#[allow(dead_code, reason = "never run")]
fn a_rebuild_is_sendable(context: RunnerContext, mut projection: Tally) {
    fn sendable(_: impl Future + Send) {}
    sendable(async move { rebuild(&context, &mut projection, &RebuildOptions::default()).await });
}
