//! `/v1/events`: the audit log, with the names of tenants and of tokens.

mod kinds;

use std::collections::{BTreeSet, HashMap};

use axum::extract::State;
use catalog::events::{self, EventFilter, EventOrder, EventRecord};
use catalog::{OperationId, ReadTx, TenantId, TokenId, tenants, tokens};
use fleet_api::bounded_number::TenantCount;
use fleet_api::events::{EventFilters, EventView};
use fleet_api::pages::PageOf;
use fleet_api::problem::ProblemBody;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::lookup;
use crate::http::admin::words::parse_choice;
use crate::http::admission::AdmittedCaller;
use crate::http::error::{Problem, Result};
use crate::http::extract::{JsonBody, QueryParams};
use crate::http::pages::PageWindow;
use crate::http::{ApiState, time};
use crate::time_text;

/// The prefix of an actor that is a token, before the token's id.
const TOKEN: &str = "token:";

pub(crate) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(list_events))
}

/// The API's view of a record.
pub(crate) fn event_view(record: EventRecord, tenant: Option<String>, actors: &ActorNames) -> EventView {
    let event = record.event;
    EventView {
        seq: record.seq,
        at: time_text::format_time(record.at),
        kind: event.kind,
        actor_name: actors.name_of_actor(&event.actor),
        actor: event.actor,
        tenant_id: event.tenant_id.map(|id| id.to_string()),
        tenant,
        operation_id: event.op_id.map(|id| id.to_string()),
        request_id: event.request_id,
        data: event.data,
    }
}

/// The API's views of records, with the names of their tenants and tokens.
pub(crate) async fn event_views(tx: &mut ReadTx, records: Vec<EventRecord>) -> Result<Vec<EventView>> {
    let ids: BTreeSet<TenantId> = records.iter().filter_map(|record| record.event.tenant_id).collect();
    let ids: Vec<TenantId> = ids.into_iter().collect();
    let found = tenants::get_many(tx, &ids).await?;
    let names: HashMap<TenantId, String> = found.into_iter().map(|tenant| (tenant.id, tenant.name)).collect();
    let actors = ActorNames::of_records(tx, &records).await?;
    let one = |record: EventRecord| {
        let tenant = record.event.tenant_id.and_then(|id| names.get(&id).cloned());
        event_view(record, tenant, &actors)
    };
    Ok(records.into_iter().map(one).collect())
}

/// The labels of the tokens that occur as actors.
#[derive(Debug, Default)]
pub(crate) struct ActorNames(HashMap<TokenId, String>);

impl ActorNames {
    /// The labels for the actors of these records.
    pub(crate) async fn of_records(tx: &mut ReadTx, records: &[EventRecord]) -> Result<Self> {
        let ids: BTreeSet<TokenId> = records.iter().filter_map(|record| token_of(&record.event.actor)).collect();
        Ok(Self(tokens::token_labels(tx, &ids.into_iter().collect::<Vec<_>>()).await?))
    }

    fn name_of_actor(&self, actor: &str) -> Option<String> {
        self.0.get(&token_of(actor)?).cloned()
    }
}

/// The token that an actor names.
fn token_of(actor: &str) -> Option<TokenId> {
    actor.strip_prefix(TOKEN)?.parse().ok()
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
