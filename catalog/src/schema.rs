//! Applies `migrations/catalog` to a catalog, and refuses a catalog whose schema is newer than this program.
//!
//! Runs in one write transaction, so processes that open a catalog at the same time take turns.

use aws_lc_rs::digest;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};

use crate::error::{Error, ErrorKind, Result};
use crate::error_mapping;
use crate::ids::FleetId;
use crate::opener::CatalogOpener;
use crate::row;
use crate::seal::{SecretSealer, lower_hex};

/// One file of `migrations/catalog`.
struct CatalogMigration {
    version: i64,
    name: &'static str,
    sql: &'static str,
}

/// All files, in order. A released file is never changed.
const MIGRATIONS: &[CatalogMigration] = &[
    CatalogMigration { version: 1, name: "catalog", sql: include_str!("../../migrations/catalog/0001_catalog.sql") },
    CatalogMigration { version: 2, name: "postgres", sql: include_str!("../../migrations/catalog/0002_postgres.sql") },
    CatalogMigration {
        version: 3,
        name: "sequences",
        sql: include_str!("../../migrations/catalog/0003_sequences.sql"),
    },
    CatalogMigration {
        version: 4,
        name: "backup_proof",
        sql: include_str!("../../migrations/catalog/0004_backup_proof.sql"),
    },
    CatalogMigration {
        version: 5,
        name: "step_deaths",
        sql: include_str!("../../migrations/catalog/0005_step_deaths.sql"),
    },
    CatalogMigration {
        version: 6,
        name: "skipped_steps",
        sql: include_str!("../../migrations/catalog/0006_skipped_steps.sql"),
    },
    CatalogMigration { version: 7, name: "pins", sql: include_str!("../../migrations/catalog/0007_pins.sql") },
    CatalogMigration {
        version: 8,
        name: "ledger_release",
        sql: include_str!("../../migrations/catalog/0008_ledger_release.sql"),
    },
    CatalogMigration {
        version: 9,
        name: "steady_time",
        sql: include_str!("../../migrations/catalog/0009_steady_time.sql"),
    },
    CatalogMigration { version: 10, name: "history", sql: include_str!("../../migrations/catalog/0010_history.sql") },
    CatalogMigration {
        version: 11,
        name: "catalog_copies",
        sql: include_str!("../../migrations/catalog/0011_catalog_copies.sql"),
    },
    CatalogMigration {
        version: 12,
        name: "data_directory",
        sql: include_str!("../../migrations/catalog/0012_data_directory.sql"),
    },
    CatalogMigration { version: 13, name: "claims", sql: include_str!("../../migrations/catalog/0013_claims.sql") },
    CatalogMigration {
        version: 14,
        name: "backup_stores",
        sql: include_str!("../../migrations/catalog/0014_backup_stores.sql"),
    },
    CatalogMigration {
        version: 15,
        name: "idempotency_owner",
        sql: include_str!("../../migrations/catalog/0015_idempotency_owner.sql"),
    },
    CatalogMigration {
        version: 16,
        name: "directory_mark",
        sql: include_str!("../../migrations/catalog/0016_directory_mark.sql"),
    },
    CatalogMigration {
        version: 17,
        name: "replacements",
        sql: include_str!("../../migrations/catalog/0017_replacements.sql"),
    },
    CatalogMigration {
        version: 18,
        name: "explicit_state",
        sql: include_str!("../../migrations/catalog/0018_explicit_state.sql"),
    },
    CatalogMigration { version: 19, name: "domains", sql: include_str!("../../migrations/catalog/0019_domains.sql") },
    CatalogMigration {
        version: 20,
        name: "impersonation",
        sql: include_str!("../../migrations/catalog/0020_impersonation.sql"),
    },
    CatalogMigration {
        version: 21,
        name: "job_queues",
        sql: include_str!("../../migrations/catalog/0021_job_queues.sql"),
    },
    CatalogMigration {
        version: 22,
        name: "external_accounts",
        sql: include_str!("../../migrations/catalog/0022_external_accounts.sql"),
    },
    CatalogMigration { version: 23, name: "webhooks", sql: include_str!("../../migrations/catalog/0023_webhooks.sql") },
    CatalogMigration { version: 24, name: "topics", sql: include_str!("../../migrations/catalog/0024_topics.sql") },
    CatalogMigration { version: 25, name: "plans", sql: include_str!("../../migrations/catalog/0025_plans.sql") },
];

