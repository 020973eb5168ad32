//! What an application pays for the router, beside the same code on the drivers alone:
//!
//! - typed rows: 1,000 rows by `query_as`, against `rusqlite`'s own mapping on a held connection;
//! - a lent `sqlx` transaction of two statements, against the same transaction on a held connection;
//! - a whole request: token, tenant, identity and one row through axum, against the same handler on a held connection.
//!
//! `embedded_application [--tasks 64] [--rounds 5] [--seconds 2]`

#![expect(clippy::print_stdout, reason = "a benchmark prints its numbers")]

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use axum::body::Body;
use axum::extract::{Json, Path, State};
use axum::http::Request;
use axum::routing::get;
use fleet_bench::fleet::arguments;
use fleet_bench::side::Side;
use postgres_fixture::{Cluster, Settings};
use rusqlite::Connection;
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, PgConnection};
use tenant_router::test_fleet::TestFleet;
use tenant_router::{Error, Read, RequestView, Role, Router, Tenant, Write};
use tower::ServiceExt as _;

/// Rows of each tenant's table.
const ROWS: i64 = 1_000;
const ALL: &str = "select id, title, price, done from item order by id";
const ONE: &str = "select id, title, price, done from item where id = ?1";

#[derive(Debug, Serialize, Deserialize)]
struct Item {
    id: i64,
    title: String,
    price: f64,
    done: bool,
}

#[tokio::main]
async fn main() -> Result<()> {
    let setup = arguments(&[("tasks", 64), ("rounds", 5), ("seconds", 2)])?;
    let length = Duration::from_secs(setup["seconds"] as u64);
    let names: Vec<String> = (0..setup["tasks"]).map(|task| format!("tenant-{task}")).collect();
    let fleet = TestFleet::start(schema("integer primary key", "integer"), names.iter().map(String::as_str)).await?;
    typed_rows(&fleet, setup["rounds"], length).await?;
    whole_request(&fleet, &names, setup["rounds"], length).await?;
    lent_transaction(setup["rounds"], length).await
}

fn schema(id: &str, boolean: &str) -> tenant_router::test_fleet::TestSchema {
    let yes = if boolean == "boolean" { "i % 2 = 0" } else { "i % 2" };
    tenant_router::test_fleet::TestSchema::Sql(format!(
        "create table item (id {id}, title text not null, price double precision not null, done {boolean} not null);
         with recursive n(i) as (select 1 union all select i + 1 from n where i < {ROWS})
         insert into item select i, 'item number ' || i, i * 0.5, {yes} from n;"
    ))
}

/// The file of each tenant, opened without the router.
fn held_connections(fleet: &TestFleet) -> Result<Vec<Arc<Mutex<Connection>>>> {
    let mut held = Vec::new();
    for folder in std::fs::read_dir(fleet.data_dir().join("tenants"))?.flatten().filter(|entry| entry.path().is_dir()) {
        let files = std::fs::read_dir(folder.path())?.flatten().map(|entry| entry.path());
        for file in files.filter(|path| path.extension().is_some_and(|end| end == "db")) {
            held.push(Arc::new(Mutex::new(Connection::open(file)?)));
        }
    }
    Ok(held)
}

fn item_of(row: &rusqlite::Row<'_>) -> rusqlite::Result<Item> {
    Ok(Item { id: row.get("id")?, title: row.get("title")?, price: row.get("price")?, done: row.get("done")? })
}

async fn typed_rows(fleet: &TestFleet, rounds: usize, length: Duration) -> Result<()> {
    let token = fleet.token("tenant-0", Role::Reader).await?;
    let request = RequestView { credential: Some(&token), path: "/t/tenant-0/x", ..RequestView::default() };
    let tenant: Arc<Tenant<Read>> = Arc::new(fleet.router().open(&request).await?);
    let held = held_connections(fleet)?.remove(0);
    let mut sides = [Side::new("query_as"), Side::new("rusqlite")];
    for round in 0..=rounds as u64 {
        let length = if round == 0 { Duration::from_millis(300) } else { length };
        let tenant = Arc::clone(&tenant);
        let ours = move |_, _| {
            let tenant = Arc::clone(&tenant);
            async move {
                let items: Vec<Item> = tenant.query_as(ALL, ()).fetch_all().await?;
                ensure!(items.len() == ROWS as usize, "{} rows came back", items.len());
                Ok(())
            }
        };
        sides[0].round(round, 1, length, ours).await?;
        let held = Arc::clone(&held);
        let theirs = move |_, _| {
            let held = Arc::clone(&held);
            async move {
                let connection = held.lock().unwrap_or_else(PoisonError::into_inner);
                let mut statement = connection.prepare_cached(ALL)?;
                let items = statement.query_map([], item_of)?.collect::<rusqlite::Result<Vec<_>>>()?;
                ensure!(items.len() == ROWS as usize, "{} rows came back", items.len());
                Ok(())
            }
        };
        sides[1].round(round, 1, length, theirs).await?;
    }
    let [ours, theirs] = sides.each_mut().map(Side::report);
    println!("{ROWS} typed rows: {:.2} times as long as rusqlite's own mapping  (at most 1.2)", theirs / ours);
    Ok(())
}

