//! The path below which the data API serves a tenant, for instance `/t/{tenant}`. PURE.

use std::fmt;

/// The segment that stands for the tenant's name.
const TENANT: &str = "{tenant}";

/// First segments that the data listener itself or its monitors use.
const RESERVED: [&str; 8] = ["batch", "healthz", "livez", "metrics", "openapi.json", "query", "readyz", "v1"];

/// A longer path is a typing error.
const BYTES_MAX: usize = 200;

/// A path whose last segment is the tenant's name. The default is `/t/{tenant}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataPath {
    /// The text before the name. It begins and ends with `/`.
    prefix: String,
}

impl Default for DataPath {
    fn default() -> Self {
        Self { prefix: "/t/".to_owned() }
    }
}

impl DataPath {
    /// Parses a path such as `/orgs/{tenant}`.
    ///
    /// # Errors
    /// A text for people that says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > BYTES_MAX {
            return Err(format!("it has more than {BYTES_MAX} bytes"));
        }
        let path = text.strip_prefix('/').ok_or("it must begin with /")?;
        let before = path.strip_suffix(TENANT).ok_or("its last segment must be {tenant}")?;
        let fixed = before.strip_suffix('/').ok_or("it needs a segment before {tenant}, as /t/{tenant}")?;
        for segment in fixed.split('/') {
            check_segment(segment)?;
        }
        match RESERVED.iter().find(|reserved| fixed.split('/').next() == Some(reserved)) {
            Some(reserved) => Err(format!("the data API needs /{reserved} itself")),
            None => Ok(Self { prefix: format!("/{before}") }),
        }
    }

    /// The text before the tenant's name, for instance `/t/`.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The path of a tenant, for instance `/t/acme`.
    #[must_use]
    pub fn of_tenant(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }
}

impl fmt::Display for DataPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{TENANT}", self.prefix)
    }
}

/// Accepts only characters that clients and proxies never encode or remove. The prefix is compared as it is received.
fn check_segment(segment: &str) -> Result<(), String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    match segment {
        TENANT => Err("{tenant} must stand in it only once".to_owned()),
        "" => Err("it has an empty segment".to_owned()),
        "." | ".." => Err(format!("{segment} is not allowed as a segment")),
        _ if segment.bytes().all(plain) => Ok(()),
        _ => Err("its segments may have letters, digits, '-', '.', '_' and '~' only".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_prefix_of_plain_segments_is_accepted() {
        for text in ["/t/{tenant}", "/orgs/{tenant}", "/api/v1/orgs/{tenant}", "/a-b/c_d/e.f/~g/{tenant}"] {
            let path = DataPath::parse(text).unwrap();
            assert_eq!(path.to_string(), text);
            assert_eq!(path.of_tenant("acme"), text.replace(TENANT, "acme"));
            assert!(path.prefix().starts_with('/') && path.prefix().ends_with('/'));
        }
        assert_eq!(DataPath::default(), DataPath::parse("/t/{tenant}").unwrap());
    }

    #[test]
    fn every_other_path_is_refused_with_its_reason() {
        let long = format!("/{}/{{tenant}}", "x".repeat(200));
        for (text, reason) in [
            ("", "begin with /"),
            ("orgs/{tenant}", "begin with /"),
            ("https://example.org/{tenant}", "begin with /"),
            ("/orgs", "last segment"),
            ("/orgs/{tenant}/", "last segment"),
            ("/orgs/{tenant}/data", "last segment"),
            ("/orgs/{org}", "last segment"),
            ("/{tenant}", "a segment before"),
            ("/orgs/x{tenant}", "a segment before"),
            ("/{tenant}/{tenant}", "only once"),
            ("//{tenant}", "empty segment"),
            ("/orgs//{tenant}", "empty segment"),
            ("/orgs/../{tenant}", ".. is not allowed"),
            ("/./{tenant}", ". is not allowed"),
            ("/{org}/{tenant}", "letters, digits"),
            ("/{*all}/{tenant}", "letters, digits"),
            ("/org%73/{tenant}", "letters, digits"),
            ("/orgs?x=/{tenant}", "letters, digits"),
            ("/straße/{tenant}", "letters, digits"),
            ("/v1/{tenant}", "/v1 itself"),
            ("/v1/orgs/{tenant}", "/v1 itself"),
            ("/metrics/{tenant}", "/metrics itself"),
            ("/healthz/{tenant}", "/healthz itself"),
            ("/readyz/{tenant}", "/readyz itself"),
            ("/query/{tenant}", "/query itself"),
            (long.as_str(), "more than 200 bytes"),
        ] {
            let refused = DataPath::parse(text).unwrap_err();
            assert!(refused.contains(reason), "{text}: {refused}");
        }
    }
}
