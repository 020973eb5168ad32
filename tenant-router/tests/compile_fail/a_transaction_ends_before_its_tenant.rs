//! A transaction does not outlive its tenant.
use tenant_router::{Read, ReadTx, Tenant};

pub fn keep(tenant: Tenant<Read>) -> ReadTx<'static, Read> {
    tenant.read() //~ E0515
}
