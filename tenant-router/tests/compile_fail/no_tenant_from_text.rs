//! A tenant is not read from a message.
use tenant_router::{Json, Read, Tenant};

pub fn read(tenant: Tenant<Read>) {
    let _ = tenant.query_as::<Json<Tenant<Read>>>("select body from messages", ()); //~ E0277
}
