//! `/v1/doctor`: the checks that an experienced operator would make first, each with advice.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::extract::State;
use catalog::{ReadTx, ServerRecord, TenantState, backups, servers, tenants};
use serde::{Deserialize, Serialize};
use tenant_engine::disk::DiskSpace;
use tenant_engine::{EngineKind, FunctionRights, RoleAudit, ServerSurvey};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::migrations::pins;
use super::migrations::schema_state::{self, LedgerReadScope, SchemaState};
use super::{doctor_certificate, doctor_places, migrations, status};
use crate::disks;
use crate::error::Error;
use crate::http::ApiState;
use crate::http::admission::AdmittedCaller;
use crate::http::bounded_number::BoundedNumber;
use crate::http::error::{ProblemBody, Result};
use crate::http::extract::{JsonBody, QueryParams};
use crate::plan::TenantSelection;
use crate::scrub::{self, finding::FindingKind};

/// Default maximum age of the newest backup, hours. A nightly backup may start late.
const BACKUP_AGE_HOURS: u32 = 26;
/// The requested maximum age, hours. At most ten years: a larger number is a typing error.
type AgeHours = BoundedNumber<1, 87_600>;
const HOUR_MS: i64 = 3_600_000;
/// How far a backup's time may be in the future, milliseconds. Clocks of processes may differ by seconds; more means
/// that a clock was wrong.
const BACKUP_AHEAD_MAX_MS: i64 = 5 * 60_000;
/// Number of manifests that are looked up in the backup store. A store that was lost or replaced lacks all of them.
const MANIFESTS_PROBED: u32 = 8;
/// How long the backup store may take to answer.
const PROBE_MAX: Duration = Duration::from_secs(10);
/// Maximum number of names in one line of the report.
const NAMES_MAX: usize = 5;
/// Minimum share of free space on a disk, per cent. Below it, a migration of every tenant may fill the disk.
const FREE_PERCENT_MIN: u64 = 10;
/// Maximum number of pinned tenants in one line.
const PINNED_NAMED: u32 = 5;
/// Minimum limit of open files: enough for a few thousand open tenants with their write-ahead logs.
const OPEN_FILES_MIN: u64 = 8_192;

pub(crate) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(run_doctor))
}

/// The results of all checks.
#[derive(Debug, Serialize, ToSchema)]
struct DoctorReport {
    /// One result per check.
    checks: Vec<DoctorCheck>,
}

/// The result of one check.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DoctorCheck {
    /// Name of the check.
    name: String,
    /// Result: ok, warn, fail, or unknown if the check could not be made.
    status: DoctorVerdict,
    /// Description of what the check found.
    detail: String,
    /// Advice for the operator; empty if the result is ok.
    next_step: String,
}

/// The result of a check, by severity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum DoctorVerdict {
    Ok,
    Warn,
    Fail,
    Unknown,
}

impl DoctorCheck {
    pub(super) fn new_ok(name: &str, detail: impl Into<String>) -> Self {
        Self { name: name.to_owned(), status: DoctorVerdict::Ok, detail: detail.into(), next_step: String::new() }
    }
    pub(super) fn new_warning(name: &str, detail: impl Into<String>, next_step: &str) -> Self {
        Self {
            name: name.to_owned(),
            status: DoctorVerdict::Warn,
            detail: detail.into(),
            next_step: next_step.to_owned(),
        }
    }
    pub(super) fn new_failure(name: &str, detail: impl Into<String>, next_step: &str) -> Self {
        Self { status: DoctorVerdict::Fail, ..Self::new_warning(name, detail, next_step) }
    }
    /// A check that could not be made. It says nothing about its subject.
    pub(super) fn new_unknown(name: &str, detail: impl Into<String>, next_step: &str) -> Self {
        Self { status: DoctorVerdict::Unknown, ..Self::new_warning(name, detail, next_step) }
    }
}

/// Limits that the checks use.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct DoctorExpectations {
    /// Maximum age of each tenant's newest backup, in hours: 1 to 87,600. Default: 26. An older backup fails the check
    /// `backups`.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 87_600)]
    backup_age_hours: Option<AgeHours>,
}

