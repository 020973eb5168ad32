//! The record of a server, which holds tenant databases.

use serde::{Deserialize, Serialize};
use tenant_engine::placement::EngineKind;

use crate::ids::ServerId;
use crate::text_enum::TextEnum;

/// The state of a server, which decides whether it accepts new tenants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServerState {
    /// The server accepts new tenants.
    Active,
    /// The server serves its tenants and accepts no more.
    Cordoned,
    /// Its tenants are being moved to other servers.
    Draining,
    /// The server is removed; the row prevents reuse of its id.
    Removed,
}

/// One row of `servers`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerRecord {
    /// The id, which never changes.
    pub id: ServerId,
    /// The server's name for operators.
    pub name: String,
    /// The engine that serves its databases.
    pub engine: EngineKind,
    /// Absolute root directory (SQLite), or host:port without credentials (Postgres).
    pub base: String,
    /// The state of the server.
    pub state: ServerState,
    /// Maximum number of tenants; `None`: no limit.
    pub tenants_max: Option<i64>,
    /// Postgres: the cluster's system identifier, which is equal for all its addresses.
    pub system_id: Option<String>,
    /// Time when it was added, milliseconds since 1970.
    pub created_at: i64,
}

impl ServerState {
    /// The text of the state in the catalog and the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.stored_text()
    }
}

impl TextEnum for ServerState {
    const NOUN: &'static str = "state of a server";
    const WORDS: &'static [(Self, &'static str)] = &[
        (Self::Active, "active"),
        (Self::Cordoned, "cordoned"),
        (Self::Draining, "draining"),
        (Self::Removed, "removed"),
    ];
}
