//! create: a row and a name, then a database copied from the release's template. The database is probed and becomes
//! active.
//!
//! The submission writes row, name and operation in one transaction. The step has one phase. It drops leftovers of
//! earlier claims, fills the placement that the claim reserved, and names exactly that placement in the tenant update.
//! A crash before that update leaves a placement that nothing refers to, and the next claim drops it.
//!
//! The database appears under its name complete and with the identity `active`. Nothing is done to it between filling
//! and serving. No router uses a placement or accepts a generation that the catalog does not name yet. A separate stamp
//! would cost each tenant another opening and another flush, without making anything safer.

use std::collections::{BTreeMap, HashSet};

use async_trait::async_trait;
use catalog::tenants::TenantUpdate;
use catalog::{ReadTx, ServerRecord, ServerState, TenantId, TenantName, TenantState};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tenant_engine::IdentityState;

use crate::error::{Error, ErrorKind, ITEMS_MAX, ItemError, Result};
use crate::operation::{
    CatalogEffect, ClaimedStep, FleetOperation, OperationTargets, PhaseOutcome, PlacementUse, PlanInput,
    PreparedSubmission, StepContext, StepPlan, SubmissionScope,
};
use crate::replacement::build::{self, SchemaGoal};

/// Maximum number of tenants per operation, because one transaction writes all their rows.
pub const TENANTS_MAX: usize = 50_000;

/// Operations with at most this many steps open every database that they made.
const PROBED_ALL_MAX: i64 = 32;
/// Larger operations open one database in this many, because opening and closing a database costs as much as making it.
const PROBED_ONE_IN: u64 = 32;

/// The parameters of a creation.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct CreateParams {
    /// The new tenants, at most [`TENANTS_MAX`]. Not stored with the operation: their own rows hold them.
    #[serde(skip)]
    pub tenants: Vec<TenantSpec>,
    /// The name of the server that gets the databases. `None`: the active server with the fewest tenants.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub server: Option<String>,
    /// How a name that is already in use is treated.
    #[serde(default)]
    pub if_exists: ExistingNamePolicy,
    /// The plan of the new tenants; `None`: no plan.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub plan: Option<String>,
}

/// One tenant to create.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantSpec {
    /// The tenant's slug, not yet normalised.
    pub name: String,
    /// The tenant's labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// How a name that is already in use is treated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExistingNamePolicy {
    /// The whole request is refused.
    #[default]
    Error,
    /// The existing tenant stays as it is.
    Skip,
}

#[async_trait]
impl FleetOperation for CreateParams {
    fn target_tenants(&self) -> OperationTargets {
        OperationTargets::Own
    }

    fn placement_use(&self) -> PlacementUse {
        PlacementUse::Fresh
    }

    async fn prepare_submission(&self, _context: &StepContext, _scope: SubmissionScope) -> Result<PreparedSubmission> {
        if self.tenants.is_empty() || self.tenants.len() > TENANTS_MAX {
            return Err(Error::new(ErrorKind::Invalid, format!("1 to {TENANTS_MAX} tenants can be created at once")));
        }
        let names = parse_names(&self.tenants, self.if_exists)?;
        let named = names.into_iter().map(|name| (TenantId::generate(), name)).collect();
        Ok(PreparedSubmission { named, ..PreparedSubmission::default() })
    }

    async fn load_for_page(&mut self, tx: &mut ReadTx, seen: &mut PlanInput) -> Result<()> {
        let names: Vec<TenantName> = seen.prepared.named.iter().map(|(_, name)| name.clone()).collect();
        seen.taken = catalog::names::taken_names(tx, &names).await?.into_iter().collect();
        seen.servers = catalog::servers::list_servers(tx).await?;
        if let Some(plan) = &self.plan {
            catalog::plans::require(tx, plan).await?;
        }
        Ok(())
    }

    fn plan_page(&self, seen: &PlanInput, plan: &mut StepPlan) -> Result<()> {
        self.refuse_taken(seen)?;
        plan.release = seen.current_release;
        let server = choose_server(&seen.servers, self.server.as_deref(), self.tenants.len())?;
        let mut met = HashSet::new();
        for ((id, name), given) in seen.prepared.named.iter().zip(&self.tenants) {
            if seen.taken.contains_key(name) || !met.insert(name) {
                plan.add_skipped(name.as_str(), || "is there already".to_owned());
                continue;
            }
            let labels = given.labels.clone();
            plan.new.push(catalog::tenants::NewTenant {
                id: *id,
                name: name.clone(),
                server_id: server.id,
                labels,
                plan: self.plan.clone(),
            });
            plan.add_step(*id, name.as_str(), || format!("is created on {}", server.name));
        }
        if seen.current_release.is_none() {
            plan.notes.push("no release is current: the new databases have no tables".to_owned());
        }
        Ok(())
    }