/// Check the fleet and change nothing.
///
/// The only exception is a small object that is written to the backup store and removed again.
#[utoipa::path(get, path = "/v1/doctor", tag = "status", params(DoctorExpectations), responses((status = "4XX", description = "The request was refused", body = ProblemBody), (status = 200, description = "Results of the checks", body = DoctorReport)))]
async fn run_doctor(
    State(api): State<ApiState>,
    _caller: AdmittedCaller,
    QueryParams(expected): QueryParams<DoctorExpectations>,
) -> Result<JsonBody<DoctorReport>> {
    let hours = expected.backup_age_hours.map_or(BACKUP_AGE_HOURS, AgeHours::to_u32);
    let directory = &api.app.config.data_dir;
    let mut checks = vec![
        disk_check("data_dir", directory),
        private_file_check("fleet_key", &directory.join("fleet.key")),
        private_file_check("operator_token", &directory.join("operator.token")),
        open_files(),
        runner_check(&api),
    ];
    checks.extend(doctor_certificate::certificate_check(&api));
    let known = servers::list_servers(&mut api.app.catalog.read().await?).await?;
    for (record, _) in &known {
        let survey = super::servers::survey_server(&api, record).await;
        let reached = survey.is_ok();
        checks.extend(survey.as_ref().ok().and_then(|survey| functions_check(record, survey)));
        checks.push(server_check(record, survey));
        if reached && record.engine == EngineKind::Postgres {
            checks.push(roles_check(record, audit_roles(&api, record).await));
        }
    }
    checks.push(reserves_check(&api, &known));
    checks.push(doctor_places::markers_check(&api, &known));
    checks.push(doctor_places::file_systems(&api, &known));
    checks.push(databases_check(&scrub::run_scrub(&api.app.fleet, &scrub::InspectionScope::Nothing).await?));
    checks.push(ledgers_check(&api).await?);
    let mut tx = api.app.catalog.read().await?;
    checks.push(schema_check(&mut tx).await?);
    checks.push(backup_age(&mut tx, hours).await?);
    let last = backups::last_keys(&mut tx, MANIFESTS_PROBED).await?;
    checks.push(failed_operations(&mut tx).await?);
    drop(tx);
    checks.push(backup_store(&api, &last).await);
    Ok(JsonBody(DoctorReport { checks }))
}

/// PURE: the check of databases by names and metadata. A server that does not answer has a line of its own.
fn databases_check(report: &scrub::ScrubSummary) -> DoctorCheck {
    let count =
        |wanted: &dyn Fn(FindingKind) -> bool| report.findings.iter().filter(|f| wanted(f.subject.kind)).count();
    let gone = |f: &&scrub::finding::Finding| {
        f.subject.kind == FindingKind::MissingDatabase && f.severity == scrub::finding::FindingSeverity::Error
    };
    let missing = report.findings.iter().filter(gone).count();
    let shared = count(&|kind| matches!(kind, FindingKind::SharedDatabase | FindingKind::SamePlace));
    let orphans = count(&|kind| kind.is_orphan() || kind == FindingKind::ForeignFile);
    let unseen = count(&|kind| matches!(kind, FindingKind::ServerUnreachable | FindingKind::NotLooked));
    match (missing + shared, unseen, orphans) {
        (0, 0, 0) => DoctorCheck::new_ok("databases", format!("{} are where the catalog says", report.databases)),
        (0, 0, orphans) => {
            let detail =
                format!("{orphans} objects look like databases or parts of one, but the catalog does not name them");
            DoctorCheck::new_warning("databases", detail, "fleetctl scrub")
        }
        (0, unseen, _) => {
            let servers = report.servers;
            let detail = format!("could not look at {unseen} servers or databases; {servers} servers answered");
            DoctorCheck::new_unknown("databases", detail, "fleetctl scrub")
        }
        _ => {
            let detail = format!(
                "{missing} are missing, {shared} are the same as another, {orphans} are not named by the catalog"
            );
            DoctorCheck::new_failure("databases", detail, "fleetctl scrub")
        }
    }
}

fn disk_check(name: &str, directory: &Path) -> DoctorCheck {
    if rustix::fs::access(directory, rustix::fs::Access::WRITE_OK).is_err() {
        return DoctorCheck::new_failure(
            name,
            "this process cannot write there",
            "check that it is mounted and who owns it",
        );
    }
    match DiskSpace::at_path(directory) {
        Ok(found) if found.is_low() => {
            let detail = format!("writes of tenants are refused: {}", found.describe_free_room());
            DoctorCheck::new_failure(name, detail, "free some space: suspend, delete and purge still work")
        }
        Ok(found) => space_check(name, found.free.bytes, found.total.bytes),
        Err(_) => DoctorCheck::new_unknown(name, "its disk does not answer", "check that it is mounted"),
    }
}

