//! What the extras and the leaks share in one process.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::{Arc, Mutex};

use axum::extract::FromRef;
use serde_json::Value;
use tasks::Application;
use tempfile::TempDir;
use tenant_router::{Router, TenantId};
use uuid::Uuid;

/// Why a lock can be taken.
pub const UNPOISONED: &str = "nothing panics with the lock";

/// The application and the memory of the process. All clones share one memory.
#[derive(Debug, Clone)]
pub struct Zoo {
    /// The correct application.
    pub application: Application,
    /// What the extras remember.
    pub memory: Arc<ZooMemory>,
}

/// The memory of the process. Everything that belongs to an organisation has its id in the key.
#[derive(Debug)]
pub struct ZooMemory {
    /// The key of the operator's route.
    pub admin_key: String,
    /// Answers of imports by organisation and idempotency key.
    pub imports: tokio::sync::Mutex<HashMap<(TenantId, String), Value>>,
    /// The handle of each organisation.
    pub handles: Mutex<HashMap<TenantId, String>>,
    /// Numbers of requests by method and route.
    pub requests: Mutex<BTreeMap<(String, String), u64>>,
    /// The directory that the files of all organisations share.
    pub files: TempDir,
}

impl Zoo {
    /// The application with an empty memory. Without an admin key, a random one is made that the process alone knows.
    ///
    /// # Errors
    /// When the temporary directory for files cannot be made.
    pub fn new(application: Application, admin_key: Option<String>) -> io::Result<Self> {
        let memory = ZooMemory {
            admin_key: admin_key.unwrap_or_else(|| Uuid::now_v7().simple().to_string()),
            imports: tokio::sync::Mutex::default(),
            handles: Mutex::default(),
            requests: Mutex::default(),
            files: tempfile::tempdir()?,
        };
        Ok(Self { application, memory: Arc::new(memory) })
    }

    /// Takes requests to their organisations' databases.
    pub fn router(&self) -> &Router {
        &self.application.router
    }
}

impl FromRef<Zoo> for Router {
    fn from_ref(zoo: &Zoo) -> Self {
        zoo.router().clone()
    }
}
