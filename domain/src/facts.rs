//! Facts: what matters for money of the objects at Stripe, with ids and amounts only and no personal data.
//!
//! A fact is a *snapshot*: how an object looked when an event was made. Snapshots come late, twice and in any order, so each
//! carries an [`EventStamp`], and `crate::observations` keeps the set of them in the order of [`Stamp`]. Reading Stripe's JSON
//! into these types is `crate::stripe`'s work; what they add up to is `crate::books`'s.

use serde::{Deserialize, Serialize};

use crate::id::{CreatorId, FanId, Jurisdiction, StripeId};
use crate::money::Currency;
use crate::split::{BasisPoints, proportion};
use crate::time::Timestamp;

macro_rules! fact {
    ($(#[$doc:meta])* pub struct $name:ident { $( $(#[$field_doc:meta])* pub $field:ident : $type:ty, )* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        pub struct $name { $( $(#[$field_doc])* pub $field: $type, )* }
    };
}

macro_rules! status {
    ($(#[$doc:meta])* pub enum $name:ident { $( $(#[$variant_doc:meta])* $variant:ident $text:literal, )* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        pub enum $name { $( $(#[$variant_doc])* #[serde(rename = $text)] $variant, )* }

        impl $name {
            /// Stripe's word for it.
            pub const fn as_str(self) -> &'static str {
                match self { $( Self::$variant => $text, )* }
            }

            /// From Stripe's word; `None` for a word that is not known.
            pub fn from_text(text: &str) -> Option<Self> {
                match text { $( $text => Some(Self::$variant), )* _ => None }
            }
        }
    };
}

fact! {
    /// The Stripe event that a snapshot came with. The order of the fields is the order of time: later `created` wins,
    /// then (in [`Stamp`]) the later status, then the greater id. `created` has one-second granularity.
    pub struct EventStamp {
        /// The event's `created`.
        pub created: Timestamp,
        /// The event's id.
        pub event: StripeId,
    }
}

/// Which of two snapshots of one object is newer. `S` is the object's status in the order of its life.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp<S> {
    /// The event's `created`.
    pub created: Timestamp,
    /// The later status wins within a second.
    pub status: S,
    /// Then the greater event id.
    pub event: StripeId,
}

impl EventStamp {
    /// The full order, with the snapshot's status.
    pub fn with_status<S>(&self, status: S) -> Stamp<S> {
        Stamp { created: self.created, status, event: self.event.clone() }
    }
}

status! {
    /// Of a charge, in the order of its life. A charge is *captured* by its `captured` flag, not by a status of Stripe's.
    pub enum ChargeStatus {
        /// Not final yet: a bank debit under way.
        Pending "pending",
        /// Paid, or authorised where not captured.
        Succeeded "succeeded",
        /// Failed, perhaps days after it succeeded.
        Failed "failed",
    }
}

status! {
    /// Of a refund, in the order of its life.
    pub enum RefundStatus {
        /// Under way; counts.
        Pending "pending",
        /// The fan must act; does not count.
        RequiresAction "requires_action",
        /// Done; counts.
        Succeeded "succeeded",
        /// Taken back.
        Canceled "canceled",
        /// Did not reach the fan.
        Failed "failed",
    }
}

status! {
    /// Of a dispute, in the order of its life.
    pub enum DisputeStatus {
        /// An inquiry; moves no money.
        WarningNeedsResponse "warning_needs_response",
        /// An inquiry; moves no money.
        WarningUnderReview "warning_under_review",
        /// An inquiry; moves no money.
        WarningClosed "warning_closed",
        /// Prevented before it became one.
        Prevented "prevented",
        /// Open.
        NeedsResponse "needs_response",
        /// Open, answered.
        UnderReview "under_review",
        /// Ended for us.
        Won "won",
        /// Ended against us; may follow `won`.
        Lost "lost",
    }
}

status! {
    /// Of a payout, in the order of its life.
    pub enum PayoutStatus {
        /// Made, not sent.
        Pending "pending",
        /// Sent.
        InTransit "in_transit",
        /// Arrived, as far as Stripe knows.
        Paid "paid",
        /// Cancelled before it was sent.
        Canceled "canceled",
        /// Came back, perhaps after `paid`.
        Failed "failed",
    }
}

status! {
    /// Of a top-up, in the order of its life.
    pub enum TopupStatus {
        /// Under way.
        Pending "pending",
        /// Arrived.
        Succeeded "succeeded",
        /// Cancelled.
        Canceled "canceled",
        /// Did not arrive.
        Failed "failed",
        /// Went back.
        Reversed "reversed",
    }
}

status! {
    /// What a fan paid for.
    pub enum PaymentKind {
        /// A period of a subscription.
        Subscription "subscription",
        /// A tip.
        Tip "tip",
        /// A post.
        Unlock "unlock",
    }
}

