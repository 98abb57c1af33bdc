//! The translator: from raw Stripe events to facts in the streams of the objects that they are about.
//!
//! A process manager, which is a checkpointed runner with effects. It is total: each raw event leads to facts and links (perhaps
//! all known already) or to a recorded reason. And it reads its own facts back: links and snapshots of sources build the graph
//! in which a charge finds its attribution, so that the graph is rebuilt from events and no body is needed for it.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use fanledger_domain::books::charge::Charge;
use fanledger_domain::event::{
    ApplicationFeeObserved, AttributionOffered, AttributionSourceObserved, BalanceTransactionObserved, ChargeObserved,
    DisputeObserved, Event, NotTranslatedReason, RefundObserved, StripeEventNotTranslated, StripeEventReceived,
    StripeObjectsLinked, TransferObserved,
};
use fanledger_domain::id::{StripeId, StripeKind};
use fanledger_domain::observations::{ChargePhase, Snapshot};
use fanledger_domain::stripe::{TRANSLATOR_VERSION, translate};
use fanledger_journal::checkpoint::with_causes;
use fanledger_journal::event::{Metadata, RecordedEvent, StreamId};
use fanledger_journal::runner::{ApplyError, Effects, Projection, Schema};
use fanledger_journal::trace::{self, TraceParent};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use sqlx::PgConnection;
use tracing::{Instrument as _, Span};

use crate::executor::{ExecuteError, Executed, Executor, STRIPE_EVENT};
use crate::store::{JournalStore, Store};
use crate::stripe::delivery::{Delivery, is_dependent, of_translation, satellite_of};
use crate::stripe::graph::{self, BatchGraph, Graph, GraphError, Said};
use crate::stripe::{TRANSLATOR_ACTOR, acted_by, caused_by};
use crate::vault::{Bodies, Vault, VaultError, WrappedKeys};

/// How many objects' commands are under way at once, so that they share appends.
const CONCURRENCY: usize = 32;

/// The runner's name.
pub const NAME: &str = "stripe_translator";

/// See the module.
pub struct Translator<S = JournalStore, V = Vault> {
    executor: Executor<S>,
    vault: V,
    livemode: bool,
}

/// Something to do for one object. Those of one object are done in order.
#[derive(Clone, Debug)]
enum Task {
    /// Take in facts.
    Deliver { delivery: Delivery, cause: Option<StripeId>, metadata: Metadata },
    /// Hand on what a satellite held.
    HandOn { satellite: StripeId, told_by: ToldBy, metadata: Metadata },
    /// Link a refund that names no charge to the one of these that was captured; the others are attempts that failed.
    FindCharge { refund: StripeId, among: Vec<StripeId>, cause: StripeId },
    /// Record that a raw event led to nothing.
    NotTranslated(StripeEventNotTranslated),
}

/// The webhook to name where an owner refuses what a satellite held.
#[derive(Clone, Debug)]
enum ToldBy {
    /// The one that led to what was just done to the satellite.
    Webhook(StripeId),
    /// None did: the last one that the satellite's stream names.
    Stream(StreamId),
}

impl ToldBy {
    fn of(recorded: &RecordedEvent) -> Self {
        cause_of(recorded).map_or_else(|| Self::Stream(recorded.stream.clone()), Self::Webhook)
    }
}

impl Task {
    fn hand_on(satellite: StripeId, told_by: ToldBy) -> Self {
        Self::HandOn { satellite, told_by, metadata: acted_by(TRANSLATOR_ACTOR) }
    }

    fn object(&self) -> &StripeId {
        match self {
            Self::Deliver { delivery, .. } => &delivery.object,
            Self::HandOn { satellite, .. } => satellite,
            Self::FindCharge { refund, .. } => refund,
            Self::NotTranslated(fact) => &fact.id,
        }
    }

    /// The links by which a satellite gives its money up, and what else there is to do, for after them.
    fn parted(self) -> (Option<Self>, Option<Self>) {
        let Self::Deliver { delivery: Delivery { object, facts }, cause, metadata } = self else {
            return (None, Some(self));
        };
        let is_dependent = is_dependent(object.kind());
        let (links, rest): (Vec<Event>, Vec<Event>) =
            facts.into_iter().partition(|fact| is_dependent && matches!(fact, Event::StripeObjectsLinked(_)));
        let deliver = |facts: Vec<Event>| {
            let delivery = Delivery { object: object.clone(), facts };
            Self::Deliver { delivery, cause: cause.clone(), metadata: metadata.clone() }
        };
        let some = |facts: Vec<Event>| (!facts.is_empty()).then(|| deliver(facts));
        (some(links), some(rest))
    }
}

