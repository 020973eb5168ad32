//! The identity row in a SQLite file. The only module that names `_fleet_identity` in SQL.
//!
//! Called inside the transaction of every request (by `requests/session.rs`, through [`IdentityFence`]) and of every
//! engine operation.

use std::str::FromStr;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row, params};

use super::error::from_sqlite;
use crate::error::{Error, ErrorKind, Result};
use crate::identity::{ExpectedIdentity, Identity, IdentityState};
use crate::ids::{Generation, ParseIdError};

/// The prefix of this program's own statements that a cache may hold. Tenant SQL may not begin like this: the statement
/// cache is keyed by text, and a cached statement has already passed the sandbox.
pub(crate) const INTERNAL: &str = "/*fleet*/";

const READ: &str = "/*fleet*/ select tenant_id, fleet_id, generation, state, op_id, stamped_at \
                    from main._fleet_identity where one = 1";

/// Creates the table, without the row.
///
/// # Errors
/// SQLite's, for instance when the table exists.
pub(crate) fn create_table(db: &Connection) -> Result<()> {
    db.execute_batch(
        "create table main._fleet_identity(
           one integer primary key check(one = 1),
           tenant_id text not null,
           fleet_id text not null,
           generation integer not null,
           state text not null,
           op_id text,
           stamped_at integer not null
         ) strict",
    )
    .map_err(from_sqlite)
}

/// Writes or replaces the row.
///
/// # Errors
/// SQLite's.
pub(crate) fn write_identity(db: &Connection, identity: &Identity) -> Result<()> {
    db.execute(
        "insert or replace into main._fleet_identity(one, tenant_id, fleet_id, generation, state, op_id, stamped_at)
         values (1, ?1, ?2, ?3, ?4, ?5, ?6)",
        params![
            identity.tenant.to_string(),
            identity.fleet.to_string(),
            identity.generation.0,
            identity.state.as_str(),
            identity.op.map(|op| op.to_string()),
            identity.stamped_at
        ],
    )
    .map_err(from_sqlite)?;
    Ok(())
}

/// Reads the row, in the open transaction of `db`.
///
/// # Errors
/// [`ErrorKind::WrongTenant`] when there is no such table or row: a database without a stamp belongs to no fleet.
/// [`ErrorKind::Corrupt`] when the row is not valid; otherwise SQLite's.
pub(crate) fn read_identity(db: &Connection) -> Result<Identity> {
    with_row(db, parse_identity)
}

/// An [`ExpectedIdentity`] in the form of the row, so that comparing needs no parsing.
#[derive(Debug)]
pub(crate) struct IdentityFence {
    expected: ExpectedIdentity,
    tenant: String,
    fleet: String,
}

impl IdentityFence {
    /// Prepares the comparison.
    pub(crate) fn new(expected: ExpectedIdentity) -> Self {
        let (tenant, fleet) = (expected.tenant.to_string(), expected.fleet.to_string());
        Self { expected, tenant, fleet }
    }

    /// Reads the row in the open transaction of `db`, compares it, and returns its state.
    ///
    /// # Errors
    /// Those of [`read_identity`] and of [`ExpectedIdentity::check_identity`].
    pub(crate) fn check_row(&self, db: &Connection) -> Result<IdentityState> {
        with_row(db, |row| match self.quick_match(row) {
            Some(state) => Ok(state),
            // Something differs, so the row is parsed to report what.
            None => parse_identity(row).and_then(|found| self.expected.check_identity(&found).map(|()| found.state)),
        })
    }

    fn quick_match(&self, row: &Row<'_>) -> Option<IdentityState> {
        let is = |column, text: &str| matches!(row.get_ref(column), Ok(ValueRef::Text(t)) if t == text.as_bytes());
        let same = is(0, &self.tenant)
            && is(1, &self.fleet)
            && matches!(row.get_ref(2), Ok(ValueRef::Integer(g)) if g == self.expected.generation.0);
        self.expected.states.iter().copied().find(|state| same && is(3, state.as_str()))
    }
}

