//! Names and the tenants that own them. A slug or an alias belongs to its tenant permanently. A custom domain belongs to
//! the tenant that has proven control of it; see `domains.rs`.

use std::collections::HashMap;

use crate::bulk::{TEXT, dynamic_query, placeholder_list, sized_chunks, values_clause};
use crate::changes;
use crate::db::{ReadTx, WriteTx};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::TenantId;
use crate::name::{NameKind, TenantName};
use crate::row;
use crate::text_enum::TextEnum as _;

/// The tenant that a name leads to, for any kind of name and any state of the tenant.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn resolve_name(tx: &mut ReadTx, name: &TenantName) -> Result<Option<TenantId>> {
    let row =
        tx.fetch_row(sqlx::query("select tenant_id from names where name = $1").bind(name.as_str().to_owned())).await?;
    row.map(|row| row::parsed_column(&row, "tenant_id")).transpose()
}

/// The taken names among these, with their tenants, in the given order. For thousands of names at once.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn taken_names(tx: &mut ReadTx, names: &[TenantName]) -> Result<Vec<(TenantName, TenantId)>> {
    let mut owners: HashMap<String, TenantId> = HashMap::new();
    for chunk in sized_chunks(names) {
        let sql = format!("select name, tenant_id from names where name in ({})", placeholder_list(1, chunk.len()));
        let sql = chunk.iter().fold(dynamic_query(sql), |sql, name| sql.bind(name.as_str().to_owned()));
        for row in tx.fetch_rows(sql).await? {
            owners.insert(row::text_column(&row, "name")?, row::parsed_column(&row, "tenant_id")?);
        }
    }
    Ok(names.iter().filter_map(|name| Some((name.clone(), *owners.get(name.as_str())?))).collect())
}

/// Reserves a name, permanently unless it is a host; appends to the change feed.
///
/// # Errors
/// `AlreadyExists` when the name is taken; `NotFound` for an unknown tenant; `Invalid` for a host without a dot, which
/// could be mistaken for a slug.
pub async fn insert_name(tx: &mut WriteTx, name: &TenantName, tenant: TenantId, kind: NameKind) -> Result<()> {
    if kind == NameKind::Host && !name.as_str().contains('.') {
        return Err(Error::new(ErrorKind::Invalid, format!("'{name}' needs a dot to be a custom domain")));
    }
    refuse_taken(tx, std::slice::from_ref(name)).await?;
    insert_names(tx, &[(name, tenant)], kind).await?;
    changes::append_changes(tx, &[tenant]).await
}

/// Fails with `AlreadyExists` if a name is taken, and names the first one.
pub(crate) async fn refuse_taken(tx: &mut ReadTx, names: &[TenantName]) -> Result<()> {
    match taken_names(tx, names).await?.first() {
        Some((name, _)) => Err(name_taken(name)),
        None => Ok(()),
    }
}

/// The error for a name that is taken.
fn name_taken(name: &TenantName) -> Error {
    Error::new(ErrorKind::AlreadyExists, format!("the name '{name}' is taken; names are never given to another tenant"))
}

/// Writes names that are known to be free.
pub(crate) async fn insert_names(tx: &mut WriteTx, names: &[(&TenantName, TenantId)], kind: NameKind) -> Result<()> {
    let now = tx.now();
    for chunk in sized_chunks(names) {
        let after = chunk.len() * 2;
        let sql = format!(
            "with v(name, tenant_id) as ({}) insert into names (name, tenant_id, kind, created_at) \
             select name, tenant_id, cast(${} as text), cast(${} as bigint) from v",
            values_clause(chunk.len(), &[TEXT, TEXT]),
            after + 1,
            after + 2
        );
        let sql = chunk.iter().fold(dynamic_query(sql), |sql, (name, tenant)| {
            sql.bind(name.as_str().to_owned()).bind(tenant.to_string())
        });
        tx.execute_sql(sql.bind(kind.stored_text()).bind(now)).await?;
    }
    Ok(())
}

/// Makes a name the tenant's slug, and its previous slug an alias. An alias of the tenant may become its slug again.
pub(crate) async fn set_slug(tx: &mut WriteTx, tenant: TenantId, name: &TenantName) -> Result<()> {
    let owner = resolve_name(tx, name).await?;
    if owner.is_some_and(|owner| owner != tenant) {
        return Err(name_taken(name));
    }
    let now = tx.now();
    let sql = "update names set kind = 'alias', retired_at = $2 where tenant_id = $1 and kind = 'slug'";
    tx.execute_sql(sqlx::query(sql).bind(tenant.to_string()).bind(now)).await?;
    if owner.is_none() {
        return insert_names(tx, &[(name, tenant)], NameKind::Slug).await;
    }
    let sql = sqlx::query("update names set kind = 'slug', retired_at = null where name = $1");
    tx.execute_sql(sql.bind(name.as_str().to_owned())).await.map(|_| ())
}

/// Frees a tenant's custom domain, if the tenant has it. The caller appends to the change feed.
pub(crate) async fn remove_host(tx: &mut WriteTx, host: &TenantName, tenant: TenantId) -> Result<()> {
    let sql = sqlx::query("delete from names where name = $1 and tenant_id = $2 and kind = 'host'");
    tx.execute_sql(sql.bind(host.as_str().to_owned()).bind(tenant.to_string())).await.map(|_| ())
}

/// All names of one tenant, the current slug first.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn of_tenant(tx: &mut ReadTx, tenant: TenantId) -> Result<Vec<(TenantName, NameKind)>> {
    let sql = "select name, kind from names where tenant_id = $1 \
               order by case kind when 'slug' then 0 when 'alias' then 1 else 2 end, created_at, name";
    let rows = tx.fetch_rows(sqlx::query(sql).bind(tenant.to_string())).await?;
    rows.iter()
        .map(|row| Ok((TenantName::from_stored(row::text_column(row, "name")?), row::enum_column(row, "kind")?)))
        .collect()
}
