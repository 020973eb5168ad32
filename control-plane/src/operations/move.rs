//! move: takes a tenant's database to another server of the same engine.
//!
//! *look* checks that the other server answers. *freeze* stops writers; reads continue. *copy* fills the new placement
//! and proves that it holds the same rows. *switch* stamps the new database active and the old one moved, and updates
//! the catalog. If copying fails, the tenant serves where it was. The old database is retained for a while.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use catalog::replacements::{ReplacementKind, ReplacementRecord};
use catalog::tenants::TenantUpdate;
use catalog::{ReadTx, ServerId, ServerRecord, ServerState, TenantId, TenantRecord, TenantState};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tenant_engine::{Engine, EngineKind, ExpectedIdentity, IdentityState, Placement};

use crate::error::{Error, ErrorKind, Result};
use crate::operation::plan::FreePlaces;
use crate::operation::{
    CatalogEffect, ClaimedStep, ExclusionReason, FleetOperation, OperationTargets, PhaseOutcome, PlacementUse,
    PlanInput, StepContext, StepPlan,
};
use crate::replacement::build::{self, BuiltDatabase};
use crate::replacement::decide::{Decision, Question, decide};
use crate::replacement::swap::{self, SwapFacts, SwapTimes};
use crate::replacement::{act, fence, image, leftovers, observe, roll_back, state};

/// The parameters of a move.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct MoveParams {
    /// The name of the destination server. `None`: any server that takes tenants, spread evenly.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub to: Option<String>,
    /// The servers that `to` meant at submission. Filled at submission.
    #[serde(default)]
    pub servers: Vec<MoveTarget>,
    /// Tenants whose preferred server had no room at submission, each with the server that it goes to instead. Filled
    /// at submission.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub elsewhere: BTreeMap<TenantId, ServerId>,
    /// The server that the selection named. A tenant that is on another server by now has left the selection. Filled at
    /// submission.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<ServerId>,
}

/// A server that may receive tenants.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MoveTarget {
    /// The server's id.
    pub id: ServerId,
    /// The engine of the server's databases.
    pub engine: EngineKind,
    /// The server's name, as operators know it.
    pub name: String,
}

/// States in which a tenant has a server. An archived tenant has one without a database.
const STATES: &[TenantState] = &[TenantState::Active, TenantState::Suspended, TenantState::Archived];

const FREEZE: &str = "freeze";
const COPY: &str = "copy";
const SWITCH: &str = "switch";

#[async_trait]
impl FleetOperation for MoveParams {
    fn target_tenants(&self) -> OperationTargets {
        OperationTargets::Selected(STATES)
    }

    fn placement_use(&self) -> PlacementUse {
        PlacementUse::Fresh
    }

    async fn load_for_page(&mut self, tx: &mut ReadTx, seen: &mut PlanInput) -> Result<()> {
        seen.servers = catalog::servers::list_servers(tx).await?;
        self.from = seen.server;
        let usable = |server: &&ServerRecord| server.state == ServerState::Active;
        let all = seen.servers.iter().map(|(server, _)| server);
        self.servers = match &self.to {
            Some(name) => vec![target_by_name(all, name)?],
            None => all.filter(usable).map(as_target).collect(),
        };
        // An archived tenant takes no room before it wakes.
        let has_database = seen.tenants.iter().filter(|tenant| tenant.placement.is_some());
        let tenants: Vec<_> = has_database.map(|tenant| (tenant.id, tenant.server_id)).collect();
        let mut free = seen.free_places.take().unwrap_or_else(|| FreePlaces::of_servers(&seen.servers));
        self.spread_tenants(&tenants, &seen.servers, &mut free);
        seen.free_places = Some(free);
        Ok(())
    }

    fn plan_page(&self, seen: &PlanInput, plan: &mut StepPlan) -> Result<()> {
        for tenant in &seen.tenants {
            let from = seen.servers.iter().map(|(server, _)| server).find(|server| server.id == tenant.server_id);
            let from = from.ok_or_else(|| Error::internal("a tenant without a server"))?;
            if self.to.is_some() && self.servers.iter().any(|to| to.id == from.id) {
                plan.add_skipped(&tenant.name, || "is there already".to_owned());
                continue;
            }
            let to = self.choose_destination(tenant.id, from.id, from.engine)?;
            plan.add_step(tenant.id, &tenant.name, || format!("moves from {} to {}", from.name, to.name));
        }
        Ok(())
    }

