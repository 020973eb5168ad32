//! What every catalog must do, on SQLite, and what only a file can do wrong. The suite opens a world of this module.

mod files;
#[path = "../suite/mod.rs"]
mod suite;
mod world;
