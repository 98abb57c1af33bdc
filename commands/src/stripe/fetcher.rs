//! Fetches balance transactions of which only the id is known. The answer is a fact, so that a replay never calls Stripe.
//!
//! A process manager of its own: while Stripe does not answer, it waits, and the translator does not. It has no state: what is
//! awaited is read off the object's stream. Without a key, or where Stripe has no such id, nothing is held: the object stays on
//! the list of balance transactions awaited.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use fanledger_domain::books::charge::Charge;
use fanledger_domain::books::platform::{ApplicationFee, Payout, Topup, Transfer};
use fanledger_domain::books::satellite::{Dispute, Refund, Satellite};
use fanledger_domain::books::{Awaited, Books};
use fanledger_domain::event::{
    ApplicationFeeObserved, ChargeObserved, DisputeObserved, PayoutObserved, RefundObserved, TopupObserved,
    TransferObserved,
};
use fanledger_domain::id::StripeId;
use fanledger_journal::checkpoint::with_causes;
use fanledger_journal::event::{RecordedEvent, StreamId};
use fanledger_journal::runner::{ApplyError, Effects, Projection, Schema};
use fanledger_journal::trace::{self, TraceParent};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use sqlx::PgConnection;
use tracing::{Instrument as _, Span};

use crate::executor::{ExecuteError, Executor};
use crate::store::{JournalStore, Store};
use crate::stripe::api::{StripeApi, StripeApiError};
use crate::stripe::delivery::of_balance_transaction;
use crate::stripe::{FETCHER_ACTOR, acted_by};

/// The runner's name.
pub const NAME: &str = "balance_transaction_fetcher";
/// How many requests are under way at once; Stripe allows 100 a second in live mode, 25 in test mode.
const CONCURRENCY: usize = 16;

/// See the module.
pub struct Fetcher<S = JournalStore> {
    executor: Executor<S>,
    stripe: Option<Arc<dyn StripeApi>>,
}

