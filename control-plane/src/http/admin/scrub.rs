//! `/v1/scrub`: what is on the servers against what the catalog says, and putting aside what nobody owns.

use axum::extract::{DefaultBodyLimit, State};
use catalog::{Generation, TenantId};
use serde::{Deserialize, Serialize};
use tenant_engine::{FoundKind, IdentityState};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::change::check_reason;
use super::operations::Fault;
use crate::http::Api;
use crate::http::admission::Caller;
use crate::http::error::{Problem, ProblemBody, Result};
use crate::http::extract::Json;
use crate::http::routes::BULK_BYTES_MAX;
use crate::http::time;
use crate::runner::submit::Mode;
use crate::scrub::finding::{Finding, Kind, Severity, Subject, Whose};
use crate::scrub::quarantine::{Asker, Fate};
use crate::scrub::{self, Opening, Report};

/// The shape of a report, in a file that a human edits: another shape has another number.
const VERSION: u32 = 1;

pub(crate) fn routes() -> OpenApiRouter<Api> {
    let bulk = OpenApiRouter::new().routes(routes!(quarantine)).layer(DefaultBodyLimit::max(BULK_BYTES_MAX));
    OpenApiRouter::new().routes(routes!(run)).merge(bulk)
}

/// What was found.
#[derive(Debug, Serialize, ToSchema)]
struct ScrubReport {
    /// Of this shape: 1.
    version: u32,
    /// Whose it is; a report is acted on by this fleet only.
    fleet_id: String,
    /// When the comparison was made.
    taken_at: String,
    /// Servers that answered.
    servers: usize,
    /// Tenants in the catalog.
    tenants: usize,
    /// Databases found.
    databases: usize,
    /// Of these, how many were opened and asked whose they are.
    opened: usize,
    /// Tenants that were left out, because an operation works on them.
    busy: usize,
    /// Databases of other fleets on the same servers, left out.
    foreign: usize,
    /// What is not as it should be; empty when all is well.
    findings: Vec<ScrubFinding>,
}

/// One thing that is not as it should be.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ScrubFinding {
    /// server_unreachable, same_place, shared_database, missing_database, wrong_tenant, wrong_fleet, wrong_generation,
    /// wrong_state, unreadable, not_looked, orphan_database, orphan_file, orphan_role or
    /// foreign_file.
    #[schema(value_type = String)]
    kind: Kind,
    /// warning or error.
    #[schema(value_type = String)]
    severity: Severity,
    /// On which server.
    server: String,
    /// The object's name there; empty when it is about the server.
    name: String,
    /// As the catalog stores it; null when the name is none that this program gives a database.
    #[serde(default)]
    reference: Option<String>,
    /// database, part, side_file, role or unknown; null for what is not there.
    #[serde(default)]
    what: Option<String>,
    /// The thing itself, whatever it is called; null for what is not there.
    #[serde(default)]
    physical: Option<String>,
    /// The tenant's id, by the catalog or else by the name.
    #[serde(default)]
    tenant_id: Option<String>,
    /// The tenant's name, if the catalog knows it.
    #[serde(default)]
    tenant: Option<String>,
    /// What the database says of itself; null when it does not, or was not asked.
    #[serde(default)]
    identity: Option<ScrubIdentity>,
    /// Null when it is not known.
    #[serde(default)]
    size_bytes: Option<u64>,
    /// For a human.
    #[serde(default)]
    detail: String,
    /// What helps.
    #[serde(default)]
    next_step: String,
}

/// What a database says of itself.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ScrubIdentity {
    /// `tnt_…`
    tenant_id: String,
    /// `flt_…`
    fleet_id: String,
    /// Stamped into it.
    generation: i64,
    /// building, active, frozen, moved or tombstone.
    #[schema(value_type = String)]
    state: IdentityState,
}