    fn conclude_plan(&self, seen: &PlanInput, _plan: &mut StepPlan) -> Result<()> {
        match seen.free_places.as_ref().map_or(0, |free| free.lacking) {
            0 => Ok(()),
            lacking => Err(self.no_room(lacking)),
        }
    }

    fn exclusion_reason(&self, tenant: &TenantRecord) -> Option<ExclusionReason> {
        let moved = self.from.is_some_and(|from| from != tenant.server_id);
        let left = ExclusionReason::by_state(tenant, STATES);
        left.or_else(|| {
            moved.then(|| ExclusionReason::because_tenant_is(ErrorKind::TenantLeft, tenant, "on another server now"))
        })
    }

    async fn other_server(&self, context: &StepContext, step: &ClaimedStep) -> Option<ServerId> {
        self.destination_server(context, step).await.ok()
    }

    async fn run_phase(&self, context: &StepContext, step: &ClaimedStep) -> PhaseOutcome {
        match step.phase.as_str() {
            "" => self.check_destination(context, step).await,
            FREEZE => freeze_source(context, step).await,
            COPY => self.copy_or_give_up(context, step).await,
            SWITCH => switch_database(context, step).await,
            roll_back::ROLL_BACK => roll_back::roll_back(context, step).await,
            _ => Err(step.unknown_phase()),
        }
        .into()
    }

    async fn give_up(&self, context: &StepContext, step: &ClaimedStep, error: Error) -> PhaseOutcome {
        roll_back::roll_back_phase(context, step, error).await
    }
}

fn as_target(server: &ServerRecord) -> MoveTarget {
    MoveTarget { id: server.id, engine: server.engine, name: server.name.clone() }
}

fn target_by_name<'a>(mut all: impl Iterator<Item = &'a ServerRecord>, name: &str) -> Result<MoveTarget> {
    let found = all.find(|server| server.name == name).ok_or_else(|| {
        Error::new(ErrorKind::NotFound, format!("there is no server '{name}'")).try_next("fleetctl server list")
    })?;
    match found.state {
        ServerState::Active => Ok(as_target(found)),
        _ => Err(Error::new(ErrorKind::ServerCordoned, format!("server '{name}' takes no tenants"))
            .try_next(format!("fleetctl server uncordon {name}"))),
    }
}

impl MoveParams {
    /// PURE: chooses the destination by the tenant's id. A repeated step chooses the same server, and many tenants
    /// spread evenly.
    fn choose_destination(&self, tenant: TenantId, from: ServerId, engine: EngineKind) -> Result<&MoveTarget> {
        let chosen = self.elsewhere.get(&tenant);
        let all = self.candidate_servers(tenant, from, engine);
        all.into_iter().find(|to| chosen.is_none_or(|chosen| *chosen == to.id)).ok_or_else(|| {
            let detail = format!("there is no other server of {engine} that takes tenants");
            Error::new(ErrorKind::NoDestination, detail).try_next("fleetctl server add")
        })
    }

    /// The servers that a tenant may move to, best first.
    fn candidate_servers(&self, tenant: TenantId, from: ServerId, engine: EngineKind) -> Vec<&MoveTarget> {
        let mut fits: Vec<&MoveTarget> =
            self.servers.iter().filter(|to| to.engine == engine && to.id != from).collect();
        if let Some(count) = u64::try_from(fits.len()).ok().filter(|count| *count > 0) {
            let first = usize::try_from(tenant.uuid().as_u64_pair().1 % count).unwrap_or_default();
            fits.rotate_left(first);
        }
        fits
    }

