-- What the backup store gives back is held against the catalog.

-- SHA-256 (hex) of the manifest as it was written. Null: a program before this column took the backup, and its content
-- is held against content_hash instead.
alter table backups add column manifest_sha256 text;
