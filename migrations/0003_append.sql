-- `journal.append`: the one way into the journal. It takes a batch of commands, each a list of events for one stream,
-- and answers for each of them alone. The bytes that are hashed are described in docs/journal-format.md.
--
-- It is called as one autocommit statement: inside a longer transaction it would hold the journal's lock until the end.
-- SQLSTATEs of its own: FL001 isolation level, FL002 clock, FL003 the call's shape, FL004 too large, FL005 stream type
-- not allowed, FL006 entry refused, FL007 guard (0001).

-- What is wrong with a ledger entry's payload; no row when all are sound. Set-based: one pass over all postings.
CREATE FUNCTION journal.entry_faults(payloads text[]) RETURNS TABLE (number bigint, fault text)
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH posting AS (
        SELECT e.number, p.value ->> 'account' AS account, p.value ->> 'side' AS side, p.value ->> 'currency' AS currency,
               -- Digits only: no sign, fraction, exponent or quotes; then at most 2^53 − 1.
               CASE WHEN json_typeof(p.value -> 'minor') = 'number' AND p.value ->> 'minor' !~ '[^0-9]'
                     AND octet_length(p.value ->> 'minor') <= 16
                    THEN (p.value ->> 'minor')::bigint END AS minor
        FROM unnest(payloads) WITH ORDINALITY AS e (payload, number)
        CROSS JOIN LATERAL json_array_elements(
            CASE WHEN json_typeof(e.payload::json -> 'postings') = 'array' THEN e.payload::json -> 'postings' END) AS p
    ), by_currency AS (
        SELECT number, count(*) AS postings,
               count(*) FILTER (WHERE account IS NULL OR account = '' OR side IS NULL OR side NOT IN ('debit', 'credit')
                   OR currency IS NULL OR currency !~ '^[a-z][a-z][a-z]$'
                   OR minor IS NULL OR minor < 1 OR minor > 9007199254740991) AS bad,
               sum(CASE side WHEN 'debit' THEN minor ELSE -minor END) AS balance
        FROM posting
        GROUP BY number, currency
    ), by_entry AS (
        SELECT number, sum(postings) AS postings, sum(bad) AS bad, bool_and(balance = 0) AS balanced
        FROM by_currency
        GROUP BY number
    )
    SELECT e.number,
           CASE WHEN coalesce(json_typeof(e.payload::json -> 'entry_id') <> 'string', true) THEN 'entry_id is not a string'
                WHEN coalesce(b.postings, 0) < 2 THEN 'an entry has at least two postings'
                WHEN b.bad > 0 THEN 'a posting needs account, side (debit or credit), minor (1 to 2^53-1) and currency'
                ELSE 'the postings do not sum to zero in each currency' END
    FROM unnest(payloads) WITH ORDINALITY AS e (payload, number)
    LEFT JOIN by_entry AS b USING (number)
    WHERE coalesce(json_typeof(e.payload::json -> 'entry_id') <> 'string', true)
       OR coalesce(b.postings, 0) < 2 OR b.bad > 0 OR NOT b.balanced
    ORDER BY e.number
$$;

-- The two digests, as docs/journal-format.md gives them. Plain SQL without settings, and no more than stable as what they
-- call (`convert_to`): so they are inlined.
CREATE FUNCTION journal.leaf_of(
    stream_type text, stream_id text, sequence bigint, event_type text, event_version text, event_id uuid, payload text, metadata text
) RETURNS bytea
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
    SELECT pg_catalog.sha256(
        '\x66616e6c65646765722f6c6561662f763100'::bytea
        || int8send(octet_length(stream_type)) || convert_to(stream_type, 'UTF8')
        || int8send(octet_length(stream_id)) || convert_to(stream_id, 'UTF8')
        || int8send(sequence)
        || int8send(octet_length(event_type)) || convert_to(event_type, 'UTF8')
        || int8send(octet_length(event_version)) || convert_to(event_version, 'UTF8')
        || uuid_send(event_id)
        || int8send(octet_length(payload)) || convert_to(payload, 'UTF8')
        || int8send(octet_length(metadata)) || convert_to(metadata, 'UTF8'))
