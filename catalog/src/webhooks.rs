//! Webhooks: the addresses that get the fleet's events, and the place of each one in the events.
//!
//! The table `events` is the queue. A webhook's `sent_seq` is its place: every event up to it is dealt with. Events are
//! numbered in commit order, so no event appears below a place later. `queue` finds and records what is sent,
//! `deliveries` is the log. This module sends nothing.

pub mod deliveries;
pub mod queue;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{SecretSlice, SecretString};
use serde::{Deserialize, Serialize};
use sqlx::any::AnyRow;
use zeroize::Zeroizing;

use crate::bulk::{capped_limit, dynamic_query};
use crate::db::{ReadTx, WriteTx};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{TenantId, WebhookId};
use crate::row;
use crate::text_enum::TextEnum;

/// Maximum number of webhooks of a fleet, because each one reads every event.
const WEBHOOKS_MAX: i64 = 100;
/// Length of a secret in bytes. The format Standard Webhooks allows 24 to 64.
const SECRET_BYTES: usize = 32;
/// The beginning of a secret's text form in the format Standard Webhooks.
const SECRET_PREFIX: &str = "whsec_";

const COLUMNS: &str = "id, url, kinds, tenant_id, private_allowed, state, sent_seq, failures, next_attempt_at, \
                       created_at, delivered_at";

/// The state of a webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WebhookState {
    /// Events are sent.
    Enabled,
    /// The last attempt failed. The same event is sent again later.
    Failing,
    /// Nothing is sent. The place in the events is kept.
    Paused,
}

impl TextEnum for WebhookState {
    const NOUN: &'static str = "state of a webhook";
    const WORDS: &'static [(Self, &'static str)] =
        &[(Self::Enabled, "enabled"), (Self::Failing, "failing"), (Self::Paused, "paused")];
}

/// One row of `webhooks`, without its secret. Times are in milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookRecord {
    /// The id of the webhook.
    pub id: WebhookId,
    /// The address to which events are sent.
    pub url: String,
    /// The kinds of events to send; empty: every kind.
    pub kinds: Vec<String>,
    /// Only events about this tenant; `None`: the events of the whole fleet.
    pub tenant_id: Option<TenantId>,
    /// Whether an operator allowed plain HTTP and private addresses.
    pub private_allowed: bool,
    /// The state of the webhook.
    pub state: WebhookState,
    /// Every event up to this one was delivered, given up, or is not selected.
    pub sent_seq: i64,
    /// Failed attempts at the next selected event.
    pub failures: i64,
    /// The next attempt is not made before this time.
    pub next_attempt_at: i64,
    /// When it was added.
    pub created_at: i64,
    /// The last delivery; `None`: never.
    pub delivered_at: Option<i64>,
}

/// A webhook to add.
#[derive(Debug, Clone)]
pub struct NewWebhook {
    /// See [`WebhookRecord::url`].
    pub url: String,
    /// See [`WebhookRecord::kinds`].
    pub kinds: Vec<String>,
    /// See [`WebhookRecord::tenant_id`].
    pub tenant_id: Option<TenantId>,
    /// See [`WebhookRecord::private_allowed`].
    pub private_allowed: bool,
}

/// Adds a webhook that gets the events after the present end of the log. Returns it with the text form of its secret,
/// `whsec_…`, which is stored only sealed.
///
/// # Errors
/// `Conflict` when the fleet has too many webhooks.
pub async fn add_webhook(tx: &mut WriteTx, new: NewWebhook) -> Result<(WebhookRecord, SecretString)> {
    let count = tx.fetch_row(sqlx::query("select count(*) as found from webhooks")).await?;
    if count.map_or(Ok(0), |row| row::int_column(&row, "found"))? >= WEBHOOKS_MAX {
        let message = format!("a fleet has at most {WEBHOOKS_MAX} webhooks: remove one first");
        return Err(Error::new(ErrorKind::Conflict, message));
    }
    let mut secret = Zeroizing::new([0; SECRET_BYTES]);
    getrandom::fill(secret.as_mut()).expect("the system gives random bytes");
    let (id, now, sent_seq) = (WebhookId::generate(), tx.now(), queue::events_head(tx).await?);
    let sealed = tx.sealer().seal_value(secret_context(&id.to_string()), secret.as_ref());
    let sql = "insert into webhooks (id, url, secret, kinds, tenant_id, private_allowed, state, sent_seq, failures, \
               next_attempt_at, created_at) values ($1, $2, $3, $4, $5, $6, 'enabled', $7, 0, 0, $8)";
    let sql = sqlx::query(sql).bind(id.to_string()).bind(new.url).bind(sealed);
    let sql = sql.bind(serde_json::json!(new.kinds).to_string()).bind(new.tenant_id.map(|tenant| tenant.to_string()));
    tx.execute_sql(sql.bind(i64::from(new.private_allowed)).bind(sent_seq).bind(now)).await?;
    let text = Zeroizing::new(STANDARD.encode(secret.as_ref()));
    Ok((require(tx, id).await?, SecretString::from(format!("{SECRET_PREFIX}{}", *text))))
}

