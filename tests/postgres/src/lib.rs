//! Throw-away PostgreSQL servers: real ones, started for one test and gone with it.
//!
//! A [`Cluster`] is a copy of a data directory that `initdb` made once per machine, run by a user that is not root
//! (PostgreSQL refuses root), on a free port of the loopback address. It is stopped by its process id when dropped, and
//! by the kernel when the test's process is killed. Several run side by side.
//!
//! The role [`ROLE`] is what a fleet is given: no superuser, CREATEDB and CREATEROLE. Only [`Cluster::psql`] is the
//! superuser, over a socket that nobody else can reach.

mod cluster;
mod tools;

pub use cluster::{Cluster, Settings};
pub use tools::{PASSWORD, ROLE, bin};
