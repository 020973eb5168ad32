//! Resolves a selection to tenant records, page by page, inside the transaction that plans with them.

use catalog::tenants::TenantCriteria as Filter;
use catalog::{ReadTx, ServerId, TenantId, TenantName, TenantRecord, TenantState};

use crate::error::{Error, ErrorKind, Result};
use crate::plan::TenantSelection;
use crate::plan::select::{self, TenantReference};

/// Tenants read per page. Enough that the statements cost little compared with the rows. Few enough that the records
/// need little memory: about 5 KB each while the driver also holds their rows.
const PAGE: u32 = 1_000;
/// Maximum number of unknown names in one error.
const TOLD_MAX: usize = 5;

/// The tenants of a selection, page by page, in the order of their ids.
pub(crate) struct SelectionPages {
    filter: Filter,
    after: Option<TenantId>,
    is_last_read: bool,
}

impl SelectionPages {
    /// Starts to read the tenants that are in one of `states`. A named tenant in another state is an error. A label, a
    /// server or "all" does not include such tenants.
    pub(crate) async fn open_pages(
        tx: &mut ReadTx,
        selection: &TenantSelection,
        states: &[TenantState],
    ) -> Result<Self> {
        if selection.is_empty() {
            return Err(Error::new(ErrorKind::SelectionEmpty, "no tenant was selected")
                .try_next("name tenants, select by label or server, or say --all"));
        }
        let ids = match selection.names.as_slice() {
            [] => None,
            names => Some(resolve_names(tx, names).await?),
        };
        let server = selected_server(tx, selection).await?;
        let filter =
            Filter { ids, labels: selection.label_selector()?, server, states: states.to_vec(), read_only: false };
        let pages = Self { filter, after: None, is_last_read: false };
        if !pages.has_all_named(tx).await? {
            return Err(wrong_state(tx, &pages.filter).await?);
        }
        if !selection.allow_empty && catalog::tenants::list_tenants(tx, &pages.filter, None, 1).await?.is_empty() {
            return Err(matches_nobody(tx, &pages.filter).await?);
        }
        Ok(pages)
    }

    /// Whether every named tenant is in one of the states. Only checked if no label or server narrows the selection.
    async fn has_all_named(&self, tx: &mut ReadTx) -> Result<bool> {
        let (Some(ids), true, None) = (&self.filter.ids, self.filter.labels.is_empty(), self.filter.server) else {
            return Ok(true);
        };
        Ok(usize::try_from(catalog::tenants::count_tenants(tx, &self.filter).await?) == Ok(ids.len()))
    }

    /// The number of tenants on all pages.
    pub(crate) async fn count_tenants(&self, tx: &mut ReadTx) -> Result<i64> {
        Ok(catalog::tenants::count_tenants(tx, &self.filter).await?)
    }

    /// The next page. `None` after the last one. The first page of an allowed empty selection is empty.
    pub(crate) async fn next_page(&mut self, tx: &mut ReadTx) -> Result<Option<Vec<TenantRecord>>> {
        if self.is_last_read {
            return Ok(None);
        }
        let page = catalog::tenants::list_tenants(tx, &self.filter, self.after, PAGE).await?;
        self.is_last_read = page.len() < PAGE as usize;
        let is_first = self.after.is_none();
        self.after = page.last().map(|last| last.id).or(self.after);
        Ok((is_first || !page.is_empty()).then_some(page))
    }
}

/// All tenants of a selection at once.
pub(super) async fn select_all(
    tx: &mut ReadTx,
    selection: &TenantSelection,
    states: &[TenantState],
) -> Result<Vec<TenantRecord>> {
    let (mut pages, mut found) = (SelectionPages::open_pages(tx, selection, states).await?, Vec::new());
    while let Some(page) = pages.next_page(tx).await? {
        found.extend(page);
    }
    Ok(found)
}

/// The id of the server that a selection names.
pub(super) async fn selected_server(tx: &mut ReadTx, selection: &TenantSelection) -> Result<Option<ServerId>> {
    let Some(name) = &selection.server else { return Ok(None) };
    let found = catalog::servers::by_name(tx, name).await?;
    let found =
        found.ok_or_else(|| not_found(&format!("there is no server '{name}'")).try_next("fleetctl server list"))?;
    Ok(Some(found.id))
}

/// The error of a selection without tenants, most often a typing error. It must not look like a command that has acted.
async fn matches_nobody(tx: &mut ReadTx, filter: &Filter) -> Result<Error> {
    let anywhere = Filter { states: Vec::new(), ..filter.clone() };
    let states: Vec<String> = filter.states.iter().map(|state| state_text(*state)).collect();
    let detail = match catalog::tenants::count_tenants(tx, &anywhere).await? {
        0 => "the selection matches no tenant".to_owned(),
        others => format!("the selection matches {others} tenants, but none of them is {}", states.join(" or ")),
    };
    Ok(Error::new(ErrorKind::SelectionMatchesNobody, detail)
        .try_next("look with the same selection: fleetctl tenant list")
        .try_next("if an empty selection is right, add --allow-empty"))
}

/// The ids of all names, each once, in order.
async fn resolve_names(tx: &mut ReadTx, names: &[String]) -> Result<Vec<TenantId>> {
    let (mut ids, mut slugs) = (Vec::new(), Vec::new());
    for name in names {
        match select::parse_reference(name)? {
            TenantReference::Id(id) => ids.push(id),
            TenantReference::Name(name) => slugs.push(name),
        }
    }
    let known: std::collections::HashMap<TenantName, TenantId> =
        catalog::names::taken_names(tx, &slugs).await?.into_iter().collect();
    slugs.sort_unstable();
    slugs.dedup();
    let unknown: Vec<&str> =
        slugs.iter().filter(|name| !known.contains_key(name)).map(TenantName::as_str).take(TOLD_MAX + 1).collect();
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

/// The error when fewer tenants were found than named.
async fn wrong_state(tx: &mut ReadTx, filter: &Filter) -> Result<Error> {
    let anywhere = Filter { states: Vec::new(), ..filter.clone() };
    let mut pages = SelectionPages { filter: anywhere, after: None, is_last_read: false };
    let mut other = None;
    while let (None, Some(page)) = (&other, pages.next_page(tx).await?) {
        other = page.into_iter().find(|tenant| !filter.states.contains(&tenant.state));
    }
    Ok(match other {
        // Deleted and purged tenants count as unknown to all operations but their own.
        Some(tenant) if matches!(tenant.state, TenantState::Deleted | TenantState::Purged) => {
            not_found(&format!("there is no tenant named {}: it was deleted", tenant.name))
        }
        Some(tenant) => {
            let expected: Vec<String> = filter.states.iter().map(|state| state_text(*state)).collect();
            let (state, expected) = (state_text(tenant.state), expected.join(" or "));
            let detail = format!("{} is {state}, but this needs a tenant that is {expected}", tenant.name);
            Error::new(ErrorKind::Conflict, detail).try_next(format!("fleetctl tenant get {}", tenant.name))
        }
        None => not_found("one of the ids does not name a tenant"),
    })
}

/// A state as the API writes it.
fn state_text(state: TenantState) -> String {
    let state = serde_json::to_value(state).ok().and_then(|state| state.as_str().map(str::to_owned));
    state.unwrap_or_default()
}

fn not_found(detail: &str) -> Error {
    Error::new(ErrorKind::NotFound, detail)
}
