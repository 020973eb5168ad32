//! Databases from outside: what is kept of them, and what is refused with its reason.

use tenant_engine::*;

use super::kit::{Kit, Tenant};

/// A database of nobody's on the kit's server, made with these options, and its connection string.
fn outside(kit: &Kit, name: &str, options: &str, sql: &str) -> String {
    kit.cluster.psql("postgres", &format!("create database {name} template template0 owner fleet {options}"));
    kit.cluster.psql(name, &format!("set role fleet; {sql}"));
    kit.cluster.dsn(name)
}

async fn adopt(kit: &Kit, dsn: String) -> Result<Tenant> {
    let to = kit.tenant();
    kit.engine.adopt_database(&to.at, &dsn.into(), &to.identity, &LedgerName::default()).await.map(|_| to)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_whose_rows_would_differ_is_refused() {
    let kit = Kit::new();
    let make = "create table k(v int); insert into k values (1);
        create function f(int) returns int immutable language sql as 'select v from public.k';
        create table g(a int, b int generated always as (f(a)) stored); insert into g(a) values (1);";
    let equal = outside(&kit, "equal", "", "create table g(a int, b int); insert into g values (1, 1)");
    let same = adopt(&kit, equal).await.unwrap();
    assert_eq!(kit.ask(&same, "select b from g"), "1");
    let differs = outside(&kit, "differs", "", &format!("{make} update k set v = 2;"));
    let error = adopt(&kit, differs).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotAdoptable, "{error}");
    assert!(error.message().contains("rows of public.g differ"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_copy_could_not_have_is_refused_with_its_reason() {
    const LEDGER: &str = "_sqlx_migrations(version bigint, description text, installed_on timestamptz, success boolean, \
                          checksum bytea, execution_time bigint)";
    let kit = Kit::new();
    let cases = [
        ("ascii", "encoding 'SQL_ASCII' locale 'C'", String::new(), "encoding of the database is SQL_ASCII"),
        ("latin", "encoding 'LATIN1' locale 'C'", String::new(), "encoding of the database is LATIN1"),
        ("path", "", "alter database path set search_path = app, public".to_owned(), "sets search_path"),
        ("zone", "", "alter database zone set timezone = 'America/New_York'".to_owned(), "sets TimeZone"),
        ("custom", "", "reset role; alter database custom set app.tenant = 'x'".to_owned(), "sets app.tenant"),
        (
            "elsewhere",
            "",
            format!("create schema app; create table app.{LEDGER}"),
            "its ledger is app._sqlx_migrations",
        ),
        (
            "dirty",
            "",
            format!("create table {LEDGER}; insert into _sqlx_migrations values (7, 'x', now(), false, '', 1)"),
            "version 7 of its ledger",
        ),
        ("odd", "", "create table _sqlx_migrations(id int)".to_owned(), "does not hold what sqlx writes"),
        ("large", "", "select lo_from_bytea(0, 'x')".to_owned(), "1 large objects"),
        (
            "forced",
            "",
            "create table t(); alter table t enable row level security, force row level security".to_owned(),
            "forces row level",
        ),
        (
            "event",
            "",
            "reset role; create function e() returns event_trigger language plpgsql as 'begin end'; \
             create event trigger ev on ddl_command_end execute function e()"
                .to_owned(),
            "event trigger ev",
        ),
        ("every", "", "reset role; create publication pub for all tables".to_owned(), "publication pub"),
        ("schemas", "", "reset role; create publication pub for tables in schema public".to_owned(), "publication pub"),
        (
            "fdw",
            "",
            "reset role; create extension postgres_fdw; create server other foreign data wrapper postgres_fdw"
                .to_owned(),
            "foreign server other",
        ),
    ];
    for (name, options, sql, reason) in cases {
        let error = adopt(&kit, outside(&kit, name, options, &sql)).await.unwrap_err();
        let kinds = [ErrorKind::NotAdoptable, ErrorKind::NotRestorable, ErrorKind::NotDumpable];
        assert!(kinds.contains(&error.kind()), "{name}: {error}");
        assert!(error.message().contains(reason), "{name}: {error}");
    }
    let left = "select count(*) from pg_database where datname like 't\\_%'";
    assert_eq!(kit.cluster.psql("postgres", left), "0", "nothing half-made is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn locale_publications_and_every_object_are_kept() {
    let kit = Kit::new();
    let sql = "create table words(word text primary key, note text);
        insert into words values ('z', '1'), ('\u{e4}', '2'), ('a', '3'), ('B', '4');
        create function noted(t text) returns boolean language sql stable as 'select exists(select from words where note = t)';
        create table told(t text check (noted(t))); insert into told values ('2');
        create publication pub for table words (word);
        comment on table words is 'kept'; create table _sqlx_migrations(version bigint primary key, description text not null,
          installed_on timestamptz not null default now(), success boolean not null, checksum bytea not null,
          execution_time bigint not null);
        insert into _sqlx_migrations values (1, 'x', now(), true, '\\x00', 1)";
    let dsn = outside(&kit, "icu", "locale_provider icu icu_locale 'de-AT' locale 'C'", sql);
    let to = adopt(&kit, dsn).await.unwrap();
    let order = "select string_agg(word, '' order by word) from words";
    let of_locale = "select datlocprovider::text || daticulocale || datcollate || datctype from pg_database where datname = current_database()";
    for question in [order, of_locale, "select pubname from pg_publication", "select t from told"] {
        assert_eq!(kit.ask(&to, question), kit.cluster.psql("icu", question), "{question}");
    }
    assert_eq!(kit.ask(&to, order), "a\u{e4}Bz");
    // And so is a clone of it, which is made from a dump of ours.
    let taken = kit.engine.take_snapshot(&to.at, &to.expected()).await.unwrap();
    let second = kit.placed(Identity { tenant: TenantId::generate(), ..to.identity.clone() });
    kit.engine.restore_database(&second.at, taken.image, to.identity.tenant, &second.identity).await.unwrap();
    assert_eq!(kit.ask(&second, order), "a\u{e4}Bz");
    let print = async |of: &Tenant| kit.engine.compute_fingerprint(&of.at, &of.expected()).await.unwrap();
    assert_eq!(print(&to).await.first_difference(&print(&second).await), None);
}
