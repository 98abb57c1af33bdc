//! The runner against a real Postgres, and NATS where a test needs it.

#![allow(clippy::unwrap_used, reason = "a test's helper fails its test")]

mod transport;

use std::sync::Arc;

use fanledger_devkit::TestNats;
use fanledger_journal::append::{Command, Outcome};
use fanledger_journal::checkpoint::HaltKind;
use fanledger_journal::event::{Metadata, Position, RecordedEvent, StreamId};
use fanledger_journal::feed::Feed;
use fanledger_journal::generation::{RebuildError, RebuildOptions, rebuild};
use fanledger_journal::relay::RelayOptions;
use fanledger_journal::runner::{
    ApplyError, CatchUpError, Effects, Projection, RunnerContext, RunnerState, Schema, catch_up, pause, resume,
    skip_event,
};
use fanledger_journal::writer::{Writer, WriterOptions};
use sqlx::{PgConnection, Row};
use tokio_util::sync::CancellationToken;
use transport::{Running, RunningRelay, Tally, World, append_event, eventually, expected, tally};

#[tokio::test]
async fn catch_up_applies_each_wanted_event_once_and_moves_past_the_others() {
    let world = World::new().await;
    let mut projection = tally!("tally");
    assert_eq!(catch_up(&world.context(), &mut projection).await.unwrap(), Position::START);
    let head = world.append(5000).await;
    assert_eq!(catch_up(&world.context(), &mut projection).await.unwrap(), head);
    assert_eq!(catch_up(&world.context(), &mut projection).await.unwrap(), head);
    assert_eq!(world.tally("tally").await, expected(&world.projector).await);
    let status = world.status_of("tally").await.unwrap();
    assert_eq!((status.position, status.head, status.lag_events, status.generation), (head, head, 0, 1));
    assert_eq!((status.state, status.version, status.error), (RunnerState::Live, 1, None));
}

/// A tally whose server process takes long to end: it has much to drop.
struct Untidy(Tally);

#[async_trait::async_trait]
impl Projection for Untidy {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn version(&self) -> u32 {
        self.0.version()
    }

    fn schema(&self) -> Schema {
        self.0.schema()
    }

    fn wants(&self, event_type: &str) -> bool {
        self.0.wants(event_type)
    }

    async fn apply(
        &mut self,
        batch: &[Arc<RecordedEvent>],
        effects: Effects,
        connection: &mut PgConnection,
    ) -> Result<(), ApplyError> {
        for number in 0..300 {
            let create = format!("CREATE TEMP TABLE IF NOT EXISTS untidy_{number} (nothing text PRIMARY KEY)");
            sqlx::query(&create).persistent(false).execute(&mut *connection).await?;
        }
        self.0.apply(batch, effects, connection).await
    }
}

/// A server process ends, and lets its locks go, some time after its connection: whoever comes next must not find them taken.
#[tokio::test]
async fn whoever_has_caught_up_has_let_the_lock_go() {
    let world = World::new().await;
    let mut projection = Untidy(tally!("tally"));
    let context = world.context();
    world.append(3).await;
    catch_up(&context, &mut projection).await.unwrap();
    catch_up(&context, &mut projection).await.unwrap();
    // Nor after it took some events and halted at the next, and not while it is still halted.
    world.append(1).await;
    let poison = world.append(1).await;
    projection.0.poison.lock().unwrap().insert(poison);
    for _ in 0..3 {
        let halted = catch_up(&context, &mut projection).await;
        assert!(matches!(halted, Err(CatchUpError::Halted { .. })), "{halted:?}");
    }
}

