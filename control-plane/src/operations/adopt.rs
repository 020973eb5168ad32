//! adopt: a PostgreSQL database that belongs to no fleet becomes a new tenant, as a copy.
//!
//! The original is read once, through its own connection string, and stays unchanged. The operator must stop its
//! writers first. The step has one phase. It drops leftovers of earlier claims and fills the placement of this claim.
//! If the ledger belongs to the same line of releases, it migrates the copy to the current release. Then it activates
//! the tenant.

use std::collections::BTreeMap;

use async_trait::async_trait;
use catalog::tenants::TenantUpdate;
use catalog::{ReadTx, TenantId, TenantName, TenantState};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tenant_engine::{EngineKind, IdentityState};

use super::create;
use crate::error::{Error, ErrorKind, Result};
use crate::operation::{
    CatalogEffect, ClaimedStep, FleetOperation, OperationTargets, PhaseOutcome, PlacementUse, PlanInput,
    PreparedSubmission, StepContext, StepPlan, SubmissionScope, ledger_name,
};
use crate::replacement::build::{self, SchemaGoal};

/// The place that a sealed connection string is bound to.
const CONTEXT: (&str, &str, &str) = ("operations", "params", "adopt");

/// The parameters of an adoption.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AdoptParams {
    /// The new tenant's slug, not yet normalised.
    pub name: String,
    /// The new tenant's labels. Not stored with the operation: the tenant's row holds them.
    #[serde(skip)]
    pub labels: BTreeMap<String, String>,
    /// The name of the server that gets the copy. `None`: the active PostgreSQL server with the fewest tenants.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub server: Option<String>,
    /// The source's connection string, sealed with the fleet's key.
    pub source: String,
}

impl AdoptParams {
    /// Seals the connection string with the fleet's key, because every operator may read an operation's row.
    #[must_use]
    pub fn seal_source(context: &StepContext, source: &SecretString) -> String {
        context.catalog.sealer().seal_value(CONTEXT, source.expose_secret().as_bytes())
    }

    fn open_source(&self, context: &StepContext) -> Result<SecretString> {
        let opened = context.catalog.sealer().open_sealed(CONTEXT, &self.source)?;
        let text = std::str::from_utf8(opened.expose_secret());
        text.map(|text| text.to_owned().into()).map_err(|_| Error::internal("a sealed connection string is not text"))
    }
}

#[async_trait]
impl FleetOperation for AdoptParams {
    fn target_tenants(&self) -> OperationTargets {
        OperationTargets::Own
    }

    fn placement_use(&self) -> PlacementUse {
        PlacementUse::Fresh
    }

    async fn prepare_submission(&self, context: &StepContext, _scope: SubmissionScope) -> Result<PreparedSubmission> {
        // Checked before anything is written, so that an invalid connection string never becomes an operation.
        tenant_engine::postgres::PostgresServer::new(&self.open_source(context)?)?;
        Ok(PreparedSubmission {
            named: vec![(TenantId::generate(), TenantName::parse_slug(&self.name)?)],
            ..PreparedSubmission::default()
        })
    }

    async fn load_for_page(&mut self, tx: &mut ReadTx, seen: &mut PlanInput) -> Result<()> {
        let names: Vec<TenantName> = seen.prepared.named.iter().map(|(_, name)| name.clone()).collect();
        seen.taken = catalog::names::taken_names(tx, &names).await?.into_iter().collect();
        seen.servers = catalog::servers::list_servers(tx).await?;
        seen.servers.retain(|(server, _)| server.engine == EngineKind::Postgres);
        Ok(())
    }

    fn plan_page(&self, seen: &PlanInput, plan: &mut StepPlan) -> Result<()> {
        let (id, name) = seen.prepared.named.first().ok_or_else(|| Error::internal("an adoption has a name"))?;
        if seen.taken.contains_key(name) {
            let detail = format!("a tenant named '{}' exists, or existed once", name.as_str());
            return Err(Error::new(ErrorKind::AlreadyExists, detail));
        }
        let server = create::choose_server(&seen.servers, self.server.as_deref(), 1)?;
        plan.release = seen.current_release;
        let (labels, server_id) = (self.labels.clone(), server.id);
        plan.new.push(catalog::tenants::NewTenant { id: *id, name: name.clone(), server_id, labels, plan: None });
        plan.add_step(*id, name.as_str(), || format!("becomes a copy of that database on {}", server.name));
        plan.notes.push("the original stays unchanged; later writes to it are not in the copy".to_owned());
        Ok(())
    }

    async fn run_phase(&self, context: &StepContext, step: &ClaimedStep) -> PhaseOutcome {
        self.adopt_database(context, step).await.into()
    }
}

impl AdoptParams {
    async fn adopt_database(&self, context: &StepContext, step: &ClaimedStep) -> Result<PhaseOutcome> {
        if step.tenant.state != TenantState::Provisioning {
            return Err(step.not_in_creation());
        }
        let generation = step.tenant.generation.next();
        if let Some(built) =
            build::finished_earlier(context, step, IdentityState::Active, SchemaGoal::Head(step.op.release_id)).await?
        {
            return Ok(adopted_outcome(step, built.tenant_update(step), built.schema_version, built.size_bytes));
        }
        context.fault_point("adopt: claimed").await;
        let _one_of_few =
            context.images.acquire().await.map_err(|error| Error::internal("closing").with_source(error))?;
        let (engine, at) = context.fresh_placement(step, generation).await?;
        let building = step.identity_to_stamp(context.fleet_id(), generation, IdentityState::Building);
        let ledger = ledger_name::of_fleet(&context.catalog, EngineKind::Postgres).await?;
        let copied = engine.adopt_database(&at, &self.open_source(context)?, &building, &ledger).await?;
        context.fault_point("adopt: copied").await;
        let expected = step.expected_at(context.fleet_id(), generation, &[IdentityState::Building]);
        let goal = SchemaGoal::Head(step.op.release_id.filter(|_| copied.schema_version.is_some()));
        let forward = build::forward_schema(context, engine, &at, &expected, goal, copied.schema_version).await;
        let (version, release) = match forward {
            Ok(reached) => reached,
            Err(error) => {
                engine.drop_database(&at, Some(&expected)).await?;
                return Err(error);
            }
        };
        engine
            .stamp_identity(
                &at,
                &expected,
                &step.identity_to_stamp(context.fleet_id(), generation, IdentityState::Active),
            )
            .await?;
        context.fault_point("adopt: stamped").await;
        build::probe_database(engine, &at, &step.expected_at(context.fleet_id(), generation, &[IdentityState::Active]))
            .await?;
        let size_bytes = engine.database_size(&at).await?;
        let flip = TenantUpdate {
            placement: Some(Some(at.catalog_reference().to_owned())),
            schema_version: Some(version),
            release_id: Some(release),
            size_bytes: i64::try_from(size_bytes).ok(),
            ..TenantUpdate::for_generation(step.tenant.id, step.tenant.generation)
        };
        Ok(adopted_outcome(step, flip, version, size_bytes))
    }
}

fn adopted_outcome(step: &ClaimedStep, flip: TenantUpdate, version: Option<i64>, size_bytes: u64) -> PhaseOutcome {
    let facts = json!({"schema_version": version, "size_bytes": size_bytes});
    PhaseOutcome::step_done(facts.clone())
        .with_effect(CatalogEffect::UpdateTenant(TenantUpdate { state: Some(TenantState::Active), ..flip }))
        .with_effect(CatalogEffect::Event(step.tenant_event("tenant.adopted", facts)))
}
