//! Opens the catalog and begins transactions. Only `opener` knows which database it uses.
//!
//! Write transactions are serial: check-then-act is safe inside one, and the order of every sequence is commit order. A
//! write transaction waits for nothing but the catalog. Time is read once per transaction.
//! A statement that the database refused ends its transaction, as in Postgres. A caller that wants to continue must
//! check first.
//! Connections are held, not pooled: one for writes, a few for reads. A dropped transaction is rolled back before its
//! connection is used again.

use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::AnyConnection;
use sqlx::any::AnyRow;
use tenant_engine::disk::DiskReserve;

use crate::bulk::SqlQuery;
use crate::changes::FeedWatch;
use crate::connection_slots::{self, ANSWER_MAX, BEGIN_READ_MAX, ConnectionSlots, ConnectionTransport, LentConnection};
pub use crate::dsn::CatalogDsn;
use crate::error::{Error, ErrorKind, Result};
use crate::error_mapping;
use crate::file;
use crate::ids::FleetId;
use crate::local_changes::{LocalChangeLog, TransactionChanges};
use crate::opener::{CatalogOpener, FeedUpdate};
use crate::schema;
use crate::seal::{FleetKey, SecretSealer};

/// Maximum number of parallel reads. Each connection is a thread with its own page cache; the routers' caches take the
/// load.
const READERS: usize = 4;

/// How long a write waits while another process holds the write lock.
pub(crate) const LOCK_WAIT_MAX: Duration = Duration::from_secs(10);

/// Returns milliseconds since 1970. Tests set it by hand.
pub type CatalogClock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// The database of a catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CatalogLocation {
    /// A SQLite file.
    File(PathBuf),
    /// The tables of a Postgres database's first schema.
    Postgres(CatalogDsn),
}

impl std::fmt::Display for CatalogLocation {
    /// For people; without the password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Postgres(dsn) => dsn.fmt(f),
        }
    }
}

/// An open catalog. All clones share one state.
#[derive(Clone)]
pub struct Catalog {
    shared: Arc<CatalogShared>,
}

/// The state that all clones and transactions of one catalog share.
pub(crate) struct CatalogShared {
    pub(crate) opener: CatalogOpener,
    writer: Arc<ConnectionSlots>,
    readers: Arc<ConnectionSlots>,
    clock: CatalogClock,
    pub(crate) sealer: SecretSealer,
    fleet_id: FleetId,
    pub(crate) watch: FeedWatch,
    pub(crate) own: LocalChangeLog,
}

impl std::fmt::Debug for Catalog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Catalog").field("fleet_id", &self.shared.fleet_id).finish_non_exhaustive()
    }
}

/// A read transaction with a consistent view. It ends when dropped.
pub struct ReadTx {
    held: LentConnection,
    shared: Arc<CatalogShared>,
    now: i64,
    /// The newest entry that this transaction appended to the change feed.
    appended: Option<i64>,
    /// The newest message of a topic that this transaction appended.
    appended_message: Option<i64>,
    /// The subjects of those entries.
    touched: TransactionChanges,
}

/// The only write transaction at a time. Rolled back unless committed.
pub struct WriteTx {
    inner: ReadTx,
}

impl std::fmt::Debug for ReadTx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReadTx").field("now", &self.now).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for WriteTx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WriteTx").field("now", &self.inner.now).finish_non_exhaustive()
    }
}

impl Catalog {
    /// Creates a catalog (schema, fleet row) and opens it. Opens an existing catalog if the key matches.
    ///
    /// # Errors
    /// As [`Catalog::open`], but never `NotInitialised`. Creates a file's directory; a Postgres database must exist.
    pub async fn create(location: &CatalogLocation, key: FleetKey, clock: CatalogClock) -> Result<Self> {
        if let CatalogLocation::File(path) = location {
            file::make_directory(path)?;
        }
        let opener = CatalogOpener::new(location)?;
        opener.prepare_location()?;
        Self::open_with(opener, SecretSealer::new(&key), clock, schema::CatalogOpenMode::Create).await
    }