#[tokio::test]
async fn a_runner_follows_the_feed() {
    let (world, nats) = (World::new().await, TestNats::start().await);
    let mut relay = RunningRelay::start(&world.projector, RelayOptions::new(nats.url()));
    relay.until("is connected", |status| status.connected).await;
    let stop = CancellationToken::new();
    let feed = Feed::start(nats.url(), stop.clone());
    feed.connected().wait_for(|connected| *connected).await.unwrap();
    let mut heard = feed.subscribe();
    let runner = Running::runner(RunnerContext::new(world.projector.clone(), feed), tally!("tally"));
    let head = world.append(300).await;
    world.reached("tally", head).await;
    assert_eq!(world.tally("tally").await, expected(&world.projector).await);
    assert!(heard.recv().await.is_ok(), "events came over NATS");

    // What the relay omits is read from Postgres, and what follows it too.
    let metadata = Metadata { correlation_id: Some("x".repeat(20_000)), ..Metadata::default() };
    append_event(&world.writer, StreamId::new("manual_entry", "wide"), "AmountNoted", "{\"amount\":1}", metadata).await;
    let head = world.append(3).await;
    world.reached("tally", head).await;
    assert_eq!(world.tally("tally").await, expected(&world.projector).await);
    runner.stop().await;
    stop.cancel();
}

#[tokio::test]
async fn a_runner_without_nats_lives_on_postgres() {
    let world = World::new().await;
    let runner = Running::runner(world.context(), tally!("tally"));
    for _ in 0..3 {
        let head = world.append(50).await;
        world.reached("tally", head).await;
    }
    assert_eq!(world.tally("tally").await, expected(&world.projector).await);
    runner.stop().await;
}

#[tokio::test]
async fn a_poison_event_halts_its_projection_and_no_other() {
    let world = World::new().await;
    let (sick, healthy) = (tally!("sick"), tally!("healthy"));
    let poison = Arc::clone(&sick.poison);
    poison.lock().unwrap().extend([Position::new(41), Position::new(42), Position::new(43), Position::new(44)]);
    world.append(40).await;
    // Position 41 is a remark or an amount, as the writer's batching has it; one of these four is an amount for sure.
    let head = world.append(40).await;
    let first: i64 = sqlx::query_scalar(
        "SELECT min(position) FROM journal.events WHERE event_type = 'AmountNoted' AND position > 40",
    )
    .fetch_one(&world.projector)
    .await
    .unwrap();
    poison.lock().unwrap().insert(Position::from_i64(first));
    let runners = [Running::runner(world.context(), sick), Running::runner(world.context(), healthy)];

    world.reached("healthy", head).await;
    let status = world.halted("sick").await;
    let halt = status.error.unwrap();
    let event = halt.event.unwrap();
    assert_eq!(
        (halt.kind, event.position, event.event_type.as_str()),
        (HaltKind::Poison, Position::from_i64(first), "AmountNoted")
    );
    assert!(halt.message.contains("cannot digest"), "{}", halt.message);
    assert_eq!(status.position, Position::from_i64(first - 1));
    assert_eq!(status.lag_events, head.get() - status.position.get());

    // Resumed without a repair, it halts again; repaired, it goes on.
    let operator = world.pool("fanledger_operator").await;
    let before = halt.at;
    assert!(resume(&operator, "sick").await.unwrap());
    eventually("it halts again", || async {
        world.status_of("sick").await.unwrap().error.is_some_and(|halt| halt.at > before)
    })
    .await;
    poison.lock().unwrap().clear();
    assert!(resume(&operator, "sick").await.unwrap());
    world.reached("sick", head).await;
    assert_eq!(world.tally("sick").await, world.tally("healthy").await);
    assert!(!resume(&operator, "nobody").await.unwrap());
    for runner in runners {
        runner.stop().await;
    }
}

