//! `stripe_inbox`: each webhook and what became of it.
//!
//! A fact and an entry name the webhook that led to them in their metadata (`causation_id`), so their payloads are not read
//! here. What became of a webhook is told when somebody asks, because "not yet" and "nothing new in it" differ only in how far
//! the translator has come.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use fanledger_domain::event::{
    Event, NotTranslatedReason, ProjectionEventSkipped, ReceivedFlag, StripeEventBodyDiffered,
    StripeEventNotTranslated, StripeEventOpened, StripeEventReceived,
};
use fanledger_journal::event::{Metadata, Position, RecordedEvent};
use fanledger_journal::runner::{ApplyError, Effects, Projection, Schema};
use sqlx::PgConnection;

use crate::decode;

/// See the module.
#[derive(Debug)]
pub struct StripeInbox;

const CREATE: &str = r#"
-- `raised`: could not be read, was refused by the ledger in part or in whole, or came again with another body. Only a later word of the
-- translator's takes that back: facts do not, since another delivery of the same run, or what the webhook brought to other objects,
-- may well be accepted after one was refused. A word that the body was erased does not either: nothing was translated then.
-- `facts_position` and `reason_position` are those of the last fact and of the last word that there is none; the later one says
-- whether it is translated. That there is none (left) is no such word where it is all that was said: `no_facts` has no position.
CREATE TABLE stripe_inbox (
    event_id           text COLLATE "C" PRIMARY KEY,
    position           bigint NOT NULL,
    received_at        timestamptz NOT NULL,
    event_type         text,
    api_version        text,
    created            timestamptz,
    livemode           boolean,
    account            text,
    object             text,
    flag               text,
    differing_bodies   bigint NOT NULL DEFAULT 0,
    facts              bigint NOT NULL DEFAULT 0,
    entries            bigint NOT NULL DEFAULT 0,
    facts_position     bigint,
    reason             text,
    detail             text,
    translator_version integer,
    reason_position    bigint,
    raised             boolean NOT NULL GENERATED ALWAYS AS (
        differing_bodies > 0 OR coalesce(reason IN ('untranslatable', 'undecodable'), false)) STORED
)
-- Each row is updated once or twice soon after: beside itself, where there is room, and then no index is touched.
WITH (fillfactor = 70);

-- Who read a webhook's body, when and why.
CREATE TABLE stripe_event_openings (
    position  bigint PRIMARY KEY,
    event_id  text COLLATE "C" NOT NULL,
    opened_at timestamptz NOT NULL,
    opened_by text NOT NULL,
    reason    text NOT NULL
);
"#;

/// The primary key is not among them: updates go by it.
const INDEXES: &str = "
ALTER TABLE stripe_inbox ADD UNIQUE (position);
CREATE INDEX stripe_inbox_object ON stripe_inbox (object, position);
CREATE INDEX stripe_inbox_reason ON stripe_inbox (reason, position) WHERE reason IS NOT NULL;
CREATE INDEX stripe_inbox_raised ON stripe_inbox (position) WHERE raised;
CREATE INDEX stripe_event_openings_event ON stripe_event_openings (event_id, position);
";

/// What an event's type means to the inbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    Received,
    BodyDiffered,
    NotTranslated,
    Opened,
    Entry,
    Fact,
    Nothing,
}

fn meaning(event_type: &str) -> Meaning {
    match event_type {
        StripeEventReceived::TYPE => Meaning::Received,
        StripeEventBodyDiffered::TYPE => Meaning::BodyDiffered,
        StripeEventNotTranslated::TYPE => Meaning::NotTranslated,
        decode::ENTRY_POSTED => Meaning::Entry,
        StripeEventOpened::TYPE => Meaning::Opened,
        ProjectionEventSkipped::TYPE => Meaning::Nothing,
        // Every other type of the domain's is a fact, also one that a later version adds.
        _ => Meaning::Fact,
    }
}

