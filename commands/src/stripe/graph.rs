//! Which objects at Stripe belong together, and what each says about whose money a charge is: the translator's state.
//!
//! Rebuilt from events, never from bodies. Two tables: links, in both directions, and for each source the newest snapshot of
//! what it says. A charge is reached from its payment intent and its invoice; from those, the checkout session and the
//! invoice's subscription. Any of them may come first, hours apart.
//!
//! What follows from the tables is decided here; reading and writing them is a [`Graph`]'s, so that the simulator decides by the
//! same code over tables in memory.

mod batch;

use std::collections::BTreeSet;
use std::future::Future;

use fanledger_domain::facts::{EventStamp, Offer, OfferRank, SourceOffer};
use fanledger_domain::id::{IdError, StripeId, StripeKind};

pub use batch::BatchGraph;

/// The tables, in the generation's schema.
pub const TABLES: &str = "
CREATE TABLE links (
    a text COLLATE \"C\" NOT NULL,
    b text COLLATE \"C\" NOT NULL,
    PRIMARY KEY (a, b)
);
CREATE TABLE sources (
    object text COLLATE \"C\" PRIMARY KEY,
    -- The newest snapshot's stamp and what it says, as JSON.
    stamp json NOT NULL,
    offers json NOT NULL,
    -- Whether any snapshot ever said something: a source that fell silent must be heard, one that always was need not.
    ever_spoke boolean NOT NULL
);
";

/// Why the state could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum GraphError {
    /// Postgres.
    #[error("read or write the translator's state")]
    Database(#[from] sqlx::Error),
    /// What was written before cannot be read.
    #[error("read back the translator's state")]
    Json(#[from] serde_json::Error),
    /// An id that is none.
    #[error("read back the translator's state")]
    Id(#[from] IdError),
}

/// What a source says, with the stamp of the snapshot that says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// The source.
    pub object: StripeId,
    /// Which snapshot.
    pub stamp: EventStamp,
    /// One offer for each rank.
    pub offer: SourceOffer,
}

/// A row of `sources`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownSource {
    /// The newest snapshot's stamp.
    pub stamp: EventStamp,
    /// What it says.
    pub offers: Vec<SourceOffer>,
    /// Whether any snapshot ever said something.
    pub ever_spoke: bool,
}

/// The two tables, of one generation.
pub trait Graph: Send {
    /// These objects are about to be asked for, and what is linked to them: a chance to read them together.
    fn expect(&mut self, objects: &[StripeId]) -> impl Future<Output = Result<(), GraphError>> + Send;

    /// Notes that two objects belong together; false where it was known.
    fn link(&mut self, from: &StripeId, to: &StripeId) -> impl Future<Output = Result<bool, GraphError>> + Send;

    /// What is linked to any of `objects`, in byte order, each once.
    fn neighbours(&mut self, objects: &[StripeId]) -> impl Future<Output = Result<Vec<StripeId>, GraphError>> + Send;

    /// What is known of these sources, by id in byte order.
    fn sources(
        &mut self,
        objects: &[StripeId],
    ) -> impl Future<Output = Result<Vec<(StripeId, KnownSource)>, GraphError>> + Send;

    /// Replaces what is known of a source.
    fn put_source(
        &mut self,
        object: &StripeId,
        source: KnownSource,
    ) -> impl Future<Output = Result<(), GraphError>> + Send;
}

/// Notes what a source says, where the snapshot is the newest; gives back whether that changes what charges are to be told.
pub async fn observe(
    graph: &mut impl Graph,
    object: &StripeId,
    stamp: &EventStamp,
    offers: &[SourceOffer],
) -> Result<bool, GraphError> {
    let known = graph.sources(std::slice::from_ref(object)).await?.pop();
    let (newest, said, ever_spoke) = match known {
        None => (None, Vec::new(), false),
        Some((_, KnownSource { stamp, offers, ever_spoke })) => (Some(stamp), offers, ever_spoke),
    };
    if newest.is_some_and(|newest| (&newest, said.as_slice()) >= (stamp, offers)) {
        return Ok(false);
    }
    let ever_spoke = ever_spoke || offers.iter().any(speaks);
    let news = KnownSource { stamp: stamp.clone(), offers: offers.to_vec(), ever_spoke };
    graph.put_source(object, news).await?;
    Ok(said != offers)
}

