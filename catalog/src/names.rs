//! Who a name belongs to, now and for ever.

use std::collections::HashMap;

use crate::bulk::{TEXT, built, chunks, places, values};
use crate::changes;
use crate::db::{ReadTx, WriteTx};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::TenantId;
use crate::name::{Name, NameKind};
use crate::row;
use crate::word::Word as _;

/// The tenant a name leads to, whatever kind of name and whatever state the tenant is in.
///
/// # Errors
/// `Unavailable`.
pub async fn resolve(tx: &mut ReadTx, name: &Name) -> Result<Option<TenantId>> {
    let row = tx.one(sqlx::query("select tenant_id from names where name = $1").bind(name.as_str().to_owned())).await?;
    row.map(|row| row::parsed(&row, "tenant_id")).transpose()
}

/// Which of these names are taken, and by whom; in the order given. For thousands at once.
///
/// # Errors
/// `Unavailable`.
pub async fn taken(tx: &mut ReadTx, names: &[Name]) -> Result<Vec<(Name, TenantId)>> {
    let mut owners: HashMap<String, TenantId> = HashMap::new();
    for chunk in chunks(names) {
        let sql = format!("select name, tenant_id from names where name in ({})", places(1, chunk.len()));
        let sql = chunk.iter().fold(built(sql), |sql, name| sql.bind(name.as_str().to_owned()));
        for row in tx.all(sql).await? {
            owners.insert(row::text(&row, "name")?, row::parsed(&row, "tenant_id")?);
        }
    }
    Ok(names.iter().filter_map(|name| Some((name.clone(), *owners.get(name.as_str())?))).collect())
}

/// Reserves a name for ever; appends to the change feed.
///
/// # Errors
/// `AlreadyExists`; `NotFound` for the tenant; `Invalid` for a host without a dot, which could not be told from a slug.
pub async fn insert(tx: &mut WriteTx, name: &Name, tenant: TenantId, kind: NameKind) -> Result<()> {
    if kind == NameKind::Host && !name.as_str().contains('.') {
        return Err(Error::new(ErrorKind::Invalid, format!("'{name}' needs a dot to be a custom domain")));
    }
    refuse_taken(tx, std::slice::from_ref(name)).await?;
    insert_many(tx, &[(name, tenant)], kind).await?;
    changes::append(tx, &[tenant]).await
}

/// Fails with `AlreadyExists` naming the first that is taken.
pub(crate) async fn refuse_taken(tx: &mut ReadTx, names: &[Name]) -> Result<()> {
    match taken(tx, names).await?.first() {
        Some((name, _)) => Err(already(name)),
        None => Ok(()),
    }
}

/// The error about a name that is taken.
fn already(name: &Name) -> Error {
    Error::new(ErrorKind::AlreadyExists, format!("the name '{name}' is taken; names are never given to another tenant"))
}

/// Writes names that are known to be free.
pub(crate) async fn insert_many(tx: &mut WriteTx, names: &[(&Name, TenantId)], kind: NameKind) -> Result<()> {
    let now = tx.now();
    for chunk in chunks(names) {
        let after = chunk.len() * 2;
        let sql = format!(
            "with v(name, tenant_id) as ({}) insert into names (name, tenant_id, kind, created_at) \
             select name, tenant_id, cast(${} as text), cast(${} as bigint) from v",
            values(chunk.len(), &[TEXT, TEXT]),
            after + 1,
            after + 2
        );
        let sql = chunk
            .iter()
            .fold(built(sql), |sql, (name, tenant)| sql.bind(name.as_str().to_owned()).bind(tenant.to_string()));
        tx.run(sql.bind(kind.word()).bind(now)).await?;
    }
    Ok(())
}

/// Makes a name the tenant's slug, and its former slug an alias. One of its own aliases may become the slug again.
pub(crate) async fn set_slug(tx: &mut WriteTx, tenant: TenantId, name: &Name) -> Result<()> {
    let owner = resolve(tx, name).await?;
    if owner.is_some_and(|owner| owner != tenant) {
        return Err(already(name));
    }
    let now = tx.now();
    let sql = "update names set kind = 'alias', retired_at = $2 where tenant_id = $1 and kind = 'slug'";
    tx.run(sqlx::query(sql).bind(tenant.to_string()).bind(now)).await?;
    if owner.is_none() {
        return insert_many(tx, &[(name, tenant)], NameKind::Slug).await;
    }
    let sql = sqlx::query("update names set kind = 'slug', retired_at = null where name = $1");
    tx.run(sql.bind(name.as_str().to_owned())).await.map(|_| ())
}

/// All names of one tenant, the current slug first.
///
/// # Errors
/// `Unavailable`.
pub async fn of_tenant(tx: &mut ReadTx, tenant: TenantId) -> Result<Vec<(Name, NameKind)>> {
    let sql = "select name, kind from names where tenant_id = $1 \
               order by case kind when 'slug' then 0 when 'alias' then 1 else 2 end, created_at, name";
    let rows = tx.all(sqlx::query(sql).bind(tenant.to_string())).await?;
    rows.iter().map(|row| Ok((Name::stored(row::text(row, "name")?), row::word(row, "kind")?))).collect()
}
