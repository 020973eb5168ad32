//! adopt: a Postgres database that no fleet knows becomes a new tenant, as a copy.
//!
//! The original is read once, by its own connection string, and stays as it was: whoever adopts stops its writers first.
//! One phase: leftovers of earlier claims are dropped, the placement of this claim is filled, brought to the current
//! release if its ledger is of the same line, and swapped in.

use std::collections::BTreeMap;

use async_trait::async_trait;
use catalog::tenants::Flip;
use catalog::{Name, ReadTx, TenantId, TenantState};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tenant_engine::{EngineKind, IdentityState};

use super::build::{self, Goal};
use super::{Effect, Fleet, Operation, Outcome, Placements, Plan, Prepared, Scope, Seen, Step, Targets, create};
use crate::error::{Error, Result};

/// Where a sealed connection string of an operation belongs.
const CONTEXT: (&str, &str, &str) = ("operations", "params", "adopt");

/// Which database, and as whom.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Params {
    /// The new tenant's slug, not yet normalised.
    pub name: String,
    /// Its labels; not stored, the tenant's row says them.
    #[serde(skip)]
    pub labels: BTreeMap<String, String>,
    /// On which server, by name; `None`: the active Postgres server with the fewest tenants.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub server: Option<String>,
    /// The source's connection string, sealed with the fleet's key.
    pub source: String,
}

impl Params {
    /// Seals the connection string: an operation's row may be read by every operator.
    #[must_use]
    pub fn seal(fleet: &Fleet, source: &SecretString) -> String {
        fleet.catalog.sealer().seal(CONTEXT, source.expose_secret().as_bytes())
    }

    fn source(&self, fleet: &Fleet) -> Result<SecretString> {
        let opened = fleet.catalog.sealer().open(CONTEXT, &self.source)?;
        let text = std::str::from_utf8(opened.expose_secret());
        text.map(|text| text.to_owned().into()).map_err(|_| Error::internal("a sealed connection string is no text"))
    }
}

#[async_trait]
impl Operation for Params {
    fn kind(&self) -> &'static str {
        "adopt"
    }

    fn targets(&self) -> Targets {
        Targets::Own
    }

    fn placements(&self) -> Placements {
        Placements::Fresh
    }

    async fn prepare(&self, fleet: &Fleet, _scope: Scope) -> Result<Prepared> {
        // Before anything is written: what is no connection string never becomes an operation.
        tenant_engine::postgres::PostgresServer::new(&self.source(fleet)?)?;
        Ok(Prepared { named: vec![(TenantId::generate(), Name::slug(&self.name)?)], ..Prepared::default() })
    }

    async fn look(&mut self, tx: &mut ReadTx, seen: &mut Seen) -> Result<()> {
        let names: Vec<Name> = seen.prepared.named.iter().map(|(_, name)| name.clone()).collect();
        seen.taken = catalog::names::taken(tx, &names).await?.into_iter().collect();
        seen.servers = catalog::servers::list(tx).await?;
        seen.servers.retain(|(server, _)| server.engine == EngineKind::Postgres);
        Ok(())
    }

    fn plan(&self, seen: &Seen) -> Result<Plan> {
        let (id, name) = seen.prepared.named.first().ok_or_else(|| Error::internal("an adoption has a name"))?;
        if seen.taken.contains_key(name) {
            let detail = format!("a tenant named '{}' exists, or existed once", name.as_str());
            return Err(Error::new(409, "already_exists", detail));
        }
        let server = create::place(&seen.servers, self.server.as_deref(), 1)?;
        let mut plan = Plan { release: seen.current_release, ..Plan::default() };
        let (labels, server_id) = (self.labels.clone(), server.id);
        plan.new.push(catalog::tenants::NewTenant { id: *id, name: name.clone(), server_id, labels });
        plan.step(*id, name.as_str(), || format!("becomes a copy of that database on {}", server.name));
        plan.notes.push("the original stays as it is; what is written to it from now on is not in the copy".to_owned());
        Ok(plan)
    }

    async fn step(&self, fleet: &Fleet, step: &Step) -> Outcome {
        self.make(fleet, step).await.into()
    }
}

impl Params {
    async fn make(&self, fleet: &Fleet, step: &Step) -> Result<Outcome> {
        if step.tenant.state != TenantState::Provisioning {
            return Err(Error::new(409, "conflict", format!("{} is not being made any more", step.tenant.name)));
        }
        let generation = step.tenant.generation.next();
        if let Some(built) = build::finished(fleet, step, IdentityState::Active, Goal::Head(step.op.release_id)).await?
        {
            return Ok(adopted(step, built.flip(step), built.schema_version, built.size_bytes));
        }
        fleet.point("adopt: claimed").await;
        let _one_of_few =
            fleet.images.acquire().await.map_err(|error| Error::internal("closing").with_source(error))?;
        let (engine, at) = fleet.fresh(step, generation).await?;
        let building = step.identity(fleet.id(), generation, IdentityState::Building);
        let copied = engine.adopt(&at, &self.source(fleet)?, &building).await?;
        fleet.point("adopt: copied").await;
        let expected = step.expected_at(fleet.id(), generation, &[IdentityState::Building]);
        let goal = Goal::Head(step.op.release_id.filter(|_| copied.schema_version.is_some()));
        let forward = build::forward(fleet, engine, &at, &expected, goal, copied.schema_version).await;
        let (version, release) = match forward {
            Ok(reached) => reached,
            Err(error) => {
                engine.drop_database(&at, Some(&expected)).await?;
                return Err(error);
            }
        };
        engine.stamp(&at, &expected, &step.identity(fleet.id(), generation, IdentityState::Active)).await?;
        fleet.point("adopt: stamped").await;
        build::probe(engine, &at, &step.expected_at(fleet.id(), generation, &[IdentityState::Active])).await?;
        let size_bytes = engine.size(&at).await?;
        let flip = Flip {
            placement: Some(Some(at.reference().to_owned())),
            schema_version: Some(version),
            release_id: Some(release),
            size_bytes: i64::try_from(size_bytes).ok(),
            ..Flip::of(step.tenant.id, step.tenant.generation)
        };
        Ok(adopted(step, flip, version, size_bytes))
    }
}

fn adopted(step: &Step, flip: Flip, version: Option<i64>, size_bytes: u64) -> Outcome {
    let facts = json!({"schema_version": version, "size_bytes": size_bytes});
    Outcome::done(facts.clone())
        .with(Effect::Flip(Flip { state: Some(TenantState::Active), ..flip }))
        .with(Effect::Event(step.event("tenant.adopted", facts)))
}
