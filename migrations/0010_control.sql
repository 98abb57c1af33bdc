-- Who reads the journal, how far each has come, and in which generation of its tables.
--
-- A checkpoint is (journal_id, position, chain): the chain tells a journal that was restored or failed over from the one
-- that was read, also where their positions agree. It moves in the transaction that writes the rows derived from it.
-- Status is derived from this row and the journal's head when somebody asks; nothing is written only to report progress.

CREATE TABLE control.runners (
    name       text        NOT NULL CHECK (name ~ '^[a-z][a-z_]{0,39}$'),
    generation integer     NOT NULL CHECK (generation > 0),
    version    integer     NOT NULL CHECK (version > 0),
    -- The generation that `read` shows.
    live       boolean     NOT NULL,
    -- loading: a rebuild fills it, indexes are missing; following: a rebuild keeps it close behind the live one; ready: fed by a
    -- runner, as the live one or as the one that is kept to go back to; retiring: to be dropped, whoever feeds it lets go.
    stage      text        NOT NULL DEFAULT 'ready' CHECK (stage IN ('loading', 'following', 'ready', 'retiring')),
    -- A digest of the SQL that its tables were made by: a rebuild that was killed is gone on with only by the same.
    definition bytea       NOT NULL DEFAULT '',
    -- The tables that it shows in `read`, so that a switch knows what to take down.
    views      text[]      NOT NULL,
    journal_id uuid        NOT NULL,
    position   bigint      NOT NULL CHECK (position >= 0),
    chain      bytea       NOT NULL CHECK (octet_length(chain) = 32),
    -- Of a runner that sends commands: where the journal ended when the checkpoint last moved. What it had sent lies at or before
    -- that, so a journal that does not hold it any more has lost some of it, even where it still holds the checkpoint.
    head_position bigint   NOT NULL DEFAULT 0 CHECK (head_position >= 0),
    head_chain bytea       NOT NULL DEFAULT decode(repeat('00', 32), 'hex') CHECK (octet_length(head_chain) = 32),
    paused     boolean     NOT NULL DEFAULT false,
    -- Why it halted; null while it runs.
    error      json,
    created_at timestamptz NOT NULL DEFAULT now(),
    moved_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (name, generation),
    CHECK (stage = 'ready' OR NOT live)
) WITH (fillfactor = 50); -- Room for heap-only updates: the checkpoint moves many times a second.

CREATE UNIQUE INDEX runners_live ON control.runners (name) WHERE live;

-- For "which position do these rows reflect" in the same statement as the rows: one index probe, nothing else.
CREATE VIEW read.positions AS
SELECT name, generation, journal_id, position, chain FROM control.runners WHERE live;

-- For status: `lag_seconds` is the age of the oldest event that was not applied yet.
CREATE VIEW read.runners AS
SELECT r.name, r.version, r.generation,
       CASE WHEN r.error IS NOT NULL THEN 'halted'
            WHEN r.paused THEN 'paused'
            WHEN lag.seconds > 2 THEN 'catching_up'
            ELSE 'live' END AS state,
       r.journal_id, r.position, r.chain,
       journal.position AS head,
       greatest(journal.position - r.position, 0) AS lag_events,
       lag.seconds AS lag_seconds,
       r.error, r.moved_at,
       (SELECT json_agg(json_build_object(
                   'generation', g.generation, 'version', g.version, 'position', g.position, 'halted', g.error IS NOT NULL,
                   'state', CASE WHEN g.live THEN 'live' WHEN g.stage = 'ready' THEN 'kept'
                                 WHEN g.stage = 'retiring' THEN 'retiring' ELSE 'building' END) ORDER BY g.generation)
          FROM control.runners AS g WHERE g.name = r.name) AS generations
  FROM control.runners AS r
 CROSS JOIN (SELECT coalesce(max(last_position), 0) AS position FROM journal.batches) AS journal
 CROSS JOIN LATERAL (
       SELECT coalesce(round(max(extract(epoch FROM clock_timestamp() - e.recorded_at)), 3), 0)::double precision AS seconds
         FROM journal.events AS e WHERE e.position = r.position + 1) AS lag
 WHERE r.live;

