//! The check of the certificate: whether it can be used, and how long it is valid.

use super::check::HealthCheck;
use crate::app::App;
use crate::time_text;
use crate::tls::validity::ValidityPhase;
use crate::tls::{CertificateReloader, CertificateState};

const NAME: &str = "certificate";
const RENEW: &str = "renew it; a server loads the new files within seconds, or at once on SIGHUP";

/// Checks the certificate of the answering server. A command without a server checks the files that a server would use.
pub(super) fn certificate_check(app: &App, served: Option<&CertificateReloader>) -> Option<HealthCheck> {
    let now = app.catalog.now();
    if let Some(certificates) = served {
        return Some(validity_check(&certificates.current_state(), now));
    }
    Some(match CertificateReloader::load_files(app.config.tls.as_ref()?) {
        Ok(certificates) => validity_check(&certificates.current_state(), now),
        Err(error) => HealthCheck::new_failure(NAME, error.detail, "configure a PEM certificate chain and its key"),
    })
}

/// PURE: the check made from the certificate's state.
fn validity_check(state: &CertificateState, now: i64) -> HealthCheck {
    let Some(validity) = state.validity else {
        return HealthCheck::new_unknown(NAME, "its expiry date cannot be read", RENEW);
    };
    let (from, until) = (time_text::format_time(validity.from), time_text::format_time(validity.until));
    match (validity.phase_at(now), &state.refused) {
        (ValidityPhase::Expired, _) => HealthCheck::new_failure(NAME, format!("it has expired: {until}"), RENEW),
        (ValidityPhase::NotYetValid, _) => {
            HealthCheck::new_failure(NAME, format!("it is valid only from {from}"), "check the clock")
        }
        (_, Some(why)) => {
            let detail = format!(
                "the files cannot be used, so the previous pair stays in use; it is valid until {until}: {why}"
            );
            HealthCheck::new_warning(NAME, detail, "put a chain and its own key in place")
        }
        (ValidityPhase::ExpiresSoon, None) => {
            HealthCheck::new_warning(NAME, format!("it expires soon: {until}"), RENEW)
        }
        (ValidityPhase::Valid, None) => HealthCheck::new_ok(NAME, format!("valid until {until}")),
    }
}
