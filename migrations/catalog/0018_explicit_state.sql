-- What an archived or deleted tenant comes back as. Before, it followed from whether the row had a reason without a block
-- of writes, and from the audit log.

-- The state in which the tenant wakes: active | suspended. Null unless it is archived or deleted.
alter table tenants add column wake_state text;
-- The backup from which an archived tenant comes back. A deleted tenant has one if it was archived before. Null otherwise.
alter table tenants add column archive_backup_id text;
-- The tenant's generation at the last change by a process that knows these columns. An older process beside it raises only
-- the generation. So the two columns count only while this equals the generation.
alter table tenants add column wake_generation bigint;

update tenants set
  wake_generation = generation,
  wake_state = case when state_reason is not null and block_writes is null then 'suspended' else 'active' end
where state in ('archived', 'deleted');

-- The backup that the audit log names, or else the newest one: an archived tenant is never backed up.
update tenants set archive_backup_id = coalesce(
  (select case when substr(e.data, 1, 15) = '{"backup":"bkp_' and substr(e.data, 48, 1) = '"' then substr(e.data, 12, 36) end
   from events e where e.tenant_id = tenants.id and e.kind = 'tenant.archived' order by e.seq desc limit 1),
  (select b.id from backups b where b.tenant_id = tenants.id
   order by case when b.seq is null then 0 else 1 end, b.seq desc, b.id desc limit 1))
where placement is null and state in ('archived', 'deleted');
