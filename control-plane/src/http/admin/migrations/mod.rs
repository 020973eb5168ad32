//! `/v1/migrations`: migrates tenants to a release, and reports their versions.

pub(crate) mod pins;

use std::collections::BTreeMap;

use axum::extract::{DefaultBodyLimit, State};
use axum::response::Response;
use catalog::operations as catalog_operations;
use catalog::steps::{self, StepState};
use catalog::{OperationId, ReadTx, TenantRecord, TenantState, fleet, releases};
use fleet_api::bounded_number::{MigrationVersion, StepConcurrency, TenantCount};
use fleet_api::changes::PlannedChange;
use fleet_api::migrations::{
    FailedTenant, MigrationFilters, MigrationPlan, MigrationRun, MigrationStatus, PlanAtVersion, VersionCount,
};
use fleet_api::operations::OperationView;
use fleet_api::problem::ProblemBody;
use fleet_api::releases::{ReleaseFile, ReleaseView};
use tenant_engine::migration::{MigrationSet, MigrationSets};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::pins::split_pinned;
use super::change::{self, check_reason};
use super::lookup;
use super::releases::sets_of;
use crate::error::Error;
use crate::health::schema_state::{self, LedgerReadScope};
use crate::http::ApiState;
use crate::http::admin::migrations::pins::add_pinned;
use crate::http::admin::migrations::pins::first_pinned;
use crate::http::admin::operations::failure_detail;
use crate::http::admin::operations::operation_view;
use crate::http::admin::releases::load_release_view;
use crate::http::admin::releases::migration_files;
use crate::http::admin::releases::release_view;
use crate::http::admission::AdmittedCaller;
use crate::http::error::{Problem, Result};
use crate::http::extract::{JsonBody, QueryParams};
use crate::http::limits::BULK_BYTES_MAX;
use crate::operations::{OperationParams, migrate};
use crate::plan;
use crate::runner::submit::{Submission, SubmitMode};

/// Maximum number of failed tenants in one status. The operation's steps list all of them.
const FAILED_MAX: u32 = 100;

pub(crate) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(run_migration))
        .routes(routes!(show_plan))
        .layer(DefaultBodyLimit::max(BULK_BYTES_MAX))
        .routes(routes!(migration_status))
}

/// The requested migration. Takes the files out of the request.
fn take_params(run: &mut MigrationRun) -> Result<migrate::MigrateParams> {
    Ok(migrate::MigrateParams {
        release: release_source(run.release.as_deref(), run.files.take())?,
        target: run.target.map(MigrationVersion::to_i64),
        look: if run.verify { migrate::StepCoverage::Every } else { migrate::StepCoverage::Hint },
        include_pinned: run.include_pinned,
        promotes: None,
        to_build: None,
    })
}

fn into_submission(run: MigrationRun, params: migrate::MigrateParams) -> Submission {
    Submission {
        operation: OperationParams::Migrate(params).into(),
        targets: run.selection.into(),
        reason: run.reason,
        concurrency: run.concurrency.map(StepConcurrency::to_u32),
        expect_count: run.expect_count.map(TenantCount::get),
    }
}

/// The requested release.
fn release_source(release: Option<&str>, files: Option<Vec<ReleaseFile>>) -> Result<migrate::ReleaseSource> {
    match (release, files) {
        (Some(id), None) => Ok(migrate::ReleaseSource::Id(lookup::parse_id(id)?)),
        (None, Some(files)) => {
            let files = migration_files(files);
            sets_of(&files)?;
            Ok(migrate::ReleaseSource::Files(files))
        }
        _ => Err(Problem::invalid("expected exactly one of release and files")),
    }
}

/// Migrate tenants to a release.
#[utoipa::path(post, path = "/v1/migrations", tag = "migrations", request_body = MigrationRun,
    responses((status = 202, description = "The operation has started", body = OperationView), (status = 200, description = "Plan of the dry run; nothing was changed", body = PlannedChange), (status = "4XX", description = "The request was refused", body = ProblemBody)))]
async fn run_migration(
    State(api): State<ApiState>,
    caller: AdmittedCaller,
    JsonBody(mut run): JsonBody<MigrationRun>,
) -> Result<Response> {
    let dry_run = run.dry_run;
    let params = take_params(&mut run)?;
    change::submit_or_plan(&api, &caller, into_submission(run, params), dry_run).await
}

/// Show what a migration would do.
///
/// The plan uses the versions that the catalog has recorded for the tenants.
#[utoipa::path(post, path = "/v1/migrations/plan", tag = "migrations", request_body = MigrationRun,
    responses((status = 200, description = "Plan of the migration", body = MigrationPlan), (status = "4XX", description = "The request was refused", body = ProblemBody)))]
