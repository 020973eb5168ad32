//! The key of a form: random, chosen by the page, and the same for each attempt to send one form.
//!
//! The ids of new people and organisations are derived from it. So a form that is sent again makes nothing twice. The key of
//! a sign-up is also the right to its answer. That is why an id must not tell the key.

use serde::Deserialize;
use uuid::Uuid;

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(transparent)]
pub(crate) struct FormKey(Uuid);

impl FormKey {
    /// An id such as `person-0123…`, which is the same for each attempt. `scope` is a text that other forms do not have.
    pub(crate) fn derive_id(self, noun: &str, scope: &str) -> String {
        let context = format!("tasks example 2026-11-29 {noun} {scope}");
        let hash = blake3::derive_key(&context, self.0.as_bytes());
        let mut half = [0; 16];
        half.copy_from_slice(&hash[..16]);
        format!("{noun}-{}", Uuid::from_bytes(half).simple())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_stable_and_do_not_tell_the_key() {
        let key = FormKey(Uuid::from_u128(7));
        let person = key.derive_id("person", "acme");
        assert_eq!(person, key.derive_id("person", "acme"));
        assert_ne!(person, key.derive_id("person", "globex"), "an organisation cannot choose another one's person");
        assert_ne!(person[7..], key.derive_id("organisation", "acme")[13..]);
        assert!(!person.contains(&key.0.simple().to_string()));
    }
}
