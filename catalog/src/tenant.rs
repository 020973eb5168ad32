//! The catalog's record of one tenant. Operations decide which state changes are legal. The generation ensures that
//! they decided on the current record.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{BackupId, Generation, OperationId, ReleaseId, ServerId, TenantId};
use crate::plans::TenantPlan;
use crate::text_enum::TextEnum;

/// The stable states of a tenant. Moving, restoring and migrating are operations, not states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TenantState {
    /// The database is being created.
    Provisioning,
    /// The tenant serves requests.
    Active,
    /// The tenant does not serve, for a stated reason.
    Suspended,
    /// The tenant has no live database, only a verified backup.
    Archived,
    /// The tenant is deleted; its database exists until `purge_after`.
    Deleted,
    /// Only the row is left; the names stay reserved.
    Purged,
}

/// The reason why a tenant's writes are blocked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BlockWrites {
    /// An operation blocks writes for a short time; the caller may wait.
    Operation,
    /// An operator blocks writes until further notice.
    Operator,
}

/// Marks a tenant that an operation took back to an older schema. It stays there until a migration names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchemaPin {
    /// The version that the tenant had before.
    pub below: i64,
    /// The time of the pin, milliseconds since 1970.
    pub at: i64,
    /// The operation that took the tenant back.
    pub op: OperationId,
}

/// One row of `tenants`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantRecord {
    /// The id, which never changes.
    pub id: TenantId,
    /// The current slug.
    pub name: String,
    /// The stable state.
    pub state: TenantState,
    /// The reason why it is suspended or blocked, for operators.
    pub state_reason: Option<String>,
    /// The block of writes; `None` when writes are allowed.
    pub block_writes: Option<BlockWrites>,
    /// The state in which an archived or deleted tenant wakes. `None` for other tenants, and if a process of an older
    /// version wrote the row. [`TenantRecord::state_on_wake`] covers that case.
    pub wake_state: Option<TenantState>,
    /// The backup from which an archived tenant comes back. `None` as for `wake_state`.
    pub archive_backup_id: Option<BackupId>,
    /// The server of its database.
    pub server_id: ServerId,
    /// The database's place on the server; `None` when there is no database.
    pub placement: Option<String>,
    /// The generation, which must equal the database's own.
    pub generation: Generation,
    /// The number of the last attempt to fill a placement.
    pub placement_epoch: i64,
    /// Hint: the ledger's newest version.
    pub schema_version: Option<i64>,
    /// Hint: the release it is at the head of.
    pub release_id: Option<ReleaseId>,
    /// The pin; migrations of many tenants skip a pinned tenant.
    pub pin: Option<SchemaPin>,
    /// Hint: the release whose files it has applied, up to its version.
    pub ledger_release_id: Option<ReleaseId>,
    /// Hint: size of the database in bytes.
    pub size_bytes: Option<i64>,
    /// True when deletion is refused.
    pub protected: bool,
    /// The operation that currently works on it.
    pub op_id: Option<OperationId>,
    /// Creation time, milliseconds since 1970.
    pub created_at: i64,
    /// Time of the last change, milliseconds since 1970.
    pub updated_at: i64,
    /// Deletion time, milliseconds since 1970.
    pub deleted_at: Option<i64>,
    /// Earliest time of the purge, milliseconds since 1970.
    pub purge_after: Option<i64>,
    /// The plan with its limits; `None`: the limits of the process alone.
    pub plan: Option<TenantPlan>,
    /// The labels; only filled by queries that say so, otherwise empty.
    pub labels: BTreeMap<String, String>,
}

impl TenantState {
    /// The text of the state in the catalog and the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.stored_text()
    }
}

impl TenantRecord {
    /// True when it serves only reads, until an operator allows writes again.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.state == TenantState::Active && self.block_writes == Some(BlockWrites::Operator)
    }

    /// The state in which an archived or deleted tenant wakes. Other tenants are awake: it is their state.
    ///
    /// Versions before the column `wake_state` kept a reason without a block for a tenant that was suspended. Their rows
    /// are read in the same way. The statement in `due_tenants.rs` does this too.
    #[must_use]
    pub fn state_on_wake(&self) -> TenantState {
        match (self.state, self.wake_state) {
            (TenantState::Archived | TenantState::Deleted, Some(state)) => state,
            (TenantState::Archived | TenantState::Deleted, None) => {
                let was_suspended = self.state_reason.is_some() && self.block_writes.is_none();
                if was_suspended { TenantState::Suspended } else { TenantState::Active }
            }
            (state, _) => state,
        }
    }
}

impl TextEnum for TenantState {
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

impl TextEnum for BlockWrites {
    const NOUN: &'static str = "block of writes";
    const WORDS: &'static [(Self, &'static str)] = &[(Self::Operation, "operation"), (Self::Operator, "operator")];
}
