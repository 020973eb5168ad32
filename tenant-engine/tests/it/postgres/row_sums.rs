//! The sums of rows that a snapshot takes with it: they are those of its dump, whatever others do meanwhile, and a copy
//! with other rows differs from them.

use std::sync::atomic::{AtomicBool, Ordering};

use tenant_engine::*;

use super::kit::{Kit, Tenant, base_and};

async fn taken(kit: &Kit, tenant: &Tenant) -> Snapshot {
    kit.engine.take_snapshot(&tenant.at, &tenant.expected()).await.unwrap()
}

/// The restored copy of a snapshot.
async fn copy(kit: &Kit, tenant: &Tenant, image: SnapshotImage) -> Tenant {
    let to = kit.placed(Identity { tenant: TenantId::generate(), ..tenant.identity.clone() });
    kit.engine.restore_database(&to.at, image, tenant.identity.tenant, &to.identity).await.unwrap();
    to
}

async fn difference(kit: &Kit, sums: &RowSums, copy: &Tenant) -> Option<String> {
    sums.first_difference(&kit.engine.compute_fingerprint(&copy.at, &copy.expected()).await.unwrap().row_sums())
}

const TABLES: &str = "create table t(id int primary key, v text); insert into t values (1, 'a'), (2, null);
    create schema \"a.b\"; create table \"a.b\".c(i int); insert into \"a.b\".c values (1);
    create schema a; create table a.\"b.c\"(i int); insert into a.\"b.c\" values (2);
    create unlogged table fast(i int); insert into fast values (1); create table empty(i int);
    create table parted(i int, v text) partition by list (i); create table p1 partition of parted for values in (1);
    create table p2 partition of parted for values in (2) partition by list (v); create table p3 partition of p2 default;
    insert into parted values (1, 'x'), (2, 'y'), (2, 'z'); create sequence numbers start 7;
    create materialized view m as select count(*) from t;";

#[tokio::test(flavor = "multi_thread")]
async fn one_changed_row_of_any_table_differs_by_the_tables_name() {
    let kit = Kit::new();
    let tenant = kit.provisioned(&base_and(&[("3_tables.sql", TABLES)])).await;
    let Snapshot { info, image } = taken(&kit, &tenant).await;
    let sums = info.rows.unwrap();
    assert_eq!(sums.tables["public.parted"].rows, 3, "partitions count as rows of their root: {sums:?}");
    assert!(!sums.tables.contains_key("public.m"), "a restore fills it anew");
    let to = copy(&kit, &tenant, image).await;
    assert_eq!(difference(&kit, &sums, &to).await, None);
    for (change, back, told) in [
        ("update t set v = 'b' where id = 1", "update t set v = 'a' where id = 1", "rows of public.t differ"),
        ("delete from t where id = 2", "insert into t values (2)", "public.t has 2 rows here and 1 there"),
        (
            "update \"a.b\".c set i = 2; update a.\"b.c\" set i = 1",
            "update \"a.b\".c set i = 1; update a.\"b.c\" set i = 2",
            "rows of \"a.b\".c differ",
        ),
        ("insert into empty values (null)", "truncate empty", "public.empty has 0 rows here and 1 there"),
        ("update fast set i = 2", "update fast set i = 1", "rows of public.fast differ"),
        ("update p3 set v = 'w' where v = 'z'", "update p3 set v = 'z' where v = 'w'", "rows of public.parted differ"),
        ("select nextval('numbers')", "select setval('numbers', 7, false)", "rows of public.numbers differ"),
        (
            "alter table t rename to other",
            "alter table other rename to t",
            "public.other is only in the other database",
        ),
    ] {
        kit.ask(&to, change);
        assert_eq!(difference(&kit, &sums, &to).await.as_deref(), Some(told), "{change}");
        kit.ask(&to, back);
        assert_eq!(difference(&kit, &sums, &to).await, None, "{back}");
    }
}

/// Rows and sequences go on while each dump is taken.
#[tokio::test(flavor = "multi_thread")]
async fn the_sums_are_those_of_the_dump_among_writers() {
    let kit = Kit::new();
    let sql = "create table busy(id serial primary key, v text default md5(random()::text)); create table two(id int);
        insert into busy(v) select 'x' from generate_series(1, 20000)";
    let tenant = kit.provisioned(&base_and(&[("3_busy.sql", sql)])).await;
    let done = AtomicBool::new(false);
    let writes = "insert into busy default values; update busy set v = v || 'y' where id % 1000 = 1;
        insert into two select max(id) from busy; delete from two where id % 3 = 0";
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                kit.ask(&tenant, writes);
            }
        });
        let compare = async {
            for _ in 0..3 {
                let Snapshot { info, image } = taken(&kit, &tenant).await;
                let to = copy(&kit, &tenant, image).await;
                let difference = difference(&kit, &info.rows.unwrap(), &to).await;
                done.store(difference.is_some(), Ordering::Relaxed);
                assert_eq!(difference, None);
            }
            done.store(true, Ordering::Relaxed);
        };
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(compare));
    });
}

/// A restore computes these anew. Other values must not make a backup worthless: they are told.
#[tokio::test(flavor = "multi_thread")]
async fn generated_columns_do_not_count_for_a_restore_and_do_for_a_move() {
    let kit = Kit::new();
    let sql = "create table k(v int); insert into k values (1);
        create function f(int) returns int immutable language sql as 'select v from k';
        create table g(a int, b int generated always as (f(a)) stored); insert into g(a) values (1); update k set v = 2;";
    let tenant = kit.provisioned(&base_and(&[("3_generated.sql", sql)])).await;
    let Snapshot { info, image } = taken(&kit, &tenant).await;
    let to = copy(&kit, &tenant, image).await;
    assert_ne!(kit.ask(&to, "select b from g"), kit.ask(&tenant, "select b from g"), "or the test proves nothing");
    let print = async |of: &Tenant| kit.engine.compute_fingerprint(&of.at, &of.expected()).await.unwrap();
    let (rows, copied) = (info.rows.unwrap(), print(&to).await.row_sums());
    assert_eq!(rows.first_difference(&copied), None);
    assert_eq!(rows.generated_difference(&copied).as_deref(), Some("rows of public.g differ"));
    let moved = print(&tenant).await.first_difference(&print(&to).await);
    assert!(moved.unwrap().starts_with("rows of public.g differ"));
}

/// A table that the login of migrations may not read makes no backup impossible.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_cannot_be_read_are_told_and_not_compared() {
    let kit = Kit::new();
    let tenant = kit.provisioned(&base_and(&[("3_secret.sql", "create table secret(v text)")])).await;
    kit.ask(&tenant, "insert into secret values ('confidential'); revoke all on secret from fleet_owner");
    let info = taken(&kit, &tenant).await.info;
    assert_eq!(info.rows, None);
    let told = info.left_out.concat();
    assert!(told.contains("sums of its rows") && told.contains("42501") && !told.contains("confidential"), "{told}");
}
