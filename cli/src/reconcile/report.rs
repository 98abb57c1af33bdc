//! What came out of a comparison: the contract's JSON, and tables for people.

use fanledger_domain::money::Currency;
use serde::Serialize;

use crate::output::{Align, Output, OutputError, amount};

/// What one side says a balance transaction moved. In minor units.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Money {
    /// The settlement currency.
    pub currency: Currency,
    /// Gross.
    pub amount_minor: i64,
    /// Fee.
    pub fee_minor: i64,
    /// `amount − fee`.
    pub net_minor: i64,
}

/// On the list, and not here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MissingHere {
    /// `txn_…`.
    pub id: String,
    /// What the list says.
    pub theirs: Money,
    /// When it was made.
    pub created: String,
    /// What it is.
    pub reporting_category: String,
    /// The object that moved it.
    pub source: Option<String>,
    /// Where it is in the list.
    pub line: u64,
    /// Why it is not here, where that is known.
    pub explanation: Option<String>,
}

/// Here, and not on the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MissingThere {
    /// `txn_…`.
    pub id: String,
    /// What we have.
    pub ours: Money,
    /// When it was made.
    pub created: String,
    /// What it is.
    pub reporting_category: String,
    /// The object that it belongs to.
    pub owner: String,
    /// Where it is in the journal.
    pub position: u64,
    /// Why it is not there, where that is known.
    pub explanation: Option<String>,
}

/// On both sides, and not the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Different {
    /// `txn_…`.
    pub id: String,
    /// What we have.
    pub ours: Money,
    /// What the list says.
    pub theirs: Money,
    /// Where it is in the list.
    pub line: u64,
    /// Where it is in the journal.
    pub position: u64,
    /// What differs.
    pub explanation: Option<String>,
}

/// Sums of one side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Sum {
    /// How many.
    pub count: u64,
    /// Gross.
    pub amount_minor: i128,
    /// Fees.
    pub fee_minor: i128,
    /// Net.
    pub net_minor: i128,
}

impl Sum {
    pub(super) fn add(&mut self, money: &Money) {
        self.count += 1;
        self.amount_minor += i128::from(money.amount_minor);
        self.fee_minor += i128::from(money.fee_minor);
        self.net_minor += i128::from(money.net_minor);
    }
}

/// Sums of both sides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub(super) ours: Sum,
    pub(super) theirs: Sum,
}

impl Totals {
    pub(super) fn named(((currency, reporting_category), totals): ((Currency, String), Self)) -> NamedTotals {
        NamedTotals { currency, reporting_category, ours: totals.ours, theirs: totals.theirs }
    }
}

/// Sums of both sides, of one currency and category.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NamedTotals {
    /// The currency.
    pub currency: Currency,
    /// Stripe's word; ours where we have seen it, else the list's.
    pub reporting_category: String,
    /// Ours.
    pub ours: Sum,
    /// The list's.
    pub theirs: Sum,
}

/// What came of it. The first four are the contract's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// On both sides, and the same.
    pub matched: u64,
    /// On the list, and not here.
    pub missing_here: Vec<MissingHere>,
    /// Here, and not on the list.
    pub missing_there: Vec<MissingThere>,
    /// On both sides, and not the same.
    pub different: Vec<Different>,
    /// Where the time begins that was compared.
    pub since: String,
    /// Where it ends; not in it any more.
    pub until: String,
    /// Of the list, made at another time, and so not compared.
    pub outside: u64,
    /// What of the journal is in it.
    pub position: u64,
    /// By currency and category.
    pub totals: Vec<NamedTotals>,
}

impl Report {
    /// Whether both sides say the same.
    pub const fn agrees(&self) -> bool {
        self.missing_here.is_empty() && self.missing_there.is_empty() && self.different.is_empty()
    }

    /// Prints it.
    ///
    /// # Errors
    /// When standard output is closed.
    pub fn print(&self, output: Output) -> Result<(), OutputError> {
        if output.is_json() {
            return output.json(self);
        }
        let rows = self.totals.iter().map(|total| {
            let money = |minor: i128| amount(minor, total.currency);
            vec![
                total.currency.to_string(),
                total.reporting_category.clone(),
                total.ours.count.to_string(),
                money(total.ours.net_minor),
                total.theirs.count.to_string(),
                money(total.theirs.net_minor),
                money(total.ours.net_minor - total.theirs.net_minor),
            ]
        });
        let columns = [
            ("", Align::Left),
            ("category", Align::Left),
            ("ours", Align::Right),
            ("net", Align::Right),
            ("theirs", Align::Right),
            ("net", Align::Right),
            ("difference", Align::Right),
        ];
        output.table(&columns, rows.collect())?;
        output.line("")?;
        output.line(format_args!(
            "From {} until {}, at position {}: {} matched, {} missing here, {} missing there, {} different{}.",
            self.since,
            self.until,
            self.position,
            self.matched,
            self.missing_here.len(),
            self.missing_there.len(),
            self.different.len(),
            if self.outside == 0 { String::new() } else { format!("; {} of another time left out", self.outside) },
        ))?;
        for missing in &self.missing_here {
            let Money { currency, net_minor, .. } = missing.theirs;
            let (what, net) = (&missing.reporting_category, amount(i128::from(net_minor), currency));
            item(
                output,
                format_args!("missing here   {} {what} net {net} {currency}, line {}", missing.id, missing.line),
                missing.explanation.as_deref(),
            )?;
        }
        for missing in &self.missing_there {
            let Money { currency, net_minor, .. } = missing.ours;
            let (what, net) = (&missing.reporting_category, amount(i128::from(net_minor), currency));
            item(
                output,
                format_args!(
                    "missing there  {} {what} net {net} {currency}, of {}, position {}",
                    missing.id, missing.owner, missing.position
                ),
                missing.explanation.as_deref(),
            )?;
        }
        for different in &self.different {
            let side = |money: &Money| {
                let text = |minor: i64| amount(i128::from(minor), money.currency);
                format!(
                    "{} - {} = {} {}",
                    text(money.amount_minor),
                    text(money.fee_minor),
                    text(money.net_minor),
                    money.currency
                )
            };
            let (ours, theirs) = (side(&different.ours), side(&different.theirs));
            item(
                output,
                format_args!("different      {} ours {ours}, theirs {theirs}, line {}", different.id, different.line),
                different.explanation.as_deref(),
            )?;
        }
        Ok(())
    }
}

fn item(output: Output, what: std::fmt::Arguments<'_>, explanation: Option<&str>) -> Result<(), OutputError> {
    output.line(what)?;
    match explanation {
        None => Ok(()),
        Some(explanation) => output.line(format_args!("               {explanation}")),
    }
}
