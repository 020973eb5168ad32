//! Builds a tenant's database, and replaces the current one: restore, its undo, move and archive.
//!
//! The flow: an operation *fences* the current database, so that its writes wait. It makes the new database *ready*. It
//! *swaps* the two. Or it *rolls back*, and the current database serves again. The catalog's table `replacements` says
//! how far it is, from the fence to the end. Any operation, process or operator that comes later reads that row.
//!
//! Each step of this flow has three parts, in this order:
//! - `observe.rs` reads the row and the identities of the two databases. It changes nothing.
//! - `decide.rs` is pure. One function decides which database serves, another which database may be dropped.
//! - `act.rs` does it: stamps and drops, each repeatable. The effects on the catalog go through the recorder.
//!
//! `swap.rs` and `roll_back.rs` are the phases that several operations share. `failed_step.rs` cleans up after a step
//! that failed, `leftovers.rs` after earlier attempts. `latest.rs` finds the current database when the catalog does not
//! know it. `older_facts.rs` reads replacements that the previous release of this program left unfinished.
//!
//! The parts that also serve new tenants: `build.rs` makes a database, `image.rs` stores and restores one, `stamp.rs`
//! writes identities, `fence.rs` says which operations may start on a blocked tenant, `backup_trust.rs` decides which
//! backup may be used. `state.rs` reads and describes the record of a replacement; `retained.rs` drops expired databases.

pub(crate) mod act;
pub(crate) mod backup_trust;
pub(crate) mod build;
pub(crate) mod decide;
pub(crate) mod failed_step;
pub(crate) mod fence;
pub(crate) mod image;
pub(crate) mod latest;
pub(crate) mod leftovers;
pub(crate) mod observe;
mod older_facts;
pub(crate) mod retained;
pub(crate) mod roll_back;
pub(crate) mod stamp;
pub(crate) mod state;
pub(crate) mod swap;
