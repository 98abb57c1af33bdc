-- What operators' tools may append is a skip and nothing else: the right is per stream type, and whoever holds this role could
-- otherwise put an entry of the ledger, or the close of a month, into such a stream.
ALTER TABLE journal.events ADD CONSTRAINT operators_append_skips
    CHECK (aggregate_type <> 'projection_skip' OR event_type = 'ProjectionEventSkipped');
