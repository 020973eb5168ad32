//! `/v1/scrub`: compares the servers' contents with the catalog, and quarantines objects without an owner.

use axum::extract::{DefaultBodyLimit, State};
use catalog::{Generation, TenantId};
use serde::{Deserialize, Serialize};
use tenant_engine::{IdentityState, ListedObjectKind};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::change::check_reason;
use super::operations::FailureDetail;
use crate::http::ApiState;
use crate::http::admission::AdmittedCaller;
use crate::http::error::{Problem, ProblemBody, Result};
use crate::http::extract::JsonBody;
use crate::http::limits::BULK_BYTES_MAX;
use crate::runner::submit::SubmitMode;
use crate::scrub::finding::{DatabaseOwner, Finding, FindingKind, FindingSeverity, FindingSubject};
use crate::scrub::quarantine::{QuarantineOutcome, QuarantineRequester};
use crate::scrub::{self, InspectionScope, ScrubSummary};
use crate::time_text;

/// The version of a report's format. People edit the file, so each format has a number.
const VERSION: u32 = 1;

pub(crate) fn routes() -> OpenApiRouter<ApiState> {
    let bulk = OpenApiRouter::new().routes(routes!(quarantine_findings)).layer(DefaultBodyLimit::max(BULK_BYTES_MAX));
    OpenApiRouter::new().routes(routes!(scrub_fleet)).merge(bulk)
}

/// The result of a comparison of the catalog with the servers.
#[derive(Debug, Serialize, ToSchema)]
struct ScrubReport {
    /// Version of the report's format: 1.
    version: u32,
    /// Id of the fleet that the report describes. Only this fleet accepts its findings.
    fleet_id: String,
    /// Time of the comparison, RFC 3339.
    taken_at: String,
    /// Number of servers that answered.
    servers: usize,
    /// Number of tenants in the catalog.
    tenants: usize,
    /// Number of databases that were found.
    databases: usize,
    /// Number of the found databases that were opened to read their identity.
    opened: usize,
    /// Number of tenants that were left out, because an operation works on them.
    busy: usize,
    /// Number of databases of other fleets on the same servers. They were left out.
    foreign: usize,
    /// Differences that were found; empty if there are none.
    findings: Vec<ScrubFinding>,
}

/// One difference between the catalog and the servers.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ScrubFinding {
    /// Kind of the finding: server_unreachable, same_place, shared_database, missing_database, wrong_tenant,
    /// wrong_fleet, wrong_generation, wrong_state, unreadable, not_looked, orphan_database, orphan_file, orphan_role or
    /// foreign_file.
    #[schema(value_type = String)]
    kind: FindingKind,
    /// Severity of the finding: warning or error.
    #[schema(value_type = String)]
    severity: FindingSeverity,
    /// Name of the server.
    server: String,
    /// Name of the object on the server: a path, a database or a role. Empty for a finding about the server itself.
    name: String,
    /// Name of the object as the catalog stores it. Null if this program gives no database such a name.
    #[serde(default)]
    reference: Option<String>,
    /// Kind of the object: database, part, side_file, role or unknown. Null for an object that is missing.
    #[serde(default)]
    what: Option<String>,
    /// Identity of the physical object, which does not depend on its name. Null for an object that is missing.
    #[serde(default)]
    physical: Option<String>,
    /// Id of the tenant according to the catalog, or else according to the object's name.
    #[serde(default)]
    tenant_id: Option<String>,
    /// Name of the tenant; null if the catalog does not know it.
    #[serde(default)]
    tenant: Option<String>,
    /// Identity that is stamped into the database. Null if there is none, or if the database was not opened.
    #[serde(default)]
    identity: Option<ScrubIdentity>,
    /// Size in bytes; null if it is not known.
    #[serde(default)]
    size_bytes: Option<u64>,
    /// Description of the finding, for people.
    #[serde(default)]
    detail: String,
    /// Advice for the operator.
    #[serde(default)]
    next_step: String,
}

