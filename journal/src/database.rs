//! The database around the journal: its roles, its schema's version, and pools that each log in as one role.

use std::str::FromStr;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, PgConnection, PgPool};

/// A pooled connection that was in use so recently is taken to be alive.
const IDLE_TRUSTED: Duration = Duration::from_secs(1);

/// The migrations of ground state and control tables, as they were when this was built.
pub static MIGRATIONS: Migrator = sqlx::migrate!("../migrations");

/// Who a pool logs in as. Rights are given to these in the migrations; no pool of ours logs in as a superuser.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The gateway's query handlers: SELECT on `read` and nothing else.
    Gateway,
    /// The command executor: loads streams, calls `journal.append` and the named functions of `vault` and `control`.
    Command,
    /// Runners: read the journal, own generations and the views in `read`.
    Projector,
    /// Operators' tools.
    Operator,
    /// Auditors with an SQL client of their own: SELECT on `read` and on `journal.events`.
    Finance,
}

impl Role {
    /// Every role that logs in.
    pub const ALL: [Self; 5] = [Self::Gateway, Self::Command, Self::Projector, Self::Operator, Self::Finance];

    /// Its name in Postgres.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gateway => "fanledger_gateway",
            Self::Command => "fanledger_command",
            Self::Projector => "fanledger_projector",
            Self::Operator => "fanledger_operator",
            Self::Finance => "fanledger_finance",
        }
    }
}

/// What can go wrong around the database as a whole.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// The URL is not one of Postgres's, or names no user to derive the roles' passwords from.
    #[error("the database URL must be of the form postgres://user:password@host:port/database")]
    Url,
    /// The URL has the right form and cannot be read nevertheless.
    #[error("read the database URL")]
    UrlUnreadable(#[source] sqlx::Error),
    /// No connection could be had.
    #[error("connect to Postgres; is it running, and does the role log in with this password?")]
    Connect(#[source] sqlx::Error),
    /// A migration failed; it left nothing behind.
    #[error("migrate the database")]
    Migrate(#[source] MigrateError),
    /// The roles' passwords could not be set.
    #[error("set the roles' passwords")]
    Passwords(#[source] sqlx::Error),
}

/// Brings the database up to this build's schema, and, where the URL is a superuser's, sets each role's password to the
/// one that [`role_url`] derives. Safe to run at the same moment from several processes and for several databases.
///
/// # Errors
/// When Postgres cannot be reached, or a migration fails or was changed after it ran.
pub async fn migrate(superuser_url: &str) -> Result<(), DatabaseError> {
    let options = connect_options(superuser_url)?;
    let mut connection = PgConnection::connect_with(&options).await.map_err(DatabaseError::Connect)?;
    MIGRATIONS.run(&mut connection).await.map_err(DatabaseError::Migrate)?;
    set_passwords(&mut connection, superuser_url).await?;
    // What matters is committed; a failure to say goodbye is not the caller's concern.
    connection.close().await.ok();
    Ok(())
}

async fn set_passwords(connection: &mut PgConnection, superuser_url: &str) -> Result<(), DatabaseError> {
    let superuser: bool = sqlx::query_scalar("SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user")
        .fetch_one(&mut *connection)
        .await
        .map_err(DatabaseError::Passwords)?;
    if !superuser {
        // Where no superuser is to be had, whoever runs the cluster gives the roles their passwords.
        return Ok(());
    }
    let mut transaction = connection.begin().await.map_err(DatabaseError::Passwords)?;
    // Roles belong to the cluster: without this lock, two databases that migrate at once meet in one row.
    let mut statement = String::from("LOCK TABLE pg_catalog.pg_authid IN SHARE ROW EXCLUSIVE MODE;");
    for role in Role::ALL {
        // The password is hexadecimal, so quoting it is safe; ALTER ROLE takes no parameters.
        statement.push_str(&format!("ALTER ROLE {} PASSWORD '{}';", role.name(), password(superuser_url, role)?));
    }
    sqlx::raw_sql(&statement).execute(&mut *transaction).await.map_err(DatabaseError::Passwords)?;
    transaction.commit().await.map_err(DatabaseError::Passwords)
}

/// The same database for one role: its password is hex(HMAC-SHA256(superuser's password, "fanledger-role:" ‖ role)).
///
/// # Errors
/// When the URL is not of the form `postgres://user:password@host:port/database`.
pub fn role_url(superuser_url: &str, role: Role) -> Result<String, DatabaseError> {
    let parts = Parts::of(superuser_url)?;
    Ok(format!("{}://{}:{}@{}", parts.scheme, role.name(), password(superuser_url, role)?, parts.rest))
}

fn password(superuser_url: &str, role: Role) -> Result<String, DatabaseError> {
    let secret = Parts::of(superuser_url)?.password;
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).map_err(|_| DatabaseError::Url)?;
    mac.update(b"fanledger-role:");
    mac.update(role.name().as_bytes());
    Ok(hex::encode(mac.finalize().into_bytes()))
}

/// A pool for one role. Time limits are settings of the roles, not of the pool, so that nobody forgets them.
///
/// # Errors
/// When the URL cannot be read or no first connection can be had.
pub async fn connect(url: &str, max_connections: u32) -> Result<PgPool, DatabaseError> {
    PgPoolOptions::new()
        .max_connections(max_connections)
        .acquire_timeout(Duration::from_secs(10))
        // A round trip before every statement would double their number; one that was idle for long is asked all the same.
        .test_before_acquire(false)
        .before_acquire(|connection, about| {
            Box::pin(async move {
                if about.idle_for > IDLE_TRUSTED {
                    connection.ping().await?;
                }
                Ok(true)
            })
        })
        .connect_with(connect_options(url)?)
        .await
        .map_err(DatabaseError::Connect)
}

/// Connection options with sqlx's log of every statement turned off: statements hold payloads.
pub(crate) fn connect_options(url: &str) -> Result<PgConnectOptions, DatabaseError> {
    Ok(PgConnectOptions::from_str(url).map_err(DatabaseError::UrlUnreadable)?.disable_statement_logging())
}

struct Parts<'a> {
    scheme: &'a str,
    password: &'a str,
    rest: &'a str,
}

impl<'a> Parts<'a> {
    fn of(url: &'a str) -> Result<Self, DatabaseError> {
        let (scheme, after) = url.split_once("://").ok_or(DatabaseError::Url)?;
        let (user, rest) = after.rsplit_once('@').ok_or(DatabaseError::Url)?;
        let password = user.split_once(':').map_or("", |(_, password)| password);
        if matches!(scheme, "postgres" | "postgresql") {
            Ok(Self { scheme, password, rest })
        } else {
            Err(DatabaseError::Url)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_s_url_differs_in_user_and_password_only() {
        let url =
            role_url("postgres://postgres:secret@127.0.0.1:5432/fanledger?sslmode=disable", Role::Gateway).unwrap();
        let (user, rest) = url.split_once('@').unwrap();
        assert_eq!(rest, "127.0.0.1:5432/fanledger?sslmode=disable");
        assert!(user.starts_with("postgres://fanledger_gateway:"));
        assert_eq!(user.rsplit_once(':').unwrap().1.len(), 64);
    }

    #[test]
    fn a_url_without_a_user_is_refused() {
        assert!(matches!(role_url("postgres://127.0.0.1/x", Role::Gateway), Err(DatabaseError::Url)));
        assert!(matches!(role_url("mysql://u:p@127.0.0.1/x", Role::Gateway), Err(DatabaseError::Url)));
    }
}
