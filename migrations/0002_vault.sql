-- Wrapped keys of sealed payloads, one per stream. Nobody reads the table: keys are opened and destroyed by name
-- through functions. A destroyed key leaves its row behind, so that "erased" can be told from "never had one".
CREATE TABLE vault.keys (
    stream_type  text        COLLATE "C" NOT NULL,
    stream_id    text        COLLATE "C" NOT NULL,
    wrapped_key  bytea,
    created_at   timestamptz NOT NULL,
    destroyed_at timestamptz,
    PRIMARY KEY (stream_type, stream_id),
    CONSTRAINT keys_form CHECK ((wrapped_key IS NULL) = (destroyed_at IS NOT NULL) AND octet_length(wrapped_key) BETWEEN 1 AND 1024)
);
COMMENT ON TABLE vault.keys IS 'Keys of sealed payloads, wrapped by the vault key; written with their event by journal.append.';

GRANT USAGE ON SCHEMA vault TO journal_writer, fanledger_command;
GRANT SELECT, INSERT, UPDATE ON vault.keys TO journal_writer;

-- The keys of these streams: no row where there never was one, a null key where it was destroyed.
CREATE FUNCTION vault.open(stream_types text[], stream_ids text[])
RETURNS TABLE (stream_type text, stream_id text, wrapped_key bytea)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT k.stream_type, k.stream_id, k.wrapped_key
    FROM unnest(stream_types, stream_ids) AS wanted (stream_type, stream_id)
    JOIN vault.keys AS k USING (stream_type, stream_id)
$$;

-- Destroys the keys of these streams for good and answers how many there were; again is harmless.
CREATE FUNCTION vault.destroy(stream_types text[], stream_ids text[])
RETURNS bigint
LANGUAGE sql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    WITH destroyed AS (
        UPDATE vault.keys AS k
        SET wrapped_key = NULL, destroyed_at = clock_timestamp()
        FROM unnest(stream_types, stream_ids) AS wanted (stream_type, stream_id)
        WHERE k.stream_type = wanted.stream_type AND k.stream_id = wanted.stream_id AND k.destroyed_at IS NULL
        RETURNING 1
    )
    SELECT count(*) FROM destroyed
$$;

ALTER FUNCTION vault.open(text[], text[]) OWNER TO journal_writer;
ALTER FUNCTION vault.destroy(text[], text[]) OWNER TO journal_writer;
REVOKE ALL ON FUNCTION vault.open(text[], text[]), vault.destroy(text[], text[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION vault.open(text[], text[]), vault.destroy(text[], text[]) TO fanledger_command;
