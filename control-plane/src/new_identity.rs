//! Makes a copy of a data directory a fleet of its own, or lets it take over the servers outside it. Called by the
//! command line when no control plane runs, like `catalog_admin.rs`. A copy of the previous catalog is kept beside it.
//!
//! [`ExclusiveDataDirectory::assign_identity`] has three steps, each of which may be repeated. First the catalog
//! forgets what stays with the original, so that nothing leads outside the directory any more. Then the databases and
//! markers inside get the new id. Last the catalog takes it. In between every other command is refused.

use std::path::Path;

use catalog::identity::{self, LeftWithOriginal};
use catalog::{Catalog, FleetId, ServerRecord, events, fleet, servers};
use futures_util::{StreamExt as _, stream};
use serde::Serialize;
use serde_json::json;
use tenant_engine::claim::{self, ClaimStatus};
use tenant_engine::sqlite::{SqliteEngine, SqliteOptions};
use tenant_engine::{
    DatabaseServer, Engine as _, EngineKind, ExpectedIdentity, FleetClaims, Identity, IdentityState, InspectionDepth,
    ListedObjectKind, Placement,
};

use crate::app::DirectoryState;
use crate::config::Config;
use crate::data_dir::DataDirectory;
use crate::data_dir::base_marker::BaseMarker;
use crate::error::{Error, ErrorKind, Result};
use crate::serve::{self, ServeLock};

/// Databases stamped at once, which share their flushes.
const AT_ONCE: usize = 32;

/// The result or the preview of [`ExclusiveDataDirectory::assign_identity`].
#[derive(Debug, Serialize)]
pub struct NewIdentityReport {
    /// The path of the directory.
    pub data_dir: String,
    /// The fleet's previous id.
    pub fleet_before: String,
    /// The new id. `None` before it is assigned.
    pub fleet_id: Option<String>,
    /// Databases inside the directory, which become the new fleet's.
    pub databases: u64,
    /// Servers outside the directory, which stay with the original.
    pub servers_left: Vec<String>,
    /// Tenants that stay with the original, because they are on those servers or archived.
    pub tenants_left: Vec<String>,
    /// Backups that stay with the original.
    pub backups_left: i64,
    /// Operations that are cancelled here.
    pub operations_cancelled: i64,
    /// Databases that could not be given the new id, each with the reason. If they were skipped, they are not served.
    pub failed: Vec<String>,
    /// The path of the previous catalog. `None` while nothing was changed, and when an interrupted command continues.
    pub catalog_before: Option<String>,
}

/// Findings that [`ExclusiveDataDirectory::assign_identity`] is to ignore.
#[derive(Debug, Clone, Copy, Default)]
pub struct InSpiteOf {
    /// Nothing shows that the directory is a copy. It may be the only one.
    pub no_original: bool,
    /// Databases that cannot be given the new id. They are lost to this directory.
    pub failures: bool,
}

/// The result of [`ExclusiveDataDirectory::take_over`].
#[derive(Debug, Default, Serialize)]
pub struct TakenOver {
    /// Servers outside the directory that it uses from now on.
    pub servers: Vec<String>,
    /// Servers that could not be asked for their claim, each with the reason. A server that a copy uses stays refused.
    pub unreached: Vec<String>,
}

/// A data directory that no other process can use meanwhile.
#[derive(Debug)]
pub struct ExclusiveDataDirectory {
    home: DataDirectory,
    catalog: Catalog,
    _serves: ServeLock,
}

/// Opens the catalog of a directory that no server runs on. It does not matter here whether the directory is a copy.
///
/// # Errors
/// `already_serving`, `not_initialised`, and those of the catalog.
pub async fn lock_data_directory(config: &Config) -> Result<ExclusiveDataDirectory> {
    let home = DataDirectory::open_existing(config)?;
    home.require_catalog().await?;
    let serves = serve::acquire_lock(&config.data_dir).await?;
    let opened = Catalog::open(home.catalog_location(), home.fleet_key(config)?, crate::clock::system_clock()).await;
    let catalog = opened.map_err(|error| home.explain_open_error(error.into()))?;
    if !home.is_elsewhere() {
        crate::app::bring_inside(&catalog, &home).await?;
    }
    Ok(ExclusiveDataDirectory { home, catalog, _serves: serves })
}

/// The error of a directory that may be the only one of its fleet.
fn may_be_original(home: &DataDirectory) -> Error {
    let here = home.root_dir().display();
    let detail = format!(
        "{here} may be the original: nothing shows that it is a copy. With a new identity it loses its outside servers, \
         archived tenants and backups"
    );
    Error::new(ErrorKind::Conflict, detail)
        .try_next("if its original is on another machine: the same command with --not-a-copy")
}

