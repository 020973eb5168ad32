//! A tenant leads to no other tenant.
use tenant_router::{Read, Tenant};

pub async fn other(tenant: Tenant<Read>) {
    let _ = tenant.at::<Read>("globex").await; //~ E0061
}
