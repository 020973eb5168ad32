//! The rows of tenants: lookups, pages, selections, and the compare-and-set changes of their state.

use std::collections::{BTreeMap, HashMap, HashSet};

use sqlx::any::AnyRow;

use crate::bulk::{INT, Sql, TEXT, built, chunks, limit, places, rounds, values};
use crate::changes;
use crate::db::{ReadTx, WriteTx};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{Generation, OperationId, ReleaseId, ServerId, TenantId};
use crate::name::{Name, NameKind};
use crate::names;
use crate::row;
use crate::tenant::{BlockWrites, TenantRecord, TenantState};
use crate::word::{self, Word as _};

/// More labels are a table of one's own.
const LABELS_MAX: i64 = 64;
/// As long as a slug.
const LABEL_KEY_MAX: usize = 63;
/// Enough for a URL or a date with a word; labels are for selecting.
const LABEL_VALUE_MAX: usize = 255;

const COLUMNS: &str = "t.id, t.name, t.state, t.state_reason, t.block_writes, t.server_id, t.placement, t.generation, \
    t.placement_epoch, t.schema_version, t.release_id, t.size_bytes, t.protected, t.op_id, t.created_at, t.updated_at, \
    t.deleted_at, t.purge_after";

/// Which tenants; every field narrows. The empty selection means all: callers make "all" explicit before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Only these.
    pub ids: Option<Vec<TenantId>>,
    /// Only with all of these labels.
    pub labels: BTreeMap<String, String>,
    /// Only on this server.
    pub server: Option<ServerId>,
    /// Only in one of these states; empty: every state but purged.
    pub states: Vec<TenantState>,
}