#[tokio::test]
async fn a_skip_in_the_journal_is_honoured_and_so_it_is_by_a_rebuild() {
    let world = World::new().await;
    let poisoned = append_event(
        &world.writer,
        StreamId::new("manual_entry", "bad"),
        "AmountNoted",
        "{\"amount\":7}",
        Metadata::default(),
    )
    .await;
    world.append(10).await;
    let mut projection = tally!("tally");
    projection.poison.lock().unwrap().insert(poisoned);
    assert!(matches!(catch_up(&world.context(), &mut projection).await, Err(CatchUpError::Halted { .. })));

    let operator = Writer::start(WriterOptions::new(world.database.url_for("fanledger_operator"))).await.unwrap();
    let (stream, event) = skip_event("tally", 1, poisoned, "typed by a cat");
    let outcome = operator.append(Command::new(stream, 0, Metadata::default(), vec![event])).await.unwrap();
    assert!(matches!(outcome, Outcome::Appended { .. }));
    // A skip of another version or projection is none of its business.
    for (name, version) in [("tally", 2), ("tall", 1), ("tallyx", 1)] {
        let (stream, event) = skip_event(name, version, Position::new(2), "elsewhere");
        operator.append(Command::new(stream, 0, Metadata::default(), vec![event])).await.unwrap();
    }
    resume(&world.pool("fanledger_operator").await, "tally").await.unwrap();
    catch_up(&world.context(), &mut projection).await.unwrap();
    let shown = world.tally("tally").await;
    let all = expected(&world.projector).await;
    assert_eq!((shown.events, shown.amount), (all.events - 1, all.amount - 7));

    projection.poison.lock().unwrap().clear();
    rebuild(&world.context(), &mut projection, &RebuildOptions::unattended()).await.unwrap();
    assert_eq!(world.tally("tally").await, shown);
}

#[tokio::test]
async fn an_operator_pauses_and_resumes() {
    let world = World::new().await;
    let operator = world.pool("fanledger_operator").await;
    let runner = Running::runner(world.context(), tally!("tally"));
    let paused_at = world.append(10).await;
    world.reached("tally", paused_at).await;
    assert!(pause(&operator, "tally").await.unwrap());
    let mut beside = tally!("beside");
    let later = world.append(10).await;
    catch_up(&world.context(), &mut beside).await.unwrap();
    let status = world.status_of("tally").await.unwrap();
    assert_eq!(status.position, paused_at, "from the pause on, nothing is applied");
    assert_eq!(status.state, RunnerState::Paused);
    assert!(resume(&operator, "tally").await.unwrap());
    world.reached("tally", later).await;
    assert_eq!(world.tally("tally").await, expected(&world.projector).await);
    runner.stop().await;
}

#[tokio::test]
async fn a_pause_in_the_middle_of_a_batch_takes_the_batch_back() {
    let world = World::new().await;
    let operator = world.pool("fanledger_operator").await;
    let before = world.append(10).await;
    catch_up(&world.context(), &mut tally!("tally")).await.unwrap();
    let shown = world.tally("tally").await;
    let head = world.append(10).await;

    let mut holder = world.projector.begin().await.unwrap();
    sqlx::query("LOCK TABLE tally_g1.tally_seen IN SHARE MODE").execute(&mut *holder).await.unwrap();
    let context = world.context();
    let under_way = tokio::spawn(async move { catch_up(&context, &mut tally!("tally")).await });
    eventually("the batch waits for its table", || async {
        let waits = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND mode = 'RowExclusiveLock' \
                     AND relation = 'tally_g1.tally_seen'::regclass)";
        sqlx::query_scalar::<_, bool>(waits).fetch_one(&world.projector).await.unwrap()
    })
    .await;
    assert!(pause(&operator, "tally").await.unwrap());
    holder.rollback().await.unwrap();

    let outcome = under_way.await.unwrap();
    assert!(matches!(outcome, Err(CatchUpError::Paused("tally"))), "{outcome:?}");
    assert_eq!(world.status_of("tally").await.unwrap().position, before);
    assert_eq!(world.tally("tally").await, shown);
    assert!(resume(&operator, "tally").await.unwrap());
    assert_eq!(catch_up(&world.context(), &mut tally!("tally")).await.unwrap(), head);
    assert_eq!(world.tally("tally").await, expected(&world.projector).await);
}

