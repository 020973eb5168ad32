//! Plans: named sets of limits that tenants share. A tenant's record carries the limits of its plan.
//!
//! Only the router and the engines enforce limits. A change of a plan reaches them through the change feed.

use serde::{Deserialize, Serialize};
use sqlx::any::AnyRow;

use crate::bulk::capped_limit;
use crate::changes;
use crate::db::{ReadTx, WriteTx};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::TenantId;
use crate::name::TenantName;
use crate::row;
use crate::tenants;

/// Maximum number of plans. A price list has a dozen; one plan per large customer is also fine.
const PLANS_MAX: i64 = 1_000;
/// A plan with more tenants is announced by one entry "everything changed" instead of one entry per tenant. The entry
/// is cheap to write and to read, but makes every process read all its records again.
const ANNOUNCED_MAX: i64 = 1_000;

/// The limits of a plan. An absent limit is the one of the process, and a process never allows more than its own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanLimits {
    /// Requests per second, of the whole fleet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_per_second: Option<u64>,
    /// Requests that may come at once after a pause. Default: those of one second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u64>,
    /// Requests that are open at once, of the whole fleet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u64>,
    /// Longest time of a statement in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statement_ms: Option<u64>,
    /// Rows of one answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows_max: Option<u64>,
    /// Bytes of one answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer_bytes_max: Option<u64>,
    /// Size of the database in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_bytes_max: Option<u64>,
    /// Connections of one process to the database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections_max: Option<u64>,
}

impl PlanLimits {
    /// PURE: refuses limits that have no meaning together.
    ///
    /// # Errors
    /// `Invalid` for a zero, and for a burst without a rate.
    pub fn check(&self) -> Result<()> {
        let all = [
            self.requests_per_second,
            self.burst,
            self.concurrency,
            self.statement_ms,
            self.rows_max,
            self.answer_bytes_max,
            self.storage_bytes_max,
            self.connections_max,
        ];
        if all.contains(&Some(0)) {
            return Err(Error::new(ErrorKind::Invalid, "a limit is at least 1: suspend a tenant that may do nothing"));
        }
        if self.burst.is_some() && self.requests_per_second.is_none() {
            return Err(Error::new(ErrorKind::Invalid, "burst needs requests_per_second"));
        }
        Ok(())
    }
}

/// The plan of a tenant, as its record carries it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantPlan {
    /// The name of the plan.
    pub name: String,
    /// The limits of the plan.
    pub limits: PlanLimits,
}

/// One row of `plans`, and how many tenants have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanRecord {
    /// The name of the plan.
    pub name: String,
    /// The limits of the plan.
    pub limits: PlanLimits,
    /// How many tenants have the plan.
    pub tenants: i64,
    /// Creation time, milliseconds since 1970.
    pub created_at: i64,
    /// Time of the last change, milliseconds since 1970.
    pub updated_at: i64,
}

/// Adds a plan.
///
/// # Errors
/// `AlreadyExists` for a taken name; `Invalid` for limits that make no sense; `Conflict` when there are too many plans.
pub async fn add_plan(tx: &mut WriteTx, name: &TenantName, limits: &PlanLimits) -> Result<PlanRecord> {
    limits.check()?;
    let count = tx.fetch_row(sqlx::query("select count(*) as found from plans")).await?;
    if count.map_or(Ok(0), |row| row::int_column(&row, "found"))? >= PLANS_MAX {
        let message = format!("a fleet has at most {PLANS_MAX} plans: remove one first");
        return Err(Error::new(ErrorKind::Conflict, message));
    }
    if get(tx, name.as_str()).await?.is_some() {
        return Err(Error::new(ErrorKind::AlreadyExists, format!("there is already a plan '{name}'")));
    }
    let sql = sqlx::query("insert into plans (name, limits, created_at, updated_at) values ($1, $2, $3, $3)");
    let now = tx.now();
    tx.execute_sql(sql.bind(name.as_str().to_owned()).bind(stored_limits(limits)).bind(now)).await?;
    require(tx, name.as_str()).await
}

/// The plan with this name.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn get(tx: &mut ReadTx, name: &str) -> Result<Option<PlanRecord>> {
    let sql = "select p.name, p.limits, p.created_at, p.updated_at, \
               (select count(*) from tenants t where t.plan = p.name) as tenants from plans p where p.name = $1";
    tx.fetch_row(sqlx::query(sql).bind(name.to_owned())).await?.as_ref().map(plan_from_row).transpose()
}

/// True when the fleet has a plan.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn any_plan(tx: &mut ReadTx) -> Result<bool> {
    Ok(tx.fetch_row(sqlx::query("select 1 as found from plans limit 1")).await?.is_some())
}

