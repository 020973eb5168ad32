//! The doctor's check of the certificate: whether it can be used, and how long it is valid.

use super::doctor::DoctorCheck;
use crate::http::{ApiState, time};
use crate::tls::validity::ValidityPhase;
use crate::tls::{CertificateReloader, CertificateState};

const NAME: &str = "certificate";
const RENEW: &str = "renew it; a server loads the new files within seconds, or at once on SIGHUP";

/// Checks the certificate of the answering server. A command without a server checks the files that a server would use.
pub(super) fn certificate_check(api: &ApiState) -> Option<DoctorCheck> {
    let now = api.app.catalog.now();
    if let Some(certificates) = &api.certificates {
        return Some(validity_check(&certificates.current_state(), now));
    }
    Some(match CertificateReloader::load_files(api.app.config.tls.as_ref()?) {
        Ok(certificates) => validity_check(&certificates.current_state(), now),
        Err(error) => DoctorCheck::new_failure(NAME, error.detail, "configure a PEM certificate chain and its key"),
    })
}

/// PURE: the check made from the certificate's state.
fn validity_check(state: &CertificateState, now: i64) -> DoctorCheck {
    let Some(validity) = state.validity else {
        return DoctorCheck::new_unknown(NAME, "its expiry date cannot be read", RENEW);
    };
    let (from, until) = (time::format_time(validity.from), time::format_time(validity.until));
    match (validity.phase_at(now), &state.refused) {
        (ValidityPhase::Expired, _) => DoctorCheck::new_failure(NAME, format!("it has expired: {until}"), RENEW),
        (ValidityPhase::NotYetValid, _) => {
            DoctorCheck::new_failure(NAME, format!("it is valid only from {from}"), "check the clock")
        }
        (_, Some(why)) => {
            let detail = format!(
                "the files cannot be used, so the previous pair stays in use; it is valid until {until}: {why}"
            );
            DoctorCheck::new_warning(NAME, detail, "put a chain and its own key in place")
        }
        (ValidityPhase::ExpiresSoon, None) => {
            DoctorCheck::new_warning(NAME, format!("it expires soon: {until}"), RENEW)
        }
        (ValidityPhase::Valid, None) => DoctorCheck::new_ok(NAME, format!("valid until {until}")),
    }
}
