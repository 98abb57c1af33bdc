-- public.forge(from, batches) computes leaves and chain anew from a position on, as somebody would who owns the database and
-- knows the code; and those of journal.batches too, where that is wanted.
CREATE FUNCTION public.forge(from_position bigint, batches boolean) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    e record;
    running bytea := coalesce((SELECT chain FROM journal.events WHERE position = from_position - 1), decode(repeat('00', 32), 'hex'));
    l bytea;
BEGIN
    FOR e IN SELECT * FROM journal.events WHERE position >= from_position ORDER BY position LOOP
        l := sha256(convert_to('fanledger/leaf/v1', 'UTF8') || '\x00'
            || int8send(octet_length(e.aggregate_type)) || convert_to(e.aggregate_type, 'UTF8')
            || int8send(octet_length(e.aggregate_id)) || convert_to(e.aggregate_id, 'UTF8') || int8send(e.sequence)
            || int8send(octet_length(e.event_type)) || convert_to(e.event_type, 'UTF8')
            || int8send(octet_length(e.event_version)) || convert_to(e.event_version, 'UTF8') || uuid_send(e.event_id)
            || int8send(octet_length(e.payload::text)) || convert_to(e.payload::text, 'UTF8')
            || int8send(octet_length(e.metadata::text)) || convert_to(e.metadata::text, 'UTF8'));
        running := sha256(convert_to('fanledger/chain/v1', 'UTF8') || '\x00' || running || int8send(e.position)
            || int8send((extract(epoch FROM e.recorded_at) * 1000000)::bigint) || l);
        UPDATE journal.events SET leaf = l, chain = running WHERE position = e.position;
        IF batches THEN
            UPDATE journal.batches SET chain = running, recorded_at = e.recorded_at WHERE last_position = e.position;
        END IF;
    END LOOP;
END $$;
