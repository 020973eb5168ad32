//! Identities of databases: each tenant's database is its own.

use super::line::{AuditLine, few_names};
use crate::scrub::ScrubSummary;
use crate::scrub::finding::FindingKind;

const AREA: &str = "databases";
const NEXT: &str = "fleetctl scrub";

/// PURE: the lines of a comparison of all servers with the catalog, in which every database was opened.
pub(super) fn database_lines(report: &ScrubSummary) -> Vec<AuditLine> {
    let named = |wanted: &[FindingKind]| -> Vec<String> {
        let found = report.findings.iter().filter(|finding| wanted.contains(&finding.subject.kind));
        found.map(|finding| finding.subject.name.clone()).collect()
    };
    let mixed = named(&[FindingKind::WrongTenant, FindingKind::WrongFleet, FindingKind::Unreadable]);
    let shared = named(&[FindingKind::SharedDatabase, FindingKind::SamePlace]);
    let orphans = named(&[FindingKind::OrphanDatabase, FindingKind::OrphanFile, FindingKind::OrphanRole]);
    let unseen = named(&[FindingKind::ServerUnreachable, FindingKind::NotLooked]);
    let opened = report.opened;
    if report.databases == 0 && unseen.is_empty() {
        return vec![AuditLine::not_applicable(AREA, "identity", "there is no database yet")];
    }
    let identity = match (mixed.is_empty(), unseen.is_empty()) {
        (true, true) => {
            let evidence =
                format!("{opened} of {} databases were opened: each names its own tenant and fleet", report.databases);
            AuditLine::pass(AREA, "identity", evidence)
        }
        (true, false) => {
            AuditLine::not_looked(AREA, "identity", format!("could not look at {}", few_names(&unseen)), NEXT)
        }
        _ => {
            let evidence = format!("another tenant, another fleet or no tenant is named in {}", few_names(&mixed));
            AuditLine::fail(AREA, "identity", evidence, NEXT)
        }
    };
    let alone = match shared.is_empty() {
        true => {
            AuditLine::pass(AREA, "one tenant each", format!("{} tenants, no database is used twice", report.tenants))
        }
        false => AuditLine::fail(AREA, "one tenant each", format!("used twice: {}", few_names(&shared)), NEXT),
    };
    let owned = match orphans.is_empty() {
        true => AuditLine::pass(AREA, "no leftovers", "the catalog names every database, file and login"),
        false => AuditLine::fail(AREA, "no leftovers", format!("without an owner: {}", few_names(&orphans)), NEXT),
    };
    vec![identity, alone, owned]
}