/// What is to be done, by object.
type Queues = BTreeMap<StripeId, Vec<(Task, Span)>>;

/// What a raw event comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Facts, for these objects.
    Facts(Vec<Delivery>),
    /// None, and why.
    Nothing(StripeEventNotTranslated),
}

/// Why a raw event could not even be judged: infrastructure.
#[derive(Debug, thiserror::Error)]
#[error("open the body of {event}")]
pub struct JudgeError {
    /// Which event.
    event: StripeId,
    /// What went wrong.
    #[source]
    source: VaultError,
}

/// Opens and translates one raw event.
pub fn judge(
    vault: &impl Bodies,
    keys: &WrappedKeys,
    received: &StripeEventReceived,
    livemode: bool,
) -> Result<Verdict, JudgeError> {
    let nothing = |reason, detail: String| {
        Verdict::Nothing(StripeEventNotTranslated {
            id: received.id.clone(),
            reason,
            detail,
            translator_version: TRANSLATOR_VERSION,
        })
    };
    let body = match vault.open(keys, received.id.as_str(), &received.sealed_body) {
        Ok(body) => body,
        Err(VaultError::Erased) => {
            return Ok(nothing(NotTranslatedReason::Erased, "the body's key was destroyed".to_owned()));
        }
        // Whatever this body tells of would be missing in the books, in silence: it waits until its key is found.
        Err(source @ (VaultError::Missing { .. } | VaultError::Read(_) | VaultError::Open | VaultError::Seal)) => {
            return Err(JudgeError { event: received.id.clone(), source });
        }
    };
    Ok(match translate(&body, livemode) {
        Ok(translation) => Verdict::Facts(of_translation(translation)),
        Err(none) => nothing(none.reason, none.detail),
    })
}

impl<S: Store, V: Bodies> Translator<S, V> {
    /// A translator that opens bodies with `vault` and sends commands through `executor`.
    pub const fn new(executor: Executor<S>, vault: V, livemode: bool) -> Self {
        Self { executor, vault, livemode }
    }

    /// Takes in a batch: the state of `graph` first, then, where effects are live, the commands that it asks for. The same batch
    /// again sends the same commands, which find their facts there.
    ///
    /// # Errors
    /// As [`Projection::apply`].
    pub async fn step(
        &self,
        batch: &[Arc<RecordedEvent>],
        effects: Effects,
        graph: &mut impl Graph,
    ) -> Result<(), ApplyError> {
        let mut events = Vec::with_capacity(batch.len());
        for recorded in batch {
            let event = Event::decode(&recorded.event_type, &recorded.event_version, &recorded.payload)
                .map_err(|error| ApplyError::poison(recorded.position, error))?;
            events.push((recorded, event));
        }
        let keys = match effects {
            Effects::Live => Some(self.keys_of(&events).await?),
            Effects::Muted => None,
        };
        graph.expect(&events.iter().flat_map(|(_, event)| about(event)).collect::<Vec<_>>()).await.map_err(of_graph)?;
        let (mut links, mut others) = (Queues::new(), Queues::new());
        for (recorded, event) in &events {
            let mut tasks = self.tasks(event, keys.as_ref(), graph).await.map_err(|error| match error {
                StepError::Graph(error) => of_graph(error),
                error @ StepError::Judge(_) => ApplyError::poison(recorded.position, error),
            })?;
            // Whatever a satellite's stream holds goes on to its owner, once that is known.
            if let Some(satellite) = satellite_of(&recorded.stream) {
                tasks.push(Task::hand_on(satellite, ToldBy::of(recorded)));
            }
            let span = if tasks.is_empty() { Span::none() } else { translate_span(recorded) };
            for task in tasks {
                let (link, other) = task.parted();
                for (queues, part) in [(&mut links, link), (&mut others, other)] {
                    let Some(task) = part else { continue };
                    queues.entry(task.object().clone()).or_default().push((task, span.clone()));
                }
            }
        }
        if effects == Effects::Muted {
            return Ok(());
        }
        // Objects are under way at once, so an owner might be through with what a satellite held before the satellite has given
        // it up, and it would count twice meanwhile. So all links of the batch are written before anything else is.
        self.perform_all(links).await?;
        self.perform_all(others).await
    }

