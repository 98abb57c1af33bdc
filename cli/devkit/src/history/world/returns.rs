//! What goes back: refunds, captures cut short, disputes.

use super::{DAY, DisputeEnd, HOUR, RefundEnd, World};
use crate::history::objects::{Api, Charge, Dispute, Refund};

impl World {
    /// Refunds a part of a charge.
    pub(in crate::history) fn refund(&mut self, charge: &mut Charge, amount: i64, at: i64, end: RefundEnd) {
        let mut refund = Refund {
            id: self.id("re"),
            charge: charge.id.clone(),
            payment_intent: charge.payment_intent.clone(),
            amount,
            currency: charge.currency,
            created: at,
            status: match end {
                RefundEnd::Succeeds | RefundEnd::FailsAfterSuccess => "succeeded",
                RefundEnd::SucceedsLater | RefundEnd::Fails | RefundEnd::Canceled => "pending",
                RefundEnd::NeverStands => "requires_action",
            },
            balance_transaction: None,
            failure_balance_transaction: None,
        };
        if end != RefundEnd::NeverStands {
            let mut transaction = self.settled("refund", "refund", -amount, charge, at);
            transaction.source = Some(refund.id.clone());
            refund.balance_transaction = Some(self.book(transaction));
        }
        self.announce_refund(charge, &refund, at, "refund.created");
        let later = at + self.between(1, 5) * DAY;
        refund.status = match end {
            RefundEnd::Succeeds => {
                return;
            }
            RefundEnd::SucceedsLater => "succeeded",
            RefundEnd::Fails | RefundEnd::FailsAfterSuccess => "failed",
            RefundEnd::Canceled | RefundEnd::NeverStands => "canceled",
        };
        if matches!(end, RefundEnd::Fails | RefundEnd::FailsAfterSuccess | RefundEnd::Canceled) {
            let mut transaction = self.settled("refund_failure", "refund_failure", amount, charge, later);
            // What comes back is what went out, whatever the rate did meanwhile.
            if let Some(booked) = self.transactions.iter().find(|t| Some(&t.id) == refund.balance_transaction.as_ref())
            {
                transaction.amount = -booked.amount;
            }
            transaction.source = Some(refund.id.clone());
            refund.failure_balance_transaction = Some(self.book(transaction));
        }
        let kind = if refund.status == "failed" { "refund.failed" } else { "refund.updated" };
        self.announce_refund(charge, &refund, later, kind);
    }

    /// A refund's news as its API generation tells it: embedded in the charge, or as an object of its own.
    fn announce_refund(&mut self, charge: &mut Charge, refund: &Refund, at: i64, kind: &str) {
        charge.refunds.push((at, refund.clone()));
        match charge.api {
            Api::Old if kind == "refund.created" => self.emit(at, Api::Old, "charge.refunded", charge.json_at(at)),
            Api::Old | Api::Middle if kind != "refund.created" => {
                self.emit(at, charge.api, "charge.refund.updated", refund.json());
            }
            Api::Old | Api::Middle | Api::New => {
                self.emit(at, charge.api, kind, refund.json());
                if kind == "refund.created" {
                    self.emit(at, charge.api, "charge.refunded", charge.json_at(at));
                }
            }
        }
    }

    /// Takes back what was booked and not captured, as older accounts show a partial capture.
    pub(in crate::history) fn release_uncaptured(&mut self, charge: &Charge, rest: i64, at: i64) {
        let mut transaction = self.settled("refund", "partial_capture_reversal", -rest, charge, at);
        transaction.source = Some(charge.id.clone());
        self.book(transaction);
    }

    /// An authorisation is given up: older APIs tell it as a refund, which moved no money.
    pub(in crate::history) fn void(&mut self, charge: &mut Charge, at: i64) {
        let refund = Refund {
            id: self.id("re"),
            charge: charge.id.clone(),
            payment_intent: charge.payment_intent.clone(),
            amount: charge.amount,
            currency: charge.currency,
            created: at,
            status: "succeeded",
            balance_transaction: None,
            failure_balance_transaction: None,
        };
        self.announce_refund(charge, &refund, at, "refund.created");
    }

    /// A refund of a charge that is announced by nothing else.
    pub(in crate::history) fn orphan_refund(&mut self, charge: &Charge, at: i64) {
        let id = self.id("re");
        let mut transaction = self.settled("refund", "refund", -charge.amount, charge, at);
        transaction.source = Some(id.clone());
        let refund = Refund {
            id,
            charge: charge.id.clone(),
            payment_intent: charge.payment_intent.clone(),
            amount: charge.amount,
            currency: charge.currency,
            created: at,
            status: "succeeded",
            balance_transaction: Some(self.book(transaction)),
            failure_balance_transaction: None,
        };
        self.emit(at, charge.api, "refund.created", refund.json());
    }

