//! Accounts of tenants with other services, which send webhooks.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::bounded_number::PageLimit;
use crate::changes::is_false;
use crate::secret_text::SecretText;

/// An account of a tenant with another service.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[schema(as = Account)]
pub struct AccountView {
    /// Current name of the tenant.
    pub tenant: String,
    /// Id of the tenant: `tnt_…`.
    pub tenant_id: String,
    /// Name of the service, as the application has it.
    pub provider: String,
    /// Id of the account, as the service has it.
    pub account: String,
    /// True: a secret of its own signs the account's webhooks. The secret is never shown.
    pub has_secret: bool,
    /// Time at which the account was linked, RFC 3339.
    pub created_at: String,
}

/// Page of a list of accounts.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AccountListQuery {
    /// Maximum number of items per page: 1 to 1000. Default: 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000)]
    pub limit: Option<PageLimit>,
    /// The `next_cursor` of the previous page. Absent: the first page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// An account to link to a tenant.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewAccount {
    /// Name of the service, as the application has it: 1 to 63 of a-z, 0-9 and '-'.
    pub provider: String,
    /// Id of the account, as the service has it: 1 to 255 bytes.
    pub account: String,
    /// The secret that signs the account's webhooks, at least 16 bytes. Absent: the application has one for all accounts.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub secret: Option<SecretText>,
    /// True: only describe the change and do nothing.
    #[serde(default, skip_serializing_if = "is_false")]
    pub dry_run: bool,
    /// Reason of the change, for the audit log: one line of at most 1,000 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
