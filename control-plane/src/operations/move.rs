//! move: a tenant's database to another server of the same engine.
//!
//! *look* makes sure that the other server answers; *freeze* stops writers, reads go on; *copy* fills the new placement
//! and proves that it holds the same rows; *switch* stamps the new one active and the old one moved, and flips the
//! catalog. When copying fails the tenant serves where it was. The old database is kept for a while.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use catalog::tenants::Flip;
use catalog::{ReadTx, ServerId, ServerRecord, ServerState, TenantId, TenantRecord, TenantState};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tenant_engine::{Engine, EngineKind, Expected, IdentityState, Placement};

use super::build::{self, Built};
use super::fence::{self, Fence};
use super::swap::{self, Swap, Times, Why};
use super::{Effect, Fleet, Left, Operation, Outcome, Placements, Plan, Seen, Step, Targets, image, thaw};
use crate::error::{Error, Result};

/// Where to.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Params {
    /// The name of a server; `None`: any that takes tenants, spread evenly.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub to: Option<String>,
    /// The servers that `to` meant at submission; filled there.
    #[serde(default)]
    pub servers: Vec<Target>,
    /// Tenants for whom the server that their id points to had no room at submission, and where they go instead;
    /// filled there.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub elsewhere: BTreeMap<TenantId, ServerId>,
    /// The server that the selection named: a tenant that is elsewhere by now has left it. Filled at submission.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<ServerId>,
}

/// A server that may get tenants.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Target {
    /// Which.
    pub id: ServerId,
    /// What its databases run on.
    pub engine: EngineKind,
    /// As operators call it.
    pub name: String,
}

/// States in which a tenant has a server, even when it has no database now.
const STATES: &[TenantState] = &[TenantState::Active, TenantState::Suspended, TenantState::Archived];

const FREEZE: &str = "freeze";
const COPY: &str = "copy";
const SWITCH: &str = "switch";

#[async_trait]
impl Operation for Params {
    fn kind(&self) -> &'static str {
        "move"
    }

    fn targets(&self) -> Targets {
        Targets::Selected(STATES)
    }

    fn placements(&self) -> Placements {
        Placements::Fresh
    }

    async fn look(&mut self, tx: &mut ReadTx, seen: &mut Seen) -> Result<()> {
        seen.servers = catalog::servers::list(tx).await?;
        self.from = seen.server;
        let usable = |server: &&ServerRecord| server.state == ServerState::Active;
        let all = seen.servers.iter().map(|(server, _)| server);
        self.servers = match &self.to {
            Some(name) => vec![named(all, name)?],
            None => all.filter(usable).map(target).collect(),
        };
        // An archived one takes no room before it wakes.
        let has_database = seen.tenants.iter().filter(|tenant| tenant.placement.is_some());
        let tenants: Vec<_> = has_database.map(|tenant| (tenant.id, tenant.server_id)).collect();
        self.spread(&tenants, &seen.servers)
    }

    fn plan(&self, seen: &Seen) -> Result<Plan> {
        let mut plan = Plan::default();
        for tenant in &seen.tenants {
            let from = seen.servers.iter().map(|(server, _)| server).find(|server| server.id == tenant.server_id);
            let from = from.ok_or_else(|| Error::internal("a tenant without a server"))?;
            if self.to.is_some() && self.servers.iter().any(|to| to.id == from.id) {
                plan.skip(&tenant.name, || "is there already".to_owned());
                continue;
            }
            let to = self.destination(tenant.id, from.id, from.engine)?;
            plan.step(tenant.id, &tenant.name, || format!("moves from {} to {}", from.name, to.name));
        }
        Ok(plan)
    }

    fn has_left(&self, tenant: &TenantRecord) -> Option<Left> {
        let moved = self.from.is_some_and(|from| from != tenant.server_id);
        let left = Left::by_state(tenant, STATES);
        left.or_else(|| moved.then(|| Left::is("tenant_left", tenant, "on another server now")))
    }

    async fn other_server(&self, fleet: &Fleet, step: &Step) -> Option<ServerId> {
        self.to(fleet, step).await.ok()
    }

    async fn step(&self, fleet: &Fleet, step: &Step) -> Outcome {
        match step.phase.as_str() {
            "" => self.look_there(fleet, step).await,
            FREEZE => freeze(fleet, step).await,
            COPY => self.copy_or_thaw(fleet, step).await,
            SWITCH => switch(fleet, step).await,
            thaw::THAW => thaw::thaw(fleet, step).await,
            _ => Err(step.unknown_phase()),
        }
        .into()
    }

    async fn give_up(&self, fleet: &Fleet, step: &Step, error: Error) -> Outcome {
        thaw::give_up_phase(fleet, step, error).await
    }
}