impl ExclusiveDataDirectory {
    /// Previews [`ExclusiveDataDirectory::assign_identity`].
    ///
    /// # Errors
    /// `invalid` for a catalog on PostgreSQL; those of the catalog and of the directories.
    pub async fn preview_identity(&self) -> Result<NewIdentityReport> {
        if self.home.is_elsewhere() {
            let detail = "this needs a data directory with its own catalog, but another one is configured";
            return Err(
                Error::new(ErrorKind::Invalid, detail).try_next("unset FLEET_CATALOG_URL (and catalog_url_file)")
            );
        }
        let LeftWithOriginal { servers, tenants, backups, operations } =
            identity::left_with_original(&mut self.catalog.read().await?).await?;
        let (engine, mut databases) = (self.sqlite_engine()?, 0);
        for server in self.inside_servers().await? {
            databases += list_placements(&engine, &server).await?.len() as u64;
        }
        Ok(NewIdentityReport {
            data_dir: self.home.root_dir().display().to_string(),
            fleet_before: self.catalog.fleet_id().to_string(),
            fleet_id: None,
            databases,
            servers_left: servers,
            tenants_left: tenants,
            backups_left: backups,
            operations_cancelled: operations,
            failed: Vec::new(),
            catalog_before: None,
        })
    }

    /// Gives the directory an identity of its own. If some databases could not be given the new id, it stays
    /// unfinished.
    ///
    /// # Errors
    /// `conflict` when nothing shows that the directory is a copy; those of the catalog and of the directories. The
    /// same call continues from there.
    pub async fn assign_identity(&self, actor: &str, in_spite_of: InSpiteOf) -> Result<NewIdentityReport> {
        let mut done = self.preview_identity().await?;
        if fleet::next_id(&mut self.catalog.read().await?).await?.is_none() {
            if !in_spite_of.no_original && !self.is_copy().await? {
                return Err(may_be_original(&self.home));
            }
            done.catalog_before = Some(self.keep_catalog().await?);
        }
        let mut tx = self.catalog.write().await?;
        let next = identity::begin_new_identity(&mut tx).await?;
        tx.commit().await?;
        done.failed = self.stamp_all(next).await?;
        if done.failed.is_empty() || in_spite_of.failures {
            self.finish_identity(&mut done, next, actor).await?;
        }
        Ok(done)
    }

    async fn finish_identity(&self, done: &mut NewIdentityReport, next: FleetId, actor: &str) -> Result<()> {
        let mut tx = self.catalog.write().await?;
        let claims = identity::finish_new_identity(&mut tx, next, &self.home.root_dir().to_string_lossy()).await?;
        crate::app::note_place(&mut tx, &self.home).await?;
        let data = json!({ "from": done.fleet_before, "to": next, "servers_left": done.servers_left });
        events::append_events(&mut tx, &[identity_event("fleet.identity_given", actor, data)]).await?;
        // Before the commit: the file's claims are joined with the catalog's, and the file came from the original.
        self.home.write_claims(&claims)?;
        tx.commit().await?;
        done.fleet_id = Some(next.to_string());
        Ok(())
    }

