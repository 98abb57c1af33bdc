-- A peer that vanished without a word (a host that lost its power, a NAT entry that was dropped) is noticed in a minute, not after the
-- kernel's two hours: its session holds the lock by which runners and the relay agree on who is active.
DO $$
DECLARE
    login text;
BEGIN
    FOREACH login IN ARRAY ARRAY[
        'fanledger_gateway', 'fanledger_command', 'fanledger_projector', 'fanledger_operator', 'fanledger_finance'] LOOP
        EXECUTE format('ALTER ROLE %I SET tcp_keepalives_idle = 30', login);
        EXECUTE format('ALTER ROLE %I SET tcp_keepalives_interval = 10', login);
        EXECUTE format('ALTER ROLE %I SET tcp_keepalives_count = 3', login);
        EXECUTE format('ALTER ROLE %I SET tcp_user_timeout = ''60s''', login);
    END LOOP;
END
$$;

-- A position of a history that the journal has lost is none that a reader may wait for.
CREATE OR REPLACE VIEW read.positions AS
SELECT name, generation, journal_id, position, chain, coalesce(error ->> 'kind' = 'history_changed', false) AS is_lost
  FROM control.runners WHERE live;
