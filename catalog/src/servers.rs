//! The rows of servers.

use crate::db::{ReadTx, WriteTx};
use crate::error::Result;
use tenant_engine::placement::EngineKind;

use crate::ids::ServerId;
use crate::server::{ServerRecord, ServerState};

/// Adds a server. Fails with `AlreadyExists`.
pub async fn insert(
    _tx: &mut WriteTx,
    _name: &str,
    _engine: EngineKind,
    _base: &str,
    _tenants_max: Option<i64>,
) -> Result<ServerRecord> {
    todo!()
}
/// One server by its id.
pub async fn get(_tx: &mut ReadTx, _id: ServerId) -> Result<Option<ServerRecord>> {
    todo!()
}
/// One server by its name.
pub async fn by_name(_tx: &mut ReadTx, _name: &str) -> Result<Option<ServerRecord>> {
    todo!()
}
/// All servers that are not removed, with the number of tenant databases on each, by name. A fleet has few.
pub async fn list(_tx: &mut ReadTx) -> Result<Vec<(ServerRecord, i64)>> {
    todo!()
}
/// Changes the state. Removing a server that holds tenants fails with `Conflict`.
pub async fn set_state(_tx: &mut WriteTx, _id: ServerId, _state: ServerState) -> Result<()> {
    todo!()
}
