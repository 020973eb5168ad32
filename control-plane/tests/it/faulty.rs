//! Engines that fail once, at a chosen call: before they act, or after they have acted and nobody hears of it.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use secrecy::SecretString;
use tenant_engine::{
    Connections, Depth, Engine, EngineKind, Error, ErrorKind, Expected, Fingerprint, Found, Identity, Image,
    Inspection, Listing, Migrated, MigrationSet, Placement, Pool, Restored, Result, Server, Snapshot, Survey, Template,
    TenantId,
};

/// When a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    Before,
    After,
}

#[derive(Debug, Default)]
struct State {
    /// Calls until the one that fails, it included.
    left: Option<(usize, When)>,
    met: Option<&'static str>,
}

/// Which call fails next.
#[derive(Debug, Default)]
pub(crate) struct Script(Mutex<State>);

impl Script {
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
