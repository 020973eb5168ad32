//! The tenants that a request selects: by names, labels, a server, or explicitly all.

use std::collections::BTreeMap;

use catalog::tenants::LabelSelector;
use catalog::{TenantId, TenantName};
use serde::{Deserialize, Serialize};

use tenant_engine::ids::{ParseIdError, looks_secret, named_by};

use crate::error::{Error, ErrorKind, Result};

/// The selection of a request. Its fields narrow each other. An empty selection selects nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TenantSelection {
    /// Only these tenants: slugs, aliases, hosts or ids.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// Only tenants with all of these labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Only tenants whose labels match all of these selectors, each as `k=v,k2!=v2`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub selectors: Vec<String>,
    /// Only tenants on this server, by its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// Every tenant, requested explicitly.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
    /// Accepts a selection without tenants.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub allow_empty: bool,
    /// The names come from the program, not from a person. A tenant that leaves the selection is then no error.
    #[serde(skip)]
    pub automatic: bool,
}

impl TenantSelection {
    /// Selects one tenant by its name or id.
    #[must_use]
    pub fn one_tenant(name: impl Into<String>) -> Self {
        Self { names: vec![name.into()], ..Self::default() }
    }

    /// Selects every tenant.
    #[must_use]
    pub fn all_tenants() -> Self {
        Self { all: true, ..Self::default() }
    }

    /// Whether nothing was selected. An operation that changes something refuses that.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.all
            && self.names.is_empty()
            && self.labels.is_empty()
            && self.selectors.is_empty()
            && self.server.is_none()
    }

    /// Whether the selection is every tenant, with nothing that narrows it.
    #[must_use]
    pub fn is_everyone(&self) -> bool {
        self.all && Self { all: false, ..self.clone() }.is_empty()
    }

    /// The condition that the labels of the selected tenants must meet.
    ///
    /// # Errors
    /// `invalid`, naming the part that was not understood.
    pub fn label_selector(&self) -> Result<LabelSelector> {
        let all = self.selectors.iter().map(|text| text.parse::<LabelSelector>());
        let first = LabelSelector::from(self.labels.clone());
        Ok(all.collect::<std::result::Result<Vec<_>, _>>()?.into_iter().fold(first, LabelSelector::combined_with))
    }
}

/// How a request names one tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TenantReference {
    /// `tnt_…`
    Id(TenantId),
    /// A slug, an alias or a host.
    Name(TenantName),
}

/// Refuses the id of something else as a tenant's name: no name contains an underscore. The error says what the id
/// belongs to and how to show it. `error` says why the text is not a tenant's id.
///
/// # Errors
/// `not_found`.
pub fn refuse_other_id(text: &str, error: &ParseIdError) -> Result<()> {
    let shown = match named_by(text).filter(|_| !looks_secret(text)) {
        Some(_) if text.starts_with("op_") => "fleetctl op get ID",
        Some(_) if text.starts_with("bkp_") => "fleetctl backup get ID",
        Some(_) if text.starts_with("srv_") => "fleetctl server get ID",
        Some(_) if text.starts_with("rel_") => "fleetctl release get ID",
        Some(_) if text.starts_with("tok_") => "fleetctl token list",
        Some(_) if text.starts_with("flt_") => "fleetctl status",
        Some(_) => "fleetctl tenant list -o wide",
        None if looks_secret(text) => "fleetctl tenant list",
        None => return Ok(()),
    };
    Err(Error::new(ErrorKind::NotFound, error.to_string()).try_next(shown.replace("ID", text)))
}

/// What a text names: an id, a host (with a dot or a port), or else a slug.
///
/// # Errors
/// `invalid`, describing what a valid name looks like.
pub fn parse_reference(text: &str) -> Result<TenantReference> {
    match text.parse::<TenantId>() {
        Ok(id) => return Ok(TenantReference::Id(id)),
        Err(error) => refuse_other_id(text, &error)?,
    }
    let name = if text.contains(['.', ':']) { TenantName::parse_host(text)? } else { TenantName::parse_slug(text)? };
    Ok(TenantReference::Name(name))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_given_selects_nothing() {
        assert!(TenantSelection::default().is_empty());
        assert!(serde_json::from_str::<TenantSelection>("{}").unwrap().is_empty());
        assert!(!TenantSelection::all_tenants().is_empty() && !TenantSelection::one_tenant("acme").is_empty());
        let narrowed = TenantSelection { selectors: vec!["plan=pro".to_owned()], ..TenantSelection::all_tenants() };
        assert!(
            TenantSelection::all_tenants().is_everyone()
                && !narrowed.is_everyone()
                && !TenantSelection::one_tenant("acme").is_everyone()
        );
        assert!(serde_json::from_str::<TenantSelection>(r#"{"everything":true}"#).is_err());
    }

    #[test]
    fn an_id_a_slug_and_a_host_are_told_apart() {
        let id = TenantId::generate();
        assert_eq!(parse_reference(&id.to_string()).unwrap(), TenantReference::Id(id));
        assert_eq!(parse_reference("ACME").unwrap(), TenantReference::Name(TenantName::parse_slug("acme").unwrap()));
        assert_eq!(
            parse_reference("Shop.Example.com:443").unwrap(),
            TenantReference::Name(TenantName::parse_host("shop.example.com").unwrap())
        );
        for text in ["", "..", "a/b", "xn--80ak6aa92e", "a\0b", "%2e"] {
            assert!(parse_reference(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_selection_reads_back_as_itself(
            names in proptest::collection::vec("[a-z]{1,8}", 0..4),
            labels in proptest::collection::btree_map("[a-z]{1,4}", "[a-z]{0,4}", 0..3),
            server in proptest::option::of("[a-z]{1,5}"),
            selectors in proptest::collection::vec("[a-z]{1,4}", 0..3),
            all: bool,
            allow_empty: bool,
        ) {
            let selection = TenantSelection { names, labels, selectors, server, all, allow_empty, automatic: false };
            let json = serde_json::to_string(&selection).unwrap();
            prop_assert_eq!(serde_json::from_str::<TenantSelection>(&json).unwrap(), selection);
        }

        #[test]
        fn no_text_is_a_reference_to_two_things(text in ".{0,40}") {
            if let Ok(TenantReference::Name(name)) = parse_reference(&text) {
                prop_assert!(!name.as_str().is_empty() && !name.as_str().contains(['/', '\\', '\0', ' ']));
            }
        }
    }
}
