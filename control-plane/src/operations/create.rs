//! create: a row and a name, a database copied from the release's template, probed, then active.
//!
//! The submission writes row, name and operation in one transaction. The step has one phase: leftovers of earlier
//! claims are dropped, a placement that the claim reserved is filled, and the flip names exactly that placement. A crash
//! anywhere before the flip leaves a placement that nobody was told of, for the next claim to drop.
//!
//! The database appears under its name complete and with the identity `active`: between filling and serving nothing is
//! done to it, and no router looks at a placement, or accepts a generation, that the catalog does not name yet. A stamp
//! of its own would cost every tenant another opening and another flush, and make nothing safer.

use std::collections::{BTreeMap, HashSet};

use async_trait::async_trait;
use catalog::tenants::Flip;
use catalog::{Name, ReadTx, ServerRecord, ServerState, TenantId, TenantState};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tenant_engine::IdentityState;

use super::build::{self, Goal};
use super::{Effect, Fleet, Operation, Outcome, Placements, Plan, Prepared, Scope, Seen, Step, Targets};
use crate::error::{Error, ITEMS_MAX, Item, Result};

/// Tenants of one operation: one transaction writes their rows.
pub const TENANTS_MAX: usize = 50_000;

/// Operations up to this size open every database they made.
const PROBED_ALL_MAX: i64 = 32;
/// Opening and closing a database costs as much as making it.
const PROBED_ONE_IN: u64 = 32;

/// What to make.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Params {
    /// The new tenants, at most [`TENANTS_MAX`]; not stored, their rows say it.
    #[serde(skip)]
    pub tenants: Vec<NewTenant>,
    /// On which server, by name; `None`: the active one with the fewest tenants.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub server: Option<String>,
    /// What a taken name means.
    #[serde(default)]
    pub if_exists: IfExists,
}

/// One tenant to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewTenant {
    /// Its slug, not yet normalised.
    pub name: String,
    /// Its labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// What a name that is taken already means.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IfExists {
    /// The whole request is refused.
    #[default]
    Error,
    /// That tenant is left as it is.
    Skip,
}

#[async_trait]
impl Operation for Params {
    fn kind(&self) -> &'static str {
        "create"
    }

    fn targets(&self) -> Targets {
        Targets::Own
    }

    fn placements(&self) -> Placements {
        Placements::Fresh
    }

    async fn prepare(&self, _fleet: &Fleet, _scope: Scope) -> Result<Prepared> {
        if self.tenants.is_empty() || self.tenants.len() > TENANTS_MAX {
            return Err(Error::new(422, "invalid", format!("1 to {TENANTS_MAX} tenants can be made at once")));
        }
        let names = names(&self.tenants, self.if_exists)?;
        let named = names.into_iter().map(|name| (TenantId::generate(), name)).collect();
        Ok(Prepared { named, ..Prepared::default() })
    }

    async fn look(&mut self, tx: &mut ReadTx, seen: &mut Seen) -> Result<()> {
        let names: Vec<Name> = seen.prepared.named.iter().map(|(_, name)| name.clone()).collect();
        seen.taken = catalog::names::taken(tx, &names).await?.into_iter().collect();
        seen.servers = catalog::servers::list(tx).await?;
        Ok(())
    }

    fn plan(&self, seen: &Seen) -> Result<Plan> {
        self.refuse_taken(seen)?;
        let mut plan = Plan { release: seen.current_release, ..Plan::default() };
        let server = place(&seen.servers, self.server.as_deref(), self.tenants.len())?;
        let mut met = HashSet::new();
        for ((id, name), given) in seen.prepared.named.iter().zip(&self.tenants) {
            if seen.taken.contains_key(name) || !met.insert(name) {
                plan.skip(name.as_str(), || "is there already".to_owned());
                continue;
            }
            let labels = given.labels.clone();
            plan.new.push(catalog::tenants::NewTenant { id: *id, name: name.clone(), server_id: server.id, labels });
            plan.step(*id, name.as_str(), || format!("is made on {}", server.name));
        }
        if seen.current_release.is_none() {
            plan.notes.push("no release is current: the new databases have no tables".to_owned());
        }
        Ok(plan)
    }

    async fn step(&self, fleet: &Fleet, step: &Step) -> Outcome {
        make(fleet, step).await.into()
    }
}

