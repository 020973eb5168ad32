//! The composition root: everything one process needs, built once, also by tests.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use catalog::operations::OperationRecord;
use catalog::{Catalog, Clock, OperationId};
use tenant_engine::{Engine, placement::EngineKind};

use crate::config::Config;
use crate::error::Result;
use crate::runner::control::Control;
use crate::runner::submit::{Caller, Mode, Submission, Submitted};

/// One process's control plane.
#[derive(Debug)]
pub struct App {
    /// As given.
    pub config: Config,
    /// What exists.
    pub catalog: Catalog,
    /// One per kind of database.
    pub engines: HashMap<EngineKind, Arc<dyn Engine>>,
    /// Takes tenants' requests, and operators' reads, to their databases.
    pub router: tenant_router::Router,
}

impl App {
    /// Makes a new fleet in the data directory (keys, catalog, the server `local`, an operator token), or finds the one
    /// that is there.
    ///
    /// # Errors
    /// `data_dir_unusable`, `wrong_key`, and those of the catalog.
    pub async fn init(_config: &Config) -> Result<Initialised> {
        todo!()
    }

    /// Opens the fleet in the data directory and starts the runner (and, when serving, the background tasks).
    ///
    /// # Errors
    /// `not_initialised`, `wrong_key`, `catalog_newer`, `backup_store_unusable`, and those of the catalog.
    pub async fn open(config: Config) -> Result<Arc<Self>> {
        Self::open_with(config, crate::clock::system()).await
    }

    /// [`App::open`] with another clock.
    ///
    /// # Errors
    /// As [`App::open`].
    pub async fn open_with(_config: Config, _clock: Clock) -> Result<Arc<Self>> {
        todo!()
    }

    /// Plans, and in [`Mode::Run`] writes operation, steps and event (and, for create, tenants and names) in one
    /// transaction and wakes the runner; an embedded process runs what it submits.
    ///
    /// # Errors
    /// `invalid`, `selection_empty`, `not_found`, `already_exists`, `protected`, `count_mismatch`, `backup_not_found`,
    /// and those of the catalog; nothing was written then.
    pub async fn submit(&self, _caller: &Caller, _submission: Submission, _mode: Mode) -> Result<Submitted> {
        todo!()
    }

    /// Pauses, resumes, retries, cancels or abandons an operation, with an event.
    ///
    /// # Errors
    /// `not_found`; `conflict` when the operation is not in a state that allows it.
    pub async fn control(
        &self,
        _caller: &Caller,
        _op: OperationId,
        _what: Control,
        _reason: Option<&str>,
    ) -> Result<OperationRecord> {
        todo!()
    }

    /// Makes this process run that operation, whoever submitted it. A serving process runs all of them anyway.
    pub fn run_only(&self, _op: OperationId) {
        todo!()
    }

    /// Runs the operation here ([`App::run_only`]) and returns its record when it has ended (or is paused), or as it is
    /// after `timeout`.
    ///
    /// # Errors
    /// `not_found`, and those of the catalog.
    pub async fn wait(&self, _op: OperationId, _timeout: Duration) -> Result<OperationRecord> {
        todo!()
    }

    /// The active tenants of a selection.
    ///
    /// # Errors
    /// `selection_empty`, `not_found`, and those of the catalog.
    pub async fn select(&self, _selection: &crate::plan::Selection) -> Result<Vec<catalog::TenantRecord>> {
        todo!()
    }

    /// The manifest of a backup, as it lies in the backup store.
    ///
    /// # Errors
    /// `backup_damaged`, `backup_store_unavailable`.
    pub async fn backup_manifest(&self, _backup: &catalog::backups::BackupRecord) -> Result<serde_json::Value> {
        todo!()
    }

    /// True while steps are claimed and run.
    #[must_use]
    pub fn runner_alive(&self) -> bool {
        todo!()
    }

    /// The principal of this very process, for the human who started it; see
    /// [`InProcess`](crate::auth::operator::InProcess).
    #[must_use]
    pub fn in_process_principal(&self, actor: &str) -> crate::auth::operator::InProcess {
        crate::auth::operator::InProcess::new(actor)
    }

    /// Refuses new work, gives running steps up to `drain` to finish, frees leases and closes everything.
    pub async fn shutdown(&self, _drain: Duration) {
        todo!()
    }
}

/// What [`App::init`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Initialised {
    /// A new fleet.
    Created,
    /// One was there.
    Found,
}
