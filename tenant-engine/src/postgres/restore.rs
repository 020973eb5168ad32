//! The verb `restore`: a dump becomes a database at a new placement, or nothing.
//!
//! Everything that can be wrong with the dump is looked for before anything is made: its table of contents, whose data
//! it is, and every byte once. Then an empty database gets the layout and the rights that every database of ours has;
//! `load.rs` fills it; and the identity comes last.

use std::path::Path;

use super::database::{self, Found, Made};
use super::inspect::number;
use super::load::{Contents, Load};
use super::prepare;
use super::site::Site;
use super::work::Work;
use super::{PostgresEngine, archive, contents, identity, layout, ledger, migrator, objects, provision};
use crate::TenantId;
use crate::error::{Error, ErrorKind, Result};
use crate::identity::Identity;
use crate::placement::Placement;
use crate::snapshot::{Image, Restored};

/// See [`crate::Engine::restore`].
pub(super) async fn restore(
    engine: &PostgresEngine,
    at: &Placement,
    image: Image,
    source: TenantId,
    identity: &Identity,
) -> Result<Restored> {
    let (site, _) = engine.site(at)?;
    let _slot = site.slot_with_program().await?;
    let dump = archive::on_disk(image, engine.scratch()).await?;
    let contents = contents::examine(engine.tools(), &dump, source).await?;
    archive::give_search_path(&dump).await?;
    from_dump(engine, at, (&dump, &contents), identity).await
}

/// Fills a placement from a dump that was examined; the caller holds a slot of the site.
pub(super) async fn from_dump(
    engine: &PostgresEngine,
    at: &Placement,
    (dump, contents): (&Path, &Contents),
    identity: &Identity,
) -> Result<Restored> {
    let (site, database) = engine.site(at)?;
    prepare::ensure(&site).await?;
    match database::look(&site, database).await? {
        Found::Finished(found, mut work) => {
            provision::is_the_same(at, &found, identity)?;
            return outcome(&mut work).await;
        }
        Found::Unfinished => database::remove(&site, database).await?,
        Found::Nothing => {}
    }
    let filled = fill(engine, &site, database, dump, contents, identity).await;
    if let Err(error) = &filled
        && error.kind() != ErrorKind::AlreadyExists
    {
        // What cannot be removed now carries no identity, and a repeated call removes it.
        let _ = database::remove(&site, database).await;
    }
    filled
}

async fn fill(
    engine: &PostgresEngine,
    site: &Site,
    database: &str,
    dump: &Path,
    contents: &Contents,
    identity: &Identity,
) -> Result<Restored> {
    let mut center = site.center().await?;
    if database::create_like(&mut center, database, &contents.locale).await? == Made::Before {
        return Err(Error::new(ErrorKind::AlreadyExists, "somebody else is filling the same placement"));
    }
    database::open(site, &mut center, database).await?;
    site.leave(center);
    let mut work = site.enter(database).await?;
    let layout = if contents.grants.is_some() { layout::tables() } else { layout::statements() };
    work.run(layout).await?;
    work.close().await;
    migrator::admit(site, database).await?;
    let left_out = Load { engine, site, database, dump }.run(contents).await?;
    migrator::dismiss(site, database).await?;
    let mut work = site.enter(database).await?;
    work.run(identity::write(identity)).await?;
    Ok(Restored { left_out, ..outcome(&mut work).await? })
}

async fn outcome(work: &mut Work) -> Result<Restored> {
    let sql = format!("{}; select pg_database_size(current_database())::text;", ledger::READ);
    let answers = work.answers(sql).await?;
    let [rows, size] = answers.as_slice() else {
        return Err(Error::new(ErrorKind::Internal, "two questions have two answers"));
    };
    let schema_version = ledger::newest(&ledger::from_rows(rows)?);
    let classes = objects::classes(&objects::read(work).await?);
    Ok(Restored { schema_version, classes, size_bytes: number(size)?, foreign_key_violations: 0, left_out: Vec::new() })
}