$$;

CREATE FUNCTION journal.chain_of(previous bytea, position_ bigint, time_bytes bytea, leaf bytea) RETURNS bytea
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
    SELECT pg_catalog.sha256('\x66616e6c65646765722f636861696e2f763100'::bytea || previous || int8send(position_) || time_bytes || leaf)
$$;

-- Parallel arrays in, parallel arrays out. p_stream_types … p_event_counts have one element per command; p_event_ids …
-- p_metadata one per event, those of the first command first; p_key_*, p_guard_* and p_vault_* only for the commands
-- that have one, which they name by number. Out: one element per command; `outcomes` is appended, duplicate (both with
-- positions), conflict (with the stream and its actual sequence) or misuse; the conflict arrays are null if there is none.
CREATE FUNCTION journal.append(
    p_writer_clock timestamptz,
    p_stream_types text[], p_stream_ids text[], p_expected bigint[], p_event_counts int[],
    p_event_ids uuid[], p_event_types text[], p_event_versions text[], p_payloads text[], p_metadata text[],
    p_key_commands int[], p_keys bytea[], p_requests bytea[],
    p_guard_commands int[], p_guard_types text[], p_guard_ids text[], p_guard_sequences bigint[],
    p_vault_commands int[], p_vault_keys bytea[],
    OUT outcomes text[], OUT first_positions bigint[], OUT last_positions bigint[],
    OUT conflict_types text[], OUT conflict_ids text[], OUT conflict_sequences bigint[]
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
-- The plans must not depend on when they were made: on an empty table a scan looks cheap, and would be kept. Every
-- table is reached by its index, from a short list.
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_bitmapscan = off
-- Estimates of unnested arrays are wild, and would have the larger statements compiled at each call.
SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    n_commands  constant int := cardinality(p_stream_types);
    n_events    constant int := cardinality(p_event_ids);
    fault       text;
    commands    int[];    -- Per event: the number of its command, …
    sequences   bigint[]; -- … its sequence, …
    leaves      bytea[];  -- … its leaf, …
    payloads    json[];   -- … and its payload, parsed.
    actual      bigint[]; -- Per command: the last sequence of its stream.
    kept        int[];    -- The numbers of the events that are appended: first all, …
    chains      bytea[];  -- … and their chains.
    head        bigint;
    head_at     timestamptz;
    running     bytea;
    at          timestamptz;
    time_bytes  bytea;
    i           int;
    types       text[];
    total_bytes bigint;
    known_firsts bigint[]; -- Per command whose key was seen: the positions that it had.
    known_lasts bigint[];
    hit         record;
    leaf        bytea;    -- That of a lone event.
BEGIN
    -- One command with one event, as a lone caller sends it: the same in few statements, since starting statements is most
    -- of what it costs. What is not plainly well-formed, or not appended, goes on to the general path below, which does it
    -- all again and says what is wrong.
    IF n_commands = 1 AND n_events = 1 AND p_event_counts = '{1}' AND p_event_types[1] <> 'EntryPosted'
       AND cardinality(p_stream_ids) + cardinality(p_expected) + cardinality(p_event_types) + cardinality(p_event_versions)
           + cardinality(p_payloads) + cardinality(p_metadata) = 6
       AND current_setting('transaction_isolation') = 'read committed'
       AND p_writer_clock BETWEEN clock_timestamp() - interval '60 s' AND clock_timestamp() + interval '60 s'
       AND octet_length(p_payloads[1])::bigint + octet_length(p_metadata[1]) <= 4194304
       AND (p_keys, p_requests, p_key_commands) = ('{}', '{}', '{}')
       AND (p_guard_commands = '{}' OR (1 = ALL (p_guard_commands) AND NOT p_stream_ids[1] = ANY (p_guard_ids)))
       AND (cardinality(p_guard_types), cardinality(p_guard_ids), cardinality(p_guard_sequences))
           = (cardinality(p_guard_commands), cardinality(p_guard_commands), cardinality(p_guard_commands))
       AND (p_vault_commands = '{}' OR (p_vault_commands = '{1}' AND p_expected[1] = 0))
       AND cardinality(p_vault_keys) = cardinality(p_vault_commands)
    THEN
        leaf := journal.leaf_of(
            p_stream_types[1], p_stream_ids[1], p_expected[1] + 1, p_event_types[1], p_event_versions[1], p_event_ids[1],
            p_payloads[1], p_metadata[1]);
        PERFORM FROM journal.lock
        WHERE only_row AND leaf IS NOT NULL AND EXISTS (
            SELECT FROM journal.stream_types AS s
            WHERE s.aggregate_type = p_stream_types[1] AND pg_has_role(session_user, s.role, 'MEMBER'))
        FOR UPDATE;
        IF FOUND THEN
            SELECT b.last_position + 1, greatest(b.recorded_at, clock_timestamp()), b.chain INTO head, at, running
            FROM journal.batches AS b
            WHERE p_expected[1] = coalesce((
                SELECT e.sequence FROM journal.events AS e
                WHERE e.aggregate_type = p_stream_types[1] AND e.aggregate_id = p_stream_ids[1]
                ORDER BY e.sequence DESC LIMIT 1), 0)
            ORDER BY b.last_position DESC LIMIT 1;
            IF head IS NOT NULL AND p_guard_commands <> '{}' THEN
                PERFORM FROM unnest(p_guard_types, p_guard_ids, p_guard_sequences) AS g (stream_type, stream_id, sequence)
                WHERE g.sequence IS DISTINCT FROM coalesce((
                    SELECT e.sequence FROM journal.events AS e
                    WHERE e.aggregate_type = g.stream_type AND e.aggregate_id = g.stream_id
                    ORDER BY e.sequence DESC LIMIT 1), 0);
                IF FOUND THEN
                    head := NULL;
                END IF;
            END IF;
            IF head IS NOT NULL THEN
                running := journal.chain_of(running, head, int8send((extract(epoch FROM at) * 1000000)::bigint), leaf);
                WITH batch AS (
                    INSERT INTO journal.batches (last_position, first_position, recorded_at, chain) VALUES (head, head, at, running)
                )
                INSERT INTO journal.events (
                    position, aggregate_type, aggregate_id, sequence, event_type, event_version, payload, metadata,
                    event_id, recorded_at, leaf, chain)
                VALUES (
                    head, p_stream_types[1], p_stream_ids[1], p_expected[1] + 1, p_event_types[1], p_event_versions[1],
                    p_payloads[1]::json, p_metadata[1]::json, p_event_ids[1], at, leaf, running);
                IF p_vault_commands <> '{}' THEN
                    INSERT INTO vault.keys (stream_type, stream_id, wrapped_key, created_at)
                    VALUES (p_stream_types[1], p_stream_ids[1], p_vault_keys[1], at)
                    ON CONFLICT (stream_type, stream_id) DO UPDATE
                    SET wrapped_key = excluded.wrapped_key, created_at = excluded.created_at, destroyed_at = NULL;
                END IF;
                outcomes := '{appended}';
                first_positions := ARRAY[head];
                last_positions := first_positions;
                RETURN;
            END IF;
        END IF;
    END IF;

    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'journal.append needs READ COMMITTED, not %', upper(current_setting('transaction_isolation'))
            USING ERRCODE = 'FL001', HINT = 'Each statement of the function must see what was committed before it took the lock.';
    END IF;
    IF (p_writer_clock BETWEEN clock_timestamp() - interval '60 s' AND clock_timestamp() + interval '60 s') IS NOT TRUE THEN
        RAISE EXCEPTION 'the writer''s clock (%) and the database''s (%) are more than 60 s apart', p_writer_clock, clock_timestamp()
            USING ERRCODE = 'FL002', HINT = 'Set both clocks by NTP. Nothing was appended.';
    END IF;

    -- The call's shape. A writer never gets this wrong; somebody with the right to execute might.
    fault := CASE
        WHEN (n_commands BETWEEN 1 AND 256) IS NOT TRUE THEN 'a batch holds 1 to 256 commands'
        WHEN (n_events BETWEEN 1 AND 4096) IS NOT TRUE THEN 'a batch holds 1 to 4096 events'
        -- Dimensions and not lengths: an array may begin at another number than 1, and its elements would then be mistaken.
        WHEN ('[1:' || n_commands || ']' = ALL (ARRAY[
                array_dims(p_stream_types), array_dims(p_stream_ids), array_dims(p_expected), array_dims(p_event_counts)])) IS NOT TRUE
            THEN 'the command arrays differ in length'
        WHEN ('[1:' || n_events || ']' = ALL (ARRAY[
                array_dims(p_event_ids), array_dims(p_event_types), array_dims(p_event_versions), array_dims(p_payloads),
                array_dims(p_metadata)])) IS NOT TRUE
            THEN 'the event arrays differ in length'
        WHEN (cardinality(p_keys), cardinality(p_requests)) IS DISTINCT FROM (cardinality(p_key_commands), cardinality(p_key_commands))
            THEN 'the key arrays differ in length'
        WHEN (cardinality(p_guard_types), cardinality(p_guard_ids), cardinality(p_guard_sequences))
            IS DISTINCT FROM (cardinality(p_guard_commands), cardinality(p_guard_commands), cardinality(p_guard_commands))
            THEN 'the guard arrays differ in length'
        WHEN cardinality(p_vault_keys) IS DISTINCT FROM cardinality(p_vault_commands) THEN 'the vault arrays differ in length'
    END;
    -- Each statement costs a lone command some 15 µs, so those that most calls can do without are behind an IF.
    IF fault IS NULL AND (n_events <> n_commands OR (1 = ALL (p_event_counts)) IS NOT TRUE)
       AND ((1 <= ALL (p_event_counts)) IS NOT TRUE OR (SELECT sum(n) FROM unnest(p_event_counts) AS n) <> n_events) THEN
        fault := 'each command has at least one event, and the counts add up to the events';
    END IF;
    IF fault IS NULL AND n_commands > 1
       AND (SELECT count(*) FROM (SELECT DISTINCT unnest(p_stream_types), unnest(p_stream_ids)) AS streams) <> n_commands THEN
        fault := 'two commands of the batch write one stream';
    END IF;
    IF fault IS NULL AND cardinality(p_key_commands || p_guard_commands || p_vault_commands) > 0 THEN
        fault := CASE
            WHEN EXISTS (SELECT FROM unnest(p_key_commands || p_guard_commands || p_vault_commands) AS c WHERE (c BETWEEN 1 AND n_commands) IS NOT TRUE)
                THEN 'a key, guard or vault key names a command that is not there'
            WHEN EXISTS (SELECT FROM unnest(p_vault_commands) AS c WHERE p_expected[c] <> 0)
                THEN 'a vault key comes with a command that does not begin its stream'
            WHEN (SELECT count(DISTINCT k) FROM unnest(p_keys) AS k) <> cardinality(p_keys)
              OR (SELECT count(DISTINCT c) FROM unnest(p_key_commands) AS c) <> cardinality(p_key_commands)
                THEN 'two commands of the batch share a key, or one has two'
            WHEN EXISTS (SELECT unnest(p_guard_types), unnest(p_guard_ids) INTERSECT SELECT unnest(p_stream_types), unnest(p_stream_ids))
                THEN 'a command of the batch writes a stream that is guarded in it'
        END;
    END IF;
    IF fault IS NOT NULL THEN
        RAISE EXCEPTION 'malformed call of journal.append: %', fault USING ERRCODE = 'FL003';
    END IF;

    -- Whoever holds the login role, or is a member of it, may append the types registered for it; a superuser is a
    -- member of every role, and still cannot append a type that nobody registered.
    types := p_stream_types[1:1];
    IF (types[1] = ALL (p_stream_types)) IS NOT TRUE THEN
        types := ARRAY(SELECT DISTINCT unnest(p_stream_types));
    END IF;
    SELECT t INTO fault FROM unnest(types) AS t
    WHERE (SELECT s.role FROM journal.stream_types AS s
           WHERE s.aggregate_type = t AND pg_has_role(session_user, s.role, 'MEMBER') LIMIT 1) IS NULL;
    IF FOUND THEN
        RAISE EXCEPTION '% may not append to streams of type %', session_user, coalesce(quote_literal(fault), 'NULL')
            USING ERRCODE = 'FL005', HINT = 'A migration registers stream types in journal.stream_types.';
    END IF;

    IF 'EntryPosted' = ANY (p_event_types) THEN
        SELECT f.fault INTO fault
        FROM journal.entry_faults(ARRAY(
            SELECT e.payload FROM unnest(p_event_types, p_payloads) AS e (event_type, payload) WHERE e.event_type = 'EntryPosted')) AS f
        LIMIT 1;
        IF FOUND THEN
            RAISE EXCEPTION 'entry refused: %', fault USING ERRCODE = 'FL006';
        END IF;
    END IF;

    -- What does not depend on the place in the journal is done before the lock is taken: leaves, and parsing. Sets that
    -- are unnested in one SELECT list advance together and are never sorted, so the arrays stay parallel.
    SELECT array_agg(e.command), array_agg(e.sequence), array_agg(e.number), sum(octet_length(e.payload)::bigint + octet_length(e.metadata)),
           array_agg(journal.leaf_of(
               e.stream_type, e.stream_id, e.sequence, e.event_type, e.event_version, e.event_id, e.payload, e.metadata))
    INTO commands, sequences, kept, total_bytes, leaves
    FROM (
        SELECT n.*, p_event_ids[n.number] AS event_id, p_event_types[n.number] AS event_type,
               p_event_versions[n.number] AS event_version, p_payloads[n.number] AS payload, p_metadata[n.number] AS metadata
        FROM (
            SELECT m.command, m.stream_type, m.stream_id, m.sequence, (row_number() OVER ())::int AS number
            FROM (
                SELECT c.command, c.stream_type, c.stream_id, c.expected + generate_series(1, c.events) AS sequence
                FROM (
                    SELECT generate_series(1, n_commands) AS command, unnest(p_stream_types) AS stream_type,
                           unnest(p_stream_ids) AS stream_id, unnest(p_expected) AS expected, unnest(p_event_counts) AS events
                ) AS c
            ) AS m
        ) AS n
        OFFSET 0
    ) AS e;
    IF total_bytes > 4194304 THEN
        RAISE EXCEPTION 'the batch holds % bytes of payload and metadata; at most 4 MiB are taken', total_bytes USING ERRCODE = 'FL004';
    END IF;
    payloads := p_payloads::json[];

    PERFORM FROM journal.lock WHERE only_row FOR UPDATE;

    SELECT b.last_position, b.recorded_at, b.chain INTO head, head_at, running
    FROM journal.batches AS b ORDER BY b.last_position DESC LIMIT 1;
    IF NOT FOUND THEN
        head := 0;
        running := '\x0000000000000000000000000000000000000000000000000000000000000000'::bytea;
    END IF;
    at := greatest(head_at, clock_timestamp());

    -- Every probe is one descent of the index: ORDER BY … LIMIT 1 inside a scalar subquery leaves the planner no choice.
    SELECT array_agg(coalesce((
        SELECT e.sequence FROM journal.events AS e
        WHERE e.aggregate_type = x.stream_type AND e.aggregate_id = x.stream_id
        ORDER BY e.sequence DESC LIMIT 1), 0))
    INTO actual
    FROM (SELECT unnest(p_stream_types) AS stream_type, unnest(p_stream_ids) AS stream_id) AS x;

    IF actual = p_expected AND cardinality(p_guard_commands || p_key_commands) = 0 THEN
        outcomes := array_fill('appended'::text, ARRAY[n_commands]);
    ELSE
        outcomes := ARRAY(
            SELECT CASE WHEN x.actual = x.expected THEN 'appended' ELSE 'conflict' END
            FROM (SELECT unnest(actual) AS actual, unnest(p_expected) AS expected) AS x);
        conflict_types := p_stream_types;
        conflict_ids := p_stream_ids;
        conflict_sequences := actual;
        FOR hit IN
            SELECT * FROM (
                SELECT g.*, coalesce((
                    SELECT e.sequence FROM journal.events AS e
                    WHERE e.aggregate_type = g.stream_type AND e.aggregate_id = g.stream_id
                    ORDER BY e.sequence DESC LIMIT 1), 0) AS actual
                FROM unnest(p_guard_commands, p_guard_types, p_guard_ids, p_guard_sequences)
                    WITH ORDINALITY AS g (command, stream_type, stream_id, sequence, n)
                OFFSET 0
            ) AS guards
            WHERE guards.actual IS DISTINCT FROM guards.sequence
            ORDER BY guards.n
        LOOP
            IF outcomes[hit.command] = 'appended' THEN
                outcomes[hit.command] := 'conflict';
                conflict_types[hit.command] := hit.stream_type;
                conflict_ids[hit.command] := hit.stream_id;
                conflict_sequences[hit.command] := hit.actual;
            END IF;
        END LOOP;
        -- A key that was seen outweighs a conflict: the stream has moved on because the first request was appended.
        FOR hit IN
            SELECT x.command, x.request AS request, k.*
            FROM unnest(p_key_commands, p_keys, p_requests) AS x (command, key, request)
            CROSS JOIN LATERAL (
                SELECT i.request AS first_request, i.first_position, i.last_position
                FROM journal.idempotency_keys AS i WHERE i.key = x.key ORDER BY i.key LIMIT 1) AS k
        LOOP
            outcomes[hit.command] := CASE WHEN hit.request = hit.first_request THEN 'duplicate' ELSE 'misuse' END;
            known_firsts[hit.command] := hit.first_position;
            known_lasts[hit.command] := hit.last_position;
        END LOOP;
        kept := ARRAY(
            SELECT x.number FROM unnest(commands) WITH ORDINALITY AS x (command, number)
            WHERE outcomes[x.command] = 'appended' ORDER BY x.number);
    END IF;

    SELECT array_agg(CASE x.outcome WHEN 'appended' THEN head + x.so_far - x.events + 1 WHEN 'duplicate' THEN known_firsts[x.n] END),
           array_agg(CASE x.outcome WHEN 'appended' THEN head + x.so_far WHEN 'duplicate' THEN known_lasts[x.n] END)
    INTO first_positions, last_positions
    FROM (
        SELECT c.*, sum(c.events) FILTER (WHERE c.outcome = 'appended') OVER (ROWS UNBOUNDED PRECEDING) AS so_far
        FROM (SELECT generate_series(1, n_commands) AS n, unnest(outcomes) AS outcome, unnest(p_event_counts) AS events) AS c
    ) AS x;

    IF cardinality(kept) > 0 THEN
        -- The chain is a fold, so this part is a loop.
        time_bytes := int8send((extract(epoch FROM at) * 1000000)::bigint);
        chains := array_fill(NULL::bytea, ARRAY[cardinality(kept)]);
        FOR n IN 1 .. cardinality(kept) LOOP
            running := journal.chain_of(running, head + n, time_bytes, leaves[kept[n]]);
            chains[n] := running;
        END LOOP;

        INSERT INTO journal.events (
            position, aggregate_type, aggregate_id, sequence, event_type, event_version, payload, metadata,
            event_id, recorded_at, leaf, chain)
        SELECT head + e.n, p_stream_types[commands[e.number]], p_stream_ids[commands[e.number]], sequences[e.number],
               p_event_types[e.number], p_event_versions[e.number], payloads[e.number], p_metadata[e.number]::json,
               p_event_ids[e.number], at, leaves[e.number], e.chain
        FROM (
            SELECT generate_series(1, cardinality(kept)) AS n, unnest(kept) AS number, unnest(chains) AS chain
        ) AS e;

        INSERT INTO journal.batches (last_position, first_position, recorded_at, chain)
        VALUES (head + cardinality(kept), head + 1, at, running);

        IF 'EntryPosted' = ANY (p_event_types) THEN
            INSERT INTO journal.entry_ids (entry_id, position)
            SELECT payloads[e.number] ->> 'entry_id', head + e.n
            FROM unnest(kept) WITH ORDINALITY AS e (number, n)
            WHERE p_event_types[e.number] = 'EntryPosted';
        END IF;
        IF cardinality(p_key_commands) > 0 THEN
            INSERT INTO journal.idempotency_keys (key, request, first_position, last_position, created_at)
            SELECT x.key, x.request, first_positions[x.command], last_positions[x.command], at
            FROM unnest(p_key_commands, p_keys, p_requests) AS x (command, key, request)
            WHERE outcomes[x.command] = 'appended';
        END IF;
        IF cardinality(p_vault_commands) > 0 THEN
            INSERT INTO vault.keys (stream_type, stream_id, wrapped_key, created_at)
            SELECT p_stream_types[x.command], p_stream_ids[x.command], x.wrapped_key, at
            FROM unnest(p_vault_commands, p_vault_keys) AS x (command, wrapped_key)
            WHERE outcomes[x.command] = 'appended'
            -- A key that is there already belongs to a body that the journal has lost: it was restored to an earlier time
            -- than the vault. The stream begins only now, so nothing in it is sealed under that key.
            ON CONFLICT (stream_type, stream_id) DO UPDATE
            SET wrapped_key = excluded.wrapped_key, created_at = excluded.created_at, destroyed_at = NULL;
        END IF;
    END IF;
END
$$;

-- Forgets up to p_limit keys that are older than seven days, and answers how many: called again until it answers 0.
-- Forgetting is safe because a stream's uniqueness still answers a late repetition.
CREATE FUNCTION journal.forget_idempotency_keys(p_limit int) RETURNS bigint
LANGUAGE sql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    WITH forgotten AS (
        DELETE FROM journal.idempotency_keys
        WHERE key IN (
            SELECT k.key FROM journal.idempotency_keys AS k
            WHERE k.created_at < clock_timestamp() - interval '7 days'
            ORDER BY k.created_at
            LIMIT least(p_limit, 1000))
        RETURNING 1
    )
    SELECT count(*) FROM forgotten
$$;

DO $$
DECLARE
    f regprocedure;
BEGIN
    FOR f IN
        SELECT p.oid::regprocedure FROM pg_catalog.pg_proc AS p
        WHERE p.pronamespace = 'journal'::regnamespace AND p.proname IN ('append', 'entry_faults', 'leaf_of', 'chain_of', 'forget_idempotency_keys')
    LOOP
        EXECUTE format('ALTER FUNCTION %s OWNER TO journal_writer', f);
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', f);
        IF f::text LIKE 'journal.append(%' OR f::text LIKE 'journal.forget_idempotency_keys(%' THEN
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO fanledger_command, fanledger_operator', f);
        END IF;
    END LOOP;
END
$$;
