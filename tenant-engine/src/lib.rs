//! Works on *one database*, on SQLite or Postgres.
//!
//! It knows placements (where a database is) and identities (whose database it is). It never knows names, operations or
//! HTTP. The router asks it for a [`Pool`] and runs statements through a [`DatabaseSession`]. The control plane asks an
//! [`Engine`] to provision, migrate, snapshot, restore, stamp, inspect and drop. Every method that opens a database
//! takes the [`ExpectedIdentity`] and refuses a database with any other identity.

#![cfg_attr(
    not(all(feature = "sqlite", feature = "postgres")),
    allow(dead_code, unused_imports, reason = "the parts that only the other engine uses")
)]

pub mod answers;
pub mod claim;
#[cfg(feature = "test-util")]
pub mod conformance;
pub mod disk;
pub mod engine;
pub mod error;
#[cfg(feature = "test-util")]
pub mod fake;
pub mod fingerprint;
pub mod identity;
pub mod ids;
pub mod inspection;
pub mod listing;
pub mod migration;
mod own_tables;
pub mod placement;
pub mod pool;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(not(feature = "postgres"))]
#[path = "absent_postgres.rs"]
pub mod postgres;
pub mod row_reader;
pub mod row_stream;
pub mod server;
pub mod snapshot;
#[cfg(feature = "sqlite")]
pub mod sqlite;
#[cfg(not(feature = "sqlite"))]
#[path = "absent_sqlite.rs"]
pub mod sqlite;
pub mod statement;
pub mod text_rules;
pub mod value;

pub use answers::{AnswerBudget, AnswerHold, AnswerShare};
pub use claim::FleetClaims;
pub use engine::{ConnectionUsage, DatabaseTemplate, Engine, MigrationOutcome};
pub use error::{Error, ErrorKind, Result};
pub use fingerprint::{ClassSum, DatabaseFingerprint, RowSums, SchemaObjects, TableSum, class_difference};
pub use identity::{ExpectedIdentity, Identity, IdentityState};
pub use ids::{FleetId, Generation, OperationId, TenantId};
pub use inspection::{Inspection, InspectionDepth};
pub use listing::{ListedObject, ListedObjectKind, ServerListing};
pub use migration::{LedgerName, MigrationSet, MigrationSets};
pub use placement::{EngineKind, Placement};
pub use pool::{DatabaseSession, Pool};
pub use row_reader::{CellValue, RowCells, RowReader};
pub use row_stream::RowStream;
pub use server::{DatabaseServer, FunctionRights, RoleAudit, RoleFinding, ServerSurvey};
pub use snapshot::{RestoreOutcome, Snapshot, SnapshotImage, SnapshotInfo};
pub use statement::{AccessMode, AfterStatements, SessionLimits, SqlStatement};
pub use value::{Rows, SqlValue};
