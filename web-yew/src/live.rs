//! How far the projections are, told by the gateway as it happens (`GET /api/v1/stream`).
//!
//! `EventSource` cannot send the token, so the stream is read by hand. It tells a state and not a history, so it is asked from its
//! beginning each time: with `Last-Event-ID` the gateway would be silent where the common position has not moved meanwhile.

use std::rc::Rc;

use gloo::timers::callback::Timeout;
use gloo::timers::future::TimeoutFuture;
use serde_json::Value;
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::{JsFuture, spawn_local};
use web_sys::{AbortController, AbortSignal, ReadableStreamDefaultReader};
use yew::prelude::*;

use crate::client::{ApiError, Client};
use crate::hooks::use_interval;
use crate::session;

/// Between two attempts: at first, and at most.
const PAUSE_MS: (u32, u32) = (1_000, 15_000);
/// The gateway says something every 15 seconds, if only that it is there.
const SILENCE_MS: u32 = 40_000;
/// So long one must have stood still behind the others to be named. One that is at work has moved by then.
const STANDS_SECONDS: u64 = 3;
/// How often that is looked at.
const LOOK_MS: u32 = 1_000;

/// One server-sent event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerEvent {
    /// Its id: here a position.
    pub id: Option<String>,
    /// Its name.
    pub event: Option<String>,
    /// Its data.
    pub data: String,
}

/// Puts events together from pieces (WHATWG HTML, "Interpreting an event stream"), as far as our gateway writes them.
#[derive(Debug, Default)]
pub struct EventParser {
    pending: Vec<u8>,
}

impl EventParser {
    /// Takes a piece, and answers the events that it completes.
    pub fn push(&mut self, piece: &[u8]) -> Vec<ServerEvent> {
        self.pending.extend_from_slice(piece);
        let mut events = Vec::new();
        while let Some(end) = self.pending.windows(2).position(|pair| pair == b"\n\n") {
            let block: Vec<u8> = self.pending.drain(..end + 2).collect();
            events.extend(Self::event(&String::from_utf8_lossy(&block)));
        }
        events
    }

    /// `None` for a block of comments alone, which only keeps the connection open.
    fn event(block: &str) -> Option<ServerEvent> {
        let mut event = ServerEvent::default();
        let mut says_something = false;
        for line in block.lines() {
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "id" => event.id = Some(value.to_owned()),
                "event" => event.event = Some(value.to_owned()),
                "data" => {
                    if !event.data.is_empty() {
                        event.data.push('\n');
                    }
                    event.data.push_str(value);
                }
                _ => continue,
            }
            says_something = true;
        }
        says_something.then_some(event)
    }
}

/// A `position` event of the gateway's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Every projection has reached this position.
    pub position: u64,
    /// Each projection's own, in the order of their names.
    pub projections: Vec<(String, u64)>,
}

impl Told {
    /// Of an event's data; `None` where it is something else.
    fn of_data(data: &str) -> Option<Self> {
        // Read as what is read elsewhere, too: a map of a kind of its own would cost as much as a page.
        let data: Value = serde_json::from_str(data).ok()?;
        let each = data.get("projections")?.as_object()?.iter();
        let projections = each.map(|(name, position)| Some((name.clone(), position.as_u64()?)));
        Some(Self { position: data.get("position")?.as_u64()?, projections: projections.collect::<Option<_>>()? })
    }

    fn furthest(&self) -> u64 {
        self.projections.iter().map(|(_, position)| *position).max().unwrap_or_default()
    }
}

/// One that is behind the others.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Behind {
    name: String,
    position: u64,
    /// Since when it has stood there, in seconds since 1970.
    since: u64,
}

/// Where the projections are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Live {
    told: Option<Rc<Told>>,
    is_heard: bool,
    behind: Vec<Behind>,
    holding_back: Vec<String>,
}

/// What is heard of the gateway, or not. Times are in seconds since 1970.
#[derive(Clone, Debug)]
pub enum Heard {
    /// An event, and when.
    Event(Told, u64),
    /// Nothing new, and it is so late.
    Nothing(u64),
    /// That it cannot be heard.
    Lost,
    /// That nobody listens any more: whoever signs in next has not been told anything.
    Left,
}

