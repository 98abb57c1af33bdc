//! A row for each posting, as RFC 4180 has it: for spreadsheets, and for whatever reads nothing else.

use ::csv::{ErrorKind, Terminator, Writer, WriterBuilder};
use fanledger_domain::time::Timestamp;
use fanledger_gateway::read::{By, ExportedAccount, ExportedEntry};

use super::sink::Sink;
use super::{ExportError, Format, Heading, Line, date, plain};

/// The columns; `docs/export.md` says what each is.
pub const COLUMNS: [&str; 16] = [
    "kind",
    "date",
    "entry_id",
    "line",
    "position",
    "occurred_at",
    "effective_at",
    "recorded_at",
    "account",
    "currency",
    "side",
    "amount_minor",
    "amount",
    "description",
    "object",
    "webhook",
];

/// See the module.
pub struct Csv {
    writer: Writer<Sink>,
    by: By,
}

impl Csv {
    /// Writes to `sink`, with the dates of this time.
    pub fn new(sink: Sink, by: By) -> Self {
        Self { writer: WriterBuilder::new().terminator(Terminator::CRLF).from_writer(sink), by }
    }

    fn row<T: AsRef<[u8]>>(&mut self, fields: impl IntoIterator<Item = T>) -> Result<(), ExportError> {
        // Its own error does not name what the system said among its causes.
        self.writer.write_record(fields).map_err(|error| match error.into_kind() {
            ErrorKind::Io(error) => ExportError::Csv(error),
            other => ExportError::Csv(std::io::Error::other(format!("{other:?}"))),
        })
    }
}

impl Format for Csv {
    fn begin(&mut self, _: &Heading, _: &[ExportedAccount]) -> Result<(), ExportError> {
        self.row(COLUMNS)
    }

    fn opening(&mut self, at: Timestamp, lines: &[Line<'_>]) -> Result<(), ExportError> {
        for line in lines {
            self.row([
                "opening",
                &date(at),
                "",
                &line.number.to_string(),
                "",
                "",
                "",
                "",
                line.account,
                line.currency.as_str(),
                line.side().as_str(),
                &line.minor.to_string(),
                &line.amount(),
                "opening balances",
                "",
                "",
            ])?;
        }
        Ok(())
    }

    fn entry(&mut self, entry: &ExportedEntry, lines: &[Line<'_>]) -> Result<(), ExportError> {
        let (date, entry_id, position) = (date(entry.at(self.by)), safe(&entry.entry_id), entry.position.to_string());
        let occurred = entry.occurred_at.to_string();
        let effective = entry.effective_at.to_string();
        let recorded = entry.recorded_at.to_string();
        let (description, object) = (safe(&entry.description), safe(&entry.object));
        let webhook = safe(entry.stripe_event.as_deref().unwrap_or_default());
        for line in lines {
            self.row([
                "posting",
                &date,
                &entry_id,
                &line.number.to_string(),
                &position,
                &occurred,
                &effective,
                &recorded,
                line.account,
                line.currency.as_str(),
                line.side().as_str(),
                &line.minor.to_string(),
                &line.amount(),
                &description,
                &object,
                &webhook,
            ])?;
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>, _: &[ExportedAccount]) -> Result<Sink, ExportError> {
        // `into_inner` would keep what the system says of a full disk to itself.
        self.writer.flush().map_err(ExportError::Csv)?;
        let unwritten =
            |error: ::csv::IntoInnerError<Writer<Sink>>| ExportError::Csv(std::io::Error::from(error.error().kind()));
        self.writer.into_inner().map_err(unwritten)
    }
}

/// A text that no spreadsheet takes for a formula: one that begins like one gets an apostrophe before it, as people type it there
/// (<https://owasp.org/www-community/attacks/CSV_Injection>). Where a semicolon separates, as in many countries, a part after one
/// would begin one, too: it becomes a comma. Amounts are ours, and are numbers.
fn safe(text: &str) -> String {
    let begins_one = |part: &str| part.trim_start().starts_with(['=', '+', '-', '@', '＝', '＋', '－', '＠']);
    let mut text = plain(text);
    if text.split(';').skip(1).any(begins_one) {
        text = text.replace(';', ",");
    }
    let begins_a_formula = begins_one(&text);
    if begins_a_formula { format!("'{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_taken_for_a_formula() {
        for (text, written) in [
            ("=1+1", "'=1+1"),
            (" =1", "' =1"),
            ("\t@SUM(A1)", "' @SUM(A1)"),
            ("-5", "'-5"),
            ("a=b", "a=b"),
            ("x;=1+1", "x,=1+1"),
            ("x; y", "x; y"),
            ("two\r\nlines", "two  lines"),
            ("", ""),
        ] {
            assert_eq!(safe(text), written);
        }
    }
}
