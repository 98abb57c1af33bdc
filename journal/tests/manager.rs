//! A process manager under a journal that lost its end: what it had sent is missing, though its checkpoint is still there.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod transport;

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use fanledger_journal::append::{Command, Outcome};
use fanledger_journal::checkpoint::HaltKind;
use fanledger_journal::event::{Metadata, NewEvent, Position, RecordedEvent, StreamId};
use fanledger_journal::generation::{RebuildOptions, rebuild};
use fanledger_journal::runner::{ApplyError, CatchUpError, Effects, Projection, Schema, catch_up, resume};
use sqlx::PgConnection;
use transport::{World, append_event, tally};

const NOTED: &str = "AmountNoted";
const SENT: &str = "AmountSent";

/// Answers each `AmountNoted` with an `AmountSent`, in a stream of the same id: what was sent before is a conflict.
struct Sender {
    world: Arc<World>,
    /// It fails for good at these, and at every batch of several events, so that each is committed alone.
    poison: HashSet<Position>,
    /// While it applies the first, the journal is cut behind the second.
    cut: Option<(Position, Position)>,
}

impl Sender {
    fn new(world: &Arc<World>) -> Self {
        Self { world: Arc::clone(world), poison: HashSet::new(), cut: None }
    }

    async fn send(&self, cause: &RecordedEvent) {
        let event = NewEvent {
            event_type: SENT.to_owned(),
            event_version: "1".to_owned(),
            payload: r#"{"amount": 0}"#.to_owned(),
        };
        let stream = StreamId::new("stripe_charge", cause.stream.aggregate_id.clone());
        let command = Command::new(stream, 0, Metadata::default(), vec![event]);
        match self.world.writer.append(command).await.unwrap() {
            Outcome::Appended { .. } | Outcome::Conflict { .. } => {}
            other => panic!("not sent: {other:?}"),
        }
    }
}

#[async_trait]
impl Projection for Sender {
    fn name(&self) -> &'static str {
        "sender"
    }

    fn version(&self) -> u32 {
        1
    }

    fn schema(&self) -> Schema {
        Schema { create: "", views: &[] }
    }

    fn wants(&self, _event_type: &str) -> bool {
        true
    }

    async fn apply(
        &mut self,
        batch: &[Arc<RecordedEvent>],
        effects: Effects,
        _connection: &mut PgConnection,
    ) -> Result<(), ApplyError> {
        let [event] = batch else { return Err(ApplyError::poison(batch[0].position, "one at a time")) };
        if self.poison.contains(&event.position) {
            return Err(ApplyError::poison(event.position, "not this one"));
        }
        if let Some((at, keep)) = self.cut
            && at == event.position
        {
            self.world.lose_tail(keep).await;
        }
        if event.event_type == NOTED && effects == Effects::Live {
            self.send(event).await;
        }
        Ok(())
    }
}

/// So many amounts, at the positions from 1 on.
async fn noted(world: &World, count: usize) {
    for n in 0..count {
        let stream = StreamId::new("manual_entry", format!("amount-{n}"));
        append_event(&world.writer, stream, NOTED, r#"{"amount": 1}"#, Metadata::default()).await;
    }
}

/// How often each amount was answered, in the order of their names.
async fn sent(world: &World) -> Vec<(String, i64)> {
    sqlx::query_as(
        "SELECT aggregate_id, count(*) FROM journal.events WHERE event_type = $1 GROUP BY aggregate_id ORDER BY aggregate_id",
    )
    .bind(SENT)
    .fetch_all(&world.projector)
    .await
    .unwrap()
}

async fn halts_because_history_changed(world: &World, sender: &mut Sender) {
    let Err(CatchUpError::Halted { halt, .. }) = catch_up(&world.context(), sender).await else {
        panic!("it did not notice that what it had sent is gone")
    };
    assert_eq!(halt.kind, HaltKind::HistoryChanged);
    assert!(halt.message.contains("fanledger projections rebuild sender"), "{}", halt.message);
}

async fn a_rebuild_sends_again_what_is_missing(world: &World, sender: &mut Sender, amounts: usize) {
    rebuild(&world.context(), sender, &RebuildOptions::unattended()).await.unwrap();
    let once: Vec<(String, i64)> = (0..amounts).map(|n| (format!("amount-{n}"), 1)).collect();
    assert_eq!(sent(world).await, once);
    catch_up(&world.context(), sender).await.unwrap();
    assert_eq!(sent(world).await, once);
}

#[tokio::test]
async fn a_manager_whose_commands_were_lost_with_the_journal_s_end_halts_until_a_rebuild_sends_them_again() {
    let world = Arc::new(World::new().await);
    noted(&world, 3).await;
    let mut sender = Sender::new(&world);
    // 4, 5 and 6 are what it sends; it stops before it reads them.
    sender.poison = HashSet::from([Position::new(4)]);
    assert!(matches!(catch_up(&world.context(), &mut sender).await, Err(CatchUpError::Halted { .. })));
    assert_eq!(world.status_of("sender").await.unwrap().position, Position::new(3));
    sender.poison.clear();

    world.lose_tail(Position::new(4)).await;
    assert_eq!(sent(&world).await, [("amount-0".to_owned(), 1)]);
    let operator = world.pool("fanledger_operator").await;
    // At once, and when another history has grown past the one that was lost.
    for others in [0, 5] {
        for n in 0..others {
            let stream = StreamId::new("manual_entry", format!("other-{n}"));
            append_event(&world.writer, stream, "RemarkMade", "{}", Metadata::default()).await;
        }
        resume(&operator, "sender").await.unwrap();
        halts_because_history_changed(&world, &mut sender).await;
    }
    a_rebuild_sends_again_what_is_missing(&world, &mut sender, 3).await;
}

#[tokio::test]
async fn a_cut_between_two_commits_of_a_running_manager_is_noticed_too() {
    let world = Arc::new(World::new().await);
    noted(&world, 2).await;
    let mut sender = Sender::new(&world);
    // What the first amount led to, at 3, is cut off while the second one is applied, whose own answer is then at 3.
    sender.cut = Some((Position::new(2), Position::new(2)));
    assert!(matches!(catch_up(&world.context(), &mut sender).await, Err(CatchUpError::Busy("sender"))));
    assert_eq!(world.status_of("sender").await.unwrap().position, Position::new(1), "nothing was committed after it");
    assert_eq!(sent(&world).await, [("amount-1".to_owned(), 1)]);
    sender.cut = None;
    halts_because_history_changed(&world, &mut sender).await;
    a_rebuild_sends_again_what_is_missing(&world, &mut sender, 2).await;
}

#[tokio::test]
async fn a_projection_which_sends_nothing_goes_on_where_its_checkpoint_is_still_there() {
    let world = World::new().await;
    let kept = world.append(20).await;
    catch_up(&world.context(), &mut tally!("tally")).await.unwrap();
    world.append(20).await;
    world.lose_tail(kept).await;
    let head = world.append(5).await;
    assert_eq!(catch_up(&world.context(), &mut tally!("tally")).await.unwrap(), head);
    assert_eq!(world.tally("tally").await, transport::expected(&world.projector).await);
}
