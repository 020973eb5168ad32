-- The catalog: what exists, where it lives, who may enter, what is being done to it.
-- One portable text for SQLite and Postgres. Types are only bigint (milliseconds since 1970, counts, 0/1) and text
-- (ids, names, JSON, base64): what both engines and the driver agree on. Sequences are max+1 inside a write
-- transaction, which is serial on both engines, so their order is commit order.

create table fleet (
  one                bigint not null primary key check (one = 1),  -- exactly one row
  id                 text   not null,            -- flt_…: stamped into every tenant database
  created_at         bigint not null,
  key_check          text   not null,            -- a sealed constant: proves that the key at hand is this catalog's key
  current_release_id text                        -- what new tenants start from; null: an empty database
);

create table servers (
  id          text   not null primary key,       -- srv_…
  name        text   not null unique,
  engine      text   not null,                   -- sqlite | postgres
  base        text   not null,                   -- absolute root directory, or host:port without credentials
  secret      text,                              -- sealed connection string of the maintenance role; null for sqlite
  state       text   not null,                   -- active | cordoned (no new tenants) | draining | removed
  tenants_max bigint,                            -- null: no limit
  created_at  bigint not null
);

create table tenants (
  id                 text   not null primary key, -- tnt_…: never reused
  name               text   not null,             -- the current slug; `names` decides who it belongs to
  state              text   not null,             -- provisioning | active | suspended | archived | deleted | purged
  state_reason       text,                        -- why suspended or blocked, for operators
  block_writes       text,                        -- null | operation | operator: who blocks writes
  server_id          text   not null references servers (id),
  placement          text,                        -- where on the server; null: no database (archived, purged)
  generation         bigint not null,             -- +1 in the same statement as any change of state, block or placement
  placement_epoch    bigint not null,             -- counts attempts to fill a placement, so that no path is used twice
  schema_version     bigint,                      -- hint: the database's own ledger is the truth
  release_id         text,                        -- hint: the release whose head it is at
  size_bytes         bigint,                      -- hint: at the last backup or inspection
  protected          bigint not null,             -- 1: delete is refused
  op_id              text,                        -- the one operation that works on it now
  wake_requested_at  bigint,                      -- archived and somebody asked for it
  created_at         bigint not null,
  updated_at         bigint not null,
  deleted_at         bigint,
  purge_after        bigint
);
-- No two tenants share a database.
create unique index tenants_placement on tenants (server_id, placement) where placement is not null;
create index tenants_name on tenants (name);
create index tenants_state on tenants (state, id);
create index tenants_op on tenants (op_id) where op_id is not null;

-- A row is never changed to another tenant and never deleted: an old name cannot come to mean somebody else.
create table names (
  name       text   not null primary key,         -- normalised
  tenant_id  text   not null references tenants (id),
  kind       text   not null,                     -- slug (the current one) | alias (a former slug) | host
  created_at bigint not null,
  retired_at bigint                               -- a slug that became an alias
);
create index names_tenant on names (tenant_id);

create table tenant_labels (
  tenant_id text not null references tenants (id),
  key       text not null,
  value     text not null,
  primary key (tenant_id, key)
);
create index tenant_labels_value on tenant_labels (key, value);

create table members (
  tenant_id  text   not null references tenants (id),
  principal  text   not null,                     -- the application's own name for a person or program
  role       text   not null,                     -- reader | writer | manager
  created_at bigint not null,
  primary key (tenant_id, principal)
);
create index members_principal on members (principal);

create table tokens (
  id          text   not null primary key,        -- tok_…
  secret_hash text   not null unique,             -- SHA-256 (hex) of the secret: 256 random bits need no slow hash
  kind        text   not null,                    -- tenant | member | service | operator
  tenant_id   text   references tenants (id),     -- kind tenant: the only tenant it opens
  principal   text   not null,                    -- who acts with it: a member's principal, else token:<id>
  role        text,                               -- reader | writer | manager; operators: viewer | operator | admin; member: null
  label       text,
  created_at  bigint not null,
  expires_at  bigint,
  revoked_at  bigint
);
create index tokens_tenant on tokens (tenant_id);

