//! The checks of the doctor.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::bounded_number::AgeHours;

/// The results of all checks.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DoctorReport {
    /// One result per check.
    pub checks: Vec<DoctorCheck>,
}

/// The result of one check.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DoctorCheck {
    /// Name of the check.
    pub name: String,
    /// Result: ok, warn, fail, or unknown if the check could not be made.
    pub status: DoctorVerdict,
    /// Description of what the check found.
    pub detail: String,
    /// Advice for the operator; empty if the result is ok.
    pub next_step: String,
}

/// The result of a check, by severity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DoctorVerdict {
    /// Nothing is wrong.
    Ok,
    /// Something needs attention soon.
    Warn,
    /// Something is wrong now.
    Fail,
    /// The check could not look.
    Unknown,
}

/// Limits that the checks use.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DoctorExpectations {
    /// Maximum age of each tenant's newest backup, in hours: 1 to 87,600. Default: 26. An older backup fails the check
    /// `backups`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 87_600)]
    pub backup_age_hours: Option<AgeHours>,
}
