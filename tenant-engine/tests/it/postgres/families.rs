//! Databases that are hard to restore, family by family: each is dumped, restored beside its source, and compared in
//! its rows, its materialized views and every class of its objects.

use postgres_fixture::Settings;
use tenant_engine::*;

use super::kit::{BASE, Kit, Tenant, base_and, set};

/// A name, and the migration that makes such a database.
const FAMILIES: &[(&str, &str)] = &[
    (
        "checks that look at other tables, which come in later",
        "create table box(id int); create function known(i int) returns boolean language sql stable as
           $$ select exists(select from box where id = i) $$;
         create table a_ref(i int constraint known_box check (known(i)), constraint positive check (i > 0));
         comment on constraint known_box on a_ref is 'it''s known';
         insert into box values (1), (2); insert into a_ref values (2), (1);",
    ),
    (
        "checks that look at the same table, at rows that have changed since, and not yet valid ones",
        "create table node(id int primary key, parent int);
         create function is_node(i int) returns boolean language plpgsql as
           $$ begin return i is null or exists(select from node where id = i); end $$;
         insert into node values (1, null); alter table node add constraint rooted check (is_node(parent));
         insert into node values (2, 1); insert into node values (3, 2); update node set parent = 3 where id = 1;
         create table old(i int); insert into old values (-5);
         alter table old add constraint later check (is_node(i)) not valid;",
    ),
    (
        "checks that are inherited, of partitions, and not inherited",
        "create table limits(most int); insert into limits values (10);
         create function fine(i int) returns boolean language sql as 'select exists(select from limits where i <= most)';
         create table parent(i int, constraint fine check (fine(i)), constraint own check (fine(i)) no inherit);
         create table child(j int, constraint fine check (fine(i))) inherits (parent);
         create table grandchild() inherits (child);
         insert into parent values (1); insert into child values (2, 3); insert into grandchild values (4, 5);
         create table parted(i int, constraint fine check (fine(i))) partition by range (i);
         create table a_part partition of parted for values from (0) to (100); insert into parted values (7);",
    ),
    (
        "domains whose checks call functions",
        "create table codes(code text); insert into codes values ('a');
         create function is_code(t text) returns boolean language sql stable as 'select exists(select from codes where code = t)';
         create domain code as text default 'a' constraint is_code check (is_code(value)) check (value <> '');
         comment on constraint is_code on domain code is 'one of codes';
         create table a_coded(c code, many code[]); insert into a_coded values ('a', '{a}'), (default, null);",
    ),
    (
        "generated columns, indexes, exclusions and partition keys that call functions of functions",
        "create function one() returns int language sql immutable as 'select 1';
         create function plus(i int) returns int language sql immutable as 'select one() + i';
         create function slow(i int) returns int language plpgsql immutable as $$ begin return plus(i); end $$;
         create function inlined(i int) returns int language sql as 'select i + 1';
         create table gen(i int, j int generated always as (plus(i)) stored, k int generated always as (inlined(i)) stored,
           l int default plus(41));
         create index on gen (slow(i)); create unique index on gen (plus(i)) where slow(i) > 0;
         create index on gen (inlined(i)); create statistics gen_stats on (plus(i)), (slow(i)) from gen;
         alter table gen add exclude using btree (plus(i) with =);
         create table keyed(i int) partition by list (plus(i)); create table keyed_1 partition of keyed for values in (2);
         insert into gen(i) values (1), (2); insert into keyed values (1);",
    ),
    (
        "materialized views of functions that read later ones",
        "create materialized view z as select 5 as a; create function of_z() returns int language sql as 'select a from z';
         create materialized view m as select of_z() as a; create function of_m() returns int language plpgsql as
           $$ begin return (select a from m); end $$;
         create materialized view a as select of_m() as a; create unique index on a (a);
         create materialized view never as select 1 as one with no data;",
    ),
    (
        "functions of extensions that name each other",
        "create extension cube; create extension hstore; create extension citext;
         create extension pg_trgm; create extension btree_gist; create extension unaccent;
         create table place(lat float8, lon float8, name citext, more hstore);
         create index on place using gist (cube(array[lat, lon])); create index on place using gin (name gin_trgm_ops);
         create function plain(t text) returns text language sql immutable as $$ select unaccent('unaccent', t) $$;
         create index on place (plain(name::text)); comment on extension citext is 'ours';
         insert into place values (48.1, 11.5, 'München', 'a=>1'), (52.5, 13.4, 'Berlin', '');",
    ),
    (
        "operators, casts, aggregates and types of one's own",
        "create type pair as (a int, b int);
         create function weigh(pair) returns int language sql immutable as 'select $1.b % 10';
         create function same(pair, pair) returns boolean language sql immutable as
           'select $1.a = $2.a and weigh($1) = weigh($2)';
         create operator === (function = same, leftarg = pair, rightarg = pair, commutator = ===);
         create function to_pair(int) returns pair language sql immutable as 'select row($1, $1 % 10)::pair';
         create cast (int as pair) with function to_pair(int);
         create function add_pair(int, pair) returns int language sql immutable as 'select $1 + weigh($2)';
         create aggregate weight(pair) (sfunc = add_pair, stype = int, initcond = '0');
         create table pairs(p pair, check (p === p)); insert into pairs values ((1, 2)), ((3, 4));
         create view weights as select weight(p) as w from pairs; create materialized view weight_now as select * from weights;
         create type span as range (subtype = int, subtype_diff = gap);",
    ),
    (
        "triggers, rules, policies and views that call functions",
        "create table log(what text); create table t(id int primary key, v text);
         create function note(w text) returns text language sql as 'insert into log values (w) returning what';
         create function noting() returns trigger language plpgsql as $$ begin perform note(new.v); return new; end $$;
         create trigger noted before insert on t for each row when (new.v is not null) execute function noting();
         create trigger off after delete on t execute function noting(); alter table t disable trigger off;
         create function mine(text) returns boolean language sql stable as 'select exists(select from log where what = $1)';
         alter table t enable row level security; create policy own on t using (mine(v)) with check (mine(v));
         create rule gone as on delete to log do also insert into log values (note('x'));
         create view seen with (security_barrier) as select * from t where mine(v) with check option;
         insert into t values (1, 'one');",
    ),
    (
        "dates, floats, intervals, bytes and money as text",
        "create table at(at timestamptz check (at::date::text ~ '^20'), f float8 check (f::text <> '0.3'), i interval,
           b bytea, m money, t time with time zone, x xml, search tsvector);
         insert into at values ('2026-03-01 02:30:00+00', 0.1::float8 + 0.2, '1 mon 2 days', '\\xff00', '12.34', '10:00+02', 'a',
           to_tsvector('the houses'));
         create materialized view daily as select at::date as day, f::text as f, i::text as i, b::text as b, m::text as m,
           to_tsvector('the houses') as words, to_char(at, 'Day DD HH24') as told from at;
         create table days(at timestamptz) partition by range (at);
         create table days_1 partition of days for values from ('2026-03-01') to ('2026-03-02');
         insert into days values ('2026-03-01 23:30+00');",
    ),
    (
        "other schemas, quoted names and objects that hide the server's own",
        "create schema \"Über x\"; create table \"Über x\".\"a \"\"b\"(\"select\" int, \"C\" text collate \"C\");
         insert into \"Über x\".\"a \"\"b\" values (1, 'x');
         create function public.lower(text) returns text language sql immutable as $$ select 'hidden' $$;
         create function public.length(varchar) returns int language sql immutable as 'select 99';
         create table hides(v varchar, l int generated always as (length(v)) stored, u text generated always as (lower(v)) stored);
         create view \"User\" as select lower(v) as low, public.lower(v) as ours, length(v) from hides;
         insert into hides values ('ABC');",
    ),
    (
        "publications and identity of rows",
        "create table sent(id int primary key, secret text, n int); alter table sent replica identity full;
         create table more(id int primary key); create publication pub for table sent (id, n) where (n > 0), more;
         create publication narrow with (publish = 'insert'); comment on publication pub is 'to the warehouse';",
    ),
    (
        "objects without a definition, and text search",
        "create text search dictionary bare (template = simple); create text search configuration unmapped (parser = default);
         create text search configuration words (copy = simple);
         alter text search configuration words alter mapping for asciiword with bare;
         create table docs(t text, v tsvector generated always as (to_tsvector('words'::regconfig, t)) stored);
         create index on docs using gin (to_tsvector('words'::regconfig, t)); create table nothing(); create view one as select;
         create collation blind (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
         create table named(n text collate blind unique); insert into docs values ('Hello'); insert into named values ('a');
         create type hollow as enum (); create type shell_less as (); insert into nothing default values;",
    ),
    (
        "what each object says of itself",
        "create table told(id int generated by default as identity (start 7 increment 3), a text) with (fillfactor = 70);
         alter table told alter a set statistics 500; alter table told alter a set storage external;
         comment on column told.a is 'a''s'; comment on table told is 'x'; create sequence loose cycle maxvalue 9; select nextval('loose');
         create unlogged table quick(a int); insert into quick values (1);
         create function cfg() returns int language sql stable strict cost 7 parallel safe set work_mem = '8MB' as 'select 1';
         create procedure act(inout a int) language plpgsql as $$ begin a := 2; end $$; comment on procedure act is 'acts';
         create index told_a on told (a desc nulls last) include (id) with (fillfactor = 60); cluster told using told_a;
         alter table told add constraint u unique nulls not distinct (a) deferrable initially deferred;
         create table refers(id int references quick_key deferrable);",
    ),
];
/// Made before the migration of some family, which needs it.
const BEFORE: &str =
    "create function gap(int, int) returns float8 language sql immutable as 'select ($1 - $2)::float8';
    create table quick_key(id int primary key);";

