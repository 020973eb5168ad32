//! `/v1/scrub`: compares the servers' contents with the catalog, and quarantines objects without an owner.

use axum::extract::{DefaultBodyLimit, State};
use catalog::{Generation, TenantId};
use fleet_api::problem::ProblemBody;
use fleet_api::scrub::{QuarantineItem, QuarantineReport, QuarantineWish, ScrubFinding, ScrubIdentity, ScrubReport};
use tenant_engine::ListedObjectKind;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::change::check_reason;
use crate::http::ApiState;
use crate::http::admin::operations::failure_detail;
use crate::http::admin::words::{parse_choice, word_of};
use crate::http::admission::AdmittedCaller;
use crate::http::error::{Problem, Result};
use crate::http::extract::JsonBody;
use crate::http::limits::BULK_BYTES_MAX;
use crate::runner::submit::SubmitMode;
use crate::scrub::finding::{DatabaseOwner, Finding, FindingSeverity, FindingSubject};
use crate::scrub::quarantine::{QuarantineOutcome, QuarantineRequester};
use crate::scrub::{self, InspectionScope, ScrubSummary};
use crate::time_text;

/// The version of a report's format. People edit the file, so each format has a number.
const VERSION: u32 = 1;

pub(crate) fn routes() -> OpenApiRouter<ApiState> {
    let bulk = OpenApiRouter::new().routes(routes!(quarantine_findings)).layer(DefaultBodyLimit::max(BULK_BYTES_MAX));
    OpenApiRouter::new().routes(routes!(scrub_fleet)).merge(bulk)
}

fn scrub_report(fleet_id: String, report: ScrubSummary) -> ScrubReport {
    ScrubReport {
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

impl From<Finding> for ScrubFinding {
    fn from(finding: Finding) -> Self {
        let FindingSubject { kind, server, name, what, physical, tenant, identity } = finding.subject;
        Self {
            kind: word_of(&kind),
            severity: word_of(&finding.severity),
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
            state: word_of(&whose.state),
        }
    }
}

/// Parses the facts that must still hold. `at` is the finding's position in the list, for the refusal.
fn parse_subject(finding: &ScrubFinding, at: usize) -> Result<FindingSubject> {
    let wrong = |error: &dyn std::fmt::Display| Problem::invalid(format!("findings[{at}]: {error}"));
    let known = |what: &str| ListedObjectKind::ALL.into_iter().find(|kind| kind.as_str() == what);
    let what = match finding.what.as_deref().map(|what| (what, known(what))) {
        None => None,
        Some((_, Some(what))) => Some(what),
        Some((what, None)) => return Err(wrong(&format!("'{}' is not a kind of object", what.escape_debug()))),
    };
    // The severity decides nothing here, but a word that is not one shows that the report is not one of this program.
    let _: FindingSeverity = parse_choice(&format!("findings[{at}].severity"), &finding.severity)?;
    let tenant = finding.tenant_id.as_deref().map(str::parse::<TenantId>).transpose().map_err(|e| wrong(&e))?;
    let identity = finding.identity.as_ref().map(|identity| {
        Ok::<_, Problem>(DatabaseOwner {
            tenant: identity.tenant_id.parse().map_err(|e| wrong(&e))?,
            fleet: identity.fleet_id.parse().map_err(|e| wrong(&e))?,
            generation: Generation(identity.generation),
            state: parse_choice(&format!("findings[{at}].identity.state"), &identity.state)?,
        })
    });
    Ok(FindingSubject {
        kind: parse_choice(&format!("findings[{at}].kind"), &finding.kind)?,
        server: finding.server.clone(),
        name: finding.name.clone(),
        what,
        physical: finding.physical.clone(),
        tenant,
        identity: identity.transpose()?,
    })
}

/// Compare the catalog with every server, and change nothing.
///
/// Every database is opened, except while an operation works on it. A server or database that cannot be reached is a
/// finding.
#[utoipa::path(post, path = "/v1/scrub", tag = "scrub",
    responses((status = 200, description = "Result of the comparison", body = ScrubReport), (status = "4XX", description = "The request was refused", body = ProblemBody)))]
async fn scrub_fleet(State(api): State<ApiState>, _caller: AdmittedCaller) -> Result<JsonBody<ScrubReport>> {
    let report = scrub::run_scrub(&api.app.context, &InspectionScope::Everything).await?;
    Ok(JsonBody(scrub_report(api.app.catalog.fleet_id().to_string(), report)))
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
        wish.findings.iter().enumerate().map(|(at, finding)| parse_subject(finding, at)).collect::<Result<_>>()?;
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
            ("refused", None, failure_detail(Some(error.code().to_owned()), Some(error.detail)))
        }
    };
    QuarantineItem { server: subject.server, name: subject.name, outcome: outcome.to_owned(), moved_to, error }
}
