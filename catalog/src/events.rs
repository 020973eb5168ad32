//! The audit log. Every change of fleet state appends here in its own transaction.

use serde::{Deserialize, Serialize};
use sqlx::any::AnyRow;

use crate::bulk::{INT, TEXT, capped_limit, dynamic_query, placeholder_list, sized_chunks, values_clause};
use crate::db::{ReadTx, WriteTx};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{OperationId, TenantId};
use crate::row;

/// A new entry of the audit log.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// The kind of event, in the form `noun.verb`.
    pub kind: String,
    /// The actor, such as a token or a user of the command line.
    pub actor: String,
    /// The tenant that the event concerns.
    pub tenant_id: Option<TenantId>,
    /// The operation that caused the event.
    pub op_id: Option<OperationId>,
    /// The request that caused the event.
    pub request_id: Option<String>,
    /// Details as JSON, never a secret.
    pub data: serde_json::Value,
}

/// One row of `events`.
#[derive(Debug, Clone)]
pub struct EventRecord {
    /// The event's number, in commit order.
    pub seq: i64,
    /// Time of the event, milliseconds since 1970.
    pub at: i64,
    /// The event itself.
    pub event: NewEvent,
}

/// Appends events in the given order.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn append_events(tx: &mut WriteTx, events: &[NewEvent]) -> Result<()> {
    let newest = tx.fetch_row(sqlx::query("select coalesce(max(seq), 0) as seq from events")).await?;
    let first = newest.map_or(Ok(0), |row| row::int_column(&row, "seq"))? + 1;
    let numbered: Vec<(i64, &NewEvent)> = (first..).zip(events).collect();
    let now = tx.now();
    for chunk in sized_chunks(&numbered) {
        let sql = format!(
            "insert into events (seq, at, kind, actor, tenant_id, op_id, request_id, data) {}",
            values_clause(chunk.len(), &[INT, INT, TEXT, TEXT, TEXT, TEXT, TEXT, TEXT])
        );
        let sql = chunk.iter().fold(dynamic_query(sql), |sql, (seq, event)| {
            sql.bind(*seq)
                .bind(now)
                .bind(event.kind.clone())
                .bind(event.actor.clone())
                .bind(event.tenant_id.map(|id| id.to_string()))
                .bind(event.op_id.map(|id| id.to_string()))
                .bind(event.request_id.clone())
                .bind(event.data.to_string())
        });
        tx.execute_sql(sql).await?;
    }
    Ok(())
}

/// The data of the latest event of a kind about a tenant, by commit order and not by time.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn latest_event_data(tx: &mut ReadTx, tenant: TenantId, kind: &str) -> Result<Option<String>> {
    let sql = "select data from events where tenant_id = $1 and kind = $2 order by seq desc limit 1";
    let row = tx.fetch_row(sqlx::query(sql).bind(tenant.to_string()).bind(kind.to_owned())).await?;
    row.map(|row| row::text_column(&row, "data")).transpose()
}

/// The latest event of one of these kinds about a tenant, by commit order and not by time.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn latest_event(tx: &mut ReadTx, tenant: TenantId, kinds: &[&str]) -> Result<Option<EventRecord>> {
    let sql = format!(
        "select {COLUMNS} from events where tenant_id = $1 and kind in ({}) order by seq desc limit 1",
        placeholder_list(2, kinds.len())
    );
    let sql = kinds.iter().fold(dynamic_query(sql).bind(tenant.to_string()), |sql, kind| sql.bind((*kind).to_owned()));
    tx.fetch_row(sql).await?.as_ref().map(event_from_row).transpose()
}

/// A filter of events. Every field that is set narrows the selection.
#[derive(Debug, Clone, Default)]
pub struct EventFilter {
    /// Only events about this tenant.
    pub tenant: Option<TenantId>,
    /// Only events of this operation.
    pub op: Option<OperationId>,
    /// Only events of this actor, as the log names it.
    pub actor: Option<String>,
    /// Only events of this kind.
    pub kind: Option<String>,
    /// Only events at this time or later, milliseconds since 1970.
    pub since: Option<i64>,
    /// Only events before this time, milliseconds since 1970.
    pub until: Option<i64>,
}

/// Maximum number of events that one [`read_events`] reads when no index serves its filter. It limits the time of one
/// request: SQLite reads 200,000 rows in about 0.2 s.
const LOOKED_AT_MAX: i64 = 200_000;

/// The order of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventOrder {
    /// Oldest first, in commit order.
    #[default]
    Oldest,
    /// Newest first.
    Newest,
}

/// One page of the audit log.
#[derive(Debug, Clone)]
pub struct EventPage {
    /// The matching events, in the requested order.
    pub events: Vec<EventRecord>,
    /// The `seq` at which the next page begins; `None` at the end of the log.
    pub next: Option<i64>,
}