    /// Opens a catalog, and applies the schema migrations that it does not have yet.
    ///
    /// # Errors
    /// `NotInitialised`, `SchemaNewer`, `WrongKey`, `Corrupt` (not a catalog, or damaged), `Unavailable` (not
    /// reachable, locked, or disk full), `ReadOnlyStorage`, or `Refused` (by its server).
    pub async fn open(location: &CatalogLocation, key: FleetKey, clock: CatalogClock) -> Result<Self> {
        let opener = CatalogOpener::new(location)?;
        opener.require_location()?;
        Self::open_with(opener, SecretSealer::new(&key), clock, schema::CatalogOpenMode::Open).await
    }

    /// True when there is a catalog. Needs no key and creates nothing.
    ///
    /// # Errors
    /// `Unavailable` when the location is not reachable, `Refused` when its server rejects this process.
    pub async fn is_there(location: &CatalogLocation) -> Result<bool> {
        if let CatalogLocation::File(path) = location {
            // An empty file is not a catalog: an interrupted creation leaves one behind.
            return Ok(std::fs::metadata(path).is_ok_and(|file| file.len() > 0));
        }
        let opener = CatalogOpener::new(location)?;
        let mut connection = opener.connect().await?;
        let tables = opener.table_names(&mut connection).await?;
        connection_slots::close_connection(connection).await;
        Ok(schema::is_catalog(&tables))
    }

