//! Opens the fleet: one that is deployed elsewhere, or one inside this process.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use fleet_client::FleetClient;
use secrecy::SecretString;
use tenant_router::gate::NewerSchemaPolicy;
use tenant_router::{Fleet, JobRunner, Router, SchemaRange};

use crate::Application;
use crate::digests;
use crate::local_fleet::LocalFleet;
use crate::options::CommandOptions;

/// The data directory of a fleet inside this process.
const DATA_DIR: &str = "tasks-data";
/// How long running jobs may take after the signal to stop. Then they wait for the next process.
const JOBS_END_MAX: Duration = Duration::from_secs(5);
/// The versions of the schema that this program can serve. An organisation that waits for a migration gets 503.
const SCHEMA: SchemaRange = SchemaRange { min: 2, max: 2, ahead: NewerSchemaPolicy::Serve };

/// An open fleet and the application on it.
#[derive(Debug)]
pub struct OpenFleet {
    application: Application,
    /// Runs the background jobs.
    jobs: JobRunner,
    /// The control plane inside this process; `None` when it runs elsewhere.
    local: Option<LocalFleet>,
}

impl OpenFleet {
    /// Opens the fleet that the command line names.
    ///
    /// # Errors
    /// When the fleet, its token or its control plane cannot be used.
    pub async fn open(options: &CommandOptions) -> Result<Self> {
        match (&options.fleet, &options.fleet_token_file) {
            (Some(url), Some(token_file)) => Self::open_deployed(url, token_file, options).await,
            _ => Self::open_local(options.data_dir.clone(), options.postgres.as_ref()).await,
        }
    }

    /// The fleet of a control plane that runs elsewhere. Its operator has applied the migrations.
    async fn open_deployed(url: &str, token_file: &Path, options: &CommandOptions) -> Result<Self> {
        let token = std::fs::read_to_string(token_file);
        let token = token.with_context(|| format!("cannot read the token in {}", token_file.display()))?;
        let mut client = FleetClient::builder(url, token.trim());
        if let Some(ca_file) = &options.ca_file {
            client = client.ca_file(ca_file);
        }
        let fleet = match &options.data_dir {
            Some(data_dir) => Fleet::in_directory(data_dir),
            None => Fleet::from_environment()?,
        };
        let application = Application { router: open_router(fleet).await?, fleet: client.build()?, new_server: None };
        let jobs = digests::start_jobs(&application)?;
        Ok(Self { application, jobs, local: None })
    }

    /// A fleet inside this process. Creates it if the directory has none.
    async fn open_local(data_dir: Option<PathBuf>, postgres: Option<&SecretString>) -> Result<Self> {
        let data_dir = data_dir.unwrap_or_else(|| DATA_DIR.into());
        let local = LocalFleet::start(&data_dir, postgres).await?;
        let router = open_router(Fleet::in_directory(&data_dir)).await?;
        let new_server = Some(local.new_server().to_owned());
        let application = Application { router, fleet: local.client().clone(), new_server };
        digests::schedule_digests(&application).await?;
        let jobs = digests::start_jobs(&application)?;
        Ok(Self { application, jobs, local: Some(local) })
    }

    /// The application, for the routes.
    #[must_use]
    pub fn application(&self) -> Application {
        self.application.clone()
    }

    /// Finishes running work and closes every database.
    pub async fn close(self) {
        self.jobs.shutdown(JOBS_END_MAX).await;
        self.application.router.shutdown().await;
        if let Some(local) = self.local {
            local.stop().await;
        }
    }
}

async fn open_router(fleet: Fleet) -> Result<Router> {
    let builder = fleet.router().await.context("cannot open the fleet")?;
    Ok(builder.naming(Application::naming()).schema_range(SCHEMA).build().await?)
}
