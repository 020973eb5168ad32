//! Engines that fail once, at a chosen call: before they act, or after they have acted and nobody hears of it. On
//! Postgres the servers can fail, too: they refuse the fleet's login, or are restarted in the middle of the call.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use secrecy::SecretString;
use tenant_engine::{
    ConnectionUsage, DatabaseFingerprint, DatabaseServer, DatabaseTemplate, Engine, EngineKind, Error, ErrorKind,
    ExpectedIdentity, Identity, Inspection, InspectionDepth, LedgerName, ListedObject, MigrationOutcome, MigrationSet,
    Placement, Pool, RestoreOutcome, Result, ServerListing, ServerSurvey, Snapshot, SnapshotImage, TenantId,
};

use crate::world::{On, PostgresServers};

/// When a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    Before,
    After,
    /// The servers refuse new connections of the fleet's role during the call; so do the programs that dump and restore.
    Refused,
    /// The servers are restarted while the call runs.
    Restarted,
    /// It does not fail: it waits until the test lets it go on.
    Held,
}

/// How long a call has run when its servers are restarted: it is at work by then.
const WORKED_FOR: Duration = Duration::from_millis(15);

#[derive(Debug, Default)]
struct State {
    /// Calls until the one that fails, it included.
    left: Option<(usize, When)>,
    met: Option<&'static str>,
}

/// Which call fails next, and the servers that can fail.
#[derive(Debug, Default)]
pub(crate) struct Script(Mutex<State>, Option<Arc<PostgresServers>>, tokio::sync::Notify);

impl Script {
    pub(crate) fn on(on: &On) -> Self {
        let servers = if let On::Postgres(servers) = on { Some(Arc::clone(servers)) } else { None };
        Self(Mutex::default(), servers, tokio::sync::Notify::new())
    }

    fn refuse(&self) -> Refused<'_> {
        self.let_in("nologin");
        Refused(self)
    }

    fn let_in(&self, word: &str) {
        for server in self.1.iter().flat_map(|servers| servers.started()) {
            server.psql("postgres", &format!("alter role {} {word}", postgres_fixture::ROLE));
        }
    }

    async fn restart(&self) {
        tokio::time::sleep(WORKED_FOR).await;
        let Some(servers) = self.1.clone() else { return };
        let restart = move || {
            for server in servers.started() {
                server.stop();
                server.start_again();
            }
        };
        tokio::task::spawn_blocking(restart).await.unwrap();
    }

    /// The `call`-th call from now fails.
    pub(crate) fn fail(&self, call: usize, when: When) {
        *self.0.lock().unwrap() = State { left: Some((call, when)), met: None };
    }

    /// Waits until the next call that is chosen has begun.
    pub(crate) async fn begun(&self) {
        while self.0.lock().unwrap().met.is_none() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Lets the call that is held go on.
    pub(crate) fn let_go(&self) {
        self.2.notify_one();
    }

    /// Which call failed; none fails from now on.
    pub(crate) fn met(&self) -> Option<&'static str> {
        std::mem::take(&mut *self.0.lock().unwrap()).met
    }

    fn fails(&self, verb: &'static str) -> Option<When> {
        let mut state = self.0.lock().unwrap();
        let (left, when) = state.left?;
        state.left = (left > 1).then_some((left - 1, when));
        if left > 1 {
            return None;
        }
        state.met = Some(verb);
        Some(when)
    }
}

/// Ends the refusal with its call, also with one that nobody waits for any more.
struct Refused<'a>(&'a Script);

impl Drop for Refused<'_> {
    fn drop(&mut self) {
        self.0.let_in("login");
    }
}

/// An engine that follows a script.
#[derive(Debug)]
pub(crate) struct Faulty {
    pub(crate) inner: Arc<dyn Engine>,
    pub(crate) script: Arc<Script>,
}

fn scripted() -> Error {
    Error::new(ErrorKind::Internal, "scripted")
}

