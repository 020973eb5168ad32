//! Does things to *one database*, on SQLite or Postgres.
//!
//! It knows placements (where a database is) and identities (whose it is), never names, operations or HTTP.
//! The router asks it for a [`Pool`] and runs statements through a [`Session`]; the control plane asks an
//! [`Engine`] to provision, migrate, snapshot, restore, stamp, inspect and drop.
//! Every verb that opens a database takes the [`Expected`] identity and refuses any other.

pub mod answers;
#[cfg(feature = "test-util")]
pub mod conformance;
pub mod disk;
pub mod engine;
pub mod error;
#[cfg(feature = "test-util")]
pub mod fake;
pub mod fingerprint;
pub mod found;
pub mod identity;
pub mod ids;
pub mod inspection;
pub mod migration;
pub mod placement;
pub mod pool;
pub mod postgres;
pub mod server;
pub mod snapshot;
pub mod sqlite;
pub mod value;

pub use answers::{AnswerBudget, AnswerHold, AnswerShare};
pub use engine::{Connections, Engine, Migrated, Template};
pub use error::{Error, ErrorKind, Result};
pub use fingerprint::{ClassSum, Fingerprint, Objects, RowSums, TableSum, class_difference};
pub use found::{Found, FoundKind, Listing};
pub use identity::{Expected, Identity, IdentityState};
pub use ids::{FleetId, Generation, OperationId, TenantId};
pub use inspection::{Depth, Inspection};
pub use migration::{MigrationSet, MigrationSets};
pub use placement::{EngineKind, Placement};
pub use pool::{Access, After, Limits, Pool, Session, Statement};
pub use server::{FunctionRights, RoleAudit, RoleFinding, Server, Survey};
pub use snapshot::{Image, Restored, Snapshot, SnapshotInfo};
pub use value::{Rows, Value};
