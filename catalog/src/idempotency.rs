//! Stores answers to requests with an Idempotency-Key.
//!
//! The process that runs a request takes its key with a lease, and renews the lease. A key is free if its process no
//! longer runs the request, or if its process is dead.

use secrecy::ExposeSecret as _;
use sqlx::any::AnyRow;

use crate::clock_skew::AHEAD_MS_MAX;
use crate::db::WriteTx;
use crate::error::{Error, ErrorKind, Result};
use crate::row;

/// Maximum length of a key. Clients choose keys; a UUID has 36 characters.
const KEY_MAX: usize = 255;
/// How long a key without an owner is taken. An earlier version wrote it and did not use leases.
const UNOWNED_MS: i64 = 60_000;

/// The result of looking up a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdempotencyLookup {
    /// The key is new: the row was written. The caller runs the request and calls [`finish_request`].
    New,
    /// The same request is still running.
    Running,
    /// The key was used for another request.
    Different,
    /// The same request was answered with this response.
    Answered {
        /// HTTP status of the response.
        status: u16,
        /// The body, unsealed.
        body: String,
    },
}

/// The process that wants to take a key.
#[derive(Debug, Clone, Copy)]
pub struct IdempotencyClaimant<'a> {
    /// The name of the process.
    pub owner: &'a str,
    /// True when this process is still running a request with this key.
    pub is_running: bool,
    /// End of the key's lease, milliseconds since 1970.
    pub until: i64,
}

/// A key that was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimedIdempotencyKey {
    /// The key, as the client sent it.
    pub key: String,
    /// The process that runs its request.
    pub owner: String,
}

/// Looks up a key and takes it if it is free.
///
/// # Errors
/// `Invalid` when the key is empty or longer than 255 bytes; `Corrupt` when the answer cannot be unsealed.
pub async fn begin_request(
    tx: &mut WriteTx,
    actor: &str,
    key: &str,
    request_hash: &str,
    taker: IdempotencyClaimant<'_>,
) -> Result<IdempotencyLookup> {
    if !(1..=KEY_MAX).contains(&key.len()) {
        return Err(Error::new(ErrorKind::Invalid, format!("an idempotency key has 1 to {KEY_MAX} bytes")));
    }
    let sql = "select request_hash, status, response, created_at, owner, until from idempotency \
               where actor = $1 and key = $2";
    let row = tx.fetch_row(sqlx::query(sql).bind(actor.to_owned()).bind(key.to_owned())).await?;
    let Some(row) = row else {
        claim_key(tx, actor, key, request_hash, taker).await?;
        return Ok(IdempotencyLookup::New);
    };
    let status = row::nullable_int(&row, "status")?;
    // A free key has changed nothing, so another request may use it.
    if status.is_none() && !is_held(&row, taker, tx.now())? {
        claim_key(tx, actor, key, request_hash, taker).await?;
        return Ok(IdempotencyLookup::New);
    }
    if row::text_column(&row, "request_hash")? != request_hash {
        return Ok(IdempotencyLookup::Different);
    }
    match status {
        Some(status) => stored_answer(tx, actor, key, status, &row),
        None => Ok(IdempotencyLookup::Running),
    }
}

/// True when a request with this key may still be running. The process itself knows this; for another process the lease
/// decides.
fn is_held(row: &AnyRow, taker: IdempotencyClaimant<'_>, now: i64) -> Result<bool> {
    if row::nullable_text(row, "owner")?.as_deref() == Some(taker.owner) {
        return Ok(taker.is_running);
    }
    let until = match row::nullable_int(row, "until")? {
        Some(until) => until,
        None => row::int_column(row, "created_at")? + UNOWNED_MS,
    };
    // No correct clock has written a lease that ends later than this.
    Ok(until > now && until <= now + UNOWNED_MS + AHEAD_MS_MAX)
}

/// Renews the key of a long request. Does nothing if another process has the key now.
///
/// # Errors
/// `Unavailable`, `DiskFull`.
pub async fn renew_key(tx: &mut WriteTx, actor: &str, taken: &ClaimedIdempotencyKey, until: i64) -> Result<()> {
    let sql = "update idempotency set until = $4 where actor = $1 and key = $2 and owner = $3";
    let sql = sqlx::query(sql).bind(actor.to_owned()).bind(taken.key.clone()).bind(taken.owner.clone());
    tx.execute_sql(sql.bind(until)).await.map(|_| ())
}

