//! The platform's policies, by version. The version in force is the one at a charge's `created`, so that a new policy never
//! rewrites what was earned under an old one.

use crate::money::{Currency, Money};
use crate::split::BasisPoints;
use crate::time::Timestamp;

/// What happens to tax when a dispute is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaxOnLostDispute {
    /// It is no longer owed: the sale is undone for tax too.
    Return,
    /// It stays owed, and the platform bears it as a dispute loss.
    Keep,
}

/// One version of the platform's policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The creator's share where metadata is silent.
    pub creator_share: BasisPoints,
    /// Tax on a lost dispute.
    pub tax_on_lost_dispute: TaxOnLostDispute,
    /// How long the platform itself keeps a charge's money from release, in whole days from the charge's balance transaction.
    pub holding_days: u16,
    /// What one person may move alone, in minor units of a currency of two decimals; see [`Policy::approval_above`].
    pub alone_minor_max: i64,
    /// Over how many days payout runs that one person alone proposed and approved count together against that.
    pub alone_days: u16,
    /// The least that is sent to a creator, in minor units of a currency of two decimals; see [`Policy::payout_minimum`].
    pub payout_minor_min: i64,
}

impl Policy {
    /// The most that an act of finance may move on one person's word; above it a second person must agree. As many minor units
    /// in a currency without decimals, whose unit is worth about as much as another's cent; ten times as many where there is a
    /// third decimal.
    pub fn approval_above(&self, currency: Currency) -> Money {
        in_currency(self.alone_minor_max, currency)
    }

    /// Since when what one person alone paid out counts together, at `now`.
    pub fn alone_since(&self, now: Timestamp) -> Timestamp {
        now.plus_days(-i64::from(self.alone_days))
    }

    /// The least that is sent to a creator: below it a transfer costs more attention than it is worth, and what is withheld stays
    /// theirs. In other currencies as [`Policy::approval_above`].
    pub fn payout_minimum(&self, currency: Currency) -> Money {
        in_currency(self.payout_minor_min, currency)
    }

    /// Until when a charge that settled at `settled` is kept from release by the platform's own holding period.
    pub fn held_until(&self, settled: Timestamp) -> Timestamp {
        settled.plus_days(i64::from(self.holding_days))
    }
}

fn in_currency(minor: i64, currency: Currency) -> Money {
    let times = if currency.exponent() > 2 { 10 } else { 1 };
    Money::new(minor.saturating_mul(times), currency)
}

const DEFAULT_SHARE: BasisPoints = match BasisPoints::new(8000) {
    Ok(share) => share,
    Err(_) => panic!("8000 is at most 10000"),
};

/// Every version with the microsecond (since 1970) from which it is in force, oldest first. The first is in force since ever.
const VERSIONS: &[(i64, Policy)] = &[(
    i64::MIN,
    Policy {
        creator_share: DEFAULT_SHARE,
        tax_on_lost_dispute: TaxOnLostDispute::Return,
        holding_days: 0,
        alone_minor_max: 100_000,
        alone_days: 30,
        payout_minor_min: 1_000,
    },
)];

/// The policy in force at `at`.
pub fn in_force(at: Timestamp) -> Policy {
    let (_, first) = VERSIONS[0];
    VERSIONS.iter().rev().find(|(from, _)| *from <= at.as_unix_micros()).map_or(first, |(_, policy)| *policy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_of_the_currency() {
        let alone =
            |code: &str| in_force(Timestamp::from_unix_seconds(0).unwrap()).approval_above(code.parse().unwrap());
        assert_eq!(alone("usd").to_string(), "1000.00 usd");
        assert_eq!(alone("jpy").to_string(), "100000 jpy");
        assert_eq!(alone("kwd").to_string(), "1000.000 kwd");
        let least =
            |code: &str| in_force(Timestamp::from_unix_seconds(0).unwrap()).payout_minimum(code.parse().unwrap());
        assert_eq!(["usd", "jpy", "kwd"].map(|code| least(code).to_string()), ["10.00 usd", "1000 jpy", "10.000 kwd"]);
    }
}