/// Why a balance transaction could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The object's stream could not be read, or the answer not appended.
    #[error("load the object, or append the balance transaction")]
    Execute(#[from] ExecuteError),
    /// Stripe did not answer.
    #[error("fetch the balance transaction")]
    Stripe(#[from] StripeApiError),
}

impl<S: Store> Fetcher<S> {
    /// A fetcher that asks `stripe`, where there is a key for it.
    pub const fn new(executor: Executor<S>, stripe: Option<Arc<dyn StripeApi>>) -> Self {
        Self { executor, stripe }
    }

    /// Asks for what the objects of a batch still await, where effects are live.
    ///
    /// # Errors
    /// As [`Projection::apply`].
    pub async fn step(&self, batch: &[Arc<RecordedEvent>], effects: Effects) -> Result<(), ApplyError> {
        let (Some(stripe), Effects::Live) = (&self.stripe, effects) else { return Ok(()) };
        // Each stream once, in the trace of the first of its events that is in one.
        let mut streams: BTreeMap<StreamId, Option<TraceParent>> = BTreeMap::new();
        for event in batch {
            let parent = streams.entry(event.stream.clone()).or_default();
            *parent = parent.or_else(|| TraceParent::of_event(event));
        }
        let awaited: Vec<(Vec<Awaited>, Option<TraceParent>)> = stream::iter(streams)
            .map(|(stream, parent)| async move { Ok::<_, ExecuteError>((self.awaited(&stream).await?, parent)) })
            .buffer_unordered(CONCURRENCY)
            .try_collect()
            .await
            .map_err(ApplyError::transient)?;
        // By transaction, so that two objects that name the same one ask once.
        let awaited: BTreeMap<Awaited, Option<TraceParent>> =
            awaited.into_iter().flat_map(|(of, parent)| of.into_iter().map(move |awaited| (awaited, parent))).collect();
        stream::iter(awaited)
            .map(|(awaited, parent)| self.fetch(stripe.as_ref(), awaited).instrument(fetch_span(parent)))
            .buffer_unordered(CONCURRENCY)
            .try_collect::<()>()
            .await
            .map_err(ApplyError::transient)
    }

    async fn awaited_of<B: Books>(&self, object: &StripeId) -> Result<Vec<Awaited>, ExecuteError> {
        Ok(self.executor.load::<B>(object).await?.books().awaited())
    }

    async fn awaited(&self, stream: &StreamId) -> Result<Vec<Awaited>, ExecuteError> {
        let Ok(object) = stream.aggregate_id.parse::<StripeId>() else { return Ok(Vec::new()) };
        match stream.aggregate_type.as_str() {
            Charge::STREAM => self.awaited_of::<Charge>(&object).await,
            Transfer::STREAM => self.awaited_of::<Transfer>(&object).await,
            Payout::STREAM => self.awaited_of::<Payout>(&object).await,
            ApplicationFee::STREAM => self.awaited_of::<ApplicationFee>(&object).await,
            Topup::STREAM => self.awaited_of::<Topup>(&object).await,
            Satellite::<Refund>::STREAM => self.awaited_of::<Satellite<Refund>>(&object).await,
            Satellite::<Dispute>::STREAM => self.awaited_of::<Satellite<Dispute>>(&object).await,
            _ => Ok(Vec::new()),
        }
    }

    async fn fetch(&self, stripe: &dyn StripeApi, awaited: Awaited) -> Result<(), FetchError> {
        let fetched = match stripe.balance_transaction(&awaited.transaction).await {
            Ok(fetched) => fetched,
            // What cannot be read today may be readable by a later version; it stays awaited, and is raised.
            Err(StripeApiError::Unreadable(error)) => {
                tracing::error!(transaction = %awaited.transaction, %error, "a balance transaction cannot be read");
                return Ok(());
            }
            Err(
                error @ (StripeApiError::Transport(_)
                | StripeApiError::Client(_)
                | StripeApiError::Unavailable(_)
                | StripeApiError::KeyReused
                | StripeApiError::Refused(_)),
            ) => return Err(error.into()),
        };
        let Some(transaction) = fetched else { return Ok(()) };
        let deliveries = of_balance_transaction(Some(&awaited.owner), transaction);
        match self.executor.deliver_all(deliveries, None, &acted_by(FETCHER_ACTOR)).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_transient() => Err(error.into()),
            Err(error) => {
                let error = with_causes(&error);
                tracing::error!(transaction = %awaited.transaction, error, "a fetched balance transaction was refused");
                metrics::counter!("fanledger_translator_refused_total").increment(1);
                Ok(())
            }
        }
    }
}

/// Whether an object may await something after an event of this type.
pub fn wants(event_type: &str) -> bool {
    matches!(
        event_type,
        ChargeObserved::TYPE
            | RefundObserved::TYPE
            | DisputeObserved::TYPE
            | TransferObserved::TYPE
            | PayoutObserved::TYPE
            | ApplicationFeeObserved::TYPE
            | TopupObserved::TYPE
    )
}

/// The span of asking Stripe; disabled unless the event that named the balance transaction was sampled.
fn fetch_span(parent: Option<TraceParent>) -> Span {
    let Some(parent) = parent else { return Span::none() };
    let span = tracing::debug_span!(target: trace::TARGET, parent: None, "fetch", otel.kind = "client");
    parent.adopt(&span);
    span
}

#[async_trait]
impl Projection for Fetcher {
    fn name(&self) -> &'static str {
        NAME
    }

    fn version(&self) -> u32 {
        1
    }

    fn schema(&self) -> Schema {
        Schema { create: "", views: &[] }
    }

    fn wants(&self, event_type: &str) -> bool {
        wants(event_type)
    }

    async fn apply(
        &mut self,
        batch: &[Arc<RecordedEvent>],
        effects: Effects,
        _: &mut PgConnection,
    ) -> Result<(), ApplyError> {
        self.step(batch, effects).await
    }
}
