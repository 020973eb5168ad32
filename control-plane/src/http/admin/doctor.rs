//! `/v1/doctor`: what an experienced operator would look at first, with what to do about it.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::extract::State;
use catalog::{ReadTx, ServerRecord, TenantState, backups, servers, tenants};
use serde::{Deserialize, Serialize};
use tenant_engine::disk::DiskSpace;
use tenant_engine::{EngineKind, FunctionRights, RoleAudit, Survey};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::schema_state::{self, Reading, SchemaState};
use super::{doctor_places, migrations, pins, status};
use crate::disks;
use crate::error::Error;
use crate::http::Api;
use crate::http::admission::Caller;
use crate::http::error::{ProblemBody, Result};
use crate::http::extract::{Json, Query};
use crate::http::number::Within;
use crate::plan::Selection;
use crate::scrub::{self, finding::Kind};

/// A nightly backup may start late.
const BACKUP_AGE_HOURS: u32 = 26;
/// At most ten years: an older age is a slip of the hand.
type Hours = Within<1, 87_600>;
const HOUR_MS: i64 = 3_600_000;
/// Clocks of a fleet's processes may differ by seconds; more is a clock that was wrong.
const BACKUP_AHEAD_MAX_MS: i64 = 5 * 60_000;
/// Manifests looked for in the backup store: a store that was lost or exchanged lacks all of them.
const MANIFESTS_PROBED: u32 = 8;
/// How long the backup store may take to answer.
const PROBE_MAX: Duration = Duration::from_secs(10);
/// Names in one line of the report.
const NAMES_MAX: usize = 5;
/// Below this share of a disk, a migration of every tenant may fill it.
const FREE_PERCENT_MIN: u64 = 10;
/// Pinned tenants named in one line.
const PINNED_NAMED: u32 = 5;
/// A few thousand open tenants with their write-ahead logs.
const OPEN_FILES_MIN: u64 = 8_192;

pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(doctor))
}

/// Everything that was looked at.
#[derive(Debug, Serialize, ToSchema)]
struct DoctorReport {
    /// One per thing looked at.
    checks: Vec<DoctorCheck>,
}

/// One thing that was looked at.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DoctorCheck {
    /// Which.
    name: String,
    /// ok, warn, fail, or unknown for what could not be looked at.
    status: DoctorVerdict,
    /// What was found.
    detail: String,
    /// What helps; empty when it is ok.
    next_step: String,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum DoctorVerdict {
    Ok,
    Warn,
    Fail,
    Unknown,
}

impl DoctorCheck {
    pub(super) fn ok(name: &str, detail: impl Into<String>) -> Self {
        Self { name: name.to_owned(), status: DoctorVerdict::Ok, detail: detail.into(), next_step: String::new() }
    }
    pub(super) fn warn(name: &str, detail: impl Into<String>, next_step: &str) -> Self {
        Self {
            name: name.to_owned(),
            status: DoctorVerdict::Warn,
            detail: detail.into(),
            next_step: next_step.to_owned(),
        }
    }
    pub(super) fn fail(name: &str, detail: impl Into<String>, next_step: &str) -> Self {
        Self { status: DoctorVerdict::Fail, ..Self::warn(name, detail, next_step) }
    }
    /// It could not be looked at: neither ok nor a finding about the thing itself.
    pub(super) fn unknown(name: &str, detail: impl Into<String>, next_step: &str) -> Self {
        Self { status: DoctorVerdict::Unknown, ..Self::warn(name, detail, next_step) }
    }
}

/// What an operator expects.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Expectations {
    /// A tenant whose newest backup is older fails the check `backups`; hours, 1 to 87,600, 26 unless given.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 87_600)]
    backup_age_hours: Option<Hours>,
}

