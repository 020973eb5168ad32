-- Postgres servers, and several control planes on one catalog.

-- Postgres: the cluster's own system identifier, so that two addresses of one server are found; null for sqlite.
alter table servers add column system_id text;

-- What live processes hold for a while; a row whose time is over holds nothing.
create table leases (
  kind   text   not null,                         -- task (a periodic task: one owner) | connections (a slice of a server's)
  name   text   not null,                         -- the task, or the server's id
  owner  text   not null,                         -- the process: a random name of its own
  amount bigint not null,                         -- connections: how many; task: 1
  until  bigint not null,                         -- held before this moment
  primary key (kind, name, owner)
);
