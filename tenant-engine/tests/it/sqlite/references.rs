//! Foreign keys while a migration runs: each file leaves the rows that sqlx's own migrator leaves, keeps the children
//! of a table that is made anew, or is refused with the reason.

use tenant_engine::*;

use super::kit::{Kit, Tenant};
use super::sqlx_compat::Directory;

const SCHEMA: &str = "
    create table shop(id integer primary key, name text);
    create table shelf(id integer primary key, shop integer references shop(id) on delete cascade);
    create table item(id integer primary key, shelf integer references shelf on delete cascade);
    create table tag(id integer primary key, shop integer references shop(id) on delete set null);
    create table box(id integer primary key, shop integer default 2 references shop(id) on delete set default);
    create table slot(shop integer references shop(id) on delete cascade, place text, primary key(shop, place))
        without rowid;
    create table bill(id integer primary key, shop integer references shop(id));
    create table scratch(a);
    create table log(text);
    create trigger shelf_gone after delete on shelf begin insert into log values('shelf ' || old.id); end;
    insert into shop values(1, 'one'), (2, 'two');
    insert into shelf values(1, 1), (2, 2);
    insert into item values(1, 1), (2, 2);
    insert into tag values(1, 1), (2, 2);
    insert into box values(1, 1), (2, 2);
    insert into slot values(1, 'a'), (2, 'b');";

/// Makes `shop` anew with some of its rows.
const REBUILD: &str = "create table n(id integer primary key, name text, open int);
    insert into n(id, name) select id, name from shop WHERE; drop table shop; alter table n rename to shop;";