#[tokio::test]
async fn of_two_runners_one_is_active_and_the_other_takes_over() {
    let world = World::new().await;
    let first = Running::runner(world.context(), tally!("tally"));
    let second = Running::runner(world.context(), tally!("tally"));
    let head = world.append(200).await;
    world.reached("tally", head).await;
    assert!(matches!(catch_up(&world.context(), &mut tally!("tally")).await, Err(CatchUpError::Busy("tally"))));
    first.kill().await;
    let head = world.append(200).await;
    world.reached("tally", head).await;
    second.kill().await;
    let third = Running::runner(world.context(), tally!("tally"));
    let head = world.append(200).await;
    world.reached("tally", head).await;
    assert_eq!(world.tally("tally").await, expected(&world.projector).await);
    third.stop().await;
}

#[tokio::test]
async fn a_runner_whose_checkpoint_was_moved_steps_down_and_commits_nothing() {
    let world = World::new().await;
    let runner = Running::runner(world.context(), tally!("tally"));
    let head = world.append(20).await;
    world.reached("tally", head).await;
    // As if another runner, which somehow holds no lock, had gone back to the beginning: its rows, its checkpoint.
    let mut transaction = world.projector.begin().await.unwrap();
    for statement in [
        "DELETE FROM tally_g1.tally_seen",
        "UPDATE tally_g1.tally SET events = 0, amount = 0",
        "UPDATE control.runners SET position = 0, chain = decode(repeat('00', 32), 'hex') WHERE name = 'tally'",
    ] {
        sqlx::query(statement).execute(&mut *transaction).await.unwrap();
    }
    transaction.commit().await.unwrap();
    let head = world.append(20).await;
    // It notices, and as the only one left takes over from where the checkpoint is now.
    world.reached("tally", head).await;
    assert_eq!(world.tally("tally").await, expected(&world.projector).await);
    runner.stop().await;
}

#[tokio::test]
async fn a_changed_history_halts_until_a_rebuild() {
    let world = World::new().await;
    let kept = world.append(30).await;
    let lost = world.append(30).await;
    let mut projection = tally!("tally");
    catch_up(&world.context(), &mut projection).await.unwrap();
    let ahead = world.tally("tally").await;

    // The journal is shorter than what was read; then longer, with another content; both are noticed.
    world.lose_tail(kept).await;
    for appended in [0, 10, 20, 30] {
        if appended > 0 {
            world.append(10).await;
        }
        let Err(CatchUpError::Halted { halt, .. }) = catch_up(&world.context(), &mut projection).await else {
            panic!("a checkpoint at {lost} was taken for part of a journal that ends at {}", kept.get() + appended);
        };
        assert_eq!(halt.kind, HaltKind::HistoryChanged);
        assert_eq!(world.status_of("tally").await.unwrap().state, RunnerState::Halted);
        assert_eq!(world.tally("tally").await, ahead, "a halted projection is not touched");
        resume(&world.pool("fanledger_operator").await, "tally").await.unwrap();
    }
    let rebuilt = rebuild(&world.context(), &mut projection, &RebuildOptions::unattended()).await.unwrap();
    assert_eq!(rebuilt.generation, 2);
    assert_eq!(world.tally("tally").await, expected(&world.projector).await);
    assert_ne!(world.tally("tally").await, ahead);
    catch_up(&world.context(), &mut projection).await.unwrap();
}

