//! A control plane inside this process, called as a function: no port, no daemon, the same API.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use control_plane::{App, Config};
use secrecy::SecretString;

use crate::client::{Client, Credential, Transport};
use crate::error::{Exit, Failure, Result};

/// An open data directory.
pub(crate) struct Embedded {
    app: Arc<App>,
    actor: String,
}

impl Embedded {
    /// Opens the fleet in the data directory; makes nothing when there is none.
    pub(crate) async fn open(config: Config, actor: &str) -> Result<Self> {
        let data_dir = config.data_dir.clone();
        if !data_dir.exists() {
            return Err(not_initialised(&data_dir));
        }
        let app = App::open(config).await.map_err(|e| match e.code.as_ref() {
            "not_initialised" => not_initialised(&data_dir),
            _ => Failure::from(e),
        })?;
        Ok(Self { app, actor: actor.to_owned() })
    }

    pub(crate) fn app(&self) -> Arc<App> {
        Arc::clone(&self.app)
    }

    /// Requests to it, as the human who started this process.
    pub(crate) fn client(&self) -> Client {
        Client::new(Transport::InProcess {
            router: control_plane::http::admin_router(self.app()),
            credential: Credential::Operator(self.app.in_process_principal(&self.actor)),
        })
    }

    /// Requests to its data API with a tenant's token.
    pub(crate) fn data(&self, token: SecretString) -> Client {
        let router = control_plane::http::data_router(self.app());
        Client::new(Transport::InProcess { router, credential: Credential::Bearer(token) })
    }

    pub(crate) async fn shutdown(&self, drain: Duration) {
        self.app.shutdown(drain).await;
    }
}

/// There is no fleet in this directory.
pub(crate) fn not_initialised(data_dir: &Path) -> Failure {
    Failure::new(Exit::NotFound, format!("there is no fleet in {}", data_dir.display()))
        .code("not_initialised")
        .try_next("fleetctl init")
        .try_next("or name another place: --data-dir DIR, or --url URL")
}
