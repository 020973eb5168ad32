//! `Idempotency-Key`: a POST sent twice with the same key is done once.
//!
//! The key is taken before the handler runs and answered with the first answer afterwards. Only successes are
//! remembered: a refusal did nothing, so that the caller may mend the request and keep its key. Streams are not
//! remembered; the routes that answer with one change nothing.

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, Response as HttpResponse, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use catalog::idempotency::{self, Remembered};

use super::Api;
use super::admin::change;
use super::admission::Caller;
use super::error::{Problem, Result, too_large};
use super::extract::in_time;

const KEY: &str = "idempotency-key";
/// UUIDs and the like; the limit of the draft's examples many times over.
const KEY_BYTES_MAX: usize = 255;
/// The largest body of any POST.
const BODY_BYTES_MAX: usize = 32 << 20;
/// Answers are operations, tokens and the like.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// A request that has not answered for this long belongs to a process that is gone.
const STALE_MS: i64 = 60_000;
/// What only reads may be repeated without being remembered.
const READS: &[&str] = &["/v1/queries", "/v1/migrations/plan", "/v1/restores/preview", "/v1/scrub"];

/// The middleware; runs inside the admission.
pub(crate) async fn once(State(api): State<Api>, mut caller: Caller, request: Request, next: Next) -> Result<Response> {
    let Some(key) = key_of(&request)? else { return Ok(next.run(request).await) };
    let (parts, body) = request.into_parts();
    let body = in_time(to_bytes(body, BODY_BYTES_MAX)).await?.map_err(|_| too_large())?;
    let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
    let hash = blake3::Hasher::new().update(target.as_bytes()).update(b"\0").update(&body).finalize().to_hex();
    if let Some(answer) = begin(&api, &caller, &key, (&hash, parts.uri.path())).await? {
        return Ok(answer);
    }
    // In a task of its own: a client that hangs up must not leave a change without its answer remembered.
    let mut request = Request::from_parts(parts, Body::from(body));
    caller.who.once = Some(key.clone());
    request.extensions_mut().insert(caller.clone());
    let run = async move {
        let answer = next.run(request).await;
        remember(&api, &caller, &key, answer).await
    };
    tokio::spawn(run).await.unwrap_or_else(|_| Err(panicked()))
}

/// The key of a request that may change something.
fn key_of(request: &Request) -> Result<Option<String>> {
    if request.method() != Method::POST || READS.contains(&request.uri().path()) {
        return Ok(None);
    }
    let Some(value) = request.headers().get(KEY) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default();
    if text.is_empty() || text.len() > KEY_BYTES_MAX || !text.bytes().all(|b| b.is_ascii_graphic() || b == b' ') {
        let detail = format!("Idempotency-Key: expected 1 to {KEY_BYTES_MAX} printable ASCII characters");
        return Err(Problem::new(StatusCode::BAD_REQUEST, "invalid_header", detail));
    }
    Ok(Some(text.to_owned()))
}

/// Takes the key, or gives the answer there is already.
async fn begin(api: &Api, caller: &Caller, key: &str, (hash, path): (&str, &str)) -> Result<Option<Response>> {
    let mut tx = api.app.catalog.write().await?;
    let found = idempotency::begin(&mut tx, &caller.who.actor, key, hash, STALE_MS).await?;
    tx.commit().await?;
    match found {
        Remembered::New => Ok(None),
        Remembered::Answered { status, body } => Ok(Some(replay(api, path, status, &body).await?)),
        Remembered::Running => {
            let detail = "the first request with this Idempotency-Key has not been answered yet";
            Err(Problem::new(StatusCode::CONFLICT, "idempotency_in_progress", detail).try_next("repeat it in a moment"))
        }
        Remembered::Different => {
            let detail = "this Idempotency-Key came with another request before";
            let problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", detail);
            Err(problem.try_next("use a new key for a new request"))
        }
    }
}

/// Keeps a success for the next time, and frees the key of a refusal.
async fn remember(api: &Api, caller: &Caller, key: &str, answer: Response) -> Result<Response> {
    let (parts, body) = answer.into_parts();
    let mut tx = api.app.catalog.write().await?;
    let answer = if parts.status.is_success() {
        let body = to_bytes(body, ANSWER_BYTES_MAX).await.map_err(|_| panicked())?;
        let location = parts.headers.get(header::LOCATION).and_then(|value| value.to_str().ok());
        let kept = serde_json::json!({ "location": location, "body": String::from_utf8_lossy(&body) }).to_string();
        idempotency::finish(&mut tx, &caller.who.actor, key, parts.status.as_u16(), &kept).await?;
        HttpResponse::from_parts(parts, Body::from(body))
    } else {
        idempotency::forget(&mut tx, &caller.who.actor, key).await?;
        HttpResponse::from_parts(parts, body)
    };
    tx.commit().await?;
    Ok(answer)
}

async fn replay(api: &Api, path: &str, status: u16, kept: &str) -> Result<Response> {
    let kept: serde_json::Value = serde_json::from_str(kept).unwrap_or_default();
    if let Some(Ok(operation)) = kept["operation"].as_str().map(str::parse) {
        // The process ended between the operation and its answer: the answer is made now.
        let mut response = change::started(api, path, operation).await?;
        response.headers_mut().insert("idempotency-replayed", HeaderValue::from_static("true"));
        return Ok(response);
    }
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    let body = kept["body"].as_str().unwrap_or_default().to_owned();
    let mut response = (status, body).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert("idempotency-replayed", HeaderValue::from_static("true"));
    if let Some(Ok(location)) = kept["location"].as_str().map(HeaderValue::from_str) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

fn panicked() -> Problem {
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the handler of an idempotent request did not answer")
}
