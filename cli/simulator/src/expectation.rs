//! What the balances must come to: the webhooks that the journal ended up with, told to a fresh world in plain order, where
//! nothing goes wrong; then what finance released and what the sender learnt.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use fanledger_commands::executor::Executor;
use fanledger_commands::operations;
use fanledger_commands::stripe::delivery::Delivery;
use fanledger_commands::stripe::fetcher::{self, Fetcher};
use fanledger_commands::stripe::intake::Intake;
use fanledger_commands::stripe::signature::Secret;
use fanledger_commands::stripe::translator::{self, Translator};
use fanledger_devkit::stripe::sign;
use fanledger_domain::event::Event;
use fanledger_domain::payout_run::run::PayoutRun;
use fanledger_domain::time::Timestamp;
use fanledger_journal::event::{Metadata, Position, RecordedEvent};
use fanledger_journal::runner::Effects;

use crate::stripe::{Api, SECRET};
use crate::tables::{Balances, Links, Sums};
use crate::vault::SimulatedVault;
use crate::world::{Node, SECOND, World};
use crate::writer::SimulatedStore;

/// Events of one batch.
const BATCH: usize = 200;
/// Polls of a future in which nobody can be waited for; more would be a fault of the simulator.
const POLLS_MAX: usize = 1_000_000;

/// Why there is no expectation; a fault of the system under test or of the simulator.
pub(crate) type Unexpected = String;

/// The balances that the webhooks of this world's journal come to.
pub(crate) fn balances(world: &World) -> Result<Sums, Unexpected> {
    let mut webhooks: Vec<(Option<Timestamp>, &str, &str)> = world
        .journal
        .events()
        .iter()
        .filter_map(|recorded| match &recorded.event {
            Event::StripeEventReceived(received) => {
                let body = received.sealed_body.split_once('\n')?.1;
                Some((received.created, received.id.as_str(), body))
            }
            _ => None,
        })
        .collect();
    webhooks.sort();
    let said = Said::of(world);
    let mut quiet = World::new(0, None, world.stripe.api_only());
    quiet.faults = false;
    quiet.turn.is_free = true;
    let quiet = Arc::new(Mutex::new(quiet));
    let node = Node::new(Arc::clone(&quiet), 0, "expectation");
    let told = now(tell(&node, &webhooks, said.facts))?;
    told?;
    let mut balances = said.acts;
    node.world().journal.events().iter().for_each(|recorded| balances.fold(&recorded.event));
    Ok(balances.sums)
}

/// What is in the journal of others than Stripe's webhooks: what finance said, and what Stripe answered to the sender.
#[derive(Default)]
struct Said {
    /// What an object is to learn.
    facts: Vec<Delivery>,
    /// What was posted by an approval: it is of that run alone, whatever else is known.
    acts: Balances,
}

impl Said {
    fn of(world: &World) -> Self {
        let mut said = Self::default();
        for recorded in world.journal.events() {
            let stream = &recorded.row.stream;
            let is_fact = if let Event::TransferObserved(seen) = &recorded.event {
                seen.stamp.event == seen.transfer.id
            } else {
                matches!(recorded.event, Event::ChargeReleased(_))
            };
            if let (true, Ok(object)) = (is_fact, stream.aggregate_id.parse()) {
                said.facts.push(Delivery { object, facts: vec![recorded.event.clone()] });
            }
            if stream.aggregate_type == PayoutRun::STREAM {
                said.acts.fold(&recorded.event);
            }
        }
        said
    }
}

async fn tell(
    node: &Node,
    webhooks: &[(Option<Timestamp>, &str, &str)],
    facts: Vec<Delivery>,
) -> Result<(), Unexpected> {
    let executor = Executor::over(SimulatedStore::new(node.clone()));
    let vault = || SimulatedVault::new(node.clone());
    let secret = Secret::new(SECRET).map_err(|error| error.to_string())?;
    let intake = Intake::new(executor.clone(), vault(), vec![secret]);
    for (_, id, body) in webhooks {
        let seconds = node.world().now / SECOND;
        let header = sign(SECRET, seconds, body.as_bytes());
        let received = intake.receive_at(seconds, Some(header.as_bytes()), body.as_bytes()).await;
        received.map_err(|error| format!("{id} was refused in plain order: {error}"))?;
    }
    let mut managers = Managers {
        node,
        translator: Translator::new(executor.clone(), vault(), false),
        fetcher: Fetcher::new(executor.clone(), Some(Arc::new(Api::new(node.clone())))),
        links: Links::default(),
        position: Position::START,
    };
    managers.settle().await?;
    let told = executor.deliver_all(facts, None, &Metadata::default()).await;
    told.map_err(|error| format!("what others than Stripe's webhooks said, in plain order: {error}"))?;
    managers.settle().await?;
    operations::sync(&executor, &Api::new(node.clone()), None, |_| {}).await.map_err(|error| error.to_string())?;
    managers.settle().await
}

/// The managers without a runner.
struct Managers<'a> {
    node: &'a Node,
    translator: Translator<SimulatedStore, SimulatedVault>,
    fetcher: Fetcher<SimulatedStore>,
    links: Links,
    position: Position,
}

impl Managers<'_> {
    /// Until nothing more comes of it.
    async fn settle(&mut self) -> Result<(), Unexpected> {
        loop {
            let page: Vec<Arc<RecordedEvent>> = {
                let world = self.node.world();
                world.journal.after(self.position, BATCH).iter().map(|recorded| Arc::clone(&recorded.row)).collect()
            };
            let Some(last) = page.last() else { return Ok(()) };
            self.position = last.position;
            let of = |wants: fn(&str) -> bool| -> Vec<Arc<RecordedEvent>> {
                page.iter().filter(|event| wants(&event.event_type)).cloned().collect()
            };
            let translated = self.translator.step(&of(translator::wants), Effects::Live, &mut self.links).await;
            translated.map_err(|error| format!("the translator in plain order: {error}: {}", error.source))?;
            let fetched = self.fetcher.step(&of(fetcher::wants), Effects::Live, &mut ()).await;
            fetched.map_err(|error| format!("the fetcher in plain order: {error}: {}", error.source))?;
        }
    }
}

/// The output of a future that waits for nobody.
fn now<T>(future: impl Future<Output = T>) -> Result<T, Unexpected> {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..POLLS_MAX {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return Ok(output);
        }
    }
    Err("the expectation waits for somebody".to_owned())
}