    /// Those of one object one after the other, objects at once.
    async fn perform_all(&self, queues: Queues) -> Result<(), ApplyError> {
        stream::iter(queues.into_values().map(Ok::<_, ExecuteError>))
            .try_for_each_concurrent(CONCURRENCY, |tasks| async {
                stream::iter(tasks).map(Ok).try_for_each(|(task, span)| self.perform(task).instrument(span)).await
            })
            .await
            .map_err(ApplyError::transient)
    }

    /// What the event at one position asks for, after the state has taken it in.
    async fn tasks(
        &self,
        event: &Event,
        keys: Option<&WrappedKeys>,
        graph: &mut impl Graph,
    ) -> Result<Vec<Task>, StepError> {
        match event {
            Event::StripeEventReceived(received) => match keys {
                Some(keys) => self.tasks_of_raw(received, keys),
                None => Ok(Vec::new()),
            },
            Event::ChargeObserved(seen) => tasks_of_charge(seen, graph).await,
            Event::TransferObserved(seen) => {
                tasks_of_account(&seen.transfer.id, seen.transfer.destination.as_ref(), graph).await
            }
            Event::ApplicationFeeObserved(seen) => {
                tasks_of_account(&seen.fee.id, seen.fee.account.as_ref(), graph).await
            }
            Event::AttributionSourceObserved(seen) => tasks_of_source(seen, graph).await,
            Event::StripeObjectsLinked(link) => tasks_of_link(link, graph).await,
            Event::RefundObserved(seen) => tasks_of_refund(seen, graph).await,
            Event::DisputeObserved(_)
            | Event::BalanceTransactionObserved(_)
            | Event::StripeEventBodyDiffered(_)
            | Event::StripeEventNotTranslated(_)
            | Event::AttributionOffered(_)
            | Event::CreatorAttributed(_)
            | Event::ChargeReleased(_)
            | Event::PayoutObserved(_)
            | Event::TopupObserved(_)
            | Event::EntryPosted(_)
            | Event::ProjectionEventSkipped(_)
            | Event::StripeEventOpened(_)
            | Event::PeriodClosed(_)
            | Event::PeriodReopened(_)
            | Event::ManualEntryProposed(_)
            | Event::ManualEntryApproved(_)
            | Event::ManualEntryRejected(_)
            | Event::ConnectedAccountObserved(_)
            | Event::CreatorPayoutsHeld(_)
            | Event::CreatorPayoutsResumed(_)
            | Event::PayoutRunProposed(_)
            | Event::PayoutRunApproved(_)
            | Event::PayoutRunCanceled(_)
            | Event::PayoutRunStopped(_)
            | Event::PayoutRunFinished(_)
            | Event::PayoutTransferSent(_)
            | Event::PayoutTransferFailed(_) => Ok(Vec::new()),
        }
    }

    fn tasks_of_raw(&self, received: &StripeEventReceived, keys: &WrappedKeys) -> Result<Vec<Task>, StepError> {
        let metadata = caused_by(TRANSLATOR_ACTOR, &received.id);
        Ok(match judge(&self.vault, keys, received, self.livemode)? {
            Verdict::Nothing(fact) => vec![Task::NotTranslated(fact)],
            Verdict::Facts(deliveries) => {
                let mut tasks = Vec::with_capacity(2 * deliveries.len());
                for delivery in deliveries {
                    // Nothing need be written to a satellite's stream now, and its owner may have refused what it holds.
                    let hand_on = Task::hand_on(delivery.object.clone(), ToldBy::Webhook(received.id.clone()));
                    let (cause, metadata) = (Some(received.id.clone()), metadata.clone());
                    tasks.extend([Task::Deliver { delivery, cause, metadata }, hand_on]);
                }
                tasks
            }
        })
    }

    /// The keys of the raw events among these, in one query.
    async fn keys_of(&self, events: &[(&Arc<RecordedEvent>, Event)]) -> Result<WrappedKeys, ApplyError> {
        let raw: Vec<&str> = events
            .iter()
            .filter(|(_, event)| matches!(event, Event::StripeEventReceived(_)))
            .map(|(recorded, _)| recorded.stream.aggregate_id.as_str())
            .collect();
        self.vault.keys(STRIPE_EVENT, &raw).await.map_err(ApplyError::transient)
    }

