-- The example application: tasks of one organisation. There is no tenant column: the whole database is the tenant's.
create table tasks (
  id         integer primary key,
  title      text    not null check (length(title) between 1 and 200),
  done       integer not null default 0 check (done in (0, 1)),
  created_at text    not null default (strftime('%Y-%m-%dT%H:%M:%SZ', 'now'))
) strict;
