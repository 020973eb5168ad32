-- Custom domains of tenants. Only an active domain has a row in `names`, of the kind host, which the router reads. This row
-- is removed with the domain's state: unlike a slug, a host may belong to another tenant later, once that one proves it.

create table domains (
  tenant_id     text   not null references tenants (id),
  host          text   not null,         -- normalised
  state         text   not null,         -- pending (never proven) | active | expired (was active, the proof is gone)
  nonce         text   not null,         -- random, hexadecimal; the value of the TXT record is derived from it
  created_at    bigint not null,         -- milliseconds since 1970, as all times here
  verified_at   bigint,                  -- when a check last found the TXT record; null: never
  checked_at    bigint,                  -- the last check; null: never
  check_error   text,                    -- what the last check found instead of the TXT record; null: it found the record
  failing_since bigint,                  -- the first check of an active domain that found no TXT record; null: not failing
  failed_checks bigint not null,         -- such checks since then; one that got no answer does not count
  primary key (tenant_id, host)
);
-- One owner at a time in the fleet.
create unique index domains_active on domains (host) where state = 'active';
create index domains_due on domains (checked_at) where state = 'active';
