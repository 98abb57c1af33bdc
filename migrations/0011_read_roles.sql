-- How those who read are planned for. Compiling a statement takes Postgres half a second, and it does so whenever it thinks a
-- statement dear; ours are many index probes, whose number it overestimates, and take milliseconds.

-- Roles belong to the cluster: databases that are migrated at the same moment take turns (0001).
LOCK TABLE pg_catalog.pg_authid IN SHARE ROW EXCLUSIVE MODE;
ALTER ROLE fanledger_gateway SET jit = off;
ALTER ROLE fanledger_finance SET jit = off;
ALTER ROLE fanledger_projector SET jit = off;
