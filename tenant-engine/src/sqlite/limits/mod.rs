//! Bounds on what SQLite computes: how deep and large a statement or a schema may be, how long a function may run, how
//! much memory the process takes, and how much a statement writes to temporary files.
//!
//! They protect all tenants of a process from the SQL and the files of one. Every connection uses them.

pub(super) mod complexity;
pub(super) mod functions;
pub(super) mod heap;
pub(super) mod schema;
pub(super) mod temp_files;
pub(super) mod tokens;
mod views;
