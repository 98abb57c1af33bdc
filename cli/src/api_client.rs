//! A client of our own gateway, for commands that act: who acts is the subject of a token, so that acts of two persons are of
//! two persons, whichever way they came.
//!
//! A command that only reads asks Postgres itself. One that acts makes an [`ApiClient`] and posts; one that then reads what it
//! did sends along the position that was answered.

use std::time::{Duration, Instant};

use clap::Args;
use fanledger_gateway_api::Problem;
use reqwest::{RequestBuilder, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::failure::Failure;
use crate::settings::{Secret, Settings};

/// How long one request may take; longer than the gateway's own bound, so that its answer comes first.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How long a request is sent again while the gateway says that it may have an answer in a moment.
const PATIENCE: Duration = Duration::from_secs(15);

/// Who acts, and under which key.
#[derive(Clone, Debug, Default, Args)]
pub struct ActorArgs {
    /// Who acts: a token with a role that may; FANLEDGER_TOKEN otherwise.
    #[arg(long, value_name = "TOKEN", value_parser = secret)]
    token: Option<Secret>,
    /// Sent as Idempotency-Key: the same key and command again get the first answer again; a random one otherwise.
    #[arg(long, value_name = "KEY", value_parser = key)]
    idempotency_key: Option<String>,
}

/// What can be sent as a token; whether it is one is the gateway's to say.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic())
}

fn secret(text: &str) -> Result<Secret, String> {
    if is_token(text) { Ok(Secret::new(text.to_owned())) } else { Err("expected a token, bare".to_owned()) }
}

fn key(text: &str) -> Result<String, String> {
    let is_key = (1..=255).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    if is_key { Ok(text.to_owned()) } else { Err("expected 1 to 255 visible ASCII characters".to_owned()) }
}

/// Why the gateway did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// Nobody is named.
    #[error(
        "who acts? Give --token or FANLEDGER_TOKEN: `export FANLEDGER_TOKEN=$(fanledger token mint --role finance --subject <you>)`"
    )]
    NoToken,
    /// What stands in the settings can be nobody's.
    #[error("FANLEDGER_TOKEN is no token: expected one, bare, as `fanledger token mint` prints it")]
    NoSuchToken,
    /// No HTTP client could be made.
    #[error("make an HTTP client")]
    Client(#[source] reqwest::Error),
    /// Nothing was sent.
    #[error(
        "reach the gateway at {url}; is it running? Start `fanledger dev`, or say where it is with FANLEDGER_GATEWAY_URL"
    )]
    Unreachable {
        /// Where.
        url: String,
        /// What the connection said.
        #[source]
        source: reqwest::Error,
    },
    /// It was sent and no answer came: it may have been done or not.
    #[error("no answer from the gateway; run the same again with --idempotency-key {key}, which does it at most once")]
    NoAnswer {
        /// The key that it was sent with.
        key: String,
        /// What the connection said.
        #[source]
        source: reqwest::Error,
    },
    /// 401 or 403.
    #[error(
        "{title} {detail} Mint one with `fanledger token mint --role finance --subject <you>` and give it as --token or FANLEDGER_TOKEN"
    )]
    NotAllowed {
        /// The kind of problem in words.
        title: String,
        /// This one.
        detail: String,
    },
    /// The gateway understood and refuses: a field is wrong, or the books do not allow it.
    #[error("{title} {detail}{}", fields(.problem))]
    Refused {
        /// The kind of problem in words.
        title: String,
        /// This one.
        detail: String,
        /// The whole document, for callers who tell kinds apart.
        problem: Box<Problem>,
    },
    /// It could not do it now.
    #[error("the gateway could not do it: {title} {detail}")]
    Failed {
        /// The kind of problem in words.
        title: String,
        /// This one, with the request's id.
        detail: String,
    },
    /// Something that is not our gateway.
    #[error("{url} answered {status} with something that is not the gateway's; is FANLEDGER_GATEWAY_URL right?")]
    Foreign {
        /// Where.
        url: String,
        /// The status.
        status: StatusCode,
    },
}

fn fields(problem: &Problem) -> String {
    problem.errors.iter().map(|error| format!("\n  - {}: {}", error.field, error.message)).collect()
}

impl ApiError {
    /// How a command ends by it. Not by `From`, which is every error's way to "could not run".
    fn into_failure(self) -> Failure {
        match self {
            Self::Refused { .. } | Self::NoSuchToken => Failure::usage(self),
            Self::NoToken
            | Self::Client(_)
            | Self::Unreachable { .. }
            | Self::NoAnswer { .. }
            | Self::NotAllowed { .. }
            | Self::Failed { .. }
            | Self::Foreign { .. } => Failure::CouldNotRun(Box::new(self)),
        }
    }
}

/// An answer with the journal position that it reflects or that the command came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer<T> {
    /// `Journal-Position`, where the answer has one.
    pub position: Option<u64>,
    /// The answer.
    pub value: T,
}