/// The identity that is stamped into a database.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ScrubIdentity {
    /// Id of the tenant: `tnt_…`.
    tenant_id: String,
    /// Id of the fleet: `flt_…`.
    fleet_id: String,
    /// Generation that is stamped into the database.
    generation: i64,
    /// State that is stamped into the database: building, active, frozen, moved or tombstone.
    #[schema(value_type = String)]
    state: IdentityState,
}

impl ScrubReport {
    fn new(fleet_id: String, report: ScrubSummary) -> Self {
        Self {
            version: VERSION,
            fleet_id,
            taken_at: time_text::format_time(report.at),
            servers: report.servers,
            tenants: report.tenants,
            databases: report.databases,
            opened: report.opened,
            busy: report.busy,
            foreign: report.foreign,
            findings: report.findings.into_iter().map(ScrubFinding::from).collect(),
        }
    }
}

impl From<Finding> for ScrubFinding {
    fn from(finding: Finding) -> Self {
        let FindingSubject { kind, server, name, what, physical, tenant, identity } = finding.subject;
        Self {
            kind,
            severity: finding.severity,
            server,
            name,
            reference: finding.reference,
            what: what.map(|what| what.as_str().to_owned()),
            physical,
            tenant_id: tenant.map(|tenant| tenant.to_string()),
            tenant: finding.tenant_name,
            identity: identity.map(ScrubIdentity::from),
            size_bytes: finding.size_bytes,
            detail: finding.detail,
            next_step: finding.next_step,
        }
    }
}

impl From<DatabaseOwner> for ScrubIdentity {
    fn from(whose: DatabaseOwner) -> Self {
        Self {
            tenant_id: whose.tenant.to_string(),
            fleet_id: whose.fleet.to_string(),
            generation: whose.generation.0,
            state: whose.state,
        }
    }
}

impl ScrubFinding {
    /// Parses the facts that must still hold. `at` is the finding's position in the list, for the refusal.
    fn parse_subject(&self, at: usize) -> Result<FindingSubject> {
        let wrong = |error: &dyn std::fmt::Display| Problem::invalid(format!("findings[{at}]: {error}"));
        let known = |what: &str| ListedObjectKind::ALL.into_iter().find(|kind| kind.as_str() == what);
        let what = match self.what.as_deref().map(|what| (what, known(what))) {
            None => None,
            Some((_, Some(what))) => Some(what),
            Some((what, None)) => return Err(wrong(&format!("'{}' is not a kind of object", what.escape_debug()))),
        };
        let tenant = self.tenant_id.as_deref().map(str::parse::<TenantId>).transpose().map_err(|e| wrong(&e))?;
        let identity = self.identity.as_ref().map(|identity| {
            Ok::<_, tenant_engine::ids::ParseIdError>(DatabaseOwner {
                tenant: identity.tenant_id.parse()?,
                fleet: identity.fleet_id.parse()?,
                generation: Generation(identity.generation),
                state: identity.state,
            })
        });
        Ok(FindingSubject {
            kind: self.kind,
            server: self.server.clone(),
            name: self.name.clone(),
            what,
            physical: self.physical.clone(),
            tenant,
            identity: identity.transpose().map_err(|error| wrong(&error))?,
        })
    }
}

/// Compare the catalog with every server, and change nothing.
///
/// Every database is opened, except while an operation works on it. A server or database that cannot be reached is a
/// finding.
#[utoipa::path(post, path = "/v1/scrub", tag = "scrub",
    responses((status = 200, description = "Result of the comparison", body = ScrubReport), (status = "4XX", description = "The request was refused", body = ProblemBody)))]
async fn scrub_fleet(State(api): State<ApiState>, _caller: AdmittedCaller) -> Result<JsonBody<ScrubReport>> {
    let report = scrub::run_scrub(&api.app.context, &InspectionScope::Everything).await?;
    Ok(JsonBody(ScrubReport::new(api.app.catalog.fleet_id().to_string(), report)))
}

