//! The PostgreSQL engine's verbs on real servers, one file per noun.

mod adopting;
mod audit;
mod child;
mod conformance;
mod crash;
mod families;
mod faults;
mod freeze;
mod function_families;
mod kit;
mod ledger_name;
mod logins;
mod migrate;
mod migrator;
mod proof;
mod refused;
mod rights;
mod row_sums;
mod settings;
mod snapshot;
mod sqlx_compat;
mod template;
mod writers;
