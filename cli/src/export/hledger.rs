//! A journal of hledger's (<https://hledger.org/hledger.html#journal>): our accounts and currencies as they are, each entry a
//! transaction with its id as code and the rest as tags. The last posting of each account asserts its closing balance, so that
//! `hledger check` compares its sums with ours.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use fanledger_domain::money::Currency;
use fanledger_domain::time::Timestamp;
use fanledger_gateway::read::{By, ExportedAccount, ExportedEntry};

use super::sink::Sink;
use super::{ExportError, Format, Heading, Line, date, plain};
use crate::output::amount;

/// See the module.
pub struct Hledger {
    sink: Sink,
    by: By,
    /// Kept for its memory.
    text: String,
}

impl Hledger {
    /// Writes to `sink`, with the dates of this time.
    pub const fn new(sink: Sink, by: By) -> Self {
        Self { sink, by, text: String::new() }
    }

    fn postings(&mut self, lines: &[Line<'_>]) {
        for line in lines {
            let Line { account, currency, .. } = line;
            write!(self.text, "    {account}  {} {currency}", line.amount()).ok();
            if let Some(closing) = line.closing_minor {
                write!(self.text, " = {} {currency}", amount(closing, *currency)).ok();
            }
            self.text.push('\n');
        }
        self.text.push('\n');
    }

    fn write_out(&mut self) -> Result<(), ExportError> {
        self.sink.text(&self.text)?;
        self.text.clear();
        Ok(())
    }
}

impl Format for Hledger {
    fn begin(&mut self, heading: &Heading, accounts: &[ExportedAccount]) -> Result<(), ExportError> {
        for line in heading.lines() {
            writeln!(self.text, "; {line}").ok();
        }
        self.text.push_str("\ndecimal-mark .\n\n");
        let currencies: BTreeSet<Currency> = accounts.iter().map(|account| account.currency).collect();
        for currency in currencies {
            // A decimal mark must be there even where no decimal follows.
            let mark = if currency.exponent() == 0 { "." } else { "" };
            writeln!(self.text, "commodity {}{mark} {currency}", amount(one_thousand(currency), currency)).ok();
        }
        self.text.push('\n');
        let names: BTreeSet<&str> = accounts.iter().map(|account| account.account.as_str()).collect();
        for name in names {
            writeln!(self.text, "account {name}").ok();
        }
        self.text.push('\n');
        self.write_out()
    }

    fn opening(&mut self, at: Timestamp, lines: &[Line<'_>]) -> Result<(), ExportError> {
        writeln!(self.text, "{} * (opening) opening balances", date(at)).ok();
        self.postings(lines);
        self.write_out()
    }

    fn entry(&mut self, entry: &ExportedEntry, lines: &[Line<'_>]) -> Result<(), ExportError> {
        let ExportedEntry { entry_id, object, position, .. } = entry;
        let description = plain(&entry.description).replace(';', ",");
        writeln!(self.text, "{} * ({entry_id}) {}", date(entry.at(self.by)), description.trim()).ok();
        write!(self.text, "    ; object:{object}, ").ok();
        if let Some(event) = &entry.stripe_event {
            write!(self.text, "webhook:{event}, ").ok();
        }
        let ExportedEntry { occurred_at, effective_at, recorded_at, .. } = entry;
        writeln!(
            self.text,
            "occurred:{occurred_at}, effective:{effective_at}, recorded:{recorded_at}, position:{position}"
        )
        .ok();
        self.postings(lines);
        self.write_out()
    }

    fn finish(self: Box<Self>, _: &[ExportedAccount]) -> Result<Sink, ExportError> {
        Ok(self.sink)
    }
}

/// 1000 of the currency's main unit, in minor units: what a `commodity` directive shows the style by.
fn one_thousand(currency: Currency) -> i128 {
    1000 * 10_i128.pow(currency.exponent())
}
