-- What Postgres grants to everybody and our roles have no use for. A role that may only read `read` could otherwise fill the
-- disk with large objects and temporary tables, and hold the locks by which one relay and one runner are active.
DO $$
DECLARE
    f regprocedure;
BEGIN
    -- Rights on a database are its own, and not copied to one that is cloned from it.
    EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database());
    FOR f IN
        SELECT p.oid::regprocedure FROM pg_catalog.pg_proc AS p
        WHERE p.pronamespace = 'pg_catalog'::regnamespace
          AND (p.proname IN ('lo_creat', 'lo_create', 'lo_from_bytea') OR p.proname LIKE 'pg\_%advisory\_%')
    LOOP
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', f);
        IF f::text NOT LIKE 'lo\_%' THEN
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO fanledger_projector', f);
        END IF;
    END LOOP;
END
$$;
