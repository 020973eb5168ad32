//! What the catalog says about databases, all of it, at one moment.

use std::collections::{BTreeMap, HashSet};

use catalog::retained::RetainedRecord;
use catalog::tenants::Selection;
use catalog::{Catalog, ReadTx, ServerRecord, TenantId, TenantRecord, TenantState, retained, servers, steps, tenants};
use tenant_engine::FleetId;

use crate::error::Result;

/// Tenants read with one statement.
const PAGE: u32 = 10_000;

/// Also those that have no database any more: what is left of one has a name to be called by.
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
pub(super) struct Claims {
    pub(super) fleet: FleetId,
    /// Milliseconds since 1970.
    pub(super) now: i64,
    /// Not those that were removed.
    pub(super) servers: Vec<ServerRecord>,
    pub(super) tenants: BTreeMap<TenantId, TenantRecord>,
    pub(super) retained: Vec<RetainedRecord>,
    /// Tenants with a step that runs or is still to run: what they have is about to change.
    pub(super) busy: HashSet<TenantId>,
}

impl Claims {
    /// Reads everything in one transaction.
    pub(super) async fn read(catalog: &Catalog) -> Result<Self> {
        let mut tx = catalog.read().await?;
        let servers: Vec<ServerRecord> = servers::list(&mut tx).await?.into_iter().map(|(server, _)| server).collect();
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
    let every = Selection { states: EVERY_STATE.to_vec(), ..Selection::default() };
    let (mut all, mut after) = (BTreeMap::new(), None);
    loop {
        let page = tenants::page(tx, &every, after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(all) };
        after = Some(last.id);
        all.extend(page.into_iter().map(|tenant| (tenant.id, tenant)));
    }
}
