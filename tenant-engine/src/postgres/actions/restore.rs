//! Implements [`crate::Engine::restore_database`]: turns a dump into a database at a new placement, or leaves nothing.
//!
//! Everything that can be wrong with the dump is checked before anything is made: its table of contents, whose data it
//! is, and every byte once. Then an empty database gets the layout and the rights of every tenant database.
//! `dumps/load.rs` fills it, and the identity comes last.

use std::path::Path;

use super::inspect::single_count;
use super::provision;
use crate::TenantId;
use crate::error::{Error, ErrorKind, Result};
use crate::identity::Identity;
use crate::migration::LedgerName;
use crate::placement::Placement;
use crate::postgres::dumps::load::{DumpContents, DumpLoad};
use crate::postgres::dumps::{archive, contents, objects};
use crate::postgres::migrations::{layout, ledger};
use crate::postgres::servers::admin_connection::AdminConnection;
use crate::postgres::servers::database::{self, DatabaseCreation, PlacementContents};
use crate::postgres::servers::migrator;
use crate::postgres::servers::own_tables;
use crate::postgres::servers::prepare;
use crate::postgres::servers::server_state::PostgresServerState;
use crate::postgres::{PostgresEngine, identity};
use crate::snapshot::{RestoreOutcome, SnapshotImage};

/// See [`crate::Engine::restore_database`].
pub(in crate::postgres) async fn restore_database(
    engine: &PostgresEngine,
    at: &Placement,
    image: SnapshotImage,
    source: TenantId,
    identity: &Identity,
) -> Result<RestoreOutcome> {
    let (site, _) = engine.locate_placement(at)?;
    let _slot = site.slot_with_program().await?;
    let dump = archive::on_disk(image, engine.scratch_directory()).await?;
    let contents = contents::examine_dump(engine.postgres_tools(), &dump, source).await?;
    archive::give_search_path(&dump).await?;
    from_dump(engine, at, (&dump, &contents), identity).await
}

/// Fills a placement from an examined dump; the caller holds a slot of the server.
pub(super) async fn from_dump(
    engine: &PostgresEngine,
    at: &Placement,
    (dump, contents): (&Path, &DumpContents),
    identity: &Identity,
) -> Result<RestoreOutcome> {
    let (site, database) = engine.locate_placement(at)?;
    prepare::ensure_roles(&site).await?;
    match database::inspect_placement(&site, database).await? {
        PlacementContents::Finished(found, mut work) => {
            provision::is_the_same(at, &found, identity)?;
            return read_outcome(&mut work, &contents.ledger).await;
        }
        PlacementContents::Unfinished => database::remove_database(&site, database).await?,
        PlacementContents::Nothing => {}
    }
    let filled = fill_database(engine, &site, database, dump, contents, identity).await;
    if let Err(error) = &filled
        && error.kind() != ErrorKind::AlreadyExists
    {
        // A database that cannot be removed now carries no identity, and a repeated call removes it.
        let _ = database::remove_database(&site, database).await;
    }
    filled
}

async fn fill_database(
    engine: &PostgresEngine,
    site: &PostgresServerState,
    database: &str,
    dump: &Path,
    contents: &DumpContents,
    identity: &Identity,
) -> Result<RestoreOutcome> {
    let mut center = site.maintenance_connection().await?;
    if database::create_like(&mut center, database, &contents.locale).await? == DatabaseCreation::Before {
        return Err(Error::new(ErrorKind::AlreadyExists, "another call is filling this placement"));
    }
    database::open_to_logins(site, &mut center, database).await?;
    site.return_connection(center);
    let mut work = site.open_connection(database).await?;
    let name = &contents.ledger;
    let layout = if contents.grants.is_some() { layout::tables_sql(name) } else { layout::layout_sql(name) };
    work.run_sql(layout).await?;
    if contents.has_own_tables() {
        work.run_sql(format!("begin; {} commit;", own_tables::own_tables_sql())).await?;
    }
    work.close().await;
    migrator::admit_login(site, database).await?;
    let left_out = DumpLoad { engine, site, database, dump }.restore_all(contents).await?;
    migrator::dismiss_login(site, database).await?;
    let mut work = site.open_connection(database).await?;
    work.run_sql(identity::write_identity(identity)).await?;
    Ok(RestoreOutcome { left_out, ..read_outcome(&mut work, name).await? })
}

async fn read_outcome(work: &mut AdminConnection, name: &LedgerName) -> Result<RestoreOutcome> {
    let sql = format!("{}; select pg_database_size(current_database())::text;", ledger::read(name));
    let answers = work.fetch_answers(sql).await?;
    let [rows, size] = answers.as_slice() else {
        return Err(Error::new(ErrorKind::Internal, "two questions have two answers"));
    };
    let schema_version = ledger::newest_version(&ledger::from_rows(rows)?);
    let classes = objects::class_sums(&objects::read_objects(work, name).await?);
    Ok(RestoreOutcome {
        schema_version,
        classes,
        size_bytes: single_count(size)?,
        foreign_key_violations: 0,
        left_out: Vec::new(),
    })
}
