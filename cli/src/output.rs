//! What people and programs see: aligned tables, JSON, progress bars on a terminal only.

use std::error::Error;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use fanledger_domain::money::Currency;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

/// Why nothing more could be printed.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// Standard output is closed or full.
    #[error("write to standard output")]
    Write(#[source] io::Error),
    /// A value of ours could not be written as JSON.
    #[error("write the answer as JSON")]
    Json(#[source] serde_json::Error),
}

/// Standard output, by which a reader that went away can be told from every other broken pipe: Postgres's connection has those
/// too, and what it took to be checked was not.
#[derive(Debug)]
pub struct Stdout(io::Stdout);

/// Whoever read standard output has what it wanted: `fanledger journal tail | head`.
#[derive(Debug, thiserror::Error)]
#[error("whoever read standard output has gone")]
struct ReaderGone;

impl Stdout {
    /// The process's.
    pub fn new() -> Self {
        Self(io::stdout())
    }
}

impl Default for Stdout {
    fn default() -> Self {
        Self::new()
    }
}

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(of_stdout)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(of_stdout)
    }
}

fn of_stdout(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::BrokenPipe => io::Error::new(io::ErrorKind::BrokenPipe, ReaderGone),
        _ => error,
    }
}

/// Whether an error came of a reader of standard output that went away.
pub fn is_reader_gone(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        // What an I/O error was made of is not among its causes, only what that one's are.
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if inner.is_some_and(|inner| inner.is::<ReaderGone>()) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Where answers go. Errors and progress go to standard error, so that `--json | jq` always works; a rebuild's progress in JSON is
/// a part of its answer.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    json: bool,
}

/// How a column lines up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

impl Output {
    /// Answers as JSON, or for people.
    pub const fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether a program reads the answer.
    pub const fn is_json(self) -> bool {
        self.json
    }

    /// One value, indented.
    pub fn json<T: Serialize + ?Sized>(self, value: &T) -> Result<(), OutputError> {
        let text = serde_json::to_string_pretty(value).map_err(OutputError::Json)?;
        self.line(text)
    }

    /// One value on a line of its own, for streams of them.
    pub fn json_line<T: Serialize + ?Sized>(self, value: &T) -> Result<(), OutputError> {
        let text = serde_json::to_string(value).map_err(OutputError::Json)?;
        self.line(text)
    }

    /// One line.
    pub fn line(self, text: impl Display) -> Result<(), OutputError> {
        self.raw(format!("{text}\n").as_bytes())
    }

    /// Bytes as they are.
    pub fn raw(self, bytes: &[u8]) -> Result<(), OutputError> {
        let mut stdout = Stdout::new();
        stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(OutputError::Write)
    }

    /// An aligned table, as wide as it needs to be where the output is not a terminal.
    pub fn table(self, columns: &[(&str, Align)], rows: Vec<Vec<String>>) -> Result<(), OutputError> {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(columns.iter().map(|(name, _)| *name));
        table.add_rows(rows);
        for (index, (_, align)) in columns.iter().enumerate() {
            if let Some(column) = table.column_mut(index) {
                column.set_padding((0, 2));
                column.set_cell_alignment(match align {
                    Align::Left => CellAlignment::Left,
                    Align::Right => CellAlignment::Right,
                });
            }
        }
        for line in table.lines() {
            self.line(line.trim_end())?;
        }
        Ok(())
    }

    /// A bar towards `length`; nothing where standard error is not a terminal.
    pub fn bar(self, length: u64, what: &'static str) -> ProgressBar {
        let style = ProgressStyle::with_template("{msg} {wide_bar} {human_pos}/{human_len} {per_sec} {eta}");
        self.progress(ProgressBar::new(length), style, what)
    }

    /// A count with no end known; nothing where standard error is not a terminal.
    pub fn spinner(self, what: &'static str) -> ProgressBar {
        let bar =
            self.progress(ProgressBar::no_length(), ProgressStyle::with_template("{spinner} {msg} {human_pos}"), what);
        bar.enable_steady_tick(Duration::from_millis(120));
        bar
    }

    fn progress(
        self,
        bar: ProgressBar,
        style: Result<ProgressStyle, indicatif::style::TemplateError>,
        what: &'static str,
    ) -> ProgressBar {
        // Drawn on stderr and only there, so that it never mixes with an answer.
        bar.set_draw_target(if io::stderr().is_terminal() && !self.json {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        });
        if let Ok(style) = style {
            bar.set_style(style);
        }
        bar.set_message(what);
        bar
    }
}

/// An amount in the currency's own decimals: `-12.34`, `500`, `1.234`. The currency is named by the column or beside it.
pub fn amount(minor: i128, currency: Currency) -> String {
    let exponent = currency.exponent() as usize;
    let digits = format!("{:0>width$}", minor.unsigned_abs(), width = exponent + 1);
    let (whole, part) = digits.split_at(digits.len() - exponent);
    let sign = if minor < 0 { "-" } else { "" };
    if part.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{part}") }
}

/// The same where the currency comes as text: an unknown one is shown in minor units.
pub fn amount_of(minor: i128, currency: &str) -> String {
    match currency.parse() {
        Ok(currency) => amount(minor, currency),
        Err(_) => minor.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::ExportError;

    #[test]
    fn a_reader_of_standard_output_that_went_away_is_told_from_other_broken_pipes() {
        let broken = || io::Error::from(io::ErrorKind::BrokenPipe);
        assert!(is_reader_gone(&OutputError::Write(of_stdout(broken()))));
        assert!(is_reader_gone(&ExportError::Csv(of_stdout(broken()))));
        assert!(!is_reader_gone(&OutputError::Write(broken())));
        assert!(!is_reader_gone(&OutputError::Write(of_stdout(io::ErrorKind::StorageFull.into()))));
    }

    #[test]
    fn amounts_have_their_currency_s_decimals() {
        let cases = [
            (0, "usd", "0.00"),
            (-1, "usd", "-0.01"),
            (123_456, "eur", "1234.56"),
            (500, "jpy", "500"),
            (-1234, "kwd", "-1.234"),
        ];
        for (minor, currency, text) in cases {
            assert_eq!(amount(minor, currency.parse().unwrap()), text);
        }
        assert_eq!(amount(i128::from(i64::MIN) * 2, "usd".parse().unwrap()), "-184467440737095516.16");
    }
}
