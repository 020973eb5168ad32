-- A data directory that was moved works where it is now, and one that was copied is noticed.

-- Where the data directory was when it was last opened; absolute. Null: not since this migration, or the catalog is on
-- Postgres, where each process has a directory of its own.
alter table fleet add column data_dir text;

-- From this version on, servers.base of a directory inside the data directory is relative to it ("tenants").