#[async_trait]
impl Projection for StripeInbox {
    fn name(&self) -> &'static str {
        "stripe_inbox"
    }

    fn version(&self) -> u32 {
        2
    }

    fn schema(&self) -> Schema {
        Schema { create: CREATE, views: &["stripe_inbox", "stripe_event_openings"] }
    }

    fn indexes(&self) -> &'static str {
        INDEXES
    }

    fn wants(&self, event_type: &str) -> bool {
        meaning(event_type) != Meaning::Nothing
    }

    async fn apply(
        &mut self,
        batch: &[Arc<RecordedEvent>],
        _: Effects,
        connection: &mut PgConnection,
    ) -> Result<(), ApplyError> {
        let mut received = Vec::new();
        let mut changes: BTreeMap<String, Change> = BTreeMap::new();
        for recorded in batch {
            match meaning(&recorded.event_type) {
                Meaning::Nothing => {}
                Meaning::Received => match decode::event(recorded)? {
                    Event::StripeEventReceived(event) => {
                        received.push((recorded.position, recorded.recorded_at, event))
                    }
                    other => return Err(decode::unwanted(recorded, &other)),
                },
                Meaning::BodyDiffered => match decode::event(recorded)? {
                    Event::StripeEventBodyDiffered(event) => {
                        changes.entry(event.id.into()).or_default().differing_bodies += 1
                    }
                    other => return Err(decode::unwanted(recorded, &other)),
                },
                Meaning::NotTranslated => match decode::event(recorded)? {
                    Event::StripeEventNotTranslated(event) => {
                        changes.entry(event.id.to_string()).or_default().say(recorded.position, event);
                    }
                    other => return Err(decode::unwanted(recorded, &other)),
                },
                Meaning::Opened => match decode::event(recorded)? {
                    Event::StripeEventOpened(event) => opened(recorded.position, &event, connection).await?,
                    other => return Err(decode::unwanted(recorded, &other)),
                },
                Meaning::Fact => {
                    if let Some(cause) = cause(recorded)? {
                        let change = changes.entry(cause).or_default();
                        change.facts += 1;
                        change.facts_position = Some(recorded.position);
                    }
                }
                Meaning::Entry => {
                    if let Some(cause) = cause(recorded)? {
                        changes.entry(cause).or_default().entries += 1;
                    }
                }
            }
        }
        insert(&received, connection).await?;
        update(&changes, connection).await?;
        Ok(())
    }
}

/// One statement an event: people read slower than Postgres writes.
async fn opened(
    position: Position,
    opened: &StripeEventOpened,
    connection: &mut PgConnection,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO stripe_event_openings (position, event_id, opened_at, opened_by, reason) VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(position.as_i64())
    .bind(opened.id.as_str())
    .bind(opened.at.to_chrono())
    .bind(opened.by.as_str())
    .bind(&opened.reason)
    .execute(connection)
    .await?;
    Ok(())
}

/// What led to an event: a webhook's id, or something that is none of ours here, which then matches no row.
fn cause(recorded: &RecordedEvent) -> Result<Option<String>, ApplyError> {
    let metadata: Metadata = serde_json::from_str(&recorded.metadata)
        .map_err(|error| ApplyError::poison(recorded.position, BadMetadata(error)))?;
    Ok(metadata.causation_id)
}

#[derive(Debug, thiserror::Error)]
#[error("the event's metadata is not a flat JSON object of strings")]
struct BadMetadata(#[source] serde_json::Error);

/// Where the word is that a webhook led to no facts. `no_facts` of one that has some says that there are no more.
fn reason_position(position: Position, reason: NotTranslatedReason) -> Option<i64> {
    (reason != NotTranslatedReason::NoFacts).then(|| position.as_i64())
}

/// What a batch says about a webhook that is there.
#[derive(Default)]
struct Change {
    differing_bodies: i64,
    facts: i64,
    facts_position: Option<Position>,
    entries: i64,
    not_translated: Option<(Position, StripeEventNotTranslated)>,
    /// Whether one of its words came of a body that could be opened.
    is_judged: bool,
}

impl Change {
    /// A later word of the translator's replaces the former one; that of an erased body replaces none that is raised.
    fn say(&mut self, position: Position, word: StripeEventNotTranslated) {
        let is_raised = |(_, said): &(Position, StripeEventNotTranslated)| is_raised(said.reason);
        let is_judged = word.reason != NotTranslatedReason::Erased;
        if is_judged || !self.not_translated.as_ref().is_some_and(is_raised) {
            self.not_translated = Some((position, word));
        }
        self.is_judged |= is_judged;
    }
}

/// Whether somebody should look. The table says the same.
const fn is_raised(reason: NotTranslatedReason) -> bool {
    match reason {
        NotTranslatedReason::Untranslatable | NotTranslatedReason::Undecodable => true,
        NotTranslatedReason::UnusedType
        | NotTranslatedReason::OtherMode
        | NotTranslatedReason::ConnectedAccount
        | NotTranslatedReason::ThinEvent
        | NotTranslatedReason::NoFacts
        | NotTranslatedReason::Erased => false,
    }
}

const fn flag(flag: ReceivedFlag) -> &'static str {
    match flag {
        ReceivedFlag::Undecodable => "undecodable",
        ReceivedFlag::Incomplete => "incomplete",
        ReceivedFlag::Thin => "thin",
    }
}

