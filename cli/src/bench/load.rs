//! The HTTP generator, the same for both sides: connections kept open, requests made beforehand, answers read to their end.
//!
//! It speaks just enough HTTP/1.1 to cost little beside what it measures, since both share the machine.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::bench::report::{micros, percentile};

#[derive(Debug, thiserror::Error)]
pub(super) enum LoadError {
    #[error("connect to {0}")]
    Connect(SocketAddr, #[source] std::io::Error),
    #[error("exchange a request and its answer")]
    Exchange(#[source] std::io::Error),
    #[error("the server ended the connection before its answer was complete")]
    Ended,
    #[error("an answer is not HTTP/1.1 with a content-length")]
    Form,
    #[error("the server answered {status}: {body}")]
    Status { status: u16, body: String },
    #[error("the measurement ran out of requests: the server is faster than was provided for")]
    Short,
    #[error("a connection's task ended early")]
    Task(#[source] tokio::task::JoinError),
}

/// One kept-open connection.
pub(super) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    pub(super) async fn open(address: SocketAddr) -> Result<Self, LoadError> {
        let stream = TcpStream::connect(address).await.map_err(|source| LoadError::Connect(address, source))?;
        stream.set_nodelay(true).map_err(|source| LoadError::Connect(address, source))?;
        Ok(Self { stream, buffer: Vec::with_capacity(16 * 1024) })
    }

    /// Sends `request`, returns the answer's body; anything but 200 is an error.
    pub(super) async fn exchange(&mut self, request: &[u8]) -> Result<&[u8], LoadError> {
        self.stream.write_all(request).await.map_err(LoadError::Exchange)?;
        self.buffer.clear();
        let (head_end, status, length) = loop {
            if self.stream.read_buf(&mut self.buffer).await.map_err(LoadError::Exchange)? == 0 {
                return Err(LoadError::Ended);
            }
            if let Some(end) = self.buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                let (status, length) = head(&self.buffer[..end]).ok_or(LoadError::Form)?;
                break (end + 4, status, length);
            }
        };
        while self.buffer.len() < head_end + length {
            if self.stream.read_buf(&mut self.buffer).await.map_err(LoadError::Exchange)? == 0 {
                return Err(LoadError::Ended);
            }
        }
        let body = &self.buffer[head_end..head_end + length];
        if status == 200 {
            Ok(body)
        } else {
            Err(LoadError::Status { status, body: String::from_utf8_lossy(body).chars().take(200).collect() })
        }
    }
}

/// Status and content-length.
fn head(bytes: &[u8]) -> Option<(u16, usize)> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut lines = text.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    })?;
    Some((status, length))
}

/// What a measurement came to.
pub(super) struct Measured {
    pub per_second: f64,
    latencies_us: Vec<u64>,
}

impl Measured {
    pub(super) fn percentile_ms(&mut self, percent: usize) -> f64 {
        percentile(&mut self.latencies_us, percent) as f64 / 1000.0
    }
}

/// How requests are spread over time.
#[derive(Clone, Copy)]
pub(super) enum Pace {
    /// Each connection sends its next request when it has its answer.
    AsFastAsAnswered,
    /// So many a second, whatever the answers do. A request is late from the moment when it was due, so that a server that
    /// stalls cannot hide it.
    PerSecond(f64),
}

/// Sends `requests` for `duration` over `connections`.
pub(super) async fn drive(
    address: SocketAddr,
    connections: usize,
    requests: Vec<Vec<u8>>,
    pace: Pace,
    duration: Duration,
) -> Result<Measured, LoadError> {
    let requests: Arc<[Vec<u8>]> = requests.into();
    let next = Arc::new(AtomicUsize::new(0));
    let mut opened = Vec::new();
    for _ in 0..connections {
        opened.push(Connection::open(address).await?);
    }
    let begun = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for mut connection in opened {
        let (requests, next) = (Arc::clone(&requests), Arc::clone(&next));
        tasks.spawn(async move {
            let mut latencies = Vec::new();
            while begun.elapsed() < duration {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let sent = match pace {
                    Pace::AsFastAsAnswered => Instant::now(),
                    Pace::PerSecond(rate) => {
                        let due = begun + Duration::from_secs_f64(index as f64 / rate);
                        if due >= begun + duration {
                            break;
                        }
                        if due > Instant::now() {
                            tokio::time::sleep_until(due.into()).await;
                        }
                        due
                    }
                };
                let request = requests.get(index).ok_or(LoadError::Short)?;
                connection.exchange(request).await?;
                latencies.push(micros(sent.elapsed()));
            }
            Ok::<Vec<u64>, LoadError>(latencies)
        });
    }
    let mut latencies_us = Vec::new();
    while let Some(task) = tasks.join_next().await {
        latencies_us.extend(task.map_err(LoadError::Task)??);
    }
    Ok(Measured { per_second: latencies_us.len() as f64 / begun.elapsed().as_secs_f64(), latencies_us })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read_whatever_their_case() {
        assert_eq!(head(b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 17"), Some((200, 17)));
        assert_eq!(head(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length:0"), Some((503, 0)));
        assert_eq!(head(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked"), None);
        assert_eq!(head(b"SMTP"), None);
    }
}
