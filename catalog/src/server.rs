//! A place databases live.

use serde::{Deserialize, Serialize};
use tenant_engine::placement::EngineKind;

use crate::ids::ServerId;
use crate::word::Word;

/// Whether a server takes new tenants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServerState {
    /// Takes new tenants.
    Active,
    /// Serves what it has, takes no more.
    Cordoned,
    /// Being emptied.
    Draining,
    /// Gone; the row keeps its id from being reused.
    Removed,
}

/// One row of `servers`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerRecord {
    /// For ever.
    pub id: ServerId,
    /// What operators call it.
    pub name: String,
    /// What it runs.
    pub engine: EngineKind,
    /// Absolute root directory (SQLite), or host:port without credentials (Postgres).
    pub base: String,
    /// See [`ServerState`].
    pub state: ServerState,
    /// `None`: no limit.
    pub tenants_max: Option<i64>,
    /// Postgres: the cluster's own system identifier, the same under every address.
    pub system_id: Option<String>,
    /// Milliseconds since 1970.
    pub created_at: i64,
}

impl Word for ServerState {
    const NOUN: &'static str = "state of a server";
    const WORDS: &'static [(Self, &'static str)] = &[
        (Self::Active, "active"),
        (Self::Cordoned, "cordoned"),
        (Self::Draining, "draining"),
        (Self::Removed, "removed"),
    ];
}
