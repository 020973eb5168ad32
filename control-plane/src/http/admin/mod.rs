//! The admin API, one file or folder per noun: its handlers and its `routes()`. The requests and answers are in the
//! crate `fleet-api`.

pub(crate) mod accounts;
pub(crate) mod change;
pub(crate) mod lookup;
pub(crate) mod selection;

pub(crate) mod backups;
pub(crate) mod doctor;
pub(crate) mod domains;
pub(crate) mod events;
pub(crate) mod history;
pub(crate) mod impersonations;
pub(crate) mod isolation;
pub(crate) mod jobs;
pub(crate) mod members;
pub(crate) mod migrations;
pub(crate) mod operations;
pub(crate) mod plans;
pub(crate) mod queries;
pub(crate) mod releases;
pub(crate) mod restores;
pub(crate) mod scrub;
pub(crate) mod servers;
pub(crate) mod status;
pub(crate) mod tenants;
pub(crate) mod tokens;
pub(crate) mod webhooks;
mod words;
