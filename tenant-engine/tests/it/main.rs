//! The engine's verbs on real files, one file per noun.

mod backup;
mod conformance;
mod kit;
mod migrate;
mod provision;
mod sqlx_compat;
mod stamp;