create table releases (
  id           text   not null primary key,       -- rel_…
  digest       text   not null unique,            -- of versions and checksums
  engine       text   not null,                   -- whose SQL it is
  head_version bigint,
  created_at   bigint not null,
  created_by   text   not null
);
create table release_files (
  release_id text not null references releases (id),
  name       text not null,                       -- as in the directory
  sql        text not null,                       -- byte for byte
  primary key (release_id, name)
);

create table operations (
  id              text   not null primary key,    -- op_…
  kind            text   not null,                -- create | migrate | backup | restore | verify | delete | …
  state           text   not null,                -- pending | running | paused | succeeded | partial | failed | cancelled
  params          text   not null,                -- JSON, as its kind defines
  release_id      text   references releases (id),
  steps_total     bigint not null,
  steps_skipped   bigint not null,                -- tenants that needed nothing; they have no step
  concurrency     bigint not null,                -- steps at once
  requested_by    text   not null,
  reason          text,
  created_at      bigint not null,
  started_at      bigint,
  finished_at     bigint,
  error_code      text,
  error           text
);
create index operations_state on operations (state, id);

create table steps (
  op_id       text   not null references operations (id),
  tenant_id   text   not null references tenants (id),
  state       text   not null,                    -- pending | running | succeeded | failed | cancelled
  phase       text   not null,                    -- the next idempotent action; '' before the first
  facts       text   not null,                    -- JSON that the next phase needs
  attempt     bigint not null,
  not_before  bigint not null,
  lease_owner text,
  lease_epoch bigint not null,                    -- +1 with every claim: a late worker's record is refused by it
  lease_until bigint,
  error_code  text,
  error       text,
  started_at  bigint,
  finished_at bigint,
  primary key (op_id, tenant_id)
);
create index steps_state on steps (op_id, state, tenant_id);
create index steps_pending on steps (not_before) where state = 'pending';
create index steps_running on steps (lease_until) where state = 'running';
create index steps_tenant on steps (tenant_id);

create table backups (
  id             text   not null primary key,     -- bkp_…
  tenant_id      text   not null references tenants (id),
  op_id          text,
  object_key     text   not null unique,          -- of the manifest in the backup store
  engine         text   not null,
  content_hash   text   not null,                 -- equal for equal content: finds the unchanged
  size_bytes     bigint not null,                 -- of the database
  stored_bytes   bigint not null,                 -- of the object
  schema_version bigint,
  reason         text   not null,                 -- manual | scheduled | pre_restore | pre_delete
  taken_at       bigint not null,                 -- when the snapshot began: what `--to <time>` compares
  verified_at    bigint,
  verify_error   text,
  expires_at     bigint
);
create index backups_tenant on backups (tenant_id, taken_at);

-- Databases that are no longer a tenant's current one but kept until a date, with the reason.
create table retained (
  tenant_id  text   not null references tenants (id),
  server_id  text   not null references servers (id),
  placement  text   not null,
  generation bigint not null,                     -- stamped into it
  reason     text   not null,                     -- restore | move
  op_id      text   not null,
  schema_version bigint,
  created_at bigint not null,
  keep_until bigint not null,
  primary key (server_id, placement)
);
create index retained_tenant on retained (tenant_id, created_at);

create table schedules (
  id         text   not null primary key,         -- sch_…
  kind       text   not null,
  params     text   not null,
  cron       text   not null,
  paused     bigint not null,
  created_at bigint not null,
  next_at    bigint
);

-- The audit log: every change of fleet state and every operator's request, written in the transaction it tells about.
create table events (
  seq        bigint not null primary key,
  at         bigint not null,
  kind       text   not null,                     -- noun.verb, for instance tenant.created
  actor      text   not null,
  tenant_id  text,
  op_id      text,
  request_id text,
  data       text   not null                      -- JSON, never a secret
);
create index events_tenant on events (tenant_id, seq);
create index events_op on events (op_id, seq);

-- The change feed of the routers' caches.
create table changes (
  seq       bigint not null primary key,
  tenant_id text   not null                       -- '*': not one tenant's change, drop everything
);

-- Answers to requests that carried an Idempotency-Key; the body is sealed because it may hold a new token.
create table idempotency (
  actor        text   not null,
  key          text   not null,
  request_hash text   not null,
  status       bigint,                            -- null: still running
  response     text,
  created_at   bigint not null,
  primary key (actor, key)
);
create index idempotency_age on idempotency (created_at);
