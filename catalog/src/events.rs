//! The audit log. Every change of fleet state appends here in its own transaction.

use sqlx::any::AnyRow;

use crate::bulk::{INT, TEXT, built, chunks, limit, values};
use crate::db::{ReadTx, WriteTx};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{OperationId, TenantId};
use crate::row;

/// What is to be remembered.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// noun.verb
    pub kind: String,
    /// Who.
    pub actor: String,
    /// About which tenant.
    pub tenant_id: Option<TenantId>,
    /// In which operation.
    pub op_id: Option<OperationId>,
    /// In which request.
    pub request_id: Option<String>,
    /// JSON, never a secret.
    pub data: serde_json::Value,
}

/// One row of `events`.
#[derive(Debug, Clone)]
pub struct EventRecord {
    /// Commit order.
    pub seq: i64,
    /// Milliseconds since 1970.
    pub at: i64,
    /// What.
    pub event: NewEvent,
}

/// Appends in order.
///
/// # Errors
/// `Unavailable`.
pub async fn append(tx: &mut WriteTx, events: &[NewEvent]) -> Result<()> {
    let newest = tx.one(sqlx::query("select coalesce(max(seq), 0) as seq from events")).await?;
    let first = newest.map_or(Ok(0), |row| row::int(&row, "seq"))? + 1;
    let numbered: Vec<(i64, &NewEvent)> = (first..).zip(events).collect();
    let now = tx.now();
    for chunk in chunks(&numbered) {
        let sql = format!(
            "insert into events (seq, at, kind, actor, tenant_id, op_id, request_id, data) {}",
            values(chunk.len(), &[INT, INT, TEXT, TEXT, TEXT, TEXT, TEXT, TEXT])
        );
        let sql = chunk.iter().fold(built(sql), |sql, (seq, event)| {
            sql.bind(*seq)
                .bind(now)
                .bind(event.kind.clone())
                .bind(event.actor.clone())
                .bind(event.tenant_id.map(|id| id.to_string()))
                .bind(event.op_id.map(|id| id.to_string()))
                .bind(event.request_id.clone())
                .bind(event.data.to_string())
        });
        tx.run(sql).await?;
    }
    Ok(())
}

/// The data of the latest event of a kind about a tenant, by the order of commits and by no clock.
///
/// # Errors
/// `Unavailable`.
pub async fn latest(tx: &mut ReadTx, tenant: TenantId, kind: &str) -> Result<Option<String>> {
    let sql = "select data from events where tenant_id = $1 and kind = $2 order by seq desc limit 1";
    let row = tx.one(sqlx::query(sql).bind(tenant.to_string()).bind(kind.to_owned())).await?;
    row.map(|row| row::text(&row, "data")).transpose()
}

/// A page in commit order after `after`; of one tenant or operation when given.
///
/// # Errors
/// `Unavailable`.
pub async fn page(
    tx: &mut ReadTx,
    tenant: Option<TenantId>,
    op: Option<OperationId>,
    after: i64,
    page_limit: u32,
) -> Result<Vec<EventRecord>> {
    let mut condition = String::new();
    let mut arguments = Vec::new();
    for (column, id) in [("tenant_id", tenant.map(|id| id.to_string())), ("op_id", op.map(|id| id.to_string()))] {
        let Some(id) = id else { continue };
        arguments.push(id);
        condition += &format!("and {column} = ${} ", arguments.len() + 2);
    }
    let sql = format!(
        "select seq, at, kind, actor, tenant_id, op_id, request_id, data from events \
         where seq > $1 {condition} order by seq limit $2"
    );
    let sql = built(sql).bind(after).bind(limit(page_limit));
    let sql = arguments.into_iter().fold(sql, |sql, id| sql.bind(id));
    tx.all(sql).await?.iter().map(record).collect()
}

fn record(row: &AnyRow) -> Result<EventRecord> {
    let data = serde_json::from_str(&row::text(row, "data")?)
        .map_err(|error| Error::new(ErrorKind::Corrupt, "an event's data is not JSON").with_source(error))?;
    let event = NewEvent {
        kind: row::text(row, "kind")?,
        actor: row::text(row, "actor")?,
        tenant_id: row::id_or_null(row, "tenant_id")?,
        op_id: row::id_or_null(row, "op_id")?,
        request_id: row::text_or_null(row, "request_id")?,
        data,
    };
    Ok(EventRecord { seq: row::int(row, "seq")?, at: row::int(row, "at")?, event })
}
