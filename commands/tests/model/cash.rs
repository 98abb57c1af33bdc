//! `balance-transactions.md`: clearing by net, the parts of the fee, and the counter-account by category.

use serde_json::Value;

use super::Lines;
use super::seen::{id_of, minor, text};

pub(crate) const CLEARING: &str = "assets:stripe:clearing";
pub(crate) const UNCONFIRMED: &str = "assets:stripe:unconfirmed";
pub(crate) const PROCESSING: &str = "expenses:processing-fees:payments";

/// Stripe's category, or for older data what `type`, the source and the sign make of it.
pub(crate) fn category(transaction: &Value) -> String {
    if let Some(category) = text(transaction, "reporting_category") {
        return category;
    }
    let source = id_of(&transaction["source"]).unwrap_or_default();
    let source = source.split('_').next().unwrap_or_default();
    let in_flow = minor(transaction, "amount") >= 0;
    match (transaction["type"].as_str().unwrap(), source) {
        ("charge" | "payment", _) => "charge",
        ("payment_failure_refund" | "payment_reversal", _) => "charge_failure",
        ("refund", "ch" | "py") => "partial_capture_reversal",
        ("refund" | "payment_refund", _) => "refund",
        ("refund_failure", _) | ("adjustment", "re" | "pyr") => "refund_failure",
        ("adjustment", "dp" | "du") => {
            if in_flow {
                "dispute_reversal"
            } else {
                "dispute"
            }
        }
        ("stripe_fee" | "stripe_fx_fee", _) => "fee",
        ("tax_fee", _) => "tax",
        ("payout", _) => "payout",
        ("payout_failure" | "payout_cancel", _) => "payout_reversal",
        ("transfer", _) => "transfer",
        ("transfer_refund" | "transfer_cancel" | "transfer_failure", _) => "transfer_reversal",
        ("application_fee", _) => "platform_earning",
        ("application_fee_refund", _) => "platform_earning_refund",
        (other, _) => return other.to_owned(),
    }
    .to_owned()
}

/// Dr clearing `net`, and each part of the fee; `fee_account` is that of the balance transaction's row.
pub(crate) fn cash(lines: &mut Lines, transaction: &Value, fee_account: &str) {
    let currency = text(transaction, "currency").unwrap();
    lines.dr(CLEARING, &currency, minor(transaction, "net"));
    let mut left = minor(transaction, "fee");
    for detail in transaction["fee_details"].as_array().unwrap() {
        let account = match detail["type"].as_str().unwrap() {
            "payment_method_passthrough_fee" => "expenses:processing-fees:network",
            "tax" => "expenses:fee-tax",
            "withheld_tax" => "assets:tax-recoverable:unknown",
            _ => fee_account,
        };
        lines.dr(account, &currency, minor(detail, "amount"));
        left -= minor(detail, "amount");
    }
    lines.dr(fee_account, &currency, left);
}

/// The account of a balance transaction that belongs to no object.
pub(crate) fn account(transaction: &Value) -> String {
    let category = category(transaction);
    let description = transaction["description"].as_str().unwrap_or_default().to_lowercase();
    let source = id_of(&transaction["source"]).unwrap_or_default();
    match category.as_str() {
        "fee" if transaction["type"] == "stripe_fx_fee" => "expenses:processing-fees:fx".to_owned(),
        "fee" if source.starts_with("dp_") || description.contains("dispute") => "expenses:dispute-fees".to_owned(),
        "fee" if source.starts_with("po_") || description.contains("payout") => "expenses:payout-fees".to_owned(),
        "fee" | "fee_credit_funding" => "expenses:processing-fees:products".to_owned(),
        "network_cost" => "expenses:processing-fees:network".to_owned(),
        "tax" => "expenses:fee-tax".to_owned(),
        "tax_withholding" => "assets:tax-recoverable:unknown".to_owned(),
        "topup" | "topup_reversal" => "assets:bank".to_owned(),
        "connect_collection_transfer" => "liabilities:suspense:unknown-creator".to_owned(),
        "connect_reserved_funds" => "assets:stripe:reserved:connect".to_owned(),
        "risk_reserved_funds" => "assets:stripe:reserved:risk".to_owned(),
        "payment_network_reserve_hold" | "payment_network_reserve_release" => {
            "assets:stripe:reserved:network".to_owned()
        }
        "payout_minimum_balance_hold" | "payout_minimum_balance_release" => "assets:stripe:reserved:minimum".to_owned(),
        "tax_fund"
        | "advance"
        | "advance_funding"
        | "inbound_transfer"
        | "inbound_transfer_reversal"
        | "issuing_authorization_hold"
        | "issuing_authorization_release" => "assets:stripe:other-balances".to_owned(),
        other if other.starts_with("balance_transfer_") => "assets:stripe:other-balances".to_owned(),
        "currency_conversion" => format!("equity:fx:{}", text(transaction, "currency").unwrap()),
        "anticipation_repayment" => "liabilities:financing".to_owned(),
        other if other.starts_with("financing_") || other.starts_with("obligation_") => {
            "liabilities:financing".to_owned()
        }
        "contribution" => "expenses:contributions".to_owned(),
        other if other.starts_with("climate_order_") => "expenses:contributions".to_owned(),
        "unreconciled_customer_funds" => "liabilities:unclaimed".to_owned(),
        "reward" | "revenue_share" => "income:other".to_owned(),
        _ => "liabilities:suspense:unknown-balance-transaction".to_owned(),
    }
}
