//! An operator's hand on an operation, and what happens in it as it happens.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use catalog::events::{self, EventRecord};
use catalog::operations as catalog_operations;
use catalog::{OperationId, ReadTx, changes};
use futures_util::Stream;
use futures_util::stream::unfold;
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::change::{Plan, Planned, Wish, check_reason};
use super::events::Event;
use super::lookup;
use super::operations::{Operation, find, is_over};
use crate::http::Api;
use crate::http::admission::Caller;
use crate::http::error::{Problem, ProblemBody, Result};
use crate::http::extract::{Json, Path, Query, text_header};
use crate::http::number::Limit;
use crate::http::pages::{PageOf, Window};
use crate::runner::control::Control;

/// Events sent at once; a slow reader holds no more in memory.
const EVENTS_MAX: u32 = 100;
/// How long a change of the catalog is waited for before looking again: commits of steps are felt sooner.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Between two looks, however much is written: a large rollout commits many times a second.
const PAUSE: Duration = Duration::from_millis(100);

pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(pause))
        .routes(routes!(resume))
        .routes(routes!(retry))
        .routes(routes!(cancel))
        .routes(routes!(abandon))
        .routes(routes!(follow))
}

/// Claims no more steps; those that run finish.
#[utoipa::path(post, path = "/v1/operations/{operation}/pause", tag = "operations", request_body = Wish, params(("operation" = String, Path, description = "op_…")),
    responses((status = 200, description = "As it is now", body = Operation), (status = 409, description = "Not in this state", body = ProblemBody)))]
async fn pause(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
    Json(wish): Json<Wish>,
) -> Result<Response> {
    control(&api, &caller, &id, Control::Pause, wish).await
}

/// Goes on.
#[utoipa::path(post, path = "/v1/operations/{operation}/resume", tag = "operations", request_body = Wish, params(("operation" = String, Path, description = "op_…")),
    responses((status = 200, description = "As it is now", body = Operation), (status = 409, description = "Not in this state", body = ProblemBody)))]
async fn resume(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
    Json(wish): Json<Wish>,
) -> Result<Response> {
    control(&api, &caller, &id, Control::Resume, wish).await
}

/// Runs the failed steps again.
#[utoipa::path(post, path = "/v1/operations/{operation}/retry", tag = "operations", request_body = Wish, params(("operation" = String, Path, description = "op_…")),
    responses((status = 200, description = "As it is now", body = Operation), (status = 409, description = "Not in this state", body = ProblemBody)))]
async fn retry(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
    Json(wish): Json<Wish>,
) -> Result<Response> {
    control(&api, &caller, &id, Control::Retry, wish).await
}

/// Runs no more steps, ever.
#[utoipa::path(post, path = "/v1/operations/{operation}/cancel", tag = "operations", request_body = Wish, params(("operation" = String, Path, description = "op_…")),
    responses((status = 200, description = "As it is now", body = Operation), (status = 409, description = "Not in this state", body = ProblemBody)))]
async fn cancel(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
    Json(wish): Json<Wish>,
) -> Result<Response> {
    control(&api, &caller, &id, Control::Cancel, wish).await
}

/// Cancels, and gives up what is half made.
#[utoipa::path(post, path = "/v1/operations/{operation}/abandon", tag = "operations", request_body = Wish, params(("operation" = String, Path, description = "op_…")),
    responses((status = 200, description = "As it is now", body = Operation), (status = 409, description = "Not in this state", body = ProblemBody)))]
async fn abandon(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
    Json(wish): Json<Wish>,
) -> Result<Response> {
    control(&api, &caller, &id, Control::Abandon, wish).await
}

async fn control(api: &Api, caller: &Caller, id: &str, what: Control, wish: Wish) -> Result<Response> {
    check_reason(wish.reason.as_deref())?;
    let id: OperationId = lookup::id(id)?;
    if wish.dry_run {
        return planned(&mut api.app.catalog.read().await?, id, what).await;
    }
    let record = api.app.control(&caller.who, id, what, wish.reason.as_deref()).await?;
    Ok(Json(Operation::read(&mut api.app.catalog.read().await?, record).await?).into_response())
}

/// What a verb would meet: how many steps it is about, and the state it finds.
async fn planned(tx: &mut ReadTx, id: OperationId, what: Control) -> Result<Response> {
    let record = find(tx, id).await?;
    let progress = catalog_operations::progress(tx, id).await?;
    let (kind, steps) = match what {
        Control::Pause => ("operation.pause", progress.pending),
        Control::Resume => ("operation.resume", progress.pending),
        Control::Retry => ("operation.retry", progress.failed),
        Control::Cancel => ("operation.cancel", progress.pending),
        Control::Abandon => ("operation.abandon", progress.pending + progress.failed),
    };
    let note = format!("the {} operation is {:?}", record.kind, record.state).to_lowercase();
    Ok(Json(Planned::new(Plan::about(kind, steps.unsigned_abs(), note))).into_response())
}

