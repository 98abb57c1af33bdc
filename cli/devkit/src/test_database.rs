//! A migrated database of a test's own, cloned from a template.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use sqlx::{Connection, PgConnection};

use crate::servers::{self, Durability, Error, Postgres, PostgresBinaries, PostgresOptions, with_causes};

/// The variable that names a running cluster for tests, by a superuser's URL.
pub const CLUSTER_VARIABLE: &str = "FANLEDGER_TEST_POSTGRES";
/// The roles with LOGIN that the migrations make. Each has a password derived from the superuser's.
const LOGIN_ROLES: &[&str] =
    &["fanledger_gateway", "fanledger_command", "fanledger_projector", "fanledger_operator", "fanledger_finance"];
/// A database that a killed test left is dropped by a later run once it is older than the longest test.
const LEFTOVER_AGE: Duration = Duration::from_secs(3600);
/// Serialises the making of the template among the test processes of one cluster; the number is arbitrary.
const TEMPLATE_LOCK: i64 = 0x0066_616e_6c65_6467;

/// The Postgres cluster that all tests of this checkout share.
#[derive(Debug)]
pub struct TestCluster {
    superuser_url: String,
    own: Option<OwnCluster>,
}

/// A private cluster, and the lock that says that we use it.
#[derive(Debug)]
struct OwnCluster {
    postgres: Postgres,
    /// Locked shared by everyone who uses the cluster; who gets it alone may stop the cluster.
    in_use: std::fs::File,
    lock_path: PathBuf,
}

impl TestCluster {
    /// The one that `FANLEDGER_TEST_POSTGRES` names, else a private one under `.fanledger/test`, started if it is
    /// not running. It goes on when this process ends, so that the next test finds it; see [`TestCluster::stop`].
    ///
    /// # Errors
    /// When there is no such cluster and none can be started.
    pub async fn shared() -> Result<Self, Error> {
        if let Some(url) = std::env::var(CLUSTER_VARIABLE).ok().filter(|url| !url.is_empty()) {
            return Ok(Self { superuser_url: url, own: None });
        }
        let data_dir = repository().join(".fanledger").join("test");
        servers::create_dir(&data_dir)?;
        let programs = PostgresBinaries::locate(&servers::default_bin_dir()).await?;
        // One for each major version, so that tests can be run on several.
        let name = format!("postgres-{}", programs.major);
        let _starting = servers::lock_waiting(&data_dir.join(format!("{name}.starting"))).await?;
        let lock_path = data_dir.join(format!("{name}.in-use"));
        let in_use = servers::lock_shared(&lock_path)?;
        let options = PostgresOptions {
            data_dir: data_dir.join(name),
            programs,
            durability: Durability::ProcessCrashOnly,
            outlive_parent: true,
        };
        let postgres = match Postgres::attach(options.clone()).await? {
            Some(running) => running,
            None => Postgres::start(options).await?,
        };
        let superuser_url = postgres.url("postgres");
        Ok(Self { superuser_url, own: Some(OwnCluster { postgres, in_use, lock_path }) })
    }

    /// A superuser's URL, of the database `postgres` where the cluster is private.
    pub fn superuser_url(&self) -> &str {
        &self.superuser_url
    }

    /// Stops the cluster if it is private and nobody else uses it: the last one out stops it.
    ///
    /// # Errors
    /// When it cannot be signalled.
    pub async fn stop(self) -> Result<(), Error> {
        let Some(OwnCluster { mut postgres, in_use, lock_path }) = self.own else { return Ok(()) };
        drop(in_use);
        match servers::lock_exclusively(&lock_path)? {
            // Held until it has stopped; who comes meanwhile finds it gone and starts it again.
            Some(_alone) => postgres.stop().await,
            None => Ok(()),
        }
    }

