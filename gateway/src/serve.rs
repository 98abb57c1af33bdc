//! Connections: accept, bound, and on a stop finish what was accepted.
//!
//! The bound is on all connections together, and on how long one may dawdle (its head, its body, its reading of the answer).
//! There is none per address, on purpose: behind a load balancer every connection comes from one of a few addresses, and so do
//! Stripe's webhooks, which must never be turned away; who a request behind a proxy comes from is known only when its head has
//! been read, and there `limits` counts. Where the gateway faces the Internet bare, the firewall knows addresses and is the
//! place (nftables: a dynamic set and `tcp dport 443 add @clients { ip saddr ct count over 256 } reject`).

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::patience::Patient;
use crate::router::router;
use crate::state::GatewayState;

/// Bounds of a request's head: hyper's default buffer is 400 KiB, which nobody needs.
const HEAD_BYTES_MAX: usize = 32 * 1024;
const HEADERS_MAX: usize = 64;
/// After a failed accept, most likely for want of file handles, some are given time to close.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until the token is cancelled and what was accepted has been answered, at most for the drain time.
pub async fn serve(listener: TcpListener, state: GatewayState, shutdown: CancellationToken) {
    state.start(&shutdown);
    let config = state.config().clone();
    let limits = Limits {
        connections: config.connections_max,
        header_read: config.header_read_timeout,
        write: config.write_timeout,
        drain: config.drain_timeout,
    };
    run(listener, router(&state), limits, &shutdown).await;
    let commands = state.commands_under_way();
    commands.close();
    if tokio::time::timeout(config.drain_timeout, commands.wait()).await.is_err() {
        tracing::warn!(
            "some commands were still running when the drain time was over; their Idempotency-Keys free themselves"
        );
    }
}

/// Serves `/metrics` alone, on a listener of its own.
pub async fn serve_metrics(listener: TcpListener, metrics: crate::metrics::Metrics, shutdown: CancellationToken) {
    // It asks for no token, so idle connections must not keep a scraper out for long.
    let limits = Limits {
        connections: 64,
        header_read: Duration::from_secs(3),
        write: Duration::from_secs(10),
        drain: Duration::from_secs(1),
    };
    run(listener, metrics.router(), limits, &shutdown).await;
}

#[derive(Clone, Copy)]
struct Limits {
    connections: usize,
    header_read: Duration,
    write: Duration,
    drain: Duration,
}

async fn run(listener: TcpListener, router: Router, limits: Limits, shutdown: &CancellationToken) {
    let mut http = hyper::server::conn::http1::Builder::new();
    // The timeout also ends connections that idle, since their next head does not come.
    http.timer(TokioTimer::new())
        .header_read_timeout(limits.header_read)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX);
    let connections = Arc::new(Semaphore::new(limits.connections));
    let graceful = GracefulShutdown::new();
    let tasks = TaskTracker::new();
    loop {
        // A connection beyond the bound stays in the kernel's queue until one closes.
        let permit = tokio::select! {
            permit = connections.clone().acquire_owned() => permit,
            () = shutdown.cancelled() => break,
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => break,
        };
        let (socket, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Answers are small and go at once.
        socket.set_nodelay(true).ok();
        let service = hyper::service::service_fn({
            let router = router.clone();
            move |request| call(router.clone(), peer, request)
        });
        let connection =
            graceful.watch(http.serve_connection(TokioIo::new(Patient::new(socket, limits.write)), service));
        tasks.spawn(async move {
            let _permit = permit;
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended early");
            }
        });
    }
    drop(listener);
    if tokio::time::timeout(limits.drain, graceful.shutdown()).await.is_err() {
        tracing::warn!("some requests were still running when the drain time was over");
    }
}

async fn call(
    router: Router,
    peer: SocketAddr,
    request: hyper::Request<Incoming>,
) -> Result<axum::response::Response, Infallible> {
    let mut request = request.map(Body::new);
    request.extensions_mut().insert(ConnectInfo(peer));
    router.oneshot(request).await
}
