//! clone: a new tenant with the data another one has at this moment. The other one serves meanwhile.

use async_trait::async_trait;
use catalog::tenants::Flip;
use catalog::{Name, ReadTx, TenantId, TenantRecord, TenantState};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tenant_engine::{IdentityState, Snapshot};

use super::build::{self, Built, Goal};
use super::pin::{Before, version_text};
use super::{Effect, Fleet, Operation, Outcome, Placements, Plan, Prepared, Scope, Seen, Step, Targets, fence, image};
use crate::error::{Error, Result};

/// As whom. The selection names exactly one tenant: the one to be cloned.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Params {
    /// The new tenant's name.
    pub name: String,
    /// Who is cloned; filled at submission.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub source: Option<TenantId>,
}

#[async_trait]
impl Operation for Params {
    fn kind(&self) -> &'static str {
        "clone"
    }

    fn targets(&self) -> Targets {
        Targets::One(&[TenantState::Active, TenantState::Suspended])
    }

    fn placements(&self) -> Placements {
        Placements::Fresh
    }

    async fn prepare(&self, _fleet: &Fleet, _scope: Scope) -> Result<Prepared> {
        let named = vec![(TenantId::generate(), Name::slug(&self.name)?)];
        Ok(Prepared { named, ..Prepared::default() })
    }

    async fn look(&mut self, tx: &mut ReadTx, seen: &mut Seen) -> Result<()> {
        self.source = seen.tenants.first().map(|source| source.id);
        let names: Vec<Name> = seen.prepared.named.iter().map(|(_, name)| name.clone()).collect();
        seen.taken = catalog::names::taken(tx, &names).await?.into_iter().collect();
        Ok(())
    }

    fn plan(&self, seen: &Seen) -> Result<Plan> {
        let source = seen.tenants.first().ok_or_else(|| Error::internal("a clone is of one tenant"))?;
        let (id, name) = seen.prepared.named.first().ok_or_else(|| Error::internal("a clone has a name"))?;
        if seen.taken.contains_key(name) {
            let detail = format!("a tenant named '{}' exists, or existed once", name.as_str());
            return Err(Error::new(409, "already_exists", detail));
        }
        let mut plan = Plan::default();
        let (name, server_id, labels) = (name.clone(), source.server_id, source.labels.clone());
        plan.step(*id, name.as_str(), || format!("is made with the data of {}", source.name));
        plan.new.push(catalog::tenants::NewTenant { id: *id, name, server_id, labels });
        plan.notes.push("the new tenant has no members and no tokens".to_owned());
        if source.pin.is_some() {
            plan.notes.push(format!(
                "{} is pinned at {}, and so is its copy",
                source.name,
                version_text(source.schema_version)
            ));
        }
        Ok(plan)
    }

    async fn step(&self, fleet: &Fleet, step: &Step) -> Outcome {
        self.make(fleet, step).await.into()
    }
}

impl Params {
    async fn make(&self, fleet: &Fleet, step: &Step) -> Result<Outcome> {
        step.require_state(&[TenantState::Provisioning])?;
        let source = self.source(fleet).await?;
        // A pinned source is not at the head of its release, and its copy stays where it is, too.
        let goal = if source.pin.is_some() { Goal::Stay(None) } else { Goal::Head(source.release_id) };
        let fill = fill(fleet, step, &source, goal);
        let mut built = build::ready(fleet, step, IdentityState::Active, goal, fill).await?;
        built.pin = Before::known(&source).pin(built.schema_version, step);
        let flip = Flip { state: Some(TenantState::Active), ..built.flip(step) };
        let pinned = built.pin.is_some();
        let facts = json!({"source": self.source, "schema_version": built.schema_version, "pinned": pinned});
        let facts = built.told(facts);
        let event = step.event("tenant.cloned", facts.clone());
        Ok(Outcome::done(facts).with(Effect::Flip(flip)).with(Effect::Event(event)))
    }

    async fn source(&self, fleet: &Fleet) -> Result<TenantRecord> {
        let id = self.source.ok_or_else(|| Error::internal("a clone without a source"))?;
        let found = catalog::tenants::get(&mut fleet.catalog.read().await?, id).await?;
        found.ok_or_else(|| Error::internal("a clone of nobody"))
    }
}

async fn fill(fleet: &Fleet, step: &Step, source: &TenantRecord, goal: Goal) -> Result<Built> {
    let generation = step.tenant.generation.next();
    fleet.point("clone: claimed").await;
    let _one_of_few = fleet.images.acquire().await.map_err(|error| Error::internal("closing").with_source(error))?;
    let picture = snapshot(fleet, step, source).await?;
    fleet.point("clone: snapshot taken").await;
    let (engine, at) = fleet.fresh(step, generation).await?;
    let identity = step.identity(fleet.id(), generation, IdentityState::Building);
    let restored = engine.restore(&at, picture.image, source.id, &identity).await?;
    let rows = picture.info.rows.as_ref();
    let restored = image::with_same_rows((engine, &at), &identity, rows, restored).await?;
    let restored = image::with_left_out((picture.info.left_out, &picture.info.classes), restored);
    build::forwarded(fleet, step, (engine, &at), restored, generation, goal).await
}

/// Of the source as the catalog knows it now; one that is being changed just then is looked at again later.
async fn snapshot(fleet: &Fleet, step: &Step, source: &TenantRecord) -> Result<Snapshot> {
    let of_source = Step { tenant: source.clone(), ..step.clone() };
    fence::require_unblocked(&of_source)?;
    of_source.require_state(&[TenantState::Active, TenantState::Suspended])?;
    let (engine, at) = fleet.current(source).await?;
    let expected = of_source.expected(fleet.id(), &[fence::at_rest(source)]);
    let taken = engine.snapshot(&at, &expected).await;
    taken.map_err(|error| match error.kind() {
        tenant_engine::ErrorKind::Fenced => Error::from(error).transient(),
        _ => error.into(),
    })
}
