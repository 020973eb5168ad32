//! Members of tenants.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::bounded_number::PageLimit;
use crate::changes::is_false;

/// A member of a tenant.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[schema(as = Member)]
pub struct MemberView {
    /// Current name of the tenant.
    pub tenant: String,
    /// Id of the tenant: `tnt_…`.
    pub tenant_id: String,
    /// The application's own name for a person or program.
    pub principal: String,
    /// Role of the member: reader, writer or manager.
    pub role: String,
    /// Time at which the member was added, RFC 3339.
    pub created_at: String,
}

/// Page of a list of members.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct MemberListQuery {
    /// Maximum number of items per page: 1 to 1000. Default: 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000)]
    pub limit: Option<PageLimit>,
    /// The `next_cursor` of the previous page. Absent: the first page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// A member to add, or the new role of a member.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewMember {
    /// The application's own name for a person or program: 1 to 256 bytes without control characters.
    pub principal: String,
    /// Role of the member: reader, writer or manager.
    pub role: String,
    /// True: only describe the change and do nothing.
    #[serde(default, skip_serializing_if = "is_false")]
    pub dry_run: bool,
    /// Reason of the change, for the audit log: one line of at most 1,000 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
