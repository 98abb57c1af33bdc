//! How tools connect to Postgres: once plainly, so that what is wrong is said at once and as it is.

use std::str::FromStr;
use std::time::Duration;

use fanledger_journal::database::{self, DatabaseError};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection, PgPool};

/// A server that takes connections and says nothing is given up after this, as a pool would.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A pool of at most so many connections for one role, for somebody who waits for the answer.
///
/// # Errors
/// What Postgres, or the way to it, has to say.
pub async fn pool(url: &str, max_connections: u32) -> Result<PgPool, DatabaseError> {
    plainly(url, TIMEOUT).await?;
    database::connect(url, max_connections).await
}

/// Logs in and out again. A pool takes a refused connection for a server that is about to start, tries until its time is over, and
/// then says only that it timed out.
///
/// # Errors
/// What Postgres, or the way to it, has to say.
pub async fn plainly(url: &str, timeout: Duration) -> Result<(), DatabaseError> {
    let options = PgConnectOptions::from_str(url).map_err(DatabaseError::UrlUnreadable)?.disable_statement_logging();
    let silence = || DatabaseError::Connect(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()));
    let connection = tokio::time::timeout(timeout, PgConnection::connect_with(&options)).await;
    let connection = connection.map_err(|_elapsed| silence())?.map_err(DatabaseError::Connect)?;
    // That it is not waited for to say goodbye hurts nobody.
    tokio::time::timeout(timeout, connection.close()).await.ok();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::one_line;

    #[tokio::test]
    async fn a_refused_connection_is_told_as_one() {
        let port = {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            listener.local_addr().unwrap().port()
        };
        let url = format!("postgres://fanledger_operator:hunter2@127.0.0.1:{port}/fanledger");
        let said = one_line(&pool(&url, 1).await.unwrap_err());
        assert!(said.contains("refused") && !said.contains("hunter2"), "{said}");
    }

    #[tokio::test]
    async fn a_server_that_says_nothing_is_given_up() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("postgres://fanledger_operator:x@{}/fanledger", silent.local_addr().unwrap());
        let said = one_line(&plainly(&url, Duration::from_millis(50)).await.unwrap_err());
        assert!(said.contains("timed out"), "{said}");
    }
}
