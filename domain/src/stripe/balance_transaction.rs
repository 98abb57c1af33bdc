//! Balance transactions (<https://docs.stripe.com/api/balance_transactions>, <https://docs.stripe.com/reports/reporting-categories>).
//!
//! Fetched, listed and embedded ones are read alike. The description is looked at, to tell a dispute's fee from another, and not
//! kept: it is written by people and names them.

use serde_json::Value;

use crate::facts::{BalanceTransaction, Category, FeeDetail, FeeType};
use crate::id::{StripeId, StripeKind};

use super::read::{Object, Unreadable};

/// Reads a balance transaction, fetched, listed or embedded. Refuses one whose `net` is not `amount − fee`.
pub fn read_balance_transaction(value: &Value) -> Result<BalanceTransaction, Unreadable> {
    read(&Object::new(value, String::new())?)
}

pub(super) fn read(object: &Object<'_>) -> Result<BalanceTransaction, Unreadable> {
    object.expect_kind("balance_transaction")?;
    let currency = object.currency()?;
    let amount = object.require("amount", object.signed("amount")?)?;
    let fee = object.require("fee", object.signed("fee")?)?;
    let net = object.require("net", object.signed("net")?)?;
    // Both are at most 2^53, so the difference cannot overflow.
    if net != amount - fee {
        return Err(object.refuse("net", "is not amount - fee"));
    }
    let source = object.reference("source")?;
    let words = Words {
        reporting_category: object.text("reporting_category")?,
        old_type: object.text("type")?,
        description: object.text("description")?.unwrap_or_default().to_ascii_lowercase(),
        source: source.as_ref().map(StripeId::kind),
        // A dispute's fee alone, given back or taken, moves no gross.
        inward: if amount == 0 { net > 0 } else { amount > 0 },
    };
    let reported_as = object.require("type", words.reporting_category.or(words.old_type))?;
    Ok(BalanceTransaction {
        id: object.id()?,
        created: object.created()?,
        available_on: object.require("available_on", object.time("available_on")?)?,
        currency,
        amount,
        fee,
        net,
        fee_details: object
            .list("fee_details")?
            .iter()
            .map(|detail| fee_detail(detail, currency))
            .collect::<Result<_, _>>()?,
        category: words.category(),
        reported_as: if is_word(reported_as) { reported_as.to_owned() } else { Category::Unknown.as_str().to_owned() },
        source,
    })
}

fn fee_detail(detail: &Object<'_>, currency: crate::money::Currency) -> Result<FeeDetail, Unreadable> {
    if detail.get("currency").is_some() && detail.currency()? != currency {
        return Err(detail.refuse("currency", "is not the balance transaction's"));
    }
    let fee_type = detail.text("type")?.and_then(FeeType::from_text).unwrap_or(FeeType::Other);
    Ok(FeeDetail { fee_type, amount: detail.require("amount", detail.signed("amount")?)? })
}

/// Stripe's own words are like this; nothing else is kept.
fn is_word(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

/// What a balance transaction says about what it is.
struct Words<'a> {
    reporting_category: Option<&'a str>,
    old_type: Option<&'a str>,
    description: String,
    source: Option<StripeKind>,
    /// Whether it raised the balance.
    inward: bool,
}

impl Words<'_> {
    /// The list is open on Stripe's side: a word that is not here is [`Category::Unknown`], which goes to suspense.
    fn category(&self) -> Category {
        match (self.reporting_category, self.old_type) {
            (Some("fee"), old_type) => self.fee(old_type),
            (Some(category), _) => by_reporting_category(category),
            (None, Some("stripe_fee")) => self.fee(None),
            (None, Some("adjustment")) => self.adjustment(),
            // A refund's source is the refund; where it is the charge, what was not captured of it went back.
            (None, Some("refund")) if self.source == Some(StripeKind::Charge) => Category::PartialCaptureReversal,
            // Until 2017 payouts were transfers, to Stripe's own ledger too.
            (None, Some("transfer")) if self.source == Some(StripeKind::Payout) => Category::Payout,
            (None, Some("transfer_refund" | "transfer_cancel" | "transfer_failure"))
                if self.source == Some(StripeKind::Payout) =>
            {
                Category::PayoutReversal
            }
            (None, Some(old_type)) => by_type(old_type),
            (None, None) => Category::Unknown,
        }
    }

    fn mentions(&self, words: &[&str]) -> bool {
        words.iter().any(|word| self.description.contains(word))
    }

    fn fee(&self, old_type: Option<&str>) -> Category {
        match (old_type, self.source) {
            (Some("stripe_fx_fee"), _) => Category::FxFee,
            (Some("tax_fee"), _) => Category::Tax,
            (Some("network_cost"), _) => Category::NetworkCost,
            (_, Some(StripeKind::Dispute)) => Category::DisputeFee,
            (_, Some(StripeKind::Payout)) => Category::PayoutFee,
            _ if self.mentions(&["dispute", "chargeback"]) => Category::DisputeFee,
            _ if self.mentions(&["payout"]) => Category::PayoutFee,
            _ => Category::ProductFee,
        }
    }

    /// `adjustment` was used for disputes, and for refunds that came back. Before disputes had ids (2015) its source was the charge,
    /// and only the description tells.
    fn adjustment(&self) -> Category {
        let dispute = if self.inward { Category::DisputeReversal } else { Category::Dispute };
        match self.source {
            Some(StripeKind::Dispute) => dispute,
            Some(StripeKind::Refund) => Category::RefundFailure,
            Some(StripeKind::Charge) | None if self.mentions(&["dispute", "chargeback"]) => dispute,
            Some(StripeKind::Charge) | None if self.mentions(&["refund"]) => Category::RefundFailure,
            _ => Category::Unknown,
        }
    }
}

