//! The data API: tenants' statements. Every request goes through the router, which alone decides about access.

pub(crate) mod audit;
pub(crate) mod document;
pub(crate) mod opened_tenant;
pub(crate) mod sql;
pub(crate) mod statements;
pub(crate) mod value;
