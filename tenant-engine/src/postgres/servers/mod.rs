//! A server and the databases on it: how to connect, and what this process remembers about the server.
//!
//! It has the roles and logins with their rights and settings, the sessions of a database, and the claim that says
//! which copy of a fleet may use a server. `admin_connection.rs` is the connection of every engine operation.

pub(super) mod admin_connection;
pub(super) mod claim;
pub(super) mod database;
mod dsn;
pub(super) mod functions;
pub(super) mod locale;
pub(super) mod logins;
pub(super) mod migrator;
pub(super) mod own_tables;
pub(super) mod prepare;
pub(super) mod reassert;
pub(super) mod rights;
pub(super) mod server;
pub(super) mod server_state;
pub(super) mod sessions;
pub(super) mod settings;
