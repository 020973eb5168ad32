//! `/v1/migrations`: bringing tenants to a release, and how far they are.

use std::collections::BTreeMap;

use axum::extract::{DefaultBodyLimit, State};
use axum::response::Response;
use catalog::operations as catalog_operations;
use catalog::steps::{self, StepState};
use catalog::{OperationId, ReadTx, TenantRecord, TenantState, fleet, releases};
use serde::{Deserialize, Serialize};
use tenant_engine::migration::{File, MigrationSet, MigrationSets};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::change::{self, Planned, check_reason};
use super::lookup;
use super::operations::{Fault, Operation};
use super::pins::{PinnedTenant, apart};
use super::releases::{Release, ReleaseFile, sets_of};
use super::schema_state::{self, Reading};
use super::selection::Selection;
use crate::error::Error;
use crate::http::Api;
use crate::http::admission::Caller;
use crate::http::error::{Problem, ProblemBody, Result};
use crate::http::extract::{Json, Query};
use crate::http::number::{Concurrency, Count, Within};
use crate::http::routes::BULK_BYTES_MAX;
use crate::operations::{Params, migrate};
use crate::plan;
use crate::runner::submit::{Mode, Submission};

/// Of a migration.
type Version = Within<0, { i64::MAX as u64 }>;

/// Failed tenants named in one status: what a human reads; the operation's steps have all of them.
const FAILED_MAX: u32 = 100;

pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(run))
        .routes(routes!(show_plan))
        .layer(DefaultBodyLimit::max(BULK_BYTES_MAX))
        .routes(routes!(status))
}

/// Where to bring whom: exactly one of `release` and `files`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct MigrationRun {
    /// `rel_…`
    release: Option<String>,
    /// The files of a migration directory.
    files: Option<Vec<ReleaseFile>>,
    /// Which tenants. With `all`, the release also becomes the one that new tenants start from.
    selection: Selection,
    /// Stop after this version, which must be one of the release's.
    #[schema(value_type = Option<i64>, minimum = 0, maximum = 9_223_372_036_854_775_807_i64)]
    target: Option<Version>,
    /// Open every database instead of trusting what the catalog remembers.
    #[serde(default)]
    verify: bool,
    /// Pinned tenants take part, too. Those that are named do so anyway.
    #[serde(default)]
    include_pinned: bool,
    /// Only say what would be done.
    #[serde(default)]
    dry_run: bool,
    /// Why, for the audit log.
    reason: Option<String>,
    /// Steps at once: 1 to 128.
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 128)]
    concurrency: Option<Concurrency>,
    /// Refused when the plan has another number of tenants.
    #[schema(value_type = Option<u64>, minimum = 0, maximum = 9_007_199_254_740_991_u64)]
    expect_count: Option<Count>,
}

impl MigrationRun {
    /// The operation that is asked for.
    fn submission(self) -> Result<Submission> {
        let params = migrate::Params {
            release: source(self.release.as_deref(), self.files)?,
            target: self.target.map(Version::signed),
            look: if self.verify { migrate::Look::Every } else { migrate::Look::Hint },
            include_pinned: self.include_pinned,
            promotes: None,
        };
        Ok(Submission {
            params: Params::Migrate(params),
            targets: self.selection.into(),
            reason: self.reason,
            concurrency: self.concurrency.map(Concurrency::narrow),
            expect_count: self.expect_count.map(Count::get),
        })
    }
}

/// The set that is asked for.
fn source(release: Option<&str>, files: Option<Vec<ReleaseFile>>) -> Result<migrate::Release> {
    match (release, files) {
        (Some(id), None) => Ok(migrate::Release::Id(lookup::id(id)?)),
        (None, Some(files)) => {
            let files: Vec<File> = files.into_iter().map(File::from).collect();
            sets_of(&files)?;
            Ok(migrate::Release::Files(files))
        }
        _ => Err(Problem::invalid("expected exactly one of release and files")),
    }
}

