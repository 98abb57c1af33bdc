//! What a client may take: requests a second, requests at once, bytes and time.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_LENGTH;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use tokio::sync::Semaphore;

use crate::config::RateLimit;
use crate::problem::{Kind, Problem};

/// The largest webhook that is taken (Stripe's own are far smaller).
pub(crate) const WEBHOOK_BYTES_MAX: usize = 1024 * 1024;
/// So many bytes for each connection there may be are no danger; Stripe's events are seldom larger.
pub(crate) const WEBHOOK_BYTES_SMALL: u64 = 64 * 1024;
/// The largest body under `/api/v1`.
pub(crate) const API_BYTES_MAX: usize = 64 * 1024;
/// So many clients are told apart; beyond, new ones share one allowance, so that memory stays bounded.
const CLIENTS_MAX: usize = 65_536;

/// An allowance per client, by the generic cell rate algorithm: per client one number, the instant at which its allowance
/// would be whole again.
pub(crate) struct RateLimiter {
    interval_ns: u64,
    burst_ns: u64,
    epoch: Instant,
    whole_at_ns: Mutex<HashMap<IpAddr, u64>>,
}

impl RateLimiter {
    pub(crate) fn new(limit: RateLimit) -> Self {
        let interval_ns = 1_000_000_000 / u64::from(limit.per_second.max(1));
        Self {
            interval_ns,
            burst_ns: interval_ns * u64::from(limit.burst.max(1)),
            epoch: Instant::now(),
            whole_at_ns: Mutex::new(HashMap::new()),
        }
    }

    /// Takes one from the client's allowance, or says in how many seconds there is one again.
    fn admit(&self, client: IpAddr, now: Instant) -> Result<(), u64> {
        let now_ns = u64::try_from(now.saturating_duration_since(self.epoch).as_nanos()).unwrap_or(u64::MAX);
        // Each update is one insertion, so a map that a panic left behind is still sound.
        let mut clients = self.whole_at_ns.lock().unwrap_or_else(PoisonError::into_inner);
        let mut key = client;
        if clients.len() >= CLIENTS_MAX && !clients.contains_key(&key) {
            clients.retain(|_, whole_at_ns| *whole_at_ns > now_ns);
            if clients.len() >= CLIENTS_MAX {
                key = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
            }
        }
        let whole_at_ns = clients.get(&key).copied().unwrap_or(0).max(now_ns).saturating_add(self.interval_ns);
        let over_ns = (whole_at_ns - now_ns).saturating_sub(self.burst_ns);
        if over_ns > 0 {
            return Err(over_ns.div_ceil(1_000_000_000));
        }
        clients.insert(key, whole_at_ns);
        Ok(())
    }
}

/// Who is counted as one client. An IPv6 customer has at least a /64, so that is the unit.
fn client_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => IpAddr::V4(v4),
            None => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        },
    }
}

/// The client's address: the peer's, or behind `hops` proxies the one that the outermost of them wrote down. Each proxy
/// appends its peer, so ours are the last entries; what stands before them was written by the client and is worth nothing.
fn client_address(headers: &HeaderMap, peer: IpAddr, hops: usize) -> IpAddr {
    if hops == 0 {
        return peer;
    }
    let lines = headers.get_all("x-forwarded-for").iter().filter_map(|line| line.to_str().ok());
    let entries: Vec<&str> = lines.flat_map(|line| line.split(',')).map(str::trim).collect();
    let entry = entries.len().checked_sub(hops).and_then(|index| entries.get(index));
    entry
        .and_then(|text| {
            text.parse::<IpAddr>().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
        })
        .unwrap_or(peer)
}

/// The bounds in front of `/api/v1`.
#[derive(Clone)]
pub(crate) struct Bounds {
    pub(crate) rate: Arc<RateLimiter>,
    pub(crate) trusted_hops: usize,
    pub(crate) in_flight: Arc<Semaphore>,
    /// `None` for streams, which end when their token does.
    pub(crate) timeout: Option<Duration>,
}

/// Admits a request, and bounds it in time.
pub(crate) async fn bound(State(bounds): State<Bounds>, request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
    let peer = peer.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
    let client = client_of(client_address(request.headers(), peer, bounds.trusted_hops));
    if let Err(seconds) = bounds.rate.admit(client, Instant::now()) {
        metrics::counter!("fanledger_gateway_rate_limited_total").increment(1);
        return Problem::new(Kind::RateLimited, "Wait as long as Retry-After says.")
            .retry_after_seconds(seconds)
            .into_response();
    }
    let Ok(_permit) = bounds.in_flight.clone().try_acquire_owned() else {
        metrics::counter!("fanledger_gateway_overloaded_total").increment(1);
        return Problem::new(Kind::Overloaded, "Try again shortly.").retry_after_seconds(1).into_response();
    };
    match bounds.timeout {
        None => next.run(request).await,
        Some(timeout) => match tokio::time::timeout(timeout, next.run(request)).await {
            Ok(response) => response,
            Err(_) => Problem::new(Kind::TimedOut, "Try again, or ask for less at once.")
                .retry_after_seconds(1)
                .into_response(),
        },
    }
}

