//! HTTP: translates requests into commands and into reads of the projections. No business rule lives here.
//!
//! Read in this order:
//! 1. [`mod@router`]: every route, one line each, in groups by who may use them.
//! 2. [`state`]: what handlers hold. [`config`], [`ports`]: what the outside gives.
//! 3. `webhooks`, `ledger/`, `ops/`, `stream`, `health`: the handlers, one per file. [`read`]: their questions. `body`, `desks/`:
//!    what a POST says (`json`: once), and where people act.
//! 4. `edge`, `limits`, [`auth`], `idempotency`: what every request passes, from the outside in. [`problem`]: errors.
//! 5. [`metrics`], `sampler`: what is measured, here and of the whole system.
//! 6. [`mod@serve`]: connections, and a stop that finishes what was accepted.
//!
//! **Architecture Invariants:**
//! - A handler holds either `Queries` (the pool that may read `read`, nothing else) or `Commands`, never both; a query pool
//!   with more rights is refused at start-up.
//! - Every answer with an error status is a problem document (`/readyz`, whose checks are its document, apart). It never
//!   holds a secret, a token, a body or personal data; nor does a log line.
//! - Every route under `/api/v1` stands behind a guard, and the OpenAPI document names the guard's roles.
//! - The webhook is never limited in rate.
//! - Every answer that reflects the journal says which position.
//!
//! What is not here: verification of Stripe's signature and the append (`fanledger-commands`), what projections compute
//! (`fanledger-projections`), TLS (whatever stands in front), and settings from the environment (the binary).

pub mod auth;
mod body;
pub mod config;
mod cursor;
mod desks;
mod docs;
mod edge;
mod health;
mod idempotency;
mod intake;
mod json;
mod ledger;
mod limits;
pub mod metrics;
mod ops;
mod params;
mod patience;
pub mod ports;
pub mod problem;
mod progress;
pub mod read;
pub mod router;
mod sampler;
pub mod serve;
pub mod state;
mod stream;
mod web;
mod webhooks;

pub use auth::{JwtKey, Role, TokenError, mint};
pub use config::{GatewayConfig, RateLimit};
pub use desks::finance::FinanceOffice;
pub use desks::payouts::Payouts;
pub use metrics::Metrics;
pub use ports::{
    ActRefusal, Acted, Desks, FinanceDesk, Finding, IntakeRefusal, Operators, PayoutDesk, PeriodDesk, Probe, Receipt,
    Skip, SkipReceipt, SkipRefusal, WebhookIntake,
};
pub use router::{openapi, router};
pub use serve::{serve, serve_metrics};
pub use state::{GatewayState, Parts, StateError};