impl ScrubReport {
    fn new(fleet_id: String, report: Report) -> Self {
        Self {
            version: VERSION,
            fleet_id,
            taken_at: time::text(report.at),
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
        let Subject { kind, server, name, what, physical, tenant, identity } = finding.subject;
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

impl From<Whose> for ScrubIdentity {
    fn from(whose: Whose) -> Self {
        Self {
            tenant_id: whose.tenant.to_string(),
            fleet_id: whose.fleet.to_string(),
            generation: whose.generation.0,
            state: whose.state,
        }
    }
}

impl ScrubFinding {
    /// What must still be so; `at` is the finding's place in the list, for the refusal.
    fn subject(&self, at: usize) -> Result<Subject> {
        let wrong = |error: &dyn std::fmt::Display| Problem::invalid(format!("findings[{at}]: {error}"));
        let known = |what: &str| FoundKind::ALL.into_iter().find(|kind| kind.as_str() == what);
        let what = match self.what.as_deref().map(|what| (what, known(what))) {
            None => None,
            Some((_, Some(what))) => Some(what),
            Some((what, None)) => return Err(wrong(&format!("'{}' is no kind of object", what.escape_debug()))),
        };
        let tenant = self.tenant_id.as_deref().map(str::parse::<TenantId>).transpose().map_err(|e| wrong(&e))?;
        let identity = self.identity.as_ref().map(|identity| {
            Ok::<_, tenant_engine::ids::ParseIdError>(Whose {
                tenant: identity.tenant_id.parse()?,
                fleet: identity.fleet_id.parse()?,
                generation: Generation(identity.generation),
                state: identity.state,
            })
        });
        Ok(Subject {
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

/// Looks at every server, opens every database that no operation works on, and changes nothing. What cannot be reached
/// is a finding.
#[utoipa::path(post, path = "/v1/scrub", tag = "scrub",
    responses((status = 200, description = "What was found", body = ScrubReport), (status = "4XX", description = "Refused", body = ProblemBody)))]
async fn run(State(api): State<Api>, _caller: Caller) -> Result<Json<ScrubReport>> {
    let report = scrub::run(&api.app.fleet, &Opening::Everything).await?;
    Ok(Json(ScrubReport::new(api.app.catalog.fleet_id().to_string(), report)))
}

/// What is to be put aside: findings as they were reported; those that a human took out stay where they are.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct QuarantineWish {
    /// The report's.
    version: u32,
    /// The report's.
    fleet_id: String,
    /// The findings to act on, at most 1,000.
    findings: Vec<ScrubFinding>,
    /// Only say what would be done.
    #[serde(default)]
    dry_run: bool,
    /// Why, for the audit log.
    reason: Option<String>,
}

/// What became of each.
#[derive(Debug, Serialize, ToSchema)]
struct QuarantineReport {
    /// Whether nothing was done.
    dry_run: bool,
    /// In the order of the findings.
    items: Vec<QuarantineItem>,
}

/// What became of one.
#[derive(Debug, Serialize, ToSchema)]
struct QuarantineItem {
    /// On which server.
    server: String,
    /// Its name until now.
    name: String,
    /// quarantined, planned or refused.
    outcome: &'static str,
    /// Its name now; null when it is where it was.
    moved_to: Option<String>,
    /// Why it was refused.
    error: Option<Fault>,
}

/// Puts aside what nobody owns, and deletes nothing. Each thing is looked at again; what is not as it was reported is
/// refused, the others are put aside.
#[utoipa::path(post, path = "/v1/scrub/quarantine", tag = "scrub", request_body = QuarantineWish,
    responses((status = 200, description = "What became of each", body = QuarantineReport), (status = "4XX", description = "Refused", body = ProblemBody)))]
async fn quarantine(
    State(api): State<Api>,
    caller: Caller,
    Json(wish): Json<QuarantineWish>,
) -> Result<Json<QuarantineReport>> {
    check_reason(wish.reason.as_deref())?;
    check(&api, &wish)?;
    let subjects: Vec<Subject> =
        wish.findings.iter().enumerate().map(|(at, finding)| finding.subject(at)).collect::<Result<_>>()?;
    let mode = if wish.dry_run { Mode::Plan } else { Mode::Run };
    let asker = Asker { caller: caller.who, reason: wish.reason };
    let fates = scrub::quarantine::run(&api.app.fleet, &asker, &subjects, mode).await?;
    let items = subjects.into_iter().zip(fates).map(|(subject, fate)| item(subject, fate)).collect();
    Ok(Json(QuarantineReport { dry_run: wish.dry_run, items }))
}

fn check(api: &Api, wish: &QuarantineWish) -> Result<()> {
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

fn item(subject: Subject, fate: Fate) -> QuarantineItem {
    let (outcome, moved_to, error) = match fate {
        Fate::Done(name) => ("quarantined", Some(name), None),
        Fate::Planned => ("planned", None, None),
        Fate::Refused(error) => ("refused", None, Fault::new(Some(error.code.into_owned()), Some(error.detail))),
    };
    QuarantineItem { server: subject.server, name: subject.name, outcome, moved_to, error }
}
