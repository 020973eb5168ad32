//! The admin API, one file per noun: its JSON shapes, its handlers and its `routes()`.

pub(crate) mod change;
pub(crate) mod lookup;
pub(crate) mod selection;

pub(crate) mod backups;
pub(crate) mod doctor;
mod doctor_certificate;
mod doctor_places;
mod event_kinds;
pub(crate) mod events;
pub(crate) mod history;
pub(crate) mod lifecycle;
pub(crate) mod members;
pub(crate) mod migrations;
pub(crate) mod operation_control;
pub(crate) mod operations;
pub(crate) mod pins;
pub(crate) mod queries;
pub(crate) mod releases;
pub(crate) mod restores;
mod schema_state;
pub(crate) mod scrub;
mod server_base;
pub(crate) mod server_drain;
pub(crate) mod server_entry;
mod server_move;
pub(crate) mod servers;
pub(crate) mod status;
pub(crate) mod tenant_adopt;
pub(crate) mod tenant_describe;
pub(crate) mod tenant_work;
pub(crate) mod tenants;
pub(crate) mod tokens;
