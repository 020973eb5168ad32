//! The fingerprint that proves a copy: every column counts, whatever it is called, and the order of columns does not.

use tenant_engine::*;

use super::kit::{Kit, Tenant, base_and};

async fn print(kit: &Kit, tenant: &Tenant) -> DatabaseFingerprint {
    kit.engine.compute_fingerprint(&tenant.at, &tenant.expected()).await.unwrap()
}

/// Tables whose columns are called like a table's alias, a table, a keyword or a function.
const NAMES: [&str; 9] = ["t", "fleet_row", "row", "named", "c", "a", "\"a b.\"\"c\"", "oid", "text"];

#[tokio::test(flavor = "multi_thread")]
async fn every_column_counts_whatever_another_is_called() {
    let kit = Kit::new();
    let tables: String = NAMES
        .iter()
        .enumerate()
        .map(|(n, name)| {
            format!(
                "create table named_{n}({name} int, other text); insert into named_{n} values (1, 'one'), (2, 'two');"
            )
        })
        .collect();
    let more = "create table named(named int, other text); insert into named values (1, 'one'), (2, 'two');
        create table nothing(); insert into nothing default values;
        create table odd(j json, p point, x xml, f float8, m money, b bytea, i interval, other text,
          g text generated always as (other || '!') stored);
        insert into odd values ('{\"a\": 1}', '(1,2)', '<a/>', 'nan', '1.5', '\\x00ff', '1 day', 'one'),
          ('{}', '(0,0)', '<b/>', 0.1, '2', '', '2 mons', 'two')";
    let tenant = kit.provisioned(&base_and(&[("3_names.sql", &format!("{tables}{more}"))])).await;
    let mut before = print(&kit, &tenant).await;
    assert_eq!(before.tables["public.nothing"].rows, 1);
    let changed = (0..NAMES.len()).map(|n| format!("named_{n}")).chain(["named".to_owned(), "odd".to_owned()]);
    for table in changed {
        kit.ask(&tenant, &format!("update {table} set other = 'changed' where other = 'two'"));
        let after = print(&kit, &tenant).await;
        assert_eq!(before.first_difference(&after), Some(format!("rows of public.{table} differ")), "{table}");
        before = after;
    }
}

/// Dropped columns, and columns that parents got later than children, stand elsewhere after a restore.
#[tokio::test(flavor = "multi_thread")]
async fn the_order_of_columns_does_not_count() {
    const ORDERS: &str = "
        create table parent(id int, a text);
        create table child(own text) inherits (parent);
        alter table parent add column late int default 7;
        create table second_parent(z int, id int);
        create table grandchild(more text) inherits (child, second_parent);
        alter table second_parent add column later text default 'x';
        insert into parent values (1, 'p', 3); insert into child values (2, 'c', 'own', 4);
        insert into grandchild(id, a, own, z, more) values (3, 'g', 'o', 9, 'm');
        create table dropped(a int, gone text, b int); alter table dropped drop column gone;
        alter table dropped add column c int default 5; insert into dropped values (1, 2, 3);
        create table parted(id int, at date, note text) partition by range (at);
        create table part(note text, gone int, at date not null, id int); alter table part drop column gone;
        alter table parted attach partition part for values from ('2026-01-01') to ('2027-01-01');
        insert into parted values (1, '2026-02-02', 'n');";
    let kit = Kit::new();
    let tenant = kit.provisioned(&base_and(&[("3_orders.sql", ORDERS)])).await;
    let taken = kit.engine.take_snapshot(&tenant.at, &tenant.expected()).await.unwrap();
    let to = kit.placed(Identity { tenant: TenantId::generate(), ..tenant.identity.clone() });
    kit.engine.restore_database(&to.at, taken.image, tenant.identity.tenant, &to.identity).await.unwrap();
    let order = "select string_agg(attrelid::regclass || '.' || attname || attnum, ' ' order by 1)
        from (select * from pg_attribute where attrelid in ('child'::regclass, 'dropped'::regclass) and attnum > 0
        and not attisdropped order by attrelid, attname) a";
    assert_ne!(kit.ask(&tenant, order), kit.ask(&to, order), "nothing moved, or the test proves nothing");
    let (here, there) = (print(&kit, &tenant).await, print(&kit, &to).await);
    assert_eq!(here.first_difference(&there), None);
    kit.ask(&to, "update dropped set b = 3, c = 2");
    assert_eq!(here.first_difference(&print(&kit, &to).await).as_deref(), Some("rows of public.dropped differ"));
}
