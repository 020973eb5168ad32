//! From a selection to records, inside the transaction that plans with them.

use catalog::tenants::Selection as Filter;
use catalog::{Name, ReadTx, ServerId, TenantId, TenantRecord, TenantState};

use crate::error::{Error, Result};
use crate::plan::Selection;
use crate::plan::select::{self, Reference};

/// Tenants read at once: the longest page the catalog gives.
const PAGE: u32 = 10_000;
/// Unknown names told in one error.
const TOLD_MAX: usize = 5;

/// The tenants of a selection that are in one of `states`. Naming a tenant that is in another state is an error; a
/// label, a server or "all" just does not mean it.
pub(super) async fn tenants(
    tx: &mut ReadTx,
    selection: &Selection,
    states: &[TenantState],
) -> Result<Vec<TenantRecord>> {
    if selection.is_empty() {
        return Err(Error::new(422, "selection_empty", "no tenant was selected")
            .try_next("name tenants, select by label or server, or say --all"));
    }
    let ids = match selection.names.as_slice() {
        [] => None,
        names => Some(resolve(tx, names).await?),
    };
    let server = server(tx, selection).await?;
    let named = ids.as_ref().map(Vec::len);
    let filter = Filter { ids, labels: selection.label_selector()?, server, states: states.to_vec() };
    let found = all(tx, &filter).await?;
    if named.is_some_and(|named| named > found.len()) && filter.labels.is_empty() && server.is_none() {
        return Err(wrong_state(tx, &filter, &found).await?);
    }
    if found.is_empty() && !selection.allow_empty {
        return Err(matches_nobody(tx, &filter).await?);
    }
    Ok(found)
}

/// The server that a selection names.
pub(super) async fn server(tx: &mut ReadTx, selection: &Selection) -> Result<Option<ServerId>> {
    let Some(name) = &selection.server else { return Ok(None) };
    let found = catalog::servers::by_name(tx, name).await?;
    let found =
        found.ok_or_else(|| not_found(&format!("there is no server '{name}'")).try_next("fleetctl server list"))?;
    Ok(Some(found.id))
}

/// A command that would act on nobody, most often because of a typing error, must not be taken for one that has acted.
async fn matches_nobody(tx: &mut ReadTx, filter: &Filter) -> Result<Error> {
    let anywhere = Filter { states: Vec::new(), ..filter.clone() };
    let states: Vec<String> = filter.states.iter().map(|state| shown(*state)).collect();
    let detail = match all(tx, &anywhere).await?.len() {
        0 => "the selection matches no tenant".to_owned(),
        others => format!("the selection matches {others} tenants, but none of them is {}", states.join(" or ")),
    };
    Ok(Error::new(404, "selection_matches_nobody", detail)
        .try_next("look with the same selection: fleetctl tenant list")
        .try_next("if an empty selection is right, add --allow-empty"))
}

async fn all(tx: &mut ReadTx, filter: &Filter) -> Result<Vec<TenantRecord>> {
    let mut found = Vec::new();
    loop {
        let after = found.last().map(|last: &TenantRecord| last.id);
        let page = catalog::tenants::page(tx, filter, after, PAGE).await?;
        let more = page.len() == PAGE as usize;
        found.extend(page);
        if !more {
            return Ok(found);
        }
    }
}

/// Ids of all names; each once, in order.
async fn resolve(tx: &mut ReadTx, names: &[String]) -> Result<Vec<TenantId>> {
    let (mut ids, mut slugs) = (Vec::new(), Vec::new());
    for name in names {
        match select::reference(name)? {
            Reference::Id(id) => ids.push(id),
            Reference::Name(name) => slugs.push(name),
        }
    }
    let known: std::collections::HashMap<Name, TenantId> =
        catalog::names::taken(tx, &slugs).await?.into_iter().collect();
    slugs.sort_unstable();
    slugs.dedup();
    let unknown: Vec<&str> =
        slugs.iter().filter(|name| !known.contains_key(name)).map(Name::as_str).take(TOLD_MAX + 1).collect();
    if !unknown.is_empty() {
        let more = if unknown.len() > TOLD_MAX { " and more" } else { "" };
        let told = unknown[..unknown.len().min(TOLD_MAX)].join(", ");
        return Err(
            not_found(&format!("there is no tenant named {told}{more}")).try_next("fleetctl tenant list -o name")
        );
    }
    ids.extend(known.into_values());
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

/// Why fewer tenants were found than named.
async fn wrong_state(tx: &mut ReadTx, filter: &Filter, found: &[TenantRecord]) -> Result<Error> {
    let anywhere = Filter { states: Vec::new(), ..filter.clone() };
    let is_found = |tenant: &TenantRecord| found.iter().any(|other| other.id == tenant.id);
    let other = all(tx, &anywhere).await?.into_iter().find(|tenant| !is_found(tenant));
    Ok(match other {
        // What is gone or was never finished is unknown to everybody but its own operation.
        Some(tenant) if matches!(tenant.state, TenantState::Deleted | TenantState::Purged) => {
            not_found(&format!("there is no tenant named {}: it was deleted", tenant.name))
        }
        Some(tenant) => {
            let detail = format!("{} is {}", tenant.name, shown(tenant.state));
            Error::new(409, "conflict", detail).try_next(format!("fleetctl tenant get {}", tenant.name))
        }
        None => not_found("one of the ids names no tenant"),
    })
}

/// A state as the API writes it.
fn shown(state: TenantState) -> String {
    let state = serde_json::to_value(state).ok().and_then(|state| state.as_str().map(str::to_owned));
    state.unwrap_or_default()
}

fn not_found(detail: &str) -> Error {
    Error::new(404, "not_found", detail)
}