async fn insert(
    received: &[(Position, DateTime<Utc>, StripeEventReceived)],
    connection: &mut PgConnection,
) -> Result<(), sqlx::Error> {
    if received.is_empty() {
        return Ok(());
    }
    let events = || received.iter().map(|(_, _, event)| event);
    sqlx::query(
        "INSERT INTO stripe_inbox (event_id, position, received_at, event_type, api_version, created, livemode, account, object, flag)
         SELECT * FROM unnest($1::text[], $2::bigint[], $3::timestamptz[], $4::text[], $5::text[], $6::timestamptz[], $7::boolean[],
             $8::text[], $9::text[], $10::text[])",
    )
    .bind(events().map(|event| event.id.as_str()).collect::<Vec<_>>())
    .bind(received.iter().map(|(position, ..)| position.as_i64()).collect::<Vec<_>>())
    .bind(received.iter().map(|(_, at, _)| *at).collect::<Vec<_>>())
    .bind(events().map(|event| event.event_type.as_deref()).collect::<Vec<_>>())
    .bind(events().map(|event| event.api_version.as_deref()).collect::<Vec<_>>())
    .bind(events().map(|event| event.created.map(|at| at.to_chrono())).collect::<Vec<_>>())
    .bind(events().map(|event| event.livemode).collect::<Vec<_>>())
    .bind(events().map(|event| event.account.as_ref().map(|id| id.as_str())).collect::<Vec<_>>())
    .bind(events().map(|event| event.object.as_ref().map(|id| id.as_str())).collect::<Vec<_>>())
    .bind(events().map(|event| event.flag.map(flag)).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

/// As [`Change::say`], with what was said before this batch.
async fn update(changes: &BTreeMap<String, Change>, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    if changes.is_empty() {
        return Ok(());
    }
    let all = || changes.values();
    let said = || all().map(|change| change.not_translated.as_ref());
    // Whether the batch's last word takes the place of what was said before the batch.
    const HOLDS: &str =
        "d.reason IS NOT NULL AND (d.is_judged OR coalesce(i.reason NOT IN ('untranslatable', 'undecodable'), true))";
    sqlx::query(&format!(
        "UPDATE stripe_inbox AS i
         SET differing_bodies = i.differing_bodies + d.differing_bodies,
             facts = i.facts + d.facts,
             facts_position = coalesce(d.facts_position, i.facts_position),
             entries = i.entries + d.entries,
             reason = CASE WHEN {HOLDS} THEN d.reason ELSE i.reason END,
             detail = CASE WHEN {HOLDS} THEN d.detail ELSE i.detail END,
             translator_version = CASE WHEN {HOLDS} THEN d.translator_version ELSE i.translator_version END,
             reason_position = CASE WHEN {HOLDS} THEN d.reason_position ELSE i.reason_position END
         FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::text[], $7::text[], $8::integer[],
                 $9::bigint[], $10::boolean[])
             AS d (event_id, differing_bodies, facts, facts_position, entries, reason, detail, translator_version, reason_position,
                   is_judged)
         WHERE i.event_id = d.event_id"
    ))
    .bind(changes.keys().collect::<Vec<_>>())
    .bind(all().map(|change| change.differing_bodies).collect::<Vec<_>>())
    .bind(all().map(|change| change.facts).collect::<Vec<_>>())
    .bind(all().map(|change| change.facts_position.map(Position::as_i64)).collect::<Vec<_>>())
    .bind(all().map(|change| change.entries).collect::<Vec<_>>())
    .bind(said().map(|said| said.map(|(_, event)| event.reason.as_str())).collect::<Vec<_>>())
    .bind(said().map(|said| said.map(|(_, event)| event.detail.as_str())).collect::<Vec<_>>())
    .bind(said().map(|said| said.map(|(_, event)| event.translator_version.cast_signed())).collect::<Vec<_>>())
    .bind(said().map(|said| said.and_then(|(position, event)| reason_position(*position, event.reason))).collect::<Vec<_>>())
    .bind(all().map(|change| change.is_judged).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use fanledger_domain::event::EVENT_TYPES;

    use super::*;

    #[test]
    fn only_these_are_no_facts() {
        let others: Vec<_> =
            EVENT_TYPES.iter().map(|(name, _)| *name).filter(|name| meaning(name) != Meaning::Fact).collect();
        assert_eq!(
            others,
            [
                "StripeEventReceived",
                "StripeEventBodyDiffered",
                "StripeEventNotTranslated",
                "EntryPosted",
                "ProjectionEventSkipped",
                "StripeEventOpened"
            ]
        );
    }
}