async fn show_plan(
    State(api): State<ApiState>,
    caller: AdmittedCaller,
    JsonBody(mut run): JsonBody<MigrationRun>,
) -> Result<JsonBody<MigrationPlan>> {
    check_reason(run.reason.as_deref())?;
    let target = run.target.map(MigrationVersion::to_i64);
    let params = take_params(&mut run)?;
    let (source, include_pinned) = (params.release.clone(), params.include_pinned);
    let submission = into_submission(run, params);
    let selection = submission.targets.clone();
    let include_pinned = include_pinned || !selection.names.is_empty();
    // Refuses with the same error as a run would.
    api.app.runner.submit_operation(&caller.who, submission, SubmitMode::Plan).await?;
    let (release, sets) = describe_release(&api, &caller, source).await?;
    let (_, current) = schema_state::current_sets(&mut api.app.catalog.read().await.map_err(Error::from)?).await?;
    let head = current.version_set().head_version();
    let mut plan = MigrationPlan {
        release,
        pending: 0,
        up_to_date: 0,
        ahead: 0,
        pinned: 0,
        pinned_tenants: Vec::new(),
        by_version: Vec::new(),
    };
    let mut counted = BTreeMap::new();
    let count = |page| {
        let (pinned, tenants) = split_pinned(&sets, page, include_pinned);
        plan.pinned += pinned.len() as u64;
        add_pinned(&mut plan.pinned_tenants, &pinned, head);
        count_versions(&mut counted, &tenants);
    };
    api.app.runner.for_each_page(&selection, count).await?;
    for (version, tenants) in counted {
        let lacking = lacking_versions(sets.version_set(), version, target);
        let count = match version_standing(sets.version_set(), version, &lacking) {
            VersionStanding::Behind => &mut plan.pending,
            VersionStanding::There => &mut plan.up_to_date,
            VersionStanding::Ahead => &mut plan.ahead,
        };
        *count += tenants;
        plan.by_version.push(PlanAtVersion { version, tenants, pending: lacking });
    }
    Ok(JsonBody(plan))
}

/// The release and its sets. A release that the catalog does not hold is described and not stored.
async fn describe_release(
    api: &ApiState,
    caller: &AdmittedCaller,
    source: migrate::ReleaseSource,
) -> Result<(ReleaseView, MigrationSets)> {
    let mut tx = api.app.catalog.read().await?;
    let current = fleet::current_release(&mut tx).await?;
    let (record, files) = match source {
        migrate::ReleaseSource::Id(id) => (
            super::releases::find_release(&mut tx, &id.to_string()).await?,
            releases::release_files(&mut tx, id).await?,
        ),
        migrate::ReleaseSource::Files(files) => {
            let sets = sets_of(&files)?;
            let known = releases::by_digest(&mut tx, sets.release_digest()).await?;
            let record = known.unwrap_or_else(|| releases::unstored_release(&sets, tx.now(), &caller.who.actor));
            (record, files)
        }
    };
    let sets = MigrationSets::from_files(&files).map_err(Error::from)?;
    Ok((release_view(record, &files, current), sets))
}

/// Where a tenant stands relative to a migration set.
#[derive(Debug, PartialEq, Eq)]
enum VersionStanding {
    Behind,
    There,
    Ahead,
}

fn version_standing(set: &MigrationSet, version: Option<i64>, lacking: &[i64]) -> VersionStanding {
    match (version, set.head_version()) {
        (Some(version), head) if head.is_none_or(|head| version > head) => VersionStanding::Ahead,
        _ if lacking.is_empty() => VersionStanding::There,
        _ => VersionStanding::Behind,
    }
}

/// The versions after `version`, up to `target`.
fn lacking_versions(set: &MigrationSet, version: Option<i64>, target: Option<i64>) -> Vec<i64> {
    let versions = set.all_migrations().iter().map(|m| m.version);
    let wanted = |v: &i64| version.is_none_or(|at| *v > at) && target.is_none_or(|target| *v <= target);
    versions.filter(wanted).collect()
}

fn count_versions(counted: &mut BTreeMap<Option<i64>, u64>, tenants: &[TenantRecord]) {
    for tenant in tenants {
        *counted.entry(tenant.schema_version).or_default() += 1;
    }
}

/// Get the migration status of the tenants.
///
/// In a small fleet the versions come from the databases' ledgers, in a large fleet from the catalog.
#[utoipa::path(get, path = "/v1/migrations/status", tag = "migrations", params(MigrationFilters),
    responses((status = 200, description = "Migration status of the tenants", body = MigrationStatus), (status = "4XX", description = "The request was refused", body = ProblemBody)))]
