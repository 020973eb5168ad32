//! The records of tenants: look-ups, pages, selections, and the compare-and-set changes of their state.

mod due_tenants;
mod insert;
mod labels;
mod pins;
mod selection;
mod selector;
mod update;

use std::collections::{BTreeMap, HashMap};

use sqlx::any::AnyRow;

use crate::bulk::{
    INT, SqlQuery, TEXT, capped_limit, distinct_rounds, dynamic_query, placeholder_list, sized_chunks, values_clause,
};
use crate::changes;
use crate::db::{ReadTx, WriteTx};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{Generation, ReleaseId, TenantId};
use crate::name::TenantName;
use crate::names;
use crate::plans;
use crate::row;
use crate::tenant::{TenantRecord, TenantState};
use crate::text_enum::TextEnum as _;

pub use due_tenants::{purgeable_tenants, request_wake, unsettled_tenants, wake_requested};
pub use insert::{NewTenant, insert_many};
pub use labels::{check_labels, set_labels};
pub use pins::{count_pinned_by_version, pinned_tenants, unpin_many};
pub use selection::TenantCriteria;
pub use selector::LabelSelector;
pub use update::{TenantUpdate, update_many};

pub(crate) use pins::pin_from_row as pin_of_row;

use labels::{add_labels, with_labels};
use selection::{CriteriaSql, id_chunks};

const COLUMNS: &str = "t.id, t.name, t.state, t.state_reason, t.block_writes, t.server_id, t.placement, t.generation, \
    t.placement_epoch, t.schema_version, t.release_id, t.ledger_release_id, t.size_bytes, t.protected, t.op_id, t.created_at, \
    t.updated_at, t.deleted_at, t.purge_after, t.pinned_below, t.pinned_at, t.pinned_op, \
    case when t.wake_generation = t.generation then t.wake_state end as wake_state, \
    case when t.wake_generation = t.generation then t.archive_backup_id end as archive_backup_id, \
    t.plan, (select p.limits from plans p where p.name = t.plan) as plan_limits";

/// The tenant with this id and its labels; `None` when there is none.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn get(tx: &mut ReadTx, id: TenantId) -> Result<Option<TenantRecord>> {
    let sql = format!(
        "select {COLUMNS}, l.key as label_key, l.value as label_value from tenants t \
         left join tenant_labels l on l.tenant_id = t.id where t.id = $1"
    );
    with_labels(&tx.fetch_rows(dynamic_query(sql).bind(id.to_string())).await?)
}

/// Several tenants, in the order of their ids, without labels.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn get_many(tx: &mut ReadTx, ids: &[TenantId]) -> Result<Vec<TenantRecord>> {
    let mut found = Vec::with_capacity(ids.len());
    for chunk in sized_chunks(&sorted_ids(ids)) {
        let sql = format!(
            "select {COLUMNS} from tenants t where t.id in ({}) order by t.id",
            placeholder_list(1, chunk.len())
        );
        for row in tx.fetch_rows(bind_ids(dynamic_query(sql), chunk)).await? {
            found.push(tenant_from_row(&row)?);
        }
    }
    Ok(found)
}

/// The tenant with this slug, alias or host, and its labels. One statement, because the router waits for it.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn by_name(tx: &mut ReadTx, name: &TenantName) -> Result<Option<TenantRecord>> {
    let sql = format!(
        "select {COLUMNS}, l.key as label_key, l.value as label_value from names n join tenants t on t.id = n.tenant_id \
         left join tenant_labels l on l.tenant_id = t.id where n.name = $1"
    );
    with_labels(&tx.fetch_rows(dynamic_query(sql).bind(name.as_str().to_owned())).await?)
}

/// A page in the order of ids (oldest first), with labels, after `after`; at most 10,000 tenants.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn list_tenants(
    tx: &mut ReadTx,
    selection: &TenantCriteria,
    after: Option<TenantId>,
    page_limit: u32,
) -> Result<Vec<TenantRecord>> {
    let wanted = usize::try_from(capped_limit(page_limit)).unwrap_or(usize::MAX);
    let mut found = Vec::new();
    for ids in id_chunks(selection, after) {
        let filter = CriteriaSql::new(selection, ids.as_deref(), after);
        let sql = format!(
            "select {COLUMNS} from tenants t where {} order by t.id limit ${}",
            filter.sql,
            filter.arguments.len() + 1
        );
        let left = i64::try_from(wanted - found.len()).unwrap_or(i64::MAX);
        for row in tx.fetch_rows(filter.bind_arguments(dynamic_query(sql)).bind(left)).await? {
            found.push(tenant_from_row(&row)?);
        }
        if found.len() >= wanted {
            break;
        }
    }
    add_labels(tx, &mut found).await?;
    Ok(found)
}

