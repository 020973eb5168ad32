//! The verbs `template` and `provision`: a database at the head of a set, built once and copied for every new tenant.
//!
//! A template is made in memory by the same code that migrates a tenant. A tenant is that image with its identity row,
//! stamped in memory too, written once under a private name and renamed: no journal, no log, no fsync of its own.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use rusqlite::{Connection, MAIN_DB};

use super::SqliteEngine;
use super::apply::{Rules, apply};
use super::error::from_sqlite;
use super::files::{Part, Renamed, fault};
use super::open::{Sharing, open};
use super::verbs::Flush;
use super::workers::lock;
use super::writer::Writer;
use super::{identity, image, inspect, ledger};
use crate::engine::Template;
use crate::error::{Error, ErrorKind, Result};
use crate::identity::Identity;
use crate::migration::MigrationSet;
use crate::placement::Placement;

/// Templates kept: one release is current, a rollout and a rehearsal add a few. Each is about 100 KB.
const TEMPLATES_MAX: usize = 8;

/// Templates by digest, the newest last. Clones are one memory.
#[derive(Debug, Clone, Default)]
pub(super) struct Templates(Arc<Mutex<VecDeque<Arc<Template>>>>);

impl Templates {
    fn get(&self, digest: &str) -> Option<Arc<Template>> {
        lock(&self.0).iter().find(|template| template.digest == digest).cloned()
    }

    fn keep(&self, template: &Arc<Template>) {
        let mut kept = lock(&self.0);
        if kept.len() >= TEMPLATES_MAX {
            kept.pop_front();
        }
        kept.push_back(Arc::clone(template));
    }
}

/// See [`crate::Engine::template`].
pub(super) async fn template(engine: &SqliteEngine, set: &MigrationSet) -> Result<Arc<Template>> {
    let templates = &engine.verbs().templates;
    if let Some(template) = templates.get(set.digest()) {
        return Ok(template);
    }
    let set = set.clone();
    let template = Arc::new(engine.blocking(move || build(&set)).await?);
    templates.keep(&template);
    Ok(template)
}

/// A template, made in memory.
pub(super) fn build(set: &MigrationSet) -> Result<Template> {
    let mut writer = Writer::in_memory()?;
    identity::create_table(writer.database())?;
    ledger::create(writer.database())?;
    let rules = Rules { guard: &|_| Ok(()), set };
    for migration in set.migrations() {
        apply(&mut writer, &rules, migration)?;
    }
    let image = Bytes::copy_from_slice(&writer.database().serialize(MAIN_DB).map_err(from_sqlite)?);
    let size_bytes = image.len() as u64;
    Ok(Template { digest: set.digest().to_owned(), schema_version: set.head(), image, size_bytes })
}

/// See [`crate::Engine::provision`].
pub(super) async fn provision(
    engine: &SqliteEngine,
    at: &Placement,
    template: &Template,
    identity: &Identity,
) -> Result<()> {
    let (image, identity) = (template.image.clone(), identity.clone());
    engine.durably_taking(at, template.size_bytes, move |at| fill(at, &image, &identity)).await
}

fn fill(at: &Placement, template: &[u8], identity: &Identity) -> Result<((), Flush)> {
    let image = stamped(template, identity)?;
    let (part, mut file) = Part::create(&at.path())?;
    file.write_all(&image).map_err(|e| fault("cannot write the new database", e))?;
    drop(file);
    if part.rename()? == Renamed::NameTaken {
        is_the_same(at, identity)?;
    }
    Ok(((), Flush::Needed))
}

/// The template's bytes with the identity row, ready to be served: in WAL mode.
fn stamped(template: &[u8], identity: &Identity) -> Result<Vec<u8>> {
    let mut db = Connection::open_in_memory().map_err(from_sqlite)?;
    db.deserialize_read_exact(MAIN_DB, template, template.len(), false).map_err(from_sqlite)?;
    identity::write(&db, identity)?;
    let mut bytes = db.serialize(MAIN_DB).map_err(from_sqlite)?.to_vec();
    image::set_journal(&mut bytes, image::Journal::Wal)?;
    Ok(bytes)
}

/// A repeated call finds its own database. It may be what a power cut left of it, so every page is looked at.
fn is_the_same(at: &Placement, wanted: &Identity) -> Result<()> {
    let database = open(at, Sharing::Shared)?;
    let found = database.read(None, |db, found| inspect::require_sound(db).map(|()| found))?;
    if found.same_as(wanted) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::AlreadyExists,
        format!("the placement is taken: a database of {} at generation {} is there", found.tenant, found.generation),
    ))
}