/// The events after `from` in this order. At most `page_limit`, and fewer if few of the events that were read match.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn read_events(
    tx: &mut ReadTx,
    filter: &EventFilter,
    order: EventOrder,
    from: Option<i64>,
    page_limit: u32,
) -> Result<EventPage> {
    let newest = tx.fetch_row(sqlx::query("select coalesce(max(seq), 0) as seq from events")).await?;
    let newest = newest.map_or(Ok(0), |row| row::int_column(&row, "seq"))?;
    let looked_at = if filter.is_indexed() { i64::MAX } else { LOOKED_AT_MAX };
    // Both bounds are included.
    let (low, high) = match order {
        EventOrder::Oldest => {
            let low = from.unwrap_or(0).saturating_add(1);
            (low, newest.min(low.saturating_add(looked_at - 1)))
        }
        EventOrder::Newest => {
            let high = from.map_or(newest, |from| newest.min(from - 1));
            (high.saturating_sub(looked_at - 1).max(1), high)
        }
    };
    let (direction, end, is_last) = match order {
        EventOrder::Oldest => ("asc", high, high >= newest),
        EventOrder::Newest => ("desc", low, low <= 1),
    };
    let (condition, texts, times) = filter.sql_condition(4);
    let sql = format!(
        "select {COLUMNS} from events where seq >= $1 and seq <= $2 {condition} order by seq {direction} limit $3"
    );
    let wanted = capped_limit(page_limit);
    let sql = texts.into_iter().fold(dynamic_query(sql).bind(low).bind(high).bind(wanted), |sql, text| sql.bind(text));
    let sql = times.into_iter().fold(sql, |sql, time| sql.bind(time));
    let events: Vec<EventRecord> = tx.fetch_rows(sql).await?.iter().map(event_from_row).collect::<Result<_>>()?;
    let is_full = i64::try_from(events.len()).unwrap_or(i64::MAX) >= wanted;
    let next = if is_full { events.last().map(|event| event.seq) } else { Some(end).filter(|_| !is_last) };
    Ok(EventPage { events, next })
}

impl EventFilter {
    /// True when an index serves the filter.
    fn is_indexed(&self) -> bool {
        self.tenant.is_some() || self.op.is_some()
    }

    /// The filter as SQL conditions, with arguments from number `first`: first those of text, then those of time.
    /// `coalesce` makes SQLite use the index of the order.
    fn sql_condition(&self, first: usize) -> (String, Vec<String>, Vec<i64>) {
        let texts = [
            ("tenant_id =", self.tenant.map(|id| id.to_string())),
            ("op_id =", self.op.map(|id| id.to_string())),
            ("actor =", self.actor.clone()),
            ("kind =", self.kind.clone()),
        ];
        let times = [("coalesce(at, 0) >=", self.since), ("coalesce(at, 0) <", self.until)];
        let given = |(name, value): (&'static str, Option<String>)| value.map(|value| (name, value));
        let texts: Vec<_> = texts.into_iter().filter_map(given).collect();
        let times: Vec<_> = times.into_iter().filter_map(|(name, value)| value.map(|value| (name, value))).collect();
        let names = texts.iter().map(|(name, _)| *name).chain(times.iter().map(|(name, _)| *name));
        let condition = (first..).zip(names).map(|(number, name)| format!("and {name} ${number} ")).collect();
        (condition, texts.into_iter().map(|(_, text)| text).collect(), times.into_iter().map(|(_, at)| at).collect())
    }
}

pub(crate) const COLUMNS: &str = "seq, at, kind, actor, tenant_id, op_id, request_id, data";

/// A page in commit order after `after`, of one tenant or operation if given.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn list_events(
    tx: &mut ReadTx,
    tenant: Option<TenantId>,
    op: Option<OperationId>,
    after: i64,
    page_limit: u32,
) -> Result<Vec<EventRecord>> {
    let filter = EventFilter { tenant, op, ..EventFilter::default() };
    Ok(read_events(tx, &filter, EventOrder::Oldest, Some(after), page_limit).await?.events)
}

pub(crate) fn event_from_row(row: &AnyRow) -> Result<EventRecord> {
    let data = serde_json::from_str(&row::text_column(row, "data")?)
        .map_err(|error| Error::new(ErrorKind::Corrupt, "an event's data is not JSON").with_source(error))?;
    let event = NewEvent {
        kind: row::text_column(row, "kind")?,
        actor: row::text_column(row, "actor")?,
        tenant_id: row::nullable_id(row, "tenant_id")?,
        op_id: row::nullable_id(row, "op_id")?,
        request_id: row::nullable_text(row, "request_id")?,
        data,
    };
    Ok(EventRecord { seq: row::int_column(row, "seq")?, at: row::int_column(row, "at")?, event })
}
