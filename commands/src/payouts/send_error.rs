//! Why a transfer was not sent, and whether it may be yet.

use std::convert::Infallible;
use std::time::Duration;

use fanledger_domain::payout_run::PayoutRunId;
use fanledger_domain::time::TimestampError;

use crate::executor::{ActError, ExecuteError};
use crate::payouts::sender::NAME;
use crate::stripe::api::StripeApiError;

/// Why a line did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// A stream could not be read or appended to.
    #[error("load the payout run, or record what became of a line")]
    Execute(#[from] ExecuteError),
    /// Stripe did not answer, or refuses the key.
    #[error("ask Stripe for the transfer of {line}")]
    Stripe {
        /// The line.
        line: String,
        /// What it said.
        #[source]
        source: StripeApiError,
    },
    /// There is no key to ask Stripe with.
    #[error(
        "{0} is to be sent, or ended, and there is no key to Stripe's API to do it with: set FANLEDGER_STRIPE_API_KEY, start the \
         manager again, then run `fanledger projections resume {NAME}`; nothing was asked for"
    )]
    NoKey(PayoutRunId),
    /// What was asked for before the run was stopped may not have come to its end.
    #[error("{run} was stopped less than {} s ago: what was asked of Stripe before may still be made", .settled_after.as_secs())]
    Settling {
        /// The run.
        run: PayoutRunId,
        /// For how long that is so.
        settled_after: Duration,
    },
    /// What was asked for before the creator was held may not have come to its end.
    #[error(
        "the creator of {line} was held less than {} s ago: what was asked of Stripe before may still be made",
        .settled_after.as_secs()
    )]
    HeldLately {
        /// The line.
        line: String,
        /// For how long that is so.
        settled_after: Duration,
    },
    /// Postgres did not say how long ago the run was stopped, or a creator held.
    #[error("tell how long ago {run} was stopped, or a creator of it held")]
    Age {
        /// The run.
        run: PayoutRunId,
        /// What it said.
        #[source]
        source: sqlx::Error,
    },
    /// What is at Stripe under this line's name is something else.
    #[error(
        "Stripe's {transfer} stands for {line} and is not what was approved ({what}): was the journal restored? See \
         docs/runbooks/payouts.md"
    )]
    Mismatch {
        /// The line.
        line: String,
        /// The transfer at Stripe.
        transfer: String,
        /// In what it differs.
        what: &'static str,
    },
    /// This machine's clock is out of the calendar.
    #[error("tell the time")]
    Clock(#[source] TimestampError),
    /// The journal's id could not be read.
    #[error("read which journal this is")]
    Journal(#[source] sqlx::Error),
}

impl SendError {
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Execute(error) => error.is_transient(),
            Self::Stripe { source, .. } => source.may_pass(),
            Self::Settling { .. } | Self::HeldLately { .. } => true,
            Self::NoKey(_) | Self::Mismatch { .. } | Self::Clock(_) => false,
            Self::Journal(error) | Self::Age { source: error, .. } => fanledger_journal::runner::is_transient(error),
        }
    }
}

impl From<ActError<Infallible>> for SendError {
    fn from(error: ActError<Infallible>) -> Self {
        match error {
            ActError::Refused(never) => match never {},
            ActError::Failed(error) => Self::Execute(error),
        }
    }
}
