//! Makes the catalog of a copied data directory its own fleet: removes the original's records, and sets a new id.
//!
//! Called by the control plane while no other process runs. [`begin_new_identity`] removes the original's records and
//! records the next id in one transaction. After that, nothing in this catalog leads to a server outside the directory.
//! [`finish_new_identity`] makes the next id the fleet's, once every database inside the directory carries it.

use tenant_engine::FleetClaims;
use tenant_engine::placement::EngineKind;

use crate::changes;
use crate::db::{ReadTx, WriteTx};
use crate::domains;
use crate::error::Result;
use crate::fleet;
use crate::ids::FleetId;
use crate::row;
use crate::schema;
use crate::servers;
use crate::webhooks;

/// The reason why a tenant of the original has no database here.
const STAYED: &str = "stayed with the fleet that this one was copied from";

/// Records that stay with the original.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LeftWithOriginal {
    /// Names of servers outside the directory.
    pub servers: Vec<String>,
    /// Names of archived tenants, and of tenants with databases on these servers.
    pub tenants: Vec<String>,
    /// Number of backups.
    pub backups: i64,
    /// Number of operations that have not ended.
    pub operations: i64,
}

/// The records that [`begin_new_identity`] would remove.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn left_with_original(tx: &mut ReadTx) -> Result<LeftWithOriginal> {
    let outside = outside_servers(tx).await?;
    let mut tenants = tenant_names(tx, "state = 'archived'", None).await?;
    for (id, _) in &outside {
        tenants.extend(tenant_names(tx, "state not in ('archived', 'purged') and server_id =", Some(id)).await?);
    }
    tenants.sort_unstable();
    Ok(LeftWithOriginal {
        servers: outside.into_iter().map(|(_, name)| name).collect(),
        tenants,
        backups: count_found(tx, "select count(*) as found from backups").await?,
        operations: count_found(
            tx,
            "select count(*) as found from operations where state in ('pending', 'running', 'paused')",
        )
        .await?,
    })
}

/// Removes these records, and records the fleet's next id. A repeated call keeps the first id.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn begin_new_identity(tx: &mut WriteTx) -> Result<FleetId> {
    if let Some(begun) = fleet::next_id(tx).await? {
        return Ok(begun);
    }
    for (server, _) in outside_servers(tx).await? {
        leave_tenants(tx, "server_id = $2", &server).await?;
        tx.execute_sql(sqlx::query("delete from retained where server_id = $1").bind(server.clone())).await?;
        let sql = "update servers set state = 'removed', secret = null, system_id = null where id = $1";
        tx.execute_sql(sqlx::query(sql).bind(server)).await?;
    }
    leave_tenants(tx, "state = $2", "archived").await?;
    end_operations(tx).await?;
    domains::forget_proofs(tx).await?;
    webhooks::pause_all(tx).await?;
    for sql in ["delete from backups", "delete from leases", "delete from idempotency"] {
        tx.execute_sql(sqlx::query(sql)).await?;
    }
    let next = FleetId::generate();
    tx.execute_sql(sqlx::query("update fleet set next_id = $1 where one = 1").bind(next.to_string())).await?;
    changes::append_everything(tx).await?;
    Ok(next)
}

/// Makes the next id the fleet's, with claims that no other directory knows.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn finish_new_identity(tx: &mut WriteTx, next: FleetId, data_dir: &str) -> Result<FleetClaims> {
    let claims = FleetClaims::default().with_new_id();
    fleet::set_claims(tx, &claims).await?;
    fleet::set_data_dir(tx, data_dir).await?;
    let check = schema::key_check(tx.sealer(), next);
    let sql = "update fleet set id = $1, key_check = $2, next_id = null, copied_at = null, copied_change = null, \
               copied_in_ms = null, copied_by = null where one = 1";
    tx.execute_sql(sqlx::query(sql).bind(next.to_string()).bind(check)).await?;
    Ok(claims)
}

/// Ids and names of the servers outside the directory.
async fn outside_servers(tx: &mut ReadTx) -> Result<Vec<(String, String)>> {
    let known = servers::list_servers(tx).await?;
    let outside =
        known.into_iter().filter(|(server, _)| server.engine != EngineKind::Sqlite || !servers::is_inside(tx, server));
    Ok(outside.map(|(server, _)| (server.id.to_string(), server.name)).collect())
}

async fn tenant_names(tx: &mut ReadTx, condition: &str, argument: Option<&str>) -> Result<Vec<String>> {
    let place = argument.map_or("", |_| " $1");
    let sql = crate::bulk::dynamic_query(format!("select name from tenants where {condition}{place} order by id"));
    let sql = argument.into_iter().fold(sql, |sql, argument| sql.bind(argument.to_owned()));
    tx.fetch_rows(sql).await?.iter().map(|row| row::text_column(row, "name")).collect()
}

async fn count_found(tx: &mut ReadTx, sql: &'static str) -> Result<i64> {
    tx.fetch_row(sqlx::query(sql)).await?.map_or(Ok(0), |row| row::int_column(&row, "found"))
}

/// Keeps the rows and names of these tenants, as for every purged tenant: a name never refers to another tenant later.
async fn leave_tenants(tx: &mut WriteTx, condition: &str, argument: &str) -> Result<()> {
    let now = tx.now();
    let sql = format!(
        "update tenants set state = 'purged', state_reason = '{STAYED}', block_writes = null, placement = null, \
         wake_state = null, archive_backup_id = null, op_id = null, wake_requested_at = null, purge_after = null, generation = generation + 1, updated_at = $1 \
         where state <> 'purged' and {condition}"
    );
    tx.execute_sql(crate::bulk::dynamic_query(sql).bind(now).bind(argument.to_owned())).await.map(|_| ())
}

/// Cancels all operations, which belong to the original. Tenants that they left fenced here are repaired automatically.
async fn end_operations(tx: &mut WriteTx) -> Result<()> {
    let now = tx.now();
    let sql = "update steps set state = 'cancelled', lease_owner = null, lease_until = null, finished_at = $1 \
               where state in ('pending', 'running')";
    tx.execute_sql(sqlx::query(sql).bind(now)).await?;
    let sql =
        "update operations set state = 'cancelled', finished_at = $1 where state in ('pending', 'running', 'paused')";
    tx.execute_sql(sqlx::query(sql).bind(now)).await?;
    tx.execute_sql(sqlx::query("update tenants set op_id = null where op_id is not null")).await.map(|_| ())
}
