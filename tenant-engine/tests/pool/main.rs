//! The request path on real SQLite files, through the public API only.

mod fixture;
mod requests;
