-- A replacement of a tenant's database that blocks the tenant's writes: a restore, an undo, a move, or an archiving. A
-- tenant has at most one. The row is written in the transaction that blocks the writes, and removed in the transaction
-- that allows them again. If an operation dies in between, the row says what it had done.
create table replacements (
  tenant_id      text   not null primary key references tenants (id),
  op_id          text   not null,                 -- the operation that replaces the database
  kind           text   not null,                 -- restore | undo | move | archive
  stage          text   not null,                 -- fenced: writes are blocked, and there is no new database yet
                                                  -- ready: the new database is complete, and may be stamped
                                                  -- rolling_back: given up; the current database is to serve again
  generation     bigint not null,                 -- the tenant's generation since the block; a row with another
                                                  -- generation is out of date
  -- the current database, which is to be replaced
  server_id      text   not null,
  placement      text,                            -- null: the tenant had none
  found          text   not null,                 -- its condition at the fence: frozen | damaged | missing
  -- the new database; null before the stage ready, and for an archiving
  new_server_id      text,
  new_placement      text,
  new_generation     bigint,                      -- stamped into it
  new_schema_version bigint,
  new_release_id     text,
  new_size_bytes     bigint,
  new_pinned_below   bigint,                      -- the pin that the tenant gets with it
  new_pinned_at      bigint,
  new_pinned_op      text,
  -- what the tenant gets back when the block ends
  previous_block     text,                        -- operator: it was read-only
  previous_reason    text,
  fenced_at      bigint not null                  -- milliseconds since 1970
);
