//! Access to the databases behind the application, where the kit has it.

use async_trait::async_trait;

use crate::canary::Canaries;
use crate::error::Result;
use crate::world::Side;

/// The databases of both tenants. With it, the kit plants rows with the same keys in every table, and sees changes that no
/// route shows.
#[async_trait]
pub trait TenantDatabases: Send + Sync {
    /// Adds rows to every table of the tenant: keys that the other tenant's rows have, too, and a canary in every text column.
    /// Returns the columns that got canaries.
    ///
    /// # Errors
    /// `planting_failed` when a database cannot be written.
    async fn plant_rows(&self, side: Side, canaries: &Canaries) -> Result<Vec<String>>;

    /// A hash of all rows of the tenant's database.
    ///
    /// # Errors
    /// `fingerprint_failed` when a database cannot be read.
    async fn fingerprint(&self, side: Side) -> Result<String>;
}

/// Changes of the whole fleet between two requests. Probes of remembered values use it.
#[async_trait]
pub trait FleetControl: Send + Sync {
    /// Backs the tenant up, and returns a name for [`FleetControl::restore`].
    ///
    /// # Errors
    /// `fleet_change_failed`, as for all changes.
    async fn back_up(&self, side: Side) -> Result<String>;

    /// Restores the tenant in place from that backup.
    ///
    /// # Errors
    /// `fleet_change_failed`.
    async fn restore(&self, side: Side, backup: &str) -> Result<()>;

    /// Suspends the tenant: it serves nobody.
    ///
    /// # Errors
    /// `fleet_change_failed`.
    async fn suspend(&self, side: Side) -> Result<()>;

    /// Ends the suspension.
    ///
    /// # Errors
    /// `fleet_change_failed`.
    async fn resume(&self, side: Side) -> Result<()>;

    /// Waits until the application knows all changes that were made.
    async fn settle(&self);
}
