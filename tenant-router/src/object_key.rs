//! [`ObjectKey`]: where a file of a tenant is in a store that many tenants share.

use std::fmt;

use crate::tenant::{AccessLevel, Tenant};

/// The key of a tenant's file, for instance in S3: `tenants/tnt_…/exports/tasks.csv`. [`Tenant::object_key`] is its only
/// maker, so every key is below the id of its tenant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey(String);

impl ObjectKey {
    /// The text of the key. It has letters, digits, `-`, `_`, `.`, `%` and `/` only.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<A: AccessLevel> Tenant<A> {
    /// The key of a file of this tenant. Each part becomes one segment of the path: other characters are encoded, so no part
    /// leads out of the tenant's directory, whatever a customer has written.
    #[must_use]
    pub fn object_key(&self, parts: &[&str]) -> ObjectKey {
        let mut key = format!("tenants/{}", self.id());
        for part in parts {
            key.push('/');
            key.push_str(&encode_segment(part));
        }
        ObjectKey(key)
    }
}

/// One segment of a path. An empty part, `.` and `..` are encoded as well, because they would change the path.
fn encode_segment(part: &str) -> String {
    if part.bytes().all(|byte| byte == b'.') {
        return if part.is_empty() { "%".to_owned() } else { part.replace('.', "%2E") };
    }
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    part.bytes()
        .map(|byte| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_segment_stays_one_segment_and_keeps_its_identity() {
        let parts = ["a.csv", "", ".", "..", "...", "a/b", "a%2Fb", "%", "%2E", "../x", "é", "A", "a", "a\0", " "];
        let encoded: HashSet<_> = parts.iter().map(|part| encode_segment(part)).collect();
        assert_eq!(encoded.len(), parts.len(), "two parts have one segment: {encoded:?}");
        for segment in encoded {
            assert!(!segment.is_empty() && !segment.contains('/') && segment != "." && segment != "..", "{segment}");
            assert!(segment.bytes().all(|b| b.is_ascii_graphic()), "{segment}");
        }
        assert_eq!(encode_segment("tasks-1_a.csv"), "tasks-1_a.csv");
    }
}