    async fn perform(&self, task: Task) -> Result<(), ExecuteError> {
        let (result, cause) = match task {
            Task::NotTranslated(fact) => return self.record(fact).await,
            Task::HandOn { satellite, told_by, metadata } => return self.hand_on(&satellite, told_by, &metadata).await,
            Task::FindCharge { refund, among, cause } => (self.find_charge(&refund, &among, &cause).await, Some(cause)),
            Task::Deliver { delivery, cause, metadata } => {
                (self.executor.deliver(delivery, cause.as_ref(), &metadata).await, cause)
            }
        };
        match result {
            Ok(_) => Ok(()),
            Err(error) if error.is_transient() => Err(error),
            Err(error) => {
                let detail = refused(&error, cause.as_ref());
                let Some(id) = cause else { return Ok(()) };
                self.record(untranslatable(id, detail)).await
            }
        }
    }

    /// What its owner refuses is in no books, since the satellite's own are empty by then. So it is told of a webhook, and tried
    /// again whenever a webhook has something for the satellite, or is translated again.
    async fn hand_on(&self, satellite: &StripeId, told_by: ToldBy, metadata: &Metadata) -> Result<(), ExecuteError> {
        let error = match self.executor.hand_on(satellite, metadata).await {
            Ok(_) => return Ok(()),
            Err(error) if error.is_transient() => return Err(error),
            Err(error) => error,
        };
        let webhook = match told_by {
            ToldBy::Webhook(webhook) => Some(webhook),
            ToldBy::Stream(stream) => {
                let events = self.executor.store().stream(&stream).await;
                let events = events.map_err(|source| ExecuteError::Read { stream, source })?;
                events.iter().rev().find_map(cause_of)
            }
        };
        let detail = refused(&error, webhook.as_ref());
        match webhook {
            Some(webhook) => self.record(untranslatable(webhook, detail)).await,
            // Only Stripe's list told of it: the log and the counter have it, and `ledger converge` names it.
            None => Ok(()),
        }
    }

    /// A charge that is captured only later links the refund itself, in [`tasks_of_charge`]: both orders end the same.
    async fn find_charge(
        &self,
        refund: &StripeId,
        among: &[StripeId],
        cause: &StripeId,
    ) -> Result<Executed, ExecuteError> {
        for charge in among {
            if self.executor.load::<Charge>(charge).await?.books().is_captured() {
                let metadata = caused_by(TRANSLATOR_ACTOR, cause);
                return self.executor.deliver(link_of(refund, charge), Some(cause), &metadata).await;
            }
        }
        Ok(Executed::default())
    }

    async fn record(&self, fact: StripeEventNotTranslated) -> Result<(), ExecuteError> {
        if matches!(fact.reason, NotTranslatedReason::Untranslatable | NotTranslatedReason::Undecodable) {
            tracing::error!(stripe_event = %fact.id, detail = fact.detail, "a Stripe event cannot be translated");
        }
        metrics::counter!("fanledger_stripe_events_not_translated_total", "reason" => fact.reason.as_str())
            .increment(1);
        let metadata = caused_by(TRANSLATOR_ACTOR, &fact.id);
        self.executor.record_not_translated(fact, &metadata).await.map(drop)
    }
}

/// The webhook that led to an event, where one did.
fn cause_of(recorded: &RecordedEvent) -> Option<StripeId> {
    let metadata: Metadata = serde_json::from_str(&recorded.metadata).ok()?;
    metadata.causation_id?.parse().ok()
}

