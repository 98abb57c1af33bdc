//! Reads long stretches of the journal through `COPY … (FORMAT binary)`, the fastest way out of Postgres, without
//! allocating per event: rows are borrowed from the bytes as they arrive.

use futures::TryStreamExt;
use sqlx::PgConnection;
use uuid::Uuid;

/// Microseconds from 1970 to Postgres's epoch, 2000-01-01.
const POSTGRES_EPOCH_MICROS: i64 = 946_684_800_000_000;
const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
pub(crate) const COLUMNS: usize = 12;

/// A row of `journal.events` as it came, unjudged: it may have been tampered with.
#[derive(Clone, Copy, Debug)]
pub struct RawEvent<'a> {
    /// `position`.
    pub position: i64,
    /// `aggregate_type`.
    pub aggregate_type: &'a [u8],
    /// `aggregate_id`.
    pub aggregate_id: &'a [u8],
    /// `sequence`.
    pub sequence: i64,
    /// `event_type`.
    pub event_type: &'a [u8],
    /// `event_version`.
    pub event_version: &'a [u8],
    /// `payload`, its exact bytes.
    pub payload: &'a [u8],
    /// `metadata`, its exact bytes.
    pub metadata: &'a [u8],
    /// `event_id`.
    pub event_id: Uuid,
    /// `recorded_at`, in microseconds since 1970.
    pub recorded_at_micros: i64,
    /// `leaf`; 32 bytes unless tampered with.
    pub leaf: &'a [u8],
    /// `chain`; 32 bytes unless tampered with.
    pub chain: &'a [u8],
}

/// What reads events out, in [`RawEvent`]'s order of columns. COPY takes no parameters; these are integers.
fn events_statement(from: i64, to: i64) -> String {
    format!(
        "COPY (SELECT position, aggregate_type, aggregate_id, sequence, event_type, event_version, payload, metadata, \
         event_id, recorded_at, leaf, chain FROM journal.events WHERE position BETWEEN {from} AND {to} ORDER BY position) \
         TO STDOUT (FORMAT binary)"
    )
}

/// Calls `each` for every row from one position to another, in order, both included.
///
/// # Errors
/// When Postgres cannot be asked, or sends what is not its own format.
pub async fn each_event(
    connection: &mut PgConnection,
    from: i64,
    to: i64,
    mut each: impl FnMut(&RawEvent<'_>),
) -> Result<(), sqlx::Error> {
    each_row(connection, &events_statement(from, to), |fields| each(&RawEvent::of(fields))).await
}

/// Calls `each` with the fields of every row that a `COPY … TO STDOUT (FORMAT binary)` of `N` columns sends.
pub(crate) async fn each_row<const N: usize>(
    connection: &mut PgConnection,
    statement: &str,
    mut each: impl FnMut([&[u8]; N]),
) -> Result<(), sqlx::Error> {
    let mut rows = Rows::<N>::default();
    let mut chunks = connection.copy_out_raw(statement).await?;
    while let Some(chunk) = chunks.try_next().await? {
        rows.feed(&chunk, &mut each)?;
    }
    rows.finish()
}

/// The same events as bytes, undecoded and gathered into pieces of some `piece_bytes`, for whoever decodes them on another
/// core with [`Rows`]. Ends early, and well, when `send` answers that nobody wants any more.
pub(crate) async fn events_in_pieces(
    connection: &mut PgConnection,
    from: i64,
    to: i64,
    piece_bytes: usize,
    mut send: impl AsyncFnMut(Vec<u8>) -> bool,
) -> Result<(), sqlx::Error> {
    let mut chunks = connection.copy_out_raw(&events_statement(from, to)).await?;
    let mut piece = Vec::with_capacity(piece_bytes);
    let mut wanted = true;
    // What is not wanted is read nevertheless, to the end of this COPY: the connection is good for others only then.
    while let Some(chunk) = chunks.try_next().await? {
        if !wanted {
            continue;
        }
        if !piece.is_empty() && piece.len() + chunk.len() > piece_bytes {
            wanted = send(std::mem::replace(&mut piece, Vec::with_capacity(piece_bytes))).await;
        }
        piece.extend_from_slice(&chunk);
    }
    if wanted && !piece.is_empty() {
        send(piece).await;
    }
    Ok(())
}

/// Finds rows of `N` columns in the bytes of a binary COPY, wherever those are cut.
#[derive(Debug, Default)]
pub(crate) struct Rows<const N: usize> {
    /// What came and is not yet a whole row.
    held: Vec<u8>,
    header_seen: bool,
}

impl<const N: usize> Rows<N> {
    /// Calls `each` for every row that is whole with these bytes.
    pub fn feed(&mut self, bytes: &[u8], mut each: impl FnMut([&[u8]; N])) -> Result<(), sqlx::Error> {
        let mut held = std::mem::take(&mut self.held);
        // As a rule bytes end where a row does, and nothing is held or copied.
        let mut input: &[u8] = if held.is_empty() {
            bytes
        } else {
            held.extend_from_slice(bytes);
            &held
        };
        if !self.header_seen
            && let Some(rest) = header(input)?
        {
            input = rest;
            self.header_seen = true;
        }
        while self.header_seen
            && let Some((fields, rest)) = tuple(input)?
        {
            if let Some(fields) = fields {
                each(fields);
            }
            input = rest;
        }
        self.held = input.to_vec();
        Ok(())
    }

    /// After the last bytes.
    pub fn finish(self) -> Result<(), sqlx::Error> {
        if self.held.is_empty() { Ok(()) } else { Err(malformed("it ends within a row")) }
    }
}

fn malformed(what: &str) -> sqlx::Error {
    sqlx::Error::Protocol(format!("COPY out of journal.events: {what}"))
}

/// What follows the header, once it is whole.
pub(crate) fn header(input: &[u8]) -> Result<Option<&[u8]>, sqlx::Error> {
    let Some((start, rest)) = input.split_at_checked(SIGNATURE.len() + 8) else { return Ok(None) };
    let (signature, flags_and_extension) = start.split_at(SIGNATURE.len());
    if signature != SIGNATURE || flags_and_extension != [0; 8] {
        return Err(malformed("its header is not one that is known"));
    }
    Ok(Some(rest))
}

/// A tuple's fields, read off the input, and what is left after them. The fields are `None` for the end marker.
pub(crate) type Tuple<'a, const N: usize> = (Option<[&'a [u8]; N]>, &'a [u8]);