    /// Assigns another server to each tenant whose preferred server has no room.
    fn spread_tenants(
        &mut self,
        tenants: &[(TenantId, ServerId)],
        servers: &[(ServerRecord, i64)],
        free: &mut FreePlaces,
    ) {
        for (tenant, from) in tenants {
            let from = servers.iter().map(|(server, _)| server).find(|server| server.id == *from);
            let stays = |from: &ServerId| self.to.is_some() && self.servers.iter().any(|to| to.id == *from);
            let Some(from) = from.filter(|from| !stays(&from.id)) else { continue };
            let fits = self.candidate_servers(*tenant, from.id, from.engine);
            match fits.iter().position(|to| free.by_server.get(&to.id).is_none_or(|places| *places > 0)) {
                Some(index) => {
                    free.by_server.entry(fits[index].id).and_modify(|places| *places -= 1);
                    if index > 0 {
                        self.elsewhere.insert(*tenant, fits[index].id);
                    }
                }
                // The plan reports that there is no destination at all.
                None if fits.is_empty() => {}
                None => free.lacking += 1,
            }
        }
    }

    fn no_room(&self, left: u64) -> Error {
        let detail = match &self.to {
            Some(name) => format!("server '{name}' has no room for {left} of them"),
            None => format!("the servers that take tenants have no room for {left} of them"),
        };
        Error::new(ErrorKind::ServerFull, detail).try_next("fleetctl server add")
    }

    /// Whether another move has already brought the tenant to this move's destination.
    fn is_already_moved(&self, tenant: &TenantRecord) -> bool {
        let chosen = self.elsewhere.get(&tenant.id);
        let only = self.to.is_some() && self.servers.iter().any(|to| to.id == tenant.server_id);
        chosen.map_or(only, |chosen| *chosen == tenant.server_id)
    }

    async fn destination_server(&self, context: &StepContext, step: &ClaimedStep) -> Result<ServerId> {
        let engine = context.load_server(step.tenant.server_id).await?.engine_kind();
        Ok(self.choose_destination(step.tenant.id, step.tenant.server_id, engine)?.id)
    }

    /// Checks that the other server answers and has room, before any writer is stopped.
    async fn check_destination(&self, context: &StepContext, step: &ClaimedStep) -> Result<PhaseOutcome> {
        fence::require_unblocked(step)?;
        step.require_state(STATES)?;
        if self.is_already_moved(&step.tenant) {
            return Ok(PhaseOutcome::step_done(
                json!({"to": step.tenant.server_id, "why": "another move brought it there"}),
            ));
        }
        let to = self.destination_server(context, step).await?;
        takes_tenants(context, to).await?;
        context.fault_point("move: claimed").await;
        if step.tenant.state == TenantState::Archived {
            let flip = TenantUpdate {
                server_id: Some(to),
                ..TenantUpdate::for_generation(step.tenant.id, step.tenant.generation)
            };
            let event = step.tenant_event("tenant.moved", json!({"to": to}));
            return Ok(PhaseOutcome::step_done(json!({"to": to}))
                .with_effect(CatalogEffect::UpdateTenant(flip))
                .with_effect(CatalogEffect::Event(event)));
        }
        let server = context.load_server(to).await?;
        let survey = context.engine_of_kind(server.engine_kind())?.survey_server(&server).await?;
        let (source, from) = context.current_database(&step.tenant).await?;
        require_space(&step.tenant.name, source.database_size(&from).await?, survey.disk_free_bytes)?;
        Ok(PhaseOutcome::next_phase(FREEZE, json!({})))
    }

    async fn copy_or_give_up(&self, context: &StepContext, step: &ClaimedStep) -> Result<PhaseOutcome> {
        let Some(open) = state::own_replacement(context, step).await? else {
            return Ok(PhaseOutcome::next_phase("", json!({})));
        };
        match self.copy_database(context, step).await {
            Ok(built) => {
                let new = state::new_database(&built, step);
                Ok(PhaseOutcome::next_phase(SWITCH, json!(SwapFacts { left_out: built.left_out }))
                    .with_effect(state::ready_effect(&open, new)))
            }
            Err(error) => roll_back::start_rollback(step, &open, error),
        }
    }

