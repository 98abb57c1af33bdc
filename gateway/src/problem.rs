//! Errors on the wire: RFC 9457 problem documents with a stable `type`.
//!
//! A handler answers a [`Problem`]; it travels in the response's extensions to the edge, which alone knows the request's id
//! and writes the document. So no layer formats an error, and whatever is still bare at the edge gets a document there.

use axum::http::header::{ALLOW, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use fanledger_commands::with_causes;
use fanledger_gateway_api::FieldProblem;

macro_rules! kinds {
    ($( $name:ident $status:ident $slug:literal $title:literal; )*) => {
        /// What went wrong, as far as a client needs to tell it apart. The slug is part of the contract and permanent.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Kind {
            $( #[doc = $title] $name, )*
        }

        impl Kind {
            /// Every kind, for the documentation.
            pub const ALL: &[Kind] = &[$( Kind::$name ),*];

            /// The last part of the `type` URI.
            pub const fn slug(self) -> &'static str {
                match self { $( Kind::$name => $slug, )* }
            }

            /// One sentence that does not vary with the occurrence.
            pub const fn title(self) -> &'static str {
                match self { $( Kind::$name => $title, )* }
            }

            /// The status that goes with it.
            pub const fn status(self) -> StatusCode {
                match self { $( Kind::$name => StatusCode::$status, )* }
            }
        }
    };
}

kinds! {
    RequestMalformed BAD_REQUEST "request-malformed" "The request cannot be read.";
    CursorInvalid BAD_REQUEST "cursor-invalid" "The cursor was not made by this list.";
    SignatureInvalid BAD_REQUEST "signature-invalid" "The Stripe signature is missing, stale or wrong.";
    EventIdMissing BAD_REQUEST "event-id-missing" "No event id can be read from the body.";
    TokenMissing UNAUTHORIZED "token-missing" "A bearer token is needed.";
    TokenInvalid UNAUTHORIZED "token-invalid" "The bearer token is not valid.";
    RoleMissing FORBIDDEN "role-missing" "The token does not carry a role that may do this.";
    NotFound NOT_FOUND "not-found" "There is nothing here.";
    MethodNotAllowed METHOD_NOT_ALLOWED "method-not-allowed" "The resource does not know this method.";
    RequestTimeout REQUEST_TIMEOUT "request-timeout" "The request's body did not arrive in time.";
    IdempotencyInFlight CONFLICT "idempotency-in-flight" "The first request with this Idempotency-Key is still running.";
    OperationUnderWay CONFLICT "operation-under-way" "Another operation on this runner is under way.";
    AlreadyApplied CONFLICT "already-applied" "The runner has applied this event already.";
    SecondPersonNeeded CONFLICT "second-person-needed" "Somebody else must agree to this.";
    PeriodNotEnded CONFLICT "period-not-ended" "The month has not ended.";
    PeriodNotNext CONFLICT "period-not-next" "An earlier month is still open.";
    PeriodClosedAlready CONFLICT "period-closed-already" "The month is closed already.";
    PeriodNotLast CONFLICT "period-not-last" "Only the last closed month can be opened again.";
    AlreadyDecided CONFLICT "already-decided" "This was decided before.";
    AlreadyReversed CONFLICT "already-reversed" "The entry is taken back already.";
    PayoutRunOpen CONFLICT "payout-run-open" "Another payout run is open.";
    NothingKept CONFLICT "nothing-kept" "No generation is kept to go back to.";
    BodyErased GONE "body-erased" "The body of the webhook was erased.";
    BodyTooLarge PAYLOAD_TOO_LARGE "body-too-large" "The request's body is too large.";
    MediaTypeUnsupported UNSUPPORTED_MEDIA_TYPE "media-type-unsupported" "The request's body is not of a type that is read here.";
    ParametersInvalid UNPROCESSABLE_ENTITY "parameters-invalid" "Some fields of the request are not valid.";
    AsOfOutOfRange UNPROCESSABLE_ENTITY "as-of-out-of-range" "The books do not reach the time or position that was asked for.";
    NotByHand UNPROCESSABLE_ENTITY "not-by-hand" "This follows what is known from Stripe and is never moved by hand.";
    LedgerRefused UNPROCESSABLE_ENTITY "ledger-refused" "The books do not allow it.";
    IdempotencyKeyReused UNPROCESSABLE_ENTITY "idempotency-key-reused" "The Idempotency-Key was used with another request.";
    RateLimited TOO_MANY_REQUESTS "rate-limited" "Too many requests.";
    Internal INTERNAL_SERVER_ERROR "internal" "Something failed here.";
    BodyKeyMissing SERVICE_UNAVAILABLE "body-key-missing" "The vault has lost the key of the webhook's body.";
    Unavailable SERVICE_UNAVAILABLE "unavailable" "Something that this needs cannot be reached.";
    Overloaded SERVICE_UNAVAILABLE "overloaded" "Too much is under way.";
    TimedOut SERVICE_UNAVAILABLE "timed-out" "The answer was not ready in time.";
    PositionNotReached SERVICE_UNAVAILABLE "position-not-reached" "A projection has not come to the position that is needed.";
}

