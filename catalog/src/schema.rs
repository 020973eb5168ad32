//! Applies `migrations/catalog` to a catalog and refuses one whose schema is newer than this program.
//!
//! Runs inside one write transaction, so several processes that open a catalog at once do it one after the other.

use aws_lc_rs::digest;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};

use crate::error::{Error, ErrorKind, Result};
use crate::fault;
use crate::ids::FleetId;
use crate::opener::Opener;
use crate::row;
use crate::seal::{Sealer, hex};

/// One file of `migrations/catalog`.
struct Migration {
    version: i64,
    name: &'static str,
    sql: &'static str,
}

/// Every file, in order. A released one is never changed.
const MIGRATIONS: &[Migration] = &[
    Migration { version: 1, name: "catalog", sql: include_str!("../../migrations/catalog/0001_catalog.sql") },
    Migration { version: 2, name: "postgres", sql: include_str!("../../migrations/catalog/0002_postgres.sql") },
    Migration { version: 3, name: "sequences", sql: include_str!("../../migrations/catalog/0003_sequences.sql") },
    Migration { version: 4, name: "backup_proof", sql: include_str!("../../migrations/catalog/0004_backup_proof.sql") },
    Migration { version: 5, name: "step_deaths", sql: include_str!("../../migrations/catalog/0005_step_deaths.sql") },
    Migration {
        version: 6,
        name: "skipped_steps",
        sql: include_str!("../../migrations/catalog/0006_skipped_steps.sql"),
    },
    Migration { version: 7, name: "pins", sql: include_str!("../../migrations/catalog/0007_pins.sql") },
    Migration {
        version: 8,
        name: "ledger_release",
        sql: include_str!("../../migrations/catalog/0008_ledger_release.sql"),
    },
    Migration { version: 9, name: "steady_time", sql: include_str!("../../migrations/catalog/0009_steady_time.sql") },
    Migration { version: 10, name: "history", sql: include_str!("../../migrations/catalog/0010_history.sql") },
    Migration {
        version: 11,
        name: "catalog_copies",
        sql: include_str!("../../migrations/catalog/0011_catalog_copies.sql"),
    },
    Migration {
        version: 12,
        name: "data_directory",
        sql: include_str!("../../migrations/catalog/0012_data_directory.sql"),
    },
];

const LEDGER: &str = "create table _catalog_migrations (version bigint not null primary key, \
    name text not null, checksum text not null, applied_at bigint not null)";

/// What is sealed into the fleet's row: opens only with the catalog's own key.
const KEY_CHECK: &[u8] = b"this key belongs to this catalog";

/// Whether a place without a catalog is an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// Make one.
    Create,
    /// Say so.
    Open,
}

/// Brings schema and fleet row into being or up to date, checks the key, and returns the fleet's id.
pub(crate) async fn settle(
    opener: &Opener,
    db: &mut AnyConnection,
    sealer: &Sealer,
    now: i64,
    start: Start,
) -> Result<FleetId> {
    let tables = opener.tables(db).await?;
    if !is_catalog(&tables) {
        begin_ledger(db, &tables, start).await?;
    }
    let applied = applied(db).await?;
    check(&applied, MIGRATIONS)?;
    for migration in MIGRATIONS.iter().skip(applied.len()) {
        apply(db, migration, now).await?;
    }
    if applied.len() < MIGRATIONS.len() {
        opener.order_bytewise(db).await?;
    }
    fleet(db, sealer, now, start).await
}

/// Whether these are the tables of a catalog.
pub(crate) fn is_catalog(tables: &[String]) -> bool {
    tables.iter().any(|table| table == "_catalog_migrations")
}

/// Makes the tables of a new catalog, all of them empty: what they will hold comes from elsewhere.
pub(crate) async fn make(opener: &Opener, db: &mut AnyConnection) -> Result<()> {
    sqlx::raw_sql(LEDGER).execute(&mut *db).await.map_err(fault::of)?;
    for migration in MIGRATIONS {
        sqlx::raw_sql(migration.sql).execute(&mut *db).await.map_err(fault::of)?;
    }
    opener.order_bytewise(db).await
}

async fn begin_ledger(db: &mut AnyConnection, tables: &[String], start: Start) -> Result<()> {
    if !tables.is_empty() {
        return Err(Error::new(ErrorKind::Corrupt, "this is a database, but not a catalog"));
    }
    if start == Start::Open {
        return Err(Error::new(ErrorKind::NotInitialised, "there is no catalog yet: run `fleetctl init` first"));
    }
    sqlx::raw_sql(LEDGER).execute(db).await.map_err(fault::of)?;
    Ok(())
}

