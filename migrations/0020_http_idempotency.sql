-- Answers kept under an `Idempotency-Key`, for POSTs under /api/v1: the same request again gets the first answer again.
--
-- A key is scoped by subject and route: `scope` is the digest of all three, so that nothing of a person is kept here. The
-- request's digest covers method, path and body. A row without an answer is a request under way, with a lease: who died
-- half-way is taken over once it has run out. Expiry after seven days is safe because streams' own uniqueness still answers.

CREATE TABLE control.http_idempotency (
    scope        bytea       PRIMARY KEY CHECK (octet_length(scope) = 32),
    request      bytea       NOT NULL CHECK (octet_length(request) = 32),
    claim        uuid        NOT NULL,
    leased_until timestamptz NOT NULL,
    created_at   timestamptz NOT NULL,
    status       smallint    CHECK (status BETWEEN 200 AND 499),
    -- Name, value, name, value.
    headers      text[],
    body         bytea       CHECK (octet_length(body) <= 1048576),
    CONSTRAINT http_idempotency_answer CHECK ((status IS NULL) = (headers IS NULL) AND (status IS NULL) = (body IS NULL))
);
CREATE INDEX http_idempotency_created_at ON control.http_idempotency (created_at);
COMMENT ON TABLE control.http_idempotency IS 'Answers to POSTs by scope of their Idempotency-Key, kept seven days.';

-- outcome: claimed (run it), in_flight, misuse (the key was used with another request), answered (with the answer).
CREATE FUNCTION control.http_claim(p_scope bytea, p_request bytea, p_claim uuid, p_lease interval)
RETURNS TABLE (outcome text, status smallint, headers text[], body bytea)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    -- The conflicting row is locked here whether it is taken over or not, so what is read below is what was judged.
    INSERT INTO control.http_idempotency AS kept (scope, request, claim, leased_until, created_at)
    VALUES (p_scope, p_request, p_claim, clock_timestamp() + p_lease, clock_timestamp())
    ON CONFLICT (scope) DO UPDATE
        SET request = EXCLUDED.request, claim = EXCLUDED.claim, leased_until = EXCLUDED.leased_until,
            created_at = EXCLUDED.created_at, status = NULL, headers = NULL, body = NULL
        WHERE kept.leased_until < clock_timestamp()
          AND (kept.created_at < clock_timestamp() - interval '7 days' OR (kept.status IS NULL AND kept.request = EXCLUDED.request));
    IF FOUND THEN
        RETURN QUERY SELECT 'claimed'::text, NULL::smallint, NULL::text[], NULL::bytea;
        RETURN;
    END IF;
    RETURN QUERY
        SELECT CASE WHEN kept.request <> p_request THEN 'misuse' WHEN kept.status IS NULL THEN 'in_flight' ELSE 'answered' END,
               kept.status, kept.headers, kept.body
        FROM control.http_idempotency AS kept
        WHERE kept.scope = p_scope;
END
$$;

-- Keeps the answer; false if the claim was taken over meanwhile.
CREATE FUNCTION control.http_answer(p_scope bytea, p_claim uuid, p_status smallint, p_headers text[], p_body bytea)
RETURNS boolean
LANGUAGE sql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    WITH answered AS (
        UPDATE control.http_idempotency SET status = p_status, headers = p_headers, body = p_body
        WHERE scope = p_scope AND claim = p_claim AND status IS NULL
        RETURNING 1
    )
    SELECT EXISTS (SELECT FROM answered)
$$;

-- Gives the key back after a failure that the client may try again.
CREATE FUNCTION control.http_release(p_scope bytea, p_claim uuid)
RETURNS boolean
LANGUAGE sql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    WITH released AS (
        DELETE FROM control.http_idempotency WHERE scope = p_scope AND claim = p_claim AND status IS NULL RETURNING 1
    )
    SELECT EXISTS (SELECT FROM released)
$$;

-- Forgets a small batch of what is older than seven days and answers how many there were.
CREATE FUNCTION control.http_forget(p_limit integer)
RETURNS bigint
LANGUAGE sql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    WITH old AS (
        SELECT scope FROM control.http_idempotency
        WHERE created_at < clock_timestamp() - interval '7 days' AND leased_until < clock_timestamp()
        ORDER BY created_at LIMIT p_limit FOR UPDATE SKIP LOCKED
    ), forgotten AS (
        DELETE FROM control.http_idempotency AS kept USING old WHERE kept.scope = old.scope RETURNING 1
    )
    SELECT count(*) FROM forgotten
$$;

REVOKE ALL ON FUNCTION
    control.http_claim(bytea, bytea, uuid, interval), control.http_answer(bytea, uuid, smallint, text[], bytea),
    control.http_release(bytea, uuid), control.http_forget(integer)
    FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    control.http_claim(bytea, bytea, uuid, interval), control.http_answer(bytea, uuid, smallint, text[], bytea),
    control.http_release(bytea, uuid), control.http_forget(integer)
    TO fanledger_command;

-- The gateway passes an operator's request on with the executor's role.
GRANT EXECUTE ON FUNCTION control.pause(text), control.resume(text), control.request_operation(text, text, boolean)
    TO fanledger_command;
