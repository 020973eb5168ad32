//! The rows of tenants: lookups, pages, selections, and the compare-and-set changes of their state.

mod due;
mod flip;
mod insert;
mod labels;
mod pins;
mod selection;
mod selector;

use std::collections::{BTreeMap, HashMap};

use sqlx::any::AnyRow;

use crate::bulk::{INT, Sql, TEXT, built, chunks, limit, places, rounds, values};
use crate::changes;
use crate::db::{ReadTx, WriteTx};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{Generation, OperationId, ReleaseId, TenantId};
use crate::name::Name;
use crate::names;
use crate::row;
use crate::tenant::{TenantRecord, TenantState};
use crate::word::Word as _;

pub use due::{purgeable, request_wake, unsettled, wanted};
pub use flip::{Flip, flip_many};
pub use insert::{NewTenant, insert_many};
pub use labels::{check_labels, set_labels};
pub use pins::{count_pinned_by_version, pinned, unpin_many};
pub use selection::Selection;
pub use selector::LabelSelector;

pub(crate) use pins::of_row as pin_of_row;

use labels::{add_labels, with_labels};
use selection::{Filter, id_chunks};

const COLUMNS: &str = "t.id, t.name, t.state, t.state_reason, t.block_writes, t.server_id, t.placement, t.generation, \
    t.placement_epoch, t.schema_version, t.release_id, t.ledger_release_id, t.size_bytes, t.protected, t.op_id, t.created_at, \
    t.updated_at, t.deleted_at, t.purge_after, t.pinned_below, t.pinned_at, t.pinned_op";

/// One tenant with its labels.
///
/// # Errors
/// `Unavailable`.
pub async fn get(tx: &mut ReadTx, id: TenantId) -> Result<Option<TenantRecord>> {
    let sql = format!(
        "select {COLUMNS}, l.key as label_key, l.value as label_value from tenants t \
         left join tenant_labels l on l.tenant_id = t.id where t.id = $1"
    );
    with_labels(&tx.all(built(sql).bind(id.to_string())).await?)
}

/// Several tenants, in the order of their ids, without labels.
///
/// # Errors
/// `Unavailable`.
pub async fn get_many(tx: &mut ReadTx, ids: &[TenantId]) -> Result<Vec<TenantRecord>> {
    let mut found = Vec::with_capacity(ids.len());
    for chunk in chunks(&sorted(ids)) {
        let sql = format!("select {COLUMNS} from tenants t where t.id in ({}) order by t.id", places(1, chunk.len()));
        for row in tx.all(bind_ids(built(sql), chunk)).await? {
            found.push(record(&row)?);
        }
    }
    Ok(found)
}

/// The tenant a slug, alias or host leads to, with its labels. One statement: the router's cold path.
///
/// # Errors
/// `Unavailable`.
pub async fn by_name(tx: &mut ReadTx, name: &Name) -> Result<Option<TenantRecord>> {
    let sql = format!(
        "select {COLUMNS}, l.key as label_key, l.value as label_value from names n join tenants t on t.id = n.tenant_id \
         left join tenant_labels l on l.tenant_id = t.id where n.name = $1"
    );
    with_labels(&tx.all(built(sql).bind(name.as_str().to_owned())).await?)
}

/// A page in the order of ids (oldest first), with labels, beginning after `after`; at most 10,000 long.
///
/// # Errors
/// `Unavailable`.
pub async fn page(
    tx: &mut ReadTx,
    selection: &Selection,
    after: Option<TenantId>,
    page_limit: u32,
) -> Result<Vec<TenantRecord>> {
    let wanted = usize::try_from(limit(page_limit)).unwrap_or(usize::MAX);
    let mut found = Vec::new();
    for ids in id_chunks(selection, after) {
        let filter = Filter::new(selection, ids.as_deref(), after);
        let sql = format!(
            "select {COLUMNS} from tenants t where {} order by t.id limit ${}",
            filter.sql,
            filter.arguments.len() + 1
        );
        let left = i64::try_from(wanted - found.len()).unwrap_or(i64::MAX);
        for row in tx.all(filter.bind(built(sql)).bind(left)).await? {
            found.push(record(&row)?);
        }
        if found.len() >= wanted {
            break;
        }
    }
    add_labels(tx, &mut found).await?;
    Ok(found)
}

/// How many tenants a selection holds.
///
/// # Errors
/// `Unavailable`.
pub async fn count(tx: &mut ReadTx, selection: &Selection) -> Result<i64> {
    let mut total = 0;
    for ids in id_chunks(selection, None) {
        let filter = Filter::new(selection, ids.as_deref(), None);
        let sql = format!("select count(*) as tenants from tenants t where {}", filter.sql);
        if let Some(row) = tx.one(filter.bind(built(sql))).await? {
            total += row::int(&row, "tenants")?;
        }
    }
    Ok(total)
}

