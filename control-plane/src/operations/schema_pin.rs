//! Decides whether a tenant stays at its schema.
//!
//! A restore, an undo or a repair may give a tenant a database whose schema is older than the tenant's was. The
//! versions in between may contain the very mistake that was being undone. So the tenant is pinned: it keeps that
//! schema until it is migrated by name. Migrations of many tenants leave it out and report that.

use catalog::{SchemaPin, TenantRecord};
use tenant_engine::InspectionDepth;

use crate::error::{ErrorKind, Result};
use crate::operation::{ClaimedStep, ExclusionReason, StepContext};

/// The tenant's schema before another database replaces its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct PreviousSchema {
    pub(super) version: Option<i64>,
    pub(super) pin: Option<SchemaPin>,
}

impl PreviousSchema {
    /// The schema that the catalog records.
    pub(super) fn from_catalog(tenant: &TenantRecord) -> Self {
        Self { version: tenant.schema_version, pin: tenant.pin }
    }

    /// The schema that the database's own ledger shows, if it can be read. A migration that failed half-way may have
    /// got further than the catalog records.
    pub(super) async fn from_database(context: &StepContext, tenant: &TenantRecord) -> Result<Self> {
        let known = Self::from_catalog(tenant);
        let (engine, at) = context.current_database(tenant).await?;
        match engine.inspect_database(&at, None, InspectionDepth::Ledger).await {
            Ok(found) if found.identity.tenant == tenant.id => {
                Ok(Self { version: known.version.max(found.schema_version()), ..known })
            }
            Err(error) if error.kind().is_transient() => Err(error.into()),
            // The database is damaged or missing, which may be why it is replaced.
            Ok(_) | Err(_) => Ok(known),
        }
    }

    /// The highest version that the tenant ever had: its own, or that from before it was pinned.
    fn version_before(self) -> Option<i64> {
        self.version.max(self.pin.map(|pin| pin.below))
    }

    /// PURE: whether `version` is older than the tenant's highest version.
    pub(super) fn is_back_at(self, version: Option<i64>) -> bool {
        version < self.version_before()
    }

    /// PURE: the tenant's pin once its database is at `version`. A pinned tenant stays pinned until it reaches the
    /// version that it had before the first step back.
    pub(super) fn pin_at(self, version: Option<i64>, step: &ClaimedStep) -> Option<SchemaPin> {
        let below = self.version_before().filter(|_| self.is_back_at(version))?;
        match self.pin {
            Some(pin) if version == self.version => Some(pin),
            _ => Some(SchemaPin { below, at: step.now, op: step.op.id }),
        }
    }
}

/// The reason why a migration of many tenants leaves this one out. `None` if it is not pinned.
pub(super) fn left_out(tenant: &TenantRecord) -> Option<ExclusionReason> {
    tenant
        .pin
        .map(|pin| ExclusionReason::because_tenant_is(ErrorKind::TenantPinned, tenant, &describe_pin(tenant, &pin)))
}

/// The version at which a tenant is pinned, since when, and by which operation.
fn describe_pin(tenant: &TenantRecord, pin: &SchemaPin) -> String {
    let since = jiff::Timestamp::from_millisecond(pin.at).map(|at| at.to_string()).unwrap_or_default();
    format!("pinned at {} since {since}, by {}", version_text(tenant.schema_version), pin.op)
}

/// A version in words.
pub(super) fn version_text(version: Option<i64>) -> String {
    version.map_or_else(|| "no version".to_owned(), |version| format!("version {version}"))
}
