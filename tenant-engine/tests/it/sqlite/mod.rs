//! The engine's verbs on real files, one file per noun.

mod aside;
mod backup;
mod child;
mod conformance;
mod crash;
mod hostile_schema;
mod inspect;
mod kit;
mod ledger_name;
mod memory;
mod migrate;
mod pragmas;
mod provision;
mod references;
mod sqlx_compat;
mod stamp;
mod storage;
mod temp_files;
