//! A ledger of beancount's (<https://beancount.github.io/docs/beancount_language_syntax.html>): each entry a transaction with a link
//! to its object and the rest as metadata. Tolerances are zero, and a `balance` directive for each account on the day after the
//! last one asserts its closing balance, so that `bean-check` compares its sums with ours.
//!
//! beancount takes no account of ours as it is: see [`account_name`].

use std::collections::BTreeMap;
use std::fmt::Write as _;

use fanledger_domain::money::Currency;
use fanledger_domain::time::Timestamp;
use fanledger_gateway::read::{ExportRange, ExportedAccount, ExportedEntry};

use super::sink::Sink;
use super::{ExportError, Format, Heading, Line, date, plain};
use crate::output::amount;

/// See the module.
pub struct Beancount {
    sink: Sink,
    range: ExportRange,
    /// The time of the last transaction.
    last_at: Option<Timestamp>,
    /// By our own names.
    names: BTreeMap<String, String>,
    /// Kept for its memory.
    text: String,
}

impl Beancount {
    /// Writes to `sink`, with the dates of the range's time.
    pub const fn new(sink: Sink, range: ExportRange) -> Self {
        Self { sink, range, last_at: None, names: BTreeMap::new(), text: String::new() }
    }

    fn postings(&mut self, lines: &[Line<'_>]) {
        for line in lines {
            // Every account was opened.
            let name = self.names.get(line.account).map_or("", String::as_str);
            writeln!(self.text, "  {name}  {} {}", line.amount(), Code(line.currency)).ok();
        }
        self.text.push('\n');
    }

    fn write_out(&mut self) -> Result<(), ExportError> {
        self.sink.text(&self.text)?;
        self.text.clear();
        Ok(())
    }

    /// When each account first moves, and in which currencies.
    fn opened<'a>(&self, accounts: &'a [ExportedAccount]) -> BTreeMap<&'a str, (Timestamp, Vec<Currency>)> {
        let mut opened: BTreeMap<&str, (Timestamp, Vec<Currency>)> = BTreeMap::new();
        for account in accounts {
            let opening = self.range.from.filter(|_| account.opening_minor != 0);
            let Some(at) = opening.or(account.first_at) else { continue };
            let (first, currencies) = opened.entry(&account.account).or_insert((at, Vec::new()));
            *first = at.min(*first);
            currencies.push(account.currency);
        }
        opened
    }
}

/// A currency as beancount takes it: in capitals.
struct Code(Currency);

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.as_str().to_ascii_uppercase())
    }
}

impl Format for Beancount {
    fn begin(&mut self, heading: &Heading, accounts: &[ExportedAccount]) -> Result<(), ExportError> {
        for line in heading.lines() {
            writeln!(self.text, "; {line}").ok();
        }
        writeln!(self.text, "\noption \"title\" \"Fanledger, position {}\"", heading.position).ok();
        self.text.push_str("option \"tolerance_multiplier\" \"0\"\n");
        let opened = self.opened(accounts);
        let mut commodities: BTreeMap<Currency, Timestamp> = BTreeMap::new();
        for (at, currencies) in opened.values() {
            for currency in currencies {
                let first = commodities.entry(*currency).or_insert(*at);
                *first = (*first).min(*at);
            }
        }
        for currency in commodities.keys() {
            writeln!(self.text, "option \"operating_currency\" \"{}\"", Code(*currency)).ok();
        }
        self.text.push('\n');
        for (currency, at) in &commodities {
            writeln!(self.text, "{} commodity {}", date(*at), Code(*currency)).ok();
        }
        self.text.push('\n');
        for (account, (at, currencies)) in &opened {
            let name = account_name(account);
            let codes: Vec<String> = currencies.iter().map(|currency| Code(*currency).to_string()).collect();
            writeln!(self.text, "{} open {name} {}", date(*at), codes.join(",")).ok();
            writeln!(self.text, "  account: \"{account}\"").ok();
            self.names.insert((*account).to_owned(), name);
        }
        self.text.push('\n');
        self.write_out()
    }

