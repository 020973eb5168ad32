//! Nothing but the router makes a tenant.
use tenant_router::{Read, Tenant};

pub fn copy(tenant: Tenant<Read>) -> Tenant<Read> {
    tenant.clone() //~ E0599
}