    async fn open_with(
        opener: CatalogOpener,
        sealer: SecretSealer,
        clock: CatalogClock,
        start: schema::CatalogOpenMode,
    ) -> Result<Self> {
        let writer = ConnectionSlots::new(1, "write transaction");
        let mut held = writer.take_connection(&opener).await?;
        opener.prepare_connection(held.connection_mut()).await?;
        begin_with_retry(&mut held, &opener, opener.begin_schema(), ANSWER_MAX).await?;
        let db = held.begin_statement().ok_or_else(transaction_over)?;
        let fleet_id = schema::prepare_schema(&opener, db, &sealer, clock(), start).await?;
        held.end_statement(&Ok(()));
        held.commit_transaction(opener.commit_statement(FeedUpdate::Unchanged))
            .await
            .ok_or_else(transaction_over)?
            .map_err(error_mapping::commit_error)?;
        drop(held);
        let readers = ConnectionSlots::new(READERS, "read transaction");
        let shared = CatalogShared {
            opener,
            writer,
            readers,
            clock,
            sealer,
            fleet_id,
            watch: FeedWatch::default(),
            own: LocalChangeLog::default(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The fleet's id, which is stamped into every tenant database.
    #[must_use]
    pub fn fleet_id(&self) -> FleetId {
        self.shared.fleet_id
    }

    /// Encrypts and decrypts stored secrets.
    #[must_use]
    pub fn sealer(&self) -> &SecretSealer {
        &self.shared.sealer
    }

    /// The time of this catalog's clock, milliseconds since 1970.
    #[must_use]
    pub fn now(&self) -> i64 {
        (self.shared.clock)()
    }

    /// Begins a read transaction, in which every statement sees the same state.
    ///
    /// # Errors
    /// `Unavailable` when the catalog is not reachable.
    pub async fn read(&self) -> Result<ReadTx> {
        let held = self.shared.readers.take_connection(&self.shared.opener).await?;
        self.begin_on(held, self.shared.opener.begin_read(), BEGIN_READ_MAX).await
    }

    /// Waits for its turn and begins a write transaction. Callers in this process are served in order.
    ///
    /// # Errors
    /// `Unavailable` when another process holds the write lock for more than 10 s.
    pub async fn write(&self) -> Result<WriteTx> {
        let mut held = self.shared.writer.take_connection(&self.shared.opener).await?;
        self.shared.opener.prepare_write(held.connection_mut()).await?;
        Ok(WriteTx { inner: self.begin_on(held, self.shared.opener.begin_write(), ANSWER_MAX).await? })
    }

    async fn begin_on(&self, mut held: LentConnection, statement: &'static str, at_most: Duration) -> Result<ReadTx> {
        begin_with_retry(&mut held, &self.shared.opener, statement, at_most).await?;
        Ok(ReadTx {
            held,
            shared: self.shared.clone(),
            now: self.now(),
            appended: None,
            appended_message: None,
            touched: TransactionChanges::default(),
        })
    }

    /// Writes a consistent copy of the catalog to a new file that only its owner can read, for the backup store.
    ///
    /// # Errors
    /// `AlreadyExists` when `path` exists; `Unavailable` when the catalog is not reachable.
    pub async fn snapshot_to(&self, path: &std::path::Path) -> Result<()> {
        file::create_new(path)?;
        let done = match self.shared.opener.write_snapshot(path).await {
            Ok(()) => file::sync_file(path),
            Err(error) => Err(error),
        };
        if done.is_err() {
            // An incomplete copy is useless. The returned error also reports a failed removal.
            let _ = std::fs::remove_file(path);
        }
        done
    }

    /// The disk space reserved beside a catalog file; `None` for a catalog on a server.
    #[must_use]
    pub fn disk_reserve(&self) -> Option<&DiskReserve> {
        self.shared.opener.disk_reserve()
    }

    /// Closes all connections and merges a file's write-ahead log. Waits up to 30 s for open transactions.
    pub async fn close(&self) {
        self.shared.watch.close_connections().await;
        self.shared.readers.close_slots(u32::try_from(READERS).expect("READERS is small")).await;
        self.shared.writer.close_slots(1).await;
    }

    pub(crate) fn shared_state(&self) -> &CatalogShared {
        &self.shared
    }
}

/// Begins a transaction. Waits up to [`LOCK_WAIT_MAX`] for another process that holds the lock; a server waits itself.
async fn begin_with_retry(
    held: &mut LentConnection,
    opener: &CatalogOpener,
    statement: &'static str,
    at_most: Duration,
) -> Result<()> {
    let started = Instant::now();
    loop {
        match held.begin_transaction(statement, at_most).await {
            Ok(()) => return Ok(()),
            // The server closed the connection while it was idle, before any statement was sent.
            Err(error) if held.may_be_replaced() && error_mapping::is_lost(&error) => {
                held.replace_connection(opener).await?
            }
            Err(error) if error_mapping::is_busy(&error) => {
                if held.connection_transport() == ConnectionTransport::Socket || started.elapsed() >= LOCK_WAIT_MAX {
                    return Err(opener.lock_wait_error(error).await);
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Err(error) => return Err(opener.statement_error(error)),
        }
    }
}

impl ReadTx {
    /// The time of this transaction, milliseconds since 1970.
    #[must_use]
    pub fn now(&self) -> i64 {
        self.now
    }

    pub(crate) fn sealer(&self) -> &SecretSealer {
        &self.shared.sealer
    }

    pub(crate) fn fleet_id(&self) -> FleetId {
        self.shared.fleet_id
    }

    /// The directory of the catalog's file, without links; `None` on Postgres.
    pub(crate) fn catalog_directory(&self) -> Option<PathBuf> {
        self.shared.opener.catalog_directory().map(std::path::Path::to_path_buf)
    }

    /// Wakes tasks that wait for changes, once this is committed.
    pub(crate) fn mark_appended(&mut self, seq: i64) {
        self.appended = Some(seq);
    }

    /// Wakes tasks that wait for messages, once this is committed.
    pub(crate) fn mark_message_appended(&mut self, seq: i64) {
        self.appended_message = Some(seq);
    }

    /// The changes that this process records about itself, once this is committed.
    pub(crate) fn pending_changes(&mut self) -> &mut TransactionChanges {
        &mut self.touched
    }

    pub(crate) fn opener(&self) -> &CatalogOpener {
        &self.shared.opener
    }

    /// For several statements at a time. Call [`ReadTx::take_back_connection`] when all of them succeeded.
    pub(crate) fn lend_connection(&mut self) -> Result<&mut AnyConnection> {
        self.held.begin_statement().ok_or_else(transaction_over)
    }

    pub(crate) fn take_back_connection(&mut self) {
        self.held.end_statement(&Ok(()));
    }

    pub(crate) async fn fetch_rows(&mut self, sql: SqlQuery<'_>) -> Result<Vec<AnyRow>> {
        let underneath = self.held.connection_transport();
        let rows =
            underneath.await_answer(sql.fetch_all(self.held.begin_statement().ok_or_else(transaction_over)?)).await;
        self.held.end_statement(&rows);
        rows.map_err(|error| self.shared.opener.statement_error(error))
    }

    /// The first row. Reads the whole answer, so that nothing is left on the connection.
    pub(crate) async fn fetch_row(&mut self, sql: SqlQuery<'_>) -> Result<Option<AnyRow>> {
        Ok(self.fetch_rows(sql).await?.into_iter().next())
    }

    /// Executes a statement and returns the number of changed rows.
    pub(crate) async fn execute_sql(&mut self, sql: SqlQuery<'_>) -> Result<i64> {
        let underneath = self.held.connection_transport();
        let done =
            underneath.await_answer(sql.execute(self.held.begin_statement().ok_or_else(transaction_over)?)).await;
        self.held.end_statement(&done);
        let done = done.map_err(|error| self.shared.opener.statement_error(error))?;
        Ok(i64::try_from(done.rows_affected()).unwrap_or(i64::MAX))
    }
}

/// Refuses further statements after a failure that may have ended the transaction: they would not be rolled back.
fn transaction_over() -> Error {
    Error::new(ErrorKind::Unavailable, "this transaction of the catalog already failed or was interrupted: begin again")
}

impl WriteTx {
    /// Makes all changes durable and visible at once.
    ///
    /// # Errors
    /// `Unavailable`: nothing was changed; but if the connection was lost, the changes may or may not have been made.
    pub async fn commit(mut self) -> Result<()> {
        let has_news = self.inner.appended.is_some() || self.inner.appended_message.is_some();
        let feed = if has_news { FeedUpdate::Appended } else { FeedUpdate::Unchanged };
        let commit = self.inner.shared.opener.commit_statement(feed);
        let touched = std::mem::take(&mut self.inner.touched);
        let _noted = RecordOnDrop { shared: Arc::clone(&self.inner.shared), touched };
        let opener = &self.inner.shared.opener;
        self.inner.held.commit_transaction(commit).await.ok_or_else(transaction_over)?.map_err(|error| {
            match error_mapping::is_full(&error) {
                true => opener.statement_error(error),
                false => error_mapping::commit_error(error),
            }
        })?;
        if let Some(seq) = self.inner.appended {
            self.inner.shared.watch.mark_reached(seq);
        }
        if let Some(seq) = self.inner.appended_message {
            self.inner.shared.watch.mark_message(seq);
        }
        Ok(())
    }
}

/// Records the possible changes of a commit when it ends: after success, failure or cancellation. The caller of a
/// cancelled commit gets no result; if it succeeds later, the feed reports it.
struct RecordOnDrop {
    shared: Arc<CatalogShared>,
    touched: TransactionChanges,
}

impl Drop for RecordOnDrop {
    fn drop(&mut self) {
        self.shared.own.record_commit(std::mem::take(&mut self.touched));
    }
}

impl Deref for WriteTx {
    type Target = ReadTx;
    fn deref(&self) -> &ReadTx {
        &self.inner
    }
}

impl DerefMut for WriteTx {
    fn deref_mut(&mut self) -> &mut ReadTx {
        &mut self.inner
    }
}