/// The next row and what follows it, once it is whole.
pub(crate) fn tuple<const N: usize>(input: &[u8]) -> Result<Option<Tuple<'_, N>>, sqlx::Error> {
    let Some((count, mut rest)) = input.split_first_chunk::<2>() else { return Ok(None) };
    match i16::from_be_bytes(*count) {
        -1 => return Ok(Some((None, rest))),
        count if usize::try_from(count) == Ok(N) => {}
        count => return Err(malformed(&format!("a row has {count} columns"))),
    }
    let mut fields: [&[u8]; N] = [&[]; N];
    for field in &mut fields {
        let Some((length, after)) = rest.split_first_chunk::<4>() else { return Ok(None) };
        // A null, which only a table that lost its constraints can hold, reads as empty: its digest cannot agree.
        let length = usize::try_from(i32::from_be_bytes(*length)).unwrap_or(0);
        let Some((value, after)) = after.split_at_checked(length) else { return Ok(None) };
        *field = value;
        rest = after;
    }
    Ok(Some((Some(fields), rest)))
}

impl<'a> RawEvent<'a> {
    /// A row from its fields, in the order of the columns that are asked for.
    pub(crate) fn of(fields: [&'a [u8]; COLUMNS]) -> Self {
        let [
            position,
            aggregate_type,
            aggregate_id,
            sequence,
            event_type,
            event_version,
            payload,
            metadata,
            event_id,
            at,
            leaf,
            chain,
        ] = fields;
        Self {
            position: integer(position),
            aggregate_type,
            aggregate_id,
            sequence: integer(sequence),
            event_type,
            event_version,
            payload,
            metadata,
            event_id: Uuid::from_slice(event_id).unwrap_or_default(),
            recorded_at_micros: time_micros(at),
            leaf,
            chain,
        }
    }
}

/// A `bigint`.
pub(crate) fn integer(bytes: &[u8]) -> i64 {
    bytes.try_into().map_or(0, i64::from_be_bytes)
}

/// A `timestamptz`, in microseconds since 1970.
pub(crate) fn time_micros(bytes: &[u8]) -> i64 {
    integer(bytes).wrapping_add(POSTGRES_EPOCH_MICROS)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Postgres says nowhere that a message of its protocol is a row.
    #[test]
    fn rows_are_found_wherever_the_bytes_are_cut() {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend_from_slice(&[0; 8]);
        for row in [["a", "bc"], ["", "def"]] {
            bytes.extend_from_slice(&2_i16.to_be_bytes());
            for field in row {
                bytes.extend_from_slice(&i32::try_from(field.len()).unwrap().to_be_bytes());
                bytes.extend_from_slice(field.as_bytes());
            }
        }
        bytes.extend_from_slice(&(-1_i16).to_be_bytes());
        for first in 0..bytes.len() {
            for second in first..bytes.len() {
                let mut rows = Rows::<2>::default();
                let mut found = Vec::new();
                for part in [&bytes[..first], &bytes[first..second], &bytes[second..]] {
                    rows.feed(part, |[a, b]| found.push((a.to_vec(), b.to_vec()))).unwrap();
                }
                rows.finish().unwrap();
                assert_eq!(found, [(b"a".to_vec(), b"bc".to_vec()), (b"".to_vec(), b"def".to_vec())]);
            }
        }
        let mut rows = Rows::<2>::default();
        rows.feed(&bytes[..bytes.len() - 3], |_| {}).unwrap();
        assert!(rows.finish().is_err(), "a row was cut off");
        assert!(Rows::<3>::default().feed(&bytes, |_| {}).is_err(), "two columns, not three");
    }
}
