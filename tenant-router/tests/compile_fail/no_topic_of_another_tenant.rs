//! A topic is made from its tenant, and from no text.
use tenant_router::realtime::TenantTopic;
use tenant_router::{Tenant, Write};

pub fn forge(tenant: &Tenant<Write>) -> TenantTopic<'_, Write> {
    TenantTopic { tenant, name: "globex/tasks".to_owned() } //~ E0451
}
