//! Tenant files to measure on: about 100 KB each, in WAL mode, stamped.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rusqlite::Connection;
use tenant_engine::{ExpectedIdentity, FleetId, Generation, IdentityState, Placement, TenantId};

/// Rows of the table `item(id integer primary key, title text, body text)` in each file.
pub const ROWS: i64 = 500;

/// One tenant's file.
#[derive(Debug, Clone)]
pub struct Tenant {
    /// Where it is.
    pub at: Placement,
    /// What its identity row says.
    pub expected: ExpectedIdentity,
}

impl Tenant {
    /// The file itself, for the side that does not use the engine.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.at.file_path()
    }
}

/// Makes `count` files below `root`.
///
/// # Errors
/// When a file cannot be made.
pub fn make(root: &Path, count: usize) -> Result<Vec<Tenant>> {
    let fleet = FleetId::generate();
    (0..count).map(|_| make_one(root, fleet, TenantId::generate(), Generation::FIRST)).collect()
}

/// Makes the file of a tenant that a catalog knows.
///
/// # Errors
/// When the file cannot be made.
pub fn make_one(root: &Path, fleet: FleetId, tenant: TenantId, generation: Generation) -> Result<Tenant> {
    let at = Placement::new_sqlite(root, tenant, generation, 1);
    let expected = ExpectedIdentity { tenant, fleet, generation, states: vec![IdentityState::Active] };
    std::fs::create_dir_all(at.file_path().parent().context("a placement has a folder")?)?;
    let mut db = Connection::open(at.file_path())?;
    db.execute_batch("pragma journal_mode = wal; pragma synchronous = off")?;
    let tx = db.transaction()?;
    tx.execute_batch(
        "create table _fleet_identity(one integer primary key check(one = 1), tenant_id text not null,
           fleet_id text not null, generation integer not null, state text not null, op_id text,
           stamped_at integer not null) strict;
         create table item(id integer primary key, title text not null, body text not null);",
    )?;
    tx.execute(
        "insert into _fleet_identity values(1, ?1, ?2, ?3, 'active', null, 0)",
        (tenant.to_string(), fleet.to_string(), generation.0),
    )?;
    for id in 1..=ROWS {
        tx.execute("insert into item values(?1, ?2, ?3)", (id, format!("item {id}"), "x".repeat(150)))?;
    }
    tx.commit()?;
    Ok(Tenant { at, expected })
}
