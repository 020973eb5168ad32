//! Answers to requests that carried an Idempotency-Key.

use secrecy::ExposeSecret as _;
use sqlx::any::AnyRow;

use crate::db::WriteTx;
use crate::error::{Error, ErrorKind, Result};
use crate::row;

/// Keys are the client's; a UUID has 36 characters.
const KEY_MAX: usize = 255;

/// What is known of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remembered {
    /// New: the row was written, the caller goes on and calls [`finish`].
    New,
    /// The same request is still running.
    Running,
    /// Another request used this key.
    Different,
    /// The same request was answered so.
    Answered {
        /// HTTP status.
        status: u16,
        /// The body, unsealed.
        body: String,
    },
}

/// Looks a key up and takes it if it is new; a key still running after `stale_ms` is taken over.
///
/// # Errors
/// `Invalid` when the key is empty or longer than 255 bytes; `Corrupt` when the answer cannot be unsealed.
pub async fn begin(tx: &mut WriteTx, actor: &str, key: &str, request_hash: &str, stale_ms: i64) -> Result<Remembered> {
    if !(1..=KEY_MAX).contains(&key.len()) {
        return Err(Error::new(ErrorKind::Invalid, format!("an idempotency key has 1 to {KEY_MAX} bytes")));
    }
    let sql = "select request_hash, status, response, created_at from idempotency where actor = $1 and key = $2";
    let row = tx.one(sqlx::query(sql).bind(actor.to_owned()).bind(key.to_owned())).await?;
    let Some(row) = row else {
        take(tx, actor, key, request_hash).await?;
        return Ok(Remembered::New);
    };
    if row::text(&row, "request_hash")? != request_hash {
        return Ok(Remembered::Different);
    }
    match row::int_or_null(&row, "status")? {
        Some(status) => answered(tx, actor, key, status, &row),
        None if row::int(&row, "created_at")? + stale_ms > tx.now() => Ok(Remembered::Running),
        None => {
            take(tx, actor, key, request_hash).await?;
            Ok(Remembered::New)
        }
    }
}

/// Remembers the answer (sealed).
///
/// # Errors
/// `NotFound` when the key was forgotten.
pub async fn finish(tx: &mut WriteTx, actor: &str, key: &str, status: u16, body: &str) -> Result<()> {
    let sealed = tx.sealer().seal(context(&row_id(actor, key)), body.as_bytes());
    let sql = sqlx::query("update idempotency set status = $3, response = $4 where actor = $1 and key = $2");
    match tx.run(sql.bind(actor.to_owned()).bind(key.to_owned()).bind(i64::from(status)).bind(sealed)).await? {
        0 => Err(Error::new(ErrorKind::NotFound, "the idempotency key was forgotten before its request ended")),
        _ => Ok(()),
    }
}

/// Forgets a key whose request failed before it did anything; one with an answer stays.
///
/// # Errors
/// `Unavailable`.
pub async fn forget(tx: &mut WriteTx, actor: &str, key: &str) -> Result<()> {
    let sql = sqlx::query("delete from idempotency where actor = $1 and key = $2 and status is null");
    tx.run(sql.bind(actor.to_owned()).bind(key.to_owned())).await.map(|_| ())
}

/// Forgets keys older than `before`, milliseconds since 1970; returns how many.
///
/// # Errors
/// `Unavailable`.
pub async fn trim(tx: &mut WriteTx, before: i64) -> Result<i64> {
    tx.run(sqlx::query("delete from idempotency where created_at < $1").bind(before)).await
}

async fn take(tx: &mut WriteTx, actor: &str, key: &str, request_hash: &str) -> Result<()> {
    let now = tx.now();
    let sql = "insert into idempotency (actor, key, request_hash, created_at) values ($1, $2, $3, $4) \
               on conflict (actor, key) do update set created_at = excluded.created_at";
    let sql = sqlx::query(sql).bind(actor.to_owned()).bind(key.to_owned()).bind(request_hash.to_owned());
    tx.run(sql.bind(now)).await.map(|_| ())
}

fn answered(tx: &WriteTx, actor: &str, key: &str, status: i64, row: &AnyRow) -> Result<Remembered> {
    let sealed = row::text(row, "response")?;
    let body = tx.sealer().open(context(&row_id(actor, key)), &sealed)?;
    let corrupt = || Error::new(ErrorKind::Corrupt, "a remembered answer cannot be read");
    let body = std::str::from_utf8(body.expose_secret()).map_err(|_| corrupt())?.to_owned();
    let status = u16::try_from(status).map_err(|_| corrupt())?;
    Ok(Remembered::Answered { status, body })
}

fn context(id: &str) -> (&str, &str, &str) {
    ("idempotency", "response", id)
}

/// Names one row: the actor's length keeps actor and key apart.
fn row_id(actor: &str, key: &str) -> String {
    format!("{}:{actor}:{key}", actor.len())
}
