//! A lent transaction of `rusqlite` does not leave its thread.
use tenant_router::{Read, Tenant};

pub async fn keep(tenant: Tenant<Read>) {
    let kept = std::sync::Mutex::new(None);
    let _ = tenant.read_rusqlite(move |tx| Ok(*kept.lock().unwrap() = Some(tx))).await; //~ E0277
}