    /// Drops databases that killed tests left behind, and templates of other versions of the migrations.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn sweep(&self) -> Result<(), Error> {
        let failed = |source| Error::Database { what: "drop what earlier tests left behind".to_owned(), source };
        let current = template_name(&migrations_dir())?;
        let mut connection = PgConnection::connect(&self.superuser_url).await.map_err(failed)?;
        let names: Vec<String> =
            sqlx::query_scalar(r"SELECT datname::text FROM pg_catalog.pg_database WHERE datname LIKE 'fanledger\_t%'")
                .fetch_all(&mut connection)
                .await
                .map_err(failed)?;
        let oldest = unix_seconds().saturating_sub(LEFTOVER_AGE.as_secs());
        for name in names {
            let made: Option<u64> =
                name.strip_prefix("fanledger_test_").and_then(|rest| rest.split('_').next()?.parse().ok());
            let stale_template = name.starts_with("fanledger_template_") && name != current;
            if stale_template || made.is_some_and(|made| made < oldest) {
                // Somebody may be using it after all, or drop it at the same time.
                if let Err(error) = drop_database(&mut connection, &name).await {
                    tracing::debug!(%error, name, "not dropped");
                }
            }
        }
        connection.close().await.map_err(failed)
    }

    /// Makes the template for the migrations as they are now, if it is not there; returns its name.
    ///
    /// # Errors
    /// When the migrations cannot be read or applied.
    pub async fn template(&self) -> Result<String, Error> {
        let failed = |source| Error::Database { what: "make the template database".to_owned(), source };
        let migrations = migrations_dir();
        let name = template_name(&migrations)?;
        let mut connection = PgConnection::connect(&self.superuser_url).await.map_err(failed)?;
        if !exists(&mut connection, &name).await.map_err(failed)? {
            sqlx::query("SELECT pg_advisory_lock($1)")
                .bind(TEMPLATE_LOCK)
                .execute(&mut connection)
                .await
                .map_err(failed)?;
            if !exists(&mut connection, &name).await.map_err(failed)? {
                self.make_template(&mut connection, &name, &migrations).await?;
            }
        }
        // Closing the session releases the lock.
        connection.close().await.map_err(failed)?;
        Ok(name)
    }

    /// Made under another name and renamed when complete, so that a half-migrated template is never cloned.
    async fn make_template(&self, admin: &mut PgConnection, name: &str, migrations: &Path) -> Result<(), Error> {
        let failed = |source| Error::Database { what: "make the template database".to_owned(), source };
        let building = format!("fanledger_t_building_{}", std::process::id());
        drop_database(admin, &building).await.map_err(failed)?;
        execute(admin, &format!("CREATE DATABASE {building}")).await.map_err(failed)?;
        let url = with_database(&self.superuser_url, &building);
        let migrated = |source| Error::Migrate { path: migrations.to_owned(), source };
        let migrator = sqlx::migrate::Migrator::new(migrations).await.map_err(migrated)?;
        let mut connection = PgConnection::connect(&url).await.map_err(failed)?;
        migrator.run(&mut connection).await.map_err(migrated)?;
        for role in LOGIN_ROLES {
            let there: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = $1)")
                .bind(role)
                .fetch_one(&mut connection)
                .await
                .map_err(failed)?;
            if there {
                let password = role_password(&self.superuser_url, role);
                execute(&mut connection, &format!("ALTER ROLE {role} PASSWORD '{password}'")).await.map_err(failed)?;
            }
        }
        connection.close().await.map_err(failed)?;
        execute(admin, &format!("ALTER DATABASE {building} RENAME TO {name}")).await.map_err(failed)
    }
}

/// A database of a test's own, migrated, dropped when this value is. Set `FANLEDGER_TEST_KEEP` to keep it.
#[derive(Debug)]
pub struct TestDatabase {
    cluster: TestCluster,
    name: String,
    url: String,
}

impl TestDatabase {
    /// Clones the template into a new database.
    ///
    /// # Panics
    /// When there is no cluster or the migrations fail: a test cannot go on without.
    pub async fn create() -> Self {
        match Self::try_create().await {
            Ok(database) => database,
            Err(error) => panic!("a test database could not be made: {}", with_causes(&error)),
        }
    }

    /// As [`TestDatabase::create`], but says what went wrong.
    ///
    /// # Errors
    /// When there is no cluster, or the migrations fail.
    pub async fn try_create() -> Result<Self, Error> {
        let cluster = TestCluster::shared().await?;
        let template = cluster.template().await?;
        let failed = |source| Error::Database { what: "clone the template database".to_owned(), source };
        let name = format!("fanledger_test_{}_{:016x}", unix_seconds(), rand::random::<u64>());
        let mut connection = PgConnection::connect(&cluster.superuser_url).await.map_err(failed)?;
        execute(&mut connection, &format!("CREATE DATABASE {name} TEMPLATE {template}")).await.map_err(failed)?;
        connection.close().await.map_err(failed)?;
        let url = with_database(&cluster.superuser_url, &name);
        Ok(Self { cluster, name, url })
    }

