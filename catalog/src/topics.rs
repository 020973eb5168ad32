//! Messages of topics: what processes of an application tell the open connections of a tenant's members.
//!
//! Messages are not records: they are removed after some minutes. A reader follows them by number, as the change feed. It is
//! told when messages are gone that it has not read.

use sqlx::any::AnyRow;

use crate::bulk::{INT, TEXT, capped_limit, dynamic_query, sized_chunks, values_clause};
pub use crate::changes::wait_for_message;
use crate::db::{ReadTx, WriteTx};
use crate::error::Result;
use crate::ids::TenantId;
use crate::row;

/// How long a message is kept, milliseconds. Longer than a deployment of an application or the sleep of a phone.
pub const MESSAGE_AGE_MAX_MS: i64 = 10 * 60 * 1_000;

/// How many messages are kept: at most some 50 MB, as most messages have less than 1 KB.
pub const MESSAGES_MAX: i64 = 50_000;

/// A message that is to be appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTopicMessage {
    /// The tenant whose topic gets it.
    pub tenant: TenantId,
    /// The topic's name among the topics of the tenant.
    pub topic: String,
    /// The message, as JSON.
    pub payload: String,
}

/// A stored message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredMessage {
    /// The message's number, in commit order over all tenants.
    pub seq: i64,
    /// The message itself.
    pub message: NewTopicMessage,
}

/// The messages after a reader's position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessagePage {
    /// The messages, oldest first.
    pub messages: Vec<StoredMessage>,
    /// The reader's new position.
    pub seq: i64,
    /// True when messages after the old position may be gone.
    pub is_incomplete: bool,
}

/// Appends messages in the given order, and returns the number of the first one. Wakes readers at the commit.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn append_messages(tx: &mut WriteTx, messages: &[NewTopicMessage]) -> Result<i64> {
    let first = message_head(tx).await? + 1;
    let numbered: Vec<(i64, &NewTopicMessage)> = (first..).zip(messages).collect();
    let now = tx.now();
    for chunk in sized_chunks(&numbered) {
        let sql = format!(
            "insert into topic_messages (seq, tenant_id, topic, payload, published_at) {}",
            values_clause(chunk.len(), &[INT, TEXT, TEXT, TEXT, INT])
        );
        let sql = chunk.iter().fold(dynamic_query(sql), |sql, (seq, message)| {
            let (topic, payload) = (message.topic.clone(), message.payload.clone());
            sql.bind(*seq).bind(message.tenant.to_string()).bind(topic).bind(payload).bind(now)
        });
        tx.execute_sql(sql).await?;
    }
    if let Some((newest, _)) = numbered.last() {
        tx.mark_message_appended(*newest);
    }
    Ok(first)
}

/// The number of the newest message of any tenant; 0 when there was none yet.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn message_head(tx: &mut ReadTx) -> Result<i64> {
    let row = tx.fetch_row(sqlx::query("select coalesce(max(seq), 0) as seq from topic_messages")).await?;
    row.map_or(Ok(0), |row| row::int_column(&row, "seq"))
}

/// The messages of all tenants after the number `after`, at most `page_limit`. When some of them are gone, it returns none,
/// and the newest number as the new position.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn messages_after(tx: &mut ReadTx, after: i64, page_limit: u32) -> Result<MessagePage> {
    let newest = message_head(tx).await?;
    if after == newest {
        return Ok(MessagePage { messages: Vec::new(), seq: after, is_incomplete: false });
    }
    if !is_complete_after(tx, after, newest).await? {
        return Ok(MessagePage { messages: Vec::new(), seq: newest, is_incomplete: true });
    }
    let sql = format!("select {COLUMNS} from topic_messages where seq > $1 order by seq limit $2");
    let rows = tx.fetch_rows(dynamic_query(sql).bind(after).bind(capped_limit(page_limit))).await?;
    let messages = rows.iter().map(message_from_row).collect::<Result<Vec<_>>>()?;
    let seq = messages.last().map_or(after, |last| last.seq);
    Ok(MessagePage { messages, seq, is_incomplete: false })
}

/// The messages of one topic after the number `after` and up to the number `until`. It is incomplete when some of them are
/// gone, or when there are more than `page_limit`.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn topic_messages_between(
    tx: &mut ReadTx,
    tenant: TenantId,
    topic: &str,
    after: i64,
    until: i64,
    page_limit: u32,
) -> Result<MessagePage> {
    let newest = message_head(tx).await?;
    let incomplete = MessagePage { messages: Vec::new(), seq: until, is_incomplete: true };
    if !is_complete_after(tx, after, newest).await? {
        return Ok(incomplete);
    }
    let sql = format!(
        "select {COLUMNS} from topic_messages \
         where tenant_id = $1 and topic = $2 and seq > $3 and seq <= $4 order by seq limit $5"
    );
    let sql = dynamic_query(sql).bind(tenant.to_string()).bind(topic.to_owned()).bind(after).bind(until);
    let rows = tx.fetch_rows(sql.bind(capped_limit(page_limit.saturating_add(1)))).await?;
    if rows.len() > page_limit as usize {
        return Ok(incomplete);
    }
    let messages = rows.iter().map(message_from_row).collect::<Result<Vec<_>>>()?;
    Ok(MessagePage { messages, seq: until, is_incomplete: false })
}

/// Removes messages that are too old or too many. Keeps the number of the newest one.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn trim_messages(tx: &mut WriteTx) -> Result<()> {
    let newest = message_head(tx).await?;
    let too_many = newest - MESSAGES_MAX;
    let before = tx.now() - MESSAGE_AGE_MAX_MS;
    // The oldest message that is young enough. The time of messages grows with their numbers, but for differences of clocks.
    let young = "select coalesce(min(seq), $1) as seq from topic_messages where published_at >= $2";
    let row = tx.fetch_row(sqlx::query(young).bind(newest + 1).bind(before)).await?;
    let oldest_kept = row.map_or(Ok(newest), |row| row::int_column(&row, "seq"))?.max(too_many + 1);
    let gone = sqlx::query("delete from topic_messages where seq < $1 and seq < $2").bind(oldest_kept).bind(newest);
    tx.execute_sql(gone).await?;
    if oldest_kept > newest {
        let emptied = "update topic_messages set tenant_id = '', topic = '', payload = '' where tenant_id <> ''";
        tx.execute_sql(sqlx::query(emptied)).await?;
    }
    Ok(())
}

/// True when every message after this number is still there. A number beyond the newest one is of another catalog.
async fn is_complete_after(tx: &mut ReadTx, after: i64, newest: i64) -> Result<bool> {
    if after >= newest {
        return Ok(after == newest);
    }
    // At most the first row is emptied, so this reads two rows.
    let oldest = "select seq from topic_messages where tenant_id <> '' order by seq limit 1";
    let row = tx.fetch_row(sqlx::query(oldest)).await?;
    let oldest = row.map_or(Ok(newest + 1), |row| row::int_column(&row, "seq"))?;
    Ok(after + 1 >= oldest)
}

const COLUMNS: &str = "seq, tenant_id, topic, payload";

fn message_from_row(row: &AnyRow) -> Result<StoredMessage> {
    let message = NewTopicMessage {
        tenant: row::parsed_column(row, "tenant_id")?,
        topic: row::text_column(row, "topic")?,
        payload: row::text_column(row, "payload")?,
    };
    Ok(StoredMessage { seq: row::int_column(row, "seq")?, message })
}
