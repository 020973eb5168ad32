//! A control plane inside this process, called directly: no port, no daemon, the same API.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use control_plane::{App, Config, ErrorKind};
use secrecy::SecretString;

use crate::client::{ApiClient, ClientCredential, ClientTransport};
use crate::error::{CommandExit, CommandFailure, Result};

/// An open data directory.
pub(crate) struct EmbeddedFleet {
    app: Arc<App>,
    actor: String,
}

impl EmbeddedFleet {
    /// Opens the fleet in the data directory; fails if there is none and creates nothing.
    pub(crate) async fn open(config: Config, actor: &str) -> Result<Self> {
        let data_dir = config.data_dir.clone();
        if !data_dir.exists() {
            return Err(not_initialised(&data_dir));
        }
        let app = App::open(config).await.map_err(|e| match e.code() == ErrorKind::NotInitialised.code() {
            true => not_initialised(&data_dir),
            false => CommandFailure::from(e),
        })?;
        Ok(Self { app, actor: actor.to_owned() })
    }

    pub(crate) fn app(&self) -> Arc<App> {
        Arc::clone(&self.app)
    }

    /// A client for its admin API, as the user who started this process.
    pub(crate) fn admin_client(&self) -> ApiClient {
        ApiClient::new(ClientTransport::InProcess {
            router: control_plane::http::admin_router(self.app()),
            credential: ClientCredential::Operator(self.app.in_process_principal(&self.actor)),
        })
    }

    /// A client for its data API, with a tenant's token.
    pub(crate) fn data_client(&self, token: SecretString) -> ApiClient {
        let router = control_plane::http::data_router(self.app());
        ApiClient::new(ClientTransport::InProcess { router, credential: ClientCredential::Bearer(token) })
    }

    pub(crate) async fn shutdown(&self, drain: Duration) {
        self.app.shut_down(drain).await;
    }
}

/// The failure for a directory without a fleet.
pub(crate) fn not_initialised(data_dir: &Path) -> CommandFailure {
    CommandFailure::new(CommandExit::NotFound, format!("there is no fleet in {}", data_dir.display()))
        .code(ErrorKind::NotInitialised.code())
        .try_next("fleetctl init")
        .try_next("or use another fleet: --data-dir DIR, or --url URL")
}
