//! Engines that fail once, at a chosen call: before they act, or after they have acted and nobody hears of it. On
//! Postgres the servers can fail, too: they refuse the fleet's login, or are restarted in the middle of the call.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use postgres_fixture::Cluster;
use secrecy::SecretString;
use tenant_engine::{
    Connections, Depth, Engine, EngineKind, Error, ErrorKind, Expected, Fingerprint, Found, Identity, Image,
    Inspection, Listing, Migrated, MigrationSet, Placement, Pool, Restored, Result, Server, Snapshot, Survey, Template,
    TenantId,
};

use crate::world::On;

/// When a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    Before,
    After,
    /// The servers refuse new connections of the fleet's role during the call; so do the programs that dump and restore.
    Refused,
    /// The servers are restarted while the call runs.
    Restarted,
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
pub(crate) struct Script(Mutex<State>, Option<Arc<[Cluster; 2]>>);

impl Script {
    pub(crate) fn on(on: &On) -> Self {
        let servers = if let On::Postgres(clusters) = on { Some(Arc::clone(clusters)) } else { None };
        Self(Mutex::default(), servers)
    }

    fn refuse(&self) -> Refused<'_> {
        self.let_in("nologin");
        Refused(self)
    }

    fn let_in(&self, word: &str) {
        for server in self.1.iter().flat_map(|servers| servers.iter()) {
            server.psql("postgres", &format!("alter role {} {word}", postgres_fixture::ROLE));
        }
    }

    async fn restart(&self) {
        tokio::time::sleep(WORKED_FOR).await;
        let Some(servers) = self.1.clone() else { return };
        let restart = move || {
            for server in servers.iter() {
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
            Some(When::Restarted) => tokio::join!($self.inner.$name($($argument),*), $self.script.restart()).0,
        }
    };
}

#[async_trait]
impl Engine for Faulty {
    fn kind(&self) -> EngineKind {
        self.inner.kind()
    }

    async fn survey(&self, server: &Server) -> Result<Survey> {
        verb!(self.survey(server))
    }

    async fn template(&self, on: &Server, set: &MigrationSet) -> Result<Arc<Template>> {
        verb!(self.template(on, set))
    }

    async fn provision(&self, at: &Placement, template: &Template, identity: &Identity) -> Result<()> {
        verb!(self.provision(at, template, identity))
    }

    async fn connect(&self, at: &Placement, expected: &Expected) -> Result<Pool> {
        verb!(self.connect(at, expected))
    }

    async fn migrate(
        &self,
        at: &Placement,
        expected: &Expected,
        set: &MigrationSet,
        target: Option<i64>,
    ) -> Result<Migrated> {
        verb!(self.migrate(at, expected, set, target))
    }

    async fn snapshot(&self, at: &Placement, expected: &Expected) -> Result<Snapshot> {
        verb!(self.snapshot(at, expected))
    }

    async fn restore(&self, at: &Placement, image: Image, source: TenantId, identity: &Identity) -> Result<Restored> {
        verb!(self.restore(at, image, source, identity))
    }

    async fn adopt(&self, at: &Placement, source: &SecretString, identity: &Identity) -> Result<Restored> {
        verb!(self.adopt(at, source, identity))
    }

    async fn stamp(&self, at: &Placement, expected: &Expected, identity: &Identity) -> Result<()> {
        verb!(self.stamp(at, expected, identity))
    }

    async fn freeze(&self, at: &Placement, expected: &Expected, identity: &Identity) -> Result<()> {
        verb!(self.freeze(at, expected, identity))
    }

    async fn drop_database(&self, at: &Placement, expected: Option<&Expected>) -> Result<()> {
        verb!(self.drop_database(at, expected))
    }

    async fn databases(&self, on: &Server, of: Option<TenantId>) -> Result<Listing> {
        verb!(self.databases(on, of))
    }

    async fn quarantine(&self, on: &Server, found: &Found, expected: Option<&Expected>, label: &str) -> Result<String> {
        verb!(self.quarantine(on, found, expected, label))
    }

    async fn size(&self, at: &Placement) -> Result<u64> {
        verb!(self.size(at))
    }

    async fn inspect(&self, at: &Placement, expected: Option<&Expected>, depth: Depth) -> Result<Inspection> {
        verb!(self.inspect(at, expected, depth))
    }

    async fn fingerprint(&self, at: &Placement, expected: &Expected) -> Result<Fingerprint> {
        verb!(self.fingerprint(at, expected))
    }

    fn connections(&self, server: &Server) -> Option<Connections> {
        self.inner.connections(server)
    }

    fn set_connections_max(&self, server: &Server, connections: u64) {
        self.inner.set_connections_max(server, connections);
    }
}