/// Migrates tenants.
#[utoipa::path(post, path = "/v1/migrations", tag = "migrations", request_body = MigrationRun,
    responses((status = 202, description = "It has begun", body = Operation), (status = 200, description = "A dry run", body = Planned), (status = "4XX", description = "Refused", body = ProblemBody)))]
async fn run(State(api): State<Api>, caller: Caller, Json(run): Json<MigrationRun>) -> Result<Response> {
    let dry_run = run.dry_run;
    change::submit(&api, &caller, run.submission()?, dry_run).await
}

/// What migrating would do, by version.
#[derive(Debug, Serialize, ToSchema)]
struct MigrationPlan {
    /// Where to.
    release: Release,
    /// Tenants that are behind.
    pending: u64,
    /// Tenants that are there.
    up_to_date: u64,
    /// Tenants that are newer.
    ahead: u64,
    /// Tenants that are behind and stay there, because they are pinned.
    pinned: u64,
    /// Who they are, at most 100.
    pinned_tenants: Vec<PinnedTenant>,
    /// By where they are now.
    by_version: Vec<PlanAtVersion>,
}

/// The tenants at one version.
#[derive(Debug, Serialize, ToSchema)]
struct PlanAtVersion {
    /// Their newest migration; null: none.
    version: Option<i64>,
    /// How many.
    tenants: u64,
    /// What they lack.
    pending: Vec<i64>,
}

/// Shows what migrating would do, by what the catalog remembers of each tenant.
#[utoipa::path(post, path = "/v1/migrations/plan", tag = "migrations", request_body = MigrationRun,
    responses((status = 200, description = "What it would do", body = MigrationPlan), (status = "4XX", description = "Refused", body = ProblemBody)))]
async fn show_plan(
    State(api): State<Api>,
    caller: Caller,
    Json(run): Json<MigrationRun>,
) -> Result<Json<MigrationPlan>> {
    check_reason(run.reason.as_deref())?;
    let target = run.target.map(Version::signed);
    let submission = run.submission()?;
    let Params::Migrate(params) = &submission.params else { return Err(Error::internal("a migration is one").into()) };
    let (source, selection) = (params.release.clone(), submission.targets.clone());
    let include_pinned = params.include_pinned || !selection.names.is_empty();
    // Refuses what a run would refuse, with its error.
    api.app.submit(&caller.who, submission, Mode::Plan).await?;
    let tenants = api.app.select(&selection).await?;
    let (release, sets) = describe(&api, &caller, source).await?;
    let (_, current) = current(&mut api.app.catalog.read().await.map_err(Error::from)?).await?;
    let head = current.versions().head();
    let (pinned, tenants) = apart(&sets, tenants, include_pinned);
    let (count, pinned_tenants) = (pinned.len() as u64, PinnedTenant::all(&pinned, head));
    let mut plan = MigrationPlan {
        release,
        pending: 0,
        up_to_date: 0,
        ahead: 0,
        pinned: count,
        pinned_tenants,
        by_version: Vec::new(),
    };
    for (version, tenants) in by_version(&tenants) {
        let lacking = lacking(sets.versions(), version, target);
        let count = match standing(sets.versions(), version, &lacking) {
            Standing::Behind => &mut plan.pending,
            Standing::There => &mut plan.up_to_date,
            Standing::Ahead => &mut plan.ahead,
        };
        *count += tenants;
        plan.by_version.push(PlanAtVersion { version, tenants, pending: lacking });
    }
    Ok(Json(plan))
}

/// The release and its sets. A new one is stored in a transaction that is dropped: a plan leaves nothing behind.
async fn describe(api: &Api, caller: &Caller, source: migrate::Release) -> Result<(Release, MigrationSets)> {
    let mut tx = api.app.catalog.write().await?;
    let (record, files) = match source {
        migrate::Release::Id(id) => {
            (super::releases::find(&mut tx, &id.to_string()).await?, releases::files(&mut tx, id).await?)
        }
        migrate::Release::Files(files) => {
            (releases::ensure(&mut tx, &sets_of(&files)?, &files, &caller.who.actor).await?, files)
        }
    };
    let sets = MigrationSets::from_files(&files).map_err(Error::from)?;
    Ok((Release::read(&mut tx, record).await?, sets))
}