/// Reads a whole body, of at most `limit` bytes and within `timeout`.
pub(crate) async fn read_body(
    headers: &HeaderMap,
    body: Body,
    limit: usize,
    timeout: Duration,
) -> Result<Bytes, Problem> {
    let too_large = || Problem::new(Kind::BodyTooLarge, format!("At most {limit} bytes are taken."));
    let announced =
        headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()).and_then(|text| text.parse::<u64>().ok());
    if announced.is_some_and(|bytes| bytes > limit as u64) {
        return Err(too_large());
    }
    let mut stream = body.into_data_stream();
    let whole = async {
        let mut first = Bytes::new();
        let mut rest: Vec<u8> = Vec::new();
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|_| Problem::new(Kind::RequestMalformed, "The body broke off."))?;
            if first.len() + rest.len() + chunk.len() > limit {
                return Err(too_large());
            }
            // Most bodies come in one piece, which then needs no copy.
            if first.is_empty() && rest.is_empty() {
                first = chunk;
            } else {
                if rest.is_empty() {
                    rest.reserve(announced.map_or(0, |bytes| bytes as usize));
                    rest.extend_from_slice(&first);
                    first = Bytes::new();
                }
                rest.extend_from_slice(&chunk);
            }
        }
        Ok(if rest.is_empty() { first } else { Bytes::from(rest) })
    };
    match tokio::time::timeout(timeout, whole).await {
        Ok(read) => read,
        Err(_) => Err(Problem::new(Kind::RequestTimeout, "Send the body without pauses.")),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn a_burst_passes_then_the_rate_holds() {
        let limiter = RateLimiter::new(RateLimit { per_second: 10, burst: 3 });
        let (client, other) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let start = limiter.epoch;
        for _ in 0..3 {
            assert_eq!(limiter.admit(client, start), Ok(()));
        }
        assert_eq!(limiter.admit(client, start), Err(1));
        assert_eq!(limiter.admit(other, start), Ok(()));
        assert_eq!(limiter.admit(client, start + Duration::from_millis(99)), Err(1));
        assert_eq!(limiter.admit(client, start + Duration::from_millis(100)), Ok(()));
        assert_eq!(limiter.admit(client, start + Duration::from_millis(100)), Err(1));
    }

    #[test]
    fn memory_is_bounded() {
        let limiter = RateLimiter::new(RateLimit { per_second: 1, burst: 2 });
        for n in 0..(CLIENTS_MAX as u32 + 100) {
            let _ = limiter.admit(IpAddr::V4(n.into()), limiter.epoch);
        }
        assert!(limiter.whole_at_ns.lock().unwrap().len() <= CLIENTS_MAX + 1);
        // Later those allowances are whole again, and forgotten.
        assert_eq!(limiter.admit("192.0.2.1".parse().unwrap(), limiter.epoch + Duration::from_secs(60)), Ok(()));
        assert!(limiter.whole_at_ns.lock().unwrap().len() <= 2);
    }

    #[test]
    fn the_forwarded_address_counts_only_from_a_trusted_hop() {
        let peer: IpAddr = "10.0.0.9".parse().unwrap();
        let mut headers = HeaderMap::new();
        assert_eq!(client_address(&headers, peer, 1), peer);
        headers.append("x-forwarded-for", HeaderValue::from_static("6.6.6.6, 203.0.113.7"));
        assert_eq!(client_address(&headers, peer, 0), peer);
        assert_eq!(client_address(&headers, peer, 1), "203.0.113.7".parse::<IpAddr>().unwrap());
        assert_eq!(client_address(&headers, peer, 3), peer);
        headers.append("x-forwarded-for", HeaderValue::from_static("10.0.0.1"));
        assert_eq!(client_address(&headers, peer, 2), "203.0.113.7".parse::<IpAddr>().unwrap());
        headers.append("x-forwarded-for", HeaderValue::from_static("nonsense"));
        assert_eq!(client_address(&headers, peer, 1), peer);
    }

    #[test]
    fn an_ipv6_network_is_one_client() {
        let a: IpAddr = "2001:db8:1:2:3::4".parse().unwrap();
        let b: IpAddr = "2001:db8:1:2:ffff::1".parse().unwrap();
        let c: IpAddr = "2001:db8:1:3::1".parse().unwrap();
        assert_eq!(client_of(a), client_of(b));
        assert_ne!(client_of(a), client_of(c));
        assert_eq!(client_of("::ffff:192.0.2.1".parse().unwrap()), "192.0.2.1".parse::<IpAddr>().unwrap());
    }

    #[tokio::test]
    async fn a_body_is_bounded_in_bytes_and_time() {
        let read = async |body: Body| read_body(&HeaderMap::new(), body, 8, Duration::from_millis(50)).await;
        let pieces = |parts: Vec<&'static str>| {
            Body::from_stream(futures::stream::iter(
                parts.into_iter().map(|part| Ok::<_, std::io::Error>(Bytes::from(part))),
            ))
        };
        assert_eq!(read(Body::from("12345678")).await.unwrap(), "12345678");
        assert_eq!(read(pieces(vec!["1234", "", "5678"])).await.unwrap(), "12345678");
        assert_eq!(read(Body::from("123456789")).await.unwrap_err().kind(), Kind::BodyTooLarge);
        assert_eq!(read(pieces(vec!["1234", "56789"])).await.unwrap_err().kind(), Kind::BodyTooLarge);
        let endless = Body::from_stream(futures::stream::pending::<Result<Bytes, std::io::Error>>());
        assert_eq!(read(endless).await.unwrap_err().kind(), Kind::RequestTimeout);
        let broken = Body::from_stream(futures::stream::iter([Err::<Bytes, _>(std::io::Error::other("gone"))]));
        assert_eq!(read(broken).await.unwrap_err().kind(), Kind::RequestMalformed);
    }
}
