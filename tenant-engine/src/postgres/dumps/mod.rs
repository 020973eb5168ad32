//! Dumps: makes them with `pg_dump`, checks what they hold, and loads them with `pg_restore`.
//!
//! `programs.rs` runs both programs, `contents.rs` examines a dump, and `load.rs` fills a database from it. `source.rs`
//! and `undumpable.rs` refuse a database that a dump could not hold completely.

pub(super) mod archive;
mod checks;
pub(super) mod contents;
mod generated;
mod grants;
pub(super) mod load;
pub(super) mod objects;
pub(super) mod programs;
mod restore_complaints;
pub(super) mod source;
pub(super) mod undumpable;