fn beside(kit: &Kit, tenant: &Tenant) -> Tenant {
    kit.placed(Identity { tenant: TenantId::generate(), ..tenant.identity.clone() })
}

async fn print(kit: &Kit, tenant: &Tenant) -> DatabaseFingerprint {
    kit.engine.compute_fingerprint(&tenant.at, &tenant.expected()).await.unwrap()
}

/// The rows of materialized views: no part of a fingerprint, as a restore fills them anew.
fn filled(kit: &Kit, tenant: &Tenant) -> String {
    kit.ask(
        tenant,
        "select string_agg(matviewname || query_to_xml(format('table %I.%I', schemaname, matviewname), true, true, '')::text,
         '' order by matviewname) from pg_matviews where ispopulated",
    )
}

/// What is wrong with the copy of one family's database.
pub(crate) async fn fault(kit: &Kit, name: &str, sql: &str) -> Option<String> {
    let tenant = kit.provisioned(&set(&BASE)).await;
    if let Err(error) = kit.migrate(&tenant, &base_and(&[("3_before.sql", BEFORE), ("4_family.sql", sql)])).await {
        return Some(format!("{name}: {error}"));
    }
    let taken = kit.engine.take_snapshot(&tenant.at, &tenant.expected()).await.unwrap();
    let to = beside(kit, &tenant);
    let restored = match kit.engine.restore_database(&to.at, taken.image, tenant.identity.tenant, &to.identity).await {
        Err(error) => return Some(format!("{name}: {} {error}", error.kind().code())),
        Ok(restored) => restored,
    };
    assert_eq!(restored.left_out, Vec::<String>::new(), "{name}");
    let copy = print(kit, &to).await;
    let difference = print(kit, &tenant).await.first_difference(&copy);
    let sums = taken.info.rows.expect("every row can be read");
    let difference = difference.or_else(|| sums.first_difference(&copy.row_sums()));
    let difference = difference.or_else(|| class_difference(&taken.info.classes, &restored.classes));
    let (here, there) = (filled(kit, &tenant), filled(kit, &to));
    let filled = (here != there).then(|| format!("materialized views {here} / {there}"));
    difference.or(filled).map(|what| format!("{name}: {what}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_family_comes_back_as_it_was() {
    let kit = Kit::new();
    kit.provisioned(&set(&BASE)).await;
    let faults = FAMILIES.iter().map(|(name, sql)| fault(&kit, name, sql));
    let faults: Vec<String> = futures_util::future::join_all(faults).await.into_iter().flatten().collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Rows that the server of the source would not take any more: its constraint looks at rows that have gone since.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_break_a_check_by_now_come_back_under_a_check_that_is_not_valid() {
    let kit = Kit::new();
    let (_, sql) = FAMILIES[0];
    let tenant = kit.provisioned(&base_and(&[("3_before.sql", BEFORE), ("4_family.sql", sql)])).await;
    kit.ask(&tenant, "delete from box where id = 2");
    let taken = kit.engine.take_snapshot(&tenant.at, &tenant.expected()).await.unwrap();
    let to = beside(&kit, &tenant);
    let restored =
        kit.engine.restore_database(&to.at, taken.image, tenant.identity.tenant, &to.identity).await.unwrap();
    assert_eq!(kit.ask(&to, "select string_agg(i::text, ',' order by i) from a_ref"), "1,2");
    let valid = "select string_agg(conname || convalidated, ' ' order by conname) from pg_constraint where conrelid = 'a_ref'::regclass";
    assert_eq!(kit.ask(&to, valid), "known_boxfalse positivetrue");
    assert!(restored.left_out.concat().contains("known_box of table public.a_ref"), "{:?}", restored.left_out);
    let difference = class_difference(&taken.info.classes, &restored.classes);
    assert_eq!(difference.or(print(&kit, &tenant).await.first_difference(&print(&kit, &to).await)), None);
}

/// The same of a domain: its constraint is in the way of the rows, and cannot be validated where an array uses it.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_break_the_check_of_a_domain_by_now_come_back() {
    const DOMAINS: &str = "create table codes(code text); insert into codes values ('a'), ('b');
        create function is_code(t text) returns boolean language sql stable as 'select exists(select from codes where code = t)';
        create domain code as text constraint is_code check (is_code(value)) constraint filled check (value <> '');
        comment on constraint is_code on domain code is 'one of codes';
        create domain plain as text constraint is_plain check (is_code(value));
        create table coded(c code, many code[]); insert into coded values ('a', '{a,b}'); create table p(c plain);
        insert into p values ('a'); delete from codes where code = 'b';";
    let kit = Kit::new();
    let tenant = kit.provisioned(&base_and(&[("3_domains.sql", DOMAINS)])).await;
    let taken = kit.engine.take_snapshot(&tenant.at, &tenant.expected()).await.unwrap();
    let to = beside(&kit, &tenant);
    let restored =
        kit.engine.restore_database(&to.at, taken.image, tenant.identity.tenant, &to.identity).await.unwrap();
    assert_eq!(kit.ask(&to, "select c || many::text from coded"), "a{a,b}");
    let valid = "select string_agg(conname || convalidated, ' ' order by conname) from pg_constraint where contypid <> 0 and connamespace = 'public'::regnamespace";
    assert_eq!(kit.ask(&to, valid), "filledtrue is_codefalse is_plaintrue");
    assert!(restored.left_out.concat().contains("is_code of domain public.code"), "{:?}", restored.left_out);
    let difference = class_difference(&taken.info.classes, &restored.classes);
    assert_eq!(difference.or(print(&kit, &tenant).await.first_difference(&print(&kit, &to).await)), None);
    // The constraint goes on to hold for new rows.
    kit.ask(
        &to,
        "do $$ begin insert into coded values ('b', null); raise 'accepted'; exception when check_violation then null; end $$",
    );
}

/// What the server refuses is told with the object, and leaves nothing.
#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_cannot_be_restored_is_named() {
    const UNTRUE: &str = "create table clock(now int); insert into clock values (1);
        create function fails(i int) returns int language plpgsql immutable as
          $$ begin if (select now from clock) > 1 then raise 'too late'; end if; return i; end $$;
        create table early(i int); create index early_index on early (fails(i)); insert into early values (1);
        update clock set now = 2;";
    let kit = Kit::new();
    let tenant = kit.provisioned(&base_and(&[("3_untrue.sql", UNTRUE)])).await;
    let taken = kit.engine.take_snapshot(&tenant.at, &tenant.expected()).await.unwrap();
    let to = beside(&kit, &tenant);
    let error =
        kit.engine.restore_database(&to.at, taken.image, tenant.identity.tenant, &to.identity).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotRestorable, "{error}");
    for part in ["INDEX early_index", "too late", "fails(integer)"] {
        assert!(error.message().contains(part), "{part}: {error}");
    }
    let found =
        kit.cluster.psql("postgres", &format!("select count(*) from pg_database where datname = '{}'", to.database()));
    assert_eq!(found, "0");
}

