//! Controls an operation for an operator, and streams its events.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use catalog::events;
use catalog::operations as catalog_operations;
use catalog::{OperationId, ReadTx, changes};
use futures_util::Stream;
use futures_util::stream::unfold;
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::change::{ChangeOptions, ChangePlan, PlannedChange, check_reason};
use super::events::EventView;
use super::lookup;
use super::operations::{OperationView, find_operation, is_over};
use crate::error::ErrorKind;
use crate::http::ApiState;
use crate::http::admission::AdmittedCaller;
use crate::http::bounded_number::PageLimit;
use crate::http::error::{Problem, ProblemBody, Result};
use crate::http::extract::{JsonBody, PathParams, QueryParams, text_header};
use crate::http::pages::{PageOf, PageWindow};
use crate::runner::control::OperationControl;

/// Maximum number of events sent at once, so that a slow reader holds little memory.
const EVENTS_MAX: u32 = 100;
/// How long to wait for a change of the catalog before reading again. Commits of steps are noticed sooner.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Minimum pause between two reads, because a large migration commits many times a second.
const PAUSE: Duration = Duration::from_millis(100);

pub(crate) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(pause_operation))
        .routes(routes!(resume_operation))
        .routes(routes!(retry_operation))
        .routes(routes!(cancel_operation))
        .routes(routes!(abandon_operation))
        .routes(routes!(follow_operation))
}

/// Pause an operation: start no more steps. Running steps finish.
#[utoipa::path(post, path = "/v1/operations/{operation}/pause", tag = "operations", request_body = ChangeOptions, params(("operation" = String, Path, description = "Id of the operation: op_…")),
    responses((status = 200, description = "The operation after the request", body = OperationView), (status = 409, description = "The state of the operation does not allow this", body = ProblemBody)))]
async fn pause_operation(
    State(api): State<ApiState>,
    caller: AdmittedCaller,
    PathParams(id): PathParams<String>,
    JsonBody(wish): JsonBody<ChangeOptions>,
) -> Result<Response> {
    apply_control(&api, &caller, &id, OperationControl::Pause, wish).await
}

/// Resume a paused operation.
#[utoipa::path(post, path = "/v1/operations/{operation}/resume", tag = "operations", request_body = ChangeOptions, params(("operation" = String, Path, description = "Id of the operation: op_…")),
    responses((status = 200, description = "The operation after the request", body = OperationView), (status = 409, description = "The state of the operation does not allow this", body = ProblemBody)))]
async fn resume_operation(
    State(api): State<ApiState>,
    caller: AdmittedCaller,
    PathParams(id): PathParams<String>,
    JsonBody(wish): JsonBody<ChangeOptions>,
) -> Result<Response> {
    apply_control(&api, &caller, &id, OperationControl::Resume, wish).await
}

/// Retry the failed steps of an operation.
#[utoipa::path(post, path = "/v1/operations/{operation}/retry", tag = "operations", request_body = ChangeOptions, params(("operation" = String, Path, description = "Id of the operation: op_…")),
    responses((status = 200, description = "The operation after the request", body = OperationView), (status = 409, description = "The state of the operation does not allow this", body = ProblemBody)))]
async fn retry_operation(
    State(api): State<ApiState>,
    caller: AdmittedCaller,
    PathParams(id): PathParams<String>,
    JsonBody(wish): JsonBody<ChangeOptions>,
) -> Result<Response> {
    apply_control(&api, &caller, &id, OperationControl::Retry, wish).await
}

/// Cancel an operation: run no more steps, permanently.
#[utoipa::path(post, path = "/v1/operations/{operation}/cancel", tag = "operations", request_body = ChangeOptions, params(("operation" = String, Path, description = "Id of the operation: op_…")),
    responses((status = 200, description = "The operation after the request", body = OperationView), (status = 409, description = "The state of the operation does not allow this", body = ProblemBody)))]
async fn cancel_operation(
    State(api): State<ApiState>,
    caller: AdmittedCaller,
    PathParams(id): PathParams<String>,
    JsonBody(wish): JsonBody<ChangeOptions>,
) -> Result<Response> {
    apply_control(&api, &caller, &id, OperationControl::Cancel, wish).await
}

/// Abandon an operation: cancel it, and remove its half-finished work.
#[utoipa::path(post, path = "/v1/operations/{operation}/abandon", tag = "operations", request_body = ChangeOptions, params(("operation" = String, Path, description = "Id of the operation: op_…")),
    responses((status = 200, description = "The operation after the request", body = OperationView), (status = 409, description = "The state of the operation does not allow this", body = ProblemBody)))]
async fn abandon_operation(
    State(api): State<ApiState>,
    caller: AdmittedCaller,
    PathParams(id): PathParams<String>,
    JsonBody(wish): JsonBody<ChangeOptions>,
) -> Result<Response> {
    apply_control(&api, &caller, &id, OperationControl::Abandon, wish).await
}

async fn apply_control(
    api: &ApiState,
    caller: &AdmittedCaller,
    id: &str,
    what: OperationControl,
    wish: ChangeOptions,
) -> Result<Response> {
    check_reason(wish.reason.as_deref())?;
    let id: OperationId = lookup::parse_id(id)?;
    if wish.dry_run {
        return plan_control(&mut api.app.catalog.read().await?, id, what).await;
    }
    let record = api.app.control_operation(&caller.who, id, what, wish.reason.as_deref()).await?;
    Ok(JsonBody(OperationView::with_progress(&mut api.app.catalog.read().await?, record).await?).into_response())
}

