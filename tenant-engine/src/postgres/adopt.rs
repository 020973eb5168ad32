//! The verb `adopt`: a database that no fleet knows yet is copied to a new placement, as a dump and a restore.
//!
//! The original is only read, by its own credentials, and stays as it was. What is adopted is what one `pg_dump` saw.
//! What a copy could not have as well is refused before (`source.rs`), and its objects are compared behind.

use std::process::Stdio;
use std::sync::Arc;

use secrecy::SecretString;

use super::server::PostgresServer;
use super::site::Site;
use super::tool::{self, Who};
use super::work::Work;
use super::{PostgresEngine, archive, contents, database, restore, snapshot, source, undumpable};
use crate::error::Result;
use crate::fingerprint::Objects;
use crate::identity::Identity;
use crate::placement::Placement;
use crate::snapshot::{Image, Restored};

/// See [`crate::Engine::adopt`].
pub(super) async fn adopt(
    engine: &PostgresEngine,
    at: &Placement,
    source: &SecretString,
    identity: &Identity,
) -> Result<Restored> {
    let source = Arc::new(PostgresServer::new(source)?);
    let (site, _) = engine.site(at)?;
    let _slot = site.slot_with_program().await?;
    let (image, objects) = dump(engine, &source).await?;
    let dump = archive::on_disk(image, engine.scratch()).await?;
    let contents = contents::examine_foreign(engine.tools(), &dump).await?;
    archive::give_search_path(&dump).await?;
    let restored = restore::from_dump(engine, at, (&dump, &contents), identity).await?;
    let proved = prove(&site, at, &objects, &restored).await;
    if proved.is_err() {
        database::remove(&site, at.reference()).await?;
    }
    proved.map(|()| restored)
}

/// Nothing was left out, and every object is the same. A database that differs is not kept: nothing served from it.
async fn prove(site: &Site, at: &Placement, objects: &Objects, restored: &Restored) -> Result<()> {
    if !restored.left_out.is_empty() {
        return Err(source::unfit(&restored.left_out.join("; ")));
    }
    let mut work = site.enter(at.reference()).await?;
    source::compare(objects, &mut work).await?;
    work.close().await;
    Ok(())
}

async fn dump(engine: &PostgresEngine, source: &Arc<PostgresServer>) -> Result<(Image, Objects)> {
    let database = source.dsn().database();
    let mut work = Work::maintenance(source, engine.patience(), &database).await?;
    let version = work.version();
    undumpable::refuse(&mut work).await?;
    let objects = source::examine(&mut work).await?;
    work.close().await;
    engine.tools().require(version).await?;
    let mut command = engine.tools().connecting("pg_dump", source, Who::Maintenance, &database);
    command.args(["--format=custom", "--compress=0", "--no-password"]);
    command.args(["--no-subscriptions", "--no-tablespaces"]);
    command.arg(format!("--lock-wait-timeout={}", engine.patience().lock.as_millis())).stdout(Stdio::piped());
    let mut child = tool::start(&mut command)?;
    let stdout = child.stdout.take().expect("it is piped");
    let (taken, ended) = tool::finish(source, child, archive::take(stdout, engine.scratch())).await?;
    match ended.succeeded() {
        true => Ok((taken.image, objects)),
        false => Err(snapshot::refused(&ended)),
    }
}