/// Whatever the source's server says by itself, and the one that restores.
#[tokio::test(flavor = "multi_thread")]
async fn parameters_of_servers_databases_and_roles_do_not_change_a_copy() {
    let more = [
        "timezone='America/New_York'",
        "datestyle='SQL, DMY'",
        "intervalstyle='sql_standard'",
        "bytea_output='escape'",
        "extra_float_digits=-3",
        "default_text_search_config='pg_catalog.german'",
        "search_path='nosuch'",
        "default_transaction_isolation='serializable'",
        "xmlbinary='hex'",
        "transform_null_equals=on",
    ];
    let settings = Settings { more: more.map(str::to_owned).to_vec(), ..Settings::default() };
    let (odd, usual) = (Kit::with(&settings), Kit::new());
    let (_, sql) = FAMILIES.iter().find(|(name, _)| name.contains("dates")).unwrap();
    let tenant = odd.provisioned(&base_and(&[("3_family.sql", sql)])).await;
    odd.cluster.psql("postgres", &format!("alter database {} set timezone = 'Asia/Tokyo'", tenant.database()));
    for (kit, from) in [(&usual, &odd), (&odd, &odd)] {
        let taken = from.engine.take_snapshot(&tenant.at, &tenant.expected()).await.unwrap();
        assert_eq!(taken.info.left_out.len(), 1, "{:?}", taken.info.left_out);
        let to = beside(kit, &tenant);
        kit.engine.restore_database(&to.at, taken.image, tenant.identity.tenant, &to.identity).await.unwrap();
        assert_eq!(print(from, &tenant).await.first_difference(&print(kit, &to).await), None);
        let days = "select day || f || i || b || m || words || told from daily";
        let ask = |kit: &Kit, of: &Tenant| {
            kit.ask(
                of,
                &format!(
                    "set timezone = 'UTC'; set datestyle = 'ISO, MDY'; {days}",
                    days = days.replace("from", "from public.").replace(". ", ".")
                ),
            )
        };
        assert_eq!(ask(from, &tenant), ask(kit, &to));
    }
}