/// What a new tenant starts with.
#[derive(Debug, Clone)]
pub struct NewTenant {
    /// Made by the caller.
    pub id: TenantId,
    /// Its slug.
    pub name: Name,
    /// Where it shall live.
    pub server_id: ServerId,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// A compare-and-set on one tenant: applied only where the generation is still `from`, which becomes `from + 1`;
/// appends to the change feed. `None` leaves a column alone; `Some(None)` clears it.
#[derive(Debug, Clone)]
pub struct Flip {
    /// Whose.
    pub tenant: TenantId,
    /// The generation the caller read; the row's must equal it.
    pub from: Generation,
    /// The new state.
    pub state: Option<TenantState>,
    /// The new reason.
    pub reason: Option<Option<String>>,
    /// Who blocks writes.
    pub block_writes: Option<Option<BlockWrites>>,
    /// The new place.
    pub placement: Option<Option<String>>,
    /// The new server.
    pub server_id: Option<ServerId>,
    /// For a deleted tenant: when it may be purged.
    pub purge_after: Option<Option<i64>>,
    /// Hints, if known by the caller.
    pub schema_version: Option<Option<i64>>,
    /// Hints, if known by the caller.
    pub release_id: Option<Option<ReleaseId>>,
    /// Hints, if known by the caller.
    pub size_bytes: Option<i64>,
}

impl Flip {
    /// A flip that changes nothing but the generation.
    #[must_use]
    pub fn of(tenant: TenantId, from: Generation) -> Self {
        Self {
            tenant,
            from,
            state: None,
            reason: None,
            block_writes: None,
            placement: None,
            server_id: None,
            purge_after: None,
            schema_version: None,
            release_id: None,
            size_bytes: None,
        }
    }
}

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

/// Inserts many tenants in state `provisioning`, generation 1, with their names and labels; appends to the change feed.
/// All or nothing.
///
/// # Errors
/// `AlreadyExists` naming the first taken name (or the first that is given twice), `NotFound` for a server,
/// `Invalid` for a label.
pub async fn insert_many(tx: &mut WriteTx, tenants: &[NewTenant]) -> Result<()> {
    let slugs: Vec<Name> = tenants.iter().map(|tenant| tenant.name.clone()).collect();
    refuse_twice(&slugs)?;
    names::refuse_taken(tx, &slugs).await?;
    for chunk in chunks(tenants) {
        insert_rows(tx, chunk).await?;
    }
    let reserved: Vec<(&Name, TenantId)> = tenants.iter().map(|tenant| (&tenant.name, tenant.id)).collect();
    names::insert_many(tx, &reserved, NameKind::Slug).await?;
    insert_labels(tx, tenants).await?;
    let ids: Vec<TenantId> = tenants.iter().map(|tenant| tenant.id).collect();
    changes::append(tx, &ids).await
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

/// Applies each flip whose tenant still is at its `from`; returns the tenants that were not. Two flips of one tenant
/// are applied in their order.
///
/// # Errors
/// `Conflict` when a placement is another tenant's; then nothing may be committed.
pub async fn flip_many(tx: &mut WriteTx, flips: &[Flip]) -> Result<Vec<TenantId>> {
    let mut stale = Vec::new();
    for round in rounds(flips, |flip| flip.tenant) {
        for chunk in chunks(&round) {
            let applied = flip_chunk(tx, chunk).await?;
            changes::append(tx, &applied).await?;
            let applied: HashSet<TenantId> = applied.into_iter().collect();
            stale.extend(chunk.iter().map(|flip| flip.tenant).filter(|tenant| !applied.contains(tenant)));
        }
    }
    Ok(stale)
}

/// Records what migrations reached, without touching the generation; appends to the change feed.
///
/// # Errors
/// `Unavailable`.
pub async fn set_schema_many(tx: &mut WriteTx, reached: &[(TenantId, Option<i64>, Option<ReleaseId>)]) -> Result<()> {
    let now = tx.now();
    for chunk in rounds(reached, |(tenant, ..)| *tenant).iter().flat_map(|round| chunks(round)) {
        let sql = format!(
            "with v(tenant_id, version, release_id) as ({}) update tenants set schema_version = v.version, \
             release_id = v.release_id, updated_at = ${} from v where tenants.id = v.tenant_id",
            values(chunk.len(), &[TEXT, INT, TEXT]),
            chunk.len() * 3 + 1
        );
        let sql = chunk.iter().fold(built(sql), |sql, (tenant, version, release)| {
            sql.bind(tenant.to_string()).bind(*version).bind(release.map(|id| id.to_string()))
        });
        tx.run(sql.bind(now)).await?;
    }
    let ids: Vec<TenantId> = reached.iter().map(|(tenant, ..)| *tenant).collect();
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

/// Sets and removes (`None`) labels; at most 64 per tenant; appends to the change feed.
///
/// # Errors
/// `NotFound`; `Invalid` for a malformed or one too many label.
pub async fn set_labels(tx: &mut WriteTx, id: TenantId, labels: &BTreeMap<String, Option<String>>) -> Result<()> {
    touch(tx, id).await?;
    for (key, value) in labels {
        let sql = match value {
            Some(value) => {
                check_label(key, value)?;
                sqlx::query(
                    "insert into tenant_labels (tenant_id, key, value) values ($1, $2, $3) \
                     on conflict (tenant_id, key) do update set value = excluded.value",
                )
                .bind(id.to_string())
                .bind(key.clone())
                .bind(value.clone())
            }
            None => sqlx::query("delete from tenant_labels where tenant_id = $1 and key = $2")
                .bind(id.to_string())
                .bind(key.clone()),
        };
        tx.run(sql).await?;
    }
    let sql = "select count(*) as labels from tenant_labels where tenant_id = $1";
    let row = tx.one(sqlx::query(sql).bind(id.to_string())).await?;
    if row.map_or(Ok(0), |row| row::int(&row, "labels"))? > LABELS_MAX {
        return Err(Error::new(ErrorKind::Invalid, format!("a tenant has at most {LABELS_MAX} labels")));
    }
    changes::append(tx, &[id]).await
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

fn refuse_twice(slugs: &[Name]) -> Result<()> {
    let mut seen = HashSet::new();
    match slugs.iter().find(|name| !seen.insert(*name)) {
        Some(name) => Err(Error::new(ErrorKind::AlreadyExists, format!("the name '{name}' is given twice"))),
        None => Ok(()),
    }
}

async fn insert_rows(tx: &mut WriteTx, tenants: &[NewTenant]) -> Result<()> {
    let after = tenants.len() * 3;
    let sql = format!(
        "with v(id, name, server_id) as ({}) insert into tenants (id, name, state, server_id, generation, \
         placement_epoch, protected, created_at, updated_at) \
         select id, name, 'provisioning', server_id, 1, 0, 0, cast(${now} as bigint), cast(${now} as bigint) from v",
        values(tenants.len(), &[TEXT, TEXT, TEXT]),
        now = after + 1
    );
    let sql = tenants.iter().fold(built(sql), |sql, tenant| {
        sql.bind(tenant.id.to_string()).bind(tenant.name.as_str().to_owned()).bind(tenant.server_id.to_string())
    });
    let now = tx.now();
    tx.run(sql.bind(now)).await?;
    Ok(())
}

async fn insert_labels(tx: &mut WriteTx, tenants: &[NewTenant]) -> Result<()> {
    let mut labels = Vec::new();
    for tenant in tenants {
        if i64::try_from(tenant.labels.len()).is_ok_and(|count| count > LABELS_MAX) {
            return Err(Error::new(ErrorKind::Invalid, format!("a tenant has at most {LABELS_MAX} labels")));
        }
        for (key, value) in &tenant.labels {
            check_label(key, value)?;
            labels.push((tenant.id, key, value));
        }
    }
    for chunk in chunks(&labels) {
        let rows = values(chunk.len(), &[TEXT, TEXT, TEXT]);
        let sql = format!(
            "with v(tenant_id, key, value) as ({rows}) insert into tenant_labels (tenant_id, key, value) \
             select tenant_id, key, value from v"
        );
        let sql = chunk.iter().fold(built(sql), |sql, (tenant, key, value)| {
            sql.bind(tenant.to_string()).bind((*key).clone()).bind((*value).clone())
        });
        tx.run(sql).await?;
    }
    Ok(())
}

fn check_label(key: &str, value: &str) -> Result<()> {
    let key_fits = (1..=LABEL_KEY_MAX).contains(&key.len())
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'/'));
    if !key_fits {
        let message = format!("a label's key is 1 to {LABEL_KEY_MAX} of a-z, A-Z, 0-9, '-', '_', '.', '/'");
        return Err(Error::new(ErrorKind::Invalid, message));
    }
    if value.len() > LABEL_VALUE_MAX || value.chars().any(char::is_control) {
        let message =
            format!("the value of label '{key}' must have at most {LABEL_VALUE_MAX} bytes, no control characters");
        return Err(Error::new(ErrorKind::Invalid, message));
    }
    Ok(())
}

/// Applies one statement's worth of flips, each of another tenant; returns the tenants it applied to.
async fn flip_chunk(tx: &mut WriteTx, flips: &[&Flip]) -> Result<Vec<TenantId>> {
    let types = [TEXT, INT, INT, TEXT, TEXT, TEXT, TEXT, TEXT, INT, INT, TEXT, INT];
    let now = flips.len() * types.len() + 1;
    let sql = format!(
        "with v(tenant_id, was, sets, new_state, reason, block, place, server, purge, version, release, size) as ({rows}) \
         update tenants set generation = generation + 1, updated_at = ${now}, \
           state = coalesce(v.new_state, state), \
           deleted_at = case when v.new_state = 'deleted' then ${now} when v.new_state is null or v.new_state = 'purged' \
             then deleted_at else null end, \
           state_reason = case when (v.sets & 1) > 0 then v.reason else state_reason end, \
           block_writes = case when (v.sets & 2) > 0 then v.block else block_writes end, \
           placement = case when (v.sets & 4) > 0 then v.place else placement end, \
           server_id = coalesce(v.server, server_id), \
           purge_after = case when (v.sets & 8) > 0 then v.purge else purge_after end, \
           schema_version = case when (v.sets & 16) > 0 then v.version else schema_version end, \
           release_id = case when (v.sets & 32) > 0 then v.release else release_id end, \
           size_bytes = coalesce(v.size, size_bytes) \
         from v where tenants.id = v.tenant_id and tenants.generation = v.was returning tenants.id",
        rows = values(flips.len(), &types)
    );
    let sql = flips.iter().fold(built(sql), |sql, flip| bind_flip(sql, flip)).bind(tx.now());
    let rows = tx.all(sql).await.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => {
            Error::new(ErrorKind::Conflict, "the placement belongs to another tenant").with_source(error)
        }
        _ => error,
    })?;
    rows.iter().map(|row| row::parsed(row, "id")).collect()
}

