-- The journal's tables, the roles of the whole system, and the guards that leave one way in: `journal.append` (0003).
-- Invariants: positions are dense and in commit order; nothing here is ever updated; the append path never meets a
-- row that somebody else updates, because such a row bloats as soon as anyone holds a snapshot.

-- Roles belong to the cluster, not to this database: several databases may be migrated at the same moment. The lock on
-- the shared catalogue makes them take turns, since CREATE ROLE and ALTER ROLE want a weaker, conflicting one.
LOCK TABLE pg_catalog.pg_authid IN SHARE ROW EXCLUSIVE MODE;

DO $$
DECLARE
    wanted record;
BEGIN
    FOR wanted IN
        SELECT *
        FROM (VALUES
            ('journal_writer', false),
            ('fanledger_gateway', true),
            ('fanledger_command', true),
            ('fanledger_projector', true),
            ('fanledger_operator', true),
            ('fanledger_finance', true)
        ) AS roles (name, may_log_in)
    LOOP
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = wanted.name) THEN
            EXECUTE format(
                'CREATE ROLE %I %s NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS',
                wanted.name, CASE WHEN wanted.may_log_in THEN 'LOGIN' ELSE 'NOLOGIN' END);
        END IF;
        IF wanted.may_log_in THEN
            -- A forgotten transaction holds back vacuum for everybody, and one inside `append` would hold the lock.
            EXECUTE format('ALTER ROLE %I SET idle_in_transaction_session_timeout = ''30s''', wanted.name);
            EXECUTE format('ALTER ROLE %I SET timezone = ''UTC''', wanted.name);
        END IF;
    END LOOP;
END
$$;

-- The journal's lock is held for milliseconds; who waits this long waits for something that is wrong. No statement
-- timeout: with synchronous replication, a cancelled wait commits with only a warning.
ALTER ROLE fanledger_command SET lock_timeout = '10s';
ALTER ROLE fanledger_command SET statement_timeout = 0;
ALTER ROLE fanledger_operator SET lock_timeout = '10s';
-- A read of the gateway lasts at most this long, so that a switch of generations knows how long to wait.
ALTER ROLE fanledger_gateway SET statement_timeout = '5s';
-- Auditors type their own SQL. A query that was left running would hold its snapshot, so that vacuum keeps every row that
-- the projections replace, and the tables that a retired generation wants to drop. A plain sum over thirty million events
-- takes less; who knowingly needs more says SET statement_timeout for that session.
ALTER ROLE fanledger_finance SET statement_timeout = '60s';
ALTER ROLE fanledger_finance SET lock_timeout = '10s';

REVOKE ALL ON SCHEMA public FROM PUBLIC;

CREATE SCHEMA journal;
CREATE SCHEMA vault;
CREATE SCHEMA control;
-- The runner creates the views of live generations here; what they show is granted as they appear.
CREATE SCHEMA read AUTHORIZATION fanledger_projector;

