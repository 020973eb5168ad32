//! `Idempotency-Key`: a POST that is sent twice with the same key is done once.
//!
//! The key is claimed before the handler runs. The answer is stored in the transaction that makes the change
//! ([`commit`], and the runner for operations). So after a crash both exist, or neither. Other answers, such as that of
//! a dry run, are stored when the handler has ended. Only successes are stored. A refusal did nothing, so the caller
//! may correct the request and keep its key. Streams are not stored; the routes that answer with one change nothing.
//!
//! [`RunningKeys`] holds the keys that this process is running. So a key is free at once after a refusal, even if a
//! full disk kept the catalog from being updated. Other processes use the lease, which is renewed meanwhile. A process
//! that takes over the data directory of a dead one releases its keys ([`release_keys`]).

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, Response as HttpResponse, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use catalog::WriteTx;
use catalog::idempotency::{self, ClaimedIdempotencyKey, IdempotencyClaimant, IdempotencyLookup};

use super::ApiState;
use super::admission::AdmittedCaller;
use super::error::{Problem, Result, too_large};
use super::extract::in_time;
use super::limits::BULK_BYTES_MAX;
use super::replay::replay_started;
use crate::error::ErrorKind;

const KEY: &str = "idempotency-key";
/// Maximum length of a key. A UUID needs far less.
const KEY_BYTES_MAX: usize = 255;
/// Maximum size of a stored answer. Answers are operations, tokens and the like; the longest describes a release of
/// thousands of files.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// Lease of a key, milliseconds. A key that was not renewed for this time belongs to a dead process.
const LEASE_MS: i64 = 20_000;
/// Interval of renewals, a third of the lease, so that one may fail. Nearly every request is answered before the first.
const RENEW: Duration = Duration::from_secs(6);
/// How long a key stays taken when its answer could not be stored. Meanwhile a client that lost the answer may repeat
/// the request, and the change is not made twice.
const UNREMEMBERED: Duration = Duration::from_secs(60);
/// Routes that only read. Their requests may be repeated, so their answers are not stored.
const READS: &[&str] = &["/v1/queries", "/v1/migrations/plan", "/v1/restores/preview", "/v1/scrub"];

/// The keys whose requests this process is running.
#[derive(Debug)]
pub(crate) struct RunningKeys {
    /// The name of this process in the catalog.
    owner: String,
    /// The running keys, each with its actor.
    keys: Mutex<HashSet<(String, String)>>,
}

impl RunningKeys {
    /// No keys yet, of the process with this name in the catalog.
    pub(crate) fn of_process(name: &str) -> Self {
        Self { owner: name.to_owned(), keys: Mutex::default() }
    }

    fn lock_keys(&self) -> MutexGuard<'_, HashSet<(String, String)>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One running key. It stops counting as running when this is dropped.
struct RunningKey {
    all: Arc<RunningKeys>,
    name: (String, String),
}

impl RunningKey {
    /// Marks a key as running. `None`: a request with it is already running.
    fn begin_key(all: &Arc<RunningKeys>, actor: &str, key: &str) -> Option<Self> {
        let name = (actor.to_owned(), key.to_owned());
        all.lock_keys().insert(name.clone()).then(|| Self { all: Arc::clone(all), name })
    }

