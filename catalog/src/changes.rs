//! The change feed: routers drop changed entries from their caches. Safety does not depend on it.
//!
//! A commit of this process wakes waiting readers at once. One of the waiting readers polls for commits of other
//! processes, for all readers. Without waiting readers there is no polling. A database with notifications (Postgres:
//! `listen`) is read once per notification. Polling continues less often, because notifications can be lost. The same poll
//! finds new messages of topics (`topics.rs`).

use std::collections::BTreeSet;
use std::time::Duration;

use sqlx::AnyConnection;
use tokio::sync::{Mutex, watch};

use crate::bulk::{self, TEXT, dynamic_query, sized_chunks, values_clause};
use crate::connection_slots;
use crate::db::{Catalog, CatalogShared, ReadTx, WriteTx};
use crate::error::Result;
use crate::error_mapping;
use crate::ids::TenantId;
use crate::listener::ChangeListener;
pub use crate::local_changes::LocalChanges;
use crate::row;

/// For a longer list, dropping everything costs no more.
const LIST_MAX: i64 = 10_000;

/// Stands for the tenant in entries that do not concern one tenant.
const EVERYTHING: &str = "*";

/// The changes since a reader's last read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FeedChanges {
    /// These tenants changed.
    Tenants {
        /// The reader's new position.
        seq: i64,
        /// The changed tenants, each once.
        ids: Vec<TenantId>,
    },
    /// The reader is too far behind, or a change concerns more than one tenant: drop everything.
    Everything {
        /// The reader's new position.
        seq: i64,
    },
}

/// Appends one entry per tenant. The functions that change tenants, members and tokens call this themselves.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn append_changes(tx: &mut WriteTx, ids: &[TenantId]) -> Result<()> {
    let words: Vec<String> = ids.iter().map(ToString::to_string).collect();
    append_entries(tx, &words).await?;
    tx.pending_changes().tenants.extend_from_slice(ids);
    Ok(())
}

/// Appends an entry "everything changed".
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn append_everything(tx: &mut WriteTx) -> Result<()> {
    append_entries(tx, &[EVERYTHING.to_owned()]).await?;
    tx.pending_changes().everything = true;
    Ok(())
}

/// Appends an entry "everything changed", because the connection data of a server changed.
pub(crate) async fn append_servers(tx: &mut WriteTx) -> Result<()> {
    append_everything(tx).await?;
    tx.pending_changes().servers = true;
    Ok(())
}

async fn append_entries(tx: &mut WriteTx, words: &[String]) -> Result<()> {
    for chunk in sized_chunks(words) {
        let before = feed_head(tx).await?;
        // The number of each entry is part of its row, because the order of rows from a list is not defined.
        let sql = format!(
            "with v(place, tenant_id) as ({}) insert into changes (seq, tenant_id) \
             select cast(${} as bigint) + place, tenant_id from v",
            values_clause(chunk.len(), &[bulk::INT, TEXT]),
            chunk.len() * 2 + 1
        );
        let mut sql = dynamic_query(sql);
        for (place, word) in (1i64..).zip(chunk) {
            sql = sql.bind(place).bind(word.clone());
        }
        let added = tx.execute_sql(sql.bind(before)).await?;
        tx.mark_appended(before + added);
    }
    Ok(())
}

/// The newest position of the feed.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn feed_head(tx: &mut ReadTx) -> Result<i64> {
    let row = tx.fetch_row(sqlx::query("select coalesce(max(seq), 0) as seq from changes")).await?;
    row.map_or(Ok(0), |row| row::int_column(&row, "seq"))
}

/// The changes after position `seq`.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn changes_since(tx: &mut ReadTx, seq: i64) -> Result<FeedChanges> {
    let sql = "select coalesce(min(seq), 0) as oldest, coalesce(max(seq), 0) as newest from changes";
    let Some(ends) = tx.fetch_row(sqlx::query(sql)).await? else { return Ok(FeedChanges::Everything { seq: 0 }) };
    let (oldest, newest) = (row::int_column(&ends, "oldest")?, row::int_column(&ends, "newest")?);
    // A position beyond the end means that the reader knew another catalog.
    if seq > newest || seq + 1 < oldest || newest - seq > LIST_MAX {
        return Ok(FeedChanges::Everything { seq: newest });
    }
    let mut ids = BTreeSet::new();
    for row in tx.fetch_rows(sqlx::query("select tenant_id from changes where seq > $1").bind(seq)).await? {
        if row::text_column(&row, "tenant_id")? == EVERYTHING {
            return Ok(FeedChanges::Everything { seq: newest });
        }
        ids.insert(row::parsed_column::<TenantId>(&row, "tenant_id")?);
    }
    Ok(FeedChanges::Tenants { seq: newest, ids: ids.into_iter().collect() })
}

/// The known position of the feed, without a query: at least this process's last commit. Two loads.
#[must_use]
pub fn known_head(catalog: &Catalog) -> i64 {
    *catalog.shared_state().watch.known.borrow()
}

/// How many commits of this process, through this catalog, appended to the feed. One load.
#[must_use]
pub fn local_commit_count(catalog: &Catalog) -> u64 {
    catalog.shared_state().own.commit_count()
}

