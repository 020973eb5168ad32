//! A tenant of one level is not one of another level.
use tenant_router::{Read, Tenant, Write};

async fn delete_all(_: Tenant<Write>) {}
pub async fn read(tenant: Tenant<Read>) {
    delete_all(tenant).await; //~ E0308
}
