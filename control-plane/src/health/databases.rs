//! The check of databases: whether each is where the catalog names it.

use super::check::HealthCheck;
use crate::scrub::{self, finding::FindingKind};

/// PURE: the check of databases by names and metadata. A server that does not answer has a line of its own.
pub(super) fn databases_check(report: &scrub::ScrubSummary) -> HealthCheck {
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
        (0, 0, 0) => HealthCheck::new_ok("databases", format!("{} are where the catalog says", report.databases)),
        (0, 0, orphans) => {
            let detail =
                format!("{orphans} objects look like databases or parts of one, but the catalog does not name them");
            HealthCheck::new_warning("databases", detail, "fleetctl scrub")
        }
        (0, unseen, _) => {
            let servers = report.servers;
            let detail = format!("could not look at {unseen} servers or databases; {servers} servers answered");
            HealthCheck::new_unknown("databases", detail, "fleetctl scrub")
        }
        _ => {
            let detail = format!(
                "{missing} are missing, {shared} are the same as another, {orphans} are not named by the catalog"
            );
            HealthCheck::new_failure("databases", detail, "fleetctl scrub")
        }
    }
}
