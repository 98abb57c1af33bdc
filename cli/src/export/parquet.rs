//! A row for each posting, in typed columns (<https://parquet.apache.org/docs/file-format/>), in row groups of a bounded size.

use std::sync::Arc;

use ::parquet::basic::Compression;
use ::parquet::data_type::{ByteArray, ByteArrayType, DataType, Int32Type, Int64Type};
use ::parquet::errors::ParquetError;
use ::parquet::file::metadata::KeyValue;
use ::parquet::file::properties::WriterProperties;
use ::parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use ::parquet::schema::parser::parse_message_type;
use fanledger_domain::time::Timestamp;
use fanledger_gateway::read::{By, ExportedAccount, ExportedEntry};

use super::sink::Sink;
use super::{ExportError, Format, Heading, Line};

/// Some 20 MB in memory, and as many rows as readers like to take at once.
const ROW_GROUP_ROWS: usize = 1 << 16;

/// The columns; `docs/export.md` says what each is. What an opening balance has not is null.
const SCHEMA: &str = "message posting {
    required binary kind (UTF8);
    required int32 date (DATE);
    optional binary entry_id (UTF8);
    required int32 line;
    optional int64 position;
    optional int64 occurred_at (TIMESTAMP(MICROS, true));
    optional int64 effective_at (TIMESTAMP(MICROS, true));
    optional int64 recorded_at (TIMESTAMP(MICROS, true));
    required binary account (UTF8);
    required binary currency (UTF8);
    required binary side (UTF8);
    required int64 amount_minor;
    required int32 decimals;
    required binary description (UTF8);
    optional binary object (UTF8);
    optional binary webhook (UTF8);
}";

/// The values of one column of a row group. An optional column has a level for each row: 1 where there is a value.
struct Column<T: DataType> {
    values: Vec<T::T>,
    levels: Option<Vec<i16>>,
}

impl<T: DataType> Column<T> {
    const fn required() -> Self {
        Self { values: Vec::new(), levels: None }
    }

    const fn optional() -> Self {
        Self { values: Vec::new(), levels: Some(Vec::new()) }
    }

    fn push(&mut self, value: T::T) {
        self.values.push(value);
        if let Some(levels) = &mut self.levels {
            levels.push(1);
        }
    }

    /// Only to an optional column.
    fn push_option(&mut self, value: Option<T::T>) {
        match (value, &mut self.levels) {
            (Some(value), _) => self.push(value),
            (None, Some(levels)) => levels.push(0),
            (None, None) => {}
        }
    }

    /// Writes the row group's next column, and is empty afterwards.
    fn write(&mut self, group: &mut SerializedRowGroupWriter<'_, Sink>) -> Result<(), ParquetError> {
        let next = group.next_column()?;
        let mut column = next.ok_or_else(|| ParquetError::General("the schema has fewer columns".to_owned()))?;
        column.typed::<T>().write_batch(&self.values, self.levels.as_deref(), None)?;
        self.values.clear();
        if let Some(levels) = &mut self.levels {
            levels.clear();
        }
        column.close()
    }
}

/// The rows of the next row group, in the columns of [`SCHEMA`].
struct Rows {
    kind: Column<ByteArrayType>,
    date: Column<Int32Type>,
    entry_id: Column<ByteArrayType>,
    line: Column<Int32Type>,
    position: Column<Int64Type>,
    occurred_at: Column<Int64Type>,
    effective_at: Column<Int64Type>,
    recorded_at: Column<Int64Type>,
    account: Column<ByteArrayType>,
    currency: Column<ByteArrayType>,
    side: Column<ByteArrayType>,
    amount_minor: Column<Int64Type>,
    decimals: Column<Int32Type>,
    description: Column<ByteArrayType>,
    object: Column<ByteArrayType>,
    webhook: Column<ByteArrayType>,
}

impl Rows {
    const fn new() -> Self {
        Self {
            kind: Column::required(),
            date: Column::required(),
            entry_id: Column::optional(),
            line: Column::required(),
            position: Column::optional(),
            occurred_at: Column::optional(),
            effective_at: Column::optional(),
            recorded_at: Column::optional(),
            account: Column::required(),
            currency: Column::required(),
            side: Column::required(),
            amount_minor: Column::required(),
            decimals: Column::required(),
            description: Column::required(),
            object: Column::optional(),
            webhook: Column::optional(),
        }
    }

    fn push_line(&mut self, line: &Line<'_>) -> Result<(), ExportError> {
        let Line { number, account, currency, minor, .. } = line;
        let too_large = |_| ExportError::TooLarge { account: (*account).to_owned(), currency: *currency };
        self.amount_minor.push(i64::try_from(*minor).map_err(too_large)?);
        self.line.push(*number);
        self.account.push(ByteArray::from(*account));
        self.currency.push(ByteArray::from(currency.as_str()));
        self.side.push(ByteArray::from(line.side().as_str()));
        // 0, 2 or 3.
        self.decimals.push(currency.exponent().cast_signed());
        Ok(())
    }

