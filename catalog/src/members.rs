//! Who may do what in a tenant.

use crate::db::{ReadTx, WriteTx};
use crate::error::Result;
use serde::{Deserialize, Serialize};

use crate::ids::TenantId;

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

/// The role of a principal in a tenant. The router's cold path.
pub async fn role(_tx: &mut ReadTx, _tenant: TenantId, _principal: &str) -> Result<Option<Role>> {
    todo!()
}
/// Adds a member or changes the role; appends to the change feed.
pub async fn set(_tx: &mut WriteTx, _tenant: TenantId, _principal: &str, _role: Role) -> Result<Member> {
    todo!()
}
/// Removes a member; appends to the change feed. Fails with `NotFound`.
pub async fn remove(_tx: &mut WriteTx, _tenant: TenantId, _principal: &str) -> Result<()> {
    todo!()
}
/// A page in the order of principals, beginning after `after`.
pub async fn page(_tx: &mut ReadTx, _tenant: TenantId, _after: Option<&str>, _limit: u32) -> Result<Vec<Member>> {
    todo!()
}