-- What names may look like: [a-z][a-z0-9_]{0,31}, [A-Za-z0-9_.:-]{1,200} and [A-Z][A-Za-z0-9]{0,63}. They are written as
-- "no other character", a first letter (the collation is "C": after Z comes [, after z comes {) and a length, because
-- Postgres takes 20 µs to match a bounded repetition and 0.3 µs for this. And they are domains, because a session parses a
-- domain's check once, but a table's at every statement that inserts.
CREATE DOMAIN journal.aggregate_type AS text COLLATE "C" CONSTRAINT aggregate_type_form CHECK (
    VALUE >= 'a' AND VALUE < '{' AND VALUE !~ '[^a-z0-9_]' AND octet_length(VALUE) <= 32);
CREATE DOMAIN journal.aggregate_id AS text COLLATE "C" CONSTRAINT aggregate_id_form CHECK (
    VALUE !~ '[^A-Za-z0-9_.:-]' AND octet_length(VALUE) BETWEEN 1 AND 200);
CREATE DOMAIN journal.event_type AS text COLLATE "C" CONSTRAINT event_type_form CHECK (
    VALUE >= 'A' AND VALUE < '[' AND VALUE !~ '[^A-Za-z0-9]' AND octet_length(VALUE) <= 64);
CREATE DOMAIN journal.event_version AS text COLLATE "C" CONSTRAINT event_version_form CHECK (
    octet_length(VALUE) BETWEEN 1 AND 32);

CREATE TABLE journal.events (
    -- 1 or more, as `sequence`: `append` counts both.
    position       bigint      PRIMARY KEY,
    aggregate_type journal.aggregate_type NOT NULL,
    aggregate_id   journal.aggregate_id   NOT NULL,
    sequence       bigint      NOT NULL,
    event_type     journal.event_type     NOT NULL,
    event_version  journal.event_version  NOT NULL,
    -- `json`, not `jsonb`: these exact bytes were hashed.
    payload        json        NOT NULL,
    metadata       json        NOT NULL,
    event_id       uuid        NOT NULL,
    recorded_at    timestamptz NOT NULL,
    -- Digests of 32 bytes, which `append` computes.
    leaf           bytea       NOT NULL,
    chain          bytea       NOT NULL,
    CONSTRAINT events_stream_sequence UNIQUE (aggregate_type, aggregate_id, sequence)
);
COMMENT ON TABLE journal.events IS 'Every fact, append only, dense by position and chained; written by journal.append alone.';
-- Rows never change, so there is nothing for autovacuum to reclaim; it still freezes, and keeps the visibility map.
ALTER TABLE journal.events SET (autovacuum_vacuum_insert_scale_factor = 0.1, autovacuum_analyze_scale_factor = 0.05);
-- Most events are sealed bodies of 2 to 4 KB, which do not compress: they stay in the row, so that one write stores them.
ALTER TABLE journal.events SET (toast_tuple_target = 8160);

CREATE TABLE journal.lock (
    only_row boolean PRIMARY KEY CHECK (only_row)
);
COMMENT ON TABLE journal.lock IS 'One constant row. Each append locks it; nobody ever updates it.';

CREATE TABLE journal.batches (
    last_position  bigint      PRIMARY KEY,
    first_position bigint      NOT NULL,
    recorded_at    timestamptz NOT NULL,
    chain          bytea       NOT NULL
);
COMMENT ON TABLE journal.batches IS 'One row per append. The last row is the head of the journal.';

CREATE TABLE journal.identity (
    only_row   boolean     PRIMARY KEY DEFAULT true CHECK (only_row),
    journal_id uuid        NOT NULL,
    created_at timestamptz NOT NULL
);
COMMENT ON TABLE journal.identity IS 'Which journal this is, so that another one in its place can be told from it.';

CREATE TABLE journal.stream_types (
    role           text NOT NULL,
    aggregate_type text COLLATE "C" NOT NULL,
    PRIMARY KEY (aggregate_type, role)
);
COMMENT ON TABLE journal.stream_types IS
    'Which login role (or member of it) may append to streams of which type. A migration adds rows as journal_writer.';

CREATE TABLE journal.idempotency_keys (
    key            bytea       PRIMARY KEY,
    request        bytea       NOT NULL,
    first_position bigint      NOT NULL,
    last_position  bigint      NOT NULL,
    created_at     timestamptz NOT NULL,
    CONSTRAINT idempotency_keys_form CHECK (octet_length(key) = 32 AND octet_length(request) = 32)
);
CREATE INDEX idempotency_keys_created_at ON journal.idempotency_keys (created_at);
COMMENT ON TABLE journal.idempotency_keys IS 'Keys that were used, with the digest of the request''s input; forgotten after seven days.';

CREATE TABLE journal.entry_ids (
    entry_id text   COLLATE "C" PRIMARY KEY,
    position bigint NOT NULL,
    CONSTRAINT entry_ids_form CHECK (octet_length(entry_id) BETWEEN 1 AND 400)
);
COMMENT ON TABLE journal.entry_ids IS 'Every ledger entry''s id, so that none is posted twice, whichever stream it is in.';

-- One statement locks the row, at the cost of a reserved transaction field and no new row version.
INSERT INTO journal.lock (only_row) VALUES (true);
INSERT INTO journal.identity (journal_id, created_at) VALUES (gen_random_uuid(), clock_timestamp());
INSERT INTO journal.stream_types (role, aggregate_type)
SELECT 'fanledger_command', unnest(ARRAY[
    'stripe_event', 'stripe_charge', 'stripe_refund', 'stripe_dispute', 'stripe_transfer', 'stripe_transfer_reversal',
    'stripe_payout', 'stripe_application_fee', 'stripe_fee_refund', 'stripe_topup', 'stripe_balance_transaction',
    'stripe_payment_intent', 'stripe_checkout_session', 'stripe_invoice', 'stripe_subscription', 'stripe_account',
    'manual_entry', 'period', 'creator_payouts', 'payout_run', 'payout_line', 'projection_skip'])
UNION ALL
SELECT 'fanledger_operator', 'projection_skip';

-- The guards. `current_user` is journal_writer only inside a function that it owns (or by SET ROLE of a superuser, who
-- then says so in so many words). Each argument names one more operation that the table allows it.
CREATE FUNCTION journal.refuse_change() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF current_user = 'journal_writer' AND (TG_OP = 'INSERT' OR TG_OP = ANY (TG_ARGV)) THEN
        RETURN NULL;
    END IF;
    RAISE EXCEPTION '% on %.% refused: the journal is only appended to, by journal.append', TG_OP, TG_TABLE_SCHEMA, TG_TABLE_NAME
        USING ERRCODE = 'FL007', HINT = 'Correct a fact with a new event; correct an entry with a new entry.';
END
$$;
REVOKE ALL ON FUNCTION journal.refuse_change() FROM PUBLIC;

DO $$
DECLARE
    guarded text;
BEGIN
    FOREACH guarded IN ARRAY ARRAY['events', 'lock', 'batches', 'identity', 'stream_types', 'idempotency_keys', 'entry_ids'] LOOP
        EXECUTE format(
            'CREATE TRIGGER guard BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON journal.%I
             FOR EACH STATEMENT EXECUTE FUNCTION journal.refuse_change(%s)',
            guarded, CASE WHEN guarded = 'idempotency_keys' THEN '''DELETE''' ELSE '' END);
        -- ALWAYS: also when session_replication_role would silence ordinary triggers.
        EXECUTE format('ALTER TABLE journal.%I ENABLE ALWAYS TRIGGER guard', guarded);
    END LOOP;
END
$$;

-- Rights. Nobody but journal_writer holds INSERT on a table of the journal, and nobody can log in as journal_writer.
GRANT USAGE ON SCHEMA journal TO journal_writer, fanledger_command, fanledger_projector, fanledger_operator, fanledger_finance;
GRANT SELECT, INSERT ON
    journal.events, journal.batches, journal.identity, journal.stream_types, journal.idempotency_keys, journal.entry_ids
    TO journal_writer;
GRANT DELETE ON journal.idempotency_keys TO journal_writer;
-- FOR UPDATE asks for the right to UPDATE; the guard refuses an actual one.
GRANT SELECT, UPDATE ON journal.lock TO journal_writer;
GRANT SELECT ON journal.events, journal.batches, journal.identity TO fanledger_command, fanledger_projector, fanledger_operator;
GRANT SELECT ON journal.events TO fanledger_finance;

GRANT USAGE ON SCHEMA read TO fanledger_gateway, fanledger_operator, fanledger_finance;
ALTER DEFAULT PRIVILEGES FOR ROLE fanledger_projector IN SCHEMA read
    GRANT SELECT ON TABLES TO fanledger_gateway, fanledger_operator, fanledger_finance;
-- New functions are nobody's until they are granted by name.
ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;

-- The schema's version, for readiness checks and `doctor`.
CREATE FUNCTION control.schema_version() RETURNS bigint
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$ SELECT max(version) FROM public._sqlx_migrations WHERE success $$;
REVOKE ALL ON FUNCTION control.schema_version() FROM PUBLIC;
GRANT USAGE ON SCHEMA control TO fanledger_command, fanledger_projector, fanledger_operator;
GRANT EXECUTE ON FUNCTION control.schema_version() TO fanledger_command, fanledger_projector, fanledger_operator;
