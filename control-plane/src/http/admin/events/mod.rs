//! `/v1/events`: the audit log, with the names of tenants and of tokens.

mod kinds;

use std::collections::{BTreeSet, HashMap};

use axum::extract::State;
use catalog::events::{self, EventFilter, EventOrder, EventRecord};
use catalog::{OperationId, ReadTx, TenantId, TokenId, tenants, tokens};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::lookup;
use crate::http::admission::AdmittedCaller;
use crate::http::bounded_number::{PageLimit, TenantCount};
use crate::http::error::{Problem, ProblemBody, Result};
use crate::http::extract::{JsonBody, QueryParams};
use crate::http::pages::{PageOf, PageWindow};
use crate::http::{ApiState, time};
use crate::time_text;

/// The prefix of an actor that is a token, before the token's id.
const TOKEN: &str = "token:";

pub(crate) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(list_events))
}

/// An entry of the audit log: a change, or an operator's access to data.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Event)]
pub(crate) struct EventView {
    /// Number of the event. Later events have larger numbers.
    pub(crate) seq: i64,
    /// Time of the event, RFC 3339.
    at: String,
    /// Kind of the event: noun.verb, for instance `tenant.suspended`.
    pub(crate) kind: String,
    /// Actor that caused the event, for instance `token:tok_…`.
    actor: String,
    /// Label of the token that acted. Null for an actor that is not a token, and for a token without a label.
    actor_name: Option<String>,
    /// Id of the tenant; null if the event concerns no single tenant.
    tenant_id: Option<String>,
    /// Current name of the tenant; the last name if the tenant was purged.
    tenant: Option<String>,
    /// Id of the operation; null outside an operation.
    operation_id: Option<String>,
    /// Id of the request; null if no request caused the event.
    request_id: Option<String>,
    /// Further facts; the fields depend on the kind.
    data: serde_json::Value,
}

impl EventView {
    /// The API's view of a record.
    pub(crate) fn with_names(record: EventRecord, tenant: Option<String>, actors: &ActorNames) -> Self {
        let event = record.event;
        Self {
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
    pub(crate) async fn load_names(tx: &mut ReadTx, records: Vec<EventRecord>) -> Result<Vec<Self>> {
        let ids: BTreeSet<TenantId> = records.iter().filter_map(|record| record.event.tenant_id).collect();
        let ids: Vec<TenantId> = ids.into_iter().collect();
        let found = tenants::get_many(tx, &ids).await?;
        let names: HashMap<TenantId, String> = found.into_iter().map(|tenant| (tenant.id, tenant.name)).collect();
        let actors = ActorNames::of_records(tx, &records).await?;
        let one = |record: EventRecord| {
            let tenant = record.event.tenant_id.and_then(|id| names.get(&id).cloned());
            Self::with_names(record, tenant, &actors)
        };
        Ok(records.into_iter().map(one).collect())
    }
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

/// Which events; the fields narrow each other.
#[derive(Debug, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct EventFilters {
    /// Only events about the tenant with this name or id.
    tenant: Option<String>,
    /// Only events of the operation with this id: `op_…`.
    op: Option<String>,
    /// Only events of this actor: the actor as an event shows it, the id of a token, or the label of a token.
    actor: Option<String>,
    /// Only events of this kind, for instance `tenant.suspended`.
    kind: Option<String>,
    /// Only events at this time or later, RFC 3339.
    since: Option<String>,
    /// Only events before this time, RFC 3339.
    until: Option<String>,
    /// Order of the events: `oldest` or `newest` first. Default: `oldest`.
    #[param(value_type = Option<String>)]
    order: Option<EventOrder>,
    /// Only events with a larger `seq`. Needs the order `oldest`.
    #[param(value_type = Option<i64>, minimum = 0, maximum = 9_007_199_254_740_991_i64)]
    after: Option<TenantCount>,
    /// Maximum number of items per page: 1 to 1000. Default: 100.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000)]
    limit: Option<PageLimit>,
    /// The `next_cursor` of the previous page. Absent: the first page.
    cursor: Option<String>,
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
    let order = filters.order.unwrap_or_default();
    let after = filters.after.map(TenantCount::to_i64);
    if after.is_some() && order == EventOrder::Newest {
        return Err(Problem::invalid("after: only possible with the oldest first; use since, or omit order=newest"));
    }
    let mut tx = api.app.catalog.read().await?;
    let filter = filters.resolve_filter(&mut tx).await?;
    let from = window.after_key()?.or(after);
    let page = events::read_events(&mut tx, &filter, order, from, window.page_limit()).await?;
    let items = EventView::load_names(&mut tx, page.events).await?;
    Ok(JsonBody(window.page_until(items, page.next.map(|seq| seq.to_string()))))
}

impl EventFilters {
    async fn resolve_filter(&self, tx: &mut ReadTx) -> Result<EventFilter> {
        let op: Option<OperationId> = self.op.as_deref().map(lookup::parse_id).transpose()?;
        if let Some(op) = op {
            // An operation that does not exist has no events. An empty list would look like an answer.
            super::operations::find_operation(tx, op).await?;
        }
        let tenant = match &self.tenant {
            Some(name) => Some(lookup::find_tenant(tx, name).await?.id),
            None => None,
        };
        let actor = match &self.actor {
            Some(actor) => Some(find_actor(tx, actor).await?),
            None => None,
        };
        let at =
            |field: &str, text: &Option<String>| text.as_deref().map(|text| time::parse_time(field, text)).transpose();
        let (since, until) = (at("since", &self.since)?, at("until", &self.until)?);
        if since.zip(until).is_some_and(|(since, until)| since >= until) {
            return Err(Problem::invalid("since: it is not before until, so no event can be between them"));
        }
        let kind = kinds::parse_kind(self.kind.as_deref())?;
        Ok(EventFilter { tenant, op, actor, kind, since, until })
    }
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
