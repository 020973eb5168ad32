-- Tenants that stay at an older schema until somebody migrates them by name.

-- The version that the tenant had before an operation took it back. Null: not pinned. A pinned tenant is pinned at its
-- schema_version, and stays pinned as long as that is below this one or until a migration names it.
alter table tenants add column pinned_below bigint;
-- Since when, in milliseconds since 1970. For people only.
alter table tenants add column pinned_at bigint;
-- The operation that took it back. Null: not pinned.
alter table tenants add column pinned_op text;
create index tenants_pinned on tenants (id) where pinned_below is not null;

-- The pin that the tenant had when this database was replaced. An undo brings it back with the database.
alter table retained add column pinned_below bigint;
alter table retained add column pinned_at bigint;
alter table retained add column pinned_op text;