status! {
    /// Why the whole of an object's attribution metadata is refused. Names the key, never the value: it may be anything.
    pub enum AttributionProblem {
        /// `creator_id` is not of the form `crt_…`.
        CreatorId "creator_id",
        /// `fan_id` is not of the form `fan_…`.
        FanId "fan_id",
        /// `kind` is none of subscription, tip, unlock.
        Kind "kind",
        /// `creator_share_bps` is not a whole number from 0 to 10000.
        CreatorShareBps "creator_share_bps",
        /// `tax_minor` is not a whole number of minor units, zero or more.
        TaxMinor "tax_minor",
        /// `tax_jurisdiction` is ill-formed.
        TaxJurisdiction "tax_jurisdiction",
        /// The tax is more than what was captured.
        TaxAboveCaptured "tax_above_captured",
    }
}

fact! {
    /// Whose money it is, as somebody wrote it into an object's metadata at Stripe.
    pub struct Attribution {
        /// The creator.
        pub creator: CreatorId,
        /// The fan, where named.
        pub fan: Option<FanId>,
        /// What was paid for, where named.
        pub kind: Option<PaymentKind>,
        /// The creator's share of the net, where named; else the platform's policy.
        pub share: Option<BasisPoints>,
        /// Tax inside the gross in minor units of the presentment currency, where named.
        pub tax_minor: Option<i64>,
        /// Whose tax, where named.
        pub tax_jurisdiction: Option<Jurisdiction>,
    }
}

/// What one object's metadata says about whose money a charge is. Taken whole, never merged by key.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Offer {
    /// No `creator_id`: look at the next object.
    #[default]
    Silent,
    /// A valid attribution.
    Valid(Attribution),
    /// There is a `creator_id`, and something about the metadata is invalid: the charge is unattributed, with no falling through.
    Invalid(AttributionProblem),
}

/// From which object an offer comes, in the order in which they are looked at (the charge's own metadata comes before all).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum OfferRank {
    /// The charge's payment intent; for a transfer, its destination account.
    PaymentIntent,
    /// The checkout session.
    CheckoutSession,
    /// The invoice's own metadata.
    Invoice,
    /// What the invoice remembers of its subscription's metadata (`subscription_details.metadata`).
    InvoiceSubscription,
    /// The subscription's metadata.
    Subscription,
    /// A connected account's metadata: whose account it is.
    Account,
}

fact! {
    /// What one snapshot of an attribution source says.
    pub struct SourceOffer {
        /// Where it stands in the order.
        pub rank: OfferRank,
        /// Its attribution metadata.
        pub offer: Offer,
        /// The tax inside its total that an invoice or session states, in minor units.
        pub tax_minor: Option<i64>,
        /// That total, in minor units, and a debt of the customer's that was due with it: what a charge may pay only a part of, and of
        /// its tax.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub total_minor: Option<i64>,
    }
}

impl SourceOffer {
    /// What it says, and no tax.
    pub const fn new(rank: OfferRank, offer: Offer) -> Self {
        Self { rank, offer, tax_minor: None, total_minor: None }
    }

    /// The stated tax inside `captured` minor units: whole, or the same part of it as they are of the total, rounded down.
    pub fn tax_of(&self, captured: i64) -> Option<i64> {
        let (tax, total) = (self.tax_minor?, self.total_minor.unwrap_or(captured));
        if captured >= total {
            return Some(tax);
        }
        i64::try_from(proportion(tax.into(), captured.into(), total.into())).ok()
    }
}

fact! {
    /// A charge (`ch_…`, `py_…`).
    pub struct ChargeSnapshot {
        /// The charge.
        pub id: StripeId,
        /// When it was made at Stripe.
        pub created: Timestamp,
        /// Presentment currency.
        pub currency: Currency,
        /// What was asked for, in minor units.
        pub amount: i64,
        /// What was captured (`amount_captured`, else `amount`); meaningful when `captured`.
        pub amount_captured: i64,
        /// `status`, or derived from `paid` where there is none.
        pub status: ChargeStatus,
        /// Whether it is captured, not only authorised.
        pub captured: bool,
        /// Its payment intent.
        pub payment_intent: Option<StripeId>,
        /// Its invoice, as versions before basil say it.
        pub invoice: Option<StripeId>,
        /// Its balance transaction, where the event names it.
        pub balance_transaction: Option<StripeId>,
        /// The balance transaction of its failure, where named.
        pub failure_balance_transaction: Option<StripeId>,
        /// Its own attribution metadata.
        pub offer: Offer,
    }
}