    fn taken_key(&self) -> ClaimedIdempotencyKey {
        ClaimedIdempotencyKey { key: self.name.1.clone(), owner: self.all.owner.clone() }
    }
}

impl Drop for RunningKey {
    fn drop(&mut self) {
        self.all.lock_keys().remove(&self.name);
    }
}

/// Releases the keys of a process that is gone. They would expire a little later anyway.
pub(crate) async fn release_keys(catalog: &catalog::Catalog, owner: &str) {
    let released = async {
        let mut tx = catalog.write().await?;
        idempotency::release_keys(&mut tx, owner).await?;
        tx.commit().await
    };
    if let Err(error) = released.await {
        tracing::warn!(%error, "idempotency keys of the previous process stay taken for a moment");
    }
}

/// The middleware. It runs inside the admission.
pub(crate) async fn run_once(
    State(api): State<ApiState>,
    mut caller: AdmittedCaller,
    request: Request,
    next: Next,
) -> Result<Response> {
    let Some(key) = key_of(&request)? else { return Ok(next.run(request).await) };
    let (parts, body) = request.into_parts();
    let body = in_time(to_bytes(body, BULK_BYTES_MAX)).await?.map_err(|_| too_large())?;
    let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
    let hash = blake3::Hasher::new().update(target.as_bytes()).update(b"\0").update(&body).finalize().to_hex();
    let running = RunningKey::begin_key(&api.running, &caller.who.actor, &key);
    if let Some(answer) = take_key(&api, &caller, &key, (&hash, parts.uri.path()), running.is_none()).await? {
        return Ok(answer);
    }
    let running = running.ok_or_else(in_progress)?;
    // In a task of its own: if the client hangs up, the answer of a change must still be stored.
    let mut request = Request::from_parts(parts, Body::from(body));
    caller.who.once = Some(running.taken_key());
    request.extensions_mut().insert(caller.clone());
    let run = async move {
        let answer = run_while_renewing(&api, &caller, &running.taken_key(), next.run(request)).await;
        remember_answer(&api, &caller, running, answer).await
    };
    tokio::spawn(run).await.unwrap_or_else(|_| Err(handler_lost()))
}

/// Runs the request, and renews the key's lease meanwhile.
async fn run_while_renewing(
    api: &ApiState,
    caller: &AdmittedCaller,
    taken: &ClaimedIdempotencyKey,
    run: impl Future<Output = Response>,
) -> Response {
    let mut run = std::pin::pin!(run);
    loop {
        match tokio::time::timeout(RENEW, run.as_mut()).await {
            Ok(answer) => return answer,
            Err(_elapsed) => {
                if let Err(error) = renew_key(api, caller, taken).await {
                    tracing::warn!(%error, "an idempotency key was not renewed");
                }
            }
        }
    }
}

async fn renew_key(api: &ApiState, caller: &AdmittedCaller, taken: &ClaimedIdempotencyKey) -> catalog::Result<()> {
    let mut tx = api.app.catalog.write().await?;
    let until = tx.now() + LEASE_MS;
    idempotency::renew_key(&mut tx, &caller.who.actor, taken, until).await?;
    tx.commit().await
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
        return Err(Problem::new(ErrorKind::InvalidHeader, detail));
    }
    Ok(Some(text.to_owned()))
}

/// Claims the key, or returns the stored answer.
async fn take_key(
    api: &ApiState,
    caller: &AdmittedCaller,
    key: &str,
    (hash, path): (&str, &str),
    is_running: bool,
) -> Result<Option<Response>> {
    let mut tx = api.app.catalog.write().await?;
    let taker = IdempotencyClaimant { owner: &api.running.owner, is_running, until: tx.now() + LEASE_MS };
    let found = idempotency::begin_request(&mut tx, &caller.who.actor, key, hash, taker).await?;
    tx.commit().await?;
    match found {
        IdempotencyLookup::New => Ok(None),
        IdempotencyLookup::Answered { status, body } => Ok(Some(replay_answer(api, path, status, &body).await?)),
        IdempotencyLookup::Running => Err(in_progress()),
        IdempotencyLookup::Different => {
            let detail = "this Idempotency-Key was used with another request";
            let problem = Problem::new(ErrorKind::IdempotencyKeyReused, detail);
            Err(problem.try_next("use a new key for a new request"))
        }
    }
}

fn in_progress() -> Problem {
    let detail = "the first request with this Idempotency-Key has not been answered yet";
    Problem::new(ErrorKind::IdempotencyInProgress, detail).try_next("repeat it in a moment")
}

/// Marks an answer that was already stored together with its change.
#[derive(Clone)]
struct Kept;

