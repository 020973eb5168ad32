//! More databases that are hard to restore: functions that are found by unqualified names, from every place that may call
//! one, and checks that stand in a circle with their function. Compared as in `families.rs`.

use tenant_engine::*;

use super::families::fault;
use super::kit::{BASE, Kit, base_and, set};

/// A name, and the migration that makes such a database.
const FAMILIES: &[(&str, &str)] = &[
    (
        "domains whose check takes a value of the domain itself",
        "create table codes(code text); insert into codes values ('a'), ('b');
         create domain code as text; create function is_code(c code) returns boolean language sql stable as
           'select exists(select from codes where code = c::text)';
         create table coded(c code, d int default 1); insert into coded values ('a');
         alter domain code add constraint is_code check (is_code(value)); comment on constraint is_code on domain code is 'x';
         create domain late as int; create function fine(l late) returns boolean language plpgsql as
           $$ declare other late := l; begin return other > 0; end $$;
         create table lates(l late); insert into lates values (1); create domain upon as late check (value < 100);
         create table upons(u upon); insert into upons values (7);
         alter domain late add constraint fine check (fine(value));",
    ),
    (
        "domains whose check reads tables with columns of the domain itself",
        "create domain code as text; create table codes(c code primary key); insert into codes values ('a'), ('b');
         create function is_code(t text) returns boolean language sql stable as 'select exists(select from codes where c = t)';
         alter domain code add constraint is_code check (is_code(value));
         create table a_coded(c code default 'a'); insert into a_coded values ('a'), (default);
         create domain node as int; create table a_node(id node, up node); insert into a_node values (1, null), (2, 1);
         create function is_node(i int) returns boolean language plpgsql stable as
           $$ declare n node; begin select id into n from a_node where id = i; return found; end $$;
         create view nodes as select id from a_node; create materialized view m as select * from nodes;
         alter domain node add constraint plain check (value > 0); alter domain node add check (value is null or true) not valid;",
    ),
    (
        "such domains in arrays, composites and ranges",
        "create table codes(code text); insert into codes values ('a');
         create domain code as text; create function is_code(c code) returns boolean language sql stable as
           'select exists(select from codes where code = c::text)';
         create table coded(c code, many code[]); create type pair as (c code, n int); create table pairs(p pair, ps pair[]);
         create domain codes_of as code[] check (array_length(value, 1) > 0); create table lists(l codes_of);
         create type span as range (subtype = code); create table spans(s span);
         insert into coded values ('a', '{a}'); insert into pairs values ('(a,1)', '{\"(a,2)\"}'); insert into lists values ('{a}');
         insert into spans values ('[a,a]');
         alter domain code add constraint is_code check (is_code(value)) not valid;",
    ),
    (
        "checks whose function takes a row of its own table",
        "create table pair(a int, b int); create function fits(p pair) returns boolean language sql stable as
           'select not exists(select from pair q where q.a > p.a + 100)';
         alter table pair add constraint fits check (fits(pair)); comment on constraint fits on pair is 'x';
         insert into pair values (1, 2), (2, 3);
         create table tree(id int, parent int); create function rooted(t tree) returns boolean language plpgsql as
           $$ begin return t.parent is null or exists(select from tree where id = t.parent); end $$;
         alter table tree add check (rooted(tree.*)); insert into tree values (1, null); insert into tree values (2, 1);
         create table heir(extra int); alter table heir add id int, add parent int; insert into heir values (3, 1, 4);
         alter table tree drop constraint tree_check; alter table heir inherit tree;
         alter table tree add constraint rooted check (rooted(row(id, parent)::tree)) no inherit;
         create table first(i int); create table second(i int);
         create function of_second(f first) returns boolean language sql as 'select exists(select from second where i = f.i)';
         create function of_first(s second) returns boolean language sql as 'select s.i is not null or exists(select from first)';
         alter table second add check (of_first(second)); insert into second values (1);
         alter table first add check (of_second(first)); insert into first values (1);",
    ),
    (
        "functions with a body that is parsed when they are made",
        "create table box(id int primary key); insert into box values (1);
         create function known(i int) returns boolean stable begin atomic select exists(select from box where id = i); end;
         create table a_ref(i int check (known(i))); insert into a_ref values (1);
         create function twice(i int) returns int immutable return i * 2;
         create function four(i int) returns int immutable return twice(twice(i));
         create table gen(i int, j int generated always as (four(i)) stored); insert into gen values (1); create index on gen (four(i));
         create procedure add_box(n int) begin atomic insert into box values (n); end; call add_box(2);
         create view boxes as select id, known(id) from box; create materialized view m as select * from boxes;
         create function self(a_ref) returns boolean begin atomic select exists(select from a_ref r where r.i >= $1.i); end;
         alter table a_ref add check (self(a_ref)) not valid;",
    ),
    (
        "generated columns that look up rows of other tables",
        "create table z_price(id int primary key, price int); insert into z_price values (1, 10), (2, 20);
         create function price_of(i int) returns int language sql immutable as 'select price from z_price where id = i';
         create function price_or_fail(i int) returns int language plpgsql immutable as
           $$ declare p int; begin select price into strict p from z_price where id = i; return p; end $$;
         create table a_order(id int, total int generated always as (price_of(id)) stored);
         create table \"An order\"(id int, total int generated always as (price_or_fail(id)) stored);
         create operator @@@ (function = price_of, rightarg = int);
         create table b_order(id int, total int generated always as (@@@ id) stored);
         insert into a_order values (1), (2); insert into \"An order\" values (2); insert into b_order values (1);",
    ),
    (
        "other schemas, with and without a search path of their own",
        "create schema app; create schema \"My Schema\"; create table app.box(id int); insert into app.box values (1);
         create function app.known(i int) returns boolean language sql stable set search_path = app, pg_temp as
           'select exists(select from box where id = i)';
         create function app.deep(i int) returns boolean language plpgsql stable set search_path to 'app' as
           $$ begin return known(i); end $$;
         set search_path = app, public; create function app.here(i int) returns int language sql immutable
           set search_path from current as 'select i + 1'; reset search_path;
         create table app.a_ref(i int check (app.known(i)) check (app.deep(i)), j int generated always as (app.here(i)) stored);
         insert into app.a_ref values (1);
         create function \"twice \"\"quoted\"\"\"(i int) returns int language sql immutable as 'select i * 2';
         create function \"My Schema\".\"is ok?\"(\"the value\" int) returns boolean language sql stable as
           'select exists(select from app.box where id = \"the value\") and \"twice \"\"quoted\"\"\"(1) = 2';
         create domain \"My Schema\".\"a D\" as int constraint \"it's ok\" check (\"My Schema\".\"is ok?\"(value));
         create table \"My Schema\".\"a;b -- c\"(\"select\" \"My Schema\".\"a D\", \"CHECK (x\" int constraint \"is CHECK (y\" check (app.known(\"CHECK (x\")),
           g int generated always as (\"twice \"\"quoted\"\"\"(\"CHECK (x\")) stored);
         insert into \"My Schema\".\"a;b -- c\" values (1, 1);
         create type \"My Schema\".\"T\" as (a int); create function \"My Schema\".\"fits!\"(t \"My Schema\".\"a;b -- c\") returns boolean
           language sql as 'select $1.\"select\" > 0'; alter table \"My Schema\".\"a;b -- c\" add constraint \"of \"\"row\"\" CHECK (\"
           check (\"My Schema\".\"fits!\"(\"a;b -- c\"));
         create table \"new\nline\ttab\\back 'quote' $1 %s\"(i int); insert into \"new\nline\ttab\\back 'quote' $1 %s\" values (1);
         create table \"größe_größe_größe_größe_größe_größe_größe_größ\"(i int check (app.known(i)));",
    ),
    (
        "operators, casts, aggregates and text search by unqualified names in texts",
        "create text search dictionary plain (template = simple); create text search configuration ours (copy = simple);
         alter text search configuration ours alter mapping for asciiword with plain;
         create function words(t text) returns tsvector language sql immutable as $$ select to_tsvector('ours', t) $$;
         create type pair as (a int, b int);
         create function same(pair, pair) returns boolean language sql immutable as 'select $1.a = $2.a';
         create operator === (function = same, leftarg = pair, rightarg = pair);
         create function to_pair(int) returns pair language sql immutable as 'select row($1, 1)::pair';
         create cast (int as pair) with function to_pair(int) as implicit;
         create function alike(i int, p pair) returns boolean language plpgsql immutable as $$ begin return i::pair === p; end $$;
         create function add_pair(int, pair) returns int language sql immutable as 'select $1 + $2.a';
         create aggregate weight(pair) (sfunc = add_pair, stype = int, initcond = '0');
         create function weighs(p pair) returns int language sql immutable as 'select weight(x) from unnest(array[p, p]) x';
         create type mood as enum ('ok', 'sad'); create function is_ok(t text) returns boolean language sql immutable as
           $$ select t::mood = 'ok'::mood $$;
         create sequence numbers; create function next_number() returns bigint language sql as $$ select nextval('numbers') $$;
         create collation ours_c (provider = libc, locale = 'C'); create function sorted(t text) returns boolean language sql
           immutable as $$ select t > 'A' collate ours_c $$;
         create table t(id bigint default next_number(), i int, p pair, m text check (is_ok(m)), v tsvector generated always as (words(m)) stored,
           w int generated always as (weighs(p)) stored, check (alike(i, p)), check (sorted(m)));
         insert into t(i, p, m) values (1, '(1,2)', 'ok'); create index on t (weighs(p)); create index on t using gin (words(m));
         create unique index on t (i) where alike(i, p);",
    ),
    (
        "triggers that would fire for loaded rows, and procedures",
        "create table log(what text); create table t(id int); create table u(id int);
         create function note() returns trigger language plpgsql as $$ begin insert into log values (tg_name); return new; end $$;
         create function write_log(w text) returns void language sql as 'insert into log values (w)';
         create function chained() returns trigger language plpgsql as $$ begin perform write_log('c'); return null; end $$;
         create trigger usual before insert on t for each row execute function note();
         create trigger always after insert on t for each row execute function chained(); alter table t enable always trigger always;
         create trigger replica after insert on t for each statement execute function chained(); alter table t enable replica trigger replica;
         create constraint trigger later after insert on u deferrable initially deferred for each row execute function chained();
         create procedure fill(n int) language plpgsql as $$ begin for i in 1..n loop insert into t values (i); end loop; end $$;
         call fill(3); insert into u values (1);
         create rule copied as on insert to u do also insert into log values ('rule'); insert into u values (2);
         create view v as select * from t; create function into_t() returns trigger language plpgsql as
           $$ begin insert into t values (new.id); return new; end $$;
         create trigger instead instead of insert on v for each row execute function into_t(); insert into v values (9);",
    ),
    (
        "chains of functions of every kind",
        "create table base(id int primary key, up int); insert into base values (1, null), (2, 1);
         create function f1(i int) returns setof base language sql stable as 'select * from base where id = i';
         create function f2(i int) returns table(id int, up int) language plpgsql stable as $$ begin return query select * from f1(i); end $$;
         create function f3(variadic i int[]) returns boolean language sql stable as 'select exists(select from unnest(i) u, f2(u))';
         create function f4(i int, out o boolean) language plpgsql stable as $$ begin execute 'select f3($1)' into o using i; end $$;
         create function f5(a int, b int default 1) returns boolean language sql stable as 'select f4(a) and f4(b)';
         create function poly(a anyelement) returns boolean language sql stable as 'select f5(a::text::int)';
         create table a_leaf(i int check (f5(i)) check (poly(i)), s text check (poly(s))); insert into a_leaf values (2, '1');
         create function depth(i int) returns int language sql stable as
           'with recursive r as (select id, up, 1 d from base where id = i union all select b.id, b.up, d + 1 from base b join r on b.id = r.up)
            select max(d) from r';
         create table a_depth(i int, check (depth(i) > 0)); insert into a_depth values (2);
         create view leaves as select * from a_leaf where f5(i); create materialized view m as select i, depth(i) from leaves;
         create unique index on m (i); create materialized view n as select * from m where f5(i);",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_family_comes_back_as_it_was() {
    let kit = Kit::new();
    kit.provisioned(&set(&BASE)).await;
    let faults = FAMILIES.iter().map(|(name, sql)| fault(&kit, name, sql));
    let faults: Vec<String> = futures_util::future::join_all(faults).await.into_iter().flatten().collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Rows that break a check by now, of a check that stands in a circle with its function.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_break_a_check_in_a_circle_by_now_come_back() {
    const CIRCLES: &str = "create table codes(code text); insert into codes values ('a'), ('b');
        create domain code as text; create function is_code(c code) returns boolean language sql stable as
          'select exists(select from codes where code = c::text)';
        create table coded(c code); insert into coded values ('a'), ('b');
        alter domain code add constraint is_code check (is_code(value));
        comment on constraint is_code on domain code is 'one of codes';
        create table tree(id int, parent int); create function rooted(t tree) returns boolean language sql stable as
          'select $1.parent is null or exists(select from tree where id = $1.parent)';
        alter table tree add constraint rooted check (rooted(tree)); comment on constraint rooted on tree is 'x';
        insert into tree values (1, null); insert into tree values (2, 1); delete from codes where code = 'b'; delete from tree where id = 1;";
    let kit = Kit::new();
    let tenant = kit.provisioned(&base_and(&[("3_circles.sql", CIRCLES)])).await;
    let taken = kit.engine.take_snapshot(&tenant.at, &tenant.expected()).await.unwrap();
    let to = kit.placed(Identity { tenant: TenantId::generate(), ..tenant.identity.clone() });
    let restored =
        kit.engine.restore_database(&to.at, taken.image, tenant.identity.tenant, &to.identity).await.unwrap();
    let copy = kit.engine.compute_fingerprint(&to.at, &to.expected()).await.unwrap();
    assert_eq!(taken.info.rows.unwrap().first_difference(&copy.row_sums()), None);
    assert_eq!(class_difference(&taken.info.classes, &restored.classes), None);
    let told = restored.left_out.concat();
    assert!(told.contains("is_code of domain public.code") && told.contains("rooted of table public.tree"), "{told}");
    // They go on to hold for new rows. The function takes a value of the domain, so it calls its own check.
    for (broken, state) in [("coded values ('b')", "statement_too_complex"), ("tree values (4, 9)", "check_violation")]
    {
        let sql =
            format!("do $$ begin insert into {broken}; raise 'accepted'; exception when {state} then null; end $$");
        kit.ask(&to, &sql);
    }
}
