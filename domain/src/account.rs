//! The chart of accounts: a typed enum inside, colon-separated text outside.
//!
//! Roots are named as hledger and beancount name theirs, so that exports open there unchanged.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::entry::Side;
use crate::id::{CreatorId, FanId, IdError, Jurisdiction};
use crate::money::{Currency, MoneyError};

/// Where Stripe keeps money of ours that we cannot spend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reserve {
    /// Against the risk of our charges.
    Risk,
    /// Against connected accounts' negative balances.
    Connect,
    /// Held by a payment network.
    Network,
    /// The minimum balance for payouts.
    Minimum,
}

/// What a processing fee was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Processing {
    /// Stripe's fee on payments.
    Payments,
    /// Network costs passed on.
    Network,
    /// Stripe's products: Billing, Tax, Radar, Connect.
    Products,
    /// Currency conversion.
    Fx,
}

/// Why money waits for its meaning. Never netted across reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Suspense {
    /// A charge whose creator is not known.
    Unattributed,
    /// A refund or dispute whose charge is not known.
    UnknownCharge,
    /// A transfer or collection whose creator is not known.
    UnknownCreator,
    /// A balance transaction of a category that we have no rule for.
    UnknownBalanceTransaction,
}

/// In which state a creator's money is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bucket {
    /// Earned, not yet releasable.
    Pending,
    /// May be paid out.
    Available,
    /// Frozen by a dispute.
    Held,
}