/// How many tenants are in each state.
///
/// # Errors
/// `Unavailable`.
pub async fn count_by_state(tx: &mut ReadTx) -> Result<Vec<(TenantState, i64)>> {
    let sql = "select state, count(*) as tenants from tenants group by state order by state";
    let rows = tx.all(sqlx::query(sql)).await?;
    rows.iter().map(|row| Ok((row::word(row, "state")?, row::int(row, "tenants")?))).collect()
}

/// How many tenants are at each schema version (hint), of those not purged or deleted; the oldest version first.
///
/// # Errors
/// `Unavailable`.
pub async fn count_by_version(tx: &mut ReadTx) -> Result<Vec<(Option<i64>, i64)>> {
    let sql = "select schema_version, count(*) as tenants from tenants where state not in ('deleted', 'purged') \
               group by schema_version order by coalesce(schema_version, -1)";
    let rows = tx.all(sqlx::query(sql)).await?;
    rows.iter().map(|row| Ok((row::int_or_null(row, "schema_version")?, row::int(row, "tenants")?))).collect()
}

/// Counts up `placement_epoch` of each and returns the new numbers, in the order given: what makes a placement unique
/// per attempt.
///
/// # Errors
/// `NotFound`.
pub async fn next_epochs(tx: &mut WriteTx, ids: &[TenantId]) -> Result<Vec<(TenantId, i64)>> {
    let mut epochs = HashMap::new();
    for chunk in chunks(&sorted(ids)) {
        let sql = format!(
            "update tenants set placement_epoch = placement_epoch + 1 where id in ({}) returning id, placement_epoch",
            places(1, chunk.len())
        );
        for row in tx.all(bind_ids(built(sql), chunk)).await? {
            epochs.insert(row::parsed::<TenantId>(&row, "id")?, row::int(&row, "placement_epoch")?);
        }
    }
    ids.iter().map(|id| epochs.get(id).map(|epoch| (*id, *epoch)).ok_or_else(|| missing(*id))).collect()
}

/// What a migration brought a tenant to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reached {
    /// Whose database.
    pub tenant: TenantId,
    /// The ledger's newest version.
    pub version: Option<i64>,
    /// The release it is at the head of.
    pub release: Option<ReleaseId>,
    /// The release whose files the ledger holds, up to the version; `None`: it is not known.
    pub ledger: Option<ReleaseId>,
}

/// Records what migrations reached, without touching the generation; appends to the change feed.
///
/// # Errors
/// `Unavailable`.
pub async fn set_schema_many(tx: &mut WriteTx, reached: &[Reached]) -> Result<()> {
    let now = tx.now();
    for chunk in rounds(reached, |reached| reached.tenant).iter().flat_map(|round| chunks(round)) {
        let sql = format!(
            "with v(tenant_id, version, release_id, ledger) as ({}) update tenants set schema_version = v.version, \
             release_id = v.release_id, ledger_release_id = v.ledger, updated_at = ${} from v \
             where tenants.id = v.tenant_id",
            values(chunk.len(), &[TEXT, INT, TEXT, TEXT]),
            chunk.len() * 4 + 1
        );
        let sql = chunk.iter().fold(built(sql), |sql, reached| {
            let (release, ledger) = (reached.release.map(|id| id.to_string()), reached.ledger.map(|id| id.to_string()));
            sql.bind(reached.tenant.to_string()).bind(reached.version).bind(release).bind(ledger)
        });
        tx.run(sql.bind(now)).await?;
    }
    let ids: Vec<TenantId> = reached.iter().map(|reached| reached.tenant).collect();
    changes::append(tx, &ids).await
}

/// Records sizes.
///
/// # Errors
/// `Unavailable`.
pub async fn set_sizes(tx: &mut WriteTx, sizes: &[(TenantId, i64)]) -> Result<()> {
    for chunk in rounds(sizes, |(tenant, _)| *tenant).iter().flat_map(|round| chunks(round)) {
        let sql = format!(
            "with v(tenant_id, size) as ({}) update tenants set size_bytes = v.size from v where tenants.id = v.tenant_id",
            values(chunk.len(), &[TEXT, INT])
        );
        let sql = chunk.iter().fold(built(sql), |sql, (tenant, size)| sql.bind(tenant.to_string()).bind(*size));
        tx.run(sql).await?;
    }
    Ok(())
}

/// Switches the protection against deletion.
///
/// # Errors
/// `NotFound`.
pub async fn set_protected(tx: &mut WriteTx, id: TenantId, protected: bool) -> Result<()> {
    touch(tx, id).await?;
    let sql = sqlx::query("update tenants set protected = $2 where id = $1");
    tx.run(sql.bind(id.to_string()).bind(i64::from(protected))).await?;
    changes::append(tx, &[id]).await
}

