//! Inserts new tenants, thousands at once.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::bulk::{TEXT, dynamic_query, sized_chunks, values_clause};
use crate::changes;
use crate::db::WriteTx;
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{ServerId, TenantId};
use crate::name::{NameKind, TenantName};
use crate::names;
use crate::plans;
use crate::tenants::labels::insert_labels;

/// The initial values of a new tenant.
#[derive(Debug, Clone)]
pub struct NewTenant {
    /// A new id, made by the caller.
    pub id: TenantId,
    /// The tenant's slug.
    pub name: TenantName,
    /// The server for its database.
    pub server_id: ServerId,
    /// The tenant's labels.
    pub labels: BTreeMap<String, String>,
    /// The name of the tenant's plan, which exists.
    pub plan: Option<String>,
}

/// Inserts many tenants in state `provisioning`, generation 1, with their names and labels; appends to the change feed.
/// All or nothing.
///
/// # Errors
/// `AlreadyExists` naming the first taken name (or the first that is given twice), `NotFound` for a server or a plan,
/// `Invalid` for a label.
pub async fn insert_many(tx: &mut WriteTx, tenants: &[NewTenant]) -> Result<()> {
    let slugs: Vec<TenantName> = tenants.iter().map(|tenant| tenant.name.clone()).collect();
    refuse_twice(&slugs)?;
    names::refuse_taken(tx, &slugs).await?;
    for plan in tenants.iter().filter_map(|tenant| tenant.plan.as_deref()).collect::<BTreeSet<_>>() {
        plans::require(tx, plan).await?;
    }
    for chunk in sized_chunks(tenants) {
        insert_rows(tx, chunk).await?;
    }
    let reserved: Vec<(&TenantName, TenantId)> = tenants.iter().map(|tenant| (&tenant.name, tenant.id)).collect();
    names::insert_names(tx, &reserved, NameKind::Slug).await?;
    insert_labels(tx, tenants).await?;
    let ids: Vec<TenantId> = tenants.iter().map(|tenant| tenant.id).collect();
    changes::append_changes(tx, &ids).await
}

fn refuse_twice(slugs: &[TenantName]) -> Result<()> {
    let mut seen = HashSet::new();
    match slugs.iter().find(|name| !seen.insert(*name)) {
        Some(name) => Err(Error::new(ErrorKind::AlreadyExists, format!("the name '{name}' is given twice"))),
        None => Ok(()),
    }
}

async fn insert_rows(tx: &mut WriteTx, tenants: &[NewTenant]) -> Result<()> {
    let after = tenants.len() * 4;
    let sql = format!(
        "with v(id, name, server_id, plan) as ({}) insert into tenants (id, name, state, server_id, generation, \
         placement_epoch, protected, created_at, updated_at, plan) \
         select id, name, 'provisioning', server_id, 1, 0, 0, cast(${now} as bigint), cast(${now} as bigint), plan from v",
        values_clause(tenants.len(), &[TEXT, TEXT, TEXT, TEXT]),
        now = after + 1
    );
    let sql = tenants.iter().fold(dynamic_query(sql), |sql, tenant| {
        let (id, name) = (tenant.id.to_string(), tenant.name.as_str().to_owned());
        sql.bind(id).bind(name).bind(tenant.server_id.to_string()).bind(tenant.plan.clone())
    });
    let now = tx.now();
    tx.execute_sql(sql.bind(now)).await?;
    Ok(())
}
