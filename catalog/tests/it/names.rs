//! What must hold for every name anybody can type.

use catalog::TenantName;
use proptest::prelude::*;

/// Text like what people and attackers send: mostly of a small alphabet, so that near misses are frequent.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-cA-C0-9xnXN-]{1,12}",
        "[a-cA-C0-9.:-]{0,20}",
        "[aüßİıſK。．a-b.-]{0,8}",
        "xn--[a-z0-9-]{0,12}(\\.[a-z]{1,3})?",
        "\\PC{0,80}",
        any::<String>(),
    ]
}

fn is_dns_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_slug_is_a_label_and_its_own_normal_form(text in text()) {
        if let Ok(name) = TenantName::parse_slug(&text) {
            prop_assert!(is_dns_label(name.as_str()), "{name}");
            prop_assert_eq!(&TenantName::parse_slug(name.as_str()).unwrap(), &name);
            prop_assert_eq!(text.to_ascii_lowercase(), name.as_str(), "only case may differ");
        }
    }

    #[test]
    fn a_host_is_labels_and_its_own_normal_form(text in text()) {
        if let Ok(name) = TenantName::parse_host(&text) {
            prop_assert!(name.as_str().len() <= 253);
            prop_assert!(name.as_str().split('.').all(is_dns_label), "{name}");
            prop_assert_eq!(&TenantName::parse_host(name.as_str()).unwrap(), &name);
            let dressed = format!("{}.:443", name.as_str().to_ascii_uppercase());
            prop_assert_eq!(&TenantName::parse_host(&dressed).unwrap(), &name);
        }
    }

    #[test]
    fn a_slug_names_the_same_thing_as_its_host(text in text()) {
        if let (Ok(slug), Ok(host)) = (TenantName::parse_slug(&text), TenantName::parse_host(&text)) {
            prop_assert_eq!(slug, host);
        }
    }

    #[test]
    fn a_refusal_is_short_and_cannot_hurt_a_terminal(text in text()) {
        for error in [TenantName::parse_slug(&text).err(), TenantName::parse_host(&text).err()].into_iter().flatten() {
            let message = error.to_string();
            prop_assert!(message.chars().count() < 1_200, "{}", message.len());
            let hurts = message.chars().any(|c| c.is_control() || ('\u{200b}'..='\u{206f}').contains(&c));
            prop_assert!(!hurts, "{message:?}");
        }
    }

    // 63 bytes at most: 1 + 2 × (10 + 1 + 19) + 2.
    #[test]
    fn good_labels_are_never_refused(label in "[a-z0-9]([a-z0-9]{0,10}-[a-z0-9]{1,19}){1,2}7z") {
        prop_assume!(label.get(2..4) != Some("--"));
        let name = TenantName::parse_slug(&label).unwrap();
        prop_assert_eq!(name.as_str(), label);
    }
}
