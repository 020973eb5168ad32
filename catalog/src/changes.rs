//! The change feed: routers drop what changed from their caches. Safety does not depend on it.
//!
//! A commit of this process wakes those who wait at once. Commits of other processes are looked for by one of those who
//! wait, for all of them; while nobody waits nobody looks. Where the database tells (Postgres: `listen`), it is looked at
//! once when it does; looking every now and then stays, because what was told may have been lost.

use std::collections::BTreeSet;
use std::time::Duration;

use sqlx::AnyConnection;
use tokio::sync::{Mutex, watch};

use crate::bulk::{self, TEXT, built, chunks, values};
use crate::db::{Catalog, ReadTx, Shared, WriteTx};
use crate::error::Result;
use crate::fault;
use crate::ids::TenantId;
use crate::lane;
use crate::listener::Ear;
pub use crate::own::OwnChanges;
use crate::row;

/// Longer lists are not worth more than dropping everything.
const LIST_MAX: i64 = 10_000;

/// Stands for the tenant in an entry that is not about one tenant.
const EVERYTHING: &str = "*";

/// What happened since a reader last looked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changes {
    /// These tenants changed; the feed is now at `seq`.
    Tenants {
        /// Where the reader is now.
        seq: i64,
        /// Each once.
        ids: Vec<TenantId>,
    },
    /// The reader is too far behind, or something changed that is not one tenant's: drop everything.
    Everything {
        /// Where the reader is now.
        seq: i64,
    },
}

/// Appends one entry per tenant. The functions that change tenants, members and tokens call this themselves.
///
/// # Errors
/// `Unavailable`.
pub async fn append(tx: &mut WriteTx, ids: &[TenantId]) -> Result<()> {
    let words: Vec<String> = ids.iter().map(ToString::to_string).collect();
    append_words(tx, &words).await?;
    tx.touched().tenants.extend_from_slice(ids);
    Ok(())
}

/// Appends "everything changed".
///
/// # Errors
/// `Unavailable`.
pub async fn append_everything(tx: &mut WriteTx) -> Result<()> {
    append_words(tx, &[EVERYTHING.to_owned()]).await?;
    tx.touched().everything = true;
    Ok(())
}

/// The same because a server is entered in another way now.
pub(crate) async fn append_servers(tx: &mut WriteTx) -> Result<()> {
    append_everything(tx).await?;
    tx.touched().servers = true;
    Ok(())
}

async fn append_words(tx: &mut WriteTx, words: &[String]) -> Result<()> {
    for chunk in chunks(words) {
        let before = head(tx).await?;
        // The number of each entry travels with it: nothing says in which order rows come out of a list.
        let sql = format!(
            "with v(place, tenant_id) as ({}) insert into changes (seq, tenant_id) \
             select cast(${} as bigint) + place, tenant_id from v",
            values(chunk.len(), &[bulk::INT, TEXT]),
            chunk.len() * 2 + 1
        );
        let mut sql = built(sql);
        for (place, word) in (1i64..).zip(chunk) {
            sql = sql.bind(place).bind(word.clone());
        }
        let added = tx.run(sql.bind(before)).await?;
        tx.appended(before + added);
    }
    Ok(())
}

/// Where the feed is.
///
/// # Errors
/// `Unavailable`.
pub async fn head(tx: &mut ReadTx) -> Result<i64> {
    let row = tx.one(sqlx::query("select coalesce(max(seq), 0) as seq from changes")).await?;
    row.map_or(Ok(0), |row| row::int(&row, "seq"))
}

/// What came after `seq`.
///
/// # Errors
/// `Unavailable`.
pub async fn since(tx: &mut ReadTx, seq: i64) -> Result<Changes> {
    let sql = "select coalesce(min(seq), 0) as oldest, coalesce(max(seq), 0) as newest from changes";
    let Some(ends) = tx.one(sqlx::query(sql)).await? else { return Ok(Changes::Everything { seq: 0 }) };
    let (oldest, newest) = (row::int(&ends, "oldest")?, row::int(&ends, "newest")?);
    // Beyond the end: the catalog is another one than the reader knew.
    if seq > newest || seq + 1 < oldest || newest - seq > LIST_MAX {
        return Ok(Changes::Everything { seq: newest });
    }
    let mut ids = BTreeSet::new();
    for row in tx.all(sqlx::query("select tenant_id from changes where seq > $1").bind(seq)).await? {
        if row::text(&row, "tenant_id")? == EVERYTHING {
            return Ok(Changes::Everything { seq: newest });
        }
        ids.insert(row::parsed::<TenantId>(&row, "tenant_id")?);
    }
    Ok(Changes::Tenants { seq: newest, ids: ids.into_iter().collect() })
}

