//! Opens the catalog and begins transactions; which database is underneath, only `opener` knows.
//!
//! Write transactions are serial: check-then-act is safe inside one, and the order of every sequence is commit order.
//! A write transaction waits on nothing but the catalog. Time is read once per transaction.
//! A statement that the database refused ends its transaction, as Postgres does: whoever means to go on looks first.
//! Connections are held, not pooled: one for writes, a few for reads. A transaction that is dropped is rolled back
//! before its connection serves anybody else.

use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::AnyConnection;
use sqlx::any::AnyRow;
use tenant_engine::disk::DiskReserve;

use crate::bulk::Sql;
use crate::changes::Watch;
pub use crate::dsn::Dsn;
use crate::error::{Error, ErrorKind, Result};
use crate::fault;
use crate::file;
use crate::ids::FleetId;
use crate::lane::{self, Held, Lane, Underneath};
use crate::opener::{Feed, Opener};
use crate::own::{Own, Touched};
use crate::schema;
use crate::seal::{FleetKey, Sealer};

/// Reads at once. Each connection is a thread with its own page cache; the routers' caches take the load.
const READERS: usize = 4;

/// How long a write waits for another process that holds the write lock.
pub(crate) const LOCK_WAIT_MAX: Duration = Duration::from_secs(10);

/// Milliseconds since 1970; tests move it by hand.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// Where a catalog is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A SQLite file.
    File(PathBuf),
    /// The tables of a Postgres database's first schema.
    Postgres(Dsn),
}

impl std::fmt::Display for Location {
    /// For humans; without the password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Postgres(dsn) => dsn.fmt(f),
        }
    }
}

/// An open catalog; clones are the same one.
#[derive(Clone)]
pub struct Catalog {
    shared: Arc<Shared>,
}

/// What all clones and transactions of one catalog share.
pub(crate) struct Shared {
    pub(crate) opener: Opener,
    writer: Arc<Lane>,
    readers: Arc<Lane>,
    clock: Clock,
    pub(crate) sealer: Sealer,
    fleet_id: FleetId,
    pub(crate) watch: Watch,
    pub(crate) own: Own,
}

impl std::fmt::Debug for Catalog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Catalog").field("fleet_id", &self.shared.fleet_id).finish_non_exhaustive()
    }
}

/// A consistent read; dropped when done.
pub struct ReadTx {
    held: Held,
    shared: Arc<Shared>,
    now: i64,
    /// The newest entry this transaction appended to the change feed.
    appended: Option<i64>,
    /// What those entries are about.
    touched: Touched,
}

