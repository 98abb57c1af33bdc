-- Who reads the journal, how far each has come, and in which generation of its tables.
--
-- A checkpoint is (journal_id, position, chain): the chain tells a journal that was restored or failed over from the one
-- that was read, also where their positions agree. It moves in the transaction that writes the rows derived from it.
-- Status is derived from this row and the journal's head when somebody asks; nothing is written only to report progress.

CREATE TABLE control.runners (
    name       text        NOT NULL CHECK (name ~ '^[a-z][a-z_]{0,39}$'),
    generation integer     NOT NULL CHECK (generation > 0),
    version    integer     NOT NULL CHECK (version > 0),
    -- The generation that `read` shows and that is fed.
    live       boolean     NOT NULL,
    -- The tables that it shows in `read`, so that a switch knows what to take down.
    views      text[]      NOT NULL,
    journal_id uuid        NOT NULL,
    position   bigint      NOT NULL CHECK (position >= 0),
    chain      bytea       NOT NULL CHECK (octet_length(chain) = 32),
    paused     boolean     NOT NULL DEFAULT false,
    -- Why it halted; null while it runs.
    error      json,
    created_at timestamptz NOT NULL DEFAULT now(),
    moved_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (name, generation)
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
       r.error, r.moved_at
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

-- Ends a pause and a halt alike; what halted it is tried again.
CREATE FUNCTION control.resume(runner text) RETURNS boolean
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH changed AS (UPDATE control.runners SET paused = false, error = NULL WHERE name = runner AND live RETURNING 1)
    SELECT EXISTS (SELECT FROM changed)
$$;

REVOKE ALL ON FUNCTION control.create_generation_schema(text), control.pause(text), control.resume(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION control.create_generation_schema(text) TO fanledger_projector;
GRANT EXECUTE ON FUNCTION control.pause(text), control.resume(text) TO fanledger_operator;

GRANT SELECT, INSERT, UPDATE, DELETE ON control.runners TO fanledger_projector;
GRANT SELECT ON control.runners TO fanledger_operator;
-- The schema `read` and what is granted on the views that the projector makes in it: 0001. These two views are the migrator's.
GRANT SELECT ON read.positions, read.runners TO fanledger_gateway, fanledger_finance, fanledger_operator, fanledger_projector;