    /// Whether the original directory exists, or another directory uses one of its servers.
    async fn is_copy(&self) -> Result<bool> {
        if matches!(
            crate::app::inspect_place(&self.catalog, &self.home).await?,
            DirectoryState::Copied | DirectoryState::Unseen(_)
        ) {
            return Ok(true);
        }
        let claims = fleet::fleet_claims(&mut self.catalog.read().await?).await?.joined_with(&self.home.read_claims());
        for (_, server) in self.outside_servers().await? {
            // A server that does not answer proves nothing.
            if claim_on_server(&server)
                .await
                .is_ok_and(|found| claims.compare_with_server(found.as_deref()) == ClaimStatus::Others)
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Copies the catalog before it forgets anything, such as the servers' secrets, which could not be recovered
    /// otherwise.
    async fn keep_catalog(&self) -> Result<String> {
        let name = |number: u32| self.home.root_dir().join(format!("catalog.before-new-identity-{number}.db"));
        let free = (1..).map(name).find(|path| std::fs::symlink_metadata(path).is_err());
        let path = free.ok_or_else(|| Error::internal("no name is free for a copy of the catalog"))?;
        self.catalog.snapshot_to(&path).await?;
        Ok(path.display().to_string())
    }

    /// Makes this directory the one that uses the servers outside it. Each server carries its claim from its next use
    /// on.
    ///
    /// # Errors
    /// `identity_unfinished`; `data_dir_copied` while the original exists, or may exist and was not declared gone;
    /// those of the catalog and of the directories.
    pub async fn take_over(&self, actor: &str, original_is_gone: bool) -> Result<TakenOver> {
        let outside = self.outside_servers().await?;
        match crate::app::inspect_place(&self.catalog, &self.home).await? {
            DirectoryState::Unseen(_) if original_is_gone => {}
            _ => crate::app::refuse_copy(&self.catalog, &self.home).await?,
        }
        let (mut found, mut taken) = (FleetClaims::default(), TakenOver::default());
        for (name, server) in outside {
            match claim_on_server(&server).await {
                Ok(claim) => {
                    found = found.joined_with(&FleetClaims::new(claim.into_iter().collect()));
                    taken.servers.push(name);
                }
                Err(error) => taken.unreached.push(format!("{name}: {error}")),
            }
        }
        self.record_claim(&found, &taken, actor).await?;
        Ok(taken)
    }

    async fn record_claim(&self, found: &FleetClaims, taken: &TakenOver, actor: &str) -> Result<()> {
        let mut tx = self.catalog.write().await?;
        let known = fleet::fleet_claims(&mut tx).await?.joined_with(&self.home.read_claims());
        let claims = known.joined_with(found).with_new_id();
        fleet::set_claims(&mut tx, &claims).await?;
        crate::app::note_place(&mut tx, &self.home).await?;
        let data = json!({ "servers": taken.servers });
        events::append_events(&mut tx, &[identity_event("fleet.servers_taken_over", actor, data)]).await?;
        tx.commit().await?;
        self.home.write_claims(&claims)
    }

    /// The servers outside the directory, including those that another copy uses.
    async fn outside_servers(&self) -> Result<Vec<(String, DatabaseServer)>> {
        let mut tx = self.catalog.read().await?;
        if fleet::next_id(&mut tx).await?.is_some() {
            return Err(crate::app::identity_unfinished(self.home.root_dir()));
        }
        let mut outside = Vec::new();
        for (server, _) in servers::list_servers(&mut tx).await? {
            if !servers::is_inside(&tx, &server) {
                outside.push((server.name.clone(), servers::reach_unclaimed(&mut tx, &server).await?));
            }
        }
        Ok(outside)
    }

    /// Closes the catalog.
    pub async fn close(self) {
        self.catalog.close().await;
    }

    fn sqlite_engine(&self) -> Result<SqliteEngine> {
        Ok(SqliteEngine::new(SqliteOptions::new(self.home.scratch_dir()?))?)
    }

    async fn inside_servers(&self) -> Result<Vec<ServerRecord>> {
        let mut tx = self.catalog.read().await?;
        let known = servers::list_servers(&mut tx).await?.into_iter().map(|(server, _)| server);
        Ok(known.filter(|server| servers::is_inside(&tx, server)).collect())
    }

    /// Stamps all databases and returns those that could not be stamped. Once the catalog has the new id, such a
    /// database belongs to another fleet.
    async fn stamp_all(&self, next: FleetId) -> Result<Vec<String>> {
        let (engine, before, mut failed) = (self.sqlite_engine()?, self.catalog.fleet_id(), Vec::new());
        for server in self.inside_servers().await? {
            let all = list_placements(&engine, &server).await?;
            let stamps = all.iter().map(|at| async {
                let stamped = stamp_new_fleet(&engine, at, before, next).await;
                stamped.err().map(|error| format!("{}: {error}", at.catalog_reference()))
            });
            failed.extend(
                stream::iter(stamps).buffer_unordered(AT_ONCE).filter_map(async |it| it).collect::<Vec<_>>().await,
            );
            let marker = BaseMarker { fleet_id: next.to_string(), server_id: server.id.to_string(), claim: None };
            let unmarked = |error: std::io::Error| {
                let what = format!("the marker of the directory {}", server.base);
                Error::data_dir_unusable(&what, "make the directory writable, and try again", error)
            };
            marker.write_marker(Path::new(&server.base)).map_err(unmarked)?;
        }
        engine.shut_down().await;
        Ok(failed)
    }
}

async fn claim_on_server(server: &DatabaseServer) -> tenant_engine::Result<Option<String>> {
    match server {
        DatabaseServer::Sqlite { root } => Ok(claim::of_directory(root)),
        DatabaseServer::Postgres(server) => tenant_engine::postgres::carried_claim(server).await,
    }
}

/// The placement of every database in a directory, no matter what the catalog knows of it.
async fn list_placements(engine: &SqliteEngine, server: &ServerRecord) -> Result<Vec<Placement>> {
    debug_assert_eq!(server.engine, EngineKind::Sqlite);
    let on = DatabaseServer::new_sqlite(&server.base);
    let listing = engine.list_databases(&on, None).await?;
    let databases = listing.found.into_iter().filter(|found| found.what == ListedObjectKind::Database);
    Ok(databases.filter_map(|found| on.parse_placement(&found.reference?).ok()).collect())
}

async fn stamp_new_fleet(
    engine: &SqliteEngine,
    at: &Placement,
    before: FleetId,
    next: FleetId,
) -> tenant_engine::Result<()> {
    let found = engine.inspect_database(at, None, InspectionDepth::Ledger).await?.identity;
    if found.fleet != before {
        return Ok(());
    }
    let expected = ExpectedIdentity {
        tenant: found.tenant,
        fleet: before,
        generation: found.generation,
        states: vec![found.state],
    };
    let new = Identity { fleet: next, ..found };
    match new.state {
        IdentityState::Frozen => engine.freeze_database(at, &expected, &new).await,
        _ => engine.stamp_identity(at, &expected, &new).await,
    }
}

fn identity_event(kind: &str, actor: &str, data: serde_json::Value) -> events::NewEvent {
    let (kind, actor) = (kind.to_owned(), actor.to_owned());
    events::NewEvent { kind, actor, tenant_id: None, op_id: None, request_id: None, data }
}
