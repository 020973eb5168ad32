-- When the catalog was last copied into the backup store. Null: not since this migration.

-- Milliseconds since 1970.
alter table fleet add column copied_at bigint;
-- The newest change of the change feed in that copy.
alter table fleet add column copied_change bigint;
-- How long that copy took, milliseconds.
alter table fleet add column copied_in_ms bigint;
-- The operation whose end made that copy; its key in the store is made of both.
alter table fleet add column copied_by text;
