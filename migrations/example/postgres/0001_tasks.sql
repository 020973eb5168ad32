-- The example application: tasks of one organisation. There is no tenant column: the whole database is the tenant's.
create table tasks (
  id         bigint      generated always as identity primary key,
  title      text        not null check (length(title) between 1 and 200),
  done       boolean     not null default false,
  created_at timestamptz not null default now()
);