macro_rules! verb {
    ($self:ident.$name:ident($($argument:expr),*)) => {
        match $self.script.fails(stringify!($name)) {
            None => $self.inner.$name($($argument),*).await,
            Some(When::Before) => Err(scripted()),
            Some(When::After) => $self.inner.$name($($argument),*).await.and_then(|_| Err(scripted())),
            Some(When::Refused) => {
                let _refused = $self.script.refuse();
                $self.inner.$name($($argument),*).await
            }
            Some(When::Held) => {
                $self.script.2.notified().await;
                $self.inner.$name($($argument),*).await
            }
            Some(When::Restarted) => tokio::join!($self.inner.$name($($argument),*), $self.script.restart()).0,
        }
    };
}

#[async_trait]
impl Engine for Faulty {
    fn kind(&self) -> EngineKind {
        self.inner.kind()
    }

    async fn survey_server(&self, server: &DatabaseServer) -> Result<ServerSurvey> {
        verb!(self.survey_server(server))
    }

    async fn prepare_template(&self, on: &DatabaseServer, set: &MigrationSet) -> Result<Arc<DatabaseTemplate>> {
        verb!(self.prepare_template(on, set))
    }

    async fn provision_database(&self, at: &Placement, template: &DatabaseTemplate, identity: &Identity) -> Result<()> {
        verb!(self.provision_database(at, template, identity))
    }

    async fn open_pool(&self, at: &Placement, expected: &ExpectedIdentity) -> Result<Pool> {
        verb!(self.open_pool(at, expected))
    }

    async fn migrate_database(
        &self,
        at: &Placement,
        expected: &ExpectedIdentity,
        set: &MigrationSet,
        target: Option<i64>,
    ) -> Result<MigrationOutcome> {
        verb!(self.migrate_database(at, expected, set, target))
    }

    async fn take_snapshot(&self, at: &Placement, expected: &ExpectedIdentity) -> Result<Snapshot> {
        verb!(self.take_snapshot(at, expected))
    }

    async fn restore_database(
        &self,
        at: &Placement,
        image: SnapshotImage,
        source: TenantId,
        identity: &Identity,
    ) -> Result<RestoreOutcome> {
        verb!(self.restore_database(at, image, source, identity))
    }

    async fn adopt_database(
        &self,
        at: &Placement,
        source: &SecretString,
        identity: &Identity,
        ledger: &LedgerName,
    ) -> Result<RestoreOutcome> {
        verb!(self.adopt_database(at, source, identity, ledger))
    }

    async fn stamp_identity(&self, at: &Placement, expected: &ExpectedIdentity, identity: &Identity) -> Result<()> {
        verb!(self.stamp_identity(at, expected, identity))
    }

    async fn freeze_database(&self, at: &Placement, expected: &ExpectedIdentity, identity: &Identity) -> Result<()> {
        verb!(self.freeze_database(at, expected, identity))
    }

    async fn drop_database(&self, at: &Placement, expected: Option<&ExpectedIdentity>) -> Result<()> {
        verb!(self.drop_database(at, expected))
    }

    async fn list_databases(&self, on: &DatabaseServer, of: Option<TenantId>) -> Result<ServerListing> {
        verb!(self.list_databases(on, of))
    }

    async fn quarantine_object(
        &self,
        on: &DatabaseServer,
        found: &ListedObject,
        expected: Option<&ExpectedIdentity>,
        label: &str,
    ) -> Result<String> {
        verb!(self.quarantine_object(on, found, expected, label))
    }

    async fn database_size(&self, at: &Placement) -> Result<u64> {
        verb!(self.database_size(at))
    }

    async fn inspect_database(
        &self,
        at: &Placement,
        expected: Option<&ExpectedIdentity>,
        depth: InspectionDepth,
    ) -> Result<Inspection> {
        verb!(self.inspect_database(at, expected, depth))
    }

    async fn compute_fingerprint(&self, at: &Placement, expected: &ExpectedIdentity) -> Result<DatabaseFingerprint> {
        verb!(self.compute_fingerprint(at, expected))
    }

    fn connection_usage(&self, server: &DatabaseServer) -> Option<ConnectionUsage> {
        self.inner.connection_usage(server)
    }

    fn set_connections_max(&self, server: &DatabaseServer, connections: u64) {
        self.inner.set_connections_max(server, connections);
    }
}
