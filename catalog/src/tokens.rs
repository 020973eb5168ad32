//! API tokens: who holds the secret acts as the principal. Only a hash is stored.

use crate::db::{ReadTx, WriteTx};
use crate::error::Result;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use crate::ids::{TenantId, TokenId};
use crate::members::Role;

/// What an operator may do; each includes the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperatorRole {
    /// Looks.
    Viewer,
    /// Runs operations.
    Operator,
    /// Also tokens, servers, deletion.
    Admin,
}

/// What a token opens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenScope {
    /// One tenant, with this role, whoever is a member.
    Tenant {
        /// The only one.
        tenant: TenantId,
        /// In it.
        role: Role,
    },
    /// Every tenant that this principal is a member of, with the role it has there.
    Member {
        /// Whose membership counts.
        principal: String,
    },
    /// Every tenant, with this role; may name the tenant by header.
    Service {
        /// In each.
        role: Role,
    },
    /// The admin API; no tenant's data.
    Operator {
        /// There.
        role: OperatorRole,
    },
}

/// One row of `tokens`; never the secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRecord {
    /// Names it in lists and in the log.
    pub id: TokenId,
    /// See [`TokenScope`].
    pub scope: TokenScope,
    /// A human's note.
    pub label: Option<String>,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// Milliseconds since 1970.
    pub expires_at: Option<i64>,
    /// Milliseconds since 1970.
    pub revoked_at: Option<i64>,
}

/// Makes a token; the secret (`flt_…`) is returned once and cannot be had again.
pub async fn create(
    _tx: &mut WriteTx,
    _scope: TokenScope,
    _label: Option<&str>,
    _expires_at: Option<i64>,
) -> Result<(TokenRecord, SecretString)> {
    todo!()
}
/// The token with this secret, even if expired or revoked: the caller decides.
pub async fn by_secret(_tx: &mut ReadTx, _secret: &str) -> Result<Option<TokenRecord>> {
    todo!()
}
/// Ends a token; appends to the change feed (of its tenant, or of no tenant). Fails with `NotFound`.
pub async fn revoke(_tx: &mut WriteTx, _id: TokenId) -> Result<TokenRecord> {
    todo!()
}
/// A page in the order of ids, beginning after `after`; of one tenant when given.
pub async fn page(
    _tx: &mut ReadTx,
    _tenant: Option<TenantId>,
    _after: Option<TokenId>,
    _limit: u32,
) -> Result<Vec<TokenRecord>> {
    todo!()
}
