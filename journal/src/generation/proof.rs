//! The proof: two generations at one position, compared in one snapshot, row by row, by a digest of each row's content.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sqlx::{Connection as _, PgConnection, Row};

use super::schema_name;
use crate::checkpoint::{RunnerRow, run_sql};
use crate::event::Position;
use crate::runner::{RunnerContext, RunnerError};

/// How many differing keys of each table are listed.
const KEYS_LISTED: i64 = 20;

/// What a comparison of two generations at one position came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// Where both stood.
    pub position: Position,
    /// The live generation and the version that it was made by.
    pub live_generation: u32,
    /// See above.
    pub live_version: u32,
    /// The new generation and the version that it was made by.
    pub new_generation: u32,
    /// See above.
    pub new_version: u32,
    /// Each table of either, by name.
    pub tables: Vec<TableProof>,
}

/// One table of a [`Proof`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableProof {
    /// Its name.
    pub table: String,
    /// Which generation has it.
    pub presence: Presence,
    /// Columns that only the new one has. Rows are compared over what both have.
    pub columns_added: Vec<String>,
    /// Columns that only the live one has.
    pub columns_removed: Vec<String>,
    /// Rows that are the same in both.
    pub equal: u64,
    /// Rows of one key and different content.
    pub changed: u64,
    /// Rows whose key only the live one has.
    pub only_live: u64,
    /// Rows whose key only the new one has.
    pub only_new: u64,
    /// The first of the keys that differ.
    pub keys: Vec<DifferingKey>,
}

/// Which generation has a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Presence {
    /// Both.
    Both,
    /// Only the live one.
    OnlyLive,
    /// Only the new one.
    OnlyNew,
}

/// How a row differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Difference {
    /// Both have the key, with different content.
    Changed,
    /// Only the live generation has it.
    OnlyLive,
    /// Only the new generation has it.
    OnlyNew,
}

/// A key that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DifferingKey {
    /// Its columns as Postgres writes a row, `(assets:bank,usd)`; the whole row where the table has no primary key.
    pub key: String,
    /// How it differs.
    pub difference: Difference,
}

impl TableProof {
    /// Whether both have this table, with the same columns and the same rows.
    pub fn is_equal(&self) -> bool {
        self.presence == Presence::Both
            && self.columns_added.is_empty()
            && self.columns_removed.is_empty()
            && self.differing() == 0
    }

    /// How many rows differ.
    pub const fn differing(&self) -> u64 {
        self.changed + self.only_live + self.only_new
    }
}

impl Proof {
    /// Whether both generations hold the same.
    pub fn is_equal(&self) -> bool {
        self.tables.iter().all(TableProof::is_equal)
    }

    /// Rows that are the same.
    pub fn equal_rows(&self) -> u64 {
        self.tables.iter().map(|table| table.equal).sum()
    }

    /// Rows that differ.
    pub fn differing_rows(&self) -> u64 {
        self.tables.iter().map(TableProof::differing).sum()
    }
}

/// Both generations as they were at one moment.
pub(super) struct Snapshot {
    connection: PgConnection,
    pub live: RunnerRow,
    pub new: RunnerRow,
}

impl Snapshot {
    /// Taken while both are held at one position, it shows both there; comparing may then take as long as it takes.
    pub async fn take(context: &RunnerContext, name: &str, live: i32, new: i32) -> Result<Self, RunnerError> {
        let mut connection = context.connect().await?;
        let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL work_mem = '64MB'";
        run_sql(&mut connection, begin).await.map_err(RunnerError::Transaction)?;
        // The first query takes the snapshot.
        let rows = RunnerRow::all(&mut connection, name).await.map_err(RunnerError::Checkpoint)?;
        let of = |generation| rows.iter().find(|row| row.generation == generation).cloned();
        match (of(live), of(new)) {
            (Some(live), Some(new)) => Ok(Self { connection, live, new }),
            _ => Err(RunnerError::Checkpoint(sqlx::Error::RowNotFound)),
        }
    }

    /// Compares every table of the two.
    pub async fn compare(mut self, name: &str) -> Result<Proof, sqlx::Error> {
        let (live, new) = (schema_name(name, self.live.generation), schema_name(name, self.new.generation));
        let (live_tables, new_tables) = (self.tables(&live).await?, self.tables(&new).await?);
        let mut names: Vec<&String> = live_tables.keys().chain(new_tables.keys()).collect();
        names.sort_unstable();
        names.dedup();
        let mut tables = Vec::new();
        for table in names {
            tables.push(match (live_tables.get(table), new_tables.get(table)) {
                (Some(old), Some(new_columns)) => {
                    let pair = Pair { live: &live, new: &new, table, old, new_columns };
                    pair.compare(&mut self.connection).await?
                }
                (Some(_), None) => empty(table, Presence::OnlyLive),
                (None, _) => empty(table, Presence::OnlyNew),
            });
        }
        run_sql(&mut self.connection, "ROLLBACK").await?;
        let proof = Proof {
            position: self.new.checkpoint.position,
            live_generation: self.live.generation.cast_unsigned(),
            live_version: self.live.version,
            new_generation: self.new.generation.cast_unsigned(),
            new_version: self.new.version,
            tables,
        };
        self.connection.close().await?;
        Ok(proof)
    }