    async fn run_phase(&self, context: &StepContext, step: &ClaimedStep) -> PhaseOutcome {
        make_database(context, step).await.into()
    }
}

impl CreateParams {
    /// Refuses the whole list when a name is in use, unless such names are to be skipped.
    fn refuse_taken(&self, seen: &PlanInput) -> Result<()> {
        if self.if_exists == ExistingNamePolicy::Skip || seen.taken.is_empty() {
            return Ok(());
        }
        let taken = seen.prepared.named.iter().enumerate().filter(|(_, (_, name))| seen.taken.contains_key(name));
        let items: Vec<ItemError> = taken
            .take(ITEMS_MAX)
            .map(|(index, (_, name))| name_error(index, name.as_str(), &format!("'{name}' is taken")))
            .collect();
        let first = items.first().map_or_else(String::new, |item| item.name.clone());
        let mut error =
            Error::new(ErrorKind::AlreadyExists, format!("a tenant named '{first}' exists, or existed once"))
                .try_next(format!("fleetctl tenant get {first}"));
        error.items = items.into();
        Err(error)
    }
}

/// Normalises all names, or reports all problems of the list, at most [`ITEMS_MAX`].
fn parse_names(tenants: &[TenantSpec], if_exists: ExistingNamePolicy) -> Result<Vec<TenantName>> {
    let (mut names, mut met, mut items) = (Vec::with_capacity(tenants.len()), HashSet::new(), Vec::new());
    for (index, tenant) in tenants.iter().enumerate() {
        match TenantName::parse_slug(&tenant.name) {
            Ok(name) if met.insert(name.clone()) || if_exists == ExistingNamePolicy::Skip => names.push(name),
            Ok(name) => items.push(name_error(index, name.as_str(), &format!("'{name}' is in the list twice"))),
            Err(error) => items.push(name_error(index, &tenant.name, &error.to_string())),
        }
        if items.len() == ITEMS_MAX {
            break;
        }
    }
    if items.is_empty() {
        return Ok(names);
    }
    let detail = match items.as_slice() {
        [only] if tenants.len() == 1 => only.detail.clone(),
        [first, ..] => format!("{} of the names cannot be used; the first is number {}", items.len(), first.index + 1),
        [] => String::new(),
    };
    let mut error = Error::new(ErrorKind::Invalid, detail);
    error.items = items.into();
    Err(error)
}

fn name_error(index: usize, name: &str, detail: &str) -> ItemError {
    ItemError { index, name: name.chars().take(80).flat_map(char::escape_debug).collect(), detail: detail.to_owned() }
}

/// The server for `count` new tenants: the named one. Otherwise the active server with the fewest tenants that has room
/// for all.
pub(super) fn choose_server<'a>(
    servers: &'a [(ServerRecord, i64)],
    wanted: Option<&str>,
    count: usize,
) -> Result<&'a ServerRecord> {
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    let room =
        |server: &ServerRecord, tenants: i64| server.tenants_max.is_none_or(|max| tenants.saturating_add(count) <= max);
    if let Some(wanted) = wanted {
        let (server, tenants) = servers.iter().find(|(server, _)| server.name == wanted).ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("there is no server '{wanted}'")).try_next("fleetctl server list")
        })?;
        return match server.state {
            ServerState::Active if room(server, *tenants) => Ok(server),
            ServerState::Active => Err(server_full(&format!("server '{wanted}' has no room for {count} more tenants"))),
            _ => Err(Error::new(ErrorKind::ServerCordoned, format!("server '{wanted}' takes no new tenants"))
                .try_next(format!("fleetctl server uncordon {wanted}"))),
        };
    }
    servers
        .iter()
        .filter(|(server, tenants)| server.state == ServerState::Active && room(server, *tenants))
        .min_by_key(|(_, tenants)| *tenants)
        .map(|(server, _)| server)
        .ok_or_else(|| server_full("no active server has room"))
}

fn server_full(detail: &str) -> Error {
    Error::new(ErrorKind::ServerFull, detail).try_next("fleetctl server add")
}

