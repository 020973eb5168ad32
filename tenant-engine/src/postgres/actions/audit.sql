-- Roles, rights and settings of a server that differ from those that this program makes, each with the statement that
-- corrects it. Reads only the shared catalogs, so it costs milliseconds. `own` are the logins and group roles of a fleet.
with own as (
  select oid, rolname, case
      when rolname = 'fleet_owner' or rolname = 'fleet_read' or rolname = 'fleet_write' then 'group'
      else right(rolname, 1) end as kind,
    left(rolname, -2) as database, rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls, rolcanlogin,
    rolinherit, rolvaliduntil
  from pg_roles
  where rolname in ('fleet_owner', 'fleet_read', 'fleet_write')
    or rolname ~ '^(t_[0-9a-f]{32}_g[0-9]+_[0-9]+_[rwm]|tmpl_([0-9a-f]{8}_)?[0-9a-f]{32}_m)$'
), places as (
  select oid, datname, datdba, coalesce(datacl, acldefault('d', datdba)) as acl
  from pg_database
  where datname ~ '^(t_[0-9a-f]{32}_g[0-9]+_[0-9]+|tmpl_([0-9a-f]{8}_)?[0-9a-f]{32})$' and (datallowconn or datacl is not null)
), wrong as (
  select 1 as rank, format('role %I is %s', rolname, attribute) as what,
    format('alter role %I no%s', rolname, lower(attribute)) as cure
  from own, lateral (values ('SUPERUSER', rolsuper), ('CREATEROLE', rolcreaterole), ('CREATEDB', rolcreatedb),
    ('REPLICATION', rolreplication), ('BYPASSRLS', rolbypassrls), ('LOGIN', rolcanlogin and kind = 'group'),
    ('INHERIT', rolinherit and kind = 'm')) a(attribute, has)
  where has
  union all
  select 2, format('role %I is a member of %I', o.rolname, g.rolname), format('revoke %I from %I', g.rolname, o.rolname)
  from pg_auth_members m join own o on o.oid = m.member join pg_roles g on g.oid = m.roleid
  where g.rolname <> case o.kind when 'r' then 'fleet_read' when 'w' then 'fleet_write' when 'm' then 'fleet_owner' else '' end
  union all
  select 2, format('role %I is a member of %I', r.rolname, o.rolname), format('revoke %I from %I', o.rolname, r.rolname)
  from pg_auth_members m join own o on o.oid = m.roleid join pg_roles r on r.oid = m.member
  where r.rolname <> current_user and not r.rolsuper and r.oid not in (select oid from own)
    -- Since version 16 the creator of a role is a member of it; an earlier maintenance role created such logins.
    and not (r.rolcreaterole and r.rolcreatedb)
  union all
  select 3, format('setting %s of role %I%s', setting, o.rolname, coalesce(' in database ' || quote_ident(d.datname), '')),
    format('alter role %I%s reset %I', o.rolname, coalesce(' in database ' || quote_ident(d.datname), ''),
           split_part(setting, '=', 1))
  from pg_db_role_setting s join own o on o.oid = s.setrole left join pg_database d on d.oid = s.setdatabase,
    unnest(s.setconfig) setting
  where not (o.kind = 'r' and s.setdatabase = 0 and setting = 'default_transaction_read_only=on')
    and not (o.kind in ('r', 'w') and s.setdatabase = 0 and setting like 'temp\_file\_limit=%')
  union all
  select 3, format('setting %s of database %I', setting, p.datname),
    format('alter database %I reset %I', p.datname, split_part(setting, '=', 1))
  from pg_db_role_setting s join places p on p.oid = s.setdatabase, unnest(s.setconfig) setting
  where s.setrole = 0
  union all
  select 1, format('%s may connect to database %I', coalesce(quote_ident(r.rolname), 'everybody'), p.datname),
    format('revoke connect on database %I from %s', p.datname, coalesce(quote_ident(r.rolname), 'public'))
  from places p, lateral aclexplode(p.acl) a left join pg_roles r on r.oid = a.grantee
  where a.privilege_type = 'CONNECT' and a.grantee <> p.datdba
    and (a.grantee = 0 or r.rolname = 'fleet_owner'
         or r.oid in (select oid from own where database <> p.datname and kind <> 'group'))
  union all
  select 1, format('database %I belongs to %I', p.datname, o.rolname),
    format('alter database %I owner to %I', p.datname, current_user)
  from places p join own o on o.oid = p.datdba
  union all
  select 4, format('login %I of a migration is left over', rolname), format('drop role %I', rolname)
  from own
  where kind = 'm' and rolcanlogin
    and (rolvaliduntil is null or rolvaliduntil < now() + interval '47 hours'
         or not exists (select from pg_database where datname = database))
    and not exists (select from pg_stat_activity where usename = rolname)
)
select what, cure from wrong order by rank, what limit 1000
