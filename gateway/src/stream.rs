//! `GET /api/v1/stream`: server-sent events that say how far the projections have come, so that a client knows when to ask
//! again instead of asking all the time.
//!
//! The stream tells a state, not a history: a client that was away is told where things stand now, and that suffices.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use axum::extract::{Extension, State};
use axum::http::HeaderMap;
use axum::response::IntoResponse;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures::Stream;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use crate::auth::Caller;
use crate::health::PROJECTIONS;
use crate::problem::{Kind, Problem};
use crate::progress::Positions;
use crate::state::Queries;

/// Often enough that proxies do not take the connection for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How long a client waits before it comes again, in the first event.
const RETRY: Duration = Duration::from_secs(1);

/// The data of a `position` event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct PositionEvent {
    /// Every projection has reached this journal position; the event's id.
    pub position: u64,
    /// Each projection's own.
    pub projections: BTreeMap<String, u64>,
}

impl PositionEvent {
    /// `None` until all of them have begun.
    fn of(seen: &Positions) -> Option<Self> {
        let each = |name: &&str| Some(((*name).to_owned(), *seen.get(*name)?));
        let projections: BTreeMap<String, u64> = PROJECTIONS.iter().map(each).collect::<Option<_>>()?;
        Some(Self { position: projections.values().copied().min()?, projections })
    }
}

struct Following {
    seen: watch::Receiver<Positions>,
    told: Option<PositionEvent>,
    last_event_id: Option<u64>,
    stopping: CancellationToken,
    ends: tokio::time::Instant,
    _permit: OwnedSemaphorePermit,
    _gauge: Gauge,
}

struct Gauge;

impl Gauge {
    fn raise() -> Self {
        metrics::gauge!("fanledger_gateway_streams").increment(1);
        Self
    }
}

impl Drop for Gauge {
    fn drop(&mut self) {
        metrics::gauge!("fanledger_gateway_streams").decrement(1);
    }
}

impl Following {
    /// The next event; `None` when the token has expired, or the gateway stops.
    async fn next(&mut self) -> Option<Event> {
        loop {
            let now = PositionEvent::of(&self.seen.borrow_and_update());
            if let Some(now) = now.filter(|now| self.told.as_ref() != Some(now)) {
                let first = self.told.is_none();
                self.told = Some(now.clone());
                // A client that comes again and has missed nothing is not told again.
                if !(first && self.last_event_id == Some(now.position)) {
                    let event = Event::default().id(now.position.to_string()).event("position").retry(RETRY);
                    return event.json_data(&now).ok();
                }
            }
            tokio::select! {
                changed = self.seen.changed() => changed.ok()?,
                () = self.stopping.cancelled() => return None,
                () = tokio::time::sleep_until(self.ends) => return None,
            }
        }
    }
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(header) = headers.get("last-event-id") else { return Ok(None) };
    match header.to_str().ok().map(str::trim) {
        Some("") => Ok(None),
        Some(text) if text.parse::<u64>().is_ok() => Ok(text.parse().ok()),
        _ => Err(Problem::new(Kind::ParametersInvalid, "The header Last-Event-ID is not valid.")
            .with_error("Last-Event-ID", "expected a journal position, as the events of this stream have it")),
    }
}

/// Follows the projections.
///
/// Sends a `position` event at once and whenever a projection advances. The event's id is the journal position that all of
/// them have reached; `Last-Event-ID` resumes. The stream ends when the token expires.
#[utoipa::path(
    get, path = "/api/v1/stream", tag = "live", operation_id = "stream",
    params(("Last-Event-ID" = Option<u64>, Header, description = "The id of the last event that was seen")),
    responses((status = 200, description = "Events named `position`; their data is a PositionEvent.", body = PositionEvent, content_type = "text/event-stream"))
)]
pub(crate) async fn stream(
    State(queries): State<Queries>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
) -> Result<impl IntoResponse, Problem> {
    let last_event_id = last_event_id(&headers)?;
    let permit = queries.streams.clone().try_acquire_owned();
    let permit =
        permit.map_err(|_| Problem::new(Kind::Overloaded, "Too many streams are open.").retry_after_seconds(5))?;
    let following = Following {
        seen: queries.progress.subscribe(),
        told: None,
        last_event_id,
        stopping: queries.stopping.clone(),
        ends: tokio::time::Instant::now() + caller.remaining(),
        _permit: permit,
        _gauge: Gauge::raise(),
    };
    let events = futures::stream::unfold(following, |mut following| async move {
        let event = following.next().await?;
        Some((Ok::<Event, Infallible>(event), following))
    });
    Ok(with_keep_alive(events))
}

fn with_keep_alive<S: Stream<Item = Result<Event, Infallible>> + Send + 'static>(events: S) -> impl IntoResponse {
    // Proxies that buffer would hold events back (nginx reads this header).
    ([("x-accel-buffering", "no")], Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}