    fn write(&mut self, group: &mut SerializedRowGroupWriter<'_, Sink>) -> Result<(), ParquetError> {
        self.kind.write(group)?;
        self.date.write(group)?;
        self.entry_id.write(group)?;
        self.line.write(group)?;
        self.position.write(group)?;
        self.occurred_at.write(group)?;
        self.effective_at.write(group)?;
        self.recorded_at.write(group)?;
        self.account.write(group)?;
        self.currency.write(group)?;
        self.side.write(group)?;
        self.amount_minor.write(group)?;
        self.decimals.write(group)?;
        self.description.write(group)?;
        self.object.write(group)?;
        self.webhook.write(group)
    }
}

/// See the module.
pub struct Parquet {
    writer: SerializedFileWriter<Sink>,
    rows: Rows,
    by: By,
}

impl Parquet {
    /// Writes to `sink`, with the dates of this time.
    ///
    /// # Errors
    /// When the file's first bytes cannot be written.
    pub fn new(sink: Sink, by: By) -> Result<Self, ExportError> {
        let schema = parse_message_type(SCHEMA).map_err(ExportError::Parquet)?;
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_created_by(concat!("fanledger ", env!("CARGO_PKG_VERSION")).to_owned())
            .build();
        let writer = SerializedFileWriter::new(sink, Arc::new(schema), Arc::new(properties));
        Ok(Self { writer: writer.map_err(ExportError::Parquet)?, rows: Rows::new(), by })
    }

    fn write_group(&mut self) -> Result<(), ExportError> {
        let mut write = || {
            let mut group = self.writer.next_row_group()?;
            self.rows.write(&mut group)?;
            group.close()
        };
        write().map(drop).map_err(ExportError::Parquet)
    }
}

impl Format for Parquet {
    fn begin(&mut self, heading: &Heading, _: &[ExportedAccount]) -> Result<(), ExportError> {
        for (key, value) in [
            ("fanledger.journal_id", heading.journal_id.to_string()),
            ("fanledger.position", heading.position.to_string()),
            ("fanledger.chain", heading.chain.clone()),
            ("fanledger.range", heading.lines().get(2).cloned().unwrap_or_default()),
        ] {
            self.writer.append_key_value_metadata(KeyValue::new(key.to_owned(), value));
        }
        // Of a closed month as before: its bytes are the same for ever.
        if let Some(state) = heading.state().filter(|_| !heading.is_closed) {
            self.writer.append_key_value_metadata(KeyValue::new("fanledger.period".to_owned(), state));
        }
        Ok(())
    }

    fn opening(&mut self, at: Timestamp, lines: &[Line<'_>]) -> Result<(), ExportError> {
        for line in lines {
            let rows = &mut self.rows;
            rows.push_line(line)?;
            rows.kind.push(ByteArray::from("opening"));
            rows.date.push(days(at));
            for column in [&mut rows.entry_id, &mut rows.object, &mut rows.webhook] {
                column.push_option(None);
            }
            for column in [&mut rows.position, &mut rows.occurred_at, &mut rows.effective_at, &mut rows.recorded_at] {
                column.push_option(None);
            }
            rows.description.push(ByteArray::from("opening balances"));
        }
        Ok(())
    }

    fn entry(&mut self, entry: &ExportedEntry, lines: &[Line<'_>]) -> Result<(), ExportError> {
        // One copy of each for all lines.
        let text = |text: &str| ByteArray::from(text);
        let (kind, entry_id, description) = (text("posting"), text(&entry.entry_id), text(&entry.description));
        let (object, webhook) = (text(&entry.object), entry.stripe_event.as_deref().map(text));
        let date = days(entry.at(self.by));
        for line in lines {
            let rows = &mut self.rows;
            rows.push_line(line)?;
            rows.kind.push(kind.clone());
            rows.date.push(date);
            rows.entry_id.push(entry_id.clone());
            rows.position.push(entry.position.cast_signed());
            rows.occurred_at.push(entry.occurred_at.as_unix_micros());
            rows.effective_at.push(entry.effective_at.as_unix_micros());
            rows.recorded_at.push(entry.recorded_at.as_unix_micros());
            rows.description.push(description.clone());
            rows.object.push(object.clone());
            rows.webhook.push_option(webhook.clone());
        }
        // A little more than the bound, since an entry stays whole.
        if self.rows.line.values.len() >= ROW_GROUP_ROWS { self.write_group() } else { Ok(()) }
    }

    fn finish(mut self: Box<Self>, _: &[ExportedAccount]) -> Result<Sink, ExportError> {
        if !self.rows.line.values.is_empty() {
            self.write_group()?;
        }
        self.writer.into_inner().map_err(ExportError::Parquet)
    }
}

/// Days since 1970, in UTC; of the years that an instant can be of, some millions at most.
fn days(at: Timestamp) -> i32 {
    i32::try_from(at.as_unix_seconds().div_euclid(86_400)).unwrap_or_default()
}
