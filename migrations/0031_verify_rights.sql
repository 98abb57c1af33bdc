-- `journal verify` compares the registered ids of entries with the events; it logs in as the operator. Commands find by it the
-- entry that finance takes back.
GRANT SELECT ON journal.entry_ids TO fanledger_operator, fanledger_command;
