//! Which tenants somebody means: names, labels, a server, or explicitly all.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The selection of a request; the fields narrow each other. Nothing given selects nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Selection {
    /// Only these: slugs, aliases, hosts or ids.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// Only those with all of these labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Only those on this server (its name).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// Explicitly every tenant.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
}

impl Selection {
    /// One tenant by its name or id.
    #[must_use]
    pub fn one(name: impl Into<String>) -> Self {
        Self { names: vec![name.into()], ..Self::default() }
    }

    /// Every tenant.
    #[must_use]
    pub fn all() -> Self {
        Self { all: true, ..Self::default() }
    }

    /// True when nothing was selected: a changing operation refuses that.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.all && self.names.is_empty() && self.labels.is_empty() && self.server.is_none()
    }
}
