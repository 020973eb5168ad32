-- What a job and a webhook write.

-- The plan that the organisation pays for.
alter table organisation add column plan text not null default 'free';

-- The latest digest, one row. A job makes it each night, or when somebody asks for it.
create table digest (
  id      integer     primary key check (id = 1),
  open    bigint      not null,
  overdue bigint      not null,
  made_at timestamptz not null
);

-- Payments that the payment service has told of.
create table payments (
  event       text        primary key,
  amount      bigint      not null,
  received_at timestamptz not null default now()
);
