//! An event as a NATS message and back: the same [`RecordedEvent`] comes out of Postgres and out of NATS.
//!
//! This is a public contract: other programs subscribe. Header names never change; the body is the payload exactly as
//! stored. What a message cannot carry (a body near the server's limit, metadata that no header can hold byte for byte) is
//! published with `Fanledger-Body: omitted` and read from Postgres at the position the message names.

use std::sync::Arc;

use async_nats::{HeaderMap, HeaderValue, Message};
use chrono::{DateTime, SecondsFormat, Utc};
use uuid::Uuid;

use crate::event::{ChainDigest, Position, RecordedEvent, StreamId};
use crate::nats::HEADROOM_BYTES;

const JOURNAL_ID: &str = "Fanledger-Journal-Id";
const POSITION: &str = "Fanledger-Position";
const CHAIN: &str = "Fanledger-Chain";
const PREV_CHAIN: &str = "Fanledger-Prev-Chain";
const EVENT_ID: &str = "Fanledger-Event-Id";
const AGGREGATE_TYPE: &str = "Fanledger-Aggregate-Type";
const AGGREGATE_ID: &str = "Fanledger-Aggregate-Id";
const SEQUENCE: &str = "Fanledger-Sequence";
const EVENT_TYPE: &str = "Fanledger-Event-Type";
const EVENT_VERSION: &str = "Fanledger-Event-Version";
const RECORDED_AT: &str = "Fanledger-Recorded-At";
const METADATA: &str = "Fanledger-Metadata";
const BODY: &str = "Fanledger-Body";
const OMITTED: &str = "omitted";

/// Metadata longer than this is not put into a header: half of [`HEADROOM_BYTES`] is for it, half for the other headers.
const METADATA_BYTES_MAX: usize = HEADROOM_BYTES / 2;

/// A message of the stream, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalMessage {
    /// Which journal it mirrors.
    pub journal_id: Uuid,
    /// Where in it.
    pub position: Position,
    /// The chain up to and including the event.
    pub chain: ChainDigest,
    /// The event; `None` if the message omits its body, so that it has to be read from Postgres.
    pub event: Option<RecordedEvent>,
}

/// A message that is not what the relay writes.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DecodeError {
    /// A header that every message has is not there.
    #[error("the message has no header {0}")]
    Missing(&'static str),
    /// A header cannot be read as what it should be.
    #[error("the message's header {header} is {value:?}, which is not {expected}")]
    Malformed {
        /// Which header.
        header: &'static str,
        /// What it says.
        value: String,
        /// What it should be.
        expected: &'static str,
    },
    /// The body is not text, so it is no payload of ours.
    #[error("the message's body is not UTF-8")]
    BodyNotText,
}

/// `journal.<aggregate_type>.<event_type>`. The journal's own CHECKs leave nothing to escape today; a dot, a wildcard or a
/// space would change the subject's meaning, so they are percent-encoded all the same.
pub fn subject(event: &RecordedEvent) -> String {
    format!("journal.{}.{}", token(&event.stream.aggregate_type), token(&event.event_type))
}

fn token(text: &str) -> String {
    let mut token = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-' {
            token.push(char::from(byte));
        } else {
            token.push_str(&format!("%{byte:02X}"));
        }
    }
    token
}

/// Headers and body for one event, given the server's `max_payload`.
pub fn encode(journal_id: Uuid, event: &RecordedEvent, max_payload: usize) -> (HeaderMap, Arc<str>) {
    let mut headers = HeaderMap::new();
    let mut put = |name: &'static str, value: String| {
        // The forms of these values exclude line breaks; should one slip through, the reader meets a missing header.
        if let Ok(value) = value.parse::<HeaderValue>() {
            headers.insert(name, value);
        }
    };
    put(JOURNAL_ID, journal_id.to_string());
    put(POSITION, event.position.to_string());
    put(CHAIN, hex::encode(event.chain.0));
    put(PREV_CHAIN, hex::encode(event.previous_chain.0));
    put(EVENT_ID, event.event_id.to_string());
    put(AGGREGATE_TYPE, event.stream.aggregate_type.clone());
    put(AGGREGATE_ID, event.stream.aggregate_id.clone());
    put(SEQUENCE, event.sequence.to_string());
    put(EVENT_TYPE, event.event_type.clone());
    put(EVENT_VERSION, event.event_version.clone());
    put(RECORDED_AT, event.recorded_at.to_rfc3339_opts(SecondsFormat::Micros, true));
    let metadata_fits = fits_a_header(&event.metadata);
    if metadata_fits {
        put(METADATA, event.metadata.to_string());
    }
    if metadata_fits && event.payload.len() + HEADROOM_BYTES <= max_payload {
        (headers, Arc::clone(&event.payload))
    } else {
        put(BODY, OMITTED.to_owned());
        (headers, Arc::from(""))
    }
}

