//! (feature test-util) Tenant databases for tests and benchmarks of requests, made without the engine's verbs.
//!
//! As the fleet's role and without the care of provisioning: nothing here can be repeated after a crash.

use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection};

use super::error::{from_connect, from_sqlx};
use super::logins::login;
use super::server::PostgresServer;
use crate::error::Result;
use crate::identity::Expected;
use crate::placement::Placement;
use crate::pool::Access;

const IDENTITY: &str = "create table _fleet_identity(one integer primary key default 1 check(one = 1), \
    tenant_id text not null, fleet_id text not null, generation bigint not null, state text not null, op_id text, \
    stamped_at bigint not null)";

/// Makes a database with its two logins and its identity, and runs `sql` in it.
///
/// # Errors
/// The server's.
///
/// # Panics
/// When the placement is of another engine.
pub async fn create(at: &Placement, expected: &Expected, sql: &str) -> Result<()> {
    let (server, database) = at.database().expect("a placement of this engine");
    let mut maintenance = open(server, "postgres").await?;
    make(&mut maintenance, server, database, "template0").await?;
    maintenance.close().await.map_err(from_sqlx)?;
    let mut inside = open(server, database).await?;
    run(&mut inside, IDENTITY).await?;
    run(&mut inside, sql).await?;
    stamp(&mut inside, database, expected).await?;
    inside.close().await.map_err(from_sqlx)
}

/// Copies of one database that [`create`] made, which nobody may be connected to, one after the other.
///
/// # Errors
/// The server's.
///
/// # Panics
/// When a placement is of another engine, or they are on several servers.
pub async fn copy(from: &Placement, to: &[(Placement, Expected)]) -> Result<()> {
    let (server, template) = from.database().expect("a placement of this engine");
    let mut maintenance = open(server, "postgres").await?;
    for (at, expected) in to {
        let (server, database) = at.database().expect("a placement of this engine");
        make(&mut maintenance, server, database, template).await?;
        let mut inside = open(server, database).await?;
        run(&mut inside, "truncate _fleet_identity").await?;
        stamp(&mut inside, database, expected).await?;
        inside.close().await.map_err(from_sqlx)?;
    }
    maintenance.close().await.map_err(from_sqlx)
}

/// The login that ran migrations in all databases of a server before each database had its own.
#[must_use]
pub fn former_migrator(server: &PostgresServer) -> String {
    server.former_migrator()
}

async fn make(maintenance: &mut PgConnection, server: &PostgresServer, database: &str, template: &str) -> Result<()> {
    for access in [Access::Read, Access::Write] {
        let login = login(database, access);
        run(maintenance, &format!("create role {login} login password '{}'", server.verifier(&login))).await?;
    }
    let (reader, writer) = (login(database, Access::Read), login(database, Access::Write));
    run(maintenance, &format!("create database {database} template {template}")).await?;
    run(maintenance, &format!("revoke all on database {database} from public")).await?;
    run(maintenance, &format!("grant connect on database {database} to {reader}, {writer}")).await
}

async fn stamp(inside: &mut PgConnection, database: &str, expected: &Expected) -> Result<()> {
    let (reader, writer) = (login(database, Access::Read), login(database, Access::Write));
    let Expected { tenant, fleet, generation, .. } = expected;
    let values = format!("'{tenant}', '{fleet}', {generation}, 'active', 0");
    let columns = "tenant_id, fleet_id, generation, state, stamped_at";
    run(inside, &format!("insert into _fleet_identity({columns}) values ({values})")).await?;
    run(
        inside,
        &format!(
            "grant select on all tables in schema public to {reader}, {writer};
             grant insert, update, delete on all tables in schema public to {writer};
             grant usage on all sequences in schema public to {writer};
             revoke insert, update, delete on _fleet_identity from {writer}"
        ),
    )
    .await
}

async fn open(server: &PostgresServer, database: &str) -> Result<PgConnection> {
    let options = server.maintenance(database).disable_statement_logging();
    PgConnection::connect_with(&options).await.map_err(from_connect)
}

async fn run(connection: &mut PgConnection, sql: &str) -> Result<()> {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await.map(drop).map_err(from_sqlx)
}