/// A tenant that could not be backed up is told at its migration, and one that was made so by hand at its backup.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_dump_cannot_carry_is_refused_with_its_cure() {
    let kit = Kit::new();
    let tenant = kit.provisioned(&set(&BASE)).await;
    for (name, force) in [
        ("3_a.sql", "alter table projects force row level security, enable row level security"),
        (
            "3_b.sql",
            "do $$ begin execute 'alter table projects enable row level security, force row level security'; end $$",
        ),
    ] {
        let error = kit.migrate(&tenant, &base_and(&[(name, force)])).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::MigrationFailed, "{error}");
        assert!(error.message().contains("projects forces row level security"), "{error}");
    }
    for (make, unmake, told) in [
        (
            "alter table projects enable row level security, force row level security",
            "alter table projects no force row level security",
            "no force row level security",
        ),
        ("select lo_from_bytea(4711, 'x')", "select lo_unlink(4711)", "lo_unlink"),
    ] {
        kit.ask(&tenant, make);
        let error = kit.engine.take_snapshot(&tenant.at, &tenant.expected()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotDumpable, "{error}");
        assert!(error.message().contains(told), "{error}");
        kit.ask(&tenant, unmake);
        kit.engine.take_snapshot(&tenant.at, &tenant.expected()).await.unwrap();
    }
    kit.ask(&tenant, "alter table projects disable row level security");
    kit.migrate(&tenant, &base_and(&[("3_c.sql", "alter table projects enable row level security")])).await.unwrap();
}