/// Servers that are directories.
pub(super) fn server_directories(known: &[(ServerRecord, i64)]) -> Vec<(String, PathBuf)> {
    let files = known.iter().filter(|(server, _)| server.engine == EngineKind::Sqlite);
    files.map(|(server, _)| (server.name.clone(), server.base.clone().into())).collect()
}

/// Checks the space that is reserved on each disk for the work that frees a full one.
fn reserves_check(api: &ApiState, known: &[(ServerRecord, i64)]) -> DoctorCheck {
    let data_dir = disks::of_data_dir(&api.app.config.data_dir, &api.app.catalog);
    let all: Vec<_> = std::iter::once(data_dir).chain(disks::of_bases(&server_directories(known))).collect();
    let wanted = all.iter().filter(|disk| disk.reserve.is_some()).count();
    match all.iter().filter(|disk| disk.lacks_reserve()).map(|disk| disk.name.clone()).collect::<Vec<_>>() {
        missing if missing.is_empty() => {
            DoctorCheck::new_ok("disk_reserves", format!("{wanted} of {wanted} are there"))
        }
        missing => {
            let detail = format!("{} of {wanted} are missing: {}", missing.len(), shorten_names(&missing));
            let next = "free some space; they are created again automatically";
            DoctorCheck::new_warning("disk_reserves", detail, next)
        }
    }
}

