//! Who may do what, tried as each role; and that the guards stop even the superuser's hand.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeSet;

use fanledger_devkit::TestDatabase;
use fanledger_journal::database::{self, Role};
use support::{Journal, appended, code, command};

const TABLES: [&str; 8] = [
    "journal.events",
    "journal.lock",
    "journal.batches",
    "journal.identity",
    "journal.stream_types",
    "journal.idempotency_keys",
    "journal.entry_ids",
    "vault.keys",
];

/// What each role may do with the tables of ground state; everything else is tried and must be refused.
const fn may_select(role: Role) -> &'static [&'static str] {
    match role {
        Role::Gateway => &[],
        Role::Projector => &["journal.events", "journal.batches", "journal.identity"],
        Role::Command | Role::Operator => {
            &["journal.events", "journal.batches", "journal.identity", "journal.entry_ids"]
        }
        Role::Finance => &["journal.events"],
    }
}

/// The functions of `journal` and `vault` that each role may execute. Those of `control` are named by their migrations; the
/// gateway's queries and auditors have none of them either.
const fn may_execute(role: Role) -> &'static [&'static str] {
    match role {
        Role::Gateway | Role::Projector | Role::Finance => &[],
        Role::Command => &["journal.append", "journal.forget_idempotency_keys", "vault.destroy", "vault.open"],
        Role::Operator => &["journal.append", "journal.forget_idempotency_keys"],
    }
}

const REFUSED: &str = "42501";

#[tokio::test]
async fn each_role_reads_what_it_is_granted_and_writes_no_table_of_ground_state() {
    let journal = Journal::start().await;
    for role in Role::ALL {
        let pool = journal.pool(role).await;
        for table in TABLES {
            let read = sqlx::raw_sql(&format!("SELECT count(*) FROM {table}")).execute(&pool).await;
            if may_select(role).contains(&table) {
                read.unwrap();
            } else {
                assert_eq!(code(read), REFUSED, "{role:?} reads {table}");
            }
            for statement in [
                format!("INSERT INTO {table} DEFAULT VALUES"),
                format!("DELETE FROM {table}"),
                format!("TRUNCATE {table}"),
                format!("ALTER TABLE {table} DISABLE TRIGGER ALL"),
                format!("DROP TABLE {table}"),
                format!("LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"),
            ] {
                assert_eq!(
                    code(sqlx::raw_sql(&format!("BEGIN; {statement}; COMMIT")).execute(&pool).await),
                    REFUSED,
                    "{role:?}: {statement}"
                );
                sqlx::raw_sql("ROLLBACK").execute(&pool).await.unwrap();
            }
        }
        for statement in [
            "UPDATE journal.events SET payload = '{}'",
            "SELECT FROM journal.lock FOR UPDATE",
            "SELECT FROM journal.events FOR UPDATE",
            "UPDATE vault.keys SET wrapped_key = NULL",
            "CREATE TABLE public.mine (n int)",
            "CREATE SCHEMA mine",
            "SET ROLE journal_writer",
            "SET SESSION AUTHORIZATION postgres",
            "SET session_replication_role = replica",
            "CREATE TABLE journal.mine (n int)",
            "SELECT lo_create(0)",
            "SELECT lo_from_bytea(0, '')",
        ] {
            assert_eq!(code(sqlx::raw_sql(statement).execute(&pool).await), REFUSED, "{role:?}: {statement}");
        }
        // Only runners and the relay, which log in as the projector, agree by locks on who is active.
        for statement in ["SELECT pg_try_advisory_lock(1)", "SELECT pg_advisory_xact_lock(1)"] {
            let locked = sqlx::raw_sql(statement).execute(&pool).await;
            if role == Role::Projector {
                assert!(locked.is_ok(), "{locked:?}")
            } else {
                assert_eq!(code(locked), REFUSED, "{role:?}: {statement}")
            }
        }
    }
}

#[tokio::test]
async fn each_role_executes_the_functions_named_for_it_and_no_other_of_ours() {
    let journal = Journal::start().await;
    for role in Role::ALL {
        let pool = journal.pool(role).await;
        let may: BTreeSet<String> = sqlx::query_scalar(
            "SELECT n.nspname || '.' || p.proname FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace \
             WHERE n.nspname IN ('journal', 'vault', 'control', 'read', 'public') AND has_function_privilege(p.oid, 'EXECUTE') \
               AND has_schema_privilege(n.oid, 'USAGE')",
        )
        .fetch_all(&pool)
        .await
        .unwrap()
        .into_iter()
        .filter(|name: &String| !name.starts_with("control.") || matches!(role, Role::Gateway | Role::Finance))
        .collect();
        let expected: BTreeSet<String> = may_execute(role).iter().map(|&name| name.to_owned()).collect();
        assert_eq!(may, expected, "{role:?}");
    }
}

#[tokio::test]
async fn the_gateway_sees_what_the_projector_makes_in_read_and_nothing_else() {
    let journal = Journal::start().await;
    let projector = journal.pool(Role::Projector).await;
    let gateway = journal.pool(Role::Gateway).await;
    sqlx::raw_sql("CREATE VIEW read.heads AS SELECT last_position FROM journal.batches")
        .execute(&projector)
        .await
        .unwrap();
    sqlx::raw_sql("SELECT * FROM read.heads").execute(&gateway).await.unwrap();
    for statement in ["DROP VIEW read.heads", "CREATE TABLE read.mine (n int)", "SELECT * FROM journal.batches"] {
        assert_eq!(code(sqlx::raw_sql(statement).execute(&gateway).await), REFUSED, "{statement}");
    }
    // Relations that the gateway may read, in whatever schema, are all in `read`.
    let elsewhere: Vec<String> = sqlx::query_scalar(
        "SELECT c.oid::regclass::text FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace \
         WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'read') AND n.nspname NOT LIKE 'pg\\_%' \
           AND c.relkind IN ('r', 'v', 'm', 'p', 'f', 'S') AND has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')",
    )
    .fetch_all(&gateway)
    .await
    .unwrap();
    assert_eq!(elsewhere, Vec::<String>::new());
}

