-- One organisation's tasks. There is no tenant column: the whole database belongs to the organisation.

-- The organisation itself, one row. A change of its members locks this row.
create table organisation (
  id    integer primary key check (id = 1),
  title text    not null
) strict;
insert into organisation (id, title) values (1, '');

-- The names of the members. Who is a member, and with which role, is in the catalog of the fleet.
create table people (
  id       text primary key,
  name     text not null,
  added_at text not null default (strftime('%Y-%m-%dT%H:%M:%SZ', 'now'))
) strict;

create table tasks (
  id         integer primary key,
  title      text    not null,
  notes      text    not null,
  done       integer not null default 0 check (done in (0, 1)),
  due_on     text,
  assignee   text    references people (id) on delete set null,
  -- Rises with each change. A change names the version that it has seen.
  version    integer not null default 1,
  created_at text    not null default (strftime('%Y-%m-%dT%H:%M:%SZ', 'now'))
) strict;
create index tasks_assignee on tasks (assignee);

create table comments (
  id         integer primary key,
  task_id    integer not null references tasks (id) on delete cascade,
  -- Null after the author was removed.
  author     text    references people (id) on delete set null,
  text       text    not null,
  created_at text    not null default (strftime('%Y-%m-%dT%H:%M:%SZ', 'now'))
) strict;
create index comments_task on comments (task_id);
create index comments_author on comments (author);

-- Finished exports: the list of tasks as CSV.
create table exports (
  id         integer primary key,
  task_count integer not null,
  content    text    not null,
  created_at text    not null default (strftime('%Y-%m-%dT%H:%M:%SZ', 'now'))
) strict;