/// Whether a charge that never heard of the source would learn anything: an attribution, a tax, or that there is an invoice.
fn speaks(offer: &SourceOffer) -> bool {
    offer.offer != Offer::Silent || offer.tax_minor.is_some() || offer.rank == OfferRank::Invoice
}

/// What all sources that reach `object` (a charge, transfer or application fee) say.
pub async fn said_to(graph: &mut impl Graph, object: &StripeId) -> Result<Vec<Said>, GraphError> {
    let mut sources = BTreeSet::new();
    let nearest = neighbours(graph, std::slice::from_ref(object)).await?;
    let accounts = of_kind(&nearest, StripeKind::Account);
    let intents = of_kind(&nearest, StripeKind::PaymentIntent);
    let by_intent = neighbours(graph, &intents).await?;
    let invoices = [of_kind(&nearest, StripeKind::Invoice), of_kind(&by_intent, StripeKind::Invoice)].concat();
    let by_invoice = neighbours(graph, &invoices).await?;
    sources.extend(accounts);
    sources.extend(intents);
    sources.extend(invoices);
    sources.extend(of_kind(&by_intent, StripeKind::CheckoutSession));
    sources.extend(of_kind(&by_invoice, StripeKind::CheckoutSession));
    sources.extend(of_kind(&by_invoice, StripeKind::Subscription));
    said_by(graph, &sources.into_iter().collect::<Vec<_>>()).await
}

/// What these sources say, as far as it is worth a charge's hearing.
pub async fn said_by(graph: &mut impl Graph, sources: &[StripeId]) -> Result<Vec<Said>, GraphError> {
    let mut all = Vec::new();
    for (object, KnownSource { stamp, offers, ever_spoke }) in graph.sources(sources).await? {
        for offer in offers {
            if ever_spoke || speaks(&offer) {
                all.push(Said { object: object.clone(), stamp: stamp.clone(), offer });
            }
        }
    }
    Ok(all)
}

/// The charges, transfers and application fees that `object` reaches; itself where it is one.
pub async fn reached_from(graph: &mut impl Graph, object: &StripeId) -> Result<Vec<StripeId>, GraphError> {
    let start = vec![object.clone()];
    let direct = neighbours(graph, &start).await?;
    let (invoices, mut intents) = match object.kind() {
        StripeKind::Charge | StripeKind::Transfer | StripeKind::ApplicationFee => return Ok(start),
        StripeKind::Account => {
            return Ok([of_kind(&direct, StripeKind::Transfer), of_kind(&direct, StripeKind::ApplicationFee)].concat());
        }
        StripeKind::PaymentIntent => (Vec::new(), start),
        StripeKind::Invoice => (start, Vec::new()),
        StripeKind::Subscription => (of_kind(&direct, StripeKind::Invoice), Vec::new()),
        StripeKind::CheckoutSession => {
            (of_kind(&direct, StripeKind::Invoice), of_kind(&direct, StripeKind::PaymentIntent))
        }
        StripeKind::Refund
        | StripeKind::Dispute
        | StripeKind::TransferReversal
        | StripeKind::Payout
        | StripeKind::FeeRefund
        | StripeKind::Topup
        | StripeKind::BalanceTransaction
        | StripeKind::Other => return Ok(Vec::new()),
    };
    let by_invoice = neighbours(graph, &invoices).await?;
    intents.extend(of_kind(&by_invoice, StripeKind::PaymentIntent));
    let by_intent = neighbours(graph, &intents).await?;
    let mut reached = BTreeSet::new();
    reached.extend(of_kind(&by_invoice, StripeKind::Charge));
    reached.extend(of_kind(&by_intent, StripeKind::Charge));
    Ok(reached.into_iter().collect())
}

/// The objects of one kind that are linked to `object`.
pub async fn linked(graph: &mut impl Graph, object: &StripeId, kind: StripeKind) -> Result<Vec<StripeId>, GraphError> {
    Ok(of_kind(&neighbours(graph, std::slice::from_ref(object)).await?, kind))
}

async fn neighbours(graph: &mut impl Graph, objects: &[StripeId]) -> Result<Vec<StripeId>, GraphError> {
    if objects.is_empty() { Ok(Vec::new()) } else { graph.neighbours(objects).await }
}

fn texts(objects: &[StripeId]) -> Vec<&str> {
    objects.iter().map(StripeId::as_str).collect()
}

fn of_kind(objects: &[StripeId], kind: StripeKind) -> Vec<StripeId> {
    objects.iter().filter(|object| object.kind() == kind).cloned().collect()
}
