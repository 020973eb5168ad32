//! Proof that a tenant controls its custom domain: a TXT record in the DNS, with a value that only this fleet can derive.
//!
//! `POST …/domains/{host}/verify` checks one domain when an operator asks. The background task checks every active one
//! each day. Both do the same: `lookup` asks the DNS, `decide` (pure) compares, `check` writes the result to the
//! catalog. A look-up without an answer proves nothing and ends nothing.

pub mod check;
pub(crate) mod decide;
pub mod lookup;

/// The label below which the TXT record is set.
const CHALLENGE_LABEL: &str = "_fleet-challenge";

/// The name of the TXT record that proves control of a host.
#[must_use]
pub fn record_name(host: &catalog::TenantName) -> String {
    format!("{CHALLENGE_LABEL}.{host}")
}