/// Looks at everything and changes nothing, but for a small object that it writes to the backup store and removes.
#[utoipa::path(get, path = "/v1/doctor", tag = "status", params(Expectations), responses((status = "4XX", description = "Refused", body = ProblemBody), (status = 200, description = "What was found", body = DoctorReport)))]
async fn doctor(
    State(api): State<Api>,
    _caller: Caller,
    Query(expected): Query<Expectations>,
) -> Result<Json<DoctorReport>> {
    let hours = expected.backup_age_hours.map_or(BACKUP_AGE_HOURS, Hours::narrow);
    let directory = &api.app.config.data_dir;
    let mut checks = vec![
        disk("data_dir", directory),
        private("fleet_key", &directory.join("fleet.key")),
        private("operator_token", &directory.join("operator.token")),
        open_files(),
        runner(&api),
    ];
    let known = servers::list(&mut api.app.catalog.read().await?).await?;
    for (record, _) in &known {
        let survey = super::servers::survey(&api, record).await;
        let reached = survey.is_ok();
        checks.extend(survey.as_ref().ok().and_then(|survey| functions(record, survey)));
        checks.push(server(record, survey));
        if reached && record.engine == EngineKind::Postgres {
            checks.push(roles(record, audit(&api, record).await));
        }
    }
    checks.push(reserves(&api, &known));
    checks.push(doctor_places::markers(&api, &known));
    checks.push(doctor_places::file_systems(&api, &known));
    checks.push(databases(&scrub::run(&api.app.fleet, &scrub::Opening::Nothing).await?));
    checks.push(ledgers(&api).await?);
    let mut tx = api.app.catalog.read().await?;
    checks.push(schema(&mut tx).await?);
    checks.push(backup_age(&mut tx, hours).await?);
    let last = backups::last_keys(&mut tx, MANIFESTS_PROBED).await?;
    checks.push(failed_operations(&mut tx).await?);
    drop(tx);
    checks.push(backup_store(&api, &last).await);
    Ok(Json(DoctorReport { checks }))
}

/// PURE: what names and metadata tell; a server that does not answer has a line of its own.
fn databases(report: &scrub::Report) -> DoctorCheck {
    let count = |wanted: &dyn Fn(Kind) -> bool| report.findings.iter().filter(|f| wanted(f.subject.kind)).count();
    let gone = |f: &&scrub::finding::Finding| {
        f.subject.kind == Kind::MissingDatabase && f.severity == scrub::finding::Severity::Error
    };
    let missing = report.findings.iter().filter(gone).count();
    let shared = count(&|kind| matches!(kind, Kind::SharedDatabase | Kind::SamePlace));
    let orphans = count(&|kind| kind.is_orphan() || kind == Kind::ForeignFile);
    let unseen = count(&|kind| matches!(kind, Kind::ServerUnreachable | Kind::NotLooked));
    match (missing + shared, unseen, orphans) {
        (0, 0, 0) => DoctorCheck::ok("databases", format!("{} are where the catalog says", report.databases)),
        (0, 0, orphans) => {
            let detail = format!("the catalog does not name {orphans} things that look like databases or parts of one");
            DoctorCheck::warn("databases", detail, "fleetctl scrub")
        }
        (0, unseen, _) => {
            let servers = report.servers;
            let detail = format!("could not look at {unseen} servers or databases; {servers} servers answered");
            DoctorCheck::unknown("databases", detail, "fleetctl scrub")
        }
        _ => {
            let detail =
                format!("{missing} are missing, {shared} are one with another, the catalog does not name {orphans}");
            DoctorCheck::fail("databases", detail, "fleetctl scrub")
        }
    }
}

fn disk(name: &str, directory: &Path) -> DoctorCheck {
    if rustix::fs::access(directory, rustix::fs::Access::WRITE_OK).is_err() {
        return DoctorCheck::fail(name, "this process cannot write there", "check that it is mounted and who owns it");
    }
    match DiskSpace::of(directory) {
        Ok(found) if found.is_low() => {
            let detail = format!("writes of tenants are refused: {}", found.describe());
            DoctorCheck::fail(name, detail, "free some space: suspend, delete and purge still work")
        }
        Ok(found) => space(name, found.free.bytes, found.total.bytes),
        Err(_) => DoctorCheck::unknown(name, "its disk does not answer", "check that it is mounted"),
    }
}

/// Servers that are directories.
pub(super) fn directories(known: &[(ServerRecord, i64)]) -> Vec<(String, PathBuf)> {
    let files = known.iter().filter(|(server, _)| server.engine == EngineKind::Sqlite);
    files.map(|(server, _)| (server.name.clone(), server.base.clone().into())).collect()
}

/// The room that is set apart on each disk for the work that frees a full one.
fn reserves(api: &Api, known: &[(ServerRecord, i64)]) -> DoctorCheck {
    let data_dir = disks::of_data_dir(&api.app.config.data_dir, &api.app.catalog);
    let all: Vec<_> = std::iter::once(data_dir).chain(disks::of_bases(&directories(known))).collect();
    let wanted = all.iter().filter(|disk| disk.reserve.is_some()).count();
    match all.iter().filter(|disk| disk.lacks_reserve()).map(|disk| disk.name.clone()).collect::<Vec<_>>() {
        missing if missing.is_empty() => DoctorCheck::ok("disk_reserves", format!("{wanted} of {wanted} are there")),
        missing => {
            let detail = format!("{} of {wanted} are missing: {}", missing.len(), shortened(&missing));
            let next = "free some space; they are made again by themselves";
            DoctorCheck::warn("disk_reserves", detail, next)
        }
    }
}

