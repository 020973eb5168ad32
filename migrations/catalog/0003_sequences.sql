-- Which of two things came last is told by a sequence. Clocks differ between processes, and step; times are for people.

-- Counts backups in the order in which they were recorded, which is the order of one tenant's snapshots. Null: recorded
-- by a process of an older program beside newer ones; the next backup that is recorded numbers it.
alter table backups add column seq bigint;
-- Counts operations in the order of their submission. Null: as for backups.
alter table operations add column seq bigint;

-- The order of what is there already is the audit log's, which has always been a sequence. What the log does not know
-- is older than what it knows; only there the clock decides.
create table old_order (
  id  text   not null primary key,
  seq bigint not null
);
insert into old_order (id, seq)
  select b.id, row_number() over (order by coalesce(e.seq, 0), b.taken_at, b.id)
  from backups b left join (
    select substr(data, 12, 36) as backup_id, min(seq) as seq from events
    where kind = 'backup.created' and substr(data, 1, 11) = '{"backup":"' group by substr(data, 12, 36)
  ) e on e.backup_id = b.id;
insert into old_order (id, seq)
  select o.id, row_number() over (order by coalesce(e.seq, 0), o.created_at, o.id)
  from operations o left join (
    select op_id, min(seq) as seq from events where op_id is not null group by op_id
  ) e on e.op_id = o.id;
update backups set seq = (select old_order.seq from old_order where old_order.id = backups.id);
update operations set seq = (select old_order.seq from old_order where old_order.id = operations.id);
drop table old_order;

create index backups_seq on backups (seq);
create index backups_tenant_seq on backups (tenant_id, seq);
create index operations_seq on operations (seq);