/// Where a tenant stands against a set.
#[derive(Debug, PartialEq, Eq)]
enum Standing {
    Behind,
    There,
    Ahead,
}

fn standing(set: &MigrationSet, version: Option<i64>, lacking: &[i64]) -> Standing {
    match (version, set.head()) {
        (Some(version), head) if head.is_none_or(|head| version > head) => Standing::Ahead,
        _ if lacking.is_empty() => Standing::There,
        _ => Standing::Behind,
    }
}

/// The versions after `version`, up to `target`.
fn lacking(set: &MigrationSet, version: Option<i64>, target: Option<i64>) -> Vec<i64> {
    let versions = set.migrations().iter().map(|m| m.version);
    let wanted = |v: &i64| version.is_none_or(|at| *v > at) && target.is_none_or(|target| *v <= target);
    versions.filter(wanted).collect()
}

fn by_version(tenants: &[TenantRecord]) -> BTreeMap<Option<i64>, u64> {
    let mut counted = BTreeMap::new();
    for tenant in tenants {
        *counted.entry(tenant.schema_version).or_default() += 1;
    }
    counted
}

/// Which tenants.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Filters {
    /// `k=v,k2=v2`: all of them.
    labels: Option<String>,
    /// The name of a server.
    server: Option<String>,
    /// One name or id.
    name: Option<String>,
    /// Read the ledger of every database. Else that is done for small fleets, and where the catalog knows no release.
    #[serde(default)]
    verify: bool,
}

/// How far the fleet is.
#[derive(Debug, Serialize, ToSchema)]
struct MigrationStatus {
    /// The current release; null before the first.
    head: Option<Release>,
    /// Tenants that serve.
    total: u64,
    /// At the head.
    up_to_date: u64,
    /// Behind it.
    pending: u64,
    /// Newer than it.
    ahead: u64,
    /// Behind it and pinned: they stay there until a migration names them.
    pinned: u64,
    /// Who they are, at most 100.
    pinned_tenants: Vec<PinnedTenant>,
    /// With other texts applied than the release holds, or versions that it lacks.
    differ: u64,
    /// It is not known, because their databases cannot be read.
    unreadable: u64,
    /// Tenants whose own ledgers were read for this answer; of the others it is what the catalog recorded.
    read: u64,
    /// Versions of which tenants have applied different texts.
    splits: Vec<String>,
    /// Still being made.
    unknown: u64,
    /// By version.
    versions: Vec<VersionCount>,
    /// Those the last migration gave up, at most 100.
    failed: Vec<FailedTenant>,
    /// The last migration.
    last_operation: Option<Operation>,
}

/// How many tenants are at one version.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct VersionCount {
    /// Their newest migration; null: none.
    pub(crate) version: Option<i64>,
    /// How many.
    pub(crate) tenants: u64,
}

/// A tenant that a migration gave up.
#[derive(Debug, Serialize, ToSchema)]
struct FailedTenant {
    /// Its name.
    tenant: String,
    /// Why.
    error: Option<Fault>,
}

/// Shows how far the tenants are, by their databases' ledgers, or in a large fleet by what the catalog recorded of them.
#[utoipa::path(get, path = "/v1/migrations/status", tag = "migrations", params(Filters),
    responses((status = 200, description = "How far they are", body = MigrationStatus), (status = "4XX", description = "Refused", body = ProblemBody)))]
