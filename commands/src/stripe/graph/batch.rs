//! The two tables in Postgres, as one batch of the translator sees them: read a few times, many rows at once; changed in
//! memory; written at its end, in the transaction that also moves the checkpoint.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use fanledger_domain::id::{StripeId, StripeKind};
use sqlx::PgConnection;

use super::{Graph, GraphError, KnownSource, texts};

/// From a charge by its intent and invoice to the subscription and the checkout session.
const HOPS: usize = 3;

/// See the module. What is not written with [`BatchGraph::write`] is lost.
pub struct BatchGraph<'c> {
    connection: &'c mut PgConnection,
    /// All that is linked to an object, for the objects that were read.
    links: HashMap<StripeId, BTreeSet<StripeId>>,
    new_links: BTreeSet<(StripeId, StripeId)>,
    sources: HashMap<StripeId, Option<KnownSource>>,
    changed: BTreeSet<StripeId>,
}

impl<'c> BatchGraph<'c> {
    /// Over the connection that holds the batch's transaction.
    pub fn new(connection: &'c mut PgConnection) -> Self {
        Self {
            connection,
            links: HashMap::new(),
            new_links: BTreeSet::new(),
            sources: HashMap::new(),
            changed: BTreeSet::new(),
        }
    }

    /// Writes what changed.
    ///
    /// # Errors
    /// Postgres.
    pub async fn write(self) -> Result<(), GraphError> {
        if !self.new_links.is_empty() {
            sqlx::query(
                "INSERT INTO links (a, b)
                 SELECT l.a, l.b FROM unnest($1::text[], $2::text[]) AS l (a, b)
                 UNION ALL SELECT l.b, l.a FROM unnest($1::text[], $2::text[]) AS l (a, b)
                 ON CONFLICT DO NOTHING",
            )
            .bind(self.new_links.iter().map(|(a, _)| a.as_str()).collect::<Vec<_>>())
            .bind(self.new_links.iter().map(|(_, b)| b.as_str()).collect::<Vec<_>>())
            .execute(&mut *self.connection)
            .await?;
        }
        let changed: BTreeMap<_, _> =
            self.changed.iter().filter_map(|id| Some((id, self.sources.get(id)?.as_ref()?))).collect();
        if !changed.is_empty() {
            let sources = || changed.values();
            let stamps = sources().map(|source| serde_json::to_string(&source.stamp)).collect::<Result<Vec<_>, _>>()?;
            let offers =
                sources().map(|source| serde_json::to_string(&source.offers)).collect::<Result<Vec<_>, _>>()?;
            sqlx::query(
                "INSERT INTO sources (object, stamp, offers, ever_spoke)
                 SELECT s.object, s.stamp::json, s.offers::json, s.ever_spoke
                 FROM unnest($1::text[], $2::text[], $3::text[], $4::boolean[]) AS s (object, stamp, offers, ever_spoke)
                 ON CONFLICT (object) DO UPDATE
                 SET stamp = excluded.stamp, offers = excluded.offers, ever_spoke = excluded.ever_spoke",
            )
            .bind(changed.keys().map(|id| id.as_str()).collect::<Vec<_>>())
            .bind(stamps)
            .bind(offers)
            .bind(sources().map(|source| source.ever_spoke).collect::<Vec<_>>())
            .execute(&mut *self.connection)
            .await?;
        }
        Ok(())
    }

