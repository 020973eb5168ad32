//! The fleet behind the application: its databases and its control plane.

mod changes;
mod databases;
mod tables;
mod tenants;

pub use changes::{FleetAdmin, FleetChanges};
pub use databases::FleetDatabases;
pub use tenants::FleetTenants;
