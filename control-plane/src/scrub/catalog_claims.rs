//! Reads everything that the catalog records about databases, at one moment.

use std::collections::{BTreeMap, HashSet};

use catalog::retained::RetainedRecord;
use catalog::tenants::TenantCriteria;
use catalog::{Catalog, ReadTx, ServerRecord, TenantId, TenantRecord, TenantState, retained, servers, steps, tenants};
use tenant_engine::FleetId;

use crate::error::Result;

/// Tenants read per statement.
const PAGE: u32 = 10_000;

/// Includes tenants without a database, so that leftovers of a database can be reported with the tenant's name.
const EVERY_STATE: [TenantState; 6] = [
    TenantState::Provisioning,
    TenantState::Active,
    TenantState::Suspended,
    TenantState::Archived,
    TenantState::Deleted,
    TenantState::Purged,
];

/// The catalog's side of the comparison.
#[derive(Debug, Clone)]
pub(super) struct CatalogClaims {
    pub(super) fleet: FleetId,
    /// When the catalog was read, milliseconds since 1970.
    pub(super) now: i64,
    /// Servers, without removed ones.
    pub(super) servers: Vec<ServerRecord>,
    pub(super) tenants: BTreeMap<TenantId, TenantRecord>,
    pub(super) retained: Vec<RetainedRecord>,
    /// Tenants with a running or pending step. Their databases are about to change.
    pub(super) busy: HashSet<TenantId>,
}

impl CatalogClaims {
    /// Reads all claims in one transaction.
    pub(super) async fn read_claims(catalog: &Catalog) -> Result<Self> {
        let mut tx = catalog.read().await?;
        let servers: Vec<ServerRecord> =
            servers::list_servers(&mut tx).await?.into_iter().map(|(server, _)| server).collect();
        let mut kept = Vec::new();
        for server in &servers {
            kept.extend(retained::on_server(&mut tx, server.id).await?);
        }
        let tenants = every_tenant(&mut tx).await?;
        let mut busy: HashSet<TenantId> = steps::unfinished_tenants(&mut tx).await?.into_iter().collect();
        busy.extend(tenants.values().filter(|tenant| tenant.op_id.is_some()).map(|tenant| tenant.id));
        Ok(Self { fleet: catalog.fleet_id(), now: tx.now(), servers, tenants, retained: kept, busy })
    }
}

async fn every_tenant(tx: &mut ReadTx) -> Result<BTreeMap<TenantId, TenantRecord>> {
    let every = TenantCriteria { states: EVERY_STATE.to_vec(), ..TenantCriteria::default() };
    let (mut all, mut after) = (BTreeMap::new(), None);
    loop {
        let page = tenants::list_tenants(tx, &every, after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(all) };
        after = Some(last.id);
        all.extend(page.into_iter().map(|tenant| (tenant.id, tenant)));
    }
}