async fn status(
    State(api): State<Api>,
    _caller: Caller,
    Query(filters): Query<Filters>,
) -> Result<Json<MigrationStatus>> {
    let tenants = api.app.select_in(&filters.selection()?, &[TenantState::Active, TenantState::Suspended]).await?;
    let reading = if filters.verify { Reading::All } else { Reading::Few };
    let sets = current(&mut api.app.catalog.read().await?).await?.1;
    let total = tenants.len() as u64;
    let (pinned, others) = apart(&sets, tenants, false);
    let mut state = schema_state::look(&api, &others, &sets, reading).await?;
    for tenant in &pinned {
        *state.versions.entry(tenant.schema_version).or_default() += 1;
    }
    let mut tx = api.app.catalog.read().await?;
    let unknown = catalog::tenants::count_by_state(&mut tx).await?;
    let unknown = unknown.into_iter().find(|(state, _)| *state == TenantState::Provisioning).map_or(0, |(_, n)| n);
    let (head, _) = current(&mut tx).await?;
    let (failed, last_operation) = last(&mut tx).await?;
    Ok(Json(MigrationStatus {
        pinned: pinned.len() as u64,
        pinned_tenants: PinnedTenant::all(&pinned, sets.versions().head()),
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

impl Filters {
    fn selection(&self) -> Result<plan::Selection> {
        let mut selection = self.name.clone().map_or_else(plan::Selection::default, plan::Selection::one);
        // Checked here as well, because this parameter is named otherwise than the field of a selection.
        self.labels.as_deref().map(lookup::labels).transpose()?;
        selection.selectors.extend(self.labels.clone());
        selection.server.clone_from(&self.server);
        selection.all = selection.is_empty();
        // A fleet without tenants has a status.
        selection.allow_empty = selection.all;
        Ok(selection)
    }
}

/// The current release and its sets; nothing before the first.
pub(crate) async fn current(tx: &mut ReadTx) -> Result<(Option<Release>, MigrationSets)> {
    let Some(id) = fleet::current_release(tx).await? else { return Ok((None, MigrationSets::empty())) };
    let record = super::releases::find(tx, &id.to_string()).await?;
    let sets = MigrationSets::from_files(&releases::files(tx, id).await?).map_err(Error::from)?;
    Ok((Some(Release::read(tx, record).await?), sets))
}

/// The last migration and the tenants it gave up.
async fn last(tx: &mut ReadTx) -> Result<(Vec<FailedTenant>, Option<Operation>)> {
    let found = catalog_operations::page(tx, &[], Some("migrate"), None, None, 1).await?;
    let Some(record) = found.into_iter().next() else { return Ok((Vec::new(), None)) };
    let id: OperationId = record.id;
    let steps = steps::page(tx, id, &[StepState::Failed], None, FAILED_MAX).await?;
    let failed = |(step, tenant): (steps::StepRecord, String)| FailedTenant {
        tenant,
        error: Fault::new(step.error_code, step.error),
    };
    let failed = steps.into_iter().map(failed).collect();
    Ok((failed, Some(Operation::read(tx, record).await?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set() -> MigrationSet {
        let file = |n: i64| File { name: format!("{n:04}_x.sql"), sql: format!("create table t{n} (a)") };
        MigrationSet::from_files(&[file(1), file(2), file(4)]).unwrap()
    }

    #[test]
    fn what_lacks_is_what_comes_after() {
        assert_eq!(lacking(&set(), None, None), [1, 2, 4]);
        assert_eq!(lacking(&set(), Some(2), None), [4]);
        assert_eq!(lacking(&set(), Some(1), Some(2)), [2]);
        assert!(lacking(&set(), Some(9), None).is_empty());
    }

    #[test]
    fn a_tenant_is_behind_there_or_ahead() {
        let stands = |version| standing(&set(), version, &lacking(&set(), version, None));
        assert_eq!(stands(None), Standing::Behind);
        assert_eq!(stands(Some(2)), Standing::Behind);
        assert_eq!(stands(Some(4)), Standing::There);
        assert_eq!(stands(Some(5)), Standing::Ahead);
        assert_eq!(standing(&MigrationSet::empty(), None, &[]), Standing::There);
        assert_eq!(standing(&MigrationSet::empty(), Some(1), &[]), Standing::Ahead);
    }
}
