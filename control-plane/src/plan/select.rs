//! Which tenants somebody means: names, labels, a server, or explicitly all.

use std::collections::BTreeMap;

use catalog::tenants::LabelSelector;
use catalog::{Name, TenantId};
use serde::{Deserialize, Serialize};

use crate::error::Result;

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
    /// Only those whose labels meet all of these selectors, each as `k=v,k2!=v2`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub selectors: Vec<String>,
    /// Only those on this server (its name).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// Explicitly every tenant.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
    /// Selecting nobody is not an error.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub allow_empty: bool,
    /// The names were found by the program, not said by a person: a tenant that leaves is no error.
    #[serde(skip)]
    pub automatic: bool,
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
        !self.all
            && self.names.is_empty()
            && self.labels.is_empty()
            && self.selectors.is_empty()
            && self.server.is_none()
    }

    /// True when it is every tenant, and nothing narrows it.
    #[must_use]
    pub fn is_everyone(&self) -> bool {
        self.all && Self { all: false, ..self.clone() }.is_empty()
    }

    /// What the labels of the selected tenants must meet.
    ///
    /// # Errors
    /// `invalid`, naming the part that is not understood.
    pub fn label_selector(&self) -> Result<LabelSelector> {
        let all = self.selectors.iter().map(|text| text.parse::<LabelSelector>());
        let first = LabelSelector::from(self.labels.clone());
        Ok(all.collect::<std::result::Result<Vec<_>, _>>()?.into_iter().fold(first, LabelSelector::and))
    }
}

/// How a request names one tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// `tnt_…`
    Id(TenantId),
    /// A slug, an alias or a host.
    Name(Name),
}

/// What a text names: an id, a host (it has a dot or a port), else a slug.
///
/// # Errors
/// `invalid`, saying what a name looks like.
pub fn reference(text: &str) -> Result<Reference> {
    if let Ok(id) = text.parse() {
        return Ok(Reference::Id(id));
    }
    let name = if text.contains(['.', ':']) { Name::host(text)? } else { Name::slug(text)? };
    Ok(Reference::Name(name))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_given_selects_nothing() {
        assert!(Selection::default().is_empty());
        assert!(serde_json::from_str::<Selection>("{}").unwrap().is_empty());
        assert!(!Selection::all().is_empty() && !Selection::one("acme").is_empty());
        let narrowed = Selection { selectors: vec!["plan=pro".to_owned()], ..Selection::all() };
        assert!(Selection::all().is_everyone() && !narrowed.is_everyone() && !Selection::one("acme").is_everyone());
        assert!(serde_json::from_str::<Selection>(r#"{"everything":true}"#).is_err());
    }

    #[test]
    fn an_id_a_slug_and_a_host_are_told_apart() {
        let id = TenantId::generate();
        assert_eq!(reference(&id.to_string()).unwrap(), Reference::Id(id));
        assert_eq!(reference("ACME").unwrap(), Reference::Name(Name::slug("acme").unwrap()));
        assert_eq!(
            reference("Shop.Example.com:443").unwrap(),
            Reference::Name(Name::host("shop.example.com").unwrap())
        );
        for text in ["", "..", "a/b", "xn--80ak6aa92e", "a\0b", "%2e"] {
            assert!(reference(text).is_err(), "{text}");
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
            let selection = Selection { names, labels, selectors, server, all, allow_empty, automatic: false };
            let json = serde_json::to_string(&selection).unwrap();
            prop_assert_eq!(serde_json::from_str::<Selection>(&json).unwrap(), selection);
        }

        #[test]
        fn no_text_is_a_reference_to_two_things(text in ".{0,40}") {
            if let Ok(Reference::Name(name)) = reference(&text) {
                prop_assert!(!name.as_str().is_empty() && !name.as_str().contains(['/', '\\', '\0', ' ']));
            }
        }
    }
}
