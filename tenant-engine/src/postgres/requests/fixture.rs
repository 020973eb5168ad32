//! (feature test-util) Tenant databases for tests and benchmarks of requests, made without the engine's operations.
//!
//! They are made by the maintenance role, without the care of provisioning: nothing here can be repeated after a crash.

use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection};

use crate::error::Result;
use crate::identity::ExpectedIdentity;
use crate::placement::Placement;
use crate::postgres::error::{from_connect, from_sqlx};
use crate::postgres::servers::logins::login_name;
use crate::postgres::servers::server::PostgresServer;
use crate::statement::AccessMode;

const IDENTITY: &str = "create table _fleet_identity(one integer primary key default 1 check(one = 1), \
    tenant_id text not null, fleet_id text not null, generation bigint not null, state text not null, op_id text, \
    stamped_at bigint not null)";

/// Makes a database with its two logins and its identity, and runs `sql` in it.
///
/// # Errors
/// The errors of the server.
///
/// # Panics
/// When the placement is of another engine.
pub async fn create_fixture(at: &Placement, expected: &ExpectedIdentity, sql: &str) -> Result<()> {
    let (server, database) = at.postgres_database().expect("a placement of this engine");
    let mut maintenance = open_maintenance(server, "postgres").await?;
    make_database(&mut maintenance, server, database, "template0").await?;
    maintenance.close().await.map_err(from_sqlx)?;
    let mut inside = open_maintenance(server, database).await?;
    run_sql(&mut inside, IDENTITY).await?;
    run_sql(&mut inside, sql).await?;
    stamp_fixture(&mut inside, database, expected).await?;
    inside.close().await.map_err(from_sqlx)
}

/// Copies a database that [`create_fixture`] made, once for each placement. No session may be connected to the
/// database.
///
/// # Errors
/// The errors of the server.
///
/// # Panics
/// When a placement is of another engine, or the placements are on several servers.
pub async fn copy_fixture(from: &Placement, to: &[(Placement, ExpectedIdentity)]) -> Result<()> {
    let (server, template) = from.postgres_database().expect("a placement of this engine");
    let mut maintenance = open_maintenance(server, "postgres").await?;
    for (at, expected) in to {
        let (server, database) = at.postgres_database().expect("a placement of this engine");
        make_database(&mut maintenance, server, database, template).await?;
        let mut inside = open_maintenance(server, database).await?;
        run_sql(&mut inside, "truncate _fleet_identity").await?;
        stamp_fixture(&mut inside, database, expected).await?;
        inside.close().await.map_err(from_sqlx)?;
    }
    maintenance.close().await.map_err(from_sqlx)
}

/// The login that ran the migrations of all databases of a server, before each database had its own.
#[must_use]
pub fn former_migrator(server: &PostgresServer) -> String {
    server.former_migrator()
}

async fn make_database(
    maintenance: &mut PgConnection,
    server: &PostgresServer,
    database: &str,
    template: &str,
) -> Result<()> {
    for access in [AccessMode::Read, AccessMode::Write] {
        let login = login_name(database, access);
        run_sql(maintenance, &format!("create role {login} login password '{}'", server.login_verifier(&login)))
            .await?;
    }
    let (reader, writer) = (login_name(database, AccessMode::Read), login_name(database, AccessMode::Write));
    run_sql(maintenance, &format!("create database {database} template {template}")).await?;
    run_sql(maintenance, &format!("revoke all on database {database} from public")).await?;
    run_sql(maintenance, &format!("grant connect on database {database} to {reader}, {writer}")).await
}

async fn stamp_fixture(inside: &mut PgConnection, database: &str, expected: &ExpectedIdentity) -> Result<()> {
    let (reader, writer) = (login_name(database, AccessMode::Read), login_name(database, AccessMode::Write));
    let ExpectedIdentity { tenant, fleet, generation, .. } = expected;
    let values = format!("'{tenant}', '{fleet}', {generation}, 'active', 0");
    let columns = "tenant_id, fleet_id, generation, state, stamped_at";
    run_sql(inside, &format!("insert into _fleet_identity({columns}) values ({values})")).await?;
    run_sql(
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

async fn open_maintenance(server: &PostgresServer, database: &str) -> Result<PgConnection> {
    let options = server.maintenance_options(database).disable_statement_logging();
    PgConnection::connect_with(&options).await.map_err(from_connect)
}

async fn run_sql(connection: &mut PgConnection, sql: &str) -> Result<()> {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await.map(drop).map_err(from_sqlx)
}
