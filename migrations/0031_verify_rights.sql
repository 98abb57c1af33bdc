-- `journal verify` compares the registered ids of entries with the events; it logs in as the operator.
GRANT SELECT ON journal.entry_ids TO fanledger_operator;