    async fn read_links(&mut self, objects: impl IntoIterator<Item = &StripeId>) -> Result<(), GraphError> {
        let missing: HashSet<&StripeId> =
            objects.into_iter().filter(|object| !self.links.contains_key(*object)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let rows: Vec<(String, String)> = sqlx::query_as("SELECT a, b FROM links WHERE a = ANY ($1)")
            .bind(missing.iter().map(|object| object.as_str()).collect::<Vec<_>>())
            .fetch_all(&mut *self.connection)
            .await?;
        let mut read: HashMap<StripeId, BTreeSet<StripeId>> =
            missing.into_iter().map(|object| (object.clone(), BTreeSet::new())).collect();
        for (a, b) in rows {
            read.entry(a.parse()?).or_default().insert(b.parse()?);
        }
        for (a, b) in self.new_links.iter().flat_map(|(a, b)| [(a, b), (b, a)]) {
            if let Some(linked) = read.get_mut(a) {
                linked.insert(b.clone());
            }
        }
        self.links.extend(read);
        Ok(())
    }

    async fn read_sources(&mut self, objects: &[StripeId]) -> Result<(), GraphError> {
        let missing: Vec<StripeId> =
            objects.iter().filter(|object| !self.sources.contains_key(*object)).cloned().collect();
        if missing.is_empty() {
            return Ok(());
        }
        let rows: Vec<(String, String, String, bool)> =
            sqlx::query_as("SELECT object, stamp::text, offers::text, ever_spoke FROM sources WHERE object = ANY ($1)")
                .bind(texts(&missing))
                .fetch_all(&mut *self.connection)
                .await?;
        self.sources.extend(missing.into_iter().map(|object| (object, None)));
        for (object, stamp, offers, ever_spoke) in rows {
            let known = KnownSource {
                stamp: serde_json::from_str(&stamp)?,
                offers: serde_json::from_str(&offers)?,
                ever_spoke,
            };
            self.sources.insert(object.parse()?, Some(known));
        }
        Ok(())
    }
}

impl Graph for BatchGraph<'_> {
    async fn expect(&mut self, objects: &[StripeId]) -> Result<(), GraphError> {
        // An account is linked to every transfer that it ever got: what is linked to it is read when it is asked for.
        let is_small = |object: &&StripeId| object.kind() != StripeKind::Account;
        let mut known: BTreeSet<StripeId> = objects.iter().cloned().collect();
        let mut next: Vec<StripeId> = objects.to_vec();
        for _ in 0..HOPS {
            self.read_links(next.iter().filter(is_small)).await?;
            let reached: BTreeSet<StripeId> =
                next.iter().filter(is_small).filter_map(|object| self.links.get(object)).flatten().cloned().collect();
            next = reached.difference(&known).cloned().collect();
            known.extend(next.iter().cloned());
        }
        self.read_sources(&known.into_iter().collect::<Vec<_>>()).await
    }

    async fn link(&mut self, from: &StripeId, to: &StripeId) -> Result<bool, GraphError> {
        if !self.links.contains_key(from) && !self.links.contains_key(to) {
            let smaller = if from.kind() == StripeKind::Account { to } else { from };
            self.read_links([smaller]).await?;
        }
        let has = |a: &StripeId, b: &StripeId| self.links.get(a).map(|linked| linked.contains(b));
        if has(from, to).or_else(|| has(to, from)).unwrap_or(false) {
            return Ok(false);
        }
        for (a, b) in [(from, to), (to, from)] {
            if let Some(linked) = self.links.get_mut(a) {
                linked.insert(b.clone());
            }
        }
        self.new_links.insert((from.clone(), to.clone()));
        Ok(true)
    }

    async fn neighbours(&mut self, objects: &[StripeId]) -> Result<Vec<StripeId>, GraphError> {
        self.read_links(objects).await?;
        let all: BTreeSet<&StripeId> = objects.iter().filter_map(|object| self.links.get(object)).flatten().collect();
        Ok(all.into_iter().cloned().collect())
    }

    async fn sources(&mut self, objects: &[StripeId]) -> Result<Vec<(StripeId, KnownSource)>, GraphError> {
        self.read_sources(objects).await?;
        let ordered: BTreeSet<&StripeId> = objects.iter().collect();
        let known = |object: &StripeId| self.sources.get(object)?.clone();
        Ok(ordered.into_iter().filter_map(|object| Some((object.clone(), known(object)?))).collect())
    }

    async fn put_source(&mut self, object: &StripeId, source: KnownSource) -> Result<(), GraphError> {
        self.sources.insert(object.clone(), Some(source));
        self.changed.insert(object.clone());
        Ok(())
    }
}