const LEDGER: &str = "create table _catalog_migrations (version bigint not null primary key, \
    name text not null, checksum text not null, applied_at bigint not null)";

/// The text that is sealed into the fleet's row: only the catalog's own key can decrypt it.
const KEY_CHECK: &[u8] = b"this key belongs to this catalog";

/// Whether a location without a catalog is an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CatalogOpenMode {
    /// Create a catalog.
    Create,
    /// Fail with `NotInitialised`.
    Open,
}

/// Creates or updates the schema and the fleet row, checks the key, and returns the fleet's id.
pub(crate) async fn prepare_schema(
    opener: &CatalogOpener,
    db: &mut AnyConnection,
    sealer: &SecretSealer,
    now: i64,
    start: CatalogOpenMode,
) -> Result<FleetId> {
    let tables = opener.table_names(db).await?;
    if !is_catalog(&tables) {
        begin_ledger(db, &tables, start).await?;
    }
    let applied = applied_migrations(db).await?;
    check_ledger(&applied, MIGRATIONS)?;
    for migration in MIGRATIONS.iter().skip(applied.len()) {
        apply_migration(db, migration, now).await?;
    }
    if applied.len() < MIGRATIONS.len() {
        opener.order_bytewise(db).await?;
    }
    ensure_fleet(db, sealer, now, start).await
}

/// True when these are the tables of a catalog.
pub(crate) fn is_catalog(tables: &[String]) -> bool {
    tables.iter().any(|table| table == "_catalog_migrations")
}

/// Creates the empty tables of a new catalog, to be filled from another one.
pub(crate) async fn create_tables(opener: &CatalogOpener, db: &mut AnyConnection) -> Result<()> {
    sqlx::raw_sql(LEDGER).execute(&mut *db).await.map_err(error_mapping::catalog_error)?;
    for migration in MIGRATIONS {
        sqlx::raw_sql(migration.sql).execute(&mut *db).await.map_err(error_mapping::catalog_error)?;
    }
    opener.order_bytewise(db).await
}

async fn begin_ledger(db: &mut AnyConnection, tables: &[String], start: CatalogOpenMode) -> Result<()> {
    if !tables.is_empty() {
        return Err(Error::new(ErrorKind::Corrupt, "this is a database, but not a catalog"));
    }
    if start == CatalogOpenMode::Open {
        return Err(Error::new(ErrorKind::NotInitialised, "there is no catalog yet: run `fleetctl init` first"));
    }
    sqlx::raw_sql(LEDGER).execute(db).await.map_err(error_mapping::catalog_error)?;
    Ok(())
}

async fn applied_migrations(db: &mut AnyConnection) -> Result<Vec<(i64, String)>> {
    let rows: Vec<AnyRow> = sqlx::query("select version, checksum from _catalog_migrations order by version")
        .fetch_all(db)
        .await
        .map_err(error_mapping::catalog_error)?;
    rows.iter().map(|row| Ok((row::int_column(row, "version")?, row::text_column(row, "checksum")?))).collect()
}

/// The applied migrations must be a prefix of those that this program knows.
fn check_ledger(applied: &[(i64, String)], known: &[CatalogMigration]) -> Result<()> {
    let newest_known = known.last().map_or(0, |migration| migration.version);
    if let Some((version, _)) = applied.last().filter(|(version, _)| *version > newest_known) {
        let message = format!(
            "the catalog's schema is at version {version}, this program knows up to {newest_known}: use a newer fleetctl"
        );
        return Err(Error::new(ErrorKind::SchemaNewer, message));
    }
    for (index, (version, found)) in applied.iter().enumerate() {
        let migration = known.get(index).filter(|migration| migration.version == *version);
        if migration.is_none_or(|migration| sql_checksum(migration.sql) != *found) {
            let message = format!("the catalog's schema version {version} was not made by a release of this program");
            return Err(Error::new(ErrorKind::Corrupt, message));
        }
    }
    Ok(())
}