/// What a migration hid from the logins of requests stays hidden in a copy, and what it opened stays open.
#[tokio::test(flavor = "multi_thread")]
async fn rights_come_back_and_a_grant_to_a_role_that_is_not_there_is_told() {
    const RIGHTS: &str = "create table hidden(a int, b int); revoke all on hidden from fleet_read, fleet_write;
        grant select (a) on hidden to fleet_read; create table usual(a int); create table open(a int);
        grant insert on open to fleet_read; grant select on usual to reporting;
        create function secret() returns int language sql security definer as 'select 1';
        revoke execute on function secret() from public; create schema app; create table app.t(a int);
        alter default privileges in schema app revoke select on tables from fleet_read;
        alter default privileges revoke execute on functions from public;";
    let (here, there) = (Kit::new(), Kit::new());
    here.cluster.psql("postgres", "create role reporting");
    let tenant = here.provisioned(&base_and(&[("3_rights.sql", RIGHTS)])).await;
    for (kit, left_out) in [(&here, 0), (&there, 1)] {
        let taken = here.engine.take_snapshot(&tenant.at, &tenant.expected()).await.unwrap();
        let to = beside(kit, &tenant);
        let restored =
            kit.engine.restore_database(&to.at, taken.image, tenant.identity.tenant, &to.identity).await.unwrap();
        assert_eq!(restored.left_out.len(), left_out, "{:?}", restored.left_out);
        for question in [
            "select string_agg(c || r || p || has_table_privilege('fleet_' || r, c, p), ' ' order by c, r, p)
             from unnest(array['hidden', 'usual', 'open', 'app.t', 'projects', '_sqlx_migrations', '_fleet_identity']) c,
             unnest(array['read', 'write', 'owner']) r, unnest(array['select', 'insert', 'update', 'delete']) p",
            "select has_column_privilege('fleet_read', 'hidden', 'a', 'select'), has_column_privilege('fleet_read', 'hidden', 'b', 'select')",
            "select has_function_privilege('fleet_read', 'secret()', 'execute'), has_schema_privilege('fleet_read', 'app', 'usage')",
            "select string_agg(defaclobjtype::text || coalesce(defaclnamespace::regnamespace::text, '') || a::text, ' ' order by
               defaclobjtype, defaclnamespace::regnamespace::text, a::text)
             from pg_default_acl, unnest(defaclacl) a",
        ] {
            assert_eq!(kit.ask(&to, question), here.ask(&tenant, question), "{question}");
        }
    }
    assert!(here.ask(&tenant, "select has_table_privilege('fleet_read', 'hidden', 'select')") == "f");
}