#[tokio::test]
async fn the_guards_stop_the_superuser_on_every_table_of_the_journal() {
    let journal = Journal::start().await;
    appended(journal.writer.append(command("evt_1", 0, 2)).await.unwrap());
    let tables: Vec<String> =
        sqlx::query_scalar("SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname = 'journal'")
            .fetch_all(&journal.admin)
            .await
            .unwrap();
    assert_eq!(tables.len(), 7);
    for table in tables {
        let column: String =
            sqlx::query_scalar("SELECT attname FROM pg_attribute WHERE attrelid = $1::regclass AND attnum = 1")
                .bind(&table)
                .fetch_one(&journal.admin)
                .await
                .unwrap();
        for replica in ["origin", "replica"] {
            for statement in [
                format!("INSERT INTO {table} SELECT * FROM {table}"),
                format!("UPDATE {table} SET {column} = {column}"),
                // Statement level: refused even where no row would be touched.
                format!("DELETE FROM {table} WHERE false"),
                format!("TRUNCATE {table}"),
                format!("TRUNCATE {table} CASCADE"),
            ] {
                let mut connection = journal.admin.acquire().await.unwrap();
                sqlx::raw_sql(&format!("SET session_replication_role = {replica}"))
                    .execute(&mut *connection)
                    .await
                    .unwrap();
                let refused = sqlx::raw_sql(&statement).execute(&mut *connection).await;
                sqlx::raw_sql("RESET session_replication_role").execute(&mut *connection).await.unwrap();
                assert_eq!(code(refused), "FL007", "{replica}: {statement}");
            }
        }
    }
    // Neither may the function's owner change or remove what is there.
    for statement in [
        "UPDATE journal.events SET sequence = 9",
        "DELETE FROM journal.events",
        "UPDATE journal.lock SET only_row = true",
    ] {
        let refused = sqlx::raw_sql(&format!("SET ROLE journal_writer; {statement}")).execute(&journal.admin).await;
        sqlx::raw_sql("RESET ROLE").execute(&journal.admin).await.unwrap();
        let code = code(refused);
        assert!(code == "FL007" || code == REFUSED, "{statement}: {code}");
    }
    assert_eq!(journal.reader.head().await.unwrap().position.get(), 2);
}

#[tokio::test]
async fn nobody_logs_in_as_the_writer_and_every_login_role_gives_up_forgotten_transactions() {
    let journal = Journal::start().await;
    let bad: Vec<String> = sqlx::query_scalar(
        "SELECT rolname::text FROM pg_roles WHERE (rolname = 'journal_writer' AND rolcanlogin) \
            OR (rolname LIKE 'fanledger\\_%' AND (rolsuper OR rolcreaterole OR rolcreatedb OR rolbypassrls OR rolreplication))",
    )
    .fetch_all(&journal.admin)
    .await
    .unwrap();
    assert_eq!(bad, Vec::<String>::new());
    for role in Role::ALL {
        let limit: String = sqlx::query_scalar("SHOW idle_in_transaction_session_timeout")
            .fetch_one(&journal.pool(role).await)
            .await
            .unwrap();
        assert_eq!(limit, "30s", "{role:?}");
    }
}

#[tokio::test]
async fn who_only_asks_is_cut_short_and_who_appends_is_not() {
    let journal = Journal::start().await;
    for (role, statement, lock) in [
        (Role::Gateway, "5s", "0"),
        (Role::Finance, "1min", "10s"),
        // A cancelled append may have been committed all the same.
        (Role::Command, "0", "10s"),
        (Role::Operator, "0", "10s"),
    ] {
        let settings: (String, String) =
            sqlx::query_as("SELECT current_setting('statement_timeout'), current_setting('lock_timeout')")
                .fetch_one(&journal.pool(role).await)
                .await
                .unwrap();
        assert_eq!(settings, (statement.into(), lock.into()), "{role:?}");
    }
}

#[tokio::test]
async fn migrating_is_repeatable_and_sets_the_passwords_that_are_derived() {
    let database = TestDatabase::create().await;
    let (again, once_more) = tokio::join!(database::migrate(database.url()), database::migrate(database.url()));
    again.unwrap();
    once_more.unwrap();
    for role in Role::ALL {
        let url = database::role_url(database.url(), role).unwrap();
        let pool = database::connect(&url, 1).await.unwrap();
        let user: String = sqlx::query_scalar("SELECT session_user::text").fetch_one(&pool).await.unwrap();
        assert_eq!(user, role.name());
    }
    let command = database::connect(&database::role_url(database.url(), Role::Command).unwrap(), 1).await.unwrap();
    let version: i64 = sqlx::query_scalar("SELECT control.schema_version()").fetch_one(&command).await.unwrap();
    assert_eq!(Some(version), database::MIGRATIONS.iter().map(|migration| migration.version).max());
}