/// The objects whose links and words a fact asks for.
fn about(event: &Event) -> Vec<StripeId> {
    match event {
        Event::ChargeObserved(seen) => {
            let charge = &seen.charge;
            [Some(&charge.id), charge.payment_intent.as_ref(), charge.invoice.as_ref()]
                .into_iter()
                .flatten()
                .cloned()
                .collect()
        }
        Event::TransferObserved(seen) => vec![seen.transfer.id.clone()],
        Event::ApplicationFeeObserved(seen) => vec![seen.fee.id.clone()],
        Event::AttributionSourceObserved(seen) => vec![seen.object.clone()],
        Event::StripeObjectsLinked(link) => vec![link.from.clone(), link.to.clone()],
        Event::RefundObserved(seen) => {
            [Some(&seen.refund.id), seen.refund.payment_intent.as_ref()].into_iter().flatten().cloned().collect()
        }
        Event::StripeEventReceived(_)
        | Event::DisputeObserved(_)
        | Event::BalanceTransactionObserved(_)
        | Event::StripeEventBodyDiffered(_)
        | Event::StripeEventNotTranslated(_)
        | Event::AttributionOffered(_)
        | Event::CreatorAttributed(_)
        | Event::ChargeReleased(_)
        | Event::PayoutObserved(_)
        | Event::TopupObserved(_)
        | Event::EntryPosted(_)
        | Event::ProjectionEventSkipped(_)
        | Event::StripeEventOpened(_)
        | Event::PeriodClosed(_)
        | Event::PeriodReopened(_)
        | Event::ManualEntryProposed(_)
        | Event::ManualEntryApproved(_)
        | Event::ManualEntryRejected(_)
        | Event::ConnectedAccountObserved(_)
        | Event::CreatorPayoutsHeld(_)
        | Event::CreatorPayoutsResumed(_)
        | Event::PayoutRunProposed(_)
        | Event::PayoutRunApproved(_)
        | Event::PayoutRunCanceled(_)
        | Event::PayoutRunStopped(_)
        | Event::PayoutRunFinished(_)
        | Event::PayoutTransferSent(_)
        | Event::PayoutTransferFailed(_) => Vec::new(),
    }
}

/// What the state cannot hold is no one event's fault; the runner finds the event whose batch fails alone.
fn of_graph(error: GraphError) -> ApplyError {
    match error {
        GraphError::Database(source) => ApplyError::from(source),
        error @ (GraphError::Json(_) | GraphError::Id(_)) => {
            ApplyError { position: None, transient: false, source: Box::new(error) }
        }
    }
}