    /// The superuser's URL of this database.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// This database's URL as one of the roles that the migrations make, `fanledger_gateway` for instance.
    pub fn url_for(&self, role: &str) -> String {
        let password = role_password(&self.url, role);
        match self.url.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.split_once('@')?.1))) {
            Some((scheme, host)) => format!("{scheme}://{role}:{password}@{host}"),
            None => self.url.clone(),
        }
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        if std::env::var_os("FANLEDGER_TEST_KEEP").is_some() {
            return;
        }
        let (url, name) = (self.cluster.superuser_url.clone(), self.name.clone());
        // A runtime of its own, because the test's is about to end; joined, because a test's process ends with it.
        // What fails here is swept by a later run.
        let dropped = std::thread::spawn(move || {
            let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
            runtime.block_on(async {
                let work = async {
                    let mut connection = PgConnection::connect(&url).await?;
                    drop_database(&mut connection, &name).await
                };
                if let Ok(Err(error)) = tokio::time::timeout(Duration::from_secs(10), work).await {
                    tracing::debug!(%error, name, "test database not dropped");
                }
            });
        });
        let _ = dropped.join();
    }
}

async fn execute(connection: &mut PgConnection, statement: &str) -> Result<(), sqlx::Error> {
    // The simple protocol: CREATE DATABASE and its like are refused in a transaction, and need no plan.
    sqlx::raw_sql(statement).execute(connection).await.map(|_| ())
}

async fn drop_database(connection: &mut PgConnection, name: &str) -> Result<(), sqlx::Error> {
    execute(connection, &format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await
}

async fn exists(connection: &mut PgConnection, name: &str) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_catalog.pg_database WHERE datname = $1)")
        .bind(name)
        .fetch_one(connection)
        .await
}

/// The repository that this crate was built from.
fn repository() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    path.canonicalize().unwrap_or(path)
}

fn migrations_dir() -> PathBuf {
    repository().join("migrations")
}

/// One template per content of the migrations, so that a changed migration is never tested against an old template.
fn template_name(migrations: &Path) -> Result<String, Error> {
    let unreadable = |source| Error::ReadFile { path: migrations.to_owned(), source };
    let mut files: Vec<PathBuf> = std::fs::read_dir(migrations)
        .map_err(unreadable)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()
        .map_err(unreadable)?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "sql"));
    files.sort();
    let mut digest = Sha256::new();
    for path in files {
        let text = std::fs::read(&path).map_err(|source| Error::ReadFile { path: path.clone(), source })?;
        for part in [path.file_name().unwrap_or_default().as_encoded_bytes(), &text] {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
    }
    Ok(format!("fanledger_template_{}", &hex::encode(digest.finalize())[..16]))
}

/// The password of one of our roles: hex(HMAC-SHA256(the superuser's password, "fanledger-role:" + role)), the rule
/// by which the journal's own migration sets it.
fn role_password(superuser_url: &str, role: &str) -> String {
    let password = superuser_url
        .split_once("://")
        .and_then(|(_, rest)| rest.split_once('@'))
        .and_then(|(user, _)| user.split_once(':'))
        .map_or("", |(_, password)| password);
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(password.as_bytes()) else {
        // HMAC takes a key of any length.
        return String::new();
    };
    mac.update(b"fanledger-role:");
    mac.update(role.as_bytes());
    hex::encode(mac.finalize().into_bytes())
}

/// The same URL with another database.
fn with_database(url: &str, database: &str) -> String {
    let (base, query) = url.split_once('?').map_or((url, None), |(base, query)| (base, Some(query)));
    let start = base.find("://").map_or(0, |at| at + 3);
    let server = base[start..].find('/').map_or(base, |at| &base[..start + at]);
    match query {
        Some(query) => format!("{server}/{database}?{query}"),
        None => format!("{server}/{database}"),
    }
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_gets_another_database() {
        assert_eq!(with_database("postgres://u:p@h:1/a", "b"), "postgres://u:p@h:1/b");
        assert_eq!(with_database("postgres://u:p@h:1", "b"), "postgres://u:p@h:1/b");
        assert_eq!(with_database("postgres://u@h/a?sslmode=disable", "b"), "postgres://u@h/b?sslmode=disable");
    }

    #[test]
    fn a_role_s_password_follows_the_rule() {
        // Computed with Python's hmac.
        assert_eq!(
            role_password("postgres://postgres:secret@127.0.0.1:5432/x", "fanledger_gateway"),
            "682f048046a3c1e792580badae625faa222fa66a565a722e3a2327070f767a96"
        );
    }
}
