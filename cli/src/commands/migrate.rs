//! `fanledger migrate`.

use fanledger_journal::database;
use serde::Serialize;

use crate::failure::{Failure, Outcome};
use crate::output::Output;
use crate::settings::{Need, Secret, Settings};

#[derive(Serialize)]
struct Migrated {
    schema_version: i64,
}

/// Migrates, and gives each role its password.
///
/// # Errors
/// When Postgres cannot be reached or a migration fails.
pub async fn run(settings: &Settings, output: Output) -> Result<Outcome, Failure> {
    settings.require(&[Need::Superuser])?;
    database::migrate(settings.database_url.as_ref().map_or("", Secret::reveal)).await?;
    let schema_version = database::MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or_default();
    if output.is_json() {
        output.json(&Migrated { schema_version })?;
    } else {
        output.line(format_args!("The database is at schema version {schema_version}."))?;
    }
    Ok(Outcome::Fine)
}
