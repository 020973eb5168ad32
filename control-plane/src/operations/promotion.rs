//! Decides whether a release becomes the one that new tenants start from.

use catalog::ReleaseId;
use catalog::events::NewEvent;
use serde_json::json;
use tenant_engine::{DatabaseServer, ErrorKind as DatabaseError, MigrationSets};

use super::migrate::ReleasePromotion;
use crate::error::{Error, ErrorKind, Result};
use crate::operation::plan::NewTenantRelease;
use crate::operation::{CatalogEffect, ClaimedStep, PlanInput, StepContext, StepPlan};

/// Whether a release may become current. New tenants are copied from its template, so a release whose template cannot
/// be built on any server must not.
pub(super) async fn becomes_current(context: &StepContext, sets: &MigrationSets) -> Result<NewTenantRelease> {
    let (mut builds, mut refusals) = (false, Vec::new());
    for server in context.one_of_each_engine().await? {
        match builds_on(context, &server, sets).await? {
            None => builds = true,
            Some(why) => refusals.push(format!("{}: {why}", server.engine_kind())),
        }
    }
    Ok(match (builds, refusals.is_empty()) {
        (true, true) => NewTenantRelease::Becomes,
        (true, false) => NewTenantRelease::BecomesExcept(refusals.join("; ")),
        (false, _) => NewTenantRelease::CannotBuild(refusals.join("; ")),
    })
}

/// Builds the template on this server. Returns the reason if no empty database there can be migrated to the release.
async fn builds_on(context: &StepContext, server: &DatabaseServer, sets: &MigrationSets) -> Result<Option<String>> {
    let engine = context.engine_of_kind(server.engine_kind())?;
    let built = match sets.for_engine(server.engine_kind()) {
        Ok(set) => engine.prepare_template(server, set).await.map(drop),
        Err(lacking) => Err(lacking),
    };
    match built {
        Ok(()) => Ok(None),
        Err(error) => match error.kind() {
            DatabaseError::MigrationFailed | DatabaseError::MigrationInvalid => Ok(Some(error.to_string())),
            _ => Err(error.into()),
        },
    }
}

/// Makes the release current. If there are steps, that happens with the first success, so that new tenants never start
/// from a release that fails everywhere. Without steps it happens at once: the fleet is already at the release, or has
/// no tenants.
pub(super) fn become_current(plan: &mut StepPlan, seen: &PlanInput, release: ReleaseId) {
    if seen.current_release == Some(release) {
        return;
    }
    if plan.steps.is_empty() && (plan.skipped > 0 || plan.left_out.is_empty()) {
        plan.current = Some(release);
        plan.notes.push("new tenants start from this release from now on".to_owned());
    } else {
        plan.notes.push("new tenants start from this release as soon as one tenant has reached it".to_owned());
    }
}

pub(super) fn cannot_build(why: &str) -> Error {
    let detail =
        format!("new tenants do not start from this release: it cannot be applied to an empty database: {why}");
    Error::new(ErrorKind::ReleaseNotBuildable, detail)
        .try_next("correct the file, then: fleetctl migrate run <directory> --all")
}

/// The effect that makes the release current, because this step succeeded.
pub(super) fn promotion_effect(step: &ClaimedStep, to: ReleasePromotion, release: ReleaseId) -> CatalogEffect {
    let data = json!({"release": release, "before": to.from});
    let event = NewEvent { tenant_id: None, ..step.tenant_event("release.activated", data) };
    CatalogEffect::Promote { op: step.op.id, from: to.from, release, event }
}
