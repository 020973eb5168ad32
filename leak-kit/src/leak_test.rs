//! [`LeakTest`]: one run of the kit, from its parts to the report.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use http::Method;

use crate::application::TestedApplication;
use crate::databases::{FleetControl, TenantDatabases};
use crate::error::{KitError, Result};
use crate::exceptions::RouteExceptions;
use crate::exchange::Exchange;
use crate::findings::ProbeOutcome;
use crate::inventory::RouteInventory;
use crate::outputs::WatchedOutput;
use crate::plant::plant_data;
use crate::probes::{PROBES, Probe};
use crate::report::LeakReport;
use crate::route::{Route, RouteClass};
use crate::session::{Call, Session, SessionExtras};
use crate::views::TenantView;
use crate::webhooks::WebhookSender;
use crate::world::{Side, World};

/// How long background work of an application may take, unless the test says otherwise.
const SETTLE: Duration = Duration::from_millis(1_500);

/// A run before it starts.
pub struct LeakTest {
    application: Arc<dyn TestedApplication>,
    inventory: RouteInventory,
    world: World,
    extras: SessionExtras,
    exceptions: RouteExceptions,
    only: BTreeSet<String>,
}

impl LeakTest {
    /// A test of this application with these routes and tenants.
    #[must_use]
    pub fn new(application: Arc<dyn TestedApplication>, inventory: RouteInventory, world: World) -> Self {
        let extras = SessionExtras { settle: SETTLE, ..SessionExtras::default() };
        Self { application, inventory, world, extras, exceptions: RouteExceptions::default(), only: BTreeSet::new() }
    }

    /// Plants rows in the tenants' databases, and compares the databases before and after.
    #[must_use]
    pub fn databases(mut self, databases: Arc<dyn TenantDatabases>) -> Self {
        self.extras.databases = Some(databases);
        self
    }

    /// Changes the fleet between requests.
    #[must_use]
    pub fn fleet(mut self, fleet: Arc<dyn FleetControl>) -> Self {
        self.extras.fleet = Some(fleet);
        self
    }

    /// Searches a log, a file or a directory at the end.
    #[must_use]
    pub fn output(mut self, output: WatchedOutput) -> Self {
        self.extras.outputs.push(output);
        self
    }

    /// Signs webhooks like this service.
    #[must_use]
    pub fn webhook(mut self, sender: WebhookSender) -> Self {
        self.extras.webhooks.push(sender);
        self
    }

    /// Leaves routes out.
    #[must_use]
    pub fn exceptions(self, exceptions: RouteExceptions) -> Self {
        Self { exceptions, ..self }
    }

    /// How long background work of the application may take. The default is 1.5 s.
    #[must_use]
    pub fn settle(mut self, settle: Duration) -> Self {
        self.extras.settle = settle;
        self
    }

    /// Runs only these probes.
    ///
    /// # Errors
    /// `probe_unknown` for a name that no probe has.
    pub fn only(mut self, names: impl IntoIterator<Item = String>) -> Result<Self> {
        self.only = names.into_iter().collect();
        match self.only.iter().find(|name| PROBES.iter().all(|probe| probe.name != **name)) {
            Some(name) => {
                let known: Vec<_> = PROBES.iter().map(|probe| probe.name).collect();
                Err(KitError::new("probe_unknown", format!("{name:?} is not a probe; use {}", known.join(", "))))
            }
            None => Ok(self),
        }
    }

    /// Plants data and runs the probes.
    ///
    /// # Errors
    /// When the application does not answer, or a tenant does not see its own data: then no probe would mean anything.
    pub async fn run(self) -> Result<LeakReport> {
        let Self { application, inventory, world, extras, exceptions, only } = self;
        require_two_tenants(&world)?;
        let (left_out, routes): (Vec<Route>, Vec<Route>) =
            inventory.routes().iter().cloned().partition(|route| exceptions.contains(&route.label()));
        let session = Session::new(application, routes, world, extras, &random_seed());
        plant_data(&session).await?;
        require_own_data(&session).await?;
        let mut outcomes = Vec::new();
        for probe in PROBES.iter().filter(|probe| only.is_empty() || only.contains(probe.name)) {
            outcomes.push(run_probe(probe, &session).await?);
        }
        if only.is_empty() {
            delete_own_rows(&session).await?;
        }
        let uncovered = if only.is_empty() { uncovered_routes(&session) } else { BTreeMap::new() };
        let missing = left_out.iter().map(Route::label).collect();
        let needless = exceptions.needless(&missing);
        Ok(LeakReport::new(&session, outcomes, uncovered, needless, left_out.len()))
    }
}

/// Canaries of this run differ from those of other runs, which may still be in the data.
fn random_seed() -> [u8; 8] {
    RandomState::new().hash_one(0).to_be_bytes()
}

async fn run_probe(probe: &Probe, session: &Session) -> Result<ProbeOutcome> {
    let mut outcome = ProbeOutcome::new(probe.name);
    (probe.run)(session, &mut outcome).await?;
    Ok(outcome)
}

/// Two equal tenants would see the same data, and no leak could be told.
fn require_two_tenants(world: &World) -> Result<()> {
    let (first, second) = (world.tenant(Side::First), world.tenant(Side::Second));
    if first.credential == second.credential {
        return Err(KitError::new("tenants_equal", "both tenants have the same credential"));
    }
    if world.names_tenants() && first.name == second.name {
        return Err(KitError::new("tenants_equal", "both tenants have the same name"));
    }
    if first.credential.is_empty() || second.credential.is_empty() {
        return Err(KitError::new("credential_missing", "a tenant has no credential"));
    }
    Ok(())
}

/// Each tenant must see a canary of its own. Otherwise the data was not planted, or a credential does not count.
async fn require_own_data(session: &Session) -> Result<()> {
    for side in Side::BOTH {
        let view = TenantView::read(session, side).await?;
        // A tenant that sees the other's data is a finding of the probes.
        let shows =
            |answer: &Exchange| Side::BOTH.into_iter().any(|side| answer.find(&session.canaries, side).is_some());
        if view.answers.values().any(shows) {
            continue;
        }
        let shown: Vec<String> = view
            .answers
            .values()
            .take(3)
            .map(|answer| format!("{}: {}", answer.request, answer.evidence(80)))
            .collect();
        let text = format!("tenant {} does not see its own data: {}", side.letter(), shown.join("; "));
        return Err(KitError::new("control_failed", text));
    }
    Ok(())
}

/// The last rows of each tenant are deleted through the application, so that these routes are tried, too.
async fn delete_own_rows(session: &Session) -> Result<()> {
    for route in session.writes().filter(|route| route.method == Method::DELETE) {
        for side in Side::BOTH {
            let mut call = Call::own(route, side);
            if let Some(parameter) = route.path_parameters().last() {
                let key = session.known().of(side, route, &parameter.name).last().cloned();
                let Some(key) = key else { continue };
                call = call.parameter(&parameter.name, &key);
                session.known().forget(side, route, &parameter.name, &key);
            }
            session.send_as_owner(call).await?;
        }
    }
    Ok(())
}

/// Routes that no probe could try, with the reason.
fn uncovered_routes(session: &Session) -> BTreeMap<String, &'static str> {
    let reason = |route: &Route| match route.class {
        None => Some("it has no class"),
        Some(RouteClass::Tenant) if session.reach_of(&route.label()).is_none() => {
            Some("it never answered its own tenant with success")
        }
        Some(_) => None,
    };
    session.all_routes().iter().filter_map(|route| Some((route.label(), reason(route)?))).collect()
}