/// Fills this claim's own placement, opens the database as a request would, and returns the update that activates the
/// tenant.
async fn make_database(context: &StepContext, step: &ClaimedStep) -> Result<PhaseOutcome> {
    if step.tenant.state != TenantState::Provisioning {
        return Err(step.not_in_creation());
    }
    let generation = step.tenant.generation.next();
    if let Some(built) =
        build::finished_earlier(context, step, IdentityState::Active, SchemaGoal::Head(step.op.release_id)).await?
    {
        return Ok(created_outcome(step, built.tenant_update(step), built.schema_version));
    }
    context.fault_point("create: claimed").await;
    let (engine, at) = context.fresh_placement(step, generation).await?;
    let template = context.release_template(step.tenant.server_id, step.op.release_id).await?;
    engine
        .provision_database(
            &at,
            &template,
            &step.identity_to_stamp(context.fleet_id(), generation, IdentityState::Active),
        )
        .await?;
    context.fault_point("create: provisioned").await;
    if needs_probe(step) {
        build::probe_database(engine, &at, &step.expected_at(context.fleet_id(), generation, &[IdentityState::Active]))
            .await?;
        context.fault_point("create: probed").await;
    }
    let flip = TenantUpdate {
        placement: Some(Some(at.catalog_reference().to_owned())),
        schema_version: Some(template.schema_version),
        release_id: Some(step.op.release_id),
        size_bytes: i64::try_from(template.size_bytes).ok(),
        ..TenantUpdate::for_generation(step.tenant.id, step.tenant.generation)
    };
    Ok(created_outcome(step, flip, template.schema_version))
}

fn created_outcome(step: &ClaimedStep, flip: TenantUpdate, schema_version: Option<i64>) -> PhaseOutcome {
    let data = json!({"name": step.tenant.name, "schema_version": schema_version});
    PhaseOutcome::step_done(json!({"schema_version": schema_version}))
        .with_effect(CatalogEffect::UpdateTenant(TenantUpdate { state: Some(TenantState::Active), ..flip }))
        .with_effect(CatalogEffect::Event(step.tenant_event("tenant.activated", data)))
}

/// Whether this tenant is opened before it is announced: every tenant of a small operation, one in [`PROBED_ONE_IN`] of
/// a large one. All are copies of one image, so a fault that a probe finds concerns all of them. A failed write was
/// already reported by the flush.
fn needs_probe(step: &ClaimedStep) -> bool {
    step.op.steps_total <= PROBED_ALL_MAX || step.tenant.id.uuid().as_u64_pair().1.is_multiple_of(PROBED_ONE_IN)
}

#[cfg(test)]
mod tests {
    use catalog::ServerId;
    use tenant_engine::EngineKind;

    use super::*;

    fn server(name: &str, state: ServerState, tenants_max: Option<i64>) -> ServerRecord {
        let (id, engine) = (ServerId::generate(), EngineKind::Sqlite);
        let base = "/srv".to_owned();
        ServerRecord { id, name: name.to_owned(), engine, base, state, tenants_max, system_id: None, created_at: 0 }
    }

    fn tenants(names: &[&str]) -> Vec<TenantSpec> {
        names.iter().map(|name| TenantSpec { name: (*name).to_owned(), labels: BTreeMap::new() }).collect()
    }

    #[test]
    fn new_tenants_go_where_there_is_room() {
        let servers = [
            (server("full", ServerState::Active, Some(10)), 9),
            (server("busy", ServerState::Active, None), 500),
            (server("cordoned", ServerState::Cordoned, None), 0),
        ];
        assert_eq!(choose_server(&servers, None, 1).unwrap().name, "full");
        assert_eq!(choose_server(&servers, None, 2).unwrap().name, "busy");
        assert_eq!(choose_server(&servers, Some("busy"), 2).unwrap().name, "busy");
        assert_eq!(choose_server(&servers, Some("full"), 2).unwrap_err().code(), "server_full");
        assert_eq!(choose_server(&servers, Some("cordoned"), 1).unwrap_err().code(), "server_cordoned");
        assert_eq!(choose_server(&servers, Some("nowhere"), 1).unwrap_err().code(), "not_found");
        assert_eq!(choose_server(&servers[2..], None, 1).unwrap_err().code(), "server_full");
    }

    #[test]
    fn every_bad_name_of_a_list_is_told_with_its_place() {
        let error =
            parse_names(&tenants(&["acme", "..", "acme", "xn--x", "globex"]), ExistingNamePolicy::Error).unwrap_err();
        assert_eq!(error.code(), "invalid");
        assert_eq!(error.items.iter().map(|item| item.index).collect::<Vec<_>>(), [1, 2, 3]);
        assert!(error.items[1].detail.contains("twice"));
        assert_eq!(parse_names(&tenants(&["acme", "ACME"]), ExistingNamePolicy::Skip).unwrap().len(), 2);
    }

    #[test]
    fn no_more_items_are_told_than_fit_one_answer() {
        let many: Vec<String> = (0..500).map(|n| format!("-{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(parse_names(&tenants(&many), ExistingNamePolicy::Error).unwrap_err().items.len(), ITEMS_MAX);
    }
}