/// How far the feed is known to be without asking the database: at least to this process's last commit. Two loads.
#[must_use]
pub fn known(catalog: &Catalog) -> i64 {
    *catalog.shared().watch.known.borrow()
}

/// How many commits of this process, through this catalog, appended to the feed. One load.
#[must_use]
pub fn own(catalog: &Catalog) -> u64 {
    catalog.shared().own.commits()
}

/// What this process's own commits changed after the first `seen` of them. Never asks the database. A commit of which
/// nobody knows whether it was done is among them.
#[must_use]
pub fn own_since(catalog: &Catalog, seen: u64) -> OwnChanges {
    catalog.shared().own.since(seen)
}

/// Returns when something may have been written since `seq` (this process: at once; others: within 500 ms, on Postgres at
/// once and at the latest after a second), or after `timeout`. Cheap: on SQLite it asks `PRAGMA data_version`.
///
/// # Errors
/// `Unavailable`; wait a moment before the next call.
pub async fn wait(catalog: &Catalog, seq: i64, timeout: Duration) -> Result<()> {
    let shared = catalog.shared();
    let mut known = shared.watch.known.subscribe();
    let reached = known.wait_for(|known| *known > seq);
    tokio::select! {
        _ = reached => Ok(()),
        failed = look_for_all(shared) => failed,
        () = tokio::time::sleep(timeout) => Ok(()),
    }
}

/// Forgets old entries, keeping the newest `keep` (at least one: it holds the number).
///
/// # Errors
/// `Unavailable`.
pub async fn trim(tx: &mut WriteTx, keep: i64) -> Result<()> {
    let newest = head(tx).await?;
    tx.run(sqlx::query("delete from changes where seq <= $1").bind(newest - keep.max(1))).await?;
    Ok(())
}

/// How far the feed is known to be, and the one place from which other processes' commits are looked for.
#[derive(Debug)]
pub(crate) struct Watch {
    known: watch::Sender<i64>,
    lookout: Mutex<Lookout>,
}

/// Whoever holds it looks for everybody.
#[derive(Debug, Default)]
struct Lookout {
    connection: Option<AnyConnection>,
    commits_seen: Option<i64>,
    ear: Ear,
}

impl Default for Watch {
    fn default() -> Self {
        Self { known: watch::Sender::new(0), lookout: Mutex::default() }
    }
}

impl Watch {
    /// The feed has at least come this far; `true`: further than was known.
    pub(crate) fn reached(&self, seq: i64) -> bool {
        self.known.send_if_modified(|known| {
            let further = seq > *known;
            *known = seq.max(*known);
            further
        })
    }

    /// Closes the connections it looks through. Whoever still waits opens others or waits for its timeout.
    pub(crate) async fn close(&self) {
        let Ok(mut lookout) = self.lookout.try_lock() else { return };
        lookout.ear.close();
        if let Some(connection) = lookout.connection.take() {
            lane::close(connection).await;
        }
    }
}

/// Looks until dropped; the next in line takes over. Returns only to tell of a failure.
async fn look_for_all(shared: &Shared) -> Result<()> {
    let mut lookout = shared.watch.lookout.lock().await;
    loop {
        if let Err(error) = lookout.look(shared).await {
            *lookout = Lookout::default();
            return Err(error);
        }
        lookout.ear.wait(&shared.opener).await;
    }
}

impl Lookout {
    async fn look(&mut self, shared: &Shared) -> Result<()> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            empty => empty.insert(shared.opener.connect().await?),
        };
        let commits = shared.opener.commits_seen(connection).await?;
        if commits.is_some() && self.commits_seen == commits {
            return Ok(());
        }
        // Looked at before it is remembered: a look that is cancelled is repeated.
        let newest = sqlx::query("select coalesce(max(seq), 0) as seq from changes");
        let row = shared.opener.underneath().answer(newest.fetch_one(connection)).await.map_err(fault::of)?;
        self.ear.looked(shared.watch.reached(row::int(&row, "seq")?));
        self.commits_seen = commits;
        Ok(())
    }
}
