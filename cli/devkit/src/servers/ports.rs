//! Ports that are free, and likely to stay so.

use std::net::TcpListener;
use std::path::Path;

use super::{Error, write_file};

/// Below the range that kernels hand out for outgoing connections (32768 on Linux), so that a port which a stopped
/// server wants back is not taken meanwhile by somebody's outgoing connection.
const RANGE: std::ops::Range<u16> = 20_000..32_000;

/// Whether a listener can be bound to 127.0.0.1 at `port` now.
pub(super) fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

/// A port on 127.0.0.1 that is free now.
pub(super) fn free_port() -> Result<u16, Error> {
    (0..200).map(|_| rand::random_range(RANGE)).find(|port| is_free(*port)).ok_or(Error::NoFreePort)
}

/// The port kept in `file` if it is free, else another, which is kept there from now on.
pub(super) fn kept_port(file: &Path) -> Result<u16, Error> {
    let kept = std::fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok());
    if let Some(port) = kept.filter(|port| is_free(*port)) {
        return Ok(port);
    }
    let port = free_port()?;
    write_file(file, &port.to_string())?;
    Ok(port)
}
