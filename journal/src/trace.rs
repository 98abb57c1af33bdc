//! Traces across the journal. Where an event was made is written into its metadata (`traceparent`, W3C Trace Context), and
//! whoever handles the event, in whatever process and however much later, goes on from there.
//!
//! Spans that are exported have the target [`TARGET`] and the level DEBUG, and nothing else is exported: what may stand in a
//! trace is found by searching for it. Names of streams, types, positions and outcomes are in the clear in the journal
//! already; payloads, bodies and errors stay out.
//!
//! While nothing is exported ([`record`] was not called) every function here is one relaxed load of a flag, and such a span
//! is one comparison with the maximum level.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use serde::Deserialize;
use tracing::Span;
use tracing::field::Empty;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::append::{AppendError, Command, Outcome};
use crate::event::RecordedEvent;

/// The target of every span that is exported.
pub const TARGET: &str = "fanledger::trace";

/// Spans of one batch, at most; a batch has up to thousands of events, and a trace store is not there to hold each of them.
const BATCH_SPANS_MAX: usize = 64;

static RECORDS: AtomicBool = AtomicBool::new(false);

/// From now on spans are exported. Called by whoever installs the exporter.
pub fn record() {
    RECORDS.store(true, Ordering::Relaxed);
}

fn records() -> bool {
    RECORDS.load(Ordering::Relaxed)
}

/// A sampled span, as others name it: `00-<trace id>-<span id>-01`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    trace: TraceId,
    span: SpanId,
}

impl TraceParent {
    /// This span, if it is sampled; `None` costs nothing while nothing is exported.
    pub fn of_span(span: &Span) -> Option<Self> {
        if !records() || span.is_disabled() {
            return None;
        }
        let context = span.context();
        let context = context.span().span_context().clone();
        (context.is_valid() && context.is_sampled())
            .then(|| Self { trace: context.trace_id(), span: context.span_id() })
    }

    /// Where the event was made, if that was sampled; `None` costs nothing while nothing is exported.
    pub fn of_event(event: &RecordedEvent) -> Option<Self> {
        // Nearly all metadata has none: looking for the word is cheaper than parsing.
        if !records() || !event.metadata.contains("\"traceparent\"") {
            return None;
        }
        #[derive(Deserialize)]
        struct Carrier<'a> {
            #[serde(borrow)]
            traceparent: Option<&'a str>,
        }
        serde_json::from_str::<Carrier<'_>>(&event.metadata).ok()?.traceparent?.parse().ok()
    }

    /// Makes `span`, which has just been made, a child of this one.
    pub fn adopt(self, span: &Span) {
        let context = SpanContext::new(self.trace, self.span, TraceFlags::SAMPLED, true, TraceState::default());
        // An error says that the span is not exported after all, or has begun already; either way it stays as it is.
        span.set_parent(Context::new().with_remote_span_context(context)).ok();
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-01", self.trace, self.span)
    }
}

/// A text that is not the `traceparent` of a sampled span.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a traceparent has the form 00-<32 hexadecimal digits>-<16 hexadecimal digits>-01")]
pub struct NoTraceParent;

impl FromStr for TraceParent {
    type Err = NoTraceParent;

    fn from_str(text: &str) -> Result<Self, NoTraceParent> {
        let mut parts = text.split('-');
        let (Some("00"), Some(trace), Some(span), Some("01"), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(NoTraceParent);
        };
        let is_hex = |text: &str, digits: usize| {
            text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        if !is_hex(trace, 32) || !is_hex(span, 16) {
            return Err(NoTraceParent);
        }
        let trace = TraceId::from_hex(trace).map_err(|_| NoTraceParent)?;
        let span = SpanId::from_hex(span).map_err(|_| NoTraceParent)?;
        if trace == TraceId::INVALID || span == SpanId::INVALID {
            return Err(NoTraceParent);
        }
        Ok(Self { trace, span })
    }
}

/// The span of one command on its way into the journal. Its events say that they were made in it.
pub(crate) fn append_span(command: &mut Command) -> Span {
    let span = tracing::debug_span!(
        target: TARGET, "append",
        fanledger.stream = %command.stream, fanledger.events = command.events.len(),
        fanledger.outcome = Empty, fanledger.position = Empty, otel.status_code = Empty,
    );
    if let Some(parent) = TraceParent::of_span(&span) {
        command.metadata.traceparent = Some(parent.to_string());
    }
    span
}

/// How the command of an [`append_span`] ended.
pub(crate) fn record_outcome(span: &Span, result: &Result<Outcome, AppendError>) {
    match result {
        Ok(outcome) => {
            span.record("fanledger.outcome", outcome.as_str());
            if let Outcome::Appended { last, .. } | Outcome::Duplicate { last, .. } = outcome {
                span.record("fanledger.position", last.get());
            }
        }
        Err(error) => {
            span.record("fanledger.outcome", error.reason());
            span.record("otel.status_code", "ERROR");
        }
    }
}

/// One span per sampled event of a batch that a runner is about to commit, each in the trace in which its event was made; the
/// first ones of a large batch. They end when they are dropped.
pub(crate) fn apply_spans<'a>(
    projection: &'static str,
    batch: impl ExactSizeIterator<Item = &'a RecordedEvent>,
) -> Vec<Span> {
    if !records() {
        return Vec::new();
    }
    let events = batch.len();
    batch
        .filter_map(|event| Some((TraceParent::of_event(event)?, event)))
        .take(BATCH_SPANS_MAX)
        .map(|(parent, event)| {
            let span = tracing::debug_span!(
                target: TARGET, parent: None, "apply",
                otel.name = %format_args!("apply {projection}"), otel.kind = "consumer",
                fanledger.projection = projection, fanledger.position = event.position.get(),
                fanledger.event_type = %event.event_type, fanledger.batch_events = events,
                fanledger.committed = false,
            );
            parent.adopt(&span);
            span
        })
        .collect()
}

/// The span of one event on its way to NATS; disabled unless its making was sampled.
pub(crate) fn publish_span(event: &RecordedEvent) -> Span {
    let Some(parent) = TraceParent::of_event(event) else { return Span::none() };
    let span = tracing::debug_span!(
        target: TARGET, parent: None, "publish",
        otel.kind = "producer", messaging.system = "nats",
        fanledger.position = event.position.get(), fanledger.event_type = %event.event_type,
    );
    parent.adopt(&span);
    span
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_read_as_it_was_written() {
        let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(text.parse::<TraceParent>().unwrap().to_string(), text);
    }

    #[test]
    fn what_is_not_a_sampled_traceparent_is_refused() {
        for text in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
            "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c8031-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(text.parse::<TraceParent>(), Err(NoTraceParent), "{text}");
        }
    }
}
