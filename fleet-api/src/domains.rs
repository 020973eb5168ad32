//! Custom domains of tenants.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::bounded_number::PageLimit;
use crate::changes::is_false;

/// A custom domain of a tenant.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[schema(as = Domain)]
pub struct DomainView {
    /// Current name of the tenant.
    pub tenant: String,
    /// Id of the tenant: `tnt_…`.
    pub tenant_id: String,
    /// The host in normal form: lower case, with international names encoded (`xn--…`).
    pub host: String,
    /// State of the domain: pending (never proven), active (the host leads to the tenant), expired (the proof is gone).
    pub state: String,
    /// Name of the DNS TXT record that proves control of the host.
    pub txt_name: String,
    /// Value of this TXT record.
    pub txt_value: String,
    /// Time at which the domain was added, RFC 3339.
    pub created_at: String,
    /// Time at which a check last found the TXT record, RFC 3339. Null: never.
    pub verified_at: Option<String>,
    /// Time of the last check, RFC 3339. Null: never.
    pub checked_at: Option<String>,
    /// What the last check found instead of the TXT record. Null: it found the record, or there was no check.
    pub check_error: Option<String>,
}

/// Page of a list of domains.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DomainListQuery {
    /// Maximum number of items per page: 1 to 1000. Default: 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000)]
    pub limit: Option<PageLimit>,
    /// The `next_cursor` of the previous page. Absent: the first page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// A domain to add.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewDomain {
    /// The host, for instance `shop.example`. Not an IP address, a wildcard, or a host of the fleet's own domain.
    pub host: String,
    /// True: only describe the change and do nothing.
    #[serde(default, skip_serializing_if = "is_false")]
    pub dry_run: bool,
    /// Reason of the change, for the audit log: one line of at most 1,000 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The question of a proxy that is about to request a certificate.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DomainQuestion {
    /// The host, as a client of the proxy named it.
    pub domain: String,
}