fn target(server: &ServerRecord) -> Target {
    Target { id: server.id, engine: server.engine, name: server.name.clone() }
}

fn named<'a>(mut all: impl Iterator<Item = &'a ServerRecord>, name: &str) -> Result<Target> {
    let found = all.find(|server| server.name == name).ok_or_else(|| {
        Error::new(404, "not_found", format!("there is no server '{name}'")).try_next("fleetctl server list")
    })?;
    match found.state {
        ServerState::Active => Ok(target(found)),
        _ => Err(Error::new(409, "server_cordoned", format!("server '{name}' takes no tenants"))
            .try_next(format!("fleetctl server uncordon {name}"))),
    }
}

impl Params {
    /// PURE: by the tenant's id, so that a repeated step goes to the same place and many tenants spread evenly.
    fn destination(&self, tenant: TenantId, from: ServerId, engine: EngineKind) -> Result<&Target> {
        let chosen = self.elsewhere.get(&tenant);
        let all = self.candidates(tenant, from, engine);
        all.into_iter().find(|to| chosen.is_none_or(|chosen| *chosen == to.id)).ok_or_else(|| {
            let detail = format!("there is no other server of {engine} that takes tenants");
            Error::new(409, "no_destination", detail).try_next("fleetctl server add")
        })
    }

    /// Where a tenant may go, the best first.
    fn candidates(&self, tenant: TenantId, from: ServerId, engine: EngineKind) -> Vec<&Target> {
        let mut fits: Vec<&Target> = self.servers.iter().filter(|to| to.engine == engine && to.id != from).collect();
        if let Some(count) = u64::try_from(fits.len()).ok().filter(|count| *count > 0) {
            let first = usize::try_from(tenant.uuid().as_u64_pair().1 % count).unwrap_or_default();
            fits.rotate_left(first);
        }
        fits
    }

    /// Sends on whom the server does not take that their id points to.
    fn spread(&mut self, tenants: &[(TenantId, ServerId)], servers: &[(ServerRecord, i64)]) -> Result<()> {
        let room = |(server, tenants): &(ServerRecord, i64)| {
            server.tenants_max.map(|max| (server.id, max.saturating_sub(*tenants)))
        };
        let mut room: HashMap<ServerId, i64> = servers.iter().filter_map(room).collect();
        let (mut elsewhere, mut left) = (BTreeMap::new(), 0_u64);
        for (tenant, from) in tenants {
            let from = servers.iter().map(|(server, _)| server).find(|server| server.id == *from);
            let stays = |from: &ServerId| self.to.is_some() && self.servers.iter().any(|to| to.id == *from);
            let Some(from) = from.filter(|from| !stays(&from.id)) else { continue };
            let fits = self.candidates(*tenant, from.id, from.engine);
            match fits.iter().position(|to| room.get(&to.id).is_none_or(|room| *room > 0)) {
                Some(index) => {
                    room.entry(fits[index].id).and_modify(|room| *room -= 1);
                    if index > 0 {
                        elsewhere.insert(*tenant, fits[index].id);
                    }
                }
                // Where there is none at all, the plan says so.
                None if fits.is_empty() => {}
                None => left += 1,
            }
        }
        self.elsewhere = elsewhere;
        match left {
            0 => Ok(()),
            _ => Err(self.full(left)),
        }
    }

    fn full(&self, left: u64) -> Error {
        let detail = match &self.to {
            Some(name) => format!("server '{name}' has no room for {left} of them"),
            None => format!("the servers that take tenants have no room for {left} of them"),
        };
        Error::new(409, "server_full", detail).try_next("fleetctl server add")
    }

    /// Whether another move has brought the tenant where this one was to.
    fn is_there(&self, tenant: &TenantRecord) -> bool {
        let chosen = self.elsewhere.get(&tenant.id);
        let only = self.to.is_some() && self.servers.iter().any(|to| to.id == tenant.server_id);
        chosen.map_or(only, |chosen| *chosen == tenant.server_id)
    }

    async fn to(&self, fleet: &Fleet, step: &Step) -> Result<ServerId> {
        let engine = fleet.server(step.tenant.server_id).await?.engine();
        Ok(self.destination(step.tenant.id, step.tenant.server_id, engine)?.id)
    }

