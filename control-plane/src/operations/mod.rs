//! The kinds of fleet work: one file per operation, and one line in the list of [`OperationParams`]. `operation/` says
//! what an operation is.

pub mod adopt;
pub mod archive;
pub mod backup;
pub mod clone;
pub mod create;
pub mod delete;
pub mod migrate;
pub mod r#move;
pub mod purge;
pub mod read_only;
pub mod restore;
pub mod restore_undo;
pub mod resume;
pub mod settle;
pub mod suspend;
pub mod unarchive;
pub mod undelete;
pub mod verify;

mod catalog_copy;
mod promotion;
mod schema_pin;

use catalog::operations::OperationRecord;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::operation::{FleetOperation, OperationRegistry, StoredOperation};

/// Lists every kind of operation, one line each. No other list of kinds exists.
macro_rules! operations {
    ($($(#[$about:meta])* $variant:ident($module:ident, $params:ident),)*) => {
        /// The parameters of an operation, one variant per kind. Stored as JSON in the operation's row. Data that the
        /// rows of its tenants hold is not repeated there.
        #[derive(Debug, Clone, Serialize, Deserialize)]
        #[serde(tag = "kind", rename_all = "snake_case")]
        pub enum OperationParams {
            $($(#[$about])* $variant($module::$params),)*
        }

        /// The names of all kinds, as the catalog stores them.
        pub const KINDS: &[&str] = &[$(kind_of_module(stringify!($module))),*];

        impl OperationParams {
            /// The implementation of this kind.
            fn into_operation(self) -> Box<dyn FleetOperation> {
                match self { $(Self::$variant(params) => Box::new(params),)* }
            }
        }

        $(impl StoredOperation for $module::$params {
            fn kind_name(&self) -> &'static str {
                kind_of_module(stringify!($module))
            }

            fn to_json(&self) -> Result<String> {
                serde_json::to_string(&OperationParams::$variant(self.clone()))
                    .map_err(|error| Error::internal("an operation cannot be stored").with_source(error))
            }

            fn clone_boxed(&self) -> Box<dyn FleetOperation> {
                Box::new(self.clone())
            }
        })*
    };
}

operations! {
    /// Creates tenants.
    Create(create, CreateParams),
    /// Creates a tenant as a copy of a database that belongs to no fleet.
    Adopt(adopt, AdoptParams),
    /// Migrates tenants to a release.
    Migrate(migrate, MigrateParams),
    /// Writes a snapshot of each tenant to the backup store.
    Backup(backup, BackupParams),
    /// Restores a tenant from a backup, in place or as a new tenant.
    Restore(restore, RestoreParams),
    /// Returns a tenant to the database that its last restore replaced.
    RestoreUndo(restore_undo, RestoreUndoParams),
    /// Proves that backups can be restored.
    Verify(verify, VerifyParams),
    /// Takes tenants out of service, with a reason.
    Suspend(suspend, SuspendParams),
    /// Resumes suspended tenants.
    Resume(resume, ResumeParams),
    /// Blocks tenants' writes, or allows them again.
    ReadOnly(read_only, ReadOnlyParams),
    /// Moves tenants to another server.
    Move(r#move, MoveParams),
    /// Creates a tenant with the data of another tenant.
    Clone(clone, CloneParams),
    /// Backs up tenants, verifies the backups, and then drops the databases.
    Archive(archive, ArchiveParams),
    /// Restores the databases of archived tenants.
    Unarchive(unarchive, UnarchiveParams),
    /// Takes tenants out of service. Their databases are dropped later.
    Delete(delete, DeleteParams),
    /// Restores deleted tenants to service.
    Undelete(undelete, UndeleteParams),
    /// Drops the databases of deleted tenants.
    Purge(purge, PurgeParams),
    /// Brings the catalog's record of a tenant and its database together after a failed operation (`tenant repair`).
    Settle(settle, SettleParams),
}

/// A module's name without the raw-identifier prefix `r#`.
const fn kind_of_module(module: &'static str) -> &'static str {
    match module.as_bytes() {
        [b'r', b'#', ..] => module.split_at(2).1,
        _ => module,
    }
}

impl From<OperationParams> for Box<dyn FleetOperation> {
    fn from(params: OperationParams) -> Self {
        params.into_operation()
    }
}

/// All kinds of this program, for the runner.
#[must_use]
pub fn registry() -> OperationRegistry {
    OperationRegistry { parse_record: |record| parse_record(record).map(OperationParams::into_operation) }
}

/// Parses the parameters that an operation's row stores.
///
/// # Errors
/// `internal`: a newer program wrote the row, with a kind that this program does not know.
pub fn parse_record(record: &OperationRecord) -> Result<OperationParams> {
    serde_json::from_str(&record.params).map_err(|error| {
        Error::internal(format!("{} has a kind that this program does not know", record.id)).with_source(error)
    })
}
