//! No other level exists.
use tenant_router::AccessLevel;

pub enum Everything {}
impl AccessLevel for Everything { //~ E0277
    const ACCESS: tenant_router::Access = tenant_router::Access::Manage;
}