/// Whether a header returns the text byte for byte: the protocol ends a value at a line break and trims blanks around it.
fn fits_a_header(text: &str) -> bool {
    text.len() <= METADATA_BYTES_MAX && !text.chars().any(char::is_control) && text.trim() == text
}

/// Understands a message as delivered by a consumer or over a plain subscription.
pub fn decode(message: &Message) -> Result<JournalMessage, DecodeError> {
    let empty = HeaderMap::new();
    decode_parts(message.headers.as_ref().unwrap_or(&empty), &message.payload)
}

/// Understands a message given as headers and body, as the stream returns it when asked for one sequence.
pub fn decode_parts(headers: &HeaderMap, body: &[u8]) -> Result<JournalMessage, DecodeError> {
    let journal_id = parse(headers, JOURNAL_ID, "a UUID", |text| text.parse::<Uuid>().ok())?;
    let position = parse(headers, POSITION, "a position", |text| text.parse().ok().map(Position::new))?;
    let chain = parse(headers, CHAIN, "a digest", digest)?;
    let previous_chain = parse(headers, PREV_CHAIN, "a digest", digest)?;
    let event_id = parse(headers, EVENT_ID, "a UUID", |text| text.parse::<Uuid>().ok())?;
    let sequence = parse(headers, SEQUENCE, "a number", |text| text.parse::<u64>().ok())?;
    let recorded_at = parse(headers, RECORDED_AT, "a time in RFC 3339", |text| {
        DateTime::parse_from_rfc3339(text).ok().map(|time| time.with_timezone(&Utc))
    })?;
    let stream = StreamId::new(text(headers, AGGREGATE_TYPE)?, text(headers, AGGREGATE_ID)?);
    let event_type = text(headers, EVENT_TYPE)?.to_owned();
    let event_version = text(headers, EVENT_VERSION)?.to_owned();
    let event = match headers.get(BODY) {
        Some(value) if value.as_str() == OMITTED => None,
        Some(value) => {
            return Err(DecodeError::Malformed {
                header: BODY,
                value: value.as_str().to_owned(),
                expected: "`omitted`",
            });
        }
        None => Some(RecordedEvent {
            position,
            event_id,
            recorded_at,
            stream,
            sequence,
            event_type,
            event_version,
            payload: Arc::from(std::str::from_utf8(body).map_err(|_| DecodeError::BodyNotText)?),
            metadata: Arc::from(text(headers, METADATA)?),
            chain,
            previous_chain,
        }),
    };
    Ok(JournalMessage { journal_id, position, chain, event })
}

fn text<'a>(headers: &'a HeaderMap, header: &'static str) -> Result<&'a str, DecodeError> {
    headers.get(header).map(HeaderValue::as_str).ok_or(DecodeError::Missing(header))
}

fn parse<T>(
    headers: &HeaderMap,
    header: &'static str,
    expected: &'static str,
    read: impl FnOnce(&str) -> Option<T>,
) -> Result<T, DecodeError> {
    let value = text(headers, header)?;
    read(value).ok_or_else(|| DecodeError::Malformed { header, value: value.to_owned(), expected })
}

