//! The throw-away fleet for applications' tests, on both engines, and the native drivers through the router.

use postgres_fixture::Cluster;
use serde::Deserialize;
use tenant_router::test_fleet::TestFleet;
use tenant_router::{ErrorKind, Read, Role, Write, params, sqlx};

use crate::world::open;

const SQLITE_SCHEMA: &str =
    "create table tasks (id integer primary key, title text not null, done integer not null) strict";
const POSTGRES_SCHEMA: &str = "create table tasks (id bigint generated always as identity primary key, title text not null, done boolean not null)";

#[derive(Debug, PartialEq, Deserialize)]
struct Task {
    id: i64,
    title: String,
    done: bool,
}

/// The same application code on either engine.
async fn works(fleet: TestFleet, insert: &str) {
    let token = fleet.token("acme", Role::Writer).await.unwrap();
    let acme = open::<Write>(fleet.router(), "acme", &token).await.unwrap();
    let task: Task = acme.execute_as(insert, params!["buy milk", false]).fetch_one().await.unwrap();
    assert_eq!(task, Task { id: 1, title: "buy milk".to_owned(), done: false });
    assert_eq!(open::<Read>(fleet.router(), "globex", &token).await.unwrap_err().kind(), ErrorKind::NotFound);
    fleet.set_member("globex", "ada@example.com", Role::Reader).await.unwrap();
    let ada = fleet.member_token("ada@example.com").await.unwrap();
    let globex = open::<Read>(fleet.router(), "globex", &ada).await.unwrap();
    let none: Vec<Task> = globex.query_as("select * from tasks", ()).fetch_all().await.unwrap();
    assert_eq!(none, [], "the other tenant's table is its own");
    drop((acme, globex));
    fleet.remove().await.unwrap();
}

#[tokio::test]
async fn a_test_fleet_on_sqlite_serves_an_application() {
    let fleet = TestFleet::start(SQLITE_SCHEMA, ["acme", "globex"]).await.unwrap();
    assert!(fleet.data_dir().join("catalog.db").exists());
    works(fleet, "insert into tasks (title, done) values (?1, ?2) returning *").await;
}

#[tokio::test]
async fn a_test_fleet_on_postgres_serves_an_application_and_leaves_nothing() {
    let cluster = Cluster::start();
    let fleet = TestFleet::start_on_postgres(&cluster.dsn("postgres"), POSTGRES_SCHEMA, ["acme", "globex"]).await;
    works(fleet.unwrap(), "insert into tasks (title, done) values ($1, $2) returning *").await;
    assert_eq!(cluster.psql("postgres", "select count(*) from pg_database where datname like 't\\_%'"), "0");
}

#[tokio::test]
async fn sqlx_works_through_the_router_and_rusqlite_is_refused_there() {
    let cluster = Cluster::start();
    let fleet = TestFleet::start_on_postgres(&cluster.dsn("postgres"), POSTGRES_SCHEMA, ["acme"]).await.unwrap();
    let token = fleet.token("acme", Role::Writer).await.unwrap();
    let acme = open::<Write>(fleet.router(), "acme", &token).await.unwrap();
    let mut tx = acme.write_sqlx().await.unwrap();
    let insert = "insert into tasks (title, done) values ($1, true) returning id";
    let id: i64 = sqlx::query_scalar(insert).bind("buy milk").fetch_one(&mut *tx).await.unwrap();
    let read = acme.read_sqlx().await.unwrap();
    drop(read);
    tx.commit().await.unwrap();
    let mut tx = acme.read_sqlx().await.unwrap();
    let done: bool =
        sqlx::query_scalar("select done from tasks where id = $1").bind(id).fetch_one(&mut *tx).await.unwrap();
    assert!(done);
    let missing = sqlx::query_scalar::<_, bool>("select done from tasks where id = 9").fetch_one(&mut *tx).await;
    assert_eq!(tenant_router::Error::from(missing.unwrap_err()).kind(), ErrorKind::RowNotFound);
    tx.rollback().await.unwrap();
    let other = acme.read_rusqlite(|tx| Ok(tx.changes())).await.unwrap_err();
    assert_eq!(other.code(), "other_engine");
    drop(acme);
    fleet.remove().await.unwrap();
}

#[tokio::test]
async fn a_schema_that_fails_says_so() {
    let error = TestFleet::start("create tabel tasks (id)", ["acme"]).await.map(drop).unwrap_err();
    assert!(error.to_string().contains("tabel"), "{error}");
    let error = TestFleet::start(SQLITE_SCHEMA, ["not a name"]).await.map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TenantNameInvalid);
}
