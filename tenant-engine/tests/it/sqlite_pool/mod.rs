//! The request path on real SQLite files, through the public API only.

mod contention;
mod fence;
mod fixture;
mod lent;
mod lifecycle;
mod limits;
mod nesting;
mod requests;
mod sandbox;
mod stuck;
