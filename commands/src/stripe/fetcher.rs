//! Fetches balance transactions of which only the id is known. The answer is a fact, so that a replay never calls Stripe.
//!
//! A process manager of its own: while Stripe does not answer, it waits, and the translator does not. It has no state: what is
//! awaited is read off the object's stream. Without a key, or where Stripe has no such id or refuses to give it, nothing is held: the
//! object stays on the list of balance transactions awaited. A refusal of the key itself halts it, since all that follow would fare
//! the same.

use std::collections::BTreeMap;
use std::future::Future;
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
use futures::future::join_all;
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
pub const CONCURRENCY: usize = 16;

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
    Stripe(#[source] StripeApiError),
    /// Stripe will answer none.
    #[error(
        "fetch balance transactions: set it right, start the manager again, then run `fanledger projections resume {NAME}`"
    )]
    Key(#[source] StripeApiError),
}

impl FetchError {
    fn is_transient(&self) -> bool {
        match self {
            Self::Execute(error) => error.is_transient(),
            Self::Stripe(error) => error.may_pass(),
            Self::Key(_) => false,
        }
    }
}

impl From<FetchError> for ApplyError {
    /// The runner finds the event: that of a batch is not known here.
    fn from(error: FetchError) -> Self {
        Self { position: None, transient: error.is_transient(), source: Box::new(error) }
    }
}

/// A transaction that idles while Stripe is asked, and that Postgres takes back if it does for too long.
pub trait Idle: Send {
    /// Gives a sign of life.
    ///
    /// # Errors
    /// When the transaction is lost already.
    fn keep_awake(&mut self) -> impl Future<Output = Result<(), sqlx::Error>> + Send;
}

impl Idle for PgConnection {
    async fn keep_awake(&mut self) -> Result<(), sqlx::Error> {
        sqlx::query("SELECT").execute(self).await.map(drop)
    }
}

/// Where there is none.
impl Idle for () {
    async fn keep_awake(&mut self) -> Result<(), sqlx::Error> {
        Ok(())
    }
}

impl<S: Store> Fetcher<S> {
    /// A fetcher that asks `stripe`, where there is a key for it.
    pub const fn new(executor: Executor<S>, stripe: Option<Arc<dyn StripeApi>>) -> Self {
        Self { executor, stripe }
    }

    /// Asks for what the objects of a batch still await, where effects are live. Whatever idles meanwhile is kept awake: from one
    /// sign of life to the next so many requests are made as are under way at once.
    ///
    /// # Errors
    /// As [`Projection::apply`].
    pub async fn step(
        &self,
        batch: &[Arc<RecordedEvent>],
        effects: Effects,
        idle: &mut impl Idle,
    ) -> Result<(), ApplyError> {
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
        let mut awaited = awaited.into_iter().peekable();
        while awaited.peek().is_some() {
            idle.keep_awake().await?;
            let together = awaited
                .by_ref()
                .take(CONCURRENCY)
                .map(|(awaited, parent)| self.fetch(stripe.as_ref(), awaited).instrument(fetch_span(parent)));
            // Each is let come to its end, so that what was asked of Stripe is not dropped half-way for want of another.
            for fetched in join_all(together).await {
                fetched?;
            }
        }
        Ok(())
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
            // What cannot be read, or is refused, may not be by a later version; it stays awaited, and is raised.
            Err(
                error @ (StripeApiError::Unreadable(_)
                | StripeApiError::UnreadableList(_)
                | StripeApiError::BadRequest(_)
                | StripeApiError::KeyReused),
            ) => {
                let error = with_causes(&error);
                tracing::error!(transaction = %awaited.transaction, error, "a balance transaction cannot be had; it stays awaited");
                return Ok(());
            }
            Err(error @ (StripeApiError::Refused(_) | StripeApiError::Client(_))) => {
                return Err(FetchError::Key(error));
            }
            Err(error @ (StripeApiError::Transport(_) | StripeApiError::Unavailable(_))) => {
                return Err(FetchError::Stripe(error));
            }
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
        connection: &mut PgConnection,
    ) -> Result<(), ApplyError> {
        self.step(batch, effects, connection).await
    }
}