impl Live {
    /// What was told last. It changes whenever any projection advances, also while another holds the common position back.
    pub fn told(&self) -> Option<&Rc<Told>> {
        self.told.as_ref()
    }

    /// The position that every projection has reached, as far as it is known.
    pub fn position(&self) -> Option<u64> {
        self.told.as_ref().map(|told| told.position)
    }

    /// Where those are that are furthest.
    pub fn furthest(&self) -> u64 {
        self.told.as_ref().map_or(0, |told| told.furthest())
    }

    /// Whether that is as of now.
    pub fn is_heard(&self) -> bool {
        self.is_heard
    }

    /// Those that have stood still for a while, behind the others. Whoever is behind for a moment is only at work.
    pub fn holding_back(&self) -> &[String] {
        &self.holding_back
    }

    fn judged(mut self, now: u64) -> Self {
        let stands = self.behind.iter().filter(|behind| now.saturating_sub(behind.since) >= STANDS_SECONDS);
        self.holding_back = stands.map(|behind| behind.name.clone()).collect();
        self
    }
}

impl Reducible for Live {
    type Action = Heard;

    fn reduce(self: Rc<Self>, heard: Heard) -> Rc<Self> {
        let live = (*self).clone();
        Rc::new(match heard {
            Heard::Event(told, now) => {
                let furthest = told.furthest();
                let slower = told.projections.iter().filter(|(_, position)| *position < furthest);
                let behind = slower.map(|(name, position)| {
                    let stood = live.behind.iter().find(|before| before.name == *name && before.position == *position);
                    Behind { name: name.clone(), position: *position, since: stood.map_or(now, |before| before.since) }
                });
                Self { behind: behind.collect(), told: Some(Rc::new(told)), is_heard: true, ..Self::default() }
                    .judged(now)
            }
            Heard::Nothing(now) => live.judged(now),
            Heard::Lost => Self { is_heard: false, ..live },
            Heard::Left => Self::default(),
        })
    }
}

/// Follows the stream while `wanted`, and answers where the projections are.
#[hook]
pub fn use_stream(client: &Client, wanted: bool) -> Live {
    let live = use_reducer_eq(Live::default);
    let heard = live.dispatcher();
    use_effect_with((client.clone(), wanted), move |(client, wanted)| {
        let stop = wanted.then(AbortController::new).and_then(Result::ok);
        if let Some(stop) = &stop {
            spawn_local(follow(client.clone(), stop.signal(), heard.clone()));
        }
        move || {
            if let Some(stop) = stop {
                stop.abort();
                heard.dispatch(Heard::Left);
            }
        }
    });
    // One that stands still says nothing.
    let look = live.dispatcher();
    let look = Callback::from(move |()| look.dispatch(Heard::Nothing(session::now())));
    use_interval(LOOK_MS, !live.behind.is_empty(), look);
    (*live).clone()
}

async fn follow(client: Client, until: AbortSignal, heard: UseReducerDispatcher<Live>) {
    let mut pause_ms = PAUSE_MS.0;
    while !until.aborted() {
        match client.stream(&until).await {
            Ok(response) => {
                pause_ms = PAUSE_MS.0;
                if let Some(body) = response.body() {
                    read(&body.get_reader().unchecked_into(), &heard).await;
                }
            }
            Err(ApiError::SignedOut) => return,
            Err(ApiError::Refused(_) | ApiError::Unreachable | ApiError::Unreadable { .. }) => {
                pause_ms = (pause_ms * 2).min(PAUSE_MS.1);
            }
        }
        if until.aborted() {
            return;
        }
        heard.dispatch(Heard::Lost);
        TimeoutFuture::new(pause_ms).await;
    }
}