impl Kind {
    /// The `type` of the problem document.
    pub fn uri(self) -> String {
        format!("urn:fanledger:problem:{}", self.slug())
    }

    /// What a bare error status means when no handler said more.
    pub fn of_status(status: StatusCode) -> Kind {
        match status {
            StatusCode::UNAUTHORIZED => Kind::TokenInvalid,
            StatusCode::FORBIDDEN => Kind::RoleMissing,
            StatusCode::NOT_FOUND => Kind::NotFound,
            StatusCode::METHOD_NOT_ALLOWED => Kind::MethodNotAllowed,
            StatusCode::REQUEST_TIMEOUT => Kind::RequestTimeout,
            StatusCode::PAYLOAD_TOO_LARGE => Kind::BodyTooLarge,
            StatusCode::UNSUPPORTED_MEDIA_TYPE => Kind::MediaTypeUnsupported,
            StatusCode::UNPROCESSABLE_ENTITY => Kind::ParametersInvalid,
            StatusCode::TOO_MANY_REQUESTS => Kind::RateLimited,
            StatusCode::SERVICE_UNAVAILABLE => Kind::Unavailable,
            other if other.is_client_error() => Kind::RequestMalformed,
            _ => Kind::Internal,
        }
    }
}

/// An error answer. `detail` says what to do and never holds a secret, a token, a body or personal data.
#[derive(Clone, Debug)]
pub struct Problem {
    kind: Kind,
    detail: String,
    errors: Vec<FieldProblem>,
    retry_after_seconds: Option<u64>,
}

impl Problem {
    /// A problem of this kind.
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), errors: Vec::new(), retry_after_seconds: None }
    }

    /// With a field that is wrong.
    pub fn with_error(mut self, field: &str, message: impl Into<String>) -> Self {
        self.errors.push(FieldProblem { field: field.to_owned(), message: message.into() });
        self
    }

    /// Tells the client when to come again.
    pub fn retry_after_seconds(mut self, seconds: u64) -> Self {
        self.retry_after_seconds = Some(seconds.max(1));
        self
    }

    /// A failure of ours: logged here with its cause, since nothing of it may be told.
    pub fn internal(error: &dyn std::error::Error) -> Self {
        tracing::error!(error = %with_causes(error), "a request failed");
        Self::new(Kind::Internal, "The failure was logged under the request's id.")
    }

    /// Something that we depend on is away; logged here with its cause.
    pub fn unavailable(error: &dyn std::error::Error) -> Self {
        tracing::warn!(error = %with_causes(error), "something that a request needs cannot be reached");
        Self::new(Kind::Unavailable, "Try again shortly.").retry_after_seconds(1)
    }

    /// What kind it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The document, for the request of this id.
    pub fn document(&self, request_id: &str) -> fanledger_gateway_api::Problem {
        fanledger_gateway_api::Problem {
            kind: self.kind.uri(),
            title: self.kind.title().to_owned(),
            status: self.kind.status().as_u16(),
            detail: Some(self.detail.clone()),
            request_id: Some(request_id.to_owned()),
            errors: self.errors.clone(),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.kind.status().into_response();
        if let Some(seconds) = self.retry_after_seconds {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        // Every 401, and nothing else (RFC 9110, section 15.5.2).
        if self.kind.status() == StatusCode::UNAUTHORIZED {
            let challenge = if self.kind == Kind::TokenMissing {
                "Bearer realm=\"fanledger\""
            } else {
                "Bearer realm=\"fanledger\", error=\"invalid_token\""
            };
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// Writes the problem document of an error response, if it has none yet. Everything else passes unchanged.
pub(crate) fn render(response: Response, request_id: &str) -> Response {
    use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
    const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

    let status = response.status();
    let is_error = status.is_client_error() || status.is_server_error();
    if !is_error
        || response.headers().get(CONTENT_TYPE) == Some(&PROBLEM_JSON)
        || response.extensions().get::<Plain>().is_some()
    {
        return response;
    }
    let (mut parts, _) = response.into_parts();
    let problem = parts.extensions.remove::<Problem>().unwrap_or_else(|| {
        let kind = Kind::of_status(status);
        let detail = match (kind, parts.headers.get(ALLOW).and_then(|allow| allow.to_str().ok())) {
            (Kind::MethodNotAllowed, Some(allow)) => format!("Allowed: {allow}."),
            (Kind::NotFound, _) => "See /docs for what there is.".to_owned(),
            _ => "See /docs for what is expected.".to_owned(),
        };
        Problem::new(kind, detail)
    });
    parts.headers.insert(CONTENT_TYPE, PROBLEM_JSON);
    parts.headers.remove(CONTENT_LENGTH);
    // A struct of texts and numbers always serialises; an empty body would still carry the right status.
    let body = serde_json::to_vec(&problem.document(request_id)).unwrap_or_default();
    Response::from_parts(parts, body.into())
}

/// Marks an error status whose body is a document of its own (`/readyz`).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plain;