/// The values of one flip in the order of its statement; `sets` has a bit for each column that may be set to null.
fn bind_flip<'q>(sql: Sql<'q>, flip: &Flip) -> Sql<'q> {
    let sets = [
        flip.reason.is_some(),
        flip.block_writes.is_some(),
        flip.placement.is_some(),
        flip.purge_after.is_some(),
        flip.schema_version.is_some(),
        flip.release_id.is_some(),
    ];
    let sets = sets.iter().rev().fold(0i64, |bits, set| bits * 2 + i64::from(*set));
    sql.bind(flip.tenant.to_string())
        .bind(flip.from.0)
        .bind(sets)
        .bind(flip.state.map(|state| state.word()))
        .bind(flip.reason.clone().flatten())
        .bind(flip.block_writes.flatten().map(|block| block.word()))
        .bind(flip.placement.clone().flatten())
        .bind(flip.server_id.map(|id| id.to_string()))
        .bind(flip.purge_after.flatten())
        .bind(flip.schema_version.flatten())
        .bind(flip.release_id.flatten().map(|id| id.to_string()))
        .bind(flip.size_bytes)
}

/// The ids of a selection in pieces, in order; one piece without ids when it names none.
fn id_chunks(selection: &Selection, after: Option<TenantId>) -> Vec<Option<Vec<TenantId>>> {
    let Some(ids) = &selection.ids else { return vec![None] };
    let mut ids = sorted(ids);
    ids.retain(|id| after.is_none_or(|after| *id > after));
    chunks(&ids).map(|chunk| Some(chunk.to_vec())).collect()
}