/// PURE: a few names, and how many more there are.
pub(super) fn shortened(names: &[String]) -> String {
    let (shown, rest) = names.split_at(names.len().min(NAMES_MAX));
    match rest.len() {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// What a server's own words mean; the disk of a directory is asked here.
fn server(record: &ServerRecord, survey: std::result::Result<Survey, Error>) -> DoctorCheck {
    let name = format!("server {}", record.name);
    let next = format!("fleetctl server get {}", record.name);
    let survey = match survey {
        Err(error) => return DoctorCheck::fail(&name, format!("{}: {}", error.code, error.detail), &next),
        Ok(survey) if !survey.lacks.is_empty() => {
            return DoctorCheck::fail(&name, format!("its role lacks {}", survey.lacks.join("; ")), &next);
        }
        Ok(survey) => survey,
    };
    if record.engine == EngineKind::Sqlite {
        return disk(&name, Path::new(&record.base));
    }
    match (survey.disk_free_bytes, survey.disk_total_bytes, survey.connections_used, survey.connections_max) {
        (Some(free), Some(total), ..) => space(&name, free, total),
        (_, _, Some(used), Some(max)) if used >= max => {
            DoctorCheck::warn(&name, format!("all {max} connections are in use"), "raise max_connections")
        }
        (_, _, Some(used), Some(max)) => DoctorCheck::ok(&name, format!("{used} of {max} connections in use")),
        _ => DoctorCheck::ok(&name, survey.version),
    }
}

/// PURE: whether the server itself keeps other tenants from a tenant's SQL.
fn functions(record: &ServerRecord, survey: &Survey) -> Option<DoctorCheck> {
    if record.engine != EngineKind::Postgres {
        return None;
    }
    let name = format!("server {} functions", record.name);
    let next = format!("fleetctl server prepare {} | psql <connection string of a superuser>", record.name);
    Some(match survey.function_rights {
        Some(FunctionRights::Revoked) => DoctorCheck::ok(&name, "only the fleet's role may ask about other tenants"),
        Some(FunctionRights::RevokedInNew) => {
            let detail = "databases from before the server was prepared rely on the check of each request's SQL alone";
            DoctorCheck::warn(&name, detail, &next)
        }
        Some(FunctionRights::Outdated) => {
            DoctorCheck::warn(&name, "the server was prepared by another version of this program", &next)
        }
        Some(FunctionRights::Granted) => {
            let detail = "only the check of each request's SQL keeps other tenants' names from a tenant; temporary files of \
                          a statement have the server's own limit";
            DoctorCheck::warn(&name, detail, &next)
        }
        None => DoctorCheck::unknown(&name, "the server did not say who may run its functions", &next),
    })
}

async fn audit(api: &Api, record: &ServerRecord) -> std::result::Result<RoleAudit, Error> {
    let server = api.app.fleet.server(record.id).await?;
    Ok(api.app.fleet.engine(record.engine)?.audit(&server).await?)
}

/// Findings that one line names.
const FINDINGS_SHOWN: usize = 5;

/// PURE: what an audit of roles, rights and settings means.
fn roles(record: &ServerRecord, audit: std::result::Result<RoleAudit, Error>) -> DoctorCheck {
    let name = format!("server {} roles", record.name);
    let audit = match audit {
        Ok(audit) => audit,
        Err(error) => {
            let next = format!("fleetctl server get {}", record.name);
            return DoctorCheck::unknown(&name, format!("could not look: {}: {}", error.code, error.detail), &next);
        }
    };
    if audit.findings.is_empty() {
        let (entered, databases) = (audit.entered, audit.databases);
        return DoctorCheck::ok(
            &name,
            format!("as the fleet makes them; looked into {entered} of {databases} databases"),
        );
    }
    let shown = audit.findings.iter().take(FINDINGS_SHOWN);
    let more = audit.findings.len().saturating_sub(FINDINGS_SHOWN);
    let (what, cures): (Vec<_>, Vec<_>) = shown.map(|found| (found.what.clone(), found.cure.clone())).unzip();
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    let cures: Vec<_> = cures.into_iter().filter(|cure| !cure.is_empty()).collect();
    let next = format!("find out who changed it, then run on the server: {}", cures.join("; "));
    DoctorCheck::fail(&name, format!("{}{more}", what.join("; ")), &next)
}

/// PURE: what so much free space of so much means.
fn space(name: &str, free: u64, total: u64) -> DoctorCheck {
    let detail = format!("{} of {} MiB free", free >> 20, total >> 20);
    match free.saturating_mul(100).checked_div(total).unwrap_or(0) {
        _ if free == 0 => DoctorCheck::fail(name, detail, "free some space: nothing can be written"),
        percent if percent < FREE_PERCENT_MIN => DoctorCheck::warn(name, detail, "free some space, or add a server"),
        _ => DoctorCheck::ok(name, detail),
    }
}

/// A secret's file is its owner's alone.
fn private(name: &str, file: &Path) -> DoctorCheck {
    match std::fs::metadata(file) {
        Ok(found) if found.permissions().mode() & 0o077 == 0 => DoctorCheck::ok(name, "only its owner can read it"),
        Ok(_) => DoctorCheck::fail(name, "others than its owner can read it", "chmod 600, and replace what was in it"),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            DoctorCheck::ok(name, "not kept in the data directory")
        }
        Err(error) => DoctorCheck::unknown(name, format!("cannot look at it: {error}"), "check who owns its directory"),
    }
}

fn open_files() -> DoctorCheck {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    match limit {
        Some(limit) if limit < OPEN_FILES_MIN => DoctorCheck::warn(
            "open_files",
            format!("at most {limit}"),
            "raise the limit of open files (ulimit -n, LimitNOFILE=)",
        ),
        Some(limit) => DoctorCheck::ok("open_files", format!("at most {limit}")),
        None => DoctorCheck::ok("open_files", "no limit"),
    }
}

fn runner(api: &Api) -> DoctorCheck {
    if api.app.runner_alive() {
        DoctorCheck::ok("runner", "claims and runs steps")
    } else {
        DoctorCheck::fail("runner", "steps are not being run", "look into the log, then restart")
    }
}

async fn schema(tx: &mut ReadTx) -> Result<DoctorCheck> {
    let (release, sets) = migrations::current(tx).await?;
    if release.is_none() {
        let next = "fleetctl migrate run <directory> --all";
        return Ok(DoctorCheck::warn("schema", "no release yet: new tenants start empty", next));
    }
    let head = sets.versions().head();
    let below = |counts: Vec<(Option<i64>, i64)>| {
        counts.into_iter().filter(|(version, _)| *version < head).map(|(_, tenants)| tenants).sum::<i64>()
    };
    let pinned = below(tenants::count_pinned_by_version(tx).await?);
    let behind = below(tenants::count_by_version(tx).await?) - pinned;
    let named = tenants::pinned(tx, PINNED_NAMED).await?;
    Ok(standing(behind, pinned, &pins::told(&named, head)))
}

/// PURE: a pinned tenant is where it was meant to be, and is named so that nobody forgets it.
fn standing(behind: i64, pinned: i64, pins: &str) -> DoctorCheck {
    let also = if pinned == 0 { String::new() } else { format!("; {pinned} pinned: {pins}") };
    match behind {
        0 if pinned == 0 => DoctorCheck::ok("schema", "every tenant is at the head"),
        0 => DoctorCheck::ok("schema", format!("every tenant that is not pinned is at the head{also}")),
        behind => {
            let detail = format!("{behind} tenants are behind the head{also}");
            DoctorCheck::warn("schema", detail, "fleetctl migrate status")
        }
    }
}

/// Whether tenants have applied the same texts, and those of the current release.
async fn ledgers(api: &Api) -> Result<DoctorCheck> {
    let every = Selection { allow_empty: true, ..Selection::all() };
    let tenants = api.app.select_in(&every, &[TenantState::Active, TenantState::Suspended]).await?;
    let sets = migrations::current(&mut api.app.catalog.read().await?).await?.1;
    Ok(agreement(&schema_state::look(api, &tenants, &sets, Reading::Few).await?))
}

/// PURE: what it means that tenants have applied this.
fn agreement(state: &SchemaState) -> DoctorCheck {
    const NAME: &str = "ledgers";
    let next = "fleetctl migrate status; until tenants agree, run each text for the tenants that have it: \
                fleetctl migrate run DIR TENANT…";
    if let Some(split) = state.splits.first() {
        let detail = format!("tenants have applied different files of {} versions: {split}", state.splits.len());
        return DoctorCheck::fail(NAME, detail, next);
    }
    if state.differ > 0 {
        let detail = format!("{} tenants have applied other files than the current release holds", state.differ);
        return DoctorCheck::fail(NAME, detail, next);
    }
    match state.unreadable {
        0 => DoctorCheck::ok(NAME, format!("tenants agree; {} databases were read", state.read)),
        unreadable => DoctorCheck::unknown(NAME, format!("{unreadable} databases could not be read"), "fleetctl scrub"),
    }
}

async fn backup_age(tx: &mut ReadTx, hours: u32) -> Result<DoctorCheck> {
    let now = tx.now();
    let old = now - i64::from(hours) * HOUR_MS;
    Ok(freshness(&backups::freshness(tx, old, now + BACKUP_AHEAD_MAX_MS).await?, hours))
}

/// PURE: each tenant counts, so that one fresh backup does not hide the others' old ones. A tenant that is younger than
/// the age only warns: its first backup may be due tonight.
fn freshness(found: &backups::Freshness, hours: u32) -> DoctorCheck {
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
        (0, 0) => DoctorCheck::ok("backups", format!("all {} tenants have a fresh one", found.tenants)),
        (0, _) => DoctorCheck::warn("backups", detail, next),
        _ => DoctorCheck::fail("backups", detail, next),
    }
}

