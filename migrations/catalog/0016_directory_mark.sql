-- A copy of the data directory may lie under the same path: in another container, or on another machine.

-- The machine, the file system and the directory itself, as the system numbers them, where the data directory was last
-- opened. Null: not opened since this migration.
alter table fleet add column directory_mark text;
