-- Every object of a tenant's database, as class, name, and a hash of its definition. The names are qualified, because the
-- session's search path is pg_catalog. Differences that a dump and restore make in the printed definition do not count:
-- types added to constants, parentheses and white space. Owners and the order of columns do not count either. Nor does
-- the validity of a constraint: a restore leaves a constraint that rows violate not valid.
with ours as (select oid, nspname from pg_namespace where nspname !~ '^pg_' and nspname <> 'information_schema'),
ext as (select classid, objid from pg_depend where deptype = 'e'),
rel as (select c.*, c.oid::regclass::text as shown from pg_class c join ours n on n.oid = c.relnamespace
  where c.relpersistence <> 't' and c.oid::regclass::text not in ('public._fleet_identity', 'public._fleet_jobs', 'public._fleet_received') and c.oid is distinct from to_regclass('{ledger}')
  and not exists (select from ext where classid = 'pg_class'::regclass and objid = c.oid)),
found(class, name, definition) as (
  select 'schema', nspname, '' from ours where nspname <> 'public' and not exists (select from ext where classid = 'pg_namespace'::regclass and objid = ours.oid)
  union all select case relkind when 'S' then 'sequence' when 'v' then 'view' when 'm' then 'materialized view' when 'f' then 'foreign table' when 'c' then 'type' else 'table' end,
    shown, concat_ws(' ', relkind, relpersistence, relreplident, relrowsecurity, relforcerowsecurity, relispartition, reloptions, (select amname from pg_am where oid = relam),
      case when relkind in ('v', 'm') then pg_get_viewdef(oid) end, pg_get_expr(relpartbound, oid), case when relkind = 'p' then pg_get_partkeydef(oid) end,
      case when relkind = 'm' then relispopulated end,
      (select string_agg(i.inhparent::regclass::text, ' ' order by i.inhseqno) from pg_inherits i where i.inhrelid = rel.oid),
      (select concat_ws(' ', format_type(seqtypid, null), seqstart, seqincrement, seqmax, seqmin, seqcache, seqcycle,
        (select concat_ws(' ', d.refobjid::regclass, a.attname, d.deptype) from pg_depend d join pg_attribute a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid
         where d.classid = 'pg_class'::regclass and d.objid = seqrelid and d.refclassid = 'pg_class'::regclass and d.deptype in ('a', 'i')))
       from pg_sequence where seqrelid = rel.oid))
    from rel where relkind in ('r', 'p', 'S', 'v', 'm', 'f', 'c')
  union all select 'column', rel.shown || '.' || a.attname, concat_ws(' ', format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity, a.attgenerated, a.attislocal,
      a.attinhcount, a.attstorage, nullif(a.attcompression, ''), nullif(a.attstattarget, -1), a.attoptions, nullif(a.attcollation, t.typcollation)::regcollation, pg_get_expr(d.adbin, d.adrelid))
    from rel join pg_attribute a on a.attrelid = rel.oid and a.attnum > 0 and not a.attisdropped join pg_type t on t.oid = a.atttypid
    left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum where relkind in ('r', 'p', 'f', 'v', 'm', 'c')
  union all select 'index', rel.shown, concat_ws(' ', pg_get_indexdef(i.indexrelid), i.indisprimary, i.indisclustered, i.indisreplident, i.indimmediate, i.indnullsnotdistinct, i.indisvalid)
    from pg_index i join rel on rel.oid = i.indexrelid and i.indrelid in (select oid from rel)
  union all select 'constraint', case when contypid <> 0 then format_type(contypid, null) else conrelid::regclass::text end || '.' || conname,
      concat_ws(' ', contype, condeferrable, condeferred, conislocal, coninhcount, connoinherit, regexp_replace(pg_get_constraintdef(c.oid), ' NOT VALID$', ''))
    from pg_constraint c join ours n on n.oid = c.connamespace where contype <> 'n' and (conrelid = 0 or conrelid in (select oid from rel))
    and not exists (select from ext where (classid = 'pg_type'::regclass and objid = contypid))
  union all select 'trigger', rel.shown || '.' || tgname, concat_ws(' ', tgenabled, pg_get_triggerdef(t.oid)) from pg_trigger t join rel on rel.oid = t.tgrelid where not tgisinternal
  union all select 'rule', rel.shown || '.' || rulename, concat_ws(' ', ev_enabled, pg_get_ruledef(r.oid)) from pg_rewrite r join rel on rel.oid = r.ev_class where rulename <> '_RETURN'
  union all select 'policy', rel.shown || '.' || polname, concat_ws(' ', polcmd, polpermissive, pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid),
      (select string_agg(case r when 0 then 'public' else r::regrole::text end, ' ' order by 1) from unnest(polroles) r)) from pg_policy p join rel on rel.oid = p.polrelid
  union all select 'statistics', format('%I.%I', n.nspname, stxname), pg_get_statisticsobjdef(s.oid) from pg_statistic_ext s join ours n on n.oid = s.stxnamespace
  union all select 'routine', p.oid::regprocedure::text, concat_ws(' ', prokind, case when prokind = 'a' then
      (select concat_ws(' ', aggkind, aggtransfn, aggfinalfn, aggcombinefn, aggtranstype::regtype, agginitval, aggsortop::regoperator) from pg_aggregate where aggfnoid = p.oid)
      else pg_get_functiondef(p.oid) end)
    from pg_proc p join ours n on n.oid = p.pronamespace where not exists (select from ext where classid = 'pg_proc'::regclass and objid = p.oid)
  union all select 'type', format_type(t.oid, null), concat_ws(' ', typtype, typnotnull, typdefault, case when typtype = 'd' then format_type(typbasetype, typtypmod) end,
      (select string_agg(enumlabel, ' ' order by enumsortorder) from pg_enum where enumtypid = t.oid),
      (select concat_ws(' ', rngsubtype::regtype, rngcollation::regcollation, rngcanonical, rngsubdiff) from pg_range where rngtypid = t.oid))
    from pg_type t join ours n on n.oid = t.typnamespace where typtype in ('d', 'e', 'r', 'm', 'b') and typcategory <> 'A'
    and not exists (select from ext where classid = 'pg_type'::regclass and objid = t.oid)
  union all select 'operator', o.oid::regoperator::text, concat_ws(' ', oprcode, oprcom::regoperator, oprnegate::regoperator, oprrest, oprjoin, oprcanmerge, oprcanhash)
    from pg_operator o join ours n on n.oid = o.oprnamespace where oprcode <> 0 and not exists (select from ext where classid = 'pg_operator'::regclass and objid = o.oid)
  union all select 'operator class', format('%I.%I %s', n.nspname, opcname, amname), concat_ws(' ', opcintype::regtype, opcdefault) from pg_opclass o join ours n on n.oid = o.opcnamespace join pg_am on pg_am.oid = opcmethod
    where not exists (select from ext where classid = 'pg_opclass'::regclass and objid = o.oid)
  union all select 'cast', format('%s as %s', castsource::regtype, casttarget::regtype), concat_ws(' ', castfunc::regprocedure, castcontext, castmethod) from pg_cast c
    where c.oid >= 16384 and not exists (select from ext where classid = 'pg_cast'::regclass and objid = c.oid)
  union all select 'collation', format('%I.%I', n.nspname, collname), concat_ws(' ', collprovider, collcollate, collctype, collisdeterministic) from pg_collation c join ours n on n.oid = c.collnamespace
  union all select 'text search', format('%s %I.%I', kind, n.nspname, name), definition from (
      select 'configuration' as kind, c.oid, 'pg_ts_config'::regclass as classid, cfgnamespace as space, cfgname as name, (select string_agg(concat_ws(' ', maptokentype, mapseqno, mapdict::regdictionary), ' ' order by maptokentype, mapseqno) from pg_ts_config_map where mapcfg = c.oid) as definition from pg_ts_config c
      union all select 'dictionary', oid, 'pg_ts_dict'::regclass, dictnamespace, dictname, dictinitoption from pg_ts_dict) ts join ours n on n.oid = space
    where not exists (select from ext where ext.classid = ts.classid and objid = ts.oid)
  union all select 'extension', extname, n.nspname from pg_extension e join pg_namespace n on n.oid = extnamespace
  union all select 'publication', pubname, concat_ws(' ', puballtables, pubinsert, pubupdate, pubdelete, pubtruncate, pubviaroot,
      (select string_agg(concat_ws(' ', prrelid::regclass, pg_get_expr(prqual, prrelid),
        (select string_agg(attname, ' ' order by attname) from pg_attribute where attrelid = prrelid and attnum = any(prattrs))), ', ' order by prrelid::regclass::text) from pg_publication_rel where prpubid = p.oid),
      (select string_agg(pnnspid::regnamespace::text, ' ' order by 1) from pg_publication_namespace where pnpubid = p.oid)) from pg_publication p
  union all select 'event trigger', evtname, concat_ws(' ', evtevent, evtenabled, evtfoid::regprocedure, evttags) from pg_event_trigger
  union all select 'foreign server', srvname, srvoptions::text from pg_foreign_server
  union all select 'comment', format('%s %s', i.type, i.identity), description from (
      select classoid, objoid, objsubid, description, pg_identify_object(classoid, objoid, objsubid) i from pg_description where objoid >= 16384) d,
      lateral (select (d.i).type, (d.i).identity, (d.i).schema) i
    where not exists (select from ext where classid = d.classoid and objid = d.objoid) and i.type not like '%toast%'
    and (i.type, i.identity) is distinct from ('table', 'public._fleet_identity')
)
select class || ' ' || name, class, md5(regexp_replace(coalesce(definition, ''), '::("[^"]+"|[a-z_ ]+)(\.("[^"]+"|[a-z_]+))?(\(\d+(,\d+)?\))?(\[\])*|[][() ]|\n', '', 'g')) from found order by 1