/// Acts through the gateway as one person. One client is one command: all that it posts goes under one key.
#[derive(Clone, Debug)]
pub struct ApiClient {
    http: reqwest::Client,
    url: String,
    token: Secret,
    key: String,
}

impl ApiClient {
    /// A client for whoever `actor`, else the settings, name.
    ///
    /// # Errors
    /// When nobody is named; see [`ApiError`].
    pub fn new(settings: &Settings, actor: &ActorArgs) -> Result<Self, Failure> {
        Self::of(settings, actor).map_err(ApiError::into_failure)
    }

    fn of(settings: &Settings, actor: &ActorArgs) -> Result<Self, ApiError> {
        let token = actor.token.clone().or_else(|| settings.token.clone()).ok_or(ApiError::NoToken)?;
        if !is_token(token.reveal()) {
            return Err(ApiError::NoSuchToken);
        }
        let http = reqwest::Client::builder().timeout(TIMEOUT).build().map_err(ApiError::Client)?;
        let key = actor.idempotency_key.clone().unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
        Ok(Self { http, url: settings.gateway_url().trim_end_matches('/').to_owned(), token, key })
    }

    /// Posts `body` to `path`, which begins with `/api/v1/` and whose parts are ids, in need of no escape.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &(impl Serialize + ?Sized),
    ) -> Result<Answer<T>, Failure> {
        let request = || self.http.post(self.at(path)).header("idempotency-key", &self.key).json(body);
        self.send(request).await.map_err(ApiError::into_failure)
    }

    /// Reads `path`, no older than `min_position`.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str, min_position: Option<u64>) -> Result<Answer<T>, Failure> {
        let request = || {
            let request = self.http.get(self.at(path));
            match min_position {
                Some(position) => request.header("journal-min-position", position),
                None => request,
            }
        };
        self.send(request).await.map_err(ApiError::into_failure)
    }

    fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// Sends, and again while the gateway says that there may be an answer in a moment: the key makes that safe.
    async fn send<T: DeserializeOwned>(&self, request: impl Fn() -> RequestBuilder) -> Result<Answer<T>, ApiError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let sent = request().bearer_auth(self.token.reveal()).send().await;
            // A request that cannot be made, for its address is none, was not sent either.
            let response = sent.map_err(|source| match source.is_connect() || source.is_builder() {
                true => ApiError::Unreachable { url: self.url.clone(), source },
                false => ApiError::NoAnswer { key: self.key.clone(), source },
            })?;
            match self.read(response).await? {
                Judged::Answer(answer) => return Ok(answer),
                Judged::Later { after, .. } if Instant::now() + after < deadline => tokio::time::sleep(after).await,
                Judged::Later { error, .. } => return Err(error),
            }
        }
    }

    async fn read<T: DeserializeOwned>(&self, response: Response) -> Result<Judged<T>, ApiError> {
        let status = response.status();
        let number = |name: &str| response.headers().get(name)?.to_str().ok()?.parse::<u64>().ok();
        let (position, retry_after) = (number("journal-position"), number("retry-after"));
        let foreign = || ApiError::Foreign { url: self.url.clone(), status };
        let body = response.bytes().await.map_err(|source| ApiError::NoAnswer { key: self.key.clone(), source })?;
        if status.is_success() {
            let value = serde_json::from_slice(&body).map_err(|_| foreign())?;
            return Ok(Judged::Answer(Answer { position, value }));
        }
        let problem: Problem = serde_json::from_slice(&body).map_err(|_| foreign())?;
        let error = error_of(status, problem);
        match retry_after {
            Some(seconds) => Ok(Judged::Later { after: Duration::from_secs(seconds), error }),
            None => Err(error),
        }
    }
}

enum Judged<T> {
    Answer(Answer<T>),
    Later { after: Duration, error: ApiError },
}