/// Whether the store answers, and holds what the catalog says.
async fn backup_store(api: &Api, last: &[String]) -> DoctorCheck {
    let next = "check that the backup store is there (--backup-url), then fleetctl backup verify --all";
    let Ok(keys) = last.iter().map(|key| key.parse()).collect::<std::result::Result<Vec<_>, Error>>() else {
        return DoctorCheck::fail("backup_store", "the catalog holds a key that is not a backup's", next);
    };
    let probe = tokio::time::timeout(PROBE_MAX, api.app.fleet.store.probe(&keys)).await;
    match probe {
        Ok(Ok(0)) => {
            let detail = format!("an object was written, read and removed; the last {} backups are there", keys.len());
            DoctorCheck::ok("backup_store", detail)
        }
        Ok(Ok(missing)) => {
            DoctorCheck::fail("backup_store", format!("it lacks {missing} of the last {} backups", keys.len()), next)
        }
        Ok(Err(error)) => DoctorCheck::unknown("backup_store", format!("{}: {}", error.code, error.detail), next),
        Err(_) => DoctorCheck::unknown("backup_store", "it does not answer in time", next),
    }
}

async fn failed_operations(tx: &mut ReadTx) -> Result<DoctorCheck> {
    Ok(match status::operations(tx).await?.failed_recent {
        0 => DoctorCheck::ok("operations", "none failed within a day"),
        failed => DoctorCheck::warn(
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
        assert_eq!(space("x", 50, 100).status, DoctorVerdict::Ok);
        assert_eq!(space("x", 9, 100).status, DoctorVerdict::Warn);
        assert_eq!(space("x", 0, 100).status, DoctorVerdict::Fail);
        assert_eq!(space("x", 0, 0).status, DoctorVerdict::Fail);
    }

    #[test]
    fn a_pinned_tenant_is_named_and_is_no_fault() {
        assert_eq!(standing(0, 0, "").detail, "every tenant is at the head");
        let pinned = standing(0, 1, "acme at 1");
        assert_eq!((pinned.status, pinned.detail.contains("acme at 1")), (DoctorVerdict::Ok, true));
        let behind = standing(2, 1, "acme at 1");
        assert_eq!((behind.status, behind.detail.contains("acme at 1")), (DoctorVerdict::Warn, true));
    }

    #[test]
    fn tenants_that_disagree_fail_and_those_not_looked_at_are_unknown() {
        let check = |state: SchemaState| agreement(&state).status;
        assert_eq!(check(SchemaState { behind: 3, ..SchemaState::default() }), DoctorVerdict::Ok);
        assert_eq!(check(SchemaState { differ: 1, ..SchemaState::default() }), DoctorVerdict::Fail);
        assert_eq!(check(SchemaState { unreadable: 1, ..SchemaState::default() }), DoctorVerdict::Unknown);
        assert_eq!(check(SchemaState { splits: vec!["1".to_owned()], ..SchemaState::default() }), DoctorVerdict::Fail);
    }

    #[test]
    fn one_fresh_backup_hides_no_other_tenant() {
        let found = |never, stale, in_future, young| {
            freshness(&backups::Freshness { tenants: 9, never, stale, in_future, young }, 26)
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
        assert_eq!(private("key", &file).status, DoctorVerdict::Fail);
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(private("key", &file).status, DoctorVerdict::Ok);
        assert_eq!(private("key", &dir.path().join("none")).status, DoctorVerdict::Ok);
    }
}