/// Number of tenants in a selection.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn count_tenants(tx: &mut ReadTx, selection: &TenantCriteria) -> Result<i64> {
    let mut total = 0;
    for ids in id_chunks(selection, None) {
        let filter = CriteriaSql::new(selection, ids.as_deref(), None);
        let sql = format!("select count(*) as tenants from tenants t where {}", filter.sql);
        if let Some(row) = tx.fetch_row(filter.bind_arguments(dynamic_query(sql))).await? {
            total += row::int_column(&row, "tenants")?;
        }
    }
    Ok(total)
}

/// How many tenants are in each state.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn count_by_state(tx: &mut ReadTx) -> Result<Vec<(TenantState, i64)>> {
    let sql = "select state, count(*) as tenants from tenants group by state order by state";
    let rows = tx.fetch_rows(sqlx::query(sql)).await?;
    rows.iter().map(|row| Ok((row::enum_column(row, "state")?, row::int_column(row, "tenants")?))).collect()
}

/// How many tenants are at each schema version (hint), of those not purged or deleted; the oldest version first.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn count_by_version(tx: &mut ReadTx) -> Result<Vec<(Option<i64>, i64)>> {
    let sql = "select schema_version, count(*) as tenants from tenants where state not in ('deleted', 'purged') \
               group by schema_version order by coalesce(schema_version, -1)";
    let rows = tx.fetch_rows(sqlx::query(sql)).await?;
    rows.iter().map(|row| Ok((row::nullable_int(row, "schema_version")?, row::int_column(row, "tenants")?))).collect()
}

/// Increments `placement_epoch` of each tenant and returns the new numbers, in the given order. They make each
/// attempt's placement unique.
///
/// # Errors
/// `NotFound` when a tenant does not exist.
pub async fn next_epochs(tx: &mut WriteTx, ids: &[TenantId]) -> Result<Vec<(TenantId, i64)>> {
    let mut epochs = HashMap::new();
    for chunk in sized_chunks(&sorted_ids(ids)) {
        let sql = format!(
            "update tenants set placement_epoch = placement_epoch + 1 where id in ({}) returning id, placement_epoch",
            placeholder_list(1, chunk.len())
        );
        for row in tx.fetch_rows(bind_ids(dynamic_query(sql), chunk)).await? {
            epochs.insert(row::parsed_column::<TenantId>(&row, "id")?, row::int_column(&row, "placement_epoch")?);
        }
    }
    ids.iter().map(|id| epochs.get(id).map(|epoch| (*id, *epoch)).ok_or_else(|| tenant_not_found(*id))).collect()
}

/// The schema to which a migration brought a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReachedSchema {
    /// The migrated tenant.
    pub tenant: TenantId,
    /// The ledger's newest version.
    pub version: Option<i64>,
    /// The release whose newest version the tenant has.
    pub release: Option<ReleaseId>,
    /// The release whose files the ledger contains, up to the version; `None` when unknown.
    pub ledger: Option<ReleaseId>,
}

/// Records the results of migrations without changing the generation; appends to the change feed.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn set_schema_many(tx: &mut WriteTx, reached: &[ReachedSchema]) -> Result<()> {
    let now = tx.now();
    for chunk in distinct_rounds(reached, |reached| reached.tenant).iter().flat_map(|round| sized_chunks(round)) {
        let sql = format!(
            "with v(tenant_id, version, release_id, ledger) as ({}) update tenants set schema_version = v.version, \
             release_id = v.release_id, ledger_release_id = v.ledger, updated_at = ${} from v \
             where tenants.id = v.tenant_id",
            values_clause(chunk.len(), &[TEXT, INT, TEXT, TEXT]),
            chunk.len() * 4 + 1
        );
        let sql = chunk.iter().fold(dynamic_query(sql), |sql, reached| {
            let (release, ledger) = (reached.release.map(|id| id.to_string()), reached.ledger.map(|id| id.to_string()));
            sql.bind(reached.tenant.to_string()).bind(reached.version).bind(release).bind(ledger)
        });
        tx.execute_sql(sql.bind(now)).await?;
    }
    let ids: Vec<TenantId> = reached.iter().map(|reached| reached.tenant).collect();
    changes::append_changes(tx, &ids).await
}

/// Records the sizes of databases in bytes.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn set_sizes(tx: &mut WriteTx, sizes: &[(TenantId, i64)]) -> Result<()> {
    for chunk in distinct_rounds(sizes, |(tenant, _)| *tenant).iter().flat_map(|round| sized_chunks(round)) {
        let sql = format!(
            "with v(tenant_id, size) as ({}) update tenants set size_bytes = v.size from v where tenants.id = v.tenant_id",
            values_clause(chunk.len(), &[TEXT, INT])
        );
        let sql = chunk.iter().fold(dynamic_query(sql), |sql, (tenant, size)| sql.bind(tenant.to_string()).bind(*size));
        tx.execute_sql(sql).await?;
    }
    Ok(())
}

