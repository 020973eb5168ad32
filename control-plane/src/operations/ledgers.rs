//! What tenants have applied, for decisions about a whole run: by the release that the catalog knows of a tenant, else by
//! the ledger in the tenant's own database.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use catalog::{ReadTx, ReleaseId, ServerId, TenantId, TenantRecord};
use futures_util::StreamExt;
use tenant_engine::{Depth, EngineKind, MigrationSets};

use super::Fleet;
use crate::error::Result;
use crate::plan::ledgers::{Ledger, Ledgers, prefix};

/// Databases opened at once: as many as any server gives a background task without harm.
const AT_ONCE: usize = 8;
/// Databases opened for one decision. The catalog does not know the release of an adopted or restored tenant only; of
/// more than that, a run's own steps find what does not fit.
pub(crate) const READ_MAX: usize = 2_000;

/// Ledgers that were read; `None` where a database could not be read.
pub(crate) type ReadLedgers = HashMap<TenantId, Option<Arc<Ledger>>>;

/// What is known of some tenants.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// By what they have applied.
    pub(crate) ledgers: Ledgers,
    /// The catalog does not know their release, and their databases were not read yet.
    pub(crate) unread: Vec<TenantRecord>,
    /// Their databases cannot be read.
    pub(crate) unreadable: u64,
}

/// Groups tenants by what they have applied; a ledger that was read counts more than the catalog.
pub(crate) async fn known(tx: &mut ReadTx, tenants: &[TenantRecord], read: &ReadLedgers) -> Result<Known> {
    let servers = catalog::servers::list(tx).await?;
    let engines: HashMap<ServerId, EngineKind> = servers.into_iter().map(|(s, _)| (s.id, s.engine)).collect();
    let mut releases = HashMap::new();
    let ids: BTreeSet<ReleaseId> = tenants.iter().filter_map(|tenant| tenant.ledger_release_id).collect();
    for id in ids {
        releases.insert(id, MigrationSets::from_files(&catalog::releases::files(tx, id).await?)?);
    }
    let mut prefixes = HashMap::new();
    let mut known = Known::default();
    for tenant in tenants {
        let Some(engine) = engines.get(&tenant.server_id).copied() else { continue };
        match (read.get(&tenant.id), recorded(&mut prefixes, &releases, tenant, engine)) {
            (Some(Some(ledger)), _) => known.ledgers.add(engine, ledger, &tenant.name),
            (None, Some(ledger)) => known.ledgers.add(engine, &ledger, &tenant.name),
            (None, None) if known.unread.len() < READ_MAX => known.unread.push(tenant.clone()),
            (Some(None) | None, _) => known.unreadable += 1,
        }
    }
    Ok(known)
}

type Prefixes = HashMap<(Option<ReleaseId>, Option<i64>, EngineKind), Arc<Ledger>>;

/// What the catalog says that a tenant has applied.
fn recorded(
    prefixes: &mut Prefixes,
    releases: &HashMap<ReleaseId, MigrationSets>,
    tenant: &TenantRecord,
    engine: EngineKind,
) -> Option<Arc<Ledger>> {
    let (release, version) = (tenant.ledger_release_id, tenant.schema_version);
    let set = match (release, version) {
        (Some(release), _) => releases.get(&release)?.of(engine).ok(),
        (None, None) => None,
        (None, Some(_)) => return None,
    };
    let made = || Arc::new(set.map(|set| prefix(set, version)).unwrap_or_default());
    Some(Arc::clone(prefixes.entry((release, version, engine)).or_insert_with(made)))
}

/// Reads the ledgers of these tenants' databases.
pub(crate) async fn read(fleet: &Fleet, tenants: &[TenantRecord]) -> ReadLedgers {
    let one = |tenant: TenantRecord| async move { (tenant.id, read_one(fleet, &tenant).await.map(Arc::new)) };
    futures_util::stream::iter(tenants.to_vec()).map(one).buffer_unordered(AT_ONCE).collect().await
}

/// The ledger of a tenant's database; `None` when it cannot be read.
pub(crate) async fn read_one(fleet: &Fleet, tenant: &TenantRecord) -> Option<Ledger> {
    let (engine, at) = fleet.current(tenant).await.ok()?;
    let found = engine.inspect(&at, None, Depth::Ledger).await.ok()?;
    let mut ledger: Ledger = found.applied.into_iter().map(|row| (row.version, row.checksum)).collect();
    ledger.sort_unstable();
    Some(ledger)
}
