//! The event store over Postgres, the relay to NATS, and the runner of projections.
//!
//! Reading order: [`event`] (positions, streams, events), [`append`] and [`writer`] (the one way in), [`reader`],
//! [`digest`] and [`verify`] (what makes it tamper-evident), [`database`] (roles and schema). The rules themselves are in
//! SQL, in `migrations/`, because they must hold for every writer, ours or not. Then [`relay`], [`message`] and [`feed`] (to NATS
//! and back), [`runner`], [`checkpoint`] and [`generation`] (what drives projections and process managers).
//!
//! Invariants:
//! - Events enter through the SQL function `journal.append` alone.
//! - Positions are dense and in commit order; position order is the only order that anything uses.
//! - Each event is chained to the one before it.
//! - An answer `Appended` means durable.
//! - Every read is one short statement, or pages of them: nobody holds a snapshot.
//!
//! Not here: what an event means. This crate knows events as bytes and positions; `fanledger-domain` knows the rest, and
//! the check of the books is passed in to [`verify::verify`].

pub mod append;
mod backoff;
mod batch;
pub mod checkpoint;
pub mod copy;
pub mod database;
pub mod digest;
pub mod event;
pub mod feed;
pub mod generation;
pub mod message;
pub mod nats;
mod notices;
pub mod reader;
pub mod relay;
pub mod runner;
mod sequences;
pub mod verify;
pub mod writer;
