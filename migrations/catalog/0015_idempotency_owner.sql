-- A key whose process is gone is free again, however long ago it was taken.

-- The process that runs the request, and until when that holds unless it is renewed; milliseconds since 1970.
-- Null: taken before this migration.
alter table idempotency add column owner text;
alter table idempotency add column until bigint;
