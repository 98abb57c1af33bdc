//! Rows on their way into Postgres through `COPY … FROM STDIN (FORMAT binary)`, the fastest way in.

use sqlx::PgConnection;

/// Microseconds from 1970 to Postgres's epoch, 2000-01-01.
const POSTGRES_EPOCH_MICROS: i64 = 946_684_800_000_000;
const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
const END: i16 = -1;

/// What is sent in one message.
const PART_BYTES: usize = 64 << 10;

/// The type's object id, which an array names (`pg_type.dat` of Postgres); it is the same in every database.
const BIGINT: i32 = 20;

/// Gathers rows; every method after [`Rows::begin`] adds the next column.
pub(crate) struct Rows {
    bytes: Vec<u8>,
    columns: i16,
}

impl Rows {
    /// For rows of so many columns.
    pub fn of(columns: i16) -> Self {
        Self { bytes: Vec::new(), columns }
    }

    /// A new row.
    pub fn begin(&mut self) -> &mut Self {
        if self.bytes.is_empty() {
            self.bytes.extend_from_slice(SIGNATURE);
            // Flags, and the length of a header extension: none.
            self.bytes.extend_from_slice(&[0; 8]);
        }
        self.bytes.extend_from_slice(&self.columns.to_be_bytes());
        self
    }

    pub fn smallint(&mut self, value: i16) -> &mut Self {
        self.field(&value.to_be_bytes())
    }

    pub fn integer(&mut self, value: i32) -> &mut Self {
        self.field(&value.to_be_bytes())
    }

    pub fn bigint(&mut self, value: i64) -> &mut Self {
        self.field(&value.to_be_bytes())
    }

    /// Also for `json`.
    pub fn text(&mut self, value: &str) -> &mut Self {
        self.field(value.as_bytes())
    }

    pub fn optional_text(&mut self, value: Option<&str>) -> &mut Self {
        match value {
            Some(value) => self.text(value),
            None => {
                self.bytes.extend_from_slice(&(-1_i32).to_be_bytes());
                self
            }
        }
    }

    /// A `timestamptz`, from microseconds since 1970.
    pub fn time(&mut self, unix_micros: i64) -> &mut Self {
        self.bigint(unix_micros - POSTGRES_EPOCH_MICROS)
    }

    /// A `numeric` without decimals: its sign, and its digits to the base of ten thousand, the highest first.
    pub fn numeric(&mut self, value: i128) -> &mut Self {
        const BASE: u128 = 10_000;
        let mut digits = [0_u16; 10];
        let mut count = 0;
        let mut rest = value.unsigned_abs();
        for digit in &mut digits {
            if rest == 0 {
                break;
            }
            *digit = (rest % BASE) as u16;
            rest /= BASE;
            count += 1;
        }
        let header = [count, count.max(1) - 1, if value < 0 { 0x4000 } else { 0 }, 0];
        self.length(usize::from(count) * 2 + 8);
        for word in header.iter().chain(digits.iter().take(usize::from(count)).rev()) {
            self.bytes.extend_from_slice(&word.to_be_bytes());
        }
        self
    }

    /// A `bigint[]` that is not empty.
    pub fn bigints(&mut self, values: impl ExactSizeIterator<Item = i64>) -> &mut Self {
        let count = values.len();
        self.length(20 + 12 * count);
        // One dimension, no nulls, indexes from 1.
        for word in [1, 0, BIGINT, i32::try_from(count).unwrap_or(i32::MAX), 1] {
            self.bytes.extend_from_slice(&word.to_be_bytes());
        }
        for value in values {
            self.field(&value.to_be_bytes());
        }
        self
    }

    fn field(&mut self, value: &[u8]) -> &mut Self {
        self.length(value.len());
        self.bytes.extend_from_slice(value);
        self
    }

    fn length(&mut self, length: usize) {
        // A field beyond 2 GiB would come from an event beyond 2 GiB, which the journal refuses.
        self.bytes.extend_from_slice(&i32::try_from(length).unwrap_or(i32::MAX).to_be_bytes());
    }

    /// Writes what was gathered to `table (columns…)`, and is empty afterwards.
    pub async fn write(&mut self, table: &str, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        if self.bytes.is_empty() {
            return Ok(());
        }
        self.bytes.extend_from_slice(&END.to_be_bytes());
        let mut copy = connection.copy_in_raw(&format!("COPY {table} FROM STDIN (FORMAT binary)")).await?;
        // In parts, so that the connection's own buffer stays small, and Postgres works while the next part is on its way.
        for part in self.bytes.chunks(PART_BYTES) {
            copy.send(part).await?;
        }
        copy.finish().await?;
        self.bytes.clear();
        Ok(())
    }
}
