//! Tokens of tenants, services and operators.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::bounded_number::PageLimit;
use crate::changes::is_false;

/// A token without its secret.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[schema(as = Token)]
pub struct TokenView {
    /// Id of the token: `tok_…`.
    pub id: String,
    /// Kind of the token: tenant, member, service, operator, impersonation_ticket or impersonation.
    pub kind: String,
    /// Id of the only tenant that the token opens; null if it is not limited to one tenant.
    pub tenant: Option<String>,
    /// Principal that the token acts as.
    pub principal: String,
    /// Operator who acts as the principal; null if the token is not for an impersonation.
    pub staff: Option<String>,
    /// Role of the token. Null for a member: the role is looked up in each tenant.
    pub role: Option<String>,
    /// Note for people; null if none was given.
    pub label: Option<String>,
    /// Time of creation, RFC 3339.
    pub created_at: String,
    /// Time at which the token expires, RFC 3339; null if it does not expire.
    pub expires_at: Option<String>,
    /// Time at which the token was revoked, RFC 3339; null if it was not.
    pub revoked_at: Option<String>,
}

/// A new token and its secret. The secret is shown only in this answer.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct TokenMade {
    /// The new token.
    pub token: TokenView,
    /// Secret of the token. Store it now: it cannot be shown again.
    pub secret: String,
}

/// Filters of a list of tokens.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct TokenFilters {
    /// Only the items of the tenant with this name or id.
    pub tenant: Option<String>,
    /// Only tokens that act as this principal.
    pub principal: Option<String>,
    /// Maximum number of items per page: 1 to 1000. Default: 100.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000)]
    pub limit: Option<PageLimit>,
    /// The `next_cursor` of the previous page. Absent: the first page.
    pub cursor: Option<String>,
}

/// A token to create: exactly one of `tenant`, `member`, `service` and `operator`, or `member` with `tenant`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenWanted {
    /// Access to the tenant with this name or id. Needs `role`, or `member`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Role for `tenant` or `service`: reader, writer or manager.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Access to every tenant of which this principal is a member. With `tenant`: to this tenant only, while the principal
    /// is a member.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub member: Option<String>,
    /// True: access to every tenant. Needs `role`.
    #[serde(default, skip_serializing_if = "is_false")]
    pub service: bool,
    /// Access to the admin API with this role: viewer, operator or admin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operator: Option<String>,
    /// Note for people, at most 256 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Time at which the token expires, RFC 3339. Absent: it does not expire.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    /// True: only describe the change and do nothing.
    #[serde(default, skip_serializing_if = "is_false")]
    pub dry_run: bool,
    /// Reason of the change, for the audit log: one line of at most 1,000 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
