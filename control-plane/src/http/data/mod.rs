//! The data API: tenants' statements. Everything goes through the router, which alone decides who reaches what.

pub(crate) mod document;
pub(crate) mod opened;
pub(crate) mod sql;
pub(crate) mod statements;
pub(crate) mod value;
