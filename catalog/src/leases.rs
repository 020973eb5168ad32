//! Leases of live processes: periodic tasks with one owner each, shares of a server's connections, and the processes
//! that share the limits of tenants.
//!
//! Called by the control plane's periodic tasks and by processes that share a server's connections. A lease that is not
//! renewed expires, so a dead owner needs no detection. Times come from the transaction. A task's lease is also over if
//! no correct clock can have written its end (`clock_skew.rs`). This is safe because tasks are idempotent, and because
//! a process notices a lost lease at its next renewal.

use crate::clock_skew::{AHEAD_MS_MAX, TASK_AHEAD_MS_MAX};
use crate::db::{ReadTx, WriteTx};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::ServerId;
use crate::row;

const TASK: &str = "task";
const CONNECTIONS: &str = "connections";
/// A process with a router, which takes its part of the limits of tenants.
const PROCESS: &str = "process";

/// A process's share of a server's connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionShare {
    /// The name of the process.
    pub owner: String,
    /// Maximum number of connections that it may open.
    pub amount: i64,
    /// End of the lease, milliseconds since 1970.
    pub until: i64,
    /// True when no correct clock can have written the end: a clock was wrong, or this one was set back. The reader
    /// must measure whether the process still renews it.
    pub is_ahead: bool,
}

/// Takes or renews a task until this time; `false` when another process holds it. All leases have the same length, so a
/// much longer one was written by a wrong clock.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn take_task(tx: &mut WriteTx, name: &str, owner: &str, until: i64) -> Result<bool> {
    let now = tx.now();
    let sql = "select 1 as found from leases where kind = $1 and name = $2 and owner <> $3 and until > $4 and until <= $5 limit 1";
    let sql =
        sqlx::query(sql).bind(TASK).bind(name.to_owned()).bind(owner.to_owned()).bind(now).bind(until + AHEAD_MS_MAX);
    if tx.fetch_row(sql).await?.is_some() {
        return Ok(false);
    }
    let sql = sqlx::query("delete from leases where kind = $1 and name = $2 and owner <> $3");
    tx.execute_sql(sql.bind(TASK).bind(name.to_owned()).bind(owner.to_owned())).await?;
    put_lease(tx, TASK, name, owner, 1, until).await?;
    Ok(true)
}

/// Releases a task early. Does nothing if `owner` does not hold it.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn release_task(tx: &mut WriteTx, name: &str, owner: &str) -> Result<()> {
    remove_lease(tx, TASK, name, owner).await
}

/// Renews the lease of a process with a router until this time.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn renew_process(tx: &mut WriteTx, owner: &str, until: i64) -> Result<()> {
    put_lease(tx, PROCESS, owner, owner, 1, until).await
}

/// Releases the lease of a process early.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn release_process(tx: &mut WriteTx, owner: &str) -> Result<()> {
    remove_lease(tx, PROCESS, owner, owner).await
}

/// How many processes with a router live: `owner`, and the others whose leases have not expired. A lease that no correct
/// clock can have written does not count.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn live_processes(tx: &mut ReadTx, owner: &str) -> Result<u64> {
    let now = tx.now();
    let sql = "select count(*) as others from leases where kind = $1 and owner <> $2 and until > $3 and until <= $4";
    let sql = sqlx::query(sql).bind(PROCESS).bind(owner.to_owned()).bind(now).bind(latest_lease_end(now));
    let row = tx.fetch_row(sql).await?;
    Ok(row.map_or(Ok(0), |row| row::int_column(&row, "others"))?.unsigned_abs() + 1)
}

/// The connection shares of a server that have not expired, by owner.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn connection_shares(tx: &mut ReadTx, server: ServerId) -> Result<Vec<ConnectionShare>> {
    let now = tx.now();
    let sql = "select owner, amount, until from leases where kind = $1 and name = $2 and until > $3 order by owner";
    let sql = sqlx::query(sql).bind(CONNECTIONS).bind(server.to_string()).bind(now);
    let rows = tx.fetch_rows(sql).await?;
    rows.iter()
        .map(|row| {
            let (amount, until) = (row::int_column(row, "amount")?, row::int_column(row, "until")?);
            Ok(ConnectionShare {
                owner: row::text_column(row, "owner")?,
                amount,
                until,
                is_ahead: until > now + AHEAD_MS_MAX,
            })
        })
        .collect()
}

/// Sets or renews a process's share. The caller has read the others in this transaction, and is responsible for their
/// sum.
///
/// # Errors
/// `Invalid` when `amount` is negative.
pub async fn set_connection_share(
    tx: &mut WriteTx,
    server: ServerId,
    owner: &str,
    amount: i64,
    until: i64,
) -> Result<()> {
    if amount < 0 {
        return Err(Error::new(ErrorKind::Invalid, "a share of connections cannot be negative"));
    }
    put_lease(tx, CONNECTIONS, &server.to_string(), owner, amount, until).await
}

/// Releases a share early.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn drop_connection_share(tx: &mut WriteTx, server: ServerId, owner: &str) -> Result<()> {
    remove_lease(tx, CONNECTIONS, &server.to_string(), owner).await
}

/// Removes expired leases and returns their number. Only the table's size depends on it. A share stays until its time
/// has passed, because its process may live.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn expire_leases(tx: &mut WriteTx) -> Result<i64> {
    let now = tx.now();
    let sql = "delete from leases where until <= $1 or (until > $2 and kind <> $3)";
    tx.execute_sql(sqlx::query(sql).bind(now).bind(latest_lease_end(now)).bind(CONNECTIONS)).await
}

/// The latest end that a correct clock can have written.
fn latest_lease_end(now: i64) -> i64 {
    now + TASK_AHEAD_MS_MAX
}

async fn put_lease(tx: &mut WriteTx, kind: &str, name: &str, owner: &str, amount: i64, until: i64) -> Result<()> {
    let sql = "insert into leases (kind, name, owner, amount, until) values ($1, $2, $3, $4, $5) \
               on conflict (kind, name, owner) do update set amount = excluded.amount, until = excluded.until";
    let sql = sqlx::query(sql).bind(kind.to_owned()).bind(name.to_owned()).bind(owner.to_owned());
    tx.execute_sql(sql.bind(amount).bind(until)).await.map(|_| ())
}

async fn remove_lease(tx: &mut WriteTx, kind: &str, name: &str, owner: &str) -> Result<()> {
    let sql = sqlx::query("delete from leases where kind = $1 and name = $2 and owner = $3");
    tx.execute_sql(sql.bind(kind.to_owned()).bind(name.to_owned()).bind(owner.to_owned())).await.map(|_| ())
}
