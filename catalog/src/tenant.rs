//! What the catalog knows of one tenant. Which change of state is legal, the operations decide; the generation proves that
//! they decided on what is there.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{Generation, OperationId, ReleaseId, ServerId, TenantId};
use crate::word::Word;

/// The stable states of a tenant; moving, restoring and migrating are operations, not states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TenantState {
    /// Its database is being made.
    Provisioning,
    /// Serving.
    Active,
    /// Not serving, with a reason.
    Suspended,
    /// Only a verified backup is left.
    Archived,
    /// A tombstone, until `purge_after`.
    Deleted,
    /// Nothing exists but the row; the names stay reserved.
    Purged,
}

/// Who blocks a tenant's writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BlockWrites {
    /// An operation, for a moment: the caller may wait.
    Operation,
    /// An operator, until further notice.
    Operator,
}

/// Why a tenant stays at an older schema: an operation took it back. It stays so until somebody migrates it by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// The version that the tenant had before.
    pub below: i64,
    /// Since when, milliseconds since 1970.
    pub at: i64,
    /// The operation that took it back.
    pub op: OperationId,
}

/// One row of `tenants`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantRecord {
    /// For ever.
    pub id: TenantId,
    /// The current slug.
    pub name: String,
    /// See [`TenantState`].
    pub state: TenantState,
    /// Why suspended or blocked, for operators.
    pub state_reason: Option<String>,
    /// `None`: writes are allowed.
    pub block_writes: Option<BlockWrites>,
    /// Where it lives.
    pub server_id: ServerId,
    /// Where on the server; `None` when there is no database.
    pub placement: Option<String>,
    /// Must equal the database's own.
    pub generation: Generation,
    /// The number of the last attempt to fill a placement.
    pub placement_epoch: i64,
    /// Hint: the ledger's newest version.
    pub schema_version: Option<i64>,
    /// Hint: the release it is at the head of.
    pub release_id: Option<ReleaseId>,
    /// It stays at its version; migrations of many tenants leave it out.
    pub pin: Option<Pin>,
    /// Hint: the release whose files it has applied, up to its version.
    pub ledger_release_id: Option<ReleaseId>,
    /// Hint: bytes of the database.
    pub size_bytes: Option<i64>,
    /// Delete is refused.
    pub protected: bool,
    /// The operation that works on it now.
    pub op_id: Option<OperationId>,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// Milliseconds since 1970.
    pub updated_at: i64,
    /// Milliseconds since 1970.
    pub deleted_at: Option<i64>,
    /// Milliseconds since 1970.
    pub purge_after: Option<i64>,
    /// Filled by the queries that say so, else empty.
    pub labels: BTreeMap<String, String>,
}

impl Word for TenantState {
    const NOUN: &'static str = "state of a tenant";
    const WORDS: &'static [(Self, &'static str)] = &[
        (Self::Provisioning, "provisioning"),
        (Self::Active, "active"),
        (Self::Suspended, "suspended"),
        (Self::Archived, "archived"),
        (Self::Deleted, "deleted"),
        (Self::Purged, "purged"),
    ];
}

impl Word for BlockWrites {
    const NOUN: &'static str = "block of writes";
    const WORDS: &'static [(Self, &'static str)] = &[(Self::Operation, "operation"), (Self::Operator, "operator")];
}