fn by_reporting_category(word: &str) -> Category {
    match word {
        "charge" => Category::Charge,
        "charge_failure" => Category::ChargeFailure,
        "partial_capture_reversal" => Category::PartialCaptureReversal,
        "refund" => Category::Refund,
        "refund_failure" => Category::RefundFailure,
        "dispute" => Category::Dispute,
        "dispute_reversal" => Category::DisputeReversal,
        "network_cost" => Category::NetworkCost,
        "fee_credit_funding" => Category::ProductFee,
        "tax" => Category::Tax,
        "tax_withholding" => Category::TaxWithholding,
        "payout" => Category::Payout,
        "payout_reversal" => Category::PayoutReversal,
        "topup" => Category::Topup,
        "topup_reversal" => Category::TopupReversal,
        "transfer" => Category::Transfer,
        "transfer_reversal" => Category::TransferReversal,
        "platform_earning" => Category::PlatformEarning,
        "platform_earning_refund" => Category::PlatformEarningRefund,
        "connect_collection_transfer" => Category::ConnectCollection,
        "connect_reserved_funds" => Category::ReserveConnect,
        "risk_reserved_funds" => Category::ReserveRisk,
        "payment_network_reserve_hold" | "payment_network_reserve_release" => Category::ReserveNetwork,
        "payout_minimum_balance_hold" | "payout_minimum_balance_release" => Category::ReserveMinimum,
        "tax_fund"
        | "advance"
        | "advance_funding"
        | "inbound_transfer"
        | "inbound_transfer_reversal"
        | "issuing_authorization_hold"
        | "issuing_authorization_release" => Category::OtherBalance,
        "currency_conversion" => Category::CurrencyConversion,
        "anticipation_repayment" => Category::Financing,
        "contribution" => Category::Contribution,
        "unreconciled_customer_funds" => Category::UnreconciledCustomerFunds,
        "reward" | "revenue_share" => Category::OtherIncome,
        _ if word.starts_with("balance_transfer_") => Category::OtherBalance,
        _ if word.starts_with("financing_") || word.starts_with("obligation_") => Category::Financing,
        _ if word.starts_with("climate_order_") => Category::Contribution,
        _ => Category::Unknown,
    }
}

