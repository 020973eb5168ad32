//! Whether a tenant stays at the schema it has.
//!
//! A restore, an undo or a repair may bring a tenant a database whose schema is older than the tenant's was. The versions
//! in between may hold the very mistake that the tenant was taken back from. So the tenant is pinned: it keeps that
//! schema until somebody migrates it by name. Migrations of many tenants leave it out and say so.

use catalog::{Pin, TenantRecord};
use tenant_engine::Depth;

use super::{Fleet, Left, Step};
use crate::error::Result;

/// The code of a tenant that is left out because of its pin.
const PINNED: &str = "tenant_pinned";

/// How far a tenant's schema was, before another database takes the place of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Before {
    pub(super) version: Option<i64>,
    pub(super) pin: Option<Pin>,
}

impl Before {
    /// By the catalog's word.
    pub(super) fn known(tenant: &TenantRecord) -> Self {
        Self { version: tenant.schema_version, pin: tenant.pin }
    }

    /// By the database's own word, where it can be read: a migration that failed half-way may have got further than the
    /// catalog says.
    pub(super) async fn read(fleet: &Fleet, tenant: &TenantRecord) -> Result<Self> {
        let known = Self::known(tenant);
        let (engine, at) = fleet.current(tenant).await?;
        match engine.inspect(&at, None, Depth::Ledger).await {
            Ok(found) if found.identity.tenant == tenant.id => {
                Ok(Self { version: known.version.max(found.schema_version()), ..known })
            }
            Err(error) if error.kind().is_transient() => Err(error.into()),
            // It is damaged or gone, which may be why it is replaced.
            Ok(_) | Err(_) => Ok(known),
        }
    }

    /// How far it ever was, by what it is pinned for.
    fn below(self) -> Option<i64> {
        self.version.max(self.pin.map(|pin| pin.below))
    }

    /// PURE: whether `version` is a step back.
    pub(super) fn is_back_at(self, version: Option<i64>) -> bool {
        version < self.below()
    }

    /// PURE: the pin of the tenant when its database is at `version` from now on. A tenant that was pinned stays so until
    /// it is as far as it was before the first step back.
    pub(super) fn pin(self, version: Option<i64>, step: &Step) -> Option<Pin> {
        let below = self.below().filter(|_| self.is_back_at(version))?;
        match self.pin {
            Some(pin) if version == self.version => Some(pin),
            _ => Some(Pin { below, at: step.now, op: step.op.id }),
        }
    }
}

/// Why a migration of many tenants leaves this one out; `None` where it is not pinned.
pub(super) fn left_out(tenant: &TenantRecord) -> Option<Left> {
    tenant.pin.map(|pin| Left::is(PINNED, tenant, &told(tenant, &pin)))
}

/// Where a tenant is pinned, since when and by what.
fn told(tenant: &TenantRecord, pin: &Pin) -> String {
    let since = jiff::Timestamp::from_millisecond(pin.at).map(|at| at.to_string()).unwrap_or_default();
    format!("pinned at {} since {since}, by {}", version_text(tenant.schema_version), pin.op)
}

/// A version in words.
pub(super) fn version_text(version: Option<i64>) -> String {
    version.map_or_else(|| "no version".to_owned(), |version| format!("version {version}"))
}