    /// Nothing is stopped before the other server is known to answer and to have room.
    async fn look_there(&self, fleet: &Fleet, step: &Step) -> Result<Outcome> {
        fence::require_unblocked(step)?;
        step.require_state(STATES)?;
        if self.is_there(&step.tenant) {
            return Ok(Outcome::done(json!({"to": step.tenant.server_id, "why": "another move brought it there"})));
        }
        let to = self.to(fleet, step).await?;
        takes_tenants(fleet, to).await?;
        fleet.point("move: claimed").await;
        if step.tenant.state == TenantState::Archived {
            let flip = Flip { server_id: Some(to), ..Flip::of(step.tenant.id, step.tenant.generation) };
            let event = step.event("tenant.moved", json!({"to": to}));
            return Ok(Outcome::done(json!({"to": to})).with(Effect::Flip(flip)).with(Effect::Event(event)));
        }
        let server = fleet.server(to).await?;
        let survey = fleet.engine(server.engine())?.survey(&server).await?;
        let (source, from) = fleet.current(&step.tenant).await?;
        enough(&step.tenant.name, source.size(&from).await?, survey.disk_free_bytes)?;
        Ok(Outcome::next(FREEZE, json!({})))
    }

    async fn copy_or_thaw(&self, fleet: &Fleet, step: &Step) -> Result<Outcome> {
        let fence: Fence = step.facts()?;
        if !fence::stands(step, &fence) {
            return Ok(Outcome::next("", json!({})));
        }
        match self.copy(fleet, step).await {
            Ok(built) => Ok(Outcome::next(SWITCH, json!(Swap { built, fence, why: Why::Move }))),
            Err(error) => thaw::give_up(step, &fence, None, error),
        }
    }

    async fn copy(&self, fleet: &Fleet, step: &Step) -> Result<Built> {
        let (to, generation) = (self.to(fleet, step).await?, step.tenant.generation.next());
        if fleet.drop_leftovers_on(to, step, generation).await?.is_some() {
            return Err(build::serves_already(step));
        }
        let (source, from) = fleet.current(&step.tenant).await?;
        let (engine, at) = fleet.fresh_on(to, step, generation).await?;
        let frozen = step.expected(fleet.id(), &[IdentityState::Frozen]);
        let _one_of_few =
            fleet.images.acquire().await.map_err(|error| Error::internal("closing").with_source(error))?;
        fleet.point("move: copies").await;
        let picture = source.snapshot(&from, &frozen).await?;
        let building = step.identity(fleet.id(), generation, IdentityState::Building);
        let restored = engine.restore(&at, picture.image, step.tenant.id, &building).await?;
        fleet.point("move: filled").await;
        let expected = step.expected_at(fleet.id(), generation, &[IdentityState::Building]);
        // These are said, so they are no difference.
        let without: &[&str] = if restored.left_out.is_empty() { &[] } else { &image::TOLD };
        if let Err(error) = prove(step, (engine, &at, &expected), (source, &from, &frozen), without).await {
            engine.drop_database(&at, Some(&expected)).await?;
            return Err(error);
        }
        fleet.point("move: verified").await;
        Ok(Built {
            placement: at.reference().to_owned(),
            server: Some(to),
            generation,
            schema_version: restored.schema_version,
            release: step.tenant.release_id,
            size_bytes: restored.size_bytes,
            pin: step.tenant.pin,
            left_out: picture.info.left_out.into_iter().chain(restored.left_out).collect(),
        })
    }
}

type There<'a> = (&'a Arc<dyn Engine>, &'a Placement, &'a Expected);

/// Both hold the same rows, and the same objects of all classes but these.
async fn prove(
    step: &Step,
    (engine, at, expected): There<'_>,
    (source, from, frozen): There<'_>,
    without: &[&str],
) -> Result<()> {
    let (mut there, mut here) = tokio::try_join!(engine.fingerprint(at, expected), source.fingerprint(from, frozen))?;
    for print in [&mut there, &mut here] {
        print.objects.by_name.retain(|_, (class, _)| !without.contains(&class.as_str()));
    }
    match here.difference(&there) {
        None => Ok(()),
        Some(difference) => {
            let detail = format!("the copy of {} is not the same: {difference}", step.tenant.name);
            Err(Error::new(500, "copy_differs", detail))
        }
    }
}

/// Asked again before the flip: a server may be emptied or removed while something is copied to it.
async fn takes_tenants(fleet: &Fleet, to: ServerId) -> Result<()> {
    let found = catalog::servers::get(&mut fleet.catalog.read().await?, to).await?;
    match found {
        Some(server) if server.state == ServerState::Active => Ok(()),
        _ => Err(Error::new(409, "server_cordoned", "the server that it was to go to takes no tenants any more")
            .try_next("fleetctl server list")),
    }
}

/// A fifth more than the database: the copy, and what filling it takes.
fn enough(name: &str, size_bytes: u64, free: Option<u64>) -> Result<()> {
    let needed = size_bytes.saturating_add(size_bytes / 5);
    match free {
        Some(free) if free < needed => {
            let detail = format!("the server has {free} bytes free, {name} needs {needed}");
            Err(Error::new(507, "disk_full", detail))
        }
        _ => Ok(()),
    }
}