/// Findings of a report whose objects are moved to quarantine. Leave out a finding to leave its object where it is.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct QuarantineWish {
    /// The `version` of the report.
    version: u32,
    /// The `fleet_id` of the report.
    fleet_id: String,
    /// Findings to act on, exactly as reported. At most 1,000.
    findings: Vec<ScrubFinding>,
    /// True: only describe the change and do nothing.
    #[serde(default)]
    dry_run: bool,
    /// Reason of the change, for the audit log: one line of at most 1,000 bytes.
    reason: Option<String>,
}

/// The results of a quarantine.
#[derive(Debug, Serialize, ToSchema)]
struct QuarantineReport {
    /// True if nothing was done.
    dry_run: bool,
    /// One result per finding, in the order of the findings.
    items: Vec<QuarantineItem>,
}

/// The result for one finding.
#[derive(Debug, Serialize, ToSchema)]
struct QuarantineItem {
    /// Name of the server.
    server: String,
    /// Name of the object before the quarantine.
    name: String,
    /// Outcome: quarantined, planned or refused.
    outcome: &'static str,
    /// Name of the object in quarantine; null if it was not moved.
    moved_to: Option<String>,
    /// Reason of the refusal; null if the object was not refused.
    error: Option<FailureDetail>,
}

/// Move objects without an owner to quarantine. Nothing is deleted.
///
/// Each object is checked again. An object that is not as reported is refused; the others are moved.
#[utoipa::path(post, path = "/v1/scrub/quarantine", tag = "scrub", request_body = QuarantineWish,
    responses((status = 200, description = "Results, one per finding", body = QuarantineReport), (status = "4XX", description = "The request was refused", body = ProblemBody)))]
async fn quarantine_findings(
    State(api): State<ApiState>,
    caller: AdmittedCaller,
    JsonBody(wish): JsonBody<QuarantineWish>,
) -> Result<JsonBody<QuarantineReport>> {
    check_reason(wish.reason.as_deref())?;
    check_report(&api, &wish)?;
    let subjects: Vec<FindingSubject> =
        wish.findings.iter().enumerate().map(|(at, finding)| finding.parse_subject(at)).collect::<Result<_>>()?;
    let mode = if wish.dry_run { SubmitMode::Plan } else { SubmitMode::Run };
    let asker = QuarantineRequester { caller: caller.who, reason: wish.reason };
    let fates = scrub::quarantine::run_quarantine(&api.app.context, &asker, &subjects, mode).await?;
    let items = subjects.into_iter().zip(fates).map(|(subject, fate)| quarantine_item(subject, fate)).collect();
    Ok(JsonBody(QuarantineReport { dry_run: wish.dry_run, items }))
}

fn check_report(api: &ApiState, wish: &QuarantineWish) -> Result<()> {
    if wish.version != VERSION {
        return Err(Problem::invalid(format!("version: this program reads reports of version {VERSION}"))
            .try_next("fleetctl scrub --out report.json"));
    }
    if wish.fleet_id != api.app.catalog.fleet_id().to_string() {
        return Err(Problem::invalid("fleet_id: this report is about another fleet")
            .try_next("fleetctl scrub --out report.json"));
    }
    if wish.findings.is_empty() {
        return Err(Problem::invalid("findings: expected at least one").try_next("fleetctl scrub --out report.json"));
    }
    Ok(())
}

fn quarantine_item(subject: FindingSubject, fate: QuarantineOutcome) -> QuarantineItem {
    let (outcome, moved_to, error) = match fate {
        QuarantineOutcome::Done(name) => ("quarantined", Some(name), None),
        QuarantineOutcome::Planned => ("planned", None, None),
        QuarantineOutcome::Refused(error) => {
            ("refused", None, FailureDetail::new(Some(error.code().to_owned()), Some(error.detail)))
        }
    };
    QuarantineItem { server: subject.server, name: subject.name, outcome, moved_to, error }
}
