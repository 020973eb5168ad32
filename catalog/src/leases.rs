//! What live processes hold for a while: periodic tasks, each with one owner, and slices of a server's connections.
//!
//! Called by the control plane's periodic tasks and by whoever shares a server's connections. A lease that is not
//! renewed runs out by itself: nobody has to notice that its owner died. Times come from the transaction.

use crate::db::{ReadTx, WriteTx};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::ServerId;
use crate::row;

const TASK: &str = "task";
const CONNECTIONS: &str = "connections";

/// A process's share of a server's connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    /// The process.
    pub owner: String,
    /// How many connections it may open.
    pub amount: i64,
    /// Until when, milliseconds since 1970.
    pub until: i64,
}

/// Takes or renews a task until that moment; `false`: another process holds it.
///
/// # Errors
/// `Unavailable`.
pub async fn take_task(tx: &mut WriteTx, name: &str, owner: &str, until: i64) -> Result<bool> {
    let now = tx.now();
    let sql = "select 1 as found from leases where kind = $1 and name = $2 and owner <> $3 and until > $4 limit 1";
    let sql = sqlx::query(sql).bind(TASK).bind(name.to_owned()).bind(owner.to_owned()).bind(now);
    if tx.one(sql).await?.is_some() {
        return Ok(false);
    }
    let sql = sqlx::query("delete from leases where kind = $1 and name = $2 and owner <> $3");
    tx.run(sql.bind(TASK).bind(name.to_owned()).bind(owner.to_owned())).await?;
    put(tx, TASK, name, owner, 1, until).await?;
    Ok(true)
}

/// Gives a task back before its time; nothing happens where `owner` does not hold it.
///
/// # Errors
/// `Unavailable`.
pub async fn release_task(tx: &mut WriteTx, name: &str, owner: &str) -> Result<()> {
    remove(tx, TASK, name, owner).await
}

/// The live slices of a server, by owner.
///
/// # Errors
/// `Unavailable`.
pub async fn slices(tx: &mut ReadTx, server: ServerId) -> Result<Vec<Slice>> {
    let now = tx.now();
    let sql = "select owner, amount, until from leases where kind = $1 and name = $2 and until > $3 order by owner";
    let rows = tx.all(sqlx::query(sql).bind(CONNECTIONS).bind(server.to_string()).bind(now)).await?;
    rows.iter()
        .map(|row| {
            let (amount, until) = (row::int(row, "amount")?, row::int(row, "until")?);
            Ok(Slice { owner: row::text(row, "owner")?, amount, until })
        })
        .collect()
}

/// Sets or renews a process's slice. The caller has looked at the others in this transaction: the sum is its affair.
///
/// # Errors
/// `Invalid` when `amount` is negative.
pub async fn set_slice(tx: &mut WriteTx, server: ServerId, owner: &str, amount: i64, until: i64) -> Result<()> {
    if amount < 0 {
        return Err(Error::new(ErrorKind::Invalid, "a slice of connections cannot be negative"));
    }
    put(tx, CONNECTIONS, &server.to_string(), owner, amount, until).await
}

/// Gives a slice back before its time.
///
/// # Errors
/// `Unavailable`.
pub async fn drop_slice(tx: &mut WriteTx, server: ServerId, owner: &str) -> Result<()> {
    remove(tx, CONNECTIONS, &server.to_string(), owner).await
}

/// Forgets what ran out; returns how many. Nothing depends on it but the table's size.
///
/// # Errors
/// `Unavailable`.
pub async fn expire(tx: &mut WriteTx) -> Result<i64> {
    let now = tx.now();
    tx.run(sqlx::query("delete from leases where until <= $1").bind(now)).await
}

async fn put(tx: &mut WriteTx, kind: &str, name: &str, owner: &str, amount: i64, until: i64) -> Result<()> {
    let sql = "insert into leases (kind, name, owner, amount, until) values ($1, $2, $3, $4, $5) \
               on conflict (kind, name, owner) do update set amount = excluded.amount, until = excluded.until";
    let sql = sqlx::query(sql).bind(kind.to_owned()).bind(name.to_owned()).bind(owner.to_owned());
    tx.run(sql.bind(amount).bind(until)).await.map(|_| ())
}

async fn remove(tx: &mut WriteTx, kind: &str, name: &str, owner: &str) -> Result<()> {
    let sql = sqlx::query("delete from leases where kind = $1 and name = $2 and owner = $3");
    tx.run(sql.bind(kind.to_owned()).bind(name.to_owned()).bind(owner.to_owned())).await.map(|_| ())
}
