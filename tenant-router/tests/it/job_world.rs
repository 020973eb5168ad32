//! A fleet whose jobs add notes, and whose clock a test moves.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use catalog::TenantId;
use catalog::tokens::TokenScope;
use serde::{Deserialize, Serialize};
use tenant_router::jobs::JobRecord;
use tenant_router::{Job, JobError, JobOptions, JobRun, OperatorAccess, Read, Role, Router, Tenant, Write};

use crate::world::{World, open};

/// Adds a note with this text.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct AddNote {
    pub(crate) text: String,
}

impl Job for AddNote {
    const KIND: &'static str = "add-note";
}

pub(crate) fn add_note(text: &str) -> AddNote {
    AddNote { text: text.to_owned() }
}

/// Adds the note and ends the run in one transaction.
pub(crate) async fn write_note(run: JobRun<AddNote>) -> Result<(), JobError> {
    let mut tx = run.tenant().write();
    tx.execute("insert into notes (body) values ($1)", [run.job().text.as_str()]).await?;
    run.finish(&mut tx).await?;
    tx.commit().await?;
    Ok(())
}

pub(crate) const DAY: i64 = 24 * 3_600_000;

/// A fleet whose clock a test moves.
pub(crate) struct JobWorld {
    pub(crate) world: World,
    pub(crate) now: Arc<AtomicI64>,
    pub(crate) router: Router,
    pub(crate) token: String,
}

impl JobWorld {
    pub(crate) async fn start(names: &[&str]) -> (Self, Vec<TenantId>) {
        let now = Arc::new(AtomicI64::new(1_800_000_000_000));
        let shown = Arc::clone(&now);
        let world = World::with_clock(Arc::new(move || shown.load(Ordering::Relaxed))).await;
        let ids = world.tenants(names).await;
        let (router, token) = (world.router().await, world.token(TokenScope::Service { role: Role::Manager }).await);
        (Self { world, now, router, token }, ids)
    }

    /// Another process of the application.
    pub(crate) async fn other_router(&self) -> Router {
        Router::builder(self.world.other_catalog().await).engine(self.world.engine.clone()).build().await.unwrap()
    }

    pub(crate) async fn open(&self, name: &str) -> Tenant<Write> {
        open(&self.router, name, &self.token).await.unwrap()
    }

    pub(crate) async fn enqueue(&self, name: &str, text: &str, options: JobOptions) -> String {
        self.open(name).await.enqueue(&add_note(text), options).await.unwrap()
    }

    pub(crate) async fn run_due(&self) {
        self.router.job_runner().handle(write_note).run_due().await.unwrap();
    }

    pub(crate) fn advance(&self, ms: i64) {
        self.now.fetch_add(ms, Ordering::Relaxed);
    }

    /// The notes that jobs have added.
    pub(crate) async fn notes(&self, name: &str) -> Vec<String> {
        let tenant: Tenant<Read> = open(&self.router, name, &self.token).await.unwrap();
        tenant.query_as("select body from notes where id > 3 order by id", ()).fetch_all().await.unwrap()
    }

    pub(crate) async fn list(&self, tenant: TenantId) -> Vec<JobRecord> {
        self.router.list_jobs(&operator(), tenant, None, 100).await.unwrap()
    }
}

pub(crate) fn operator() -> OperatorAccess {
    OperatorAccess::new("token:tok_1", "a test")
}
