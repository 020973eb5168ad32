-- Two copies of one data directory must not work on the same servers.

-- JSON list of random ids, the newest last. One is added each time the data directory is accepted at another place. Every
-- server outside the directory carries the newest one. A copy of the directory does not know ids that were added since.
-- Null: not opened since this migration.
alter table fleet add column claims text;

-- Set while the directory is given an identity of its own: the fleet's next id. Nothing else may run then.
alter table fleet add column next_id text;