fn error_of(status: StatusCode, problem: Problem) -> ApiError {
    let title = problem.title.clone();
    let detail = problem.detail.clone().unwrap_or_default();
    if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        ApiError::NotAllowed { title, detail }
    } else if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
        let request = problem.request_id.map_or_else(String::new, |id| format!(" (request {id})"));
        ApiError::Failed { title, detail: format!("{detail}{request}") }
    } else {
        ApiError::Refused { title, detail, problem: Box::new(problem) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::Router;
    use axum::http::HeaderMap;
    use axum::response::IntoResponse;
    use axum::routing::{get, post};
    use serde_json::{Value, json};

    use super::*;

    const TOKEN: &str = "a-token-that-nobody-sees";

    fn actor(token: Option<&str>) -> ActorArgs {
        ActorArgs { token: token.map(|token| Secret::new(token.to_owned())), idempotency_key: Some("k-1".to_owned()) }
    }

    fn settings(url: &str) -> Settings {
        rustls::crypto::ring::default_provider().install_default().ok();
        Settings::parse("", [("GATEWAY_URL", url.to_owned())].into()).unwrap()
    }

    async fn client(router: Router) -> ApiClient {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        ApiClient::new(&settings(&url), &actor(Some(TOKEN))).unwrap()
    }

    fn problem(status: u16, errors: Value) -> axum::response::Response {
        let body = json!({"type": "urn:fanledger:problem:x", "title": "A title.", "status": status, "detail": "A detail.", "errors": errors});
        (StatusCode::from_u16(status).unwrap(), body.to_string()).into_response()
    }

    /// What a command ends with: its exit code, and what is printed.
    fn ended(failure: Failure) -> (u8, String) {
        let text = failure.error().to_string();
        assert!(!text.contains(TOKEN) && !format!("{failure:?}").contains(TOKEN), "{text}");
        match failure {
            Failure::Usage(_) => (2, text),
            Failure::CouldNotRun(_) => (3, text),
        }
    }

    #[tokio::test]
    async fn what_is_posted_names_the_actor_and_the_key_and_is_answered_with_a_position() {
        let echo = async |headers: HeaderMap, body: String| {
            let of = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
            let seen = json!([of("authorization"), of("idempotency-key"), of("journal-min-position"), body]);
            ([("journal-position", "17")], seen.to_string())
        };
        let client = client(Router::new().route("/api/v1/x", post(echo).get(echo))).await;
        let answer: Answer<Value> = client.post("/api/v1/x", &json!({"a": 1})).await.unwrap();
        assert_eq!(answer.position, Some(17));
        assert_eq!(answer.value, json!([format!("Bearer {TOKEN}"), "k-1", null, "{\"a\":1}"]));
        let read: Answer<Value> = client.get("/api/v1/x", answer.position).await.unwrap();
        assert_eq!(read.value, json!([format!("Bearer {TOKEN}"), null, "17", ""]));
        assert!(!format!("{client:?}").contains(TOKEN));
    }

    #[tokio::test]
    async fn each_refusal_has_its_exit_code_and_says_what_to_do() {
        for (status, code) in [(400, 2), (404, 2), (409, 2), (410, 2), (422, 2), (401, 3), (403, 3), (500, 3)] {
            let errors = if status == 422 { json!([{"field": "creator", "message": "not one"}]) } else { json!([]) };
            let client = client(Router::new().route("/", get(async move || problem(status, errors)))).await;
            let (exit, text) = ended(client.get::<Value>("/", None).await.unwrap_err());
            assert_eq!(exit, code, "{status}: {text}");
            assert!(text.contains("A title. A detail."), "{text}");
            assert_eq!(text.contains("token mint"), status == 401 || status == 403, "{text}");
            assert_eq!(text.contains("\n  - creator: not one"), status == 422, "{text}");
        }
        let client = client(Router::new().route("/", get(async || (StatusCode::NOT_FOUND, "<html>")))).await;
        assert_eq!(ended(client.get::<Value>("/", None).await.unwrap_err()).0, 3);
    }

    #[tokio::test]
    async fn what_may_have_an_answer_in_a_moment_is_asked_again() {
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        let answer = async move || {
            let refused = match counted.fetch_add(1, Ordering::Relaxed) {
                0 => problem(409, json!([])),
                1 => problem(503, json!([])),
                _ => return "7".into_response(),
            };
            ([("retry-after", "0")], refused).into_response()
        };
        let client = client(Router::new().route("/", post(answer))).await;
        assert_eq!(client.post::<u8>("/", &()).await.unwrap().value, 7);
        assert_eq!(asked.load(Ordering::Relaxed), 3);
    }

    #[tokio::test]
    async fn a_gateway_that_is_not_there_is_told_from_one_that_breaks_off() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let client = ApiClient::new(&settings(&url), &actor(Some(TOKEN))).unwrap();
        let breaks_off = tokio::spawn(async move {
            let (connection, _) = listener.accept().await.unwrap();
            connection.readable().await.unwrap();
            drop((connection, listener));
        });
        let (exit, text) = ended(client.post::<Value>("/", &()).await.unwrap_err());
        assert!(exit == 3 && text.contains("--idempotency-key k-1"), "{text}");
        breaks_off.await.unwrap();
        let (exit, text) = ended(client.post::<Value>("/", &()).await.unwrap_err());
        assert!(exit == 3 && text.contains("fanledger dev"), "{text}");
    }

    #[test]
    fn without_a_token_the_error_says_how_to_mint_one() {
        let (exit, text) = ended(ApiClient::new(&settings("http://127.0.0.1:1"), &actor(None)).unwrap_err());
        assert!(exit == 3 && text.contains("fanledger token mint --role finance --subject <you>"), "{text}");
        let from_settings = Settings::parse("", [("TOKEN", TOKEN.to_owned())].into()).unwrap();
        assert!(ApiClient::new(&from_settings, &actor(None)).is_ok());
        assert!(!format!("{from_settings:?}").contains(TOKEN));
    }
}
