-- Plans: named sets of limits. A tenant without a plan has the limits of the process alone.

create table plans (
  name       text   not null primary key,  -- the form of a slug
  limits     text   not null,              -- JSON: only the limits that the plan sets
  created_at bigint not null,              -- milliseconds since 1970
  updated_at bigint not null               -- milliseconds since 1970
);

-- The tenant's plan; null: none. No reference, because a copy of the catalog fills the tables in the order of their
-- creation. A plan is only removed in a transaction that finds no tenant with it.
alter table tenants add column plan text;
create index tenants_plan on tenants (plan);