    async fn copy_database(&self, context: &StepContext, step: &ClaimedStep) -> Result<BuiltDatabase> {
        let (to, generation) = (self.destination_server(context, step).await?, step.tenant.generation.next());
        if leftovers::drop_earlier_attempts(context, to, step, generation).await?.is_some() {
            return Err(build::serves_already(step));
        }
        let (source, from) = context.current_database(&step.tenant).await?;
        let (engine, at) = context.fresh_placement_on(to, step, generation).await?;
        let frozen = step.expected_identity(context.fleet_id(), &[IdentityState::Frozen]);
        let _one_of_few =
            context.images.acquire().await.map_err(|error| Error::internal("closing").with_source(error))?;
        context.fault_point("move: copies").await;
        let picture = source.take_snapshot(&from, &frozen).await?;
        let building = step.identity_to_stamp(context.fleet_id(), generation, IdentityState::Building);
        let restored = engine.restore_database(&at, picture.image, step.tenant.id, &building).await?;
        context.fault_point("move: filled").await;
        let expected = step.expected_at(context.fleet_id(), generation, &[IdentityState::Building]);
        // The restore reports these objects as left out, so they do not count as a difference.
        let without: &[&str] = if restored.left_out.is_empty() { &[] } else { &image::TOLD };
        if let Err(error) = prove_copy(step, (engine, &at, &expected), (source, &from, &frozen), without).await {
            engine.drop_database(&at, Some(&expected)).await?;
            return Err(error);
        }
        context.fault_point("move: verified").await;
        Ok(BuiltDatabase {
            placement: at.catalog_reference().to_owned(),
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

type DestinationDatabase<'a> = (&'a Arc<dyn Engine>, &'a Placement, &'a ExpectedIdentity);

/// Proves that both databases hold the same rows and, except for the classes in `without`, the same objects.
async fn prove_copy(
    step: &ClaimedStep,
    (engine, at, expected): DestinationDatabase<'_>,
    (source, from, frozen): DestinationDatabase<'_>,
    without: &[&str],
) -> Result<()> {
    let (mut there, mut here) =
        tokio::try_join!(engine.compute_fingerprint(at, expected), source.compute_fingerprint(from, frozen))?;
    for print in [&mut there, &mut here] {
        print.objects.by_name.retain(|_, (class, _)| !without.contains(&class.as_str()));
    }
    match here.first_difference(&there) {
        None => Ok(()),
        Some(difference) => {
            let detail = format!("the copy of {} is not the same: {difference}", step.tenant.name);
            Err(Error::new(ErrorKind::CopyDiffers, detail))
        }
    }
}

/// Refuses a destination that takes no tenants. Checked again before the switch, because a server may be drained or
/// removed during the copy.
async fn takes_tenants(context: &StepContext, to: ServerId) -> Result<()> {
    let found = catalog::servers::get(&mut context.catalog.read().await?, to).await?;
    match found {
        Some(server) if server.state == ServerState::Active => Ok(()),
        _ => Err(Error::new(ErrorKind::ServerCordoned, "the destination server takes no tenants any more")
            .try_next("fleetctl server list")),
    }
}

/// Requires a fifth more free space than the database's size: room for the copy and for filling it.
fn require_space(name: &str, size_bytes: u64, free: Option<u64>) -> Result<()> {
    let needed = size_bytes.saturating_add(size_bytes / 5);
    match free {
        Some(free) if free < needed => {
            let detail = format!("the server has {free} bytes free, {name} needs {needed}");
            Err(Error::new(ErrorKind::DiskFull, detail).mark_permanent())
        }
        _ => Ok(()),
    }
}

async fn freeze_source(context: &StepContext, step: &ClaimedStep) -> Result<PhaseOutcome> {
    context.fault_point("move: freezes").await;
    fence::require_unblocked(step)?;
    let open = act::fence_sound(context, step, ReplacementKind::Move).await?;
    context.fault_point("move: frozen").await;
    Ok(state::fenced_outcome(step, COPY, json!({}), open))
}

async fn switch_database(context: &StepContext, step: &ClaimedStep) -> Result<PhaseOutcome> {
    if let Some(open) = state::own_replacement(context, step).await?
        && let Some(new) = &open.new
        && let Err(error) = takes_tenants(context, new.server_id).await
    {
        // After the retirement there is no way back. The tenant is better served on a server that is being drained than
        // not at all.
        let seen = observe::observe_replacement(context, step, Some(open.clone())).await?;
        if decide(&seen.situation(), Question::FailedSwap) == Decision::RollBack {
            return roll_back::start_rollback(step, &open, error);
        }
    }
    swap::swap_databases(context, step, moved_event).await
}

fn moved_event(step: &ClaimedStep, open: &ReplacementRecord, times: SwapTimes) -> (&'static str, serde_json::Value) {
    let new = open.new.as_ref();
    let facts = json!({
        "from": step.tenant.server_id, "to": new.map(|new| new.server_id),
        "size_bytes": new.map(|new| new.size_bytes), "frozen_ms": times.frozen_ms,
    });
    ("tenant.moved", facts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(engine: EngineKind) -> MoveTarget {
        MoveTarget { id: ServerId::generate(), engine, name: "x".to_owned() }
    }

    #[test]
    fn tenants_spread_over_the_other_servers_of_their_engine_and_always_the_same_way() {
        let (a, b, c, pg) =
            (to(EngineKind::Sqlite), to(EngineKind::Sqlite), to(EngineKind::Sqlite), to(EngineKind::Postgres));
        let (from, ids) = (a.id, [b.id, c.id]);
        let params = MoveParams { servers: vec![a, b, c, pg], ..MoveParams::default() };
        let mut counts = [0; 2];
        for _ in 0..400 {
            let tenant = TenantId::generate();
            let found = params.choose_destination(tenant, from, EngineKind::Sqlite).unwrap().id;
            assert_eq!(params.choose_destination(tenant, from, EngineKind::Sqlite).unwrap().id, found);
            counts[ids.iter().position(|id| *id == found).unwrap()] += 1;
        }
        assert!(counts.iter().all(|count| *count > 100), "{counts:?}");
        let alone = params.choose_destination(TenantId::generate(), params.servers[3].id, EngineKind::Postgres);
        assert_eq!(alone.unwrap_err().code(), "no_destination");
    }

    #[test]
    fn a_copy_needs_a_fifth_more_than_the_database() {
        assert!(require_space("acme", 0, Some(0)).is_ok());
        assert!(require_space("acme", 4, Some(4)).is_ok() && require_space("acme", 4, Some(3)).is_err());
        assert!(require_space("acme", 1_000, Some(1_200)).is_ok() && require_space("acme", u64::MAX, None).is_ok());
        assert_eq!(require_space("acme", 1_000, Some(1_199)).unwrap_err().code(), "disk_full");
        assert_eq!(require_space("acme", u64::MAX, Some(u64::MAX - 1)).unwrap_err().code(), "disk_full");
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
        let to = servers[1..].iter().map(|(server, _)| as_target(server)).collect();
        let mut params = MoveParams { servers: to, ..MoveParams::default() };
        let tenants = tenants(60, servers[0].0.id);
        let mut free = FreePlaces::of_servers(&servers);
        tenants.chunks(7).for_each(|page| params.spread_tenants(page, &servers, &mut free));
        assert_eq!(free.lacking, 0);
        let small = servers[1].0.id;
        let goes = |(tenant, from): &(TenantId, ServerId)| {
            params.choose_destination(*tenant, *from, EngineKind::Sqlite).unwrap().id
        };
        assert_eq!(tenants.iter().filter(|tenant| goes(tenant) == small).count(), 5, "about 30 point there");
    }

    #[test]
    fn a_plan_that_has_no_room_is_refused() {
        let servers = [(server("from", None), 30), (server("small", Some(12)), 7)];
        let mut params = MoveParams { servers: vec![as_target(&servers[1].0)], ..MoveParams::default() };
        let from = servers[0].0.id;
        let mut free = FreePlaces::of_servers(&servers);
        params.spread_tenants(&tenants(5, from), &servers, &mut free);
        assert_eq!(free.lacking, 0);
        params.spread_tenants(&tenants(1, from), &servers, &mut free);
        assert_eq!(free.lacking, 1);
        let refused = params.no_room(free.lacking);
        assert_eq!((refused.code(), refused.detail.contains("no room for 1 of them")), ("server_full", true));
    }
}