/// Why a batch could not be taken.
#[derive(Debug, thiserror::Error)]
enum StepError {
    #[error("translate a raw event")]
    Judge(#[from] JudgeError),
    #[error("update the translator's state")]
    Graph(#[from] GraphError),
}

/// A decision refused: the facts would break an invariant. Raises it, and gives back why, for the record.
pub(crate) fn refused(error: &ExecuteError, cause: Option<&StripeId>) -> String {
    let detail = with_causes(error);
    tracing::error!(stripe_event = cause.map(StripeId::as_str), detail, "facts were refused");
    metrics::counter!("fanledger_translator_refused_total").increment(1);
    detail
}

/// What is recorded of a raw event of which something had been refused, and which was translated again with nothing refused.
pub(crate) fn nothing_refused(id: StripeId) -> StripeEventNotTranslated {
    let (reason, detail) = (NotTranslatedReason::NoFacts, "translated again: no fact is missing, and none was refused");
    StripeEventNotTranslated { id, reason, detail: detail.to_owned(), translator_version: TRANSLATOR_VERSION }
}

/// What is recorded of a raw event whose facts were refused.
pub(crate) const fn untranslatable(id: StripeId, detail: String) -> StripeEventNotTranslated {
    let reason = NotTranslatedReason::Untranslatable;
    StripeEventNotTranslated { id, reason, detail, translator_version: TRANSLATOR_VERSION }
}

fn offer_to(object: &StripeId, said: Vec<Said>) -> Vec<Task> {
    // The event that told of it last stands for all: entries lead from there to a webhook.
    let Some(event) = said.iter().map(|said| &said.stamp).max().map(|stamp| stamp.event.clone()) else {
        return Vec::new();
    };
    let facts = said
        .into_iter()
        .map(|said| AttributionOffered { stamp: said.stamp, from: said.object, offer: said.offer }.into())
        .collect();
    vec![Task::Deliver {
        delivery: Delivery { object: object.clone(), facts },
        metadata: caused_by(TRANSLATOR_ACTOR, &event),
        cause: Some(event),
    }]
}

async fn tasks_of_charge(seen: &ChargeObserved, graph: &mut impl Graph) -> Result<Vec<Task>, StepError> {
    let charge = &seen.charge;
    let mut is_news = false;
    for other in charge.payment_intent.iter().chain(&charge.invoice) {
        is_news |= graph.link(&charge.id, other).await?;
    }
    let mut tasks = Vec::new();
    if is_news {
        tasks.extend(offer_to(&charge.id, graph::said_to(graph, &charge.id).await?));
    }
    // Refunds that named the payment intent only find their charge once it is captured.
    if charge.status() == ChargePhase::Captured
        && let Some(intent) = &charge.payment_intent
    {
        for refund in graph::linked(graph, intent, StripeKind::Refund).await? {
            tasks.push(Task::Deliver {
                delivery: link_of(&refund, &charge.id),
                cause: Some(seen.stamp.event.clone()),
                metadata: caused_by(TRANSLATOR_ACTOR, &seen.stamp.event),
            });
        }
    }
    Ok(tasks)
}

fn link_of(satellite: &StripeId, owner: &StripeId) -> Delivery {
    let facts = vec![StripeObjectsLinked { from: satellite.clone(), to: owner.clone() }.into()];
    Delivery { object: satellite.clone(), facts }
}

/// A refund that stands alone, since it names no charge: found by its payment intent.
async fn tasks_of_refund(seen: &RefundObserved, graph: &mut impl Graph) -> Result<Vec<Task>, StepError> {
    let (None, Some(intent)) = (&seen.refund.charge, &seen.refund.payment_intent) else { return Ok(Vec::new()) };
    graph.link(&seen.refund.id, intent).await?;
    let among = graph::linked(graph, intent, StripeKind::Charge).await?;
    Ok(vec![Task::FindCharge { refund: seen.refund.id.clone(), among, cause: seen.stamp.event.clone() }])
}

async fn tasks_of_account(
    object: &StripeId,
    account: Option<&StripeId>,
    graph: &mut impl Graph,
) -> Result<Vec<Task>, StepError> {
    let Some(account) = account else { return Ok(Vec::new()) };
    let is_news = graph.link(object, account).await?;
    Ok(if is_news { offer_to(object, graph::said_to(graph, object).await?) } else { Vec::new() })
}

async fn tasks_of_source(seen: &AttributionSourceObserved, graph: &mut impl Graph) -> Result<Vec<Task>, StepError> {
    if !graph::observe(graph, &seen.object, &seen.stamp, &seen.offers).await? {
        return Ok(Vec::new());
    }
    let said = graph::said_by(graph, std::slice::from_ref(&seen.object)).await?;
    let reached = graph::reached_from(graph, &seen.object).await?;
    Ok(reached.iter().flat_map(|object| offer_to(object, said.clone())).collect())
}

async fn tasks_of_link(link: &StripeObjectsLinked, graph: &mut impl Graph) -> Result<Vec<Task>, StepError> {
    if !graph.link(&link.from, &link.to).await? {
        return Ok(Vec::new());
    }
    let mut reached = graph::reached_from(graph, &link.from).await?;
    reached.extend(graph::reached_from(graph, &link.to).await?);
    reached.sort();
    reached.dedup();
    let mut tasks = Vec::new();
    for object in reached {
        tasks.extend(offer_to(&object, graph::said_to(graph, &object).await?));
    }
    Ok(tasks)
}

/// Whether events of this type change the state or ask for commands.
pub fn wants(event_type: &str) -> bool {
    matches!(
        event_type,
        StripeEventReceived::TYPE
            | ChargeObserved::TYPE
            | TransferObserved::TYPE
            | ApplicationFeeObserved::TYPE
            | RefundObserved::TYPE
            | DisputeObserved::TYPE
            | BalanceTransactionObserved::TYPE
            | AttributionSourceObserved::TYPE
            | StripeObjectsLinked::TYPE
    )
}

/// The span of all that is done because of one event; disabled unless its making was sampled.
fn translate_span(event: &RecordedEvent) -> Span {
    let Some(parent) = TraceParent::of_event(event) else { return Span::none() };
    let span = tracing::debug_span!(
        target: trace::TARGET, parent: None, "translate",
        fanledger.position = event.position.get(), fanledger.event_type = %event.event_type,
    );
    parent.adopt(&span);
    span
}

#[async_trait]
impl Projection for Translator {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> u32 {
        2
    }

    fn schema(&self) -> Schema {
        Schema { create: graph::TABLES, views: &[] }
    }

    fn wants(&self, event_type: &str) -> bool {
        wants(event_type)
    }

    async fn apply(
        &mut self,
        batch: &[Arc<RecordedEvent>],
        effects: Effects,
        connection: &mut PgConnection,
    ) -> Result<(), ApplyError> {
        let mut graph = BatchGraph::new(connection);
        self.step(batch, effects, &mut graph).await?;
        graph.write().await.map_err(of_graph)
    }
}