/// The webhook with this id.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn get(tx: &mut ReadTx, id: WebhookId) -> Result<Option<WebhookRecord>> {
    let sql = dynamic_query(format!("select {COLUMNS} from webhooks where id = $1")).bind(id.to_string());
    tx.fetch_row(sql).await?.as_ref().map(webhook_from_row).transpose()
}

/// The key that signs a webhook's messages; `None` when the webhook does not exist.
///
/// # Errors
/// `WrongKey` when it was sealed with another key, `Corrupt` when it was changed.
pub async fn signing_key(tx: &mut ReadTx, id: WebhookId) -> Result<Option<SecretSlice<u8>>> {
    let text = id.to_string();
    let row = tx.fetch_row(sqlx::query("select secret from webhooks where id = $1").bind(text.clone())).await?;
    let Some(row) = row else { return Ok(None) };
    let sealed = row::text_column(&row, "secret")?;
    tx.sealer().open_sealed(secret_context(&text), &sealed).map(Some)
}

/// A page of webhooks in the order of their ids, after `after`.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn list_webhooks(tx: &mut ReadTx, after: Option<WebhookId>, page_limit: u32) -> Result<Vec<WebhookRecord>> {
    // Ids are never empty, so the empty text sorts before all.
    let after = after.map(|id| id.to_string()).unwrap_or_default();
    let sql = dynamic_query(format!("select {COLUMNS} from webhooks where id > $1 order by id limit $2"));
    tx.fetch_rows(sql.bind(after).bind(capped_limit(page_limit))).await?.iter().map(webhook_from_row).collect()
}

/// Removes a webhook and its log. Events that it has not got are not sent.
///
/// # Errors
/// `NotFound` for an unknown webhook.
pub async fn remove_webhook(tx: &mut WriteTx, id: WebhookId) -> Result<()> {
    let sql = sqlx::query("delete from webhook_deliveries where webhook_id = $1").bind(id.to_string());
    tx.execute_sql(sql).await?;
    let removed = tx.execute_sql(sqlx::query("delete from webhooks where id = $1").bind(id.to_string())).await?;
    if removed == 0 { Err(webhook_not_found(id)) } else { Ok(()) }
}

/// Pauses a webhook: nothing is sent until [`resume_webhook`]. Its place in the events is kept.
///
/// # Errors
/// `NotFound` for an unknown webhook; `Conflict` when it is paused already.
pub async fn pause_webhook(tx: &mut WriteTx, id: WebhookId) -> Result<WebhookRecord> {
    let sql = "update webhooks set state = 'paused' where id = $1 and state <> 'paused'";
    change_state(tx, id, sql, "is paused already").await
}

/// Resumes a paused webhook. It sends the events that it missed, the first one at once.
///
/// # Errors
/// `NotFound` for an unknown webhook; `Conflict` when it is not paused.
pub async fn resume_webhook(tx: &mut WriteTx, id: WebhookId) -> Result<WebhookRecord> {
    let sql = "update webhooks set state = 'enabled', failures = 0, next_attempt_at = 0 \
               where id = $1 and state = 'paused'";
    change_state(tx, id, sql, "is not paused").await
}

/// Pauses all webhooks, because the receivers belong to another fleet.
pub(crate) async fn pause_all(tx: &mut WriteTx) -> Result<()> {
    let sql = "update webhooks set state = 'paused', lease_owner = null, lease_until = null";
    tx.execute_sql(sqlx::query(sql)).await.map(|_| ())
}

async fn change_state(tx: &mut WriteTx, id: WebhookId, sql: &'static str, refusal: &str) -> Result<WebhookRecord> {
    let changed = tx.execute_sql(sqlx::query(sql).bind(id.to_string())).await?;
    let record = require(tx, id).await?;
    match changed {
        0 => Err(Error::new(ErrorKind::Conflict, format!("the webhook {id} {refusal}"))),
        _ => Ok(record),
    }
}

async fn require(tx: &mut ReadTx, id: WebhookId) -> Result<WebhookRecord> {
    get(tx, id).await?.ok_or_else(|| webhook_not_found(id))
}

fn webhook_not_found(id: WebhookId) -> Error {
    Error::new(ErrorKind::NotFound, format!("the webhook {id} does not exist"))
}

fn secret_context(id: &str) -> (&'static str, &'static str, &str) {
    ("webhooks", "secret", id)
}

fn webhook_from_row(row: &AnyRow) -> Result<WebhookRecord> {
    let kinds = serde_json::from_str(&row::text_column(row, "kinds")?)
        .map_err(|error| Error::new(ErrorKind::Corrupt, "a webhook's kinds are not JSON").with_source(error))?;
    Ok(WebhookRecord {
        id: row::parsed_column(row, "id")?,
        url: row::text_column(row, "url")?,
        kinds,
        tenant_id: row::nullable_id(row, "tenant_id")?,
        private_allowed: row::int_column(row, "private_allowed")? != 0,
        state: row::enum_column(row, "state")?,
        sent_seq: row::int_column(row, "sent_seq")?,
        failures: row::int_column(row, "failures")?,
        next_attempt_at: row::int_column(row, "next_attempt_at")?,
        created_at: row::int_column(row, "created_at")?,
        delivered_at: row::nullable_int(row, "delivered_at")?,
    })
}
