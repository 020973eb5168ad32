//! A lent transaction of `rusqlite` does not name its file.
use tenant_router::{Read, Tenant};

pub async fn path(tenant: Tenant<Read>) {
    let _ = tenant.read_rusqlite(|tx| Ok(tx.path().map(str::to_owned))).await; //~ E0599
}