fact! {
    /// A refund (`re_…`, `pyr_…`).
    pub struct RefundSnapshot {
        /// The refund.
        pub id: StripeId,
        /// When it was made.
        pub created: Timestamp,
        /// Its currency, the charge's presentment currency.
        pub currency: Currency,
        /// How much, in minor units.
        pub amount: i64,
        /// Where it stands; `succeeded` where an old version has no status.
        pub status: RefundStatus,
        /// The charge that it refunds.
        pub charge: Option<StripeId>,
        /// The payment intent that it refunds.
        pub payment_intent: Option<StripeId>,
        /// Its balance transaction, where named.
        pub balance_transaction: Option<StripeId>,
        /// The balance transaction of its failure, where named.
        pub failure_balance_transaction: Option<StripeId>,
    }
}

fact! {
    /// A dispute (`dp_…`, `du_…`). Its balance transactions are facts of their own.
    pub struct DisputeSnapshot {
        /// The dispute.
        pub id: StripeId,
        /// When it was opened.
        pub created: Timestamp,
        /// The currency of the disputed amount.
        pub currency: Currency,
        /// The disputed amount, which may differ from the charge's.
        pub amount: i64,
        /// Where it stands.
        pub status: DisputeStatus,
        /// The charge.
        pub charge: Option<StripeId>,
        /// The balance transaction that versions before the list of them name; often the first of the list.
        pub balance_transaction: Option<StripeId>,
    }
}

fact! {
    /// A part that was reversed or refunded of a transfer or an application fee.
    pub struct Reversal {
        /// `trr_…` or `fr_…`.
        pub id: StripeId,
        /// When.
        pub created: Timestamp,
        /// How much, in minor units.
        pub amount: i64,
        /// Its balance transaction, where named.
        pub balance_transaction: Option<StripeId>,
    }
}

fact! {
    /// A transfer to a connected account (`tr_…`).
    pub struct TransferSnapshot {
        /// The transfer.
        pub id: StripeId,
        /// When.
        pub created: Timestamp,
        /// Its currency.
        pub currency: Currency,
        /// How much, in minor units.
        pub amount: i64,
        /// How much of it was reversed, in all.
        pub amount_reversed: i64,
        /// The reversals that the event embeds.
        pub reversals: Vec<Reversal>,
        /// The connected account.
        pub destination: Option<StripeId>,
        /// Its balance transaction, where named.
        pub balance_transaction: Option<StripeId>,
        /// Its own metadata; only the creator matters.
        pub offer: Offer,
    }
}

fact! {
    /// A payout of the platform (`po_…`).
    pub struct PayoutSnapshot {
        /// The payout.
        pub id: StripeId,
        /// When.
        pub created: Timestamp,
        /// Its currency.
        pub currency: Currency,
        /// How much, in minor units. Negative where Stripe debits our bank.
        pub amount: i64,
        /// Where it stands.
        pub status: PayoutStatus,
        /// Its balance transaction, where named.
        pub balance_transaction: Option<StripeId>,
        /// The balance transaction of its failure, where named.
        pub failure_balance_transaction: Option<StripeId>,
    }
}

fact! {
    /// An application fee (`fee_…`).
    pub struct ApplicationFeeSnapshot {
        /// The fee.
        pub id: StripeId,
        /// When.
        pub created: Timestamp,
        /// Its currency.
        pub currency: Currency,
        /// How much, in minor units.
        pub amount: i64,
        /// How much of it was refunded, in all.
        pub amount_refunded: i64,
        /// The refunds that the event embeds.
        pub refunds: Vec<Reversal>,
        /// The connected account that paid it.
        pub account: Option<StripeId>,
        /// The platform's own charge behind a destination charge; then the fee comes out of the creator's money.
        pub originating_transaction: Option<StripeId>,
        /// Its balance transaction, where named.
        pub balance_transaction: Option<StripeId>,
    }
}

fact! {
    /// A top-up of the platform's balance from its bank (`tu_…`).
    pub struct TopupSnapshot {
        /// The top-up.
        pub id: StripeId,
        /// When.
        pub created: Timestamp,
        /// Its currency.
        pub currency: Currency,
        /// How much, in minor units.
        pub amount: i64,
        /// Where it stands.
        pub status: TopupStatus,
        /// Its balance transaction, where named.
        pub balance_transaction: Option<StripeId>,
    }
}

