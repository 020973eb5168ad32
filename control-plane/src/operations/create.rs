//! create: a row and a name, a database copied from the release's template, probed, then active.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What to make.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Params {
    /// The new tenants, at most [`TENANTS_MAX`]; not stored, their rows say it.
    #[serde(skip)]
    pub tenants: Vec<NewTenant>,
    /// On which server, by name; `None`: the active one with the fewest tenants.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub server: Option<String>,
    /// What a taken name means.
    #[serde(default)]
    pub if_exists: IfExists,
}

/// Tenants of one operation: one transaction writes their rows.
pub const TENANTS_MAX: usize = 50_000;

/// One tenant to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewTenant {
    /// Its slug, not yet normalised.
    pub name: String,
    /// Its labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// What a name that is taken already means.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IfExists {
    /// The whole request is refused.
    #[default]
    Error,
    /// That tenant is left as it is.
    Skip,
}
