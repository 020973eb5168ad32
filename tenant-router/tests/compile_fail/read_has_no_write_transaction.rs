//! A tenant that may be read has no transaction that writes.
use tenant_router::{Read, Tenant};

pub async fn write(tenant: Tenant<Read>) {
    let _ = tenant.write(); //~ E0599
}
