//! `cargo xtask reset-db`: an empty start for `make run`.

use std::path::PathBuf;

use fanledger_devkit::servers::{Servers, StartOptions};

use crate::{Error, root};

/// Removes the data of the private Postgres and NATS in `FANLEDGER_DATA_DIR` (default `.fanledger`). Fetched programs
/// and keys stay.
///
/// # Errors
/// When the servers are running, or the data cannot be removed.
pub async fn run() -> Result<(), Error> {
    let named = std::env::var_os("FANLEDGER_DATA_DIR").filter(|name| !name.is_empty()).map(PathBuf::from);
    let data_dir = named.unwrap_or_else(|| root().join(".fanledger"));
    Servers::remove_data(StartOptions::new(&data_dir)).await.map_err(Error::Servers)?;
    println!("removed the private Postgres's and NATS's data in {}", data_dir.display());
    Ok(())
}
