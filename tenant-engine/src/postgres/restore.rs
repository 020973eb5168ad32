//! The verb `restore`: a dump becomes a database at a new placement, or nothing.
//!
//! Everything that can be wrong with the dump is looked for before anything is made: its table of contents, whose data
//! it is, and every byte once. Then an empty database gets the layout and the rights that every database of ours has;
//! `pg_restore` fills it as the login that runs migrations, so what the dump holds never runs with more rights than a
//! migration has; and the identity comes last.

use std::path::Path;

use super::database::{self, Found, Made};
use super::inspect::number;
use super::prepare::{self, OWNER};
use super::site::Site;
use super::tool::{self, Who};
use super::work::{Why, Work};
use super::{PostgresEngine, archive, contents, identity, layout, ledger, provision};
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
    from_dump(engine, at, (&dump, &contents), identity).await
}

/// Fills a placement from a dump that was examined; the caller holds a slot of the site.
pub(super) async fn from_dump(
    engine: &PostgresEngine,
    at: &Placement,
    (dump, contents): (&Path, &str),
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
    contents: &str,
    identity: &Identity,
) -> Result<Restored> {
    let mut center = site.center().await?;
    if database::create(&mut center, database, "template0").await.map_err(Why::into_ours)? == Made::Before {
        return Err(Error::new(ErrorKind::AlreadyExists, "somebody else is filling the same placement"));
    }
    database::open(site, &mut center, database).await?;
    site.leave(center);
    let mut work = site.enter(database).await?;
    work.run(layout::statements()).await?;
    work.close().await;
    load(engine, site, database, dump, contents).await?;
    let mut work = site.enter(database).await?;
    work.run(identity::write(identity)).await?;
    outcome(&mut work).await
}

/// Everything in the dump but what the layout made.
async fn load(engine: &PostgresEngine, site: &Site, database: &str, dump: &Path, contents: &str) -> Result<()> {
    let (mut file, list) = archive::create(engine.scratch())?;
    archive::write(&mut file, contents.as_bytes()).await?;
    let mut command = engine.tools().connecting("pg_restore", &site.server, Who::Migrator, database);
    command.args(["--exit-on-error", "--no-owner", "--no-acl", "--no-tablespaces", "--no-security-labels"]);
    command.args(["--no-publications", "--no-subscriptions", "--no-password"]).arg(format!("--role={OWNER}"));
    command.arg("--dbname").arg(database).arg("--use-list").arg(&*list).arg(dump);
    let child = tool::start(&mut command)?;
    let ((), ended) = tool::finish(&site.server, child, async { Ok(()) }).await?;
    match ended.succeeded() {
        true => Ok(()),
        false => Err(refused(site, &ended.complaint()).await),
    }
}

/// The dump was whole, so either the server is in trouble, or it refuses what the dump holds.
async fn refused(site: &Site, complaint: &str) -> Error {
    let message = format!("the dump could not be restored: {complaint}");
    let kind = match site.center().await {
        Err(error) => error.kind(),
        Ok(center) => {
            site.leave(center);
            match complaint {
                _ if complaint.contains("No space left") => ErrorKind::DiskFull,
                _ if complaint.contains("permission denied") => ErrorKind::ServerPrivilege,
                _ if complaint.contains("connection") => ErrorKind::ConnectionLost,
                _ => ErrorKind::Internal,
            }
        }
    };
    Error::new(kind, message)
}

async fn outcome(work: &mut Work) -> Result<Restored> {
    let sql = format!("{}; select pg_database_size(current_database())::text;", ledger::READ);
    let answers = work.answers(sql).await?;
    let [rows, size] = answers.as_slice() else {
        return Err(Error::new(ErrorKind::Internal, "two questions have two answers"));
    };
    let schema_version = ledger::newest(&ledger::from_rows(rows)?);
    Ok(Restored { schema_version, size_bytes: number(size)?, foreign_key_violations: 0 })
}