/// A selection as a condition on `tenants t`.
struct Filter {
    sql: String,
    arguments: Vec<String>,
}

impl Filter {
    fn new(selection: &Selection, ids: Option<&[TenantId]>, after: Option<TenantId>) -> Self {
        let mut filter = Self { sql: String::new(), arguments: Vec::new() };
        filter.sql = if selection.states.is_empty() {
            "t.state <> 'purged'".to_owned()
        } else {
            format!("t.state in ({})", word::list(&selection.states))
        };
        if let Some(ids) = ids {
            let first = filter.arguments.len() + 1;
            filter.sql += &format!(" and t.id in ({})", places(first, ids.len()));
            filter.arguments.extend(ids.iter().map(ToString::to_string));
        }
        if let Some(server) = selection.server {
            filter.and("t.server_id = $", [server.to_string()]);
        }
        for (key, value) in &selection.labels {
            let number = filter.arguments.len() + 1;
            filter.sql += &format!(
                " and t.id in (select tenant_id from tenant_labels where key = ${number} and value = ${})",
                number + 1
            );
            filter.arguments.extend([key.clone(), value.clone()]);
        }
        if let Some(after) = after {
            filter.and("t.id > $", [after.to_string()]);
        }
        filter
    }

    fn and(&mut self, condition: &str, argument: [String; 1]) {
        self.arguments.extend(argument);
        self.sql += &format!(" and {condition}{}", self.arguments.len());
    }

    fn bind<'q>(&self, sql: Sql<'q>) -> Sql<'q> {
        self.arguments.iter().fold(sql, |sql, argument| sql.bind(argument.clone()))
    }
}

/// One tenant from the rows of its labels.
fn with_labels(rows: &[AnyRow]) -> Result<Option<TenantRecord>> {
    let Some(first) = rows.first() else { return Ok(None) };
    let mut tenant = record(first)?;
    for row in rows {
        if let (Some(key), Some(value)) = (row::text_or_null(row, "label_key")?, row::text_or_null(row, "label_value")?)
        {
            tenant.labels.insert(key, value);
        }
    }
    Ok(Some(tenant))
}

async fn add_labels(tx: &mut ReadTx, tenants: &mut [TenantRecord]) -> Result<()> {
    let ids: Vec<TenantId> = tenants.iter().map(|tenant| tenant.id).collect();
    let mut labels: HashMap<TenantId, BTreeMap<String, String>> = HashMap::new();
    for chunk in chunks(&ids) {
        let sql =
            format!("select tenant_id, key, value from tenant_labels where tenant_id in ({})", places(1, chunk.len()));
        for row in tx.all(bind_ids(built(sql), chunk)).await? {
            let tenant = labels.entry(row::parsed(&row, "tenant_id")?).or_default();
            tenant.insert(row::text(&row, "key")?, row::text(&row, "value")?);
        }
    }
    for tenant in tenants {
        tenant.labels = labels.remove(&tenant.id).unwrap_or_default();
    }
    Ok(())
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
