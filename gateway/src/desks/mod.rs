//! Desks: where people act. `fanledger-commands` behind the gateway's ports, and each refusal as one kind of problem.
//!
//! A receipt, or a decision, may need what only projections know. So a desk may hold a pool of the query role beside the executor;
//! handlers hold neither.

pub(crate) mod finance;
pub(crate) mod payouts;
mod periods;

use std::time::Duration;

use fanledger_commands::executor::ExecuteError;
use fanledger_domain::id::CreatorId;
use fanledger_gateway_api::FieldProblem;
use sqlx::PgPool;

use crate::body::invalid;
use crate::ports::ActRefusal;
use crate::problem::{Kind, Problem};
use crate::read;

impl From<ActRefusal> for Problem {
    fn from(refusal: ActRefusal) -> Self {
        let told = |kind, text: String| Self::new(kind, crate::params::sentence(&text));
        match refusal {
            ActRefusal::Invalid(fields) => invalid(fields.into_iter().map(|fault| (fault.field, fault.message))),
            ActRefusal::Unknown(text) => told(Kind::NotFound, text),
            ActRefusal::SecondPersonNeeded(text) => told(Kind::SecondPersonNeeded, text),
            ActRefusal::AlreadyDecided(text) => told(Kind::AlreadyDecided, text),
            ActRefusal::AlreadyReversed(text) => told(Kind::AlreadyReversed, text),
            ActRefusal::PeriodNotEnded(text) => told(Kind::PeriodNotEnded, text),
            ActRefusal::PeriodNotNext(text) => told(Kind::PeriodNotNext, text),
            ActRefusal::PeriodClosedAlready(text) => told(Kind::PeriodClosedAlready, text),
            ActRefusal::PeriodNotLast(text) => told(Kind::PeriodNotLast, text),
            ActRefusal::PayoutRunOpen(text) => told(Kind::PayoutRunOpen, text),
            ActRefusal::Behind(text) => told(Kind::PositionNotReached, text).retry_after_seconds(1),
            ActRefusal::NotByHand(text) => told(Kind::NotByHand, text),
            ActRefusal::KeyReused(text) => told(Kind::IdempotencyKeyReused, text),
            ActRefusal::LedgerRefused(text) => told(Kind::LedgerRefused, text),
            ActRefusal::Erased(text) => told(Kind::BodyErased, text),
            ActRefusal::KeyMissing(text) => told(Kind::BodyKeyMissing, text),
            ActRefusal::Unavailable(error) => Self::unavailable(error.as_ref()),
            ActRefusal::Failed(error) => Self::internal(error.as_ref()),
        }
    }
}

/// One field that is wrong.
fn field(name: &str, message: impl ToString) -> ActRefusal {
    ActRefusal::Invalid(vec![FieldProblem { field: name.to_owned(), message: message.to_string() }])
}

fn failed(error: ExecuteError) -> ActRefusal {
    if error.is_transient() { ActRefusal::Unavailable(Box::new(error)) } else { ActRefusal::Failed(Box::new(error)) }
}

/// How long is waited for what a receipt hints at.
const HINT_TIMEOUT: Duration = Duration::from_millis(250);

/// Whether nothing is known of a creator, asked before something is said of one. It is a hint beside a receipt: what cannot be asked
/// at once is no hint, and holds up no act.
async fn is_new_creator(queries: &PgPool, creator: &CreatorId) -> bool {
    match tokio::time::timeout(HINT_TIMEOUT, read::is_known_creator(queries, creator)).await {
        Ok(Ok(is_known)) => !is_known,
        Ok(Err(error)) => {
            tracing::debug!(error = %fanledger_commands::with_causes(&error), "it is not known whether a creator is new");
            false
        }
        Err(_) => false,
    }
}
