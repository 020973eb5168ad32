//! A limit on the memory that SQLite takes in this process, for all tenants and the catalog together.
//!
//! The memory of one statement is bounded (`requests/sandbox.rs`, `functions/`), and so is the number of heavy
//! statements that run (`requests/workers.rs`). This limit is the last protection: a statement that finds no memory
//! fails and is rolled back, and the process continues. Before that, page caches are released. Called once, when the
//! engine starts.

use rusqlite::Connection;
use rustix::system::sysinfo;

use crate::error::{Error, ErrorKind, Result};
use crate::sqlite::error::from_sqlite;

/// The part of the machine's memory that SQLite may take. The rest is for answers, stacks and the operating system's
/// cache.
const SHARE: (u64, u64) = (1, 2);

/// Less memory would not hold the caches of a few hundred connections.
const HEAP_BYTES_MIN: u64 = 256 << 20;

/// Above this part of the limit, page caches are released first.
const SOFT_SHARE: (u64, u64) = (3, 4);

/// The files in which a control group, of either version, reports its memory limit.
const GROUP_LIMITS: [&str; 2] = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];

/// Sets the limit, or one derived from the machine's memory. It can only be lowered while the process runs.
///
/// # Errors
/// When it is less than [`HEAP_BYTES_MIN`]; otherwise SQLite's.
pub(in crate::sqlite) fn limit_heap(bytes_max: Option<u64>) -> Result<()> {
    let hard = bytes_max.unwrap_or_else(|| hard_limit(memory_bytes()));
    if hard < HEAP_BYTES_MIN {
        let message = format!("SQLite cannot work with {hard} bytes of memory: allow at least {HEAP_BYTES_MIN}");
        return Err(Error::new(ErrorKind::Internal, message));
    }
    let soft = hard / SOFT_SHARE.1 * SOFT_SHARE.0;
    let db = Connection::open_in_memory().map_err(from_sqlite)?;
    for pragma in [format!("pragma hard_heap_limit = {hard}"), format!("pragma soft_heap_limit = {soft}")] {
        db.query_row(&pragma, [], |_| Ok(())).map_err(from_sqlite)?;
    }
    Ok(())
}

/// PURE: the limit for a machine with `memory` bytes.
fn hard_limit(memory: u64) -> u64 {
    (memory / SHARE.1 * SHARE.0).max(HEAP_BYTES_MIN)
}

/// Memory of the machine, or of this process's control group if that is less.
fn memory_bytes() -> u64 {
    let info = sysinfo();
    let machine = info.totalram.saturating_mul(u64::from(info.mem_unit));
    let groups = GROUP_LIMITS.iter().filter_map(|path| std::fs::read_to_string(path).ok()?.trim().parse().ok());
    groups.fold(machine, u64::min)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_half_of_the_memory_and_set_once() {
        assert_eq!(hard_limit(8 << 30), 4 << 30);
        assert_eq!(hard_limit(100 << 20), HEAP_BYTES_MIN);
        assert!(limit_heap(Some(HEAP_BYTES_MIN - 1)).is_err());
        limit_heap(None).unwrap();
        let db = Connection::open_in_memory().unwrap();
        let set: i64 = db.query_row("pragma hard_heap_limit", [], |row| row.get(0)).unwrap();
        assert_eq!(u64::try_from(set).unwrap(), hard_limit(memory_bytes()));
        limit_heap(Some(HEAP_BYTES_MIN)).unwrap();
        let set: i64 = db.query_row("pragma hard_heap_limit", [], |row| row.get(0)).unwrap();
        assert_eq!(u64::try_from(set).unwrap(), HEAP_BYTES_MIN);
    }
}