fn digest(text: &str) -> Option<ChainDigest> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes).ok()?;
    Some(ChainDigest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> RecordedEvent {
        RecordedEvent {
            position: Position::new(7),
            event_id: Uuid::from_u128(0x0192_0000_0000_7000_8000_0000_0000_0001),
            recorded_at: DateTime::from_timestamp_micros(1_700_000_000_123_456).unwrap(),
            stream: StreamId::new("stripe_charge", "ch_1.2:3"),
            sequence: 3,
            event_type: "ChargeCaptured".to_owned(),
            event_version: "1".to_owned(),
            payload: Arc::from("{\"b\": 1.0,\n \"a\":\"é\"}"),
            metadata: Arc::from("{\"actor\":\"fan_é\"}"),
            chain: ChainDigest([9; 32]),
            previous_chain: ChainDigest([8; 32]),
        }
    }

    #[test]
    fn an_event_comes_back_byte_for_byte() {
        let event = event();
        let (headers, body) = encode(Uuid::from_u128(1), &event, 1 << 20);
        let decoded = decode_parts(&headers, body.as_bytes()).unwrap();
        assert_eq!(decoded.journal_id, Uuid::from_u128(1));
        assert_eq!(decoded.event, Some(event));
        assert_eq!(headers.get("Fanledger-Recorded-At").unwrap().as_str(), "2023-11-14T22:13:20.123456Z");
    }

    #[test]
    fn what_does_not_fit_is_omitted() {
        let max_payload = 64 * 1024;
        let fits = RecordedEvent { payload: Arc::from("x".repeat(max_payload - HEADROOM_BYTES)), ..event() };
        let (headers, body) = encode(Uuid::nil(), &fits, max_payload);
        assert_eq!(decode_parts(&headers, body.as_bytes()).unwrap().event, Some(fits));

        let large = "x".repeat(max_payload - HEADROOM_BYTES + 1);
        let too_large = RecordedEvent { payload: Arc::from(large), ..event() };
        let spread = RecordedEvent { metadata: Arc::from("{\n\"actor\": \"fan_1\"}"), ..event() };
        let padded = RecordedEvent { metadata: Arc::from("{} "), ..event() };
        let wide = RecordedEvent {
            metadata: Arc::from(format!("{{\"actor\":\"{}\"}}", "x".repeat(METADATA_BYTES_MAX))),
            ..event()
        };
        for event in [too_large, spread, padded, wide] {
            let (headers, body) = encode(Uuid::nil(), &event, max_payload);
            assert_eq!(headers.get("Fanledger-Body").unwrap().as_str(), "omitted");
            let decoded = decode_parts(&headers, body.as_bytes()).unwrap();
            assert_eq!((decoded.position, decoded.chain, decoded.event), (event.position, event.chain, None));
        }
    }

    #[test]
    fn a_message_that_is_not_ours_is_a_typed_error() {
        let (headers, body) = encode(Uuid::nil(), &event(), 1 << 20);
        for header in [
            JOURNAL_ID,
            POSITION,
            CHAIN,
            PREV_CHAIN,
            EVENT_ID,
            AGGREGATE_TYPE,
            AGGREGATE_ID,
            SEQUENCE,
            EVENT_TYPE,
            EVENT_VERSION,
            RECORDED_AT,
            METADATA,
        ] {
            let without: HeaderMap = headers
                .iter()
                .filter(|(name, _)| name.to_string() != header)
                .map(|(name, values)| (name.clone(), values[0].clone()))
                .collect();
            assert_eq!(decode_parts(&without, body.as_bytes()), Err(DecodeError::Missing(header)));
        }
        for header in [JOURNAL_ID, POSITION, CHAIN, PREV_CHAIN, EVENT_ID, SEQUENCE, RECORDED_AT, BODY] {
            let mut broken = headers.clone();
            broken.insert(header, "no");
            assert!(
                matches!(decode_parts(&broken, body.as_bytes()), Err(DecodeError::Malformed { header: named, .. }) if named == header)
            );
        }
        assert_eq!(decode_parts(&headers, &[0xff]), Err(DecodeError::BodyNotText));
        assert_eq!(decode_parts(&HeaderMap::new(), b"{}"), Err(DecodeError::Missing(JOURNAL_ID)));
    }

    #[test]
    fn a_subject_has_three_tokens_whatever_the_names_hold() {
        assert_eq!(subject(&event()), "journal.stripe_charge.ChargeCaptured");
        let odd = RecordedEvent { event_type: "A.b *>".to_owned(), ..event() };
        assert_eq!(subject(&odd), "journal.stripe_charge.A%2Eb%20%2A%3E");
    }
}