/// Enables or disables the protection against deletion.
///
/// # Errors
/// `NotFound` when the tenant does not exist.
pub async fn set_protected(tx: &mut WriteTx, id: TenantId, protected: bool) -> Result<()> {
    touch_tenant(tx, id).await?;
    let sql = sqlx::query("update tenants set protected = $2 where id = $1");
    tx.execute_sql(sql.bind(id.to_string()).bind(i64::from(protected))).await?;
    changes::append_changes(tx, &[id]).await
}

/// Gives a tenant another slug. The old slug stays its alias permanently. Appends to the change feed; the generation
/// stays.
///
/// # Errors
/// `NotFound` when the tenant does not exist; `AlreadyExists` when another tenant has the name.
pub async fn rename_tenant(tx: &mut WriteTx, id: TenantId, name: &TenantName) -> Result<()> {
    touch_tenant(tx, id).await?;
    names::set_slug(tx, id, name).await?;
    let sql = sqlx::query("update tenants set name = $2 where id = $1");
    tx.execute_sql(sql.bind(id.to_string()).bind(name.as_str().to_owned())).await?;
    changes::append_changes(tx, &[id]).await
}

/// Abandons a tenant that never left `provisioning`, and frees its names, because it never served. Its row becomes a
/// purged one without members, labels or placement. The row stays because its operation's history refers to it.
///
/// # Errors
/// `NotFound` when the tenant does not exist; `Conflict` when it has left `provisioning`.
pub async fn remove_provisioning(tx: &mut WriteTx, id: TenantId) -> Result<()> {
    let sql = "update tenants set state = 'purged', placement = null, op_id = null, generation = generation + 1, \
               updated_at = $2 where id = $1 and state = 'provisioning'";
    let now = tx.now();
    if tx.execute_sql(sqlx::query(sql).bind(id.to_string()).bind(now)).await? == 0 {
        let tenant = get(tx, id).await?.ok_or_else(|| tenant_not_found(id))?;
        let message = format!(
            "the tenant '{}' is {}: only a provisioning tenant can be abandoned",
            tenant.name,
            tenant.state.stored_text()
        );
        return Err(Error::new(ErrorKind::Conflict, message));
    }
    for sql in [
        "delete from names where tenant_id = $1",
        "delete from domains where tenant_id = $1",
        "delete from tenant_labels where tenant_id = $1",
        "delete from members where tenant_id = $1",
        "delete from tokens where tenant_id = $1",
    ] {
        tx.execute_sql(sqlx::query(sql).bind(id.to_string())).await?;
    }
    changes::append_changes(tx, &[id]).await
}

/// The error for a tenant that does not exist.
pub(crate) fn tenant_not_found(id: TenantId) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no tenant {id}"))
}

/// Sets the tenant's time of change to now. Fails with `NotFound` when it does not exist.
pub(crate) async fn touch_tenant(tx: &mut WriteTx, id: TenantId) -> Result<()> {
    let sql = sqlx::query("update tenants set updated_at = $2 where id = $1").bind(id.to_string()).bind(tx.now());
    if tx.execute_sql(sql).await? == 0 { Err(tenant_not_found(id)) } else { Ok(()) }
}

pub(crate) fn bind_ids<'q>(sql: SqlQuery<'q>, ids: &[TenantId]) -> SqlQuery<'q> {
    ids.iter().fold(sql, |sql, id| sql.bind(id.to_string()))
}

fn sorted_ids(ids: &[TenantId]) -> Vec<TenantId> {
    let mut sorted = ids.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    sorted
}

fn tenant_from_row(row: &AnyRow) -> Result<TenantRecord> {
    Ok(TenantRecord {
        id: row::parsed_column(row, "id")?,
        name: row::text_column(row, "name")?,
        state: row::enum_column(row, "state")?,
        state_reason: row::nullable_text(row, "state_reason")?,
        block_writes: row::nullable_enum(row, "block_writes")?,
        wake_state: row::nullable_enum(row, "wake_state")?,
        archive_backup_id: row::nullable_id(row, "archive_backup_id")?,
        server_id: row::parsed_column(row, "server_id")?,
        placement: row::nullable_text(row, "placement")?,
        generation: Generation(row::int_column(row, "generation")?),
        placement_epoch: row::int_column(row, "placement_epoch")?,
        schema_version: row::nullable_int(row, "schema_version")?,
        release_id: row::nullable_id(row, "release_id")?,
        pin: pins::pin_from_row(row)?,
        ledger_release_id: row::nullable_id(row, "ledger_release_id")?,
        size_bytes: row::nullable_int(row, "size_bytes")?,
        protected: row::int_column(row, "protected")? != 0,
        op_id: row::nullable_id(row, "op_id")?,
        created_at: row::int_column(row, "created_at")?,
        updated_at: row::int_column(row, "updated_at")?,
        deleted_at: row::nullable_int(row, "deleted_at")?,
        purge_after: row::nullable_int(row, "purge_after")?,
        plan: plans::tenant_plan_from_row(row)?,
        labels: BTreeMap::new(),
    })
}
