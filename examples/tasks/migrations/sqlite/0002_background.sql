-- What a job and a webhook write.

-- The plan that the organisation pays for.
alter table organisation add column plan text not null default 'free';

-- The latest digest, one row. A job makes it each night, or when somebody asks for it.
create table digest (
  id      integer primary key check (id = 1),
  open    integer not null,
  overdue integer not null,
  made_at text    not null
) strict;

-- Payments that the payment service has told of.
create table payments (
  event       text    primary key,
  amount      integer not null,
  received_at text    not null default (strftime('%Y-%m-%dT%H:%M:%SZ', 'now'))
) strict;
