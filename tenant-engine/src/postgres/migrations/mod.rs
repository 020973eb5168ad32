//! Applies the pending versions of a migration set to one database, together with their rows in the ledger.
//!
//! `apply.rs` is the entrance. `script.rs` and `rules.rs` read the text of a version before it runs. `layout.rs` has
//! the objects that every tenant database holds besides its own tables.

pub(super) mod apply;
pub(super) mod failure;
pub(super) mod layout;
pub(super) mod ledger;
mod no_transaction;
pub(super) mod rules;
pub(super) mod script;
