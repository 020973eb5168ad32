//! The migrations that tenants have applied, for decisions about a whole run. The source is the release that the
//! catalog records for a tenant. If there is none, it is the ledger in the tenant's own database.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use catalog::{ReadTx, ReleaseId, ServerId, TenantId, TenantRecord};
use futures_util::StreamExt;
use tenant_engine::{EngineKind, InspectionDepth, MigrationSets};

use super::StepContext;
use crate::error::Result;
use crate::plan::ledgers::{AppliedLedger, FleetLedgers, applied_prefix};

/// Databases opened at once: few enough not to burden any server with a background task.
const AT_ONCE: usize = 8;
/// Databases opened for one decision. The catalog lacks the release only of adopted and restored tenants. Beyond this
/// limit, the run's own steps find ledgers that do not fit.
pub(crate) const READ_MAX: usize = 2_000;

/// Ledgers by tenant. `None` if the database could not be read.
pub(crate) type ReadLedgers = HashMap<TenantId, Option<Arc<AppliedLedger>>>;

/// Known ledgers of some tenants, added page by page.
#[derive(Debug, Default)]
pub(crate) struct KnownLedgers {
    /// The tenants, grouped by their applied migrations.
    pub(crate) ledgers: FleetLedgers,
    /// Tenants whose release the catalog does not know, and whose databases were not read yet.
    pub(crate) unread: Vec<TenantRecord>,
    /// Tenants whose databases cannot be read.
    pub(crate) unreadable: u64,
    /// Servers and releases from the catalog, read once for all pages.
    sources: LedgerSources,
}

/// The records from which a tenant's ledger is derived.
#[derive(Debug, Default)]
struct LedgerSources {
    engines: HashMap<ServerId, EngineKind>,
    releases: HashMap<ReleaseId, MigrationSets>,
    prefixes: HashMap<(Option<ReleaseId>, Option<i64>, EngineKind), Arc<AppliedLedger>>,
}

/// Groups tenants by their applied migrations. A ledger read from a database takes precedence over the catalog.
pub(crate) async fn group_ledgers(
    tx: &mut ReadTx,
    tenants: &[TenantRecord],
    read: &ReadLedgers,
) -> Result<KnownLedgers> {
    let mut known = KnownLedgers::default();
    known.add_tenants(tx, tenants, read).await?;
    Ok(known)
}

impl KnownLedgers {
    /// Adds one page of tenants.
    pub(crate) async fn add_tenants(
        &mut self,
        tx: &mut ReadTx,
        tenants: &[TenantRecord],
        read: &ReadLedgers,
    ) -> Result<()> {
        self.sources.load_sources(tx, tenants).await?;
        for tenant in tenants {
            let Some(engine) = self.sources.engines.get(&tenant.server_id).copied() else { continue };
            match (read.get(&tenant.id), self.sources.recorded_ledger(tenant, engine)) {
                (Some(Some(ledger)), _) => self.ledgers.add_tenant(engine, ledger, &tenant.name),
                (None, Some(ledger)) => self.ledgers.add_tenant(engine, &ledger, &tenant.name),
                (None, None) if self.unread.len() < READ_MAX => self.unread.push(tenant.clone()),
                (Some(None) | None, _) => self.unreadable += 1,
            }
        }
        Ok(())
    }
}

impl LedgerSources {
    /// Reads the servers once, and each release when a tenant first names it.
    async fn load_sources(&mut self, tx: &mut ReadTx, tenants: &[TenantRecord]) -> Result<()> {
        if self.engines.is_empty() {
            let servers = catalog::servers::list_servers(tx).await?;
            self.engines = servers.into_iter().map(|(server, _)| (server.id, server.engine)).collect();
        }
        let named: BTreeSet<ReleaseId> = tenants.iter().filter_map(|tenant| tenant.ledger_release_id).collect();
        for id in named {
            if let Entry::Vacant(unread) = self.releases.entry(id) {
                unread.insert(MigrationSets::from_files(&catalog::releases::release_files(tx, id).await?)?);
            }
        }
        Ok(())
    }

    /// The ledger that the catalog records for a tenant.
    fn recorded_ledger(&mut self, tenant: &TenantRecord, engine: EngineKind) -> Option<Arc<AppliedLedger>> {
        let (release, version) = (tenant.ledger_release_id, tenant.schema_version);
        let set = match (release, version) {
            (Some(release), _) => self.releases.get(&release)?.for_engine(engine).ok(),
            (None, None) => None,
            (None, Some(_)) => return None,
        };
        let made = || Arc::new(set.map(|set| applied_prefix(set, version)).unwrap_or_default());
        Some(Arc::clone(self.prefixes.entry((release, version, engine)).or_insert_with(made)))
    }
}

/// Reads the ledgers of these tenants' databases.
pub(crate) async fn read_ledgers(context: &StepContext, tenants: &[TenantRecord]) -> ReadLedgers {
    let one = |tenant: TenantRecord| async move { (tenant.id, read_one(context, &tenant).await.map(Arc::new)) };
    futures_util::stream::iter(tenants.to_vec()).map(one).buffer_unordered(AT_ONCE).collect().await
}

/// The ledger of a tenant's database. `None` if it cannot be read.
pub(crate) async fn read_one(context: &StepContext, tenant: &TenantRecord) -> Option<AppliedLedger> {
    let (engine, at) = context.current_database(tenant).await.ok()?;
    let found = engine.inspect_database(&at, None, InspectionDepth::Ledger).await.ok()?;
    let mut ledger: AppliedLedger = found.applied.into_iter().map(|row| (row.version, row.checksum)).collect();
    ledger.sort_unstable();
    Some(ledger)
}