async fn applied(db: &mut AnyConnection) -> Result<Vec<(i64, String)>> {
    let rows: Vec<AnyRow> = sqlx::query("select version, checksum from _catalog_migrations order by version")
        .fetch_all(db)
        .await
        .map_err(fault::of)?;
    rows.iter().map(|row| Ok((row::int(row, "version")?, row::text(row, "checksum")?))).collect()
}

/// The ledger must be a beginning of what this program knows.
fn check(applied: &[(i64, String)], known: &[Migration]) -> Result<()> {
    let newest_known = known.last().map_or(0, |migration| migration.version);
    if let Some((version, _)) = applied.last().filter(|(version, _)| *version > newest_known) {
        let message = format!(
            "the catalog's schema is at version {version}, this program knows up to {newest_known}: use a newer fleetctl"
        );
        return Err(Error::new(ErrorKind::SchemaNewer, message));
    }
    for (index, (version, found)) in applied.iter().enumerate() {
        let migration = known.get(index).filter(|migration| migration.version == *version);
        if migration.is_none_or(|migration| checksum(migration.sql) != *found) {
            let message = format!("the catalog's schema version {version} was not made by a release of this program");
            return Err(Error::new(ErrorKind::Corrupt, message));
        }
    }
    Ok(())
}

async fn apply(db: &mut AnyConnection, migration: &Migration, now: i64) -> Result<()> {
    sqlx::raw_sql(migration.sql).execute(&mut *db).await.map_err(fault::of)?;
    sqlx::query("insert into _catalog_migrations (version, name, checksum, applied_at) values ($1, $2, $3, $4)")
        .bind(migration.version)
        .bind(migration.name)
        .bind(checksum(migration.sql))
        .bind(now)
        .execute(db)
        .await
        .map_err(fault::of)?;
    Ok(())
}

fn checksum(sql: &str) -> String {
    hex(digest::digest(&digest::SHA256, sql.as_bytes()).as_ref())
}

async fn fleet(db: &mut AnyConnection, sealer: &Sealer, now: i64, start: Start) -> Result<FleetId> {
    let rows =
        sqlx::query("select id, key_check from fleet where one = 1").fetch_all(&mut *db).await.map_err(fault::of)?;
    match (rows.first(), start) {
        (Some(row), _) => known_fleet(row, sealer),
        (None, Start::Create) => new_fleet(db, sealer, now).await,
        (None, Start::Open) => Err(Error::new(ErrorKind::Corrupt, "the catalog has no fleet: it was never finished")),
    }
}

fn known_fleet(row: &AnyRow, sealer: &Sealer) -> Result<FleetId> {
    let id: FleetId = row::parsed(row, "id")?;
    let sealed: &str = row.try_get("key_check").map_err(fault::of)?;
    sealer.open(("fleet", "key_check", &id.to_string()), sealed)?;
    Ok(id)
}

async fn new_fleet(db: &mut AnyConnection, sealer: &Sealer, now: i64) -> Result<FleetId> {
    let id = FleetId::generate();
    sqlx::query("insert into fleet (one, id, created_at, steady_at, key_check) values (1, $1, $2, $2, $3)")
        .bind(id.to_string())
        .bind(now)
        .bind(sealer.seal(("fleet", "key_check", &id.to_string()), KEY_CHECK))
        .execute(db)
        .await
        .map_err(fault::of)?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &[Migration] =
        &[Migration { version: 1, name: "a", sql: "one" }, Migration { version: 2, name: "b", sql: "two" }];

    fn ledger(entries: &[(i64, &str)]) -> Vec<(i64, String)> {
        entries.iter().map(|(version, sql)| (*version, checksum(sql))).collect()
    }

    #[test]
    fn a_beginning_of_what_is_known_is_fine() {
        for entries in [&[][..], &[(1, "one")], &[(1, "one"), (2, "two")]] {
            check(&ledger(entries), TWO).unwrap();
        }
    }

    #[test]
    fn a_newer_schema_names_both_versions() {
        let error = check(&ledger(&[(1, "one"), (2, "two"), (3, "three")]), TWO).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::SchemaNewer);
        assert!(error.to_string().contains("version 3") && error.to_string().contains("up to 2"), "{error}");
    }

    #[test]
    fn a_changed_or_missing_file_is_corrupt() {
        for entries in [&[(1, "other")][..], &[(2, "two")]] {
            assert_eq!(check(&ledger(entries), TWO).unwrap_err().kind(), ErrorKind::Corrupt);
        }
    }

    #[test]
    fn versions_rise_one_by_one() {
        for (index, migration) in MIGRATIONS.iter().enumerate() {
            assert_eq!(usize::try_from(migration.version).unwrap(), index + 1, "{}", migration.name);
        }
    }
}
