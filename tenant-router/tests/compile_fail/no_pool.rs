//! The pool of a tenant is private.
use tenant_router::{Read, Tenant};

pub fn pool(tenant: Tenant<Read>) {
    let _ = &tenant.pool; //~ E0616
}