#[tokio::test]
async fn a_running_runner_notices_a_changed_history_and_goes_on_after_a_rebuild() {
    let world = World::new().await;
    let runner = Running::runner(world.context(), tally!("tally"));
    let kept = world.append(10).await;
    let head = world.append(10).await;
    world.reached("tally", head).await;
    world.lose_tail(kept).await;
    let status = world.halted("tally").await;
    assert_eq!(status.error.unwrap().kind, HaltKind::HistoryChanged);
    rebuild(&world.context(), &mut tally!("tally"), &RebuildOptions::unattended()).await.unwrap();
    let head = world.append(40).await;
    world.reached("tally", head).await;
    assert_eq!(world.tally("tally").await, expected(&world.projector).await);
    assert_eq!(world.status_of("tally").await.unwrap().generation, 2);
    runner.stop().await;
}

#[tokio::test]
async fn another_version_halts_and_says_to_rebuild() {
    let world = World::new().await;
    world.append(10).await;
    catch_up(&world.context(), &mut tally!("tally")).await.unwrap();
    let mut changed = Tally {
        version: 2,
        create: "CREATE TABLE tally (events bigint NOT NULL, amount bigint NOT NULL, note text); INSERT INTO tally VALUES (0, 0);
                 CREATE TABLE tally_seen (position bigint PRIMARY KEY);",
        ..tally!("tally")
    };
    let Err(CatchUpError::Halted { halt, .. }) = catch_up(&world.context(), &mut changed).await else {
        panic!("it ran")
    };
    assert_eq!(halt.kind, HaltKind::VersionChanged);
    assert!(halt.message.contains("fanledger projections rebuild tally"), "{}", halt.message);
    // The earlier program is put back: nothing is wrong any more.
    catch_up(&world.context(), &mut tally!("tally")).await.unwrap();
    assert!(matches!(catch_up(&world.context(), &mut changed).await, Err(CatchUpError::Halted { .. })));
    rebuild(&world.context(), &mut changed, &RebuildOptions::unattended()).await.unwrap();
    assert_eq!(world.tally("tally").await, expected(&world.projector).await);
    let note: Option<String> =
        sqlx::query_scalar("SELECT note FROM read.tally").fetch_one(&world.projector).await.unwrap();
    assert_eq!(note, None);
    assert_eq!(world.status_of("tally").await.unwrap().version, 2);
}

#[tokio::test]
async fn a_lost_generation_halts_and_is_rebuilt() {
    let world = World::new().await;
    world.append(10).await;
    catch_up(&world.context(), &mut tally!("tally")).await.unwrap();
    sqlx::query("DROP SCHEMA tally_g1 CASCADE").execute(&world.projector).await.unwrap();
    let Err(CatchUpError::Halted { halt, .. }) = catch_up(&world.context(), &mut tally!("tally")).await else {
        panic!("it ran")
    };
    assert_eq!(halt.kind, HaltKind::GenerationMissing);
    rebuild(&world.context(), &mut tally!("tally"), &RebuildOptions::unattended()).await.unwrap();
    assert_eq!(world.tally("tally").await, expected(&world.projector).await);
}

#[tokio::test]
async fn a_rebuild_beside_a_running_runner_sends_nothing_twice_and_loses_nothing() {
    let world = World::new().await;
    let manager = tally!("tally");
    let sent = Arc::clone(&manager.sent);
    let runner = Running::runner(world.context(), manager);
    let before = world.append(500).await;
    world.reached("tally", before).await;
    let load = tokio::spawn({
        let writer = world.writer.clone();
        async move {
            let mut last = Position::START;
            for n in 0..400 {
                last = transport::append_one(writer.clone(), n).await;
            }
            last
        }
    });
    let mut again = Tally { sent: Arc::clone(&sent), ..tally!("tally") };
    let rebuilt = rebuild(&world.context(), &mut again, &RebuildOptions::unattended()).await.unwrap();
    let head = load.await.unwrap();
    world.reached("tally", head).await;
    assert_eq!((rebuilt.generation, world.status_of("tally").await.unwrap().generation), (2, 2));
    let all = expected(&world.projector).await;
    assert_eq!(world.tally("tally").await, all);

    // A batch that the switch overtook was sent and then rolled back; the new generation sends it again, which finds its
    // facts there. Nothing is left out, and what the old generation had committed is only muted.
    let sent = sent.lock().unwrap().clone();
    let mut live: Vec<String> =
        sent.iter().filter(|(_, effects)| *effects == Effects::Live).map(|(at, _)| at.to_string()).collect();
    live.sort_by_key(|at| at.parse::<u64>().unwrap());
    live.dedup();
    assert_eq!(live.join(","), all.positions);
    let muted = sent.iter().filter(|(at, effects)| *at <= before && *effects == Effects::Muted).count();
    assert_eq!(muted, 250, "each of the first amounts was committed before the rebuild began");
    runner.stop().await;
}