/// Frees the keys of a process that is gone, and returns their number.
///
/// # Errors
/// `Unavailable`, `DiskFull`.
pub async fn release_keys(tx: &mut WriteTx, owner: &str) -> Result<i64> {
    tx.execute_sql(sqlx::query("delete from idempotency where owner = $1 and status is null").bind(owner.to_owned()))
        .await
}

/// Stores the answer (sealed).
///
/// # Errors
/// `NotFound` when the key was removed, or when another process took it: that process's request counts.
pub async fn finish_request(
    tx: &mut WriteTx,
    actor: &str,
    taken: &ClaimedIdempotencyKey,
    status: u16,
    body: &str,
) -> Result<()> {
    let sealed = tx.sealer().seal_value(seal_context(&row_id(actor, &taken.key)), body.as_bytes());
    let sql = "update idempotency set status = $4, response = $5 where actor = $1 and key = $2 and owner = $3";
    let sql = sqlx::query(sql).bind(actor.to_owned()).bind(taken.key.clone()).bind(taken.owner.clone());
    match tx.execute_sql(sql.bind(i64::from(status)).bind(sealed)).await? {
        0 => Err(Error::new(ErrorKind::NotFound, "the idempotency key was removed before its request ended")),
        _ => Ok(()),
    }
}

/// Removes a key whose request failed before it changed anything. A key with an answer stays.
///
/// # Errors
/// `Unavailable`, `DiskFull`.
pub async fn forget_key(tx: &mut WriteTx, actor: &str, taken: &ClaimedIdempotencyKey) -> Result<()> {
    let sql = "delete from idempotency where actor = $1 and key = $2 and owner = $3 and status is null";
    let sql = sqlx::query(sql).bind(actor.to_owned()).bind(taken.key.clone()).bind(taken.owner.clone());
    tx.execute_sql(sql).await.map(|_| ())
}

/// Removes keys older than `before`, milliseconds since 1970; returns their number.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn trim_keys(tx: &mut WriteTx, before: i64) -> Result<i64> {
    tx.execute_sql(sqlx::query("delete from idempotency where created_at < $1").bind(before)).await
}

async fn claim_key(
    tx: &mut WriteTx,
    actor: &str,
    key: &str,
    request_hash: &str,
    taker: IdempotencyClaimant<'_>,
) -> Result<()> {
    let now = tx.now();
    let sql = "insert into idempotency (actor, key, request_hash, created_at, owner, until) \
               values ($1, $2, $3, $4, $5, $6) on conflict (actor, key) do update set \
               request_hash = excluded.request_hash, created_at = excluded.created_at, owner = excluded.owner, \
               until = excluded.until";
    let sql = sqlx::query(sql).bind(actor.to_owned()).bind(key.to_owned()).bind(request_hash.to_owned());
    tx.execute_sql(sql.bind(now).bind(taker.owner.to_owned()).bind(taker.until)).await.map(|_| ())
}

fn stored_answer(tx: &WriteTx, actor: &str, key: &str, status: i64, row: &AnyRow) -> Result<IdempotencyLookup> {
    let sealed = row::text_column(row, "response")?;
    let body = tx.sealer().open_sealed(seal_context(&row_id(actor, key)), &sealed)?;
    let corrupt = || Error::new(ErrorKind::Corrupt, "a stored answer cannot be read");
    let body = std::str::from_utf8(body.expose_secret()).map_err(|_| corrupt())?.to_owned();
    let status = u16::try_from(status).map_err(|_| corrupt())?;
    Ok(IdempotencyLookup::Answered { status, body })
}

fn seal_context(id: &str) -> (&str, &str, &str) {
    ("idempotency", "response", id)
}

/// Identifies one row. The actor's length separates actor and key unambiguously.
fn row_id(actor: &str, key: &str) -> String {
    format!("{}:{actor}:{key}", actor.len())
}
