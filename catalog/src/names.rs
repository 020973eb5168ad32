//! Who a name belongs to, now and for ever.

use crate::db::{ReadTx, WriteTx};
use crate::error::Result;
use crate::ids::TenantId;
use crate::name::{Name, NameKind};

/// The tenant a name leads to, whatever kind of name and whatever state the tenant is in.
pub async fn resolve(_tx: &mut ReadTx, _name: &Name) -> Result<Option<TenantId>> {
    todo!()
}
/// Which of these names are taken, and by whom. For thousands at once.
pub async fn taken(_tx: &mut ReadTx, _names: &[Name]) -> Result<Vec<(Name, TenantId)>> {
    todo!()
}
/// Reserves a name for ever. Fails with `AlreadyExists`.
pub async fn insert(_tx: &mut WriteTx, _name: &Name, _tenant: TenantId, _kind: NameKind) -> Result<()> {
    todo!()
}
/// All names of one tenant, the current slug first.
pub async fn of_tenant(_tx: &mut ReadTx, _tenant: TenantId) -> Result<Vec<(Name, NameKind)>> {
    todo!()
}
