//! Operators: who may use the admin API, and for what. Tenants' members are the router's business.

pub mod operator;
pub mod policy;