macro_rules! accounts {
    (
        plain { $( $(#[$doc:meta])* $name:ident $text:literal $side:ident; )* }
    ) => {
        /// An account of the ledger.
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        #[cfg_attr(feature = "schema", schemars(with = "String"))]
        #[serde(try_from = "String", into = "String")]
        pub enum Account {
            $( $(#[$doc])* $name, )*
            /// `assets:stripe:reserved:<kind>`: ours, not spendable here.
            StripeReserved(Reserve),
            /// `assets:creators:<creator>:receivable`: owed by a creator.
            CreatorReceivable(CreatorId),
            /// `assets:tax-recoverable:<jurisdiction>`: tax withheld from us.
            TaxRecoverable(Jurisdiction),
            /// `liabilities:creators:<creator>:<bucket>`.
            Creator(CreatorId, Bucket),
            /// `liabilities:fans:<fan>:credit`: fan credit, gifts not yet redeemed.
            FanCredit(FanId),
            /// `liabilities:tax:<jurisdiction>`: collected from fans.
            Tax(Jurisdiction),
            /// `liabilities:withholding:<jurisdiction>`: withheld from creators.
            Withholding(Jurisdiction),
            /// `liabilities:suspense:<reason>`.
            Suspense(Suspense),
            /// `equity:fx:<currency>`: the open leg of a conversion.
            EquityFx(Currency),
            /// `expenses:processing-fees:<kind>`.
            ProcessingFees(Processing),
        }

        impl Account {
            fn plain_text(&self) -> Option<&'static str> {
                match self {
                    $( Self::$name => Some($text), )*
                    Self::StripeReserved(_) | Self::CreatorReceivable(_) | Self::TaxRecoverable(_) | Self::Creator(..)
                    | Self::FanCredit(_) | Self::Tax(_) | Self::Withholding(_) | Self::Suspense(_) | Self::EquityFx(_)
                    | Self::ProcessingFees(_) => None,
                }
            }

            fn from_plain_text(text: &str) -> Option<Self> {
                match text {
                    $( $text => Some(Self::$name), )*
                    _ => None,
                }
            }

            /// The creator whose account it is.
            pub fn creator(&self) -> Option<&CreatorId> {
                match self {
                    Self::Creator(creator, _) | Self::CreatorReceivable(creator) => Some(creator),
                    $( Self::$name => None, )*
                    Self::StripeReserved(_) | Self::TaxRecoverable(_) | Self::FanCredit(_) | Self::Tax(_) | Self::Withholding(_)
                    | Self::Suspense(_) | Self::EquityFx(_) | Self::ProcessingFees(_) => None,
                }
            }

            /// The side on which the account normally stands; `None` where either is normal.
            pub fn normal_side(&self) -> Option<Side> {
                match self {
                    $( Self::$name => accounts!(@side $side), )*
                    Self::StripeReserved(_) | Self::CreatorReceivable(_) | Self::TaxRecoverable(_) | Self::ProcessingFees(_) => Some(Side::Debit),
                    Self::Creator(..) | Self::FanCredit(_) | Self::Tax(_) | Self::Withholding(_) | Self::Suspense(_) => Some(Side::Credit),
                    Self::EquityFx(_) => None,
                }
            }
        }
    };
    (@side debit) => { Some(Side::Debit) };
    (@side credit) => { Some(Side::Credit) };
    (@side either) => { None };
}

accounts! {
    plain {
        /// Σ `net` of the platform's balance transactions that were seen, and nothing else.
        StripeClearing "assets:stripe:clearing" debit;
        /// An object was seen and its balance transaction was not, or the reverse.
        StripeUnconfirmed "assets:stripe:unconfirmed" either;
        /// Ours, kept by Stripe elsewhere than in the payments balance.
        StripeOtherBalances "assets:stripe:other-balances" debit;
        /// Paid out to the platform.
        Bank "assets:bank" debit;
        /// On the way to the bank.
        PayoutsInTransit "assets:payouts:in-transit" debit;
        /// Withdrawn by a dispute that is not lost.
        DisputesHeld "assets:disputes:held" debit;
        /// Contra: the expected loss on what creators owe.
        CreatorsAllowance "assets:creators:allowance" credit;
        /// A balance transaction is there, the payment has not succeeded yet.
        PaymentsProcessing "liabilities:payments-processing" credit;
        /// Platform fee not yet earned.
        DeferredRevenue "liabilities:deferred-revenue" credit;
        /// Customers' funds that nobody claims; not income.
        Unclaimed "liabilities:unclaimed" credit;
        /// Loans and advances.
        Financing "liabilities:financing" credit;
        /// The platform's share of what fans paid.
        PlatformFees "income:platform-fees" credit;
        /// Credit that fans never redeemed.
        Breakage "income:breakage" credit;
        /// Rewards and revenue shares.
        OtherIncome "income:other" credit;
        /// Contra: the platform's share given back by refund.
        Refunds "income:refunds" debit;
        /// Contra: the platform's share given back by lost dispute.
        Chargebacks "income:chargebacks" debit;
        /// Contra: discounts that the platform funds.
        Promotions "income:promotions" debit;
        /// Realised exchange differences.
        Fx "income:fx" either;
        /// Fees on payouts.
        PayoutFees "expenses:payout-fees" debit;
        /// Fees on disputes.
        DisputeFees "expenses:dispute-fees" debit;
        /// Tax on Stripe's fees.
        FeeTax "expenses:fee-tax" debit;
        /// Given back beyond the whole of a charge.
        DisputeLosses "expenses:dispute-losses" debit;
        /// Receivables written off.
        BadDebt "expenses:bad-debt" debit;
        /// Climate and other contributions.
        Contributions "expenses:contributions" debit;
    }
}

/// Why a text is not an account.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccountError {
    /// No account has this form.
    #[error(
        "no such form of account: see the chart of accounts, for instance assets:stripe:clearing or liabilities:creators:<creator>:pending"
    )]
    UnknownForm,
    /// The form is known, the id in it is not one.
    #[error("ill-formed id in an account")]
    Id(#[from] IdError),
    /// The form is known, the currency in it is not one.
    #[error("ill-formed currency in an account")]
    Currency(#[from] MoneyError),
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(text) = self.plain_text() {
            return f.write_str(text);
        }
        match self {
            Self::StripeReserved(kind) => write!(f, "assets:stripe:reserved:{}", kind.as_str()),
            Self::CreatorReceivable(creator) => write!(f, "assets:creators:{creator}:receivable"),
            Self::TaxRecoverable(jurisdiction) => write!(f, "assets:tax-recoverable:{jurisdiction}"),
            Self::Creator(creator, bucket) => write!(f, "liabilities:creators:{creator}:{}", bucket.as_str()),
            Self::FanCredit(fan) => write!(f, "liabilities:fans:{fan}:credit"),
            Self::Tax(jurisdiction) => write!(f, "liabilities:tax:{jurisdiction}"),
            Self::Withholding(jurisdiction) => write!(f, "liabilities:withholding:{jurisdiction}"),
            Self::Suspense(reason) => write!(f, "liabilities:suspense:{}", reason.as_str()),
            Self::EquityFx(currency) => write!(f, "equity:fx:{currency}"),
            Self::ProcessingFees(kind) => write!(f, "expenses:processing-fees:{}", kind.as_str()),
            // `plain_text` answered for all others.
            other => unreachable!("{:?} has a plain text", other.plain_text()),
        }
    }
}

impl FromStr for Account {
    type Err = AccountError;
    fn from_str(text: &str) -> Result<Self, AccountError> {
        if let Some(account) = Self::from_plain_text(text) {
            return Ok(account);
        }
        let parts: Vec<&str> = text.split(':').collect();
        Ok(match parts.as_slice() {
            ["assets", "stripe", "reserved", kind] => Self::StripeReserved(Reserve::from_text(kind)?),
            ["assets", "creators", creator, "receivable"] => Self::CreatorReceivable(creator.parse()?),
            ["assets", "tax-recoverable", jurisdiction] => Self::TaxRecoverable(jurisdiction.parse()?),
            ["liabilities", "creators", creator, bucket] => Self::Creator(creator.parse()?, Bucket::from_text(bucket)?),
            ["liabilities", "fans", fan, "credit"] => Self::FanCredit(fan.parse()?),
            ["liabilities", "tax", jurisdiction] => Self::Tax(jurisdiction.parse()?),
            ["liabilities", "withholding", jurisdiction] => Self::Withholding(jurisdiction.parse()?),
            ["liabilities", "suspense", reason] => Self::Suspense(Suspense::from_text(reason)?),
            ["equity", "fx", currency] => Self::EquityFx(Currency::from_code(currency)?),
            ["expenses", "processing-fees", kind] => Self::ProcessingFees(Processing::from_text(kind)?),
            _ => return Err(AccountError::UnknownForm),
        })
    }
}

macro_rules! words {
    ($name:ident { $($variant:ident $text:literal),* $(,)? }) => {
        impl $name {
            /// The word that stands for it in an account's text.
            pub const fn as_str(self) -> &'static str {
                match self { $( Self::$variant => $text, )* }
            }

            fn from_text(text: &str) -> Result<Self, AccountError> {
                match text { $( $text => Ok(Self::$variant), )* _ => Err(AccountError::UnknownForm) }
            }
        }
    };
}

words!(Reserve { Risk "risk", Connect "connect", Network "network", Minimum "minimum" });
words!(Processing { Payments "payments", Network "network", Products "products", Fx "fx" });
words!(Bucket { Pending "pending", Available "available", Held "held" });
words!(Suspense {
    Unattributed "unattributed", UnknownCharge "unknown-charge", UnknownCreator "unknown-creator",
    UnknownBalanceTransaction "unknown-balance-transaction",
});

impl TryFrom<String> for Account {
    type Error = AccountError;
    fn try_from(text: String) -> Result<Self, AccountError> {
        text.parse()
    }
}

impl From<Account> for String {
    fn from(account: Account) -> Self {
        account.to_string()
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_round_trip() {
        for text in [
            "assets:stripe:clearing",
            "assets:stripe:reserved:risk",
            "assets:creators:crt_a-B_9:receivable",
            "assets:creators:allowance",
            "assets:tax-recoverable:us-ca",
            "liabilities:creators:crt_1:pending",
            "liabilities:creators:crt_1:held",
            "liabilities:fans:fan_1:credit",
            "liabilities:tax:unknown",
            "liabilities:withholding:de",
            "liabilities:suspense:unattributed",
            "equity:fx:usd",
            "income:fx",
            "expenses:processing-fees:payments",
            "expenses:dispute-losses",
        ] {
            assert_eq!(text.parse::<Account>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn normal_sides_are_the_chart_s() {
        use Side::{Credit, Debit};
        for (text, side) in [
            ("assets:stripe:clearing", Some(Debit)),
            ("assets:stripe:unconfirmed", None),
            ("assets:stripe:reserved:minimum", Some(Debit)),
            ("assets:creators:crt_1:receivable", Some(Debit)),
            // Contra: it stands against what is receivable.
            ("assets:creators:allowance", Some(Credit)),
            ("assets:tax-recoverable:us-ca", Some(Debit)),
            ("liabilities:creators:crt_1:held", Some(Credit)),
            ("liabilities:fans:fan_1:credit", Some(Credit)),
            ("liabilities:suspense:unknown-charge", Some(Credit)),
            ("income:platform-fees", Some(Credit)),
            ("income:refunds", Some(Debit)),
            ("income:chargebacks", Some(Debit)),
            ("income:fx", None),
            ("equity:fx:usd", None),
            ("expenses:processing-fees:fx", Some(Debit)),
            ("expenses:dispute-losses", Some(Debit)),
        ] {
            assert_eq!(text.parse::<Account>().unwrap().normal_side(), side, "{text}");
        }
    }

    #[test]
    fn other_forms_are_refused() {
        for text in [
            "",
            "assets",
            "assets:stripe:Clearing",
            "assets:stripe:reserved:luck",
            "liabilities:creators:fan_1:pending",
            "liabilities:creators:crt_:pending",
            "liabilities:creators:crt_a b:pending",
            "liabilities:tax:US",
            "equity:fx:USD",
            "equity:fx:xxx",
        ] {
            assert!(text.parse::<Account>().is_err(), "{text}");
        }
    }
}
