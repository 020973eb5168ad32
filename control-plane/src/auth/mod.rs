//! Operators: who may use the admin API, and for what. Members of tenants are handled by the router.

pub mod operator;
pub mod policy;
