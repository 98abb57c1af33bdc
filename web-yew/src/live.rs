//! How far the projections are, told by the gateway as it happens (`GET /api/v1/stream`).
//!
//! `EventSource` cannot send the token, so the stream is read by hand.

use std::rc::Rc;

use gloo::timers::future::TimeoutFuture;
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::{JsFuture, spawn_local};
use web_sys::{AbortController, AbortSignal, ReadableStreamDefaultReader};
use yew::prelude::*;

use crate::client::{ApiError, Client};

/// Between two attempts: at first, and at most.
const PAUSE_MS: (u32, u32) = (1_000, 15_000);

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

/// Where all projections are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Live {
    /// Not known yet.
    #[default]
    Unknown,
    /// Here, as of now.
    At(u64),
    /// Here when the gateway was last heard.
    Lost(u64),
}

impl Live {
    /// The last position that was told.
    pub fn position(&self) -> Option<u64> {
        match self {
            Self::Unknown => None,
            Self::At(position) | Self::Lost(position) => Some(*position),
        }
    }
}

impl Reducible for Live {
    /// A position, or that nothing is heard.
    type Action = Option<u64>;

    fn reduce(self: Rc<Self>, told: Option<u64>) -> Rc<Self> {
        Rc::new(match (told, self.position()) {
            (Some(position), _) => Self::At(position),
            (None, Some(position)) => Self::Lost(position),
            (None, None) => Self::Unknown,
        })
    }
}

/// Follows the stream while `wanted`, and answers where the projections are.
#[hook]
pub fn use_stream(client: &Client, wanted: bool) -> Live {
    let live = use_reducer(Live::default);
    let told = live.dispatcher();
    use_effect_with((client.clone(), wanted), move |(client, wanted)| {
        let stop = wanted.then(AbortController::new).and_then(Result::ok);
        if let Some(stop) = &stop {
            spawn_local(follow(client.clone(), stop.signal(), told));
        }
        move || {
            if let Some(stop) = stop {
                stop.abort();
            }
        }
    });
    (*live).clone()
}

async fn follow(client: Client, until: AbortSignal, told: UseReducerDispatcher<Live>) {
    let mut last = None;
    let mut pause_ms = PAUSE_MS.0;
    while !until.aborted() {
        match client.stream(last, &until).await {
            Ok(response) => {
                pause_ms = PAUSE_MS.0;
                if let Some(body) = response.body() {
                    read(&body.get_reader().unchecked_into(), &mut last, &told).await;
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
        told.dispatch(None);
        TimeoutFuture::new(pause_ms).await;
    }
}

/// Until the stream ends, for whatever reason.
async fn read(reader: &ReadableStreamDefaultReader, last: &mut Option<u64>, told: &UseReducerDispatcher<Live>) {
    let mut parser = EventParser::default();
    while let Ok(chunk) = JsFuture::from(reader.read()).await {
        let value = js_sys::Reflect::get(&chunk, &JsValue::from_str("value")).unwrap_or(JsValue::UNDEFINED);
        let Ok(bytes) = value.dyn_into::<js_sys::Uint8Array>() else { return };
        for event in parser.push(&bytes.to_vec()) {
            if let Some(position) = event.id.and_then(|id| id.parse().ok()) {
                *last = Some(position);
                told.dispatch(Some(position));
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

    #[test]
    fn a_lost_connection_keeps_what_was_told() {
        let live = |live: Live, told| (*Rc::new(live).reduce(told)).clone();
        assert_eq!(live(Live::Unknown, None), Live::Unknown);
        assert_eq!(live(Live::Unknown, Some(3)), Live::At(3));
        assert_eq!(live(Live::At(3), None), Live::Lost(3));
        assert_eq!(live(Live::Lost(3), Some(4)), Live::At(4));
    }
}