/// Commits a change together with the answer of its request.
///
/// # Errors
/// `body_too_large` for an answer that is too long to be stored. Nothing was changed then.
pub(crate) async fn commit(mut tx: WriteTx, caller: &AdmittedCaller, answer: Response) -> Result<Response> {
    if caller.who.once.is_none() {
        tx.commit().await?;
        return Ok(answer);
    }
    let (mut parts, body) = answer.into_parts();
    let body = to_bytes(body, ANSWER_BYTES_MAX).await.map_err(|_| answer_too_large())?;
    caller.who.remember(&mut tx, parts.status.as_u16(), &kept(&parts.headers, &body)).await?;
    tx.commit().await?;
    parts.extensions.insert(Kept);
    Ok(HttpResponse::from_parts(parts, Body::from(body)))
}

/// The part of an answer that is stored.
fn kept(headers: &HeaderMap, body: &[u8]) -> String {
    let location = headers.get(header::LOCATION).and_then(|value| value.to_str().ok());
    serde_json::json!({ "location": location, "body": String::from_utf8_lossy(body) }).to_string()
}

fn answer_too_large() -> Problem {
    let detail = format!("the answer would be longer than {ANSWER_BYTES_MAX} bytes, so nothing was changed");
    Problem::new(ErrorKind::BodyTooLarge, detail).try_next("ask for less in one request")
}

/// Stores a success for later requests, and releases the key of a refusal.
async fn remember_answer(
    api: &ApiState,
    caller: &AdmittedCaller,
    running: RunningKey,
    answer: Response,
) -> Result<Response> {
    let (parts, body) = answer.into_parts();
    if !parts.status.is_success() {
        if let Err(error) = forget_key(api, caller, &running.taken_key()).await {
            // This process still knows that the key is free.
            tracing::warn!(%error, "the idempotency key of a refused request was not released");
        }
        return Ok(HttpResponse::from_parts(parts, body));
    }
    if parts.extensions.get::<Kept>().is_some() {
        return Ok(HttpResponse::from_parts(parts, body));
    }
    let Ok(body) = to_bytes(body, ANSWER_BYTES_MAX).await else {
        hold_key(running);
        return Err(handler_lost());
    };
    let kept = kept(&parts.headers, &body);
    if let Err(error) = store_answer(api, caller, &running.taken_key(), (parts.status.as_u16(), &kept)).await {
        // A change may have been made, and the client is told so. The same key must not repeat it for a while.
        tracing::warn!(%error, "the answer of an idempotent request was not stored");
        hold_key(running);
    }
    Ok(HttpResponse::from_parts(parts, Body::from(body)))
}

/// Keeps the key taken for a while, because the change was made and its answer was not stored.
fn hold_key(running: RunningKey) {
    tokio::spawn(async move {
        tokio::time::sleep(UNREMEMBERED).await;
        drop(running);
    });
}

async fn store_answer(
    api: &ApiState,
    caller: &AdmittedCaller,
    taken: &ClaimedIdempotencyKey,
    (status, kept): (u16, &str),
) -> catalog::Result<()> {
    let mut tx = api.app.catalog.write().await?;
    idempotency::finish_request(&mut tx, &caller.who.actor, taken, status, kept).await?;
    tx.commit().await
}

async fn forget_key(api: &ApiState, caller: &AdmittedCaller, taken: &ClaimedIdempotencyKey) -> catalog::Result<()> {
    let mut tx = api.app.catalog.write().await?;
    idempotency::forget_key(&mut tx, &caller.who.actor, taken).await?;
    tx.commit().await
}

async fn replay_answer(api: &ApiState, path: &str, status: u16, kept: &str) -> Result<Response> {
    let kept: serde_json::Value = serde_json::from_str(kept).unwrap_or_default();
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    if let Some(Ok(operation)) = kept["operation"].as_str().map(str::parse) {
        // The process ended between the operation and its answer, so the answer is created now.
        let mut response = replay_started(api, path, status, operation).await?;
        response.headers_mut().insert("idempotency-replayed", HeaderValue::from_static("true"));
        return Ok(response);
    }
    let body = kept["body"].as_str().unwrap_or_default().to_owned();
    let mut response = (status, body).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert("idempotency-replayed", HeaderValue::from_static("true"));
    if let Some(Ok(location)) = kept["location"].as_str().map(HeaderValue::from_str) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

fn handler_lost() -> Problem {
    Problem::new(ErrorKind::Internal, "the handler of an idempotent request did not answer")
}