/// Gives a tenant another slug; the old one stays its alias for ever. Appends to the change feed; the generation stays.
///
/// # Errors
/// `NotFound`; `AlreadyExists` when the name is another tenant's.
pub async fn rename(tx: &mut WriteTx, id: TenantId, name: &Name) -> Result<()> {
    touch(tx, id).await?;
    names::set_slug(tx, id, name).await?;
    let sql = sqlx::query("update tenants set name = $2 where id = $1");
    tx.run(sql.bind(id.to_string()).bind(name.as_str().to_owned())).await?;
    changes::append(tx, &[id]).await
}

/// Gives up a tenant that never left `provisioning`, and frees its names: it never served anybody. Its row becomes a
/// purged one without members, labels or placement, because the history of its operation points at it.
///
/// # Errors
/// `NotFound`; `Conflict` when it did leave `provisioning`.
pub async fn remove_provisioning(tx: &mut WriteTx, id: TenantId) -> Result<()> {
    let sql = "update tenants set state = 'purged', placement = null, op_id = null, generation = generation + 1, \
               updated_at = $2 where id = $1 and state = 'provisioning'";
    let now = tx.now();
    if tx.run(sqlx::query(sql).bind(id.to_string()).bind(now)).await? == 0 {
        let tenant = get(tx, id).await?.ok_or_else(|| missing(id))?;
        let message = format!(
            "the tenant '{}' is {}: only one that is provisioning can be given up",
            tenant.name,
            tenant.state.word()
        );
        return Err(Error::new(ErrorKind::Conflict, message));
    }
    for sql in [
        "delete from names where tenant_id = $1",
        "delete from tenant_labels where tenant_id = $1",
        "delete from members where tenant_id = $1",
        "delete from tokens where tenant_id = $1",
    ] {
        tx.run(sqlx::query(sql).bind(id.to_string())).await?;
    }
    changes::append(tx, &[id]).await
}

/// Frees the operation slot of these tenants where `op` holds it.
///
/// # Errors
/// `Unavailable`.
pub async fn release_slots(tx: &mut WriteTx, op: OperationId, ids: &[TenantId]) -> Result<()> {
    for chunk in chunks(ids) {
        let sql = format!("update tenants set op_id = null where op_id = $1 and id in ({})", places(2, chunk.len()));
        tx.run(bind_ids(built(sql).bind(op.to_string()), chunk)).await?;
    }
    Ok(())
}

/// The error about a tenant that is not there.
pub(crate) fn missing(id: TenantId) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no tenant {id}"))
}

/// Fails with `NotFound`; else notes that the tenant was changed now.
async fn touch(tx: &mut WriteTx, id: TenantId) -> Result<()> {
    let sql = sqlx::query("update tenants set updated_at = $2 where id = $1").bind(id.to_string()).bind(tx.now());
    if tx.run(sql).await? == 0 { Err(missing(id)) } else { Ok(()) }
}

pub(crate) fn bind_ids<'q>(sql: Sql<'q>, ids: &[TenantId]) -> Sql<'q> {
    ids.iter().fold(sql, |sql, id| sql.bind(id.to_string()))
}

fn sorted(ids: &[TenantId]) -> Vec<TenantId> {
    let mut sorted = ids.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    sorted
}

fn record(row: &AnyRow) -> Result<TenantRecord> {
    Ok(TenantRecord {
        id: row::parsed(row, "id")?,
        name: row::text(row, "name")?,
        state: row::word(row, "state")?,
        state_reason: row::text_or_null(row, "state_reason")?,
        block_writes: row::word_or_null(row, "block_writes")?,
        server_id: row::parsed(row, "server_id")?,
        placement: row::text_or_null(row, "placement")?,
        generation: Generation(row::int(row, "generation")?),
        placement_epoch: row::int(row, "placement_epoch")?,
        schema_version: row::int_or_null(row, "schema_version")?,
        release_id: row::id_or_null(row, "release_id")?,
        pin: pins::of_row(row)?,
        ledger_release_id: row::id_or_null(row, "ledger_release_id")?,
        size_bytes: row::int_or_null(row, "size_bytes")?,
        protected: row::int(row, "protected")? != 0,
        op_id: row::id_or_null(row, "op_id")?,
        created_at: row::int(row, "created_at")?,
        updated_at: row::int(row, "updated_at")?,
        deleted_at: row::int_or_null(row, "deleted_at")?,
        purge_after: row::int_or_null(row, "purge_after")?,
        labels: BTreeMap::new(),
    })
}
