//! The engine's verbs on real files, one file per noun.

mod backup;
mod child;
mod conformance;
mod crash;
mod kit;
mod migrate;
mod provision;
mod sqlx_compat;
mod stamp;
mod storage;