fn with_row<T>(db: &Connection, read: impl FnOnce(&Row<'_>) -> Result<T>) -> Result<T> {
    let mut statement = db.prepare_cached(READ).map_err(not_ours)?;
    let mut rows = statement.query([]).map_err(from_sqlite)?;
    match rows.next().map_err(from_sqlite)? {
        Some(row) => read(row),
        None => Err(no_identity()),
    }
}

fn not_ours(error: rusqlite::Error) -> Error {
    let error = from_sqlite(error);
    if error.kind() == ErrorKind::SqlInvalid { no_identity().with_source(error) } else { error }
}

fn no_identity() -> Error {
    Error::new(ErrorKind::WrongTenant, "the database carries no identity: it was not made by this fleet")
}

fn parse_identity(row: &Row<'_>) -> Result<Identity> {
    Ok(Identity {
        tenant: parse_column(&text_column(row, 0)?)?,
        fleet: parse_column(&text_column(row, 1)?)?,
        generation: Generation(row.get(2).map_err(corrupt_identity)?),
        state: text_column(row, 3)?.parse()?,
        op: row.get::<_, Option<String>>(4).map_err(corrupt_identity)?.as_deref().map(parse_column).transpose()?,
        stamped_at: row.get(5).map_err(corrupt_identity)?,
    })
}

fn text_column(row: &Row<'_>, column: usize) -> Result<String> {
    row.get(column).map_err(corrupt_identity)
}

fn parse_column<T: FromStr<Err = ParseIdError>>(text: &str) -> Result<T> {
    text.parse().map_err(corrupt_identity)
}

fn corrupt_identity(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Corrupt, format!("the identity row is not valid: {error}")).with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{FleetId, OperationId, TenantId};

    fn stamped(identity: &Identity) -> Connection {
        let db = Connection::open_in_memory().unwrap();
        create_table(&db).unwrap();
        write_identity(&db, identity).unwrap();
        db
    }

    fn identity(op: Option<OperationId>) -> Identity {
        Identity {
            tenant: TenantId::generate(),
            fleet: FleetId::generate(),
            generation: Generation(7),
            state: IdentityState::Active,
            op,
            stamped_at: 1_700_000_000_000,
        }
    }

    fn fence(identity: &Identity, states: &[IdentityState]) -> IdentityFence {
        IdentityFence::new(ExpectedIdentity {
            tenant: identity.tenant,
            fleet: identity.fleet,
            generation: identity.generation,
            states: states.to_vec(),
        })
    }

    #[test]
    fn what_is_written_is_read() {
        for op in [None, Some(OperationId::generate())] {
            let identity = identity(op);
            let db = stamped(&identity);
            assert_eq!(read_identity(&db).unwrap(), identity);
            let next = Identity { generation: Generation(8), state: IdentityState::Frozen, ..identity };
            write_identity(&db, &next).unwrap();
            assert_eq!(read_identity(&db).unwrap(), next);
        }
    }

    #[test]
    fn the_quick_comparison_agrees_with_the_slow_one() {
        let right = identity(None);
        let states = [IdentityState::Active, IdentityState::Frozen];
        let fence = fence(&right, &states);
        let found = [
            right.clone(),
            Identity { tenant: TenantId::generate(), ..right.clone() },
            Identity { fleet: FleetId::generate(), ..right.clone() },
            Identity { generation: Generation(8), ..right.clone() },
            Identity { generation: Generation(6), ..right.clone() },
            Identity { state: IdentityState::Frozen, ..right.clone() },
            Identity { state: IdentityState::Tombstone, ..right.clone() },
        ];
        for found in found {
            let quick = fence.check_row(&stamped(&found)).map_err(|e| e.kind());
            let slow = fence.expected.check_identity(&found).map(|()| found.state).map_err(|e| e.kind());
            assert_eq!(quick, slow, "{found:?}");
        }
    }

    #[test]
    fn a_database_without_identity_is_refused() {
        let db = Connection::open_in_memory().unwrap();
        assert_eq!(read_identity(&db).unwrap_err().kind(), ErrorKind::WrongTenant);
        create_table(&db).unwrap();
        assert_eq!(read_identity(&db).unwrap_err().kind(), ErrorKind::WrongTenant);
    }

    #[test]
    fn a_senseless_row_is_corrupt() {
        let db = stamped(&identity(None));
        for change in ["tenant_id = 'acme'", "fleet_id = ''", "state = 'melted'", "op_id = 'x'"] {
            db.execute_batch("savepoint s").unwrap();
            db.execute_batch(&format!("update _fleet_identity set {change}")).unwrap();
            assert_eq!(read_identity(&db).unwrap_err().kind(), ErrorKind::Corrupt, "{change}");
            db.execute_batch("rollback to s; release s").unwrap();
        }
    }
}
