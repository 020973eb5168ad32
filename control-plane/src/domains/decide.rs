//! Decides which hosts can be custom domains, and what a check of one means. PURE.

use catalog::TenantName;
use catalog::domains::{DomainRecord, DomainState, FailedCheck};

use super::lookup::LookupFailure;
use super::record_name;
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};

/// How long an active domain keeps its state without a proof, milliseconds: time to notice and to repair the record.
const GRACE_MS: i64 = 7 * 24 * 3_600_000;
/// How many checks must find no proof. Time alone does not count: this process may have been stopped for a week.
const FAILED_CHECKS_MIN: i64 = 3;
/// Maximum length of a host, bytes. With the label of the TXT record it must fit a name of the DNS: 253.
const HOST_BYTES_MAX: usize = 236;

/// What a check means for a domain.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum CheckVerdict {
    /// The TXT record is there.
    Proven,
    /// The domain keeps its state.
    Failed(FailedCheck),
    /// The proof of an active domain is gone for good.
    Expired {
        /// What the check found, for people.
        error: String,
    },
}

/// Parses a host that is to become a custom domain.
///
/// # Errors
/// `Invalid` for an IP address, a wildcard, a name without a dot, a name that is too long, the fleet's own domain and
/// everything below it, and the server's own hosts.
pub(crate) fn parse_domain(text: &str, config: &Config) -> Result<TenantName> {
    let host = TenantName::parse_host(text)?;
    let refuse = |problem: String| Err(Error::new(ErrorKind::Invalid, format!("'{host}' {problem}")));
    if !host.as_str().contains('.') {
        return refuse("needs a dot to be a custom domain".to_owned());
    }
    if host.as_str().len() > HOST_BYTES_MAX {
        return refuse(format!("is longer than {HOST_BYTES_MAX} characters"));
    }
    let own = |text: &str| TenantName::parse_host(text).ok();
    if config.domain.as_deref().and_then(own).is_some_and(|domain| is_within(&host, &domain)) {
        return refuse("belongs to the fleet's own domain".to_owned());
    }
    if config.own_hosts.iter().flatten().filter_map(|text| own(text)).any(|own| own == host) {
        return refuse("is one of this server's own hosts".to_owned());
    }
    Ok(host)
}

/// Whether a host is this domain or below it.
fn is_within(host: &TenantName, domain: &TenantName) -> bool {
    host == domain || host.as_str().strip_suffix(domain.as_str()).is_some_and(|rest| rest.ends_with('.'))
}

/// What this answer of the DNS means for a domain at the time `now`, milliseconds since 1970.
pub(super) fn decide_check(
    domain: &DomainRecord,
    answer: &Result<Vec<String>, LookupFailure>,
    now: i64,
) -> CheckVerdict {
    let name = record_name(&domain.host);
    let error = match answer {
        Ok(values) if values.iter().any(|value| value.trim() == domain.challenge) => return CheckVerdict::Proven,
        Ok(values) if values.is_empty() => format!("there is no TXT record {name}"),
        Ok(_) => format!("the TXT record {name} has another value"),
        // Not a proof of absence: nothing but the time of the check changes.
        Err(LookupFailure(why)) => {
            return CheckVerdict::Failed(FailedCheck {
                error: format!("the DNS gave no answer for {name}: {why}"),
                failing_since: domain.failing_since,
                failed_checks: domain.failed_checks,
            });
        }
    };
    if domain.state != DomainState::Active {
        return CheckVerdict::Failed(FailedCheck { error, failing_since: None, failed_checks: 0 });
    }
    let failing_since = domain.failing_since.unwrap_or(now);
    let failed_checks = domain.failed_checks + 1;
    if failed_checks >= FAILED_CHECKS_MIN && now - failing_since >= GRACE_MS {
        return CheckVerdict::Expired { error };
    }
    CheckVerdict::Failed(FailedCheck { error, failing_since: Some(failing_since), failed_checks })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ProcessRole;

    #[test]
    fn the_fleets_own_domain_and_hosts_are_refused_and_their_neighbours_are_not() {
        let mut config = Config::new("/nowhere".into(), ProcessRole::Embedded);
        config.domain = Some("Own.Example.".to_owned());
        config.own_hosts = Some(vec!["api.example:8080".to_owned()]);
        for own in ["own.example", "OWN.example", "a.own.example", "a.b.own.example.", "API.example", "127.0.0.1"] {
            assert_eq!(parse_domain(own, &config).unwrap_err().kind, ErrorKind::Invalid, "{own}");
        }
        for other in ["myown.example", "own.example.org", "www.api.example", "shop.example:443"] {
            parse_domain(other, &config).unwrap();
        }
    }
}
