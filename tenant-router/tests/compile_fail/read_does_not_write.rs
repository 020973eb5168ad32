//! A tenant that may be read cannot be written.
use tenant_router::{Read, Tenant};

pub async fn write(tenant: Tenant<Read>) {
    let _ = tenant.execute("delete from tasks", ()).await; //~ E0599
}