    /// A dispute from its opening to its end.
    pub(in crate::history) fn dispute(&mut self, charge: &mut Charge, amount: i64, at: i64, end: DisputeEnd) {
        let mut dispute = Dispute {
            id: self.id("dp"),
            charge: charge.id.clone(),
            payment_intent: charge.payment_intent.clone(),
            amount,
            currency: charge.currency,
            created: at,
            status: "needs_response",
            transactions: Vec::new(),
        };
        let api = charge.api;
        let closed_at = at + self.between(5, 25) * DAY;
        match end {
            DisputeEnd::InquiryClosed | DisputeEnd::InquiryBecomesLost => {
                dispute.status = "warning_needs_response";
                self.emit(at, api, "charge.dispute.created", dispute.json());
                if end == DisputeEnd::InquiryClosed {
                    dispute.status = "warning_closed";
                    self.emit(closed_at, api, "charge.dispute.closed", dispute.json());
                    return;
                }
                self.withdraw(charge, &mut dispute, at + DAY);
                dispute.status = "needs_response";
                self.emit(at + DAY, api, "charge.dispute.updated", dispute.json());
            }
            DisputeEnd::Prevented => {
                dispute.status = "prevented";
                self.emit(at, api, "charge.dispute.created", dispute.json());
                return;
            }
            DisputeEnd::Open
            | DisputeEnd::Won
            | DisputeEnd::Lost
            | DisputeEnd::WonAfterLost
            | DisputeEnd::LostAfterWon
            | DisputeEnd::PartlyWon
            | DisputeEnd::WonWithoutMoney => {
                self.withdraw(charge, &mut dispute, at);
                self.emit(at, api, "charge.dispute.created", dispute.json());
            }
        }
        charge.disputed = true;
        self.emit(dispute.transactions[0].created, api, "charge.dispute.funds_withdrawn", dispute.json());
        dispute.status = "under_review";
        self.emit(at + 2 * DAY, api, "charge.dispute.updated", dispute.json());
        self.close(charge, &mut dispute, closed_at, end);
    }

    fn close(&mut self, charge: &Charge, dispute: &mut Dispute, at: i64, end: DisputeEnd) {
        let api = charge.api;
        match end {
            DisputeEnd::Open | DisputeEnd::InquiryClosed | DisputeEnd::Prevented => {}
            DisputeEnd::Lost | DisputeEnd::InquiryBecomesLost => {
                dispute.status = "lost";
                self.emit(at, api, "charge.dispute.closed", dispute.json());
            }
            DisputeEnd::WonWithoutMoney => {
                dispute.status = "won";
                self.emit(at, api, "charge.dispute.closed", dispute.json());
            }
            DisputeEnd::Won => {
                dispute.status = "won";
                // Sent before the money is back: what it carries is the withdrawal alone.
                self.emit(at, api, "charge.dispute.closed", dispute.json());
                self.reinstate(dispute, at + HOUR, None);
                self.emit(at + HOUR, api, "charge.dispute.funds_reinstated", dispute.json());
            }
            DisputeEnd::WonAfterLost => {
                dispute.status = "lost";
                self.emit(at, api, "charge.dispute.closed", dispute.json());
                dispute.status = "won";
                self.reinstate(dispute, at + 9 * DAY, None);
                self.emit(at + 9 * DAY, api, "charge.dispute.funds_reinstated", dispute.json());
                self.emit(at + 9 * DAY, api, "charge.dispute.updated", dispute.json());
            }
            DisputeEnd::LostAfterWon => {
                dispute.status = "won";
                self.reinstate(dispute, at, None);
                self.emit(at, api, "charge.dispute.closed", dispute.json());
                self.emit(at, api, "charge.dispute.funds_reinstated", dispute.json());
                dispute.status = "lost";
                self.withdraw(charge, dispute, at + 9 * DAY);
                self.emit(at + 9 * DAY, api, "charge.dispute.funds_withdrawn", dispute.json());
                self.emit(at + 9 * DAY, api, "charge.dispute.closed", dispute.json());
            }
            DisputeEnd::PartlyWon => {
                dispute.status = "lost";
                let withdrawn = -dispute.transactions[0].amount;
                let part = self.between(1, withdrawn.max(2) - 1);
                self.reinstate(dispute, at, Some(part));
                self.emit(at, api, "charge.dispute.funds_reinstated", dispute.json());
                self.emit(at, api, "charge.dispute.closed", dispute.json());
            }
        }
    }

    fn withdraw(&mut self, charge: &Charge, dispute: &mut Dispute, at: i64) {
        let mut transaction = self.settled("adjustment", "dispute", -dispute.amount, charge, at);
        let fee = if transaction.currency == "jpy" { 1_300 } else { 1_500 };
        transaction.fee_details.push(("stripe_fee", "Dispute fee", fee));
        transaction.source = Some(dispute.id.clone());
        transaction.description = Some(format!("Chargeback withdrawal for {}", charge.id));
        dispute.transactions.push(transaction.clone());
        self.book(transaction);
    }

    /// Gives back all or a part of what was withdrawn; the fee comes back or not.
    fn reinstate(&mut self, dispute: &mut Dispute, at: i64, part: Option<i64>) {
        let withdrawal = dispute.transactions[0].clone();
        let amount = part.unwrap_or(-withdrawal.amount);
        let mut transaction = self.transaction("adjustment", "dispute_reversal", amount, withdrawal.currency, at);
        if part.is_none() && self.chance(50) {
            transaction.fee_details.push(("stripe_fee", "Dispute fee returned", -withdrawal.fee()));
        }
        transaction.source = Some(dispute.id.clone());
        transaction.description = Some(format!("Chargeback reversal for {}", dispute.charge));
        dispute.transactions.push(transaction.clone());
        self.book(transaction);
    }
}