/// The one write transaction of the moment; rolled back unless committed.
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
    /// Makes a new catalog (schema, fleet row) and opens it; one that is already there is opened, if the key fits.
    ///
    /// # Errors
    /// As [`Catalog::open`], but never `NotInitialised`: a file's directory is made, too; a database must be there.
    pub async fn create(location: &Location, key: FleetKey, clock: Clock) -> Result<Self> {
        if let Location::File(path) = location {
            file::make_directory(path)?;
        }
        let opener = Opener::new(location)?;
        opener.prepare()?;
        Self::start(opener, Sealer::new(&key), clock, schema::Start::Create).await
    }

    /// Opens a catalog, applying the schema migrations this program has and it has not.
    ///
    /// # Errors
    /// `NotInitialised`, `SchemaNewer`, `WrongKey`, `Corrupt` (not a catalog, damaged), `Unavailable` (not reachable,
    /// locked, disk full), `ReadOnlyStorage`, or `Refused` (by its server).
    pub async fn open(location: &Location, key: FleetKey, clock: Clock) -> Result<Self> {
        let opener = Opener::new(location)?;
        opener.exists()?;
        Self::start(opener, Sealer::new(&key), clock, schema::Start::Open).await
    }

    /// Whether there is one, without a key and without making anything.
    ///
    /// # Errors
    /// `Unavailable`, `Refused`.
    pub async fn is_there(location: &Location) -> Result<bool> {
        if let Location::File(path) = location {
            // An empty file is none: a creation that was killed leaves one behind.
            return Ok(std::fs::metadata(path).is_ok_and(|file| file.len() > 0));
        }
        let opener = Opener::new(location)?;
        let mut connection = opener.connect().await?;
        let tables = opener.tables(&mut connection).await?;
        lane::close(connection).await;
        Ok(schema::is_catalog(&tables))
    }

    async fn start(opener: Opener, sealer: Sealer, clock: Clock, start: schema::Start) -> Result<Self> {
        let writer = Lane::new(1, "write transaction");
        let mut held = writer.take(&opener).await?;
        opener.settle(held.connection()).await?;
        begin(&mut held, &opener, opener.begin_schema()).await?;
        let db = held.during().ok_or_else(over)?;
        let fleet_id = schema::settle(&opener, db, &sealer, clock(), start).await?;
        held.after(&Ok(()));
        held.commit(opener.commit(Feed::Unchanged)).await.ok_or_else(over)?.map_err(fault::of_commit)?;
        drop(held);
        let readers = Lane::new(READERS, "read transaction");
        let shared =
            Shared { opener, writer, readers, clock, sealer, fleet_id, watch: Watch::default(), own: Own::default() };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The fleet's id: stamped into every tenant database.
    #[must_use]
    pub fn fleet_id(&self) -> FleetId {
        self.shared.fleet_id
    }

    /// Seals and opens secrets at rest.
    #[must_use]
    pub fn sealer(&self) -> &Sealer {
        &self.shared.sealer
    }

    /// Milliseconds since 1970, by this catalog's clock.
    #[must_use]
    pub fn now(&self) -> i64 {
        (self.shared.clock)()
    }

    /// Begins a read: every statement in it sees the same state.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn read(&self) -> Result<ReadTx> {
        let held = self.shared.readers.take(&self.shared.opener).await?;
        self.begin(held, self.shared.opener.begin_read()).await
    }

    /// Waits for its turn and begins a write. First come, first served within this process.
    ///
    /// # Errors
    /// `Unavailable` when another process holds the write lock for more than 10 s.
    pub async fn write(&self) -> Result<WriteTx> {
        let mut held = self.shared.writer.take(&self.shared.opener).await?;
        self.shared.opener.prepare_write(held.connection()).await?;
        Ok(WriteTx { inner: self.begin(held, self.shared.opener.begin_write()).await? })
    }

    async fn begin(&self, mut held: Held, statement: &'static str) -> Result<ReadTx> {
        begin(&mut held, &self.shared.opener, statement).await?;
        Ok(ReadTx { held, shared: self.shared.clone(), now: self.now(), appended: None, touched: Touched::default() })
    }

    /// A consistent copy of the catalog as a new file that only its owner can read, for the backup store.
    ///
    /// # Errors
    /// `AlreadyExists` when there is something at `path`; `Unavailable`.
    pub async fn snapshot_to(&self, path: &std::path::Path) -> Result<()> {
        file::create_new(path)?;
        let done = match self.shared.opener.snapshot(path).await {
            Ok(()) => file::sync(path),
            Err(error) => Err(error),
        };
        if done.is_err() {
            // Half a copy is none. What cannot be removed is reported by the error that is returned.
            let _ = std::fs::remove_file(path);
        }
        done
    }

    /// The room that is set apart beside a file; a catalog on a server has none.
    #[must_use]
    pub fn reserve(&self) -> Option<&DiskReserve> {
        self.shared.opener.reserve()
    }

    /// Closes all connections; a file's write-ahead log is folded in. Waits up to 30 s for transactions still open.
    pub async fn close(&self) {
        self.shared.watch.close().await;
        self.shared.readers.close(u32::try_from(READERS).expect("READERS is small")).await;
        self.shared.writer.close(1).await;
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }
}