async fn migration_status(
    State(api): State<ApiState>,
    _caller: AdmittedCaller,
    QueryParams(filters): QueryParams<MigrationFilters>,
) -> Result<JsonBody<MigrationStatus>> {
    let tenants =
        api.app.runner.select_in(&tenant_selection(&filters)?, &[TenantState::Active, TenantState::Suspended]).await?;
    let reading = if filters.verify { LedgerReadScope::All } else { LedgerReadScope::Few };
    let sets = schema_state::current_sets(&mut api.app.catalog.read().await?).await?.1;
    let total = tenants.len() as u64;
    let (pinned, others) = split_pinned(&sets, tenants, false);
    let mut state = schema_state::load_schema_state(&api.app, &others, &sets, reading).await?;
    for tenant in &pinned {
        *state.versions.entry(tenant.schema_version).or_default() += 1;
    }
    let mut tx = api.app.catalog.read().await?;
    let unknown = catalog::tenants::count_by_state(&mut tx).await?;
    let unknown = unknown.into_iter().find(|(state, _)| *state == TenantState::Provisioning).map_or(0, |(_, n)| n);
    let head = match schema_state::current_sets(&mut tx).await?.0 {
        Some(record) => Some(load_release_view(&mut tx, record).await?),
        None => None,
    };
    let (failed, last_operation) = last_migration(&mut tx).await?;
    Ok(JsonBody(MigrationStatus {
        pinned: pinned.len() as u64,
        pinned_tenants: first_pinned(&pinned, sets.version_set().head_version()),
        head,
        total,
        up_to_date: state.up_to_date,
        pending: state.behind,
        ahead: state.ahead,
        differ: state.differ,
        unreadable: state.unreadable,
        read: state.read,
        splits: state.splits,
        unknown: unknown.unsigned_abs(),
        versions: state.versions.into_iter().map(|(version, tenants)| VersionCount { version, tenants }).collect(),
        failed,
        last_operation,
    }))
}

fn tenant_selection(filters: &MigrationFilters) -> Result<plan::TenantSelection> {
    let mut selection =
        filters.name.clone().map_or_else(plan::TenantSelection::default, plan::TenantSelection::one_tenant);
    // Checked here as well, because this parameter has another name than the field of a selection.
    filters.labels.as_deref().map(lookup::parse_labels).transpose()?;
    selection.selectors.extend(filters.labels.clone());
    selection.server.clone_from(&filters.server);
    selection.all = selection.is_empty();
    // A fleet without tenants has a status, too.
    selection.allow_empty = selection.all;
    Ok(selection)
}

/// The last migration, and the tenants that failed in it.
async fn last_migration(tx: &mut ReadTx) -> Result<(Vec<FailedTenant>, Option<OperationView>)> {
    let found = catalog_operations::list_operations(tx, &[], Some("migrate"), None, None, 1).await?;
    let Some(record) = found.into_iter().next() else { return Ok((Vec::new(), None)) };
    let id: OperationId = record.id;
    let steps = steps::list_steps(tx, id, &[StepState::Failed], None, FAILED_MAX).await?;
    let failed = |(step, tenant): (steps::StepRecord, String)| FailedTenant {
        tenant,
        error: failure_detail(step.error_code, step.error),
    };
    let failed = steps.into_iter().map(failed).collect();
    Ok((failed, Some(operation_view(tx, record).await?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tenant_engine::migration::MigrationFile;

    fn set() -> MigrationSet {
        let file = |n: i64| MigrationFile { name: format!("{n:04}_x.sql"), sql: format!("create table t{n} (a)") };
        MigrationSet::from_files(&[file(1), file(2), file(4)]).unwrap()
    }

    #[test]
    fn what_lacks_is_what_comes_after() {
        assert_eq!(lacking_versions(&set(), None, None), [1, 2, 4]);
        assert_eq!(lacking_versions(&set(), Some(2), None), [4]);
        assert_eq!(lacking_versions(&set(), Some(1), Some(2)), [2]);
        assert!(lacking_versions(&set(), Some(9), None).is_empty());
    }

    #[test]
    fn a_tenant_is_behind_there_or_ahead() {
        let stands = |version| version_standing(&set(), version, &lacking_versions(&set(), version, None));
        assert_eq!(stands(None), VersionStanding::Behind);
        assert_eq!(stands(Some(2)), VersionStanding::Behind);
        assert_eq!(stands(Some(4)), VersionStanding::There);
        assert_eq!(stands(Some(5)), VersionStanding::Ahead);
        assert_eq!(version_standing(&MigrationSet::empty_set(), None, &[]), VersionStanding::There);
        assert_eq!(version_standing(&MigrationSet::empty_set(), Some(1), &[]), VersionStanding::Ahead);
    }
}
