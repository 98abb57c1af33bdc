//! The gateway's settings. The command line fills them; every default and its reason is here.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::auth::JwtKey;

/// How many requests one client may send under `/api/v1`.
#[derive(Clone, Copy, Debug)]
pub struct RateLimit {
    /// Sustained.
    pub per_second: u32,
    /// At once, after a pause.
    pub burst: u32,
}

/// Settings of one gateway.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// Where to serve.
    pub listen: SocketAddr,
    /// Where to serve `/metrics`: apart, so that it is not published with the rest by accident.
    pub metrics_listen: Option<SocketAddr>,
    /// Where the web app was built; without it there are no pages.
    pub web_dir: Option<PathBuf>,
    /// Signs tokens; cursors' key is derived from it.
    pub jwt_key: JwtKey,
    /// Per client, under `/api/v1`. The webhook is never limited: a refused webhook is money that comes hours late.
    pub rate_limit: RateLimit,
    /// How many proxies in front of us append to `X-Forwarded-For`. With 0 the header is ignored, since anyone can write it.
    pub trusted_hops: usize,
    /// `/readyz` fails once a projection's oldest missing event is older than this, in seconds.
    pub lag_seconds_max: u32,
    /// How long a request may take, streams apart.
    pub request_timeout: Duration,
    /// How long a client may take to send a request's head; also how long a connection may idle.
    pub header_read_timeout: Duration,
    /// How long a client may take none of what is sent to it.
    pub write_timeout: Duration,
    /// How long a client may take to send a request's body.
    pub body_read_timeout: Duration,
    /// How long a stop waits for what was accepted.
    pub drain_timeout: Duration,
    /// How long a read waits for `Journal-Min-Position`.
    pub min_position_wait: Duration,
    /// Requests under way under `/api/v1`; more are answered 503.
    pub in_flight_max: usize,
    /// Webhooks under way with a body of more than 64 KiB or of unknown length, up to 1 MiB; more wait. Small ones do not.
    pub webhooks_in_flight_max: usize,
    /// Streams under way; more are answered 503.
    pub streams_max: usize,
    /// Connections; more wait in the listener's queue.
    pub connections_max: usize,
}

impl GatewayConfig {
    /// The defaults.
    pub fn new(listen: SocketAddr, jwt_key: JwtKey) -> Self {
        Self {
            listen,
            metrics_listen: None,
            web_dir: None,
            jwt_key,
            rate_limit: RateLimit { per_second: 500, burst: 1000 },
            trusted_hops: 0,
            lag_seconds_max: 30,
            // Above the 5 s that a read may take in Postgres and the 2 s that it may wait for a position.
            request_timeout: Duration::from_secs(10),
            header_read_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            // 1 MiB at a poor 100 KiB/s.
            body_read_timeout: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(15),
            min_position_wait: Duration::from_secs(2),
            in_flight_max: 256,
            webhooks_in_flight_max: 512,
            streams_max: 1000,
            connections_max: 4096,
        }
    }
}
