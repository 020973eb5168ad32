//! The requests and answers of the admin API and of the data API: one definition, which the server and its clients share.
//!
//! A module holds the types of one noun. A request refuses fields that it does not know, so a mistyped option is never
//! ignored. An answer accepts them, so a client understands a newer server. Ids, states and times are text: a client
//! can show a value that only a newer server knows. Times are RFC 3339 in UTC.
//!
//! The crate knows no database and no HTTP. The OpenAPI document is made from these types.

pub mod accounts;
pub mod audit;
pub mod backups;
pub mod bounded_number;
pub mod changes;
pub mod doctor;
pub mod domains;
pub mod events;
pub mod history;
pub mod impersonations;
pub mod isolation;
pub mod jobs;
pub mod members;
pub mod migrations;
pub mod operations;
pub mod pages;
pub mod plans;
pub mod pointer;
pub mod problem;
pub mod queries;
pub mod readiness;
pub mod releases;
pub mod restores;
pub mod scrub;
pub mod secret_text;
pub mod selection;
pub mod servers;
pub mod statements;
pub mod status;
pub mod tenants;
pub mod tokens;
pub mod webhooks;