async fn apply_migration(db: &mut AnyConnection, migration: &CatalogMigration, now: i64) -> Result<()> {
    sqlx::raw_sql(migration.sql).execute(&mut *db).await.map_err(error_mapping::catalog_error)?;
    sqlx::query("insert into _catalog_migrations (version, name, checksum, applied_at) values ($1, $2, $3, $4)")
        .bind(migration.version)
        .bind(migration.name)
        .bind(sql_checksum(migration.sql))
        .bind(now)
        .execute(db)
        .await
        .map_err(error_mapping::catalog_error)?;
    Ok(())
}

fn sql_checksum(sql: &str) -> String {
    lower_hex(digest::digest(&digest::SHA256, sql.as_bytes()).as_ref())
}

async fn ensure_fleet(
    db: &mut AnyConnection,
    sealer: &SecretSealer,
    now: i64,
    start: CatalogOpenMode,
) -> Result<FleetId> {
    let rows = sqlx::query("select id, key_check from fleet where one = 1")
        .fetch_all(&mut *db)
        .await
        .map_err(error_mapping::catalog_error)?;
    match (rows.first(), start) {
        (Some(row), _) => known_fleet(row, sealer),
        (None, CatalogOpenMode::Create) => new_fleet(db, sealer, now).await,
        (None, CatalogOpenMode::Open) => {
            Err(Error::new(ErrorKind::Corrupt, "the catalog has no fleet: its creation was not finished"))
        }
    }
}

fn known_fleet(row: &AnyRow, sealer: &SecretSealer) -> Result<FleetId> {
    let id: FleetId = row::parsed_column(row, "id")?;
    let sealed: &str = row.try_get("key_check").map_err(error_mapping::catalog_error)?;
    sealer.open_sealed(("fleet", "key_check", &id.to_string()), sealed)?;
    Ok(id)
}

/// A value that later proves that a key belongs to this fleet.
pub(crate) fn key_check(sealer: &SecretSealer, fleet: FleetId) -> String {
    sealer.seal_value(("fleet", "key_check", &fleet.to_string()), KEY_CHECK)
}

async fn new_fleet(db: &mut AnyConnection, sealer: &SecretSealer, now: i64) -> Result<FleetId> {
    let id = FleetId::generate();
    sqlx::query("insert into fleet (one, id, created_at, steady_at, key_check) values (1, $1, $2, $2, $3)")
        .bind(id.to_string())
        .bind(now)
        .bind(key_check(sealer, id))
        .execute(db)
        .await
        .map_err(error_mapping::catalog_error)?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &[CatalogMigration] = &[
        CatalogMigration { version: 1, name: "a", sql: "one" },
        CatalogMigration { version: 2, name: "b", sql: "two" },
    ];

    fn ledger(entries: &[(i64, &str)]) -> Vec<(i64, String)> {
        entries.iter().map(|(version, sql)| (*version, sql_checksum(sql))).collect()
    }

    #[test]
    fn a_beginning_of_what_is_known_is_fine() {
        for entries in [&[][..], &[(1, "one")], &[(1, "one"), (2, "two")]] {
            check_ledger(&ledger(entries), TWO).unwrap();
        }
    }

    #[test]
    fn a_newer_schema_names_both_versions() {
        let error = check_ledger(&ledger(&[(1, "one"), (2, "two"), (3, "three")]), TWO).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::SchemaNewer);
        assert!(error.to_string().contains("version 3") && error.to_string().contains("up to 2"), "{error}");
    }

    #[test]
    fn a_changed_or_missing_file_is_corrupt() {
        for entries in [&[(1, "other")][..], &[(2, "two")]] {
            assert_eq!(check_ledger(&ledger(entries), TWO).unwrap_err().kind(), ErrorKind::Corrupt);
        }
    }

    #[test]
    fn versions_rise_one_by_one() {
        for (index, migration) in MIGRATIONS.iter().enumerate() {
            assert_eq!(usize::try_from(migration.version).unwrap(), index + 1, "{}", migration.name);
        }
    }
}
