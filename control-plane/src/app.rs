//! The composition root: everything one process needs, built once, also by tests.

use std::collections::HashMap;
use std::sync::Arc;

use catalog::Catalog;
use tenant_engine::{Engine, placement::EngineKind};

use crate::config::Config;
use crate::error::Result;

/// One process's control plane.
#[derive(Debug)]
pub struct App {
    /// As given.
    pub config: Config,
    /// What exists.
    pub catalog: Catalog,
    /// One per kind of database.
    pub engines: HashMap<EngineKind, Arc<dyn Engine>>,
}

impl App {
    /// Makes a new fleet in the data directory (keys, catalog, the server `local`, an operator token), or finds the one
    /// that is there.
    pub async fn init(_config: &Config) -> Result<Initialised> {
        todo!()
    }

    /// Opens the fleet in the data directory and starts the runner (and, when serving, the background tasks).
    pub async fn open(_config: Config) -> Result<Arc<Self>> {
        todo!()
    }

    /// Refuses new work, gives running steps up to `drain` to finish, frees leases and closes everything.
    pub async fn shutdown(&self, _drain: std::time::Duration) {
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
