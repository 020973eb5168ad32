-- A step whose process dies again and again.

-- How often a process died while it held this step, since the last recorded phase. From two on the step runs alone.
alter table steps add column deaths bigint not null default 0;
create index steps_deaths on steps (op_id) where deaths > 0;
