//! `/v1/operations/{operation}/events`: follows the events of one operation.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use catalog::events;
use catalog::operations as catalog_operations;
use catalog::{OperationId, changes};
use fleet_api::events::EventView;
use fleet_api::operations::OperationEventQuery;
use fleet_api::pages::PageOf;
use fleet_api::problem::ProblemBody;
use futures_util::Stream;
use futures_util::stream::unfold;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{find_operation, is_over};
use crate::error::ErrorKind;
use crate::event_views::event_views;
use crate::http::ApiState;
use crate::http::admin::lookup;
use crate::http::admission::AdmittedCaller;
use crate::http::error::{Problem, Result};
use crate::http::extract::{JsonBody, PathParams, QueryParams, text_header};
use crate::http::pages::PageWindow;

/// Maximum number of events sent at once, so that a slow reader holds little memory.
const EVENTS_MAX: u32 = 100;
/// How long to wait for a change of the catalog before reading again. Commits of steps are noticed sooner.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Minimum pause between two reads, because a large migration commits many times a second.
const PAUSE: Duration = Duration::from_millis(100);

pub(crate) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(follow_operation))
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
        let items = event_views(&mut tx, page.items).await?;
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
            let found = event_views(&mut tx, found).await.ok()?;
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
