//! Which copy of a fleet's data directory may use this server: the comment of the role `fleet_claim_<key>` records it.
//!
//! Every engine operation checks this once per process before it does anything on the server, and so does the first
//! request. The key in the role's name belongs to one fleet on this server, so fleets that share a server do not
//! conflict. See [`crate::claim`].

use std::sync::Arc;
use std::time::Duration;

use super::admin_connection::{AdminConnection, WaitLimits};
use super::prepare::SERVER_LOCK;
use super::server::PostgresServer;
use super::server_state::PostgresServerState;
use crate::claim::{ClaimStatus, FleetClaims, refuse_others};
use crate::error::{ErrorKind, Result};
use crate::postgres::sql::{quoted_name, sql_literal, text_column};

/// Longest time of one check: it reads one row.
const LOOK_MAX: Duration = Duration::from_secs(10);

/// A request waits for its own connection after this check, on a server that may be silent.
const REQUEST_LOOK_MAX: Duration = Duration::from_secs(2);

/// Refuses a server that another copy uses, and writes this fleet's claim when it is due.
///
/// # Errors
/// [`ErrorKind::ServerClaimed`]; faults of the server.
pub(super) async fn require_claim(site: &PostgresServerState) -> Result<()> {
    if site.server.fleet_claims().newest_id().is_none() {
        return Ok(());
    }
    let mut claimed = site.claimed.lock().await;
    if !*claimed {
        let mut center = site.maintenance_connection().await?;
        claim_server(site, &mut center).await?;
        site.return_connection(center);
        *claimed = true;
    }
    Ok(())
}

/// The check for requests. A request continues when the server does not accept the connection for the check: the
/// operation that made the database checked the claim, and the next pool checks it again.
///
/// # Errors
/// [`ErrorKind::ServerClaimed`].
pub(in crate::postgres) async fn require_for_requests(site: &PostgresServerState) -> Result<()> {
    match tokio::time::timeout(REQUEST_LOOK_MAX, require_claim(site)).await {
        Ok(Err(error)) if error.kind() == ErrorKind::ServerClaimed => Err(error),
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => {
            tracing::debug!(%error, "the claim of the server could not be checked");
            Ok(())
        }
        Err(_) => Ok(()),
    }
}

/// The claim on the server for the key of this fleet; changes nothing.
///
/// # Errors
/// Faults of the server.
pub async fn carried_claim(server: &Arc<PostgresServer>) -> Result<Option<String>> {
    let patience = WaitLimits { lock: LOOK_MAX, statement: LOOK_MAX };
    let mut work = AdminConnection::as_maintenance(server, patience, &server.server_dsn().database_name()).await?;
    let found = read_claim(&mut work, server).await;
    work.close().await;
    found
}

async fn claim_server(site: &PostgresServerState, center: &mut AdminConnection) -> Result<()> {
    let claims = site.server.fleet_claims();
    let claim = compare_claim(site, center, claims).await?;
    refuse_others(claim, site.server.host_and_port())?;
    if claim == ClaimStatus::Held {
        return Ok(());
    }
    center.run_sql(format!("select pg_advisory_lock({SERVER_LOCK})")).await?;
    // After a failure the connection is closed, which releases the lock.
    write_claim(site, center, claims).await?;
    center.run_sql(format!("select pg_advisory_unlock({SERVER_LOCK})")).await
}

/// Writes the claim under the lock, so that of two copies that start together the later one sees the claim of the
/// earlier one.
async fn write_claim(site: &PostgresServerState, center: &mut AdminConnection, claims: &FleetClaims) -> Result<()> {
    refuse_others(compare_claim(site, center, claims).await?, site.server.host_and_port())?;
    let Some(newest) = claims.newest_id() else { return Ok(()) };
    let role = claim_role(&site.server);
    center
        .run_sql(format!(
            "begin;
             do $fleet$ begin
             if not exists (select from pg_roles where rolname = {}) then create role {} nologin; end if;
             end $fleet$;
             comment on role {} is {};
             commit;",
            sql_literal(&role),
            quoted_name(&role),
            quoted_name(&role),
            sql_literal(newest),
        ))
        .await
}

async fn compare_claim(
    site: &PostgresServerState,
    center: &mut AdminConnection,
    claims: &FleetClaims,
) -> Result<ClaimStatus> {
    let found = read_claim(center, &site.server).await?;
    Ok(claims.compare_with_server(found.as_deref()))
}

async fn read_claim(center: &mut AdminConnection, server: &PostgresServer) -> Result<Option<String>> {
    let role = sql_literal(&claim_role(server));
    let sql = format!("select coalesce(shobj_description(oid, 'pg_authid'), '') from pg_roles where rolname = {role}");
    let found = center.fetch_answers(sql).await?;
    let found = found.iter().flatten().next().map(|row| text_column(row, 0)).transpose()?;
    Ok(found.filter(|found| !found.is_empty()))
}

fn claim_role(server: &PostgresServer) -> String {
    format!("fleet_claim_{}", server.key_id())
}