async fn freeze(fleet: &Fleet, step: &Step) -> Result<Outcome> {
    fleet.point("move: freezes").await;
    fence::require_unblocked(step)?;
    let fence = fence::freeze_sound(fleet, step).await?;
    fleet.point("move: frozen").await;
    Ok(Outcome::next(COPY, json!(fence)).with(Effect::Flip(fence::block(step))))
}

async fn switch(fleet: &Fleet, step: &Step) -> Result<Outcome> {
    let swap: Swap = step.facts()?;
    if let Some(to) = swap.built.server
        && let Err(error) = takes_tenants(fleet, to).await
        // No way leads back from there, and the tenant is better served on a server that is being emptied than not at all.
        && !swap.is_retired(fleet, step).await?
    {
        return thaw::give_up(step, &swap.fence, Some(&swap), error);
    }
    swap::exchange(fleet, step, told).await
}

fn told(step: &Step, swap: &Swap, times: Times) -> (&'static str, serde_json::Value) {
    let facts = json!({
        "from": step.tenant.server_id, "to": swap.built.server, "size_bytes": swap.built.size_bytes,
        "frozen_ms": times.frozen_ms,
    });
    ("tenant.moved", swap.built.told(facts))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(engine: EngineKind) -> Target {
        Target { id: ServerId::generate(), engine, name: "x".to_owned() }
    }

    #[test]
    fn tenants_spread_over_the_other_servers_of_their_engine_and_always_the_same_way() {
        let (a, b, c, pg) =
            (to(EngineKind::Sqlite), to(EngineKind::Sqlite), to(EngineKind::Sqlite), to(EngineKind::Postgres));
        let (from, ids) = (a.id, [b.id, c.id]);
        let params = Params { servers: vec![a, b, c, pg], ..Params::default() };
        let mut counts = [0; 2];
        for _ in 0..400 {
            let tenant = TenantId::generate();
            let found = params.destination(tenant, from, EngineKind::Sqlite).unwrap().id;
            assert_eq!(params.destination(tenant, from, EngineKind::Sqlite).unwrap().id, found);
            counts[ids.iter().position(|id| *id == found).unwrap()] += 1;
        }
        assert!(counts.iter().all(|count| *count > 100), "{counts:?}");
        let alone = params.destination(TenantId::generate(), params.servers[3].id, EngineKind::Postgres);
        assert_eq!(alone.unwrap_err().code, "no_destination");
    }

    #[test]
    fn a_copy_needs_a_fifth_more_than_the_database() {
        assert!(enough("acme", 0, Some(0)).is_ok());
        assert!(enough("acme", 4, Some(4)).is_ok() && enough("acme", 4, Some(3)).is_err());
        assert!(enough("acme", 1_000, Some(1_200)).is_ok() && enough("acme", u64::MAX, None).is_ok());
        assert_eq!(enough("acme", 1_000, Some(1_199)).unwrap_err().code, "disk_full");
        assert_eq!(enough("acme", u64::MAX, Some(u64::MAX - 1)).unwrap_err().code, "disk_full");
    }

    fn server(name: &str, tenants_max: Option<i64>) -> ServerRecord {
        let (id, engine, state) = (ServerId::generate(), EngineKind::Sqlite, ServerState::Active);
        let (name, base) = (name.to_owned(), "/srv".to_owned());
        ServerRecord { id, name, engine, base, state, tenants_max, system_id: None, created_at: 0 }
    }

    fn tenants(count: usize, from: ServerId) -> Vec<(TenantId, ServerId)> {
        (0..count).map(|_| (TenantId::generate(), from)).collect()
    }

    #[test]
    fn a_server_gets_no_more_tenants_than_it_may_have() {
        let servers = [(server("from", None), 30), (server("small", Some(12)), 7), (server("large", Some(100)), 0)];
        let to = servers[1..].iter().map(|(server, _)| target(server)).collect();
        let mut params = Params { servers: to, ..Params::default() };
        let tenants = tenants(60, servers[0].0.id);
        params.spread(&tenants, &servers).unwrap();
        let small = servers[1].0.id;
        let goes =
            |(tenant, from): &(TenantId, ServerId)| params.destination(*tenant, *from, EngineKind::Sqlite).unwrap().id;
        assert_eq!(tenants.iter().filter(|tenant| goes(tenant) == small).count(), 5, "about 30 point there");
    }

    #[test]
    fn a_plan_that_has_no_room_is_refused() {
        let servers = [(server("from", None), 30), (server("small", Some(12)), 7)];
        let mut params = Params { servers: vec![target(&servers[1].0)], ..Params::default() };
        let from = servers[0].0.id;
        let refused = params.spread(&tenants(6, from), &servers).unwrap_err();
        assert_eq!((&*refused.code, refused.detail.contains("no room for 1 of them")), ("server_full", true));
        params.spread(&tenants(5, from), &servers).unwrap();
    }
}