/// Which events.
#[derive(Debug, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Part {
    /// Of the JSON page: 1 to 1000; 100 unless given.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000)]
    limit: Option<Limit>,
    /// Of the JSON page: from the page before.
    cursor: Option<String>,
}

/// The events of an operation, as a stream that ends with it (`Last-Event-ID` goes on where it broke off), or as a page
/// for who accepts `application/json`.
#[utoipa::path(get, path = "/v1/operations/{operation}/events", tag = "operations",
    params(("operation" = String, Path, description = "op_…"), Part, ("Last-Event-ID" = Option<i64>, Header, description = "The `seq` of the last event seen")),
    responses((status = 200, description = "A page, or text/event-stream", body = PageOf<Event>), (status = 404, description = "No such operation", body = ProblemBody)))]
async fn follow(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
    Query(part): Query<Part>,
    headers: HeaderMap,
) -> Result<Response> {
    let id: OperationId = lookup::id(&id)?;
    let mut tx = api.app.catalog.read().await?;
    find(&mut tx, id).await?;
    if text_header(&headers, header::ACCEPT.as_str()).is_some_and(|accept| accept.contains("application/json")) {
        let window = Window::open(&api, &caller, "operation_events", &id, (part.limit, part.cursor.as_deref()))?;
        let rows = events::page(&mut tx, None, Some(id), window.after()?.unwrap_or(0), window.rows()).await?;
        return Ok(Json(window.page(rows, |row| row.seq.to_string(), Event::new)).into_response());
    }
    let after = last_event_id(&headers)?;
    drop(tx);
    Ok(Sse::new(stream(api, id, after)).keep_alive(KeepAlive::default()).into_response())
}

fn last_event_id(headers: &HeaderMap) -> Result<i64> {
    let Some(value) = headers.get("last-event-id") else { return Ok(0) };
    value.to_str().ok().and_then(|text| text.trim().parse().ok()).filter(|seq| *seq >= 0).ok_or_else(|| {
        Problem::new(StatusCode::BAD_REQUEST, "invalid_header", "Last-Event-ID: expected the id of an event")
    })
}

/// How far a stream is.
struct Following {
    api: Api,
    operation: OperationId,
    after: i64,
    waiting: std::vec::IntoIter<EventRecord>,
    over: bool,
}

fn stream(api: Api, operation: OperationId, after: i64) -> impl Stream<Item = Result<SseEvent, Infallible>> {
    let start = Following { api, operation, after, waiting: Vec::new().into_iter(), over: false };
    unfold(start, |mut following| async move {
        let record = following.next().await?;
        let event = Event::new(record);
        let sse = SseEvent::default().id(event.seq.to_string()).event(event.kind.clone());
        let sse = sse.json_data(event).unwrap_or_else(|_| SseEvent::default().comment("an event that is no JSON"));
        Some((Ok(sse), following))
    })
}

impl Following {
    /// The next event; `None` when the operation has ended, the process ends, or the catalog cannot be read: the client
    /// comes back with `Last-Event-ID`.
    async fn next(&mut self) -> Option<EventRecord> {
        loop {
            if let Some(record) = self.waiting.next() {
                self.after = record.seq;
                return Some(record);
            }
            if self.over || self.api.draining.is_cancelled() {
                return None;
            }
            // The state first: what is written between the two reads is then found by the second.
            let mut tx = self.api.app.catalog.read().await.ok()?;
            let state = catalog_operations::get(&mut tx, self.operation).await.ok()??.state;
            let found = events::page(&mut tx, None, Some(self.operation), self.after, EVENTS_MAX).await.ok()?;
            let seen = changes::head(&mut tx).await.ok()?;
            drop(tx);
            self.over = is_over(state) && found.len() < EVENTS_MAX as usize;
            if found.is_empty() && !self.over {
                self.look_again(seen).await;
            }
            self.waiting = found.into_iter();
        }
    }

    async fn look_again(&self, seen: i64) {
        let changed = async {
            tokio::time::sleep(PAUSE).await;
            // An error shows at the next look.
            let _ = changes::wait(&self.api.app.catalog, seen, LOOK_AGAIN).await;
        };
        tokio::select! {
            () = changed => {}
            () = self.api.draining.cancelled() => {}
        }
    }
}
