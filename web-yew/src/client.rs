//! The one place that speaks HTTP: our own gateway, with the session's token, typed by `fanledger-gateway-api`.

use std::rc::Rc;

use fanledger_gateway_api::Problem;
use gloo::net::http::{Request, RequestBuilder, Response};
use serde::de::DeserializeOwned;
use serde_json::Value;
use wasm_bindgen::JsValue;
use web_sys::AbortSignal;
use yew::prelude::*;

use crate::session::Session;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// The token does not hold (any more). The session is ended; whoever asked has nothing to do.
    #[error("You are signed out.")]
    SignedOut,
    /// The gateway refused, and says why.
    #[error("{}", .0.title)]
    Refused(Problem),
    /// Nothing came back.
    #[error("The gateway cannot be reached.")]
    Unreachable,
    /// What came back is no answer of a gateway that this app was built for.
    #[error(
        "The answer cannot be read (status {status}). The app and the gateway may be of different versions: load the page again."
    )]
    Unreadable {
        /// Its HTTP status.
        status: u16,
    },
}

impl ApiError {
    /// The kind of a refusal, `not-found`.
    pub fn kind(&self) -> Option<&str> {
        match self {
            Self::Refused(problem) => problem.kind.rsplit(':').next(),
            Self::SignedOut | Self::Unreachable | Self::Unreadable { .. } => None,
        }
    }
}

/// An answer, and the journal's position that it reflects or that a command came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered<T> {
    /// What was asked for.
    pub value: T,
    /// `Journal-Position`.
    pub position: Option<u64>,
}

/// An answer, not read yet: everything up to here is there once in the app, and not once for each type.
pub struct Text {
    status: u16,
    position: Option<u64>,
    text: String,
}

impl Text {
    /// Reads it as what it must be.
    ///
    /// # Errors
    /// [`ApiError::Unreadable`].
    pub fn read<T: DeserializeOwned>(self) -> Result<Answered<T>, ApiError> {
        let value = serde_json::from_str(&self.text).map_err(|_| ApiError::Unreadable { status: self.status })?;
        Ok(Answered { value, position: self.position })
    }
}

/// Asks with the session's token. Components share one by context.
#[derive(Clone, Default)]
pub struct Client {
    token: Option<Rc<str>>,
    refused: Callback<()>,
}

impl PartialEq for Client {
    /// By the token: what happens at a refusal is the same for all.
    fn eq(&self, other: &Self) -> bool {
        self.token == other.token
    }
}

impl Client {
    /// With the session's token; `refused` is told when the gateway says that it does not hold.
    pub fn new(session: Option<&Session>, refused: Callback<()>) -> Self {
        Self { token: session.map(Session::token), refused }
    }

    /// Reads. With `min_position` the answer is no older than that.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn get(&self, path: &str, min_position: Option<u64>) -> Result<Text, ApiError> {
        let mut request = self.bearing(Request::get(path));
        if let Some(position) = min_position {
            request = request.header("journal-min-position", &position.to_string());
        }
        self.answer(request.build()).await
    }

    /// Commands. Each has a key of its own, so that one that is sent again by a proxy is done once.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn post(&self, path: &str, body: &Value) -> Result<Text, ApiError> {
        let request = self.bearing(Request::post(path)).header("idempotency-key", &random_key());
        self.answer(request.json(body)).await
    }

    /// The stream of positions; it ends when `until` says so.
    ///
    /// # Errors
    /// [`ApiError`].
    pub async fn stream(&self, until: &AbortSignal) -> Result<Response, ApiError> {
        let request = self.bearing(Request::get("/api/v1/stream")).abort_signal(Some(until));
        let response = request.send().await.map_err(|_| ApiError::Unreachable)?;
        if response.ok() { Ok(response) } else { Err(self.error(&response).await) }
    }

    fn bearing(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.token {
            Some(token) => request.header("authorization", &format!("Bearer {token}")),
            None => request,
        }
    }

    async fn answer(&self, request: Result<Request, gloo::net::Error>) -> Result<Text, ApiError> {
        let response = request.map_err(|_| ApiError::Unreachable)?.send().await.map_err(|_| ApiError::Unreachable)?;
        if !response.ok() {
            return Err(self.error(&response).await);
        }
        let position = response.headers().get("journal-position").and_then(|text| text.parse().ok());
        let text = response.text().await.map_err(|_| ApiError::Unreachable)?;
        Ok(Text { status: response.status(), position, text })
    }

    async fn error(&self, response: &Response) -> ApiError {
        let status = response.status();
        if status == 401 {
            self.refused.emit(());
            return ApiError::SignedOut;
        }
        let text = response.text().await.unwrap_or_default();
        serde_json::from_str(&text).map_or(ApiError::Unreadable { status }, ApiError::Refused)
    }
}

/// 128 random bits in hexadecimal. (`randomUUID` is not there on plain HTTP.)
fn random_key() -> String {
    let mut bytes = [0_u8; 16];
    let filled: Result<_, JsValue> = gloo::utils::window()
        .crypto()
        .and_then(|crypto| crypto.get_random_values_with_u8_array(&mut bytes).map(|_| ()));
    // A browser without randomness has no WebAssembly either.
    filled.map(|()| bytes.iter().map(|byte| format!("{byte:02x}")).collect()).unwrap_or_default()
}

/// The client of the session, from context.
#[hook]
pub fn use_client() -> Client {
    use_context::<Client>().unwrap_or_default()
}
