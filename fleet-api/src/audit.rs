//! The audit log of one tenant, on the data listener.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// An entry of a tenant's audit log.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct AuditEntryView {
    /// Number of the entry. Later entries have larger numbers.
    pub seq: i64,
    /// Time of the entry, RFC 3339.
    pub at: String,
    /// Kind of the entry: noun.verb, for instance `impersonation.started`.
    pub kind: String,
    /// Actor, for instance `token:tok_…`; `operator` for an operator without a token.
    pub actor: String,
    /// Member in whose name the actor acted; null if the actor acted in its own name.
    pub on_behalf_of: Option<String>,
    /// Reason of an impersonation; null for other kinds.
    pub reason: Option<String>,
}

/// A part of a tenant's audit log, newest first.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct AuditLogPage {
    /// The entries. A page may be empty and have a next one.
    pub items: Vec<AuditEntryView>,
    /// Value of `before` for the next page; null at the end of the log.
    pub next: Option<i64>,
}

/// Page of a tenant's audit log.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AuditLogQuery {
    /// Only entries with a smaller `seq`. Absent: the newest ones.
    #[param(minimum = 1)]
    pub before: Option<i64>,
}