impl Params {
    /// Refuses the whole list when a name is taken, unless that shall be skipped.
    fn refuse_taken(&self, seen: &Seen) -> Result<()> {
        if self.if_exists == IfExists::Skip || seen.taken.is_empty() {
            return Ok(());
        }
        let taken = seen.prepared.named.iter().enumerate().filter(|(_, (_, name))| seen.taken.contains_key(name));
        let items: Vec<Item> = taken
            .take(ITEMS_MAX)
            .map(|(index, (_, name))| item(index, name.as_str(), &format!("'{name}' is taken")))
            .collect();
        let first = items.first().map_or_else(String::new, |item| item.name.clone());
        let mut error = Error::new(409, "already_exists", format!("a tenant named '{first}' exists, or existed once"))
            .try_next(format!("fleetctl tenant get {first}"));
        error.items = items.into();
        Err(error)
    }
}

/// Normalises all names, or says everything that is wrong with the list.
fn names(tenants: &[NewTenant], if_exists: IfExists) -> Result<Vec<Name>> {
    let (mut names, mut met, mut items) = (Vec::with_capacity(tenants.len()), HashSet::new(), Vec::new());
    for (index, tenant) in tenants.iter().enumerate() {
        match Name::slug(&tenant.name) {
            Ok(name) if met.insert(name.clone()) || if_exists == IfExists::Skip => names.push(name),
            Ok(name) => items.push(item(index, name.as_str(), &format!("'{name}' is in the list twice"))),
            Err(error) => items.push(item(index, &tenant.name, &error.to_string())),
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
    let mut error = Error::new(422, "invalid", detail);
    error.items = items.into();
    Err(error)
}

fn item(index: usize, name: &str, detail: &str) -> Item {
    Item { index, name: name.chars().take(80).flat_map(char::escape_debug).collect(), detail: detail.to_owned() }
}

/// The server for `count` new tenants: the one named, else the active one with the fewest that has room for all.
pub(super) fn place<'a>(
    servers: &'a [(ServerRecord, i64)],
    wanted: Option<&str>,
    count: usize,
) -> Result<&'a ServerRecord> {
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    let room =
        |server: &ServerRecord, tenants: i64| server.tenants_max.is_none_or(|max| tenants.saturating_add(count) <= max);
    if let Some(wanted) = wanted {
        let (server, tenants) = servers.iter().find(|(server, _)| server.name == wanted).ok_or_else(|| {
            Error::new(404, "not_found", format!("there is no server '{wanted}'")).try_next("fleetctl server list")
        })?;
        return match server.state {
            ServerState::Active if room(server, *tenants) => Ok(server),
            ServerState::Active => Err(full(&format!("server '{wanted}' has no room for {count} more tenants"))),
            _ => Err(Error::new(409, "server_cordoned", format!("server '{wanted}' takes no new tenants"))
                .try_next(format!("fleetctl server uncordon {wanted}"))),
        };
    }
    servers
        .iter()
        .filter(|(server, tenants)| server.state == ServerState::Active && room(server, *tenants))
        .min_by_key(|(_, tenants)| *tenants)
        .map(|(server, _)| server)
        .ok_or_else(|| full("no active server has room"))
}

fn full(detail: &str) -> Error {
    Error::new(409, "server_full", detail).try_next("fleetctl server add")
}

