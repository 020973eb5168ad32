//! The comparison of the catalog with the servers, and the quarantine.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::changes::is_false;
use crate::operations::FailureDetail;

/// The result of a comparison of the catalog with the servers.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ScrubReport {
    /// Version of the report's format: 1.
    pub version: u32,
    /// Id of the fleet that the report describes. Only this fleet accepts its findings.
    pub fleet_id: String,
    /// Time of the comparison, RFC 3339.
    pub taken_at: String,
    /// Number of servers that answered.
    pub servers: usize,
    /// Number of tenants in the catalog.
    pub tenants: usize,
    /// Number of databases that were found.
    pub databases: usize,
    /// Number of the found databases that were opened to read their identity.
    pub opened: usize,
    /// Number of tenants that were left out, because an operation works on them.
    pub busy: usize,
    /// Number of databases of other fleets on the same servers. They were left out.
    pub foreign: usize,
    /// Differences that were found; empty if there are none.
    pub findings: Vec<ScrubFinding>,
}

/// One difference between the catalog and the servers.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ScrubFinding {
    /// Kind of the finding: server_unreachable, same_place, shared_database, missing_database, wrong_tenant,
    /// wrong_fleet, wrong_generation, wrong_state, unreadable, not_looked, orphan_database, orphan_file, orphan_role or
    /// foreign_file.
    pub kind: String,
    /// Severity of the finding: warning or error.
    pub severity: String,
    /// Name of the server.
    pub server: String,
    /// Name of the object on the server: a path, a database or a role. Empty for a finding about the server itself.
    pub name: String,
    /// Name of the object as the catalog stores it. Null if this program gives no database such a name.
    #[serde(default)]
    pub reference: Option<String>,
    /// Kind of the object: database, part, side_file, role or unknown. Null for an object that is missing.
    #[serde(default)]
    pub what: Option<String>,
    /// Identity of the physical object, which does not depend on its name. Null for an object that is missing.
    #[serde(default)]
    pub physical: Option<String>,
    /// Id of the tenant according to the catalog, or else according to the object's name.
    #[serde(default)]
    pub tenant_id: Option<String>,
    /// Name of the tenant; null if the catalog does not know it.
    #[serde(default)]
    pub tenant: Option<String>,
    /// Identity that is stamped into the database. Null if there is none, or if the database was not opened.
    #[serde(default)]
    pub identity: Option<ScrubIdentity>,
    /// Size in bytes; null if it is not known.
    #[serde(default)]
    pub size_bytes: Option<u64>,
    /// Description of the finding, for people.
    #[serde(default)]
    pub detail: String,
    /// Advice for the operator.
    #[serde(default)]
    pub next_step: String,
}

/// The identity that is stamped into a database.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ScrubIdentity {
    /// Id of the tenant: `tnt_…`.
    pub tenant_id: String,
    /// Id of the fleet: `flt_…`.
    pub fleet_id: String,
    /// Generation that is stamped into the database.
    pub generation: i64,
    /// State that is stamped into the database: building, active, frozen, moved or tombstone.
    pub state: String,
}

/// Findings of a report whose objects are moved to quarantine. Leave out a finding to leave its object where it is.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct QuarantineWish {
    /// The `version` of the report.
    pub version: u32,
    /// The `fleet_id` of the report.
    pub fleet_id: String,
    /// Findings to act on, exactly as reported. At most 1,000.
    pub findings: Vec<ScrubFinding>,
    /// True: only describe the change and do nothing.
    #[serde(default, skip_serializing_if = "is_false")]
    pub dry_run: bool,
    /// Reason of the change, for the audit log: one line of at most 1,000 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The results of a quarantine.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct QuarantineReport {
    /// True if nothing was done.
    pub dry_run: bool,
    /// One result per finding, in the order of the findings.
    pub items: Vec<QuarantineItem>,
}

/// The result for one finding.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct QuarantineItem {
    /// Name of the server.
    pub server: String,
    /// Name of the object before the quarantine.
    pub name: String,
    /// Outcome: quarantined, planned or refused.
    pub outcome: String,
    /// Name of the object in quarantine; null if it was not moved.
    pub moved_to: Option<String>,
    /// Reason of the refusal; null if the object was not refused.
    pub error: Option<FailureDetail>,
}