    fn opening(&mut self, at: Timestamp, lines: &[Line<'_>]) -> Result<(), ExportError> {
        self.last_at = Some(at);
        writeln!(self.text, "{} * \"opening balances\"", date(at)).ok();
        self.postings(lines);
        self.write_out()
    }

    fn entry(&mut self, entry: &ExportedEntry, lines: &[Line<'_>]) -> Result<(), ExportError> {
        let at = entry.at(self.range.by);
        self.last_at = Some(at);
        write!(self.text, "{} * {}", date(at), quoted(&entry.description)).ok();
        if is_link(&entry.object) {
            write!(self.text, " ^{}", entry.object).ok();
        }
        self.text.push('\n');
        writeln!(self.text, "  entry: {}", quoted(&entry.entry_id)).ok();
        writeln!(self.text, "  object: {}", quoted(&entry.object)).ok();
        if let Some(event) = &entry.stripe_event {
            writeln!(self.text, "  webhook: {}", quoted(event)).ok();
        }
        let ExportedEntry { occurred_at, effective_at, recorded_at, position, .. } = entry;
        writeln!(self.text, "  occurred: \"{occurred_at}\"\n  effective: \"{effective_at}\"").ok();
        writeln!(self.text, "  recorded: \"{recorded_at}\"\n  position: {position}").ok();
        self.postings(lines);
        self.write_out()
    }

    fn finish(mut self: Box<Self>, accounts: &[ExportedAccount]) -> Result<Sink, ExportError> {
        // beancount asserts at the beginning of a day.
        let Some(day) = self.last_at.and_then(|at| at.to_chrono().date_naive().succ_opt()) else {
            return Ok(self.sink);
        };
        for account in accounts {
            let ExportedAccount { account, currency, closing_minor, .. } = account;
            let Some(name) = self.names.get(account) else { continue };
            let closing = amount(*closing_minor, *currency);
            writeln!(self.text, "{day} balance {name}  {closing} ~ 0 {}", Code(*currency)).ok();
        }
        self.write_out()?;
        Ok(self.sink)
    }
}

/// As a string of beancount's.
fn quoted(text: &str) -> String {
    format!("\"{}\"", plain(text).trim().replace('\\', "\\\\").replace('"', "\\\""))
}

/// Whether a text may stand after `^`.
fn is_link(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_/.".contains(&b))
}

/// The name of one of our accounts in beancount, where each part begins with a capital or a digit and goes on with letters, digits
/// and hyphens.
///
/// The first letter of each part becomes a capital: none of ours is one. A lone hyphen stays, a lone underscore becomes two hyphens.
/// What is rarer, several of them in a row or one at a part's beginning, is spelled out between `---` and `-`, a letter for each:
/// `h` for a hyphen, `u` for an underscore; at the beginning in capitals, after an `X`. So no two accounts share a name.
pub fn account_name(account: &str) -> String {
    account.split(':').map(part_name).collect::<Vec<_>>().join(":")
}

fn part_name(part: &str) -> String {
    let is_separator = |c: char| matches!(c, '-' | '_');
    let mut name = String::with_capacity(part.len() + 4);
    let mut rest = part;
    while let Some(first) = rest.chars().next() {
        let run = rest.len() - rest.trim_start_matches(is_separator).len();
        let (separators, after) = rest.split_at(run);
        match separators {
            "" => {
                let end = after.find(is_separator).unwrap_or(after.len());
                let (word, following) = after.split_at(end);
                if name.is_empty() {
                    name.push(first.to_ascii_uppercase());
                    name.push_str(word.get(first.len_utf8()..).unwrap_or_default());
                } else {
                    name.push_str(word);
                }
                rest = following;
                continue;
            }
            _ if name.is_empty() => name.push_str(&format!("X---{}-", spelled(separators).to_ascii_uppercase())),
            "-" => name.push('-'),
            "_" => name.push_str("--"),
            several => name.push_str(&format!("---{}-", spelled(several))),
        }
        rest = after;
    }
    name
}

fn spelled(separators: &str) -> String {
    separators.chars().map(|c| if c == '-' { 'h' } else { 'u' }).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn accounts_are_read_at_a_glance() {
        for (ours, theirs) in [
            ("assets:stripe:clearing", "Assets:Stripe:Clearing"),
            ("expenses:processing-fees:payments", "Expenses:Processing-fees:Payments"),
            ("liabilities:creators:crt_aurora:pending", "Liabilities:Creators:Crt--aurora:Pending"),
            ("liabilities:creators:crt_a-B_9:held", "Liabilities:Creators:Crt--a-B--9:Held"),
            ("liabilities:creators:crt__x-_:held", "Liabilities:Creators:Crt---uu-x---hu-:Held"),
            ("liabilities:tax:-1", "Liabilities:Tax:X---H-1"),
            ("equity:fx:usd", "Equity:Fx:Usd"),
        ] {
            assert_eq!(account_name(ours), theirs);
        }
    }

    /// Every text of up to seven characters that covers a class each: names differ, and are such as beancount takes.
    #[test]
    fn no_two_accounts_share_a_name() {
        let mut met: BTreeMap<String, String> = BTreeMap::new();
        let mut texts = vec![String::new()];
        for _ in 0..7 {
            texts =
                texts.iter().flat_map(|text| ["h", "u", "x", "-", "_"].map(|next| format!("{text}{next}"))).collect();
            for text in &texts {
                let ours = format!("liabilities:tax:{text}");
                let theirs = account_name(&ours);
                for part in theirs.split(':') {
                    let mut letters = part.chars();
                    assert!(letters.next().is_some_and(|c| c.is_ascii_uppercase() || c.is_ascii_digit()), "{theirs}");
                    assert!(letters.all(|c| c.is_ascii_alphanumeric() || c == '-'), "{theirs}");
                }
                assert_eq!(met.insert(theirs, ours), None, "{text}");
            }
        }
    }
}