/// The changes of this process's own commits after the first `seen` of them, without a query. Includes commits whose
/// result is unknown.
#[must_use]
pub fn local_changes_since(catalog: &Catalog, seen: u64) -> LocalChanges {
    catalog.shared_state().own.changes_since(seen)
}

/// Returns after a possible write since `seq`, or after `timeout`. Commits of this process are seen at once, those of
/// other processes within 500 ms on SQLite. On Postgres they are seen at once, and after a second at the latest. Cheap:
/// on SQLite it uses `PRAGMA data_version`.
///
/// # Errors
/// `Unavailable`; wait a little before the next call.
pub async fn wait_for_change(catalog: &Catalog, seq: i64, timeout: Duration) -> Result<()> {
    let shared = catalog.shared_state();
    wait_until_passed(shared, &shared.watch.known, seq, timeout).await
}

/// As [`wait_for_change`], for a message of any topic after the message `seq`.
///
/// # Errors
/// `Unavailable`; wait a little before the next call.
pub async fn wait_for_message(catalog: &Catalog, seq: i64, timeout: Duration) -> Result<()> {
    let shared = catalog.shared_state();
    wait_until_passed(shared, &shared.watch.messages, seq, timeout).await
}

async fn wait_until_passed(
    shared: &CatalogShared,
    position: &watch::Sender<i64>,
    seq: i64,
    timeout: Duration,
) -> Result<()> {
    let mut known = position.subscribe();
    let reached = known.wait_for(|known| *known > seq);
    tokio::select! {
        _ = reached => Ok(()),
        failed = poll_for_all(shared) => failed,
        () = tokio::time::sleep(timeout) => Ok(()),
    }
}

/// Removes old entries except the newest `keep`. Keeps at least one, because it holds the number.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn trim_feed(tx: &mut WriteTx, keep: i64) -> Result<()> {
    let newest = feed_head(tx).await?;
    tx.execute_sql(sqlx::query("delete from changes where seq <= $1").bind(newest - keep.max(1))).await?;
    Ok(())
}

/// The known position of the feed, and the only place that polls for other processes' commits.
#[derive(Debug)]
pub(crate) struct FeedWatch {
    known: watch::Sender<i64>,
    /// The known position of the topics' messages.
    messages: watch::Sender<i64>,
    lookout: Mutex<FeedPoller>,
}

/// The holder of this lock polls for all readers.
#[derive(Debug, Default)]
struct FeedPoller {
    connection: Option<AnyConnection>,
    commits_seen: Option<i64>,
    ear: ChangeListener,
}

impl Default for FeedWatch {
    fn default() -> Self {
        Self { known: watch::Sender::new(0), messages: watch::Sender::new(0), lookout: Mutex::default() }
    }
}

impl FeedWatch {
    /// Records that the feed has reached this position; `true` when the position is new.
    pub(crate) fn mark_reached(&self, seq: i64) -> bool {
        self.known.send_if_modified(|known| advance_position(known, seq))
    }

    /// Records that a message with this number exists; `true` when the number is new.
    pub(crate) fn mark_message(&self, seq: i64) -> bool {
        self.messages.send_if_modified(|known| advance_position(known, seq))
    }

    /// Closes the connections used for polling. Readers that still wait open new ones, or wait for their timeout.
    pub(crate) async fn close_connections(&self) {
        let Ok(mut lookout) = self.lookout.try_lock() else { return };
        lookout.ear.stop_listening();
        if let Some(connection) = lookout.connection.take() {
            connection_slots::close_connection(connection).await;
        }
    }
}

fn advance_position(known: &mut i64, seq: i64) -> bool {
    let further = seq > *known;
    *known = seq.max(*known);
    further
}

/// Polls until dropped; the next waiting reader continues. Returns only to report a failure.
async fn poll_for_all(shared: &CatalogShared) -> Result<()> {
    let mut lookout = shared.watch.lookout.lock().await;
    loop {
        if let Err(error) = lookout.poll_feed(shared).await {
            *lookout = FeedPoller::default();
            return Err(error);
        }
        lookout.ear.wait_for_notice(&shared.opener).await;
    }
}

impl FeedPoller {
    async fn poll_feed(&mut self, shared: &CatalogShared) -> Result<()> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            empty => empty.insert(shared.opener.connect().await?),
        };
        let commits = shared.opener.commits_seen(connection).await?;
        if commits.is_some() && self.commits_seen == commits {
            return Ok(());
        }
        // Queried before it is recorded, so that a cancelled poll is repeated.
        let newest = sqlx::query(
            "select (select coalesce(max(seq), 0) from changes) as seq, \
             (select coalesce(max(seq), 0) from topic_messages) as message_seq",
        );
        let row = shared
            .opener
            .connection_transport()
            .await_answer(newest.fetch_one(connection))
            .await
            .map_err(error_mapping::catalog_error)?;
        let message = shared.watch.mark_message(row::int_column(&row, "message_seq")?);
        self.ear.note_poll_result(shared.watch.mark_reached(row::int_column(&row, "seq")?) || message);
        self.commits_seen = commits;
        Ok(())
    }
}
