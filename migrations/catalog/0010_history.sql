-- History that is no longer wanted is removed, and work is found without reading history.

-- How long operations that have ended and their steps are kept, and how long events, in milliseconds.
alter table fleet add column operations_kept_ms bigint not null default 7776000000;
alter table fleet add column events_kept_ms bigint not null default 34560000000;
-- When the steps of an operation that has ended were last looked at for removal, milliseconds since 1970. Null: never.
alter table operations add column pruned_at bigint;

create index operations_finished on operations (finished_at) where finished_at is not null;
create index operations_kind on operations (kind, created_at);
create index events_age on events (at);

-- The steps of one tenant in the order of their operations.
drop index steps_tenant;
create index steps_tenant on steps (tenant_id, op_id);
-- Open steps, and steps that came to nothing, are few beside those that succeeded.
create index steps_open on steps (tenant_id) where state in ('pending', 'running');
create index steps_failed on steps (tenant_id, finished_at) where state in ('failed', 'cancelled');
create index steps_ended on steps (finished_at) where state in ('failed', 'cancelled') and lease_epoch > 0;

create index tenants_blocked on tenants (id) where block_writes = 'operation';
create index tenants_wanted on tenants (wake_requested_at, id) where wake_requested_at is not null;
create index tenants_purgeable on tenants (purge_after, id) where purge_after is not null;