/// A page of plans in the order of their names, after `after`.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn list_plans(tx: &mut ReadTx, after: Option<&str>, page_limit: u32) -> Result<Vec<PlanRecord>> {
    let sql = "select p.name, p.limits, p.created_at, p.updated_at, \
               (select count(*) from tenants t where t.plan = p.name) as tenants from plans p where p.name > $1 \
               order by p.name limit $2";
    // Names are never empty, so the empty text sorts before all.
    let sql = sqlx::query(sql).bind(after.unwrap_or_default().to_owned()).bind(capped_limit(page_limit));
    tx.fetch_rows(sql).await?.iter().map(plan_from_row).collect()
}

/// Replaces the limits of a plan; appends its tenants to the change feed.
///
/// # Errors
/// `NotFound` for an unknown plan; `Invalid` for limits that make no sense.
pub async fn set_limits(tx: &mut WriteTx, name: &str, limits: &PlanLimits) -> Result<PlanRecord> {
    limits.check()?;
    let now = tx.now();
    let sql = sqlx::query("update plans set limits = $2, updated_at = $3 where name = $1");
    tx.execute_sql(sql.bind(name.to_owned()).bind(stored_limits(limits)).bind(now)).await?;
    let plan = require(tx, name).await?;
    announce_change(tx, &plan).await?;
    Ok(plan)
}

/// Removes a plan that no tenant has.
///
/// # Errors
/// `NotFound` for an unknown plan; `PlanInUse` when tenants have it.
pub async fn remove_plan(tx: &mut WriteTx, name: &str) -> Result<()> {
    let plan = require(tx, name).await?;
    if plan.tenants > 0 {
        let message = format!("the plan '{}' cannot be removed: {} tenants have it", plan.name, plan.tenants);
        return Err(Error::new(ErrorKind::PlanInUse, message));
    }
    tx.execute_sql(sqlx::query("delete from plans where name = $1").bind(name.to_owned())).await.map(|_| ())
}

/// Gives a tenant a plan, or none; appends to the change feed.
///
/// # Errors
/// `NotFound` when the tenant or the plan does not exist.
pub async fn set_tenant_plan(tx: &mut WriteTx, tenant: TenantId, plan: Option<&str>) -> Result<()> {
    if let Some(name) = plan {
        require(tx, name).await?;
    }
    tenants::touch_tenant(tx, tenant).await?;
    let sql = sqlx::query("update tenants set plan = $2 where id = $1");
    tx.execute_sql(sql.bind(tenant.to_string()).bind(plan.map(str::to_owned))).await?;
    changes::append_changes(tx, &[tenant]).await
}

async fn announce_change(tx: &mut WriteTx, plan: &PlanRecord) -> Result<()> {
    if plan.tenants > ANNOUNCED_MAX {
        return changes::append_everything(tx).await;
    }
    let sql = sqlx::query("select id from tenants where plan = $1").bind(plan.name.clone());
    let ids: Vec<TenantId> =
        tx.fetch_rows(sql).await?.iter().map(|row| row::parsed_column(row, "id")).collect::<Result<_>>()?;
    changes::append_changes(tx, &ids).await
}

/// The plan with this name.
///
/// # Errors
/// `NotFound` for an unknown plan.
pub async fn require(tx: &mut ReadTx, name: &str) -> Result<PlanRecord> {
    let not_found = || Error::new(ErrorKind::NotFound, format!("there is no plan '{}'", name.escape_debug()));
    get(tx, name).await?.ok_or_else(not_found)
}

fn stored_limits(limits: &PlanLimits) -> String {
    serde_json::to_string(limits).expect("numbers become JSON")
}

fn parse_limits(text: &str) -> Result<PlanLimits> {
    let corrupt = |error| Error::new(ErrorKind::Corrupt, "the limits of a plan are not JSON").with_source(error);
    serde_json::from_str(text).map_err(corrupt)
}

/// The plan of a row with the columns `plan` and `plan_limits`.
pub(crate) fn tenant_plan_from_row(row: &AnyRow) -> Result<Option<TenantPlan>> {
    match (row::nullable_text(row, "plan")?, row::nullable_text(row, "plan_limits")?) {
        (Some(name), Some(limits)) => Ok(Some(TenantPlan { name, limits: parse_limits(&limits)? })),
        _ => Ok(None),
    }
}

fn plan_from_row(row: &AnyRow) -> Result<PlanRecord> {
    Ok(PlanRecord {
        name: row::text_column(row, "name")?,
        limits: parse_limits(&row::text_column(row, "limits")?)?,
        tenants: row::int_column(row, "tenants")?,
        created_at: row::int_column(row, "created_at")?,
        updated_at: row::int_column(row, "updated_at")?,
    })
}
