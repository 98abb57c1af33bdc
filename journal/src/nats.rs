//! The connection to NATS: names, rights, and one rule. A connection that was lost is not revived behind anyone's back.
//!
//! async-nats reconnects by itself and then sends what had piled up. For a relay that would be publishes from before the
//! cut, for a consumer an unnoticed hole. So [`Connection`] tells when its link broke, and its user begins again with a new one.

use std::time::Duration;

use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event, ServerAddr};
use tokio_util::sync::CancellationToken;

/// The stream that mirrors the journal's end; its sequence equals the position.
pub const STREAM: &str = "JOURNAL";

/// Every subject of the stream: `journal.<aggregate_type>.<event_type>`.
pub const SUBJECTS: &str = "journal.>";

/// What stays free of the server's `max_payload` for headers, so that a full-size body with its headers is still accepted.
pub const HEADROOM_BYTES: usize = 16 * 1024;

/// How long a request to the server, an acknowledgement included, may take before the connection is given up.
const TIMEOUT: Duration = Duration::from_secs(5);

/// No connection to NATS.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The URL cannot be read.
    #[error("read the URL of NATS; it is of the form nats://user:password@host:port (FANLEDGER_NATS_URL)")]
    Url(#[source] std::io::Error),
    /// The server cannot be reached, or refused us.
    #[error("connect to NATS as {name}; is nats-server running at FANLEDGER_NATS_URL, with this user and password?")]
    Connect {
        /// What wanted to connect.
        name: String,
        /// What the client said.
        #[source]
        source: async_nats::ConnectError,
    },
}

impl ConnectError {
    /// Whether the server answered and would not have this user and password: waiting does not help.
    pub fn is_refused_login(&self) -> bool {
        match self {
            Self::Url(_) => false,
            Self::Connect { source, .. } => {
                matches!(source.kind(), ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation)
            }
        }
    }
}

/// A client that reconnects by itself, for tools and tests.
///
/// # Errors
/// When the URL cannot be read, or the server not be reached.
pub async fn connect(url: &str, name: &str) -> Result<Client, ConnectError> {
    connect_with(options(), url, name).await
}

fn options() -> ConnectOptions {
    ConnectOptions::new()
        .connection_timeout(TIMEOUT)
        .request_timeout(Some(TIMEOUT))
        .ping_interval(Duration::from_secs(5))
}

async fn connect_with(options: ConnectOptions, url: &str, name: &str) -> Result<Client, ConnectError> {
    let address: ServerAddr = url.parse().map_err(ConnectError::Url)?;
    // async-nats reads user and password out of a URL and then makes no use of them, but tells its log of the whole URL.
    let options = match (address.username(), address.password()) {
        (Some(user), Some(password)) => options.user_and_password(user.to_owned(), password.to_owned()),
        (Some(_), None) | (None, _) => options,
    };
    let address = without_credentials(address).map_err(ConnectError::Url)?;
    options.name(name).connect(address).await.map_err(|source| ConnectError::Connect { name: name.to_owned(), source })
}

/// The same server, with no user and no password.
fn without_credentials(address: ServerAddr) -> std::io::Result<ServerAddr> {
    let mut url = address.into_inner();
    // Only a URL without a host takes neither, and then there is nothing to take away.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    ServerAddr::from_url(url)
}

/// One link to the server, from its making to its first break.
pub(crate) struct Connection {
    /// For requests and publishes while the link holds.
    pub client: Client,
    /// Cancelled when the link breaks.
    pub broken: CancellationToken,
}

impl Connection {
    /// Connects; user and password come in the URL.
    pub async fn open(url: &str, name: &str) -> Result<Self, ConnectError> {
        let broken = CancellationToken::new();
        let on_break = broken.clone();
        let options = options()
            // What does not fit is dropped and read from Postgres; so this bounds memory and loses nothing.
            .subscription_capacity(4096)
            .event_callback(move |event| {
                let on_break = on_break.clone();
                async move {
                    match event {
                        Event::Disconnected | Event::Closed | Event::LameDuckMode => on_break.cancel(),
                        Event::SlowConsumer(_) => {
                            tracing::debug!("NATS delivers faster than we read; the hole is filled from Postgres")
                        }
                        Event::ServerError(error) => tracing::warn!(%error, "NATS reports an error"),
                        Event::ClientError(error) => tracing::debug!(%error, "the NATS client reports an error"),
                        Event::Connected | Event::Draining => {}
                    }
                }
            });
        Ok(Self { client: connect_with(options, url, name).await?, broken })
    }
}

/// What the relay may publish: events, and the calls by which it creates, inspects, reads back and deletes its one stream.
pub const RELAY_PUBLISH: &[&str] = &[
    SUBJECTS,
    "$JS.API.STREAM.INFO.JOURNAL",
    "$JS.API.STREAM.CREATE.JOURNAL",
    "$JS.API.STREAM.DELETE.JOURNAL",
    "$JS.API.STREAM.MSG.GET.JOURNAL",
];

/// What a reader may publish: the calls by which an ordered consumer, push or pull, comes and goes, and flow control.
pub const READER_PUBLISH: &[&str] = &[
    "$JS.API.STREAM.INFO.JOURNAL",
    "$JS.API.CONSUMER.CREATE.JOURNAL",
    "$JS.API.CONSUMER.CREATE.JOURNAL.>",
    "$JS.API.CONSUMER.INFO.JOURNAL.>",
    "$JS.API.CONSUMER.MSG.NEXT.JOURNAL.>",
    "$JS.API.CONSUMER.DELETE.JOURNAL.>",
    "$JS.FC.JOURNAL.>",
];

/// The `authorization` block of `nats-server.conf`: the user `relay`, who alone writes, and the user `reader`.
///
/// Passwords must be free of quotes and backslashes; ours are hexadecimal.
pub fn permissions_config(relay_password: &str, reader_password: &str) -> String {
    let list =
        |subjects: &[&str]| subjects.iter().map(|subject| format!("\"{subject}\"")).collect::<Vec<_>>().join(", ");
    format!(
        "authorization {{\n  users = [\n    \
         {{ user: relay, password: \"{relay_password}\", permissions: {{ publish: [{}], subscribe: [\"_INBOX.>\"] }} }}\n    \
         {{ user: reader, password: \"{reader_password}\", permissions: {{ publish: [{}], subscribe: [\"_INBOX.>\", \"{SUBJECTS}\"] }} }}\n  \
         ]\n}}\n",
        list(RELAY_PUBLISH),
        list(READER_PUBLISH),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_client_library_may_log_of_the_address_holds_no_secret() {
        let address: ServerAddr = "nats://relay:s3cret@127.0.0.1:4222".parse().unwrap();
        let bare = without_credentials(address).unwrap();
        assert_eq!((bare.host(), bare.port(), bare.username(), bare.password()), ("127.0.0.1", 4222, None, None));
        assert!(!format!("{bare:?}").contains("s3cret"));
    }
}