/// The plan of a control: how many steps it concerns, and the operation's state.
async fn plan_control(tx: &mut ReadTx, id: OperationId, what: OperationControl) -> Result<Response> {
    let record = find_operation(tx, id).await?;
    let progress = catalog_operations::operation_progress(tx, id).await?;
    let (kind, steps) = match what {
        OperationControl::Pause => ("operation.pause", progress.pending),
        OperationControl::Resume => ("operation.resume", progress.pending),
        OperationControl::Retry => ("operation.retry", progress.failed),
        OperationControl::Cancel => ("operation.cancel", progress.pending),
        OperationControl::Abandon => ("operation.abandon", progress.pending + progress.failed),
    };
    let note = format!("the {} operation is {:?}", record.kind, record.state).to_lowercase();
    Ok(JsonBody(PlannedChange::new(ChangePlan::about_tenants(kind, steps.unsigned_abs(), note))).into_response())
}

/// Page of a list of events. A stream ignores it.
#[derive(Debug, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct OperationEventQuery {
    /// Maximum number of items of a JSON page: 1 to 1000. Default: 100.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000)]
    limit: Option<PageLimit>,
    /// The `next_cursor` of the previous JSON page. Absent: the first page.
    cursor: Option<String>,
}

/// Follow the events of an operation.
///
/// The answer is a stream that ends with the operation. `Last-Event-ID` continues an interrupted stream. A client that
/// accepts `application/json` gets a page instead.
#[utoipa::path(get, path = "/v1/operations/{operation}/events", tag = "operations",
    params(("operation" = String, Path, description = "Id of the operation: op_…"), OperationEventQuery, ("Last-Event-ID" = Option<i64>, Header, description = "The `seq` of the last event that was received")),
    responses((status = 200, description = "One page of events, or a stream of events (text/event-stream)", body = PageOf<EventView>), (status = 404, description = "No operation has this id", body = ProblemBody)))]
async fn follow_operation(
    State(api): State<ApiState>,
    caller: AdmittedCaller,
    PathParams(id): PathParams<String>,
    QueryParams(part): QueryParams<OperationEventQuery>,
    headers: HeaderMap,
) -> Result<Response> {
    let id: OperationId = lookup::parse_id(&id)?;
    let mut tx = api.app.catalog.read().await?;
    find_operation(&mut tx, id).await?;
    if text_header(&headers, header::ACCEPT.as_str()).is_some_and(|accept| accept.contains("application/json")) {
        let window =
            PageWindow::open_window(&api, &caller, "operation_events", &id, (part.limit, part.cursor.as_deref()))?;
        let rows =
            events::list_events(&mut tx, None, Some(id), window.after_key()?.unwrap_or(0), window.rows_to_read())
                .await?;
        let page = window.into_page(rows, |row| row.seq.to_string(), |row| row);
        let items = EventView::load_names(&mut tx, page.items).await?;
        return Ok(JsonBody(PageOf { items, next_cursor: page.next_cursor }).into_response());
    }
    let after = last_event_id(&headers)?;
    drop(tx);
    Ok(Sse::new(event_stream(api, id, after)).keep_alive(KeepAlive::default()).into_response())
}

fn last_event_id(headers: &HeaderMap) -> Result<i64> {
    let Some(value) = headers.get("last-event-id") else { return Ok(0) };
    value
        .to_str()
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .filter(|seq| *seq >= 0)
        .ok_or_else(|| Problem::new(ErrorKind::InvalidHeader, "Last-Event-ID: expected the id of an event"))
}

/// The position of an event stream.
struct OperationEventStream {
    api: ApiState,
    operation: OperationId,
    after: i64,
    waiting: std::vec::IntoIter<EventView>,
    over: bool,
}

fn event_stream(api: ApiState, operation: OperationId, after: i64) -> impl Stream<Item = Result<SseEvent, Infallible>> {
    let start = OperationEventStream { api, operation, after, waiting: Vec::new().into_iter(), over: false };
    unfold(start, |mut following| async move {
        let event = following.next_event().await?;
        let sse = SseEvent::default().id(event.seq.to_string()).event(event.kind.clone());
        let sse = sse.json_data(event).unwrap_or_else(|_| SseEvent::default().comment("an event that is not JSON"));
        Some((Ok(sse), following))
    })
}

impl OperationEventStream {
    /// The next event. `None` when the operation has ended, the process ends, or the catalog cannot be read. The client
    /// then reconnects with `Last-Event-ID`.
    async fn next_event(&mut self) -> Option<EventView> {
        loop {
            if let Some(record) = self.waiting.next() {
                self.after = record.seq;
                return Some(record);
            }
            if self.over || self.api.draining.is_cancelled() {
                return None;
            }
            // The state is read first. An event that is written between the two reads is then found by the second.
            let mut tx = self.api.app.catalog.read().await.ok()?;
            let state = catalog_operations::get(&mut tx, self.operation).await.ok()??.state;
            let found = events::list_events(&mut tx, None, Some(self.operation), self.after, EVENTS_MAX).await.ok()?;
            let found = EventView::load_names(&mut tx, found).await.ok()?;
            let seen = changes::feed_head(&mut tx).await.ok()?;
            drop(tx);
            self.over = is_over(state) && found.len() < EVENTS_MAX as usize;
            if found.is_empty() && !self.over {
                self.read_more_events(seen).await;
            }
            self.waiting = found.into_iter();
        }
    }

    async fn read_more_events(&self, seen: i64) {
        let changed = async {
            tokio::time::sleep(PAUSE).await;
            // An error shows at the next read.
            let _ = changes::wait_for_change(&self.api.app.catalog, seen, LOOK_AGAIN).await;
        };
        tokio::select! {
            () = changed => {}
            () = self.api.draining.cancelled() => {}
        }
    }
}
