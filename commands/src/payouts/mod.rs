//! Paying creators: what finance asks for ([`desk`]), and who sends it ([`sender`]).
//!
//! A run is decided in its own stream, each of its lines ends in a stream of its own, and that a transfer moved money is the
//! transfer's own fact. So nothing here spans two streams: whatever is broken off is found again by what is missing.

pub mod desk;
mod look;
mod send_error;
pub mod sender;
pub mod transaction;