    /// Each table of a schema, a partitioned one as a whole, with its columns in order and whether they are in the key.
    async fn tables(&mut self, schema: &str) -> Result<BTreeMap<String, Vec<Column>>, sqlx::Error> {
        let rows = sqlx::query(
            "SELECT c.relname::text AS table, quote_ident(a.attname) AS column, coalesce(a.attnum = ANY (i.indkey), false) AS in_key
             FROM pg_catalog.pg_class AS c
             JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
             JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
             LEFT JOIN pg_catalog.pg_index AS i ON i.indrelid = c.oid AND i.indisprimary
             WHERE n.nspname = $1 AND c.relkind IN ('r', 'p') AND NOT c.relispartition
             ORDER BY c.relname, a.attnum",
        )
        .bind(schema)
        .fetch_all(&mut self.connection)
        .await?;
        let mut tables: BTreeMap<String, Vec<Column>> = BTreeMap::new();
        for row in rows {
            let column = Column { name: row.try_get("column")?, in_key: row.try_get("in_key")? };
            tables.entry(row.try_get("table")?).or_default().push(column);
        }
        Ok(tables)
    }
}

fn empty(table: &str, presence: Presence) -> TableProof {
    TableProof {
        table: table.to_owned(),
        presence,
        columns_added: Vec::new(),
        columns_removed: Vec::new(),
        equal: 0,
        changed: 0,
        only_live: 0,
        only_new: 0,
        keys: Vec::new(),
    }
}

struct Column {
    /// Quoted where it needs to be.
    name: String,
    in_key: bool,
}

/// One table in both generations.
struct Pair<'a> {
    live: &'a str,
    new: &'a str,
    table: &'a str,
    old: &'a [Column],
    new_columns: &'a [Column],
}

impl Pair<'_> {
    async fn compare(&self, connection: &mut PgConnection) -> Result<TableProof, sqlx::Error> {
        let has = |columns: &[Column], name: &str| columns.iter().any(|column| column.name == name);
        let missing = |from: &[Column], among: &[Column]| -> Vec<String> {
            from.iter().filter(|column| !has(among, &column.name)).map(|column| column.name.clone()).collect()
        };
        let common: Vec<&Column> = self.new_columns.iter().filter(|column| has(self.old, &column.name)).collect();
        let mut proof = TableProof {
            columns_added: missing(self.new_columns, self.old),
            columns_removed: missing(self.old, self.new_columns),
            ..empty(self.table, Presence::Both)
        };
        if common.is_empty() {
            return Ok(proof);
        }
        let joined = self.joined(&common);
        let row = sqlx::query(&format!(
            "SELECT count(*) FILTER (WHERE o.h = n.h), count(*) FILTER (WHERE o.h <> n.h),
                    count(*) FILTER (WHERE n.h IS NULL), count(*) FILTER (WHERE o.h IS NULL) FROM {joined}"
        ))
        .fetch_one(&mut *connection)
        .await?;
        let count = |index: usize| row.try_get::<i64, _>(index).map(i64::cast_unsigned);
        (proof.equal, proof.changed, proof.only_live, proof.only_new) = (count(0)?, count(1)?, count(2)?, count(3)?);
        if proof.differing() > 0 {
            proof.keys = self.keys(connection, &common, &joined).await?;
        }
        Ok(proof)
    }

    /// Both tables joined by key, with a digest of each row's content. Without a primary key in common a row is its own key,
    /// and how often it occurs is its content.
    fn joined(&self, common: &[&Column]) -> String {
        let row = list(common.iter().copied());
        let side = |schema: &str| {
            let table = format!("{schema}.\"{}\"", self.table);
            match self.key(common) {
                Some(key) => {
                    format!("(SELECT {key}, sha256(convert_to(ROW({row})::text, 'UTF8')) AS h FROM {table})")
                }
                None => format!("(SELECT ROW({row})::text AS whole_row, count(*) AS h FROM {table} GROUP BY 1)"),
            }
        };
        let key = self.key(common).unwrap_or_else(|| "whole_row".to_owned());
        format!("{} AS o FULL JOIN {} AS n USING ({key})", side(self.live), side(self.new))
    }

    /// The primary key's columns, if both have all of them.
    fn key(&self, common: &[&Column]) -> Option<String> {
        let of_key = |columns: &[Column]| columns.iter().filter(|column| column.in_key).count();
        let key: Vec<&Column> = common.iter().copied().filter(|column| column.in_key).collect();
        let whole = !key.is_empty() && key.len() == of_key(self.new_columns) && key.len() == of_key(self.old);
        whole.then(|| list(key.into_iter()))
    }

    async fn keys(
        &self,
        connection: &mut PgConnection,
        common: &[&Column],
        joined: &str,
    ) -> Result<Vec<DifferingKey>, sqlx::Error> {
        let key = self.key(common).map_or_else(|| "whole_row".to_owned(), |key| format!("ROW({key})::text"));
        let rows = sqlx::query(&format!(
            "SELECT {key}, o.h IS NULL, n.h IS NULL FROM {joined} WHERE o.h IS DISTINCT FROM n.h ORDER BY 1 LIMIT {KEYS_LISTED}"
        ))
        .fetch_all(connection)
        .await?;
        rows.iter()
            .map(|row| {
                let difference = match (row.try_get(1)?, row.try_get(2)?) {
                    (true, _) => Difference::OnlyNew,
                    (false, true) => Difference::OnlyLive,
                    (false, false) => Difference::Changed,
                };
                Ok(DifferingKey { key: row.try_get(0)?, difference })
            })
            .collect()
    }
}

fn list<'a>(columns: impl Iterator<Item = &'a Column>) -> String {
    columns.map(|column| column.name.as_str()).collect::<Vec<_>>().join(", ")
}