status! {
    /// What a balance transaction is, by its `reporting_category`; derived from `type`, the source's prefix and the sign
    /// for data that has none. `crate::books::balance_transaction` says which account each one moves where no object does.
    pub enum Category {
        /// A payment.
        Charge "charge",
        /// A payment that failed after it succeeded.
        ChargeFailure "charge_failure",
        /// The uncaptured part of an authorisation goes back.
        PartialCaptureReversal "partial_capture_reversal",
        /// A refund.
        Refund "refund",
        /// A refund that came back.
        RefundFailure "refund_failure",
        /// Withdrawn by a dispute.
        Dispute "dispute",
        /// Reinstated by a dispute.
        DisputeReversal "dispute_reversal",
        /// A fee of Stripe's for its products.
        ProductFee "product_fee",
        /// A fee on disputes.
        DisputeFee "dispute_fee",
        /// A fee on payouts.
        PayoutFee "payout_fee",
        /// A fee for conversion.
        FxFee "fx_fee",
        /// Network costs.
        NetworkCost "network_cost",
        /// Tax on Stripe's fees.
        Tax "tax",
        /// Tax withheld from us.
        TaxWithholding "tax_withholding",
        /// Ours, kept elsewhere at Stripe: tax fund, advances, inbound and balance transfers, authorisation holds.
        OtherBalance "other_balance",
        /// A payout.
        Payout "payout",
        /// A payout that came back.
        PayoutReversal "payout_reversal",
        /// A top-up.
        Topup "topup",
        /// A top-up that went back.
        TopupReversal "topup_reversal",
        /// A transfer to a connected account.
        Transfer "transfer",
        /// A transfer that came back.
        TransferReversal "transfer_reversal",
        /// An application fee.
        PlatformEarning "platform_earning",
        /// An application fee given back.
        PlatformEarningRefund "platform_earning_refund",
        /// Collected from a connected account's negative balance.
        ConnectCollection "connect_collection",
        /// Reserved for connected accounts.
        ReserveConnect "reserve_connect",
        /// Reserved for risk.
        ReserveRisk "reserve_risk",
        /// Reserved by a network.
        ReserveNetwork "reserve_network",
        /// Kept as a minimum balance.
        ReserveMinimum "reserve_minimum",
        /// One currency into another.
        CurrencyConversion "currency_conversion",
        /// Loans, advances and their repayment.
        Financing "financing",
        /// Climate and other contributions.
        Contribution "contribution",
        /// Customers' funds that could not be matched.
        UnreconciledCustomerFunds "unreconciled_customer_funds",
        /// Rewards and revenue shares.
        OtherIncome "other_income",
        /// Anything else: to suspense, and raised.
        Unknown "unknown",
    }
}

status! {
    /// `fee_details.type`.
    pub enum FeeType {
        /// Stripe's own fee.
        Stripe "stripe_fee",
        /// Passed on from the payment method.
        Passthrough "payment_method_passthrough_fee",
        /// Tax on the fee.
        Tax "tax",
        /// Tax withheld from us.
        WithheldTax "withheld_tax",
        /// On connected accounts only.
        Application "application_fee",
        /// Anything else: treated as Stripe's own.
        Other "other",
    }
}

fact! {
    /// One part of a balance transaction's fee. In the balance transaction's currency; negative when returned.
    pub struct FeeDetail {
        /// What for.
        pub fee_type: FeeType,
        /// In minor units.
        pub amount: i64,
    }
}

fact! {
    /// A balance transaction (`txn_…`): how an object moved the platform's balance at Stripe. `net = amount − fee`, checked when read.
    pub struct BalanceTransaction {
        /// The balance transaction.
        pub id: StripeId,
        /// When the balance moved.
        pub created: Timestamp,
        /// From when its money can be paid out.
        pub available_on: Timestamp,
        /// The settlement currency.
        pub currency: Currency,
        /// Gross, in minor units; negative when money leaves.
        pub amount: i64,
        /// Fee; negative when returned.
        pub fee: i64,
        /// `amount − fee`.
        pub net: i64,
        /// The fee's parts, as far as they are listed; what they leave goes to the row's own fee account.
        pub fee_details: Vec<FeeDetail>,
        /// What it is.
        pub category: Category,
        /// Stripe's own word (`reporting_category`, else `type`), for people.
        pub reported_as: String,
        /// The object that moved it.
        pub source: Option<StripeId>,
    }
}

fact! {
    /// A connected account (`acct_…`), as far as paying it goes.
    pub struct ConnectedAccountSnapshot {
        /// The account.
        pub id: StripeId,
        /// Whose it is, by its metadata.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        pub creator: Option<CreatorId>,
        /// Whether transfers to it are allowed (`capabilities.transfers` is `active`).
        pub transfers_active: bool,
        /// Whether Stripe pays it out (`payouts_enabled`).
        pub payouts_enabled: bool,
        /// How many requirements are due now or past due.
        pub requirements_due: u32,
        /// Stripe's word for why it is disabled, where it is (`requirements.disabled_reason`).
        #[serde(skip_serializing_if = "Option::is_none", default)]
        pub disabled_reason: Option<String>,
    }
}

impl ConnectedAccountSnapshot {
    /// Whether money sent to it reaches its owner: nothing is missing, and nothing will be soon.
    pub const fn is_payable(&self) -> bool {
        self.transfers_active && self.payouts_enabled && self.requirements_due == 0 && self.disabled_reason.is_none()
    }
}