#[tokio::test]
async fn a_second_rebuild_is_refused_and_a_killed_one_leaves_nothing_in_the_way() {
    let world = World::new().await;
    world.append(50).await;
    catch_up(&world.context(), &mut tally!("tally")).await.unwrap();
    // Held up by a reader of the view, the first one cannot switch.
    let mut reader = world.projector.begin().await.unwrap();
    sqlx::query("SELECT * FROM read.tally").fetch_all(&mut *reader).await.unwrap();
    let context = world.context();
    let first =
        tokio::spawn(async move { rebuild(&context, &mut tally!("tally"), &RebuildOptions::unattended()).await });
    eventually("the first is filled", || async {
        let filled: Option<i64> =
            sqlx::query_scalar("SELECT position FROM control.runners WHERE name = 'tally' AND generation = 2")
                .fetch_optional(&world.projector)
                .await
                .unwrap();
        filled == Some(50)
    })
    .await;
    assert!(matches!(
        rebuild(&world.context(), &mut tally!("tally"), &RebuildOptions::unattended()).await,
        Err(RebuildError::UnderWay("tally"))
    ));
    assert_eq!(world.tally("tally").await, expected(&world.projector).await, "readers do not queue behind a switch");
    first.abort();
    let _ = first.await;
    reader.rollback().await.unwrap();
    let context = world.context();
    eventually("the killed one's lock is gone", || async {
        match rebuild(&context, &mut tally!("tally"), &RebuildOptions::unattended()).await {
            Ok(rebuilt) => rebuilt.generation == 2,
            Err(RebuildError::UnderWay(_)) => false,
            Err(error) => panic!("{error}"),
        }
    })
    .await;
    assert_eq!(world.tally("tally").await, expected(&world.projector).await);
}

#[tokio::test]
async fn the_gateway_s_role_reads_rows_and_position_in_one_statement_and_nothing_else() {
    let world = World::new().await;
    let head = world.append(6).await;
    catch_up(&world.context(), &mut tally!("tally")).await.unwrap();
    rebuild(&world.context(), &mut tally!("tally"), &RebuildOptions::unattended()).await.unwrap();
    let gateway = world.pool("fanledger_gateway").await;
    let row =
        sqlx::query("SELECT t.events, p.position FROM read.tally AS t, read.positions AS p WHERE p.name = 'tally'")
            .fetch_one(&gateway)
            .await
            .unwrap();
    assert_eq!(row.get::<i64, _>("position"), head.as_i64());
    assert_eq!(fanledger_journal::runner::status(&gateway).await.unwrap().len(), 1);
    for refused in [
        "SELECT * FROM tally_g2.tally",
        "SELECT * FROM control.runners",
        "SELECT * FROM journal.events",
        "SELECT control.pause('tally')",
        "SELECT control.resume('tally')",
        "UPDATE read.tally SET events = 1",
        "CREATE TABLE read.mine (a int)",
        "SELECT control.create_generation_schema('x_g1')",
    ] {
        let error = sqlx::query(refused).execute(&gateway).await.unwrap_err();
        assert_eq!(
            error.as_database_error().and_then(|error| error.code()).as_deref(),
            Some("42501"),
            "{refused}: {error}"
        );
    }
}