/// Until the stream ends, for whatever reason.
async fn read(reader: &ReadableStreamDefaultReader, heard: &UseReducerDispatcher<Live>) {
    let mut parser = EventParser::default();
    loop {
        // A connection that died without a word, as of a machine that slept, is taken for one that ended.
        let own = reader.clone();
        let silence = Timeout::new(SILENCE_MS, move || drop(own.cancel()));
        let Ok(chunk) = JsFuture::from(reader.read()).await else { return };
        silence.cancel();
        let value = js_sys::Reflect::get(&chunk, &JsValue::from_str("value")).unwrap_or(JsValue::UNDEFINED);
        let Ok(bytes) = value.dyn_into::<js_sys::Uint8Array>() else { return };
        for event in parser.push(&bytes.to_vec()) {
            if let Some(told) = Told::of_data(&event.data) {
                heard.dispatch(Heard::Event(told, session::now()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_together_from_any_pieces() {
        let stream = ":\n\nid: 17\nevent: position\nretry: 1000\ndata: {\"position\":17}\n\n: keep-alive\n\nid:18\ndata:a\ndata: b\n\n";
        let whole = EventParser::default().push(stream.as_bytes());
        assert_eq!(
            whole,
            [
                ServerEvent {
                    id: Some("17".to_owned()),
                    event: Some("position".to_owned()),
                    data: "{\"position\":17}".to_owned()
                },
                ServerEvent { id: Some("18".to_owned()), event: None, data: "a\nb".to_owned() },
            ]
        );
        for size in 1..stream.len() {
            let mut parser = EventParser::default();
            let pieces: Vec<ServerEvent> =
                stream.as_bytes().chunks(size).flat_map(|piece| parser.push(piece)).collect();
            assert_eq!(pieces, whole, "in pieces of {size}");
        }
    }

    /// `balances` and `suspense` are there.
    fn told(balances: u64, suspense: u64) -> Told {
        let projections = [("balances".to_owned(), balances), ("suspense".to_owned(), suspense)];
        Told { position: balances.min(suspense), projections: projections.into() }
    }

    fn after(heard: impl IntoIterator<Item = Heard>) -> Live {
        let live = heard.into_iter().fold(Rc::new(Live::default()), |live, heard| live.reduce(heard));
        (*live).clone()
    }

    #[test]
    fn a_position_event_of_the_gateway_is_read() {
        let data = r#"{"position":5,"projections":{"balances":9,"suspense":5},"added_later":true}"#;
        assert_eq!(Told::of_data(data), Some(told(9, 5)));
        assert_eq!(Told::of_data("{}"), None);
    }

    #[test]
    fn an_advance_behind_one_that_stands_still_is_an_advance() {
        let before = after([Heard::Event(told(5, 5), 100)]);
        let then = after([Heard::Event(told(5, 5), 100), Heard::Event(told(9, 5), 101)]);
        assert_eq!((before.position(), then.position(), then.furthest()), (Some(5), Some(5), 9));
        assert_ne!(before.told(), then.told());
    }

    #[test]
    fn who_stands_still_behind_the_others_is_named_after_a_while() {
        let first = Heard::Event(told(9, 5), 100);
        assert!(after([first.clone()]).holding_back().is_empty());
        assert!(after([first.clone(), Heard::Nothing(102)]).holding_back().is_empty());
        assert_eq!(after([first.clone(), Heard::Nothing(103)]).holding_back(), ["suspense"]);
        // The others go on: it stands since it was first seen there.
        assert_eq!(after([first.clone(), Heard::Event(told(12, 5), 104)]).holding_back(), ["suspense"]);
        // It moves, so it is at work.
        assert!(after([first.clone(), Heard::Event(told(12, 8), 104)]).holding_back().is_empty());
        let caught_up = [first, Heard::Nothing(103), Heard::Event(told(12, 12), 104), Heard::Nothing(200)];
        assert!(after(caught_up).holding_back().is_empty());
    }

    #[test]
    fn a_lost_connection_keeps_what_was_told() {
        assert_eq!(after([Heard::Lost]), Live::default());
        let lost = after([Heard::Event(told(3, 3), 1), Heard::Lost]);
        assert_eq!((lost.position(), lost.is_heard()), (Some(3), false));
        let again = after([Heard::Event(told(3, 3), 1), Heard::Lost, Heard::Event(told(3, 3), 9)]);
        assert_eq!((again.position(), again.is_heard()), (Some(3), true));
        assert_eq!(after([Heard::Event(told(3, 3), 1), Heard::Left]), Live::default());
    }
}
