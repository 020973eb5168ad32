//! A tenant that may be read lends no driver that writes.
use tenant_router::{Read, Tenant};

pub async fn write(tenant: Tenant<Read>) {
    let _ = tenant.write_sqlx().await; //~ E0599
}
