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

-- Arguments are parallel arrays: p_stream_types … p_expected one element per command; p_event_* one per event, with the
-- number of its command, in order; p_key_*, p_vault_* and p_guard_* only for those commands that have one.
CREATE FUNCTION journal.append(
    p_writer_clock timestamptz,
    p_stream_types text[], p_stream_ids text[], p_expected bigint[],
    p_event_commands int[], p_event_ids uuid[], p_event_types text[], p_event_versions text[], p_payloads text[], p_metadata text[],
    p_key_commands int[], p_keys bytea[], p_requests bytea[],
    p_guard_commands int[], p_guard_types text[], p_guard_ids text[], p_guard_sequences bigint[],
    p_vault_commands int[], p_vault_keys bytea[]
)
-- outcome: appended, duplicate (both with positions), conflict (with the stream and its actual sequence), misuse.
RETURNS TABLE (
    outcome text, first_position bigint, last_position bigint,
    conflict_type text, conflict_id text, conflict_sequence bigint
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
-- The plans must not depend on when they were made: on an empty table a scan looks cheap, and would be kept. Every
-- table is reached by its index, from a short list.
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    n_commands  constant int := cardinality(p_stream_types);
    n_events    constant int := cardinality(p_event_commands);
    total_bytes bigint;
    fault       text;
    sequences   bigint[];
    leaves      bytea[];
    outcomes    text[];
    firsts      bigint[];
    lasts       bigint[];
    at_types    text[];
    at_ids      text[];
    actual      bigint[];
    head        bigint;
    head_at     timestamptz;
    running     bytea;
    at          timestamptz;
    time_bytes      bytea;
    before      bigint;
    positions   bigint[];
    chains      bytea[];
    c           int;
    last_c      int := 0;
    hit         record;
BEGIN
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
        WHEN n_commands NOT BETWEEN 1 AND 256 THEN 'a batch holds 1 to 256 commands'
        WHEN n_events NOT BETWEEN n_commands AND 4096 THEN 'a batch holds at least one event per command and at most 4096'
        WHEN (n_commands, n_commands) IS DISTINCT FROM (cardinality(p_stream_ids), cardinality(p_expected))
            THEN 'the command arrays differ in length'
        WHEN (n_events, n_events, n_events, n_events, n_events) IS DISTINCT FROM
            (cardinality(p_event_ids), cardinality(p_event_types), cardinality(p_event_versions), cardinality(p_payloads), cardinality(p_metadata))
            THEN 'the event arrays differ in length'
        WHEN (cardinality(p_keys), cardinality(p_requests)) IS DISTINCT FROM (cardinality(p_key_commands), cardinality(p_key_commands))
            THEN 'the key arrays differ in length'
        WHEN (cardinality(p_guard_types), cardinality(p_guard_ids), cardinality(p_guard_sequences))
            IS DISTINCT FROM (cardinality(p_guard_commands), cardinality(p_guard_commands), cardinality(p_guard_commands))
            THEN 'the guard arrays differ in length'
        WHEN cardinality(p_vault_keys) IS DISTINCT FROM cardinality(p_vault_commands) THEN 'the vault arrays differ in length'
        WHEN (SELECT count(*) FROM (SELECT DISTINCT s.t, s.i FROM unnest(p_stream_types, p_stream_ids) AS s (t, i)) AS streams) <> n_commands
            THEN 'two commands of the batch write one stream'
        WHEN p_event_commands[1] <> 1 OR p_event_commands[n_events] <> n_commands OR EXISTS (
            SELECT FROM (SELECT e.c - lag(e.c) OVER (ORDER BY e.n) AS step FROM unnest(p_event_commands) WITH ORDINALITY AS e (c, n)) AS steps
            WHERE steps.step NOT IN (0, 1))
            THEN 'the events are not in the order of their commands, at least one for each'
        WHEN EXISTS (SELECT FROM unnest(p_key_commands || p_guard_commands || p_vault_commands) AS x (c) WHERE (x.c BETWEEN 1 AND n_commands) IS NOT TRUE)
            THEN 'a key, guard or vault key names a command that is not there'
        WHEN (SELECT count(DISTINCT k) FROM unnest(p_keys) AS k) <> cardinality(p_keys)
          OR (SELECT count(DISTINCT k) FROM unnest(p_key_commands) AS k) <> cardinality(p_key_commands)
            THEN 'two commands of the batch share a key, or one has two'
        WHEN cardinality(p_guard_commands) > 0 AND EXISTS (
            SELECT FROM unnest(p_guard_types, p_guard_ids) AS g (t, i) JOIN unnest(p_stream_types, p_stream_ids) AS s (t, i) USING (t, i))
            THEN 'a command of the batch writes a stream that is guarded in it'
    END;
    IF fault IS NOT NULL THEN
        RAISE EXCEPTION 'malformed call of journal.append: %', fault USING ERRCODE = 'FL003';
    END IF;

    -- Whoever holds the login role, or is a member of it, may append the types registered for it; a superuser is a
    -- member of every role, and still cannot append a type that nobody registered.
    SELECT t INTO fault FROM (SELECT DISTINCT unnest(p_stream_types) AS t) AS types
    WHERE NOT EXISTS (
        SELECT FROM journal.stream_types AS s WHERE s.aggregate_type = types.t AND pg_has_role(session_user, s.role, 'MEMBER'));
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

    -- The leaves are computed before the lock is taken: nothing in them depends on the place in the journal.
    SELECT array_agg(e.sequence ORDER BY e.n),
           array_agg(sha256(
               '\x66616e6c65646765722f6c6561662f763100'::bytea
               || int8send(octet_length(e.stream_type)) || convert_to(e.stream_type, 'UTF8')
               || int8send(octet_length(e.stream_id)) || convert_to(e.stream_id, 'UTF8')
               || int8send(e.sequence)
               || int8send(octet_length(e.event_type)) || convert_to(e.event_type, 'UTF8')
               || int8send(octet_length(e.event_version)) || convert_to(e.event_version, 'UTF8')
               || uuid_send(e.event_id)
               || int8send(octet_length(e.payload)) || convert_to(e.payload, 'UTF8')
               || int8send(octet_length(e.metadata)) || convert_to(e.metadata, 'UTF8')) ORDER BY e.n),
           sum(octet_length(e.payload)::bigint + octet_length(e.metadata))
    INTO sequences, leaves, total_bytes
    FROM (
        SELECT x.*, p_stream_types[x.command] AS stream_type, p_stream_ids[x.command] AS stream_id,
               p_expected[x.command] + row_number() OVER (PARTITION BY x.command ORDER BY x.n) AS sequence
        FROM unnest(p_event_commands, p_event_ids, p_event_types, p_event_versions, p_payloads, p_metadata)
            WITH ORDINALITY AS x (command, event_id, event_type, event_version, payload, metadata, n)
    ) AS e;
    IF total_bytes > 4194304 THEN
        RAISE EXCEPTION 'the batch holds % bytes of payload and metadata; the limit is 4 MiB', total_bytes USING ERRCODE = 'FL004';
    END IF;

    PERFORM FROM journal.lock FOR UPDATE;

    SELECT b.last_position, b.recorded_at, b.chain INTO head, head_at, running
    FROM journal.batches AS b ORDER BY b.last_position DESC LIMIT 1;
    IF NOT FOUND THEN
        head := 0;
        running := '\x0000000000000000000000000000000000000000000000000000000000000000'::bytea;
    END IF;
    before := head;
    at := greatest(head_at, clock_timestamp());

    -- Every probe is one descent of the index: ORDER BY … LIMIT 1 inside a scalar subquery leaves the planner no choice.
    SELECT array_agg(CASE WHEN s.actual = s.expected THEN 'appended' ELSE 'conflict' END ORDER BY s.n), array_agg(s.actual ORDER BY s.n)
    INTO outcomes, actual
    FROM (
        SELECT x.n, x.expected, coalesce((
            SELECT e.sequence FROM journal.events AS e
            WHERE e.aggregate_type = x.stream_type AND e.aggregate_id = x.stream_id
            ORDER BY e.sequence DESC LIMIT 1), 0) AS actual
        FROM unnest(p_stream_types, p_stream_ids, p_expected) WITH ORDINALITY AS x (stream_type, stream_id, expected, n)
    ) AS s;
    at_types := p_stream_types;
    at_ids := p_stream_ids;
    firsts := array_fill(NULL::bigint, ARRAY[n_commands]);
    lasts := firsts;

    IF cardinality(p_guard_commands) > 0 THEN
        FOR hit IN
            SELECT * FROM (
                SELECT g.*, coalesce((
                    SELECT e.sequence FROM journal.events AS e
                    WHERE e.aggregate_type = g.stream_type AND e.aggregate_id = g.stream_id
                    ORDER BY e.sequence DESC LIMIT 1), 0) AS actual
                FROM unnest(p_guard_commands, p_guard_types, p_guard_ids, p_guard_sequences)
                    WITH ORDINALITY AS g (command, stream_type, stream_id, sequence, n)
            ) AS guards
            WHERE guards.actual IS DISTINCT FROM guards.sequence
            ORDER BY guards.n
        LOOP
            IF outcomes[hit.command] = 'appended' THEN
                outcomes[hit.command] := 'conflict';
                at_types[hit.command] := hit.stream_type;
                at_ids[hit.command] := hit.stream_id;
                actual[hit.command] := hit.actual;
            END IF;
        END LOOP;
    END IF;

    -- A key that was seen outweighs a conflict: the stream has moved on because the first request was appended.
    IF cardinality(p_key_commands) > 0 THEN
        FOR hit IN
            SELECT x.command, k.request = x.request AS same_request, k.first_position, k.last_position
            FROM unnest(p_key_commands, p_keys, p_requests) AS x (command, key, request)
            JOIN journal.idempotency_keys AS k ON k.key = x.key
        LOOP
            IF hit.same_request THEN
                outcomes[hit.command] := 'duplicate';
                firsts[hit.command] := hit.first_position;
                lasts[hit.command] := hit.last_position;
            ELSE
                outcomes[hit.command] := 'misuse';
            END IF;
        END LOOP;
    END IF;

    -- Number and chain what is appended. The chain is a fold, so this part is a loop.
    time_bytes := int8send((extract(epoch FROM at) * 1000000)::bigint);
    positions := array_fill(NULL::bigint, ARRAY[n_events]);
    chains := array_fill(NULL::bytea, ARRAY[n_events]);
    FOR i IN 1 .. n_events LOOP
        c := p_event_commands[i];
        IF outcomes[c] = 'appended' THEN
            head := head + 1;
            running := sha256('\x66616e6c65646765722f636861696e2f763100'::bytea || running || int8send(head) || time_bytes || leaves[i]);
            positions[i] := head;
            chains[i] := running;
            IF c <> last_c THEN
                firsts[c] := head;
                last_c := c;
            END IF;
            lasts[c] := head;
        END IF;
    END LOOP;

    IF head > before THEN
        INSERT INTO journal.events (
            position, aggregate_type, aggregate_id, sequence, event_type, event_version, payload, metadata,
            event_id, recorded_at, leaf, chain)
        SELECT e.position, p_stream_types[e.command], p_stream_ids[e.command], e.sequence, e.event_type, e.event_version,
               e.payload::json, e.metadata::json, e.event_id, at, e.leaf, e.chain
        FROM unnest(positions, p_event_commands, sequences, p_event_types, p_event_versions, p_payloads, p_metadata,
                    p_event_ids, leaves, chains)
            AS e (position, command, sequence, event_type, event_version, payload, metadata, event_id, leaf, chain)
        WHERE e.position IS NOT NULL;

        INSERT INTO journal.batches (last_position, first_position, recorded_at, chain)
        VALUES (head, before + 1, at, running);

        IF 'EntryPosted' = ANY (p_event_types) THEN
            INSERT INTO journal.entry_ids (entry_id, position)
            SELECT e.payload::json ->> 'entry_id', e.position
            FROM unnest(positions, p_event_types, p_payloads) AS e (position, event_type, payload)
            WHERE e.position IS NOT NULL AND e.event_type = 'EntryPosted';
        END IF;
        IF cardinality(p_key_commands) > 0 THEN
            INSERT INTO journal.idempotency_keys (key, request, first_position, last_position, created_at)
            SELECT x.key, x.request, firsts[x.command], lasts[x.command], at
            FROM unnest(p_key_commands, p_keys, p_requests) AS x (command, key, request)
            WHERE outcomes[x.command] = 'appended';
        END IF;
        IF cardinality(p_vault_commands) > 0 THEN
            INSERT INTO vault.keys (stream_type, stream_id, wrapped_key, created_at)
            SELECT p_stream_types[x.command], p_stream_ids[x.command], x.wrapped_key, at
            FROM unnest(p_vault_commands, p_vault_keys) AS x (command, wrapped_key)
            WHERE outcomes[x.command] = 'appended';
        END IF;
    END IF;

    RETURN QUERY
    SELECT r.outcome, r.first_position, r.last_position,
           CASE WHEN r.outcome = 'conflict' THEN r.stream_type END,
           CASE WHEN r.outcome = 'conflict' THEN r.stream_id END,
           CASE WHEN r.outcome = 'conflict' THEN r.actual END
    FROM unnest(outcomes, firsts, lasts, at_types, at_ids, actual) WITH ORDINALITY
        AS r (outcome, first_position, last_position, stream_type, stream_id, actual, n)
    ORDER BY r.n;
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
        WHERE p.pronamespace = 'journal'::regnamespace AND p.proname IN ('append', 'entry_faults', 'forget_idempotency_keys')
    LOOP
        EXECUTE format('ALTER FUNCTION %s OWNER TO journal_writer', f);
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', f);
        IF f::text NOT LIKE 'journal.entry_faults%' THEN
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO fanledger_command, fanledger_operator', f);
        END IF;
    END LOOP;
END
$$;