/// Begins, waiting for another process that holds the lock, up to [`LOCK_WAIT_MAX`]. A server waits by itself.
async fn begin(held: &mut Held, opener: &Opener, statement: &'static str) -> Result<()> {
    let started = Instant::now();
    loop {
        match held.begin(statement).await {
            Ok(()) => return Ok(()),
            // The server went away while the connection was kept: nothing was asked through it yet.
            Err(error) if held.may_be_replaced() && fault::is_lost(&error) => held.replace(opener).await?,
            Err(error) if fault::is_busy(&error) => {
                if held.underneath() == Underneath::Socket || started.elapsed() >= LOCK_WAIT_MAX {
                    return Err(opener.locked(error).await);
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Err(error) => return Err(opener.failed(error)),
        }
    }
}

impl ReadTx {
    /// The time of this transaction, milliseconds since 1970.
    #[must_use]
    pub fn now(&self) -> i64 {
        self.now
    }

    pub(crate) fn sealer(&self) -> &Sealer {
        &self.shared.sealer
    }

    /// The directory of the catalog's file, without links; `None` on Postgres.
    pub(crate) fn directory(&self) -> Option<PathBuf> {
        self.shared.opener.directory().map(std::path::Path::to_path_buf)
    }

    /// Tells those who wait for changes, once this is committed.
    pub(crate) fn appended(&mut self, seq: i64) {
        self.appended = Some(seq);
    }

    /// What this process will be told that it changed, once this is committed.
    pub(crate) fn touched(&mut self) -> &mut Touched {
        &mut self.touched
    }

    pub(crate) fn opener(&self) -> &Opener {
        &self.shared.opener
    }

    /// For what asks more than one statement at a time; [`ReadTx::returned`] when all of it went well.
    pub(crate) fn lend(&mut self) -> Result<&mut AnyConnection> {
        self.held.during().ok_or_else(over)
    }

    pub(crate) fn returned(&mut self) {
        self.held.after(&Ok(()));
    }

    pub(crate) async fn all(&mut self, sql: Sql<'_>) -> Result<Vec<AnyRow>> {
        let underneath = self.held.underneath();
        let rows = underneath.answer(sql.fetch_all(self.held.during().ok_or_else(over)?)).await;
        self.held.after(&rows);
        rows.map_err(|error| self.shared.opener.failed(error))
    }

    /// The first row. The answer is read to its end: a connection comes back with nothing left to say.
    pub(crate) async fn one(&mut self, sql: Sql<'_>) -> Result<Option<AnyRow>> {
        Ok(self.all(sql).await?.into_iter().next())
    }

    /// Returns how many rows were changed.
    pub(crate) async fn run(&mut self, sql: Sql<'_>) -> Result<i64> {
        let underneath = self.held.underneath();
        let done = underneath.answer(sql.execute(self.held.during().ok_or_else(over)?)).await;
        self.held.after(&done);
        let done = done.map_err(|error| self.shared.opener.failed(error))?;
        Ok(i64::try_from(done.rows_affected()).unwrap_or(i64::MAX))
    }
}

/// Nothing may run after a failure that may have ended the transaction: it would not be undone with the rest.
fn over() -> Error {
    Error::new(ErrorKind::Unavailable, "this transaction of the catalog failed or was cut off before: begin again")
}

impl WriteTx {
    /// Makes everything done in it durable and visible at once.
    ///
    /// # Errors
    /// `Unavailable`: nothing of it was done, or, when the connection was lost, nobody can know.
    pub async fn commit(mut self) -> Result<()> {
        let feed = if self.inner.appended.is_some() { Feed::Appended } else { Feed::Unchanged };
        let commit = self.inner.shared.opener.commit(feed);
        let touched = std::mem::take(&mut self.inner.touched);
        let _noted = Noted { shared: Arc::clone(&self.inner.shared), touched };
        let opener = &self.inner.shared.opener;
        self.inner.held.commit(commit).await.ok_or_else(over)?.map_err(|error| match fault::is_full(&error) {
            true => opener.failed(error),
            false => fault::of_commit(error),
        })?;
        if let Some(seq) = self.inner.appended {
            self.inner.shared.watch.reached(seq);
        }
        Ok(())
    }
}

/// From the moment a commit is sent, what it may have changed is noted when it ends: done, failed, or given up while it
/// was under way. Of one that was given up nobody was told; should it be done later, the feed tells.
struct Noted {
    shared: Arc<Shared>,
    touched: Touched,
}

impl Drop for Noted {
    fn drop(&mut self) {
        self.shared.own.note(std::mem::take(&mut self.touched));
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
