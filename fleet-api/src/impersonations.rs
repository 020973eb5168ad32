//! Impersonation: an operator acts as a member of a tenant.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::changes::is_false;

/// A ticket to act as a member. Shown only in this answer.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ImpersonationTicket {
    /// Current name of the tenant.
    pub tenant: String,
    /// The member.
    pub member: String,
    /// Operator who acts as the member.
    pub staff: String,
    /// The ticket. The application exchanges it once for a session.
    pub ticket: String,
    /// Time at which the ticket expires, RFC 3339: a minute after it was made.
    pub expires_at: String,
}

/// The member to act as.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ImpersonationRequest {
    /// A member of the tenant.
    pub member: String,
    /// True: only describe the change and do nothing.
    #[serde(default, skip_serializing_if = "is_false")]
    pub dry_run: bool,
    /// Reason, for the audit log and the tenant: one line of 1 to 1,000 bytes. It must be given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