/// Fills a placement of this claim's own, makes sure it opens as a request would open it, and swaps it in.
async fn make(fleet: &Fleet, step: &Step) -> Result<Outcome> {
    if step.tenant.state != TenantState::Provisioning {
        return Err(Error::new(409, "conflict", format!("{} is not being made any more", step.tenant.name)));
    }
    let generation = step.tenant.generation.next();
    if let Some(built) = build::finished(fleet, step, IdentityState::Active, Goal::Head(step.op.release_id)).await? {
        return Ok(made(step, built.flip(step), built.schema_version));
    }
    fleet.point("create: claimed").await;
    let (engine, at) = fleet.fresh(step, generation).await?;
    let template = fleet.template(step.tenant.server_id, step.op.release_id).await?;
    engine.provision(&at, &template, &step.identity(fleet.id(), generation, IdentityState::Active)).await?;
    fleet.point("create: provisioned").await;
    if probed(step) {
        build::probe(engine, &at, &step.expected_at(fleet.id(), generation, &[IdentityState::Active])).await?;
        fleet.point("create: probed").await;
    }
    let flip = Flip {
        placement: Some(Some(at.reference().to_owned())),
        schema_version: Some(template.schema_version),
        release_id: Some(step.op.release_id),
        size_bytes: i64::try_from(template.size_bytes).ok(),
        ..Flip::of(step.tenant.id, step.tenant.generation)
    };
    Ok(made(step, flip, template.schema_version))
}

fn made(step: &Step, flip: Flip, schema_version: Option<i64>) -> Outcome {
    let data = json!({"name": step.tenant.name, "schema_version": schema_version});
    Outcome::done(json!({"schema_version": schema_version}))
        .with(Effect::Flip(Flip { state: Some(TenantState::Active), ..flip }))
        .with(Effect::Event(step.event("tenant.activated", data)))
}

/// Whether this tenant is opened before it is announced: all of a few, one in [`PROBED_ONE_IN`] of many. They are copies
/// of one image, and a write that failed was told by the flush; what a probe finds is wrong with all of them.
fn probed(step: &Step) -> bool {
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

    fn tenants(names: &[&str]) -> Vec<NewTenant> {
        names.iter().map(|name| NewTenant { name: (*name).to_owned(), labels: BTreeMap::new() }).collect()
    }

    #[test]
    fn new_tenants_go_where_there_is_room() {
        let servers = [
            (server("full", ServerState::Active, Some(10)), 9),
            (server("busy", ServerState::Active, None), 500),
            (server("cordoned", ServerState::Cordoned, None), 0),
        ];
        assert_eq!(place(&servers, None, 1).unwrap().name, "full");
        assert_eq!(place(&servers, None, 2).unwrap().name, "busy");
        assert_eq!(place(&servers, Some("busy"), 2).unwrap().name, "busy");
        assert_eq!(place(&servers, Some("full"), 2).unwrap_err().code, "server_full");
        assert_eq!(place(&servers, Some("cordoned"), 1).unwrap_err().code, "server_cordoned");
        assert_eq!(place(&servers, Some("nowhere"), 1).unwrap_err().code, "not_found");
        assert_eq!(place(&servers[2..], None, 1).unwrap_err().code, "server_full");
    }

    #[test]
    fn every_bad_name_of_a_list_is_told_with_its_place() {
        let error = names(&tenants(&["acme", "..", "acme", "xn--x", "globex"]), IfExists::Error).unwrap_err();
        assert_eq!(error.code, "invalid");
        assert_eq!(error.items.iter().map(|item| item.index).collect::<Vec<_>>(), [1, 2, 3]);
        assert!(error.items[1].detail.contains("twice"));
        assert_eq!(names(&tenants(&["acme", "ACME"]), IfExists::Skip).unwrap().len(), 2);
    }

    #[test]
    fn no_more_items_are_told_than_fit_one_answer() {
        let many: Vec<String> = (0..500).map(|n| format!("-{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(names(&tenants(&many), IfExists::Error).unwrap_err().items.len(), ITEMS_MAX);
    }
}
