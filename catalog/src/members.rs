//! The members of tenants and their roles.

use serde::{Deserialize, Serialize};
use sqlx::any::AnyRow;

use crate::bulk::capped_limit;
use crate::changes;
use crate::db::{ReadTx, WriteTx};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::TenantId;
use crate::row;
use crate::tenants;
use crate::text_enum::TextEnum;

/// The rights of a member; each role includes the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Allows SELECT.
    Reader,
    /// Allows SELECT and DML.
    Writer,
    /// Also allows changes to the tenant's members and settings.
    Manager,
}

/// One row of `members`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberRecord {
    /// The tenant that the member belongs to.
    pub tenant_id: TenantId,
    /// The application's own name for a person or program; at most 256 bytes.
    pub principal: String,
    /// The member's role in the tenant.
    pub role: Role,
    /// Time when it was added, milliseconds since 1970.
    pub created_at: i64,
}

/// Maximum length of a principal in bytes: every cache holds them.
const PRINCIPAL_MAX: usize = 256;

impl TextEnum for Role {
    const NOUN: &'static str = "role";
    const WORDS: &'static [(Self, &'static str)] =
        &[(Self::Reader, "reader"), (Self::Writer, "writer"), (Self::Manager, "manager")];
}

/// The role of a principal in a tenant; `None` when it is not a member. The router waits for this query.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn member_role(tx: &mut ReadTx, tenant: TenantId, principal: &str) -> Result<Option<Role>> {
    let sql = sqlx::query("select role from members where tenant_id = $1 and principal = $2");
    let row = tx.fetch_row(sql.bind(tenant.to_string()).bind(principal.to_owned())).await?;
    row.map(|row| row::enum_column(&row, "role")).transpose()
}

/// Adds a member or changes its role; appends to the change feed.
///
/// # Errors
/// `NotFound` for the tenant; `Invalid` when the principal is empty, longer than 256 bytes or holds control characters.
pub async fn set_member(tx: &mut WriteTx, tenant: TenantId, principal: &str, role: Role) -> Result<MemberRecord> {
    check_principal(principal)?;
    let sql = "insert into members (tenant_id, principal, role, created_at) values ($1, $2, $3, $4) \
               on conflict (tenant_id, principal) do update set role = excluded.role returning created_at";
    let now = tx.now();
    let sql = sqlx::query(sql).bind(tenant.to_string()).bind(principal.to_owned()).bind(role.stored_text()).bind(now);
    let row = tx.fetch_row(sql).await.map_err(|error| match error.kind() {
        ErrorKind::NotFound => tenants::tenant_not_found(tenant),
        _ => error,
    })?;
    let created_at = row.map_or(Ok(now), |row| row::int_column(&row, "created_at"))?;
    changes::append_changes(tx, &[tenant]).await?;
    Ok(MemberRecord { tenant_id: tenant, principal: principal.to_owned(), role, created_at })
}

/// Removes a member; appends to the change feed.
///
/// # Errors
/// `NotFound` when it is not a member.
pub async fn remove_member(tx: &mut WriteTx, tenant: TenantId, principal: &str) -> Result<()> {
    let sql = sqlx::query("delete from members where tenant_id = $1 and principal = $2");
    if tx.execute_sql(sql.bind(tenant.to_string()).bind(principal.to_owned())).await? == 0 {
        return Err(Error::new(ErrorKind::NotFound, "the tenant has no such member"));
    }
    changes::append_changes(tx, &[tenant]).await
}

/// Number of members of a tenant.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn count_members(tx: &mut ReadTx, tenant: TenantId) -> Result<i64> {
    let sql = sqlx::query("select count(*) as members from members where tenant_id = $1");
    tx.fetch_row(sql.bind(tenant.to_string())).await?.map_or(Ok(0), |row| row::int_column(&row, "members"))
}

/// A page in the order of principals after `after`.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn list_members(
    tx: &mut ReadTx,
    tenant: TenantId,
    after: Option<&str>,
    page_limit: u32,
) -> Result<Vec<MemberRecord>> {
    // Principals are never empty, so the empty one sorts before all.
    let sql = "select tenant_id, principal, role, created_at from members \
               where tenant_id = $1 and principal > $2 order by principal limit $3";
    let sql = sqlx::query(sql).bind(tenant.to_string()).bind(after.unwrap_or_default().to_owned());
    let rows = tx.fetch_rows(sql.bind(capped_limit(page_limit))).await?;
    rows.iter().map(member_from_row).collect()
}

/// Fails with `Invalid` when the principal is not allowed.
pub(crate) fn check_principal(principal: &str) -> Result<()> {
    if (1..=PRINCIPAL_MAX).contains(&principal.len()) && !principal.chars().any(char::is_control) {
        return Ok(());
    }
    let message = format!("a principal has 1 to {PRINCIPAL_MAX} bytes and no control characters");
    Err(Error::new(ErrorKind::Invalid, message))
}

fn member_from_row(row: &AnyRow) -> Result<MemberRecord> {
    Ok(MemberRecord {
        tenant_id: row::parsed_column(row, "tenant_id")?,
        principal: row::text_column(row, "principal")?,
        role: row::enum_column(row, "role")?,
        created_at: row::int_column(row, "created_at")?,
    })
}
