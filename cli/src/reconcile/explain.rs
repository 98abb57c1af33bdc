//! Why a balance transaction is on one side only, or not the same on both, where that is known.

use std::collections::BTreeSet;

use fanledger_domain::id::StripeId;
use fanledger_domain::money::Currency;
use fanledger_domain::time::Timestamp;
use fanledger_gateway::read::{self, ReadError, SeenTransaction, Unseen};
use sqlx::PgPool;

use super::is_payout;
use super::report::{MissingHere, Money};

/// Each is looked up; a list with more than so many is of another account or mode, and to explain the first tells it.
const LOOKED_UP_MAX: usize = 1_000;

/// Looks up why we have not seen them.
///
/// # Errors
/// When that cannot be read.
pub async fn missing_here(pool: &PgPool, missing: &mut [MissingHere]) -> Result<(), ReadError> {
    if missing.is_empty() {
        return Ok(());
    }
    let last_webhook = read::last_webhook(pool).await?;
    for missing in missing.iter_mut().take(LOOKED_UP_MAX) {
        let Ok(id) = missing.id.parse::<StripeId>() else { continue };
        let source: Option<StripeId> = missing.source.as_deref().and_then(|source| source.parse().ok());
        let unseen = read::unseen(pool, &id, source.as_ref()).await?;
        missing.explanation = Some(unseen_because(&unseen, missing, last_webhook));
    }
    Ok(())
}

fn unseen_because(unseen: &Unseen, missing: &MissingHere, last_webhook: Option<Timestamp>) -> String {
    let sync = format!("`fanledger stripe sync --since {}` takes it in", missing.created);
    if let Some(object) = &unseen.awaited_by {
        return format!("{object} names it, and it was not fetched yet; {sync}");
    }
    let source = missing.source.as_deref().unwrap_or("its source");
    if let Some(webhook) = &unseen.webhook {
        let id = &webhook.id;
        return match (webhook.has_facts, webhook.reason.as_deref()) {
            (true, _) => format!("{source} is known, and named no such balance transaction so far; {sync}"),
            (false, Some("other_mode")) => {
                format!("webhook {id} about {source} is of the other mode: is the list of the right one?")
            }
            (false, Some(reason)) => {
                format!("webhook {id} about {source} was not translated ({reason}); {sync}")
            }
            (false, None) => format!("webhook {id} about {source} was not translated yet: is the manager running?"),
        };
    }
    let created = missing.created.parse::<Timestamp>().ok();
    match (created, last_webhook) {
        (Some(created), Some(last)) if created > last => {
            format!("it is newer than the last webhook that was received, of {last}; {sync}")
        }
        _ if missing.source.is_none() => format!("no webhook tells of what Stripe books itself; {sync}"),
        _ => format!("no webhook about {source} was received; {sync}"),
    }
}

/// Why the list may not have one of ours.
pub fn missing_there(
    ours: &SeenTransaction,
    currencies: &BTreeSet<Currency>,
    has_payouts: bool,
    last: Option<(Timestamp, i64)>,
) -> Option<String> {
    if !currencies.is_empty() && !currencies.contains(&ours.currency) {
        return Some(format!("the list has nothing in {}: was it exported for other currencies?", ours.currency));
    }
    if is_payout(&ours.reported_as) && !has_payouts {
        return Some(
            "the list has no payouts: Stripe's \"balance change from activity\" leaves them out (--without-payouts)"
                .to_owned(),
        );
    }
    last.filter(|(last, _)| ours.created >= *last).map(|_| {
        "it was made in the last moment that the list tells of, which may have been exported before".to_owned()
    })
}

/// What two of one id differ by.
pub fn difference(ours: &Money, theirs: &Money) -> Option<String> {
    if ours.currency != theirs.currency {
        return Some(format!("the currency differs: {} here, {} there", ours.currency, theirs.currency));
    }
    if ours.amount_minor == theirs.amount_minor {
        return Some("only the fee differs, and the net with it".to_owned());
    }
    let times = |factor: i64| {
        ours.amount_minor.checked_mul(factor) == Some(theirs.amount_minor)
            || theirs.amount_minor.checked_mul(factor) == Some(ours.amount_minor)
    };
    if ours.amount_minor != 0 && theirs.amount_minor != 0 && (times(10) || times(100)) {
        return Some(format!("as if {} had another number of decimals there", ours.currency));
    }
    if ours.amount_minor.checked_neg() == Some(theirs.amount_minor) {
        return Some("the sign differs".to_owned());
    }
    (ours.fee_minor == theirs.fee_minor).then(|| "the amount differs, and the fee does not".to_owned())
}