enum Wanted {
    /// The rows that sqlx leaves.
    AsSqlx,
    /// The rows that this file leaves when sqlx runs it.
    AsAfter(&'static str),
    /// Nothing; the message says this.
    Refused(&'static str),
}
use Wanted::{AsAfter, AsSqlx, Refused};

#[tokio::test]
async fn each_file_leaves_what_its_keys_declare() {
    let rebuild = |rows: &str| REBUILD.replace("WHERE", rows);
    let with = |sql: &str| format!("{sql}; {}", rebuild(""));
    let mut failed = Vec::new();
    let bills = "insert into bill values(1, 1);";
    for (file, wanted) in [
        // A DROP or RENAME somewhere changes nothing for the other statements.
        ("insert or replace into shop values(1, 'new'); drop table scratch;".to_owned(), AsSqlx),
        ("drop table scratch; insert or replace into shop values(1, 'new');".to_owned(), AsSqlx),
        ("delete from shop where id = 1; drop table scratch;".to_owned(), AsSqlx),
        ("delete from shop where id = 1; alter table scratch rename to other;".to_owned(), AsSqlx),
        ("alter table shop rename to store; delete from store where id = 1;".to_owned(), AsSqlx),
        ("alter table shelf rename to rack; delete from shop where id = 1;".to_owned(), AsSqlx),
        ("pragma foreign_keys = off; delete from shop where id = 1; drop table scratch;".to_owned(), AsSqlx),
        // A table that goes for good takes what its keys declare.
        ("drop table if exists shop;".to_owned(), Refused("'box' refer to rows missing from 'shop'")),
        ("drop table box; drop table shop;".to_owned(), AsSqlx),
        ("drop table box; drop table shop; drop table tag;".to_owned(), AsSqlx),
        ("drop table box; drop table shop; insert into log select count(*) from shelf;".to_owned(), AsSqlx),
        (format!("{bills} drop table box; drop table shop;"), Refused("1 rows of 'bill'")),
        (format!("{bills} drop table box; drop table shop; drop table bill;"), AsAfter("drop table bill; drop table box; drop table shop")),
        // One that comes again without rows, or without some of them.
        ("drop table shop; create table shop(id integer primary key, name text); insert into shop values(2, 'two');".to_owned(),
            AsAfter("delete from shop where id = 1")),
        ("drop table box; drop table shop; create table shop(id integer primary key, name text);".to_owned(), AsSqlx),
        (rebuild("where id = 2"), AsAfter("delete from shop where id = 1; alter table shop add column open int")),
        (format!("{bills} {}", rebuild("where id = 2")), Refused("ON DELETE NO ACTION")),
        (format!("{bills} {}", rebuild("where id = 1")), Refused("FOREIGN KEY constraint failed")),
        // A rebuild loses nothing, and is no reason to look away from other statements.
        (rebuild(""), AsAfter("alter table shop add column open int")),
        (format!("{bills} {}", rebuild("")), AsAfter("insert into bill values(1, 1); alter table shop add column open int")),
        (with("delete from shop where id = 1"), AsAfter("delete from shop where id = 1; alter table shop add column open int")),
        (with("insert or replace into shop values(1, 'new')"),
            AsAfter("insert or replace into shop values(1, 'new'); alter table shop add column open int")),
        (format!("{} delete from shop where id = 1;", rebuild("")),
            AsAfter("alter table shop add column open int; delete from shop where id = 1")),
        (with("insert into shelf values(3, 9)"), Refused("FOREIGN KEY constraint failed")),
        (with("pragma defer_foreign_keys = on; insert into shelf values(3, 9)"), Refused("FOREIGN KEY")),
        ("create table n(id integer primary key, shop integer references shop(id) on delete cascade, more int);
          insert into n(id, shop) select * from shelf; drop table shelf; alter table n rename to shelf;
          create trigger shelf_gone after delete on shelf begin insert into log values('shelf ' || old.id); end;".to_owned(),
            AsAfter("alter table shelf add column more int")),
        // A file that brings the children back itself, and one that only adds some.
        (format!("drop table box; drop table slot; drop table tag; create table kept as select * from shelf;
                  create table parts as select * from item; {} insert into shelf select * from kept;
                  insert into item select * from parts; drop table kept; drop table parts;", rebuild("")), AsSqlx),
        (format!("{} insert into shelf values(3, 2);", rebuild("")),
            AsAfter("alter table shop add column open int; insert into shelf values(3, 2)")),
        // BEGIN and COMMIT of the file end nothing; the pragma counts outside of them.
        (format!("commit; pragma foreign_keys = off; begin; {} commit; pragma foreign_keys = on; begin;", rebuild("where id = 2")), AsSqlx),
        ("commit; pragma foreign_keys = off; begin; delete from shop where id = 1; commit; pragma foreign_keys = on; begin;".to_owned(), AsSqlx),
        ("commit; pragma foreign_keys = off; pragma foreign_keys = on; begin; delete from shop where id = 1;".to_owned(), AsSqlx),
        ("commit; begin; pragma foreign_keys = off; delete from shop where id = 1;".to_owned(), AsSqlx),
        ("begin; pragma foreign_keys = off; delete from shop where id = 1; commit;".to_owned(), AsAfter("delete from shop where id = 1")),
        ("pragma foreign_keys = off; begin transaction; delete from shop where id = 1; end; pragma foreign_keys = on;".to_owned(),
            AsAfter("commit; pragma foreign_keys = off; begin; delete from shop where id = 1; commit; pragma foreign_keys = on; begin;")),
        ("savepoint a; delete from shop where id = 1; rollback to a; release a; savepoint b; delete from tag;".to_owned(), AsAfter("delete from tag")),
        (format!("savepoint a; {} rollback to a; delete from tag; release a;", rebuild("where id = 2")), AsAfter("delete from tag")),
        // References follow a rename, so the rows would refer to a table that is gone.
        ("alter table shop rename to old; create table shop(id integer primary key, name text);
          insert into shop select * from old; drop table old;".to_owned(), Refused("follows a table that is renamed")),
        ("pragma legacy_alter_table=on; alter table shop rename to old; create table shop(id integer primary key, name text);
          insert into shop select * from old; drop table old; pragma legacy_alter_table=off;".to_owned(),
            AsAfter("select 1")),
        ("pragma legacy_alter_table=on; alter table shop rename to store; pragma legacy_alter_table=off;".to_owned(), AsSqlx),
        ("create table n(id integer, name text); insert into n select * from shop; drop table shop;
          alter table n rename to shop;".to_owned(), Refused("not a unique key")),
    ] {
        failed.extend(check(SCHEMA, &file, wanted).await.err());
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

async fn check(schema: &str, file: &str, wanted: Wanted) -> Result<(), String> {
    let kit = Kit::new();
    let before = [("0001_base.sql", schema)];
    let tenant = kit.provisioned(&Directory::with(&before).set()).await;
    let all = Directory::with(&[before[0], ("0002_file.sql", file)]);
    let untouched = rows(&tenant);
    let outcome = kit.migrate(&tenant, &all.set()).await;
    if let Refused(why) = wanted {
        return match outcome {
            Err(error) if error.message().contains(why) && rows(&tenant) == untouched => Ok(()),
            other => Err(format!("{file}: not refused with {why}: {other:?}")),
        };
    }
    outcome.map_err(|error| format!("{file}: {error}"))?;
    let theirs = kit.provisioned(&Directory::with(&before).set()).await;
    let text = if let AsAfter(text) = wanted { text } else { file };
    let theirs_run = Directory::with(&[before[0], ("0002_file.sql", text)]).run_sqlx(&theirs).await;
    theirs_run.map_err(|error| format!("sqlx, {text}: {error}"))?;
    match (rows(&tenant), rows(&theirs)) {
        (ours, theirs) if ours != theirs => Err(format!("{file}: {ours:#?}\nsqlx: {theirs:#?}")),
        _ if violations(&tenant) != violations(&theirs) => Err(format!("{file}: other violations than after sqlx")),
        _ => Ok(()),
    }
}

/// Every row of every table but the ledger's, with the table's name.
fn rows(tenant: &Tenant) -> Vec<String> {
    let db = tenant.open();
    let names = "select name from sqlite_schema where type = 'table' and name not like '\\_%' escape '\\' order by 1";
    let mut statement = db.prepare(names).unwrap();
    let names: Vec<String> = statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    let mut found = Vec::new();
    for name in names {
        let mut statement = db
            .prepare(&format!("select * from \"{name}\" order by 1, 2"))
            .or_else(|_| db.prepare(&format!("select * from \"{name}\" order by 1")))
            .unwrap();
        let width = statement.column_count();
        let row = |row: &rusqlite::Row<'_>| {
            let values = (0..width).map(|at| format!("{:?}", row.get_ref(at).unwrap()));
            Ok(format!("{name}: {}", values.collect::<Vec<_>>().join(", ")))
        };
        found.extend(statement.query_map([], row).unwrap().map(Result::unwrap));
        found.push(format!("{name} has {width} columns"));
    }
    found
}

fn violations(tenant: &Tenant) -> i64 {
    tenant.number("select count(*) from pragma_foreign_key_check")
}

#[tokio::test]
async fn rows_that_had_no_parent_before_stay() {
    let old = format!(
        "{SCHEMA} pragma foreign_keys = off; insert into shelf values(70, 7), (71, 7); insert into tag values(70, 7);
         insert into slot values(7, 'x');"
    );
    let outside = format!("commit; pragma foreign_keys = off; begin; {} commit; pragma foreign_keys = on; begin;", old);
    for (rows, wanted) in [
        ("", "alter table shop add column open int"),
        ("where id = 2", "delete from shop where id = 1; alter table shop add column open int"),
    ] {
        check(&outside, &REBUILD.replace("WHERE", rows), AsAfter(wanted)).await.unwrap();
    }
}

/// Children, and children of children, that DROP TABLE deletes under ON DELETE CASCADE: as many rows as before prove
/// nothing, and a row that is there twice is no better.
#[tokio::test]
async fn what_a_rebuild_deletes_comes_back_or_the_file_is_refused() {
    const SHOPS: &str =
        "create table shop(id integer primary key, name text); insert into shop values(1, 'one'), (2, 'two');
        create table bill(id integer primary key, shop integer references shop(id));";
    const SEED: &str = "insert into setting(shop, key, value) select id, 'currency', 'EUR' from shop where id = 1;";
    const SEEDED: &str = "alter table shop add column open int;
        insert into setting(shop, key, value) select id, 'currency', 'EUR' from shop where id = 1;";
    let rebuild = |rows: &str| REBUILD.replace("WHERE", rows);
    let setting = |key: &str| {
        format!("{SHOPS} create table setting({key}shop integer references shop(id) on delete cascade, key text, value text{});
            insert into setting(shop, key, value) values(1, 'lang', 'de');", if key.is_empty() { "" } else { ", unique(shop, key)" })
    };
    let orders = format!(
        "{SHOPS} create table ord(id integer primary key, shop integer references shop(id) on delete cascade);
        create table item(id integer primary key, ord integer references ord(id) on delete cascade);
        insert into ord values(1, 1); insert into item values(1, 1);"
    );
    let loose = format!(
        "{SHOPS} create table item(shop integer references shop(id) on delete cascade, good int);
        insert into item values(1, 1), (1, 0);"
    );
    let tree =
        "create table t(id integer primary key, p integer references t(id)); insert into t values(1, null), (2, 1);";
    let remake_tree = "create table n(id integer primary key, p integer references t(id)); insert into n select * from t where id <> 1;
        drop table t; alter table n rename to t;";
    let two = format!(
        "{SHOPS} create table cust(id integer primary key);
        create table account(id integer primary key, cust integer references cust(id));
        create table shelf(id integer primary key, shop integer references shop(id) on delete cascade);
        insert into shelf values(1, 1), (2, 2);"
    );
    let kids = format!(
        "commit; pragma foreign_keys = off; begin; {SHOPS}
        create table kid(id integer primary key, shop text references shop(id) on delete cascade);
        insert into kid values(1, '1'), (9, '99'); commit; pragma foreign_keys = on; begin;"
    );
    let remake_kids = format!(
        "pragma defer_foreign_keys = on; {}
        create table k(id integer primary key, shop integer references shop(id) on delete cascade);
        insert into k select id, cast(shop as integer) from kid; drop table kid; alter table k rename to kid;",
        rebuild("")
    );
    let mut failed = Vec::new();
    for (schema, file, wanted) in [
        (setting(""), format!("{} {SEED}", rebuild("")), Refused("has no unique key")),
        (setting("id integer primary key, "), format!("{} {SEED}", rebuild("")), AsAfter(SEEDED)),
        (orders, format!("create table kept as select * from ord; {} insert into ord select * from kept; drop table kept;",
            rebuild("")), Refused("UNIQUE constraint failed")),
        (loose.clone(), format!("create table kept as select * from item where good; {} insert into item select * from kept; drop table kept;",
            rebuild("")), Refused("has no unique key")),
        (loose, format!("create table kept as select * from item; {} with b as (select * from kept) insert into item select * from b;
            drop table kept;", rebuild("")), AsAfter("alter table shop add column open int")),
        (tree.to_owned(), remake_tree.to_owned(), Refused("ON DELETE NO ACTION")),
        (SHOPS.to_owned(), format!("insert into bill values(1, 2); {} alter table shop rename to store;", rebuild("where id = 1")),
            Refused("ON DELETE NO ACTION")),
        (two, format!("pragma defer_foreign_keys = on; insert into account values(1, 99); {}", rebuild("where id = 1")),
            Refused("1 rows refer to rows that are missing")),
        (kids, remake_kids, Refused("before the file ran")),
    ] {
        failed.extend(check(&schema, &file, wanted).await.err());
    }
    assert!(failed.is_empty(), "{failed:#?}");
}
