//! Transactions through a tenant: what is committed stays, everything else is gone.

use tenant_engine::{SqlStatement, SqlValue};
use tenant_router::{Error, ErrorKind, Read, Role, Write};

use crate::world::{World, canary, note, open};

const INSERT: &str = "insert into notes (id, body) values (?1, ?2)";

fn insert(id: i64, body: &str) -> SqlStatement {
    SqlStatement { sql: INSERT.to_owned(), params: vec![id.into(), body.into()] }
}

#[tokio::test]
async fn a_write_transaction_is_seen_after_its_commit_only() {
    let world = World::new().await;
    let id = world.tenant("acme").await;
    let router = world.router().await;
    let tenant = open::<Write>(&router, "acme", &world.token_for(id, Role::Writer).await).await.unwrap();
    let mut tx = tenant.write();
    tx.execute(INSERT, (4_i64, "four")).await.unwrap();
    assert_eq!(tx.query("select count(*) from notes", ()).await.unwrap().rows[0][0], SqlValue::Integer(4));
    assert_eq!(tenant.query("select count(*) from notes", ()).await.unwrap().rows[0][0], SqlValue::Integer(3));
    tx.commit().await.unwrap();
    assert_eq!(note(&tenant, 4).await.unwrap(), "four");
}

#[tokio::test]
async fn dropped_and_rolled_back_transactions_leave_nothing() {
    let world = World::new().await;
    let id = world.tenant("acme").await;
    let router = world.router().await;
    let tenant = open::<Write>(&router, "acme", &world.token_for(id, Role::Writer).await).await.unwrap();
    let mut dropped = tenant.write();
    dropped.execute("delete from notes", ()).await.unwrap();
    drop(dropped);
    // The next writer gets its turn although nobody waited for the rollback.
    let mut rolled_back = tenant.write();
    rolled_back.execute("delete from notes where id = 1", ()).await.unwrap();
    rolled_back.rollback().await.unwrap();
    assert_eq!(note(&tenant, 1).await.unwrap(), canary("acme", 1));
    // One that never began is nothing to commit.
    tenant.write().commit().await.unwrap();
}

#[tokio::test]
async fn a_read_transaction_keeps_seeing_one_state() {
    let world = World::new().await;
    let id = world.tenant("acme").await;
    let router = world.router().await;
    let tenant = open::<Write>(&router, "acme", &world.token_for(id, Role::Writer).await).await.unwrap();
    let mut tx = tenant.read();
    let count = "select count(*) from notes";
    assert_eq!(tx.query(count, ()).await.unwrap().rows[0][0], SqlValue::Integer(3));
    tenant.execute("delete from notes where id = 3", ()).await.unwrap();
    assert_eq!(tx.query(count, ()).await.unwrap().rows[0][0], SqlValue::Integer(3));
    assert_eq!(tenant.query(count, ()).await.unwrap().rows[0][0], SqlValue::Integer(2));
}

#[tokio::test]
async fn a_batch_is_all_or_nothing() {
    let world = World::new().await;
    let id = world.tenant("acme").await;
    let router = world.router().await;
    let tenant = open::<Write>(&router, "acme", &world.token_for(id, Role::Writer).await).await.unwrap();
    let refused = tenant.batch(vec![insert(4, "four"), insert(1, "taken")]).await.unwrap_err();
    assert_eq!((refused.code(), refused.status()), ("constraint_violation", 409));
    tenant.batch(vec![insert(5, "five"), insert(6, "six")]).await.unwrap();
    let ids = tenant.query("select id from notes order by id", ()).await.unwrap().rows;
    assert_eq!(ids.into_iter().flatten().collect::<Vec<_>>(), [1_i64, 2, 3, 5, 6].map(SqlValue::Integer));
}

#[tokio::test]
async fn a_closure_runs_many_statements_in_one_hop() {
    let world = World::new().await;
    let id = world.tenant("acme").await;
    let router = world.router().await;
    let tenant = open::<Write>(&router, "acme", &world.token_for(id, Role::Writer).await).await.unwrap();
    let body = "select body from notes where id = ?1";
    let first = tenant.read_rusqlite(move |tx| Ok(tx.query_row(body, [1], |row| row.get::<_, String>(0))?)).await;
    assert_eq!(first.unwrap(), canary("acme", 1));
    let undone = tenant.write_rusqlite(|tx| -> Result<(), Error> {
        tx.execute("delete from notes", [])?;
        Err(Error::new(ErrorKind::Forbidden).with_source("changed my mind"))
    });
    assert_eq!(undone.await.unwrap_err().kind(), ErrorKind::Forbidden);
    let none = tenant.read_rusqlite(move |tx| Ok(tx.query_row(body, [9], |row| row.get::<_, String>(0))?)).await;
    assert_eq!(none.unwrap_err().kind(), ErrorKind::RowNotFound);
    let other = tenant.write_sqlx().await.unwrap_err();
    assert_eq!((other.code(), other.status()), ("other_engine", 500));
    assert_eq!(note(&tenant, 1).await.unwrap(), canary("acme", 1));
}

#[tokio::test]
async fn the_callers_own_errors_come_back_in_words_and_others_do_not() {
    let world = World::new().await;
    let id = world.tenant("acme").await;
    let router = world.router().await;
    let tenant = open::<Read>(&router, "acme", &world.token_for(id, Role::Reader).await).await.unwrap();
    let typo = tenant.query("selekt 1", ()).await.unwrap_err();
    assert_eq!((typo.code(), typo.status()), ("sql_invalid", 400));
    assert!(typo.to_string().contains("selekt"), "{typo}");
    let reach = tenant.query("attach database '/etc/passwd' as p", ()).await.unwrap_err();
    assert_eq!((reach.kind(), reach.status()), (ErrorKind::Database(tenant_engine::ErrorKind::SqlForbidden), 403));
}
