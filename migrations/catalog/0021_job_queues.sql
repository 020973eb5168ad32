-- Tenants whose own database holds jobs. A runner finds due jobs here and never by looking into every tenant's database.
-- The row is written after the commit in the tenant's database. It is a hint: the jobs themselves are in that database.
create table job_queues (
  tenant_id      text   not null primary key references tenants (id),
  due_at         bigint,                          -- when the tenant's next job is due, milliseconds since 1970; null: none
  marks          bigint not null,                 -- counts the writes of due_at by processes that enqueue; a runner that
                                                  -- read an older count keeps due_at
  runner         text,                            -- the process that works on the queue; null: none
  claimed_until  bigint,                          -- the end of its claim
  dead_below     bigint not null,                 -- jobs that were enqueued under an older generation are dead letters
  dead_reason    text                             -- the reason why
);
create index job_queues_due on job_queues (due_at);

-- Processes that may have committed jobs whose tenants are not in job_queues yet. A process that ends in order removes its
-- row. When a row expires, another process looks into every tenant's database once.
create table job_enqueuers (
  process        text   not null primary key,
  until          bigint not null                  -- milliseconds since 1970
);
