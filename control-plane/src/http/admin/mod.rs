//! The admin API, one file per noun: its JSON shapes, its handlers and its `routes()`.

pub(crate) mod lookup;

pub(crate) mod events;
pub(crate) mod members;
pub(crate) mod operations;
pub(crate) mod releases;
pub(crate) mod servers;
pub(crate) mod tenants;
pub(crate) mod tokens;
