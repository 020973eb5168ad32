//! Applies one version of a migration set to one open database, together with its row in the ledger.
//!
//! `apply.rs` is the entrance. The other files refuse statements that would break the engine's own records, and keep
//! foreign keys enforced while a table is rebuilt. `rules.rs` checks a text without a tenant's database.

pub(super) mod apply;
pub(super) mod foreign_keys;
pub(super) mod ledger;
pub(super) mod migration_guard;
mod pragmas;
mod references;
mod row_contents;
pub(super) mod rules;
mod script;
mod steps;