/// PURE: a few names, and the number of the others.
pub(super) fn shorten_names(names: &[String]) -> String {
    let (shown, rest) = names.split_at(names.len().min(NAMES_MAX));
    match rest.len() {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// Checks a server by its survey. The disk of a directory is checked here.
fn server_check(record: &ServerRecord, survey: std::result::Result<ServerSurvey, Error>) -> DoctorCheck {
    let name = format!("server {}", record.name);
    let next = format!("fleetctl server get {}", record.name);
    let survey = match survey {
        Err(error) => return DoctorCheck::new_failure(&name, format!("{}: {}", error.code(), error.detail), &next),
        Ok(survey) if !survey.lacks.is_empty() => {
            return DoctorCheck::new_failure(&name, format!("its role lacks {}", survey.lacks.join("; ")), &next);
        }
        Ok(survey) => survey,
    };
    if record.engine == EngineKind::Sqlite {
        return disk_check(&name, Path::new(&record.base));
    }
    match (survey.disk_free_bytes, survey.disk_total_bytes, survey.connections_used, survey.connections_max) {
        (Some(free), Some(total), ..) => space_check(&name, free, total),
        (_, _, Some(used), Some(max)) if used >= max => {
            DoctorCheck::new_warning(&name, format!("all {max} connections are in use"), "raise max_connections")
        }
        (_, _, Some(used), Some(max)) => DoctorCheck::new_ok(&name, format!("{used} of {max} connections in use")),
        _ => DoctorCheck::new_ok(&name, survey.version),
    }
}

/// PURE: checks whether the server itself hides other tenants from a tenant's SQL.
fn functions_check(record: &ServerRecord, survey: &ServerSurvey) -> Option<DoctorCheck> {
    if record.engine != EngineKind::Postgres {
        return None;
    }
    let name = format!("server {} functions", record.name);
    let next = format!("fleetctl server prepare {} | psql <connection string of a superuser>", record.name);
    Some(match survey.function_rights {
        Some(FunctionRights::Revoked) => {
            DoctorCheck::new_ok(&name, "only the fleet's role may ask about other tenants")
        }
        Some(FunctionRights::RevokedInNew) => {
            let detail = "databases from before the server was prepared rely on the check of each request's SQL alone";
            DoctorCheck::new_warning(&name, detail, &next)
        }
        Some(FunctionRights::Outdated) => {
            DoctorCheck::new_warning(&name, "the server was prepared by another version of this program", &next)
        }
        Some(FunctionRights::Granted) => {
            let detail = "only the check of each request's SQL keeps other tenants' names from a tenant; temporary files of \
                          a statement have the server's own limit";
            DoctorCheck::new_warning(&name, detail, &next)
        }
        None => DoctorCheck::new_unknown(&name, "the server did not report who may run its functions", &next),
    })
}

async fn audit_roles(api: &ApiState, record: &ServerRecord) -> std::result::Result<RoleAudit, Error> {
    let server = api.app.fleet.load_server(record.id).await?;
    Ok(api.app.fleet.engine_of_kind(record.engine)?.audit_roles(&server).await?)
}

/// Maximum number of findings in one line.
const FINDINGS_SHOWN: usize = 5;

/// PURE: the check made from an audit of roles, rights and settings.
fn roles_check(record: &ServerRecord, audit: std::result::Result<RoleAudit, Error>) -> DoctorCheck {
    let name = format!("server {} roles", record.name);
    let audit = match audit {
        Ok(audit) => audit,
        Err(error) => {
            let next = format!("fleetctl server get {}", record.name);
            return DoctorCheck::new_unknown(
                &name,
                format!("could not look: {}: {}", error.code(), error.detail),
                &next,
            );
        }
    };
    if audit.findings.is_empty() {
        let (entered, databases) = (audit.entered, audit.databases);
        return DoctorCheck::new_ok(
            &name,
            format!("as the fleet creates them; {entered} of {databases} databases were checked"),
        );
    }
    let shown = audit.findings.iter().take(FINDINGS_SHOWN);
    let more = audit.findings.len().saturating_sub(FINDINGS_SHOWN);
    let (what, cures): (Vec<_>, Vec<_>) = shown.map(|found| (found.what.clone(), found.cure.clone())).unzip();
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    let cures: Vec<_> = cures.into_iter().filter(|cure| !cure.is_empty()).collect();
    let next = format!("find out who changed it, then run on the server: {}", cures.join("; "));
    DoctorCheck::new_failure(&name, format!("{}{more}", what.join("; ")), &next)
}

/// PURE: the check of a disk's free space.
fn space_check(name: &str, free: u64, total: u64) -> DoctorCheck {
    let detail = format!("{} of {} MiB free", free >> 20, total >> 20);
    match free.saturating_mul(100).checked_div(total).unwrap_or(0) {
        _ if free == 0 => DoctorCheck::new_failure(name, detail, "free some space: nothing can be written"),
        percent if percent < FREE_PERCENT_MIN => {
            DoctorCheck::new_warning(name, detail, "free some space, or add a server")
        }
        _ => DoctorCheck::new_ok(name, detail),
    }
}

/// Checks that only its owner can read a secret's file.
fn private_file_check(name: &str, file: &Path) -> DoctorCheck {
    match std::fs::metadata(file) {
        Ok(found) if found.permissions().mode() & 0o077 == 0 => DoctorCheck::new_ok(name, "only its owner can read it"),
        Ok(_) => DoctorCheck::new_failure(
            name,
            "users other than its owner can read it",
            "chmod 600, and replace its contents",
        ),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            DoctorCheck::new_ok(name, "not kept in the data directory")
        }
        Err(error) => {
            DoctorCheck::new_unknown(name, format!("cannot look at it: {error}"), "check who owns its directory")
        }
    }
}

fn open_files() -> DoctorCheck {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    match limit {
        Some(limit) if limit < OPEN_FILES_MIN => DoctorCheck::new_warning(
            "open_files",
            format!("at most {limit}"),
            "raise the limit of open files (ulimit -n, LimitNOFILE=)",
        ),
        Some(limit) => DoctorCheck::new_ok("open_files", format!("at most {limit}")),
        None => DoctorCheck::new_ok("open_files", "no limit"),
    }
}

fn runner_check(api: &ApiState) -> DoctorCheck {
    if api.app.runner_alive() {
        DoctorCheck::new_ok("runner", "claims and runs steps")
    } else {
        DoctorCheck::new_failure("runner", "steps are not being run", "check the log, then restart")
    }
}

async fn schema_check(tx: &mut ReadTx) -> Result<DoctorCheck> {
    let (release, sets) = migrations::current_sets(tx).await?;
    if release.is_none() {
        let next = "fleetctl migrate run <directory> --all";
        return Ok(DoctorCheck::new_warning("schema", "no release yet: new tenants start empty", next));
    }
    let head = sets.version_set().head_version();
    let below = |counts: Vec<(Option<i64>, i64)>| {
        counts.into_iter().filter(|(version, _)| *version < head).map(|(_, tenants)| tenants).sum::<i64>()
    };
    let pinned = below(tenants::count_pinned_by_version(tx).await?);
    let behind = below(tenants::count_by_version(tx).await?) - pinned;
    let named = tenants::pinned_tenants(tx, PINNED_NAMED).await?;
    Ok(versions_check(behind, pinned, &pins::describe_pinned(&named, head)))
}

/// PURE: checks the tenants' versions. A pinned tenant is at its intended version, and is listed so that it is not
/// forgotten.
fn versions_check(behind: i64, pinned: i64, pins: &str) -> DoctorCheck {
    let also = if pinned == 0 { String::new() } else { format!("; {pinned} pinned: {pins}") };
    match behind {
        0 if pinned == 0 => DoctorCheck::new_ok("schema", "every tenant is at the head"),
        0 => DoctorCheck::new_ok("schema", format!("every tenant that is not pinned is at the head{also}")),
        behind => {
            let detail = format!("{behind} tenants are behind the head{also}");
            DoctorCheck::new_warning("schema", detail, "fleetctl migrate status")
        }
    }
}

/// Checks whether tenants have applied the same texts as each other and as the current release.
async fn ledgers_check(api: &ApiState) -> Result<DoctorCheck> {
    let every = TenantSelection { allow_empty: true, ..TenantSelection::all_tenants() };
    let tenants = api.app.select_in(&every, &[TenantState::Active, TenantState::Suspended]).await?;
    let sets = migrations::current_sets(&mut api.app.catalog.read().await?).await?.1;
    Ok(agreement_check(&schema_state::load_schema_state(api, &tenants, &sets, LedgerReadScope::Few).await?))
}

/// PURE: the check made from the tenants' ledgers.
fn agreement_check(state: &SchemaState) -> DoctorCheck {
    const NAME: &str = "ledgers";
    let next = "fleetctl migrate status; until tenants agree, run each text for the tenants that have it: \
                fleetctl migrate run DIR TENANT…";
    if let Some(split) = state.splits.first() {
        let detail = format!("tenants have applied different files of {} versions: {split}", state.splits.len());
        return DoctorCheck::new_failure(NAME, detail, next);
    }
    if state.differ > 0 {
        let detail = format!("{} tenants have applied other files than the current release holds", state.differ);
        return DoctorCheck::new_failure(NAME, detail, next);
    }
    match state.unreadable {
        0 => DoctorCheck::new_ok(NAME, format!("tenants agree; {} databases were read", state.read)),
        unreadable => {
            DoctorCheck::new_unknown(NAME, format!("{unreadable} databases could not be read"), "fleetctl scrub")
        }
    }
}

async fn backup_age(tx: &mut ReadTx, hours: u32) -> Result<DoctorCheck> {
    let now = tx.now();
    let old = now - i64::from(hours) * HOUR_MS;
    Ok(freshness_check(&backups::backup_freshness(tx, old, now + BACKUP_AHEAD_MAX_MS).await?, hours))
}

/// PURE: the check of backups' ages. Each tenant counts, so that one fresh backup does not hide the old ones of others.
/// A tenant that is younger than the maximum age only causes a warning: its first backup may be due tonight.
fn freshness_check(found: &backups::BackupFreshness, hours: u32) -> DoctorCheck {
    let counts = [
        (found.never, "without a backup".to_owned()),
        (found.stale, format!("with none of the last {hours} hours")),
        (found.in_future, "with one dated in the future".to_owned()),
        (found.young, "new, and without a backup yet".to_owned()),
    ];
    let told =
        counts.into_iter().filter(|(tenants, _)| *tenants > 0).map(|(tenants, what)| format!("{tenants} {what}"));
    let told: Vec<String> = told.collect();
    let next = "fleetctl backup run --all; if a date is in the future, check the clocks";
    let detail = format!("of {} tenants, {}", found.tenants, told.join(", "));
    match (found.never + found.stale, found.in_future + found.young) {
        (0, 0) => DoctorCheck::new_ok("backups", format!("all {} tenants have a fresh one", found.tenants)),
        (0, _) => DoctorCheck::new_warning("backups", detail, next),
        _ => DoctorCheck::new_failure("backups", detail, next),
    }
}

/// Checks whether the store answers, and holds the backups that the catalog lists.
async fn backup_store(api: &ApiState, last: &[String]) -> DoctorCheck {
    let next = "check that the backup store is there (setting backup_url), then fleetctl backup verify --all";
    let Ok(keys) = last.iter().map(|key| key.parse()).collect::<std::result::Result<Vec<_>, Error>>() else {
        return DoctorCheck::new_failure("backup_store", "the catalog holds a key that is not a backup's", next);
    };
    let probe = tokio::time::timeout(PROBE_MAX, api.app.fleet.store.probe_store(&keys)).await;
    match probe {
        Ok(Ok(0)) => {
            let detail = format!("an object was written, read and removed; the last {} backups are there", keys.len());
            DoctorCheck::new_ok("backup_store", detail)
        }
        Ok(Ok(missing)) => DoctorCheck::new_failure(
            "backup_store",
            format!("it lacks {missing} of the last {} backups", keys.len()),
            next,
        ),
        Ok(Err(error)) => DoctorCheck::new_unknown("backup_store", format!("{}: {}", error.code(), error.detail), next),
        Err(_) => DoctorCheck::new_unknown("backup_store", "it does not answer in time", next),
    }
}

async fn failed_operations(tx: &mut ReadTx) -> Result<DoctorCheck> {
    Ok(match status::operations_status(tx).await?.failed_recent {
        0 => DoctorCheck::new_ok("operations", "none failed within a day"),
        failed => DoctorCheck::new_warning(
            "operations",
            format!("{failed} failed within a day"),
            "fleetctl op list --state failed,partial",
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn little_space_warns_and_none_fails() {
        assert_eq!(space_check("x", 50, 100).status, DoctorVerdict::Ok);
        assert_eq!(space_check("x", 9, 100).status, DoctorVerdict::Warn);
        assert_eq!(space_check("x", 0, 100).status, DoctorVerdict::Fail);
        assert_eq!(space_check("x", 0, 0).status, DoctorVerdict::Fail);
    }

    #[test]
    fn a_pinned_tenant_is_named_and_is_no_fault() {
        assert_eq!(versions_check(0, 0, "").detail, "every tenant is at the head");
        let pinned = versions_check(0, 1, "acme at 1");
        assert_eq!((pinned.status, pinned.detail.contains("acme at 1")), (DoctorVerdict::Ok, true));
        let behind = versions_check(2, 1, "acme at 1");
        assert_eq!((behind.status, behind.detail.contains("acme at 1")), (DoctorVerdict::Warn, true));
    }

    #[test]
    fn tenants_that_disagree_fail_and_those_not_looked_at_are_unknown() {
        let check = |state: SchemaState| agreement_check(&state).status;
        assert_eq!(check(SchemaState { behind: 3, ..SchemaState::default() }), DoctorVerdict::Ok);
        assert_eq!(check(SchemaState { differ: 1, ..SchemaState::default() }), DoctorVerdict::Fail);
        assert_eq!(check(SchemaState { unreadable: 1, ..SchemaState::default() }), DoctorVerdict::Unknown);
        assert_eq!(check(SchemaState { splits: vec!["1".to_owned()], ..SchemaState::default() }), DoctorVerdict::Fail);
    }

    #[test]
    fn one_fresh_backup_hides_no_other_tenant() {
        let found = |never, stale, in_future, young| {
            freshness_check(&backups::BackupFreshness { tenants: 9, never, stale, in_future, young }, 26)
        };
        assert_eq!(found(0, 0, 0, 0).status, DoctorVerdict::Ok);
        for (counts, verdict, words) in [
            ((1, 0, 0, 0), DoctorVerdict::Fail, "1 without a backup"),
            ((0, 2, 0, 0), DoctorVerdict::Fail, "2 with none of the last 26 hours"),
            ((0, 0, 3, 0), DoctorVerdict::Warn, "3 with one dated"),
            ((0, 0, 0, 4), DoctorVerdict::Warn, "4 new"),
            ((0, 1, 1, 1), DoctorVerdict::Fail, "1 with one dated"),
        ] {
            let check = found(counts.0, counts.1, counts.2, counts.3);
            assert!(check.status == verdict && check.detail.contains(words), "{}", check.detail);
        }
    }

    #[test]
    fn a_secret_that_others_can_read_fails() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key");
        std::fs::write(&file, "x").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(private_file_check("key", &file).status, DoctorVerdict::Fail);
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(private_file_check("key", &file).status, DoctorVerdict::Ok);
        assert_eq!(private_file_check("key", &dir.path().join("none")).status, DoctorVerdict::Ok);
    }
}
