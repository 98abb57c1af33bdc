//! The outermost layer: every request passes here once on its way in and once on its way out.
//!
//! It gives the request its ids, catches panics, writes problem documents, sets the headers that every answer carries, and
//! leaves one log line and one measurement. The line holds no query string, no body, no token and no address.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderName, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use tracing::Instrument;
use tracing::field::Empty;

use crate::problem::{self, Kind, Problem};

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const X_CORRELATION_ID: HeaderName = HeaderName::from_static("x-correlation-id");

/// The request's id: the client's own where it is sane, else a new one.
#[derive(Clone, Debug)]
pub(crate) struct RequestId(pub(crate) Arc<str>);

/// Ids land in logs and in headers, so nothing that could break either is taken over.
fn sane_id(headers: &HeaderMap, name: &HeaderName) -> Option<Arc<str>> {
    let text = headers.get(name)?.to_str().ok()?;
    let sane =
        (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.:-".contains(&b));
    sane.then(|| text.into())
}

/// A label per method, and one for all that nobody uses: labels must not be a client's to invent.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

/// Writes the log line and the measurement, also where the client goes away and the request is dropped half-way.
struct Account {
    started: Instant,
    method: &'static str,
    route: String,
    request_id: Arc<str>,
    correlation_id: Arc<str>,
    status: Option<u16>,
}

impl Drop for Account {
    fn drop(&mut self) {
        let elapsed = self.started.elapsed();
        // 499 is the customary number for a client that closed before the answer; it is never sent.
        let status = self.status.unwrap_or(499);
        metrics::gauge!("http_server_active_requests").decrement(1);
        metrics::histogram!(
            "http_server_request_duration_seconds",
            "method" => self.method, "route" => self.route.clone(), "status" => status.to_string()
        )
        .record(elapsed.as_secs_f64());
        tracing::info!(
            target: "fanledger_gateway::access",
            request_id = %self.request_id, correlation_id = %self.correlation_id,
            method = self.method, route = %self.route, status, duration_us = elapsed.as_micros() as u64,
            "request"
        );
    }
}

/// See the module.
pub(crate) async fn edge(mut request: Request, next: Next) -> Response {
    let request_id =
        sane_id(request.headers(), &X_REQUEST_ID).unwrap_or_else(|| uuid::Uuid::now_v7().to_string().into());
    let correlation_id = sane_id(request.headers(), &X_CORRELATION_ID).unwrap_or_else(|| request_id.clone());
    let route = request.extensions().get::<MatchedPath>().map_or("unmatched", |path| path.as_str()).to_owned();
    let method = method_label(request.method());
    metrics::gauge!("http_server_active_requests").increment(1);
    let span = tracing::info_span!("request", %request_id, %correlation_id, method, route);
    // The one that is exported (`fanledger_journal::trace`). A `traceparent` of the client's is not looked at: whoever could set it
    // could have everything sampled, or write into others' traces.
    let traced = tracing::debug_span!(
        target: "fanledger::trace", "request",
        otel.name = %format_args!("{method} {route}"), otel.kind = "server", otel.status_code = Empty,
        http.request.method = method, http.route = route, http.response.status_code = Empty,
        fanledger.request_id = %request_id, fanledger.correlation_id = %correlation_id,
    );
    let mut account = Account {
        started: Instant::now(),
        method,
        route,
        request_id: request_id.clone(),
        correlation_id: correlation_id.clone(),
        status: None,
    };
    request.extensions_mut().insert(RequestId(request_id.clone()));

    // Nothing of the request is looked at again after a panic.
    let handled = AssertUnwindSafe(next.run(request)).catch_unwind().instrument(span).instrument(traced.clone()).await;
    let response = handled.unwrap_or_else(|_| {
        metrics::counter!("fanledger_gateway_panics_total").increment(1);
        tracing::error!(request_id = %request_id, "a handler panicked");
        Problem::new(Kind::Internal, "The failure was logged under the request's id.").into_response()
    });
    let mut response = problem::render(response, &request_id);
    account.status = Some(response.status().as_u16());
    traced.record("http.response.status_code", response.status().as_u16());
    if response.status().is_server_error() {
        traced.record("otel.status_code", "ERROR");
    }

    let headers = response.headers_mut();
    for (name, id) in [(X_REQUEST_ID, &request_id), (X_CORRELATION_ID, &correlation_id)] {
        if let Ok(value) = HeaderValue::from_str(id) {
            headers.insert(name, value);
        }
    }
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.entry(CONTENT_SECURITY_POLICY).or_insert(HeaderValue::from_static(
        "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    ));
    response
}
