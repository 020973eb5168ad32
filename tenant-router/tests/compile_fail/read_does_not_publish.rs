//! A tenant that was opened for reading publishes nothing.
use tenant_router::{Read, Tenant};

pub async fn shout(tenant: Tenant<Read>) {
    let _ = tenant.topic("tasks").unwrap().publish("hello").await; //~ E0599
}
