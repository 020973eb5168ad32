//! What every catalog must do, on a real Postgres, and what only a server can do wrong. The suite opens a world of this
//! module.

mod copying;
mod feed;
mod refusals;
mod restarts;
#[path = "../suite/mod.rs"]
mod suite;
mod world;