-- The projector makes a schema for each generation without the right to create schemas at large: it has no other use for that
-- right, and rights on a database are not copied when it is cloned from a template.
CREATE FUNCTION control.create_generation_schema(generation_schema text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF generation_schema !~ '^[a-z][a-z_]*_g[1-9][0-9]*$' OR octet_length(generation_schema) > 63 THEN
        RAISE EXCEPTION 'schema name % is not of the form <projection>_g<number>', generation_schema
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    EXECUTE format('CREATE SCHEMA %I AUTHORIZATION fanledger_projector', generation_schema);
END $$;

-- The operator's hand on the live generation: true if there is such a runner. A runner looks at its row at least four times
-- a second while it is quiet, and with each batch while it is not.
CREATE FUNCTION control.pause(runner text) RETURNS boolean
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH changed AS (UPDATE control.runners SET paused = true WHERE name = runner AND live RETURNING 1)
    SELECT EXISTS (SELECT FROM changed)
$$;

-- Ends a pause and a halt alike, of the kept generation too; what halted it is tried again.
CREATE FUNCTION control.resume(runner text) RETURNS boolean
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH changed AS (
        UPDATE control.runners SET paused = false, error = NULL WHERE name = runner AND stage = 'ready' RETURNING 1)
    SELECT EXISTS (SELECT FROM changed)
$$;

-- What operators ask for that takes longer than a request: a rebuild and its like. The API adds a row and a projector works on
-- it; the command line adds one and works on it itself. Whoever works on one holds an advisory lock and writes how far it is,
-- so a row that is open while nobody does is gone on with by any projector of that version.
CREATE TABLE control.operations (
    id                bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    runner            text        NOT NULL,
    kind              text        NOT NULL CHECK (kind IN ('rebuild', 'verify', 'rollback', 'retire')),
    -- The operator agrees to a difference between versions.
    confirmed         boolean     NOT NULL,
    -- The version of the program that works on it; null until one does.
    version           integer,
    phase             text        NOT NULL DEFAULT 'queued' CHECK (phase IN (
                          'queued', 'loading', 'indexing', 'catching_up', 'proving', 'waiting', 'switching', 'succeeded', 'failed')),
    generation        integer,
    position          bigint      NOT NULL DEFAULT 0,
    target            bigint      NOT NULL DEFAULT 0,
    events_per_second bigint      NOT NULL DEFAULT 0,
    seconds_left      bigint,
    -- What came of it, and where it failed, why.
    outcome           json,
    error             text,
    requested_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at       timestamptz CHECK ((finished_at IS NOT NULL) = (phase IN ('succeeded', 'failed')))
);
COMMENT ON TABLE control.operations IS 'Rebuilds, proofs, rollbacks and retirements that operators asked for, with how far each is.';
-- A second one for the same runner is refused at once.
CREATE UNIQUE INDEX operations_open ON control.operations (runner) WHERE finished_at IS NULL;

-- The last of each runner.
CREATE VIEW read.operations AS
SELECT DISTINCT ON (runner) id, runner, kind, version, phase, generation, position, target, events_per_second, seconds_left,
       outcome, error, requested_at, updated_at, finished_at
  FROM control.operations ORDER BY runner, id DESC;

-- verdict: queued, under_way (with the id of the one that is), unknown (no such runner), nothing_kept (to go back to).
CREATE FUNCTION control.request_operation(p_runner text, p_kind text, p_confirmed boolean)
RETURNS TABLE (verdict text, id bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    queued bigint;
BEGIN
    IF NOT EXISTS (SELECT FROM control.runners WHERE name = p_runner AND live) THEN
        RETURN QUERY SELECT 'unknown'::text, NULL::bigint;
        RETURN;
    END IF;
    IF p_kind = 'rollback'
       AND NOT EXISTS (SELECT FROM control.runners WHERE name = p_runner AND NOT live AND stage = 'ready') THEN
        RETURN QUERY SELECT 'nothing_kept'::text, NULL::bigint;
        RETURN;
    END IF;
    INSERT INTO control.operations (runner, kind, confirmed) VALUES (p_runner, p_kind, p_confirmed)
    ON CONFLICT (runner) WHERE finished_at IS NULL DO NOTHING
    RETURNING operations.id INTO queued;
    IF queued IS NOT NULL THEN
        RETURN QUERY SELECT 'queued'::text, queued;
        RETURN;
    END IF;
    RETURN QUERY SELECT 'under_way'::text,
        (SELECT o.id FROM control.operations AS o WHERE o.runner = p_runner AND o.finished_at IS NULL);
END $$;

REVOKE ALL ON FUNCTION
    control.create_generation_schema(text), control.pause(text), control.resume(text), control.request_operation(text, text, boolean)
    FROM PUBLIC;
GRANT EXECUTE ON FUNCTION control.create_generation_schema(text) TO fanledger_projector;
GRANT EXECUTE ON FUNCTION control.pause(text), control.resume(text), control.request_operation(text, text, boolean)
    TO fanledger_operator;

GRANT SELECT, INSERT, UPDATE, DELETE ON control.runners TO fanledger_projector;
GRANT SELECT, INSERT, UPDATE ON control.operations TO fanledger_projector;
GRANT SELECT ON control.runners, control.operations TO fanledger_operator;
-- The schema `read` and what is granted on the views that the projector makes in it: 0001. These three views are the migrator's.
GRANT SELECT ON read.positions, read.runners, read.operations TO fanledger_gateway, fanledger_finance, fanledger_operator, fanledger_projector;