/// `type`, for data from before 2019-10-17, when `reporting_category` came. Words that mean the same in both are shared.
fn by_type(word: &str) -> Category {
    match word {
        "payment" => Category::Charge,
        "payment_failure_refund" | "payment_reversal" => Category::ChargeFailure,
        "payment_refund" => Category::Refund,
        "stripe_fx_fee" => Category::FxFee,
        "tax_fee" => Category::Tax,
        "payout_failure" | "payout_cancel" => Category::PayoutReversal,
        "transfer_refund" | "transfer_cancel" | "transfer_failure" => Category::TransferReversal,
        "application_fee" => Category::PlatformEarning,
        "application_fee_refund" => Category::PlatformEarningRefund,
        "reserve_transaction" => Category::ReserveConnect,
        "reserved_funds" | "reserve_hold" | "reserve_release" => Category::ReserveRisk,
        "payment_unreconciled" => Category::UnreconciledCustomerFunds,
        // As a type it says nothing of where the money is.
        "tax" | "fee" => Category::Unknown,
        shared => by_reporting_category(shared),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn sample() -> Value {
        json!({
            "id": "txn_1", "object": "balance_transaction", "amount": 1099, "fee": 62, "net": 1037, "currency": "usd",
            "created": 1_700_000_000, "available_on": 1_700_200_000, "type": "charge", "reporting_category": "charge",
            "source": "ch_1", "description": "Subscription of Jane Doe",
            "fee_details": [
                { "type": "stripe_fee", "amount": 50, "currency": "usd" },
                { "type": "tax", "amount": 12, "currency": "usd" },
            ],
        })
    }

    fn category(
        reporting_category: Option<&str>,
        old_type: &str,
        source: Option<&str>,
        amount: i64,
        description: &str,
    ) -> Category {
        let mut value = sample();
        value["reporting_category"] = json!(reporting_category);
        value["type"] = json!(old_type);
        value["source"] = json!(source);
        value["amount"] = json!(amount);
        value["net"] = json!(amount - 62);
        value["description"] = json!(description);
        read_balance_transaction(&value).unwrap().category
    }

    #[test]
    fn reads_the_parts_and_drops_the_description() {
        let read = read_balance_transaction(&sample()).unwrap();
        assert_eq!((read.amount, read.fee, read.net), (1099, 62, 1037));
        assert_eq!(
            read.fee_details,
            [FeeDetail { fee_type: FeeType::Stripe, amount: 50 }, FeeDetail { fee_type: FeeType::Tax, amount: 12 }]
        );
        assert_eq!(read.category, Category::Charge);
        assert_eq!(read.reported_as, "charge");
        assert!(!format!("{read:?}").contains("Jane"));
    }

    #[test]
    fn refuses_what_does_not_add_up() {
        for (key, value, error) in [
            ("net", json!(1038), "net is not amount - fee"),
            ("amount", json!(9_007_199_254_740_992_i64), "amount is not a whole number of at most 2^53 - 1"),
            ("amount", json!(i64::MIN), "amount is not a whole number of at most 2^53 - 1"),
            ("amount", json!(u64::MAX), "amount is not a whole number of at most 2^53 - 1"),
            ("fee", json!(62.0), "fee is not a whole number of at most 2^53 - 1"),
            ("fee", json!(null), "fee is missing"),
            ("currency", json!("zzz"), "currency is not a currency that we know"),
            ("created", json!(i64::MAX), "created is not a time in Unix seconds"),
            ("available_on", json!(null), "available_on is missing"),
            ("source", json!("jane doe"), "source is not an id of Stripe's"),
            (
                "fee_details",
                json!([{ "amount": "1" }]),
                "fee_details[0].amount is not a whole number of at most 2^53 - 1",
            ),
            (
                "fee_details",
                json!([{ "amount": 1, "currency": "eur" }]),
                "fee_details[0].currency is not the balance transaction's",
            ),
            ("object", json!("charge"), "object is not what events of this type are about"),
        ] {
            let mut object = sample();
            object[key] = value;
            assert_eq!(read_balance_transaction(&object).unwrap_err().to_string(), error);
        }
        assert_eq!(read_balance_transaction(&json!([])).unwrap_err().to_string(), "the object is not an object");
    }

    #[test]
    fn fees_go_where_they_come_from() {
        for (old_type, source, description, expected) in [
            ("stripe_fee", None, "Billing - Usage Fee (2024-01)", Category::ProductFee),
            ("stripe_fee", None, "Radar (2024-01-02): Fraud Teams", Category::ProductFee),
            ("stripe_fee", Some("du_1"), "", Category::DisputeFee),
            ("stripe_fee", None, "Dispute fee", Category::DisputeFee),
            ("stripe_fee", Some("po_1"), "", Category::PayoutFee),
            ("stripe_fee", None, "Instant Payout Fee", Category::PayoutFee),
        ] {
            assert_eq!(category(Some("fee"), old_type, source, -100, description), expected, "{description}");
            assert_eq!(category(None, old_type, source, -100, description), expected, "{description}");
        }
        assert_eq!(category(Some("fee"), "stripe_fx_fee", None, -100, ""), Category::FxFee);
        assert_eq!(category(None, "stripe_fx_fee", None, -100, ""), Category::FxFee);
        assert_eq!(category(None, "tax_fee", None, -100, ""), Category::Tax);
    }

    #[test]
    fn old_types_read_by_prefix_and_sign() {
        for (old_type, source, amount, description, expected) in [
            ("payment", Some("py_1"), 100, "", Category::Charge),
            ("payment_failure_refund", Some("py_1"), -100, "", Category::ChargeFailure),
            ("payment_refund", Some("pyr_1"), -100, "", Category::Refund),
            ("refund", Some("re_1"), -100, "", Category::Refund),
            ("refund", Some("ch_1"), -100, "", Category::PartialCaptureReversal),
            ("adjustment", Some("dp_1"), -100, "", Category::Dispute),
            ("adjustment", Some("du_1"), 100, "", Category::DisputeReversal),
            ("adjustment", Some("dp_1"), 0, "", Category::Dispute),
            ("adjustment", Some("re_1"), 100, "", Category::RefundFailure),
            ("adjustment", Some("ch_1"), -100, "Chargeback withdrawal for ch_1", Category::Dispute),
            ("adjustment", Some("ch_1"), 100, "Chargeback reversal for ch_1", Category::DisputeReversal),
            ("adjustment", None, 100, "REFUND FAILURE (something)", Category::RefundFailure),
            ("adjustment", Some("ch_1"), 100, "a gift", Category::Unknown),
            ("transfer", Some("tr_1"), -100, "", Category::Transfer),
            ("transfer", Some("po_1"), -100, "", Category::Payout),
            ("transfer_failure", Some("tr_1"), 100, "", Category::TransferReversal),
            ("transfer_failure", Some("po_1"), 100, "", Category::PayoutReversal),
            ("payout_failure", Some("po_1"), 100, "", Category::PayoutReversal),
            ("application_fee", Some("fee_1"), 100, "", Category::PlatformEarning),
            ("reserve_transaction", None, -100, "", Category::ReserveConnect),
            ("topup", Some("tu_1"), 100, "", Category::Topup),
            ("made_up", None, 100, "", Category::Unknown),
        ] {
            assert_eq!(
                category(None, old_type, source, amount, description),
                expected,
                "{old_type} {source:?} {amount}"
            );
        }
    }

    #[test]
    fn every_reporting_category_of_the_table() {
        for (word, expected) in [
            ("charge", Category::Charge),
            ("charge_failure", Category::ChargeFailure),
            ("partial_capture_reversal", Category::PartialCaptureReversal),
            ("refund", Category::Refund),
            ("refund_failure", Category::RefundFailure),
            ("dispute", Category::Dispute),
            ("dispute_reversal", Category::DisputeReversal),
            ("network_cost", Category::NetworkCost),
            ("tax", Category::Tax),
            ("tax_withholding", Category::TaxWithholding),
            ("tax_fund", Category::OtherBalance),
            ("fee_credit_funding", Category::ProductFee),
            ("payout", Category::Payout),
            ("payout_reversal", Category::PayoutReversal),
            ("topup", Category::Topup),
            ("topup_reversal", Category::TopupReversal),
            ("transfer", Category::Transfer),
            ("transfer_reversal", Category::TransferReversal),
            ("platform_earning", Category::PlatformEarning),
            ("platform_earning_refund", Category::PlatformEarningRefund),
            ("connect_collection_transfer", Category::ConnectCollection),
            ("connect_reserved_funds", Category::ReserveConnect),
            ("risk_reserved_funds", Category::ReserveRisk),
            ("payment_network_reserve_hold", Category::ReserveNetwork),
            ("payment_network_reserve_release", Category::ReserveNetwork),
            ("payout_minimum_balance_hold", Category::ReserveMinimum),
            ("payout_minimum_balance_release", Category::ReserveMinimum),
            ("advance", Category::OtherBalance),
            ("advance_funding", Category::OtherBalance),
            ("balance_transfer_inbound", Category::OtherBalance),
            ("balance_transfer_outbound", Category::OtherBalance),
            ("inbound_transfer", Category::OtherBalance),
            ("inbound_transfer_reversal", Category::OtherBalance),
            ("issuing_authorization_hold", Category::OtherBalance),
            ("issuing_authorization_release", Category::OtherBalance),
            ("currency_conversion", Category::CurrencyConversion),
            ("financing_paydown", Category::Financing),
            ("financing_payout_reversal", Category::Financing),
            ("anticipation_repayment", Category::Financing),
            ("obligation_outbound", Category::Financing),
            ("contribution", Category::Contribution),
            ("climate_order_purchase", Category::Contribution),
            ("unreconciled_customer_funds", Category::UnreconciledCustomerFunds),
            ("reward", Category::OtherIncome),
            ("revenue_share", Category::OtherIncome),
            ("issuing_transaction", Category::Unknown),
            ("issuing_dispute", Category::Unknown),
            ("platform_fee_transfer", Category::Unknown),
            ("other_adjustment", Category::Unknown),
            ("Jane Doe", Category::Unknown),
        ] {
            // A reporting category beats the old type.
            assert_eq!(category(Some(word), "charge", None, 100, ""), expected, "{word}");
        }
    }

    #[test]
    fn a_word_that_stripe_would_not_use_is_not_kept() {
        let mut value = sample();
        value["reporting_category"] = json!("Jane Doe");
        assert_eq!(read_balance_transaction(&value).unwrap().reported_as, "unknown");
    }
}