async fn ours_handler(tenant: Tenant<Read>, Path((_, id)): Path<(String, i64)>) -> Result<Json<Item>, Error> {
    Ok(Json(tenant.query_as(ONE, [id]).fetch_one().await?))
}

type HeldConnections = Arc<Vec<Arc<Mutex<Connection>>>>;

async fn theirs_handler(State(held): State<HeldConnections>, Path((task, id)): Path<(usize, i64)>) -> Json<Item> {
    let connection = held[task].lock().unwrap_or_else(PoisonError::into_inner);
    let mut statement = connection.prepare_cached(ONE).expect("the table exists");
    Json(statement.query_row([id], item_of).expect("the row exists"))
}

async fn whole_request(fleet: &TestFleet, names: &[String], rounds: usize, length: Duration) -> Result<()> {
    let mut tokens = Vec::new();
    for name in names {
        tokens.push(format!("Bearer {}", fleet.token(name, Role::Reader).await?));
    }
    let (tokens, router): (_, Router) = (Arc::new(tokens), fleet.router().clone());
    let ours = axum::Router::new().route("/t/{tenant}/item/{id}", get(ours_handler)).with_state(router);
    let held: HeldConnections = Arc::new(held_connections(fleet)?);
    let theirs = axum::Router::new().route("/t/{tenant}/item/{id}", get(theirs_handler)).with_state(held);
    let mut sides = [Side::new("routed handler"), Side::new("held connection")];
    for round in 0..=rounds as u64 {
        let length = if round == 0 { Duration::from_millis(300) } else { length };
        for (side, application, prefix) in [(0, &ours, "tenant-"), (1, &theirs, "")] {
            let (application, tokens) = (application.clone(), Arc::clone(&tokens));
            let send = move |task: usize, id: i64| {
                let (application, token) = (application.clone(), tokens[task].clone());
                let path = format!("/t/{prefix}{task}/item/{}", id % ROWS + 1);
                async move {
                    let request = Request::get(path).header("authorization", token).body(Body::empty())?;
                    let answer = application.oneshot(request).await?;
                    ensure!(answer.status() == 200, "{}", answer.status());
                    Ok(())
                }
            };
            sides[side].round(round, names.len() as u64, length, send).await?;
        }
    }
    for side in &mut sides {
        side.report();
    }
    let [ours, theirs] = sides.map(|side| side.cpu_micros());
    println!("a whole request, {} tasks: {:.1} µs of CPU more  (at most 15)", names.len(), ours - theirs);
    Ok(())
}

async fn lent_transaction(rounds: usize, length: Duration) -> Result<()> {
    let cluster = Cluster::with(&Settings::default());
    let fleet =
        TestFleet::start_on_postgres(&cluster.dsn("postgres"), schema("bigint primary key", "boolean"), ["acme"])
            .await?;
    let token = fleet.token("acme", Role::Writer).await?;
    let request = RequestView { credential: Some(&token), path: "/t/acme/x", ..RequestView::default() };
    let tenant: Arc<Tenant<Write>> = Arc::new(fleet.router().open(&request).await?);
    let database = cluster.psql("postgres", "select datname from pg_database where datname like 't\\_%'");
    let options: PgConnectOptions = cluster.dsn(&database).parse()?;
    cluster.psql(&database, "grant select, update on item to fleet");
    let held = Arc::new(tokio::sync::Mutex::new(options.disable_statement_logging().connect().await?));
    let mut sides = [Side::new("lent sqlx"), Side::new("held sqlx")];
    for round in 0..=rounds as u64 {
        let length = if round == 0 { Duration::from_millis(300) } else { length };
        let tenant = Arc::clone(&tenant);
        let ours = move |_, id| {
            let tenant = Arc::clone(&tenant);
            async move {
                let mut tx = tenant.write_sqlx().await?;
                two_statements(&mut tx, id % ROWS + 1).await?;
                Ok(tx.commit().await?)
            }
        };
        sides[0].round(round, 1, length, ours).await?;
        let held = Arc::clone(&held);
        let theirs = move |_, id| {
            let held = Arc::clone(&held);
            async move {
                let mut connection = held.lock().await;
                let mut tx = connection.begin().await?;
                two_statements(&mut tx, id % ROWS + 1).await?;
                Ok(tx.commit().await?)
            }
        };
        sides[1].round(round, 1, length, theirs).await?;
    }
    let [ours, theirs] = sides.each_mut().map(Side::report);
    println!("a transaction of two statements: {:.2} of the rate on a held connection  (at least 0.9)", ours / theirs);
    drop(tenant);
    fleet.remove().await.context("the fleet is removed")
}

async fn two_statements(connection: &mut PgConnection, id: i64) -> Result<()> {
    let price: f64 =
        sqlx::query_scalar("select price from item where id = $1").bind(id).fetch_one(&mut *connection).await?;
    let changed =
        sqlx::query("update item set price = $1 where id = $2").bind(price).bind(id).execute(connection).await?;
    ensure!(changed.rows_affected() == 1, "the row is gone");
    Ok(())
}
