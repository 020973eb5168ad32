//! Who may do what in a tenant.

use serde::{Deserialize, Serialize};
use sqlx::any::AnyRow;

use crate::bulk::limit;
use crate::changes;
use crate::db::{ReadTx, WriteTx};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::TenantId;
use crate::row;
use crate::tenants;
use crate::word::Word;

/// What a member may do; each includes the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// SELECT.
    Reader,
    /// SELECT and DML.
    Writer,
    /// Also members and settings of the tenant.
    Manager,
}

/// One row of `members`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Where.
    pub tenant_id: TenantId,
    /// The application's own name for a person or program; at most 256 bytes.
    pub principal: String,
    /// See [`Role`].
    pub role: Role,
    /// Milliseconds since 1970.
    pub created_at: i64,
}

/// Principals are the application's own; longer ones are a mistake, and every cache holds them.
const PRINCIPAL_MAX: usize = 256;

impl Word for Role {
    const NOUN: &'static str = "role";
    const WORDS: &'static [(Self, &'static str)] =
        &[(Self::Reader, "reader"), (Self::Writer, "writer"), (Self::Manager, "manager")];
}

/// The role of a principal in a tenant. The router's cold path.
///
/// # Errors
/// `Unavailable`.
pub async fn role(tx: &mut ReadTx, tenant: TenantId, principal: &str) -> Result<Option<Role>> {
    let sql = sqlx::query("select role from members where tenant_id = $1 and principal = $2");
    let row = tx.one(sql.bind(tenant.to_string()).bind(principal.to_owned())).await?;
    row.map(|row| row::word(&row, "role")).transpose()
}

/// Adds a member or changes the role; appends to the change feed.
///
/// # Errors
/// `NotFound` for the tenant; `Invalid` when the principal is empty, longer than 256 bytes or holds control characters.
pub async fn set(tx: &mut WriteTx, tenant: TenantId, principal: &str, role: Role) -> Result<Member> {
    check_principal(principal)?;
    let sql = "insert into members (tenant_id, principal, role, created_at) values ($1, $2, $3, $4) \
               on conflict (tenant_id, principal) do update set role = excluded.role returning created_at";
    let now = tx.now();
    let sql = sqlx::query(sql).bind(tenant.to_string()).bind(principal.to_owned()).bind(role.word()).bind(now);
    let row = tx.one(sql).await.map_err(|error| match error.kind() {
        ErrorKind::NotFound => tenants::missing(tenant),
        _ => error,
    })?;
    let created_at = row.map_or(Ok(now), |row| row::int(&row, "created_at"))?;
    changes::append(tx, &[tenant]).await?;
    Ok(Member { tenant_id: tenant, principal: principal.to_owned(), role, created_at })
}

/// Removes a member; appends to the change feed.
///
/// # Errors
/// `NotFound`.
pub async fn remove(tx: &mut WriteTx, tenant: TenantId, principal: &str) -> Result<()> {
    let sql = sqlx::query("delete from members where tenant_id = $1 and principal = $2");
    if tx.run(sql.bind(tenant.to_string()).bind(principal.to_owned())).await? == 0 {
        return Err(Error::new(ErrorKind::NotFound, "the tenant has no such member"));
    }
    changes::append(tx, &[tenant]).await
}

/// A page in the order of principals, beginning after `after`.
///
/// # Errors
/// `Unavailable`.
pub async fn page(tx: &mut ReadTx, tenant: TenantId, after: Option<&str>, page_limit: u32) -> Result<Vec<Member>> {
    // Principals are never empty, so the empty one comes before all.
    let sql = "select tenant_id, principal, role, created_at from members \
               where tenant_id = $1 and principal > $2 order by principal limit $3";
    let sql = sqlx::query(sql).bind(tenant.to_string()).bind(after.unwrap_or_default().to_owned());
    let rows = tx.all(sql.bind(limit(page_limit))).await?;
    rows.iter().map(member).collect()
}

/// Fails with `Invalid`.
pub(crate) fn check_principal(principal: &str) -> Result<()> {
    if (1..=PRINCIPAL_MAX).contains(&principal.len()) && !principal.chars().any(char::is_control) {
        return Ok(());
    }
    let message = format!("a principal has 1 to {PRINCIPAL_MAX} bytes and no control characters");
    Err(Error::new(ErrorKind::Invalid, message))
}

fn member(row: &AnyRow) -> Result<Member> {
    Ok(Member {
        tenant_id: row::parsed(row, "tenant_id")?,
        principal: row::text(row, "principal")?,
        role: row::word(row, "role")?,
        created_at: row::int(row, "created_at")?,
    })
}
