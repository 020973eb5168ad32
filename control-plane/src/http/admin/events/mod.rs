//! `/v1/events`: the audit log, with the names of tenants and of tokens.

pub(crate) mod kinds;

use axum::extract::State;
use catalog::events::{self, EventFilter, EventOrder};
use catalog::{OperationId, ReadTx, TokenId, tokens};
use fleet_api::bounded_number::TenantCount;
use fleet_api::events::{EventFilters, EventView};
use fleet_api::pages::PageOf;
use fleet_api::problem::ProblemBody;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::lookup;
use crate::event_views::{TOKEN, event_views};
use crate::http::admin::words::parse_choice;
use crate::http::admission::AdmittedCaller;
use crate::http::error::{Problem, Result};
use crate::http::extract::{JsonBody, QueryParams};
use crate::http::pages::PageWindow;
use crate::http::{ApiState, time};

pub(crate) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(list_events))
}

/// List the events of the audit log.
///
/// One request reads at most 200,000 events. So a page may have fewer than `limit` items, even none, and still have a
/// `next_cursor`.
#[utoipa::path(get, path = "/v1/events", tag = "events", params(EventFilters),
    responses((status = 200, description = "One page of the list", body = PageOf<EventView>), (status = "4XX", description = "The request was refused", body = ProblemBody)))]
async fn list_events(
    State(api): State<ApiState>,
    caller: AdmittedCaller,
    QueryParams(filters): QueryParams<EventFilters>,
) -> Result<JsonBody<PageOf<EventView>>> {
    let window =
        PageWindow::open_window(&api, &caller, "events", &filters, (filters.limit, filters.cursor.as_deref()))?;
    let order = filters.order.as_deref().map(|order| parse_choice("order", order)).transpose()?.unwrap_or_default();
    let after = filters.after.map(TenantCount::to_i64);
    if after.is_some() && order == EventOrder::Newest {
        return Err(Problem::invalid("after: only possible with the oldest first; use since, or omit order=newest"));
    }
    let mut tx = api.app.catalog.read().await?;
    let filter = resolve_filter(&filters, &mut tx).await?;
    let from = window.after_key()?.or(after);
    let page = events::read_events(&mut tx, &filter, order, from, window.page_limit()).await?;
    let items = event_views(&mut tx, page.events).await?;
    Ok(JsonBody(window.page_until(items, page.next.map(|seq| seq.to_string()))))
}

async fn resolve_filter(filters: &EventFilters, tx: &mut ReadTx) -> Result<EventFilter> {
    let op: Option<OperationId> = filters.op.as_deref().map(lookup::parse_id).transpose()?;
    if let Some(op) = op {
        // An operation that does not exist has no events. An empty list would look like an answer.
        super::operations::find_operation(tx, op).await?;
    }
    let tenant = match &filters.tenant {
        Some(name) => Some(lookup::find_tenant(tx, name).await?.id),
        None => None,
    };
    let actor = match &filters.actor {
        Some(actor) => Some(find_actor(tx, actor).await?),
        None => None,
    };
    let at = |field: &str, text: &Option<String>| text.as_deref().map(|text| time::parse_time(field, text)).transpose();
    let (since, until) = (at("since", &filters.since)?, at("until", &filters.until)?);
    if since.zip(until).is_some_and(|(since, until)| since >= until) {
        return Err(Problem::invalid("since: it is not before until, so no event can be between them"));
    }
    let kind = kinds::parse_kind(filters.kind.as_deref())?;
    Ok(EventFilter { tenant, op, actor, kind, since, until })
}

/// The actor as the log writes it. A token may be named by its id or by its label.
async fn find_actor(tx: &mut ReadTx, actor: &str) -> Result<String> {
    let id = actor.strip_prefix(TOKEN).unwrap_or(actor);
    if id.starts_with("tok_") {
        let id: TokenId = lookup::parse_id(id)?;
        let found = tokens::get(tx, id).await?;
        let missing = || Problem::not_found(format!("there is no token {id}")).try_next("fleetctl token list");
        return found.map(|_| format!("{TOKEN}{id}")).ok_or_else(missing);
    }
    match tokens::by_label(tx, actor).await?.as_slice() {
        [] if actor.contains([':', '@']) || actor == FLEET => Ok(actor.to_owned()),
        [] => {
            let detail = format!(
                "there is no actor '{}': expected an actor of an event, or a token",
                lookup::display_safe(actor)
            );
            Err(Problem::not_found(detail).try_next("fleetctl token list      # ids and labels of tokens"))
        }
        [id] => Ok(format!("{TOKEN}{id}")),
        _ => {
            let detail = format!("several tokens have the label '{}': name one by its id", lookup::display_safe(actor));
            Err(Problem::invalid(detail).try_next("fleetctl token list"))
        }
    }
}

/// The actor of changes that the control plane makes by itself.
const FLEET: &str = "fleet";
