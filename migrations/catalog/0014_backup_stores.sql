-- The store in which a backup lies, without secrets: s3://bucket/prefix (and its endpoint), file:///directory, or
-- file:folder for a directory inside the data directory. Null: an older program took it.
alter table backups add column store text;
