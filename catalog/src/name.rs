//! The ONLY normaliser of names. Router, command line, caches and metrics use it; no other code compares names.
//!
//! Pure. Two spellings name the same thing exactly when their normal forms have equal bytes.

use std::fmt;

use idna::AsciiDenyList;
use idna::uts46::{DnsLength, Hyphens, Uts46};
use serde::{Serialize, Serializer};

use crate::error::{Error, ErrorKind, Result};
use crate::text_enum::TextEnum;

/// Maximum length of a slug: it must fit one DNS label.
const SLUG_MAX: usize = 63;
/// Longer input is refused without parsing. The longest host name has 253 characters, a port 6 more, and Unicode needs
/// up to 4 bytes per character.
const INPUT_MAX: usize = 1024;
/// How much of a refused name a message repeats.
const QUOTE_MAX: usize = 80;

/// Slugs that would collide with common host names, or with paths of the product.
const RESERVED: &[&str] = &[
    "admin",
    "api",
    "app",
    "assets",
    "auth",
    "autoconfig",
    "autodiscover",
    "billing",
    "blog",
    "cdn",
    "dashboard",
    "default",
    "dev",
    "dns",
    "docs",
    "email",
    "fleet",
    "ftp",
    "health",
    "healthz",
    "help",
    "internal",
    "livez",
    "localhost",
    "login",
    "logout",
    "mail",
    "metrics",
    "mx",
    "ns",
    "ns1",
    "ns2",
    "null",
    "openapi",
    "public",
    "readyz",
    "root",
    "server",
    "smtp",
    "ssl",
    "static",
    "status",
    "support",
    "system",
    "t",
    "tenant",
    "tenants",
    "undefined",
    "v1",
    "v2",
    "webmail",
    "well-known",
    "wpad",
    "www",
];

/// A normalised tenant slug or host name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantName(Box<str>);

/// The kind of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameKind {
    /// The tenant's current slug.
    Slug,
    /// A former slug, which still leads to the tenant.
    Alias,
    /// A custom domain.
    Host,
}

impl TextEnum for NameKind {
    const NOUN: &'static str = "kind of name";
    const WORDS: &'static [(Self, &'static str)] =
        &[(Self::Slug, "slug"), (Self::Alias, "alias"), (Self::Host, "host")];
}

impl TenantName {
    /// Parses a slug: 1 to 63 of `[a-z0-9-]`, no hyphen at either end, not reserved, not `xn--…`. Converts it to lower
    /// case.
    ///
    /// # Errors
    /// `Invalid`, with the allowed form.
    pub fn parse_slug(text: &str) -> Result<Self> {
        if let Some(problem) = slug_problem(text) {
            let message = format!(
                "{} is not a tenant name: {problem}. Allowed are 1 to {SLUG_MAX} of a-z, 0-9 and '-', \
                 with no '-' at either end",
                quote_name(text)
            );
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        Ok(Self(text.to_ascii_lowercase().into()))
    }

    /// Parses a host name of a Host header. Removes port, trailing dot and case, and converts Unicode to A-labels.
    ///
    /// # Errors
    /// `Invalid`, with the reason. IP addresses are refused: they name machines, not tenants.
    pub fn parse_host(text: &str) -> Result<Self> {
        normal_host(text).map(|name| Self(name.into())).map_err(|problem| {
            let message = format!("{} is not a host name: {problem}", quote_name(text));
            Error::new(ErrorKind::Invalid, message)
        })
    }

    /// A name from the catalog, which was checked when it was written.
    pub(crate) fn from_stored(text: String) -> Self {
        Self(text.into())
    }

    /// The normal form of the name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TenantName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for TenantName {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

fn slug_problem(text: &str) -> Option<String> {
    if text.is_empty() {
        return Some("it is empty".to_owned());
    }
    if text.len() > SLUG_MAX {
        return Some(format!("it is {} bytes long", text.len()));
    }
    if let Some(bad) = text.chars().find(|c| !(c.is_ascii_alphanumeric() || *c == '-')) {
        return Some(format!("it contains {}", describe_char(bad)));
    }
    if text.starts_with('-') || text.ends_with('-') {
        return Some("it begins or ends with '-'".to_owned());
    }
    if text.get(2..4) == Some("--") {
        return Some("'--' in third place is kept for encoded international names".to_owned());
    }
    let normal = text.to_ascii_lowercase();
    RESERVED.contains(&normal.as_str()).then(|| "it is reserved".to_owned())
}

fn normal_host(text: &str) -> std::result::Result<String, String> {
    if text.len() > INPUT_MAX {
        return Err(format!("it is {} bytes long", text.len()));
    }
    let host = without_port(text)?;
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.is_empty() {
        return Err("it is empty".to_owned());
    }
    if let Some(bad) = host.chars().find(|c| c.is_ascii() && !(c.is_ascii_alphanumeric() || matches!(c, '-' | '.'))) {
        return Err(format!("it contains {}", describe_char(bad)));
    }
    let ascii = Uts46::new()
        .to_ascii(host.as_bytes(), AsciiDenyList::STD3, Hyphens::CheckFirstLast, DnsLength::Verify)
        .map_err(|_| "each part between dots must be 1 to 63 letters, digits or inner '-', 253 in all".to_owned())?;
    // Browsers recognise an IPv4 address by a last part of only digits.
    if ascii.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit())) {
        return Err("it is an IP address".to_owned());
    }
    Ok(ascii.into_owned())
}

fn without_port(text: &str) -> std::result::Result<&str, String> {
    if text.starts_with('[') {
        return Err("it is an IP address".to_owned());
    }
    let Some((host, port)) = text.split_once(':') else { return Ok(text) };
    match port.parse::<u16>() {
        Ok(_) if port.bytes().all(|b| b.is_ascii_digit()) => Ok(host),
        _ => Err("what follows ':' is not a port".to_owned()),
    }
}

/// Shows a character in a message: visible characters unchanged, others by number.
fn describe_char(c: char) -> String {
    match c {
        '%' => "'%' (names are not percent-decoded)".to_owned(),
        ' ' => "a space".to_owned(),
        c if c.is_ascii_graphic() => format!("'{c}'"),
        c if c.is_alphanumeric() => format!("'{c}' (U+{:04X})", u32::from(c)),
        c => format!("the character U+{:04X}", u32::from(c)),
    }
}

/// Shows a refused name in a message, truncated. It is escaped, so that it cannot control a terminal.
fn quote_name(text: &str) -> String {
    let cut: String = text.chars().take(QUOTE_MAX).flat_map(escape_char).collect();
    let more = if text.chars().nth(QUOTE_MAX).is_some() { "…" } else { "" };
    format!("'{cut}{more}'")
}

fn escape_char(c: char) -> Vec<char> {
    // Beyond letters and digits, non-ASCII includes invisible and direction-changing characters.
    let plain = if c.is_ascii() { c.is_ascii_graphic() || c == ' ' } else { c.is_alphanumeric() };
    if plain && c != '\'' && c != '\\' { vec![c] } else { c.escape_default().collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(result: Result<TenantName>) -> String {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        error.to_string()
    }

    #[test]
    fn slugs_fold_case_only() {
        for (text, normal) in [("acme", "acme"), ("ACME", "acme"), ("a-b-2", "a-b-2"), ("42", "42"), ("a--b", "a--b")] {
            assert_eq!(TenantName::parse_slug(text).unwrap().as_str(), normal);
        }
        assert!(TenantName::parse_slug(&"a".repeat(63)).is_ok());
    }

    #[test]
    fn bad_slugs_are_refused_with_what_is_wrong() {
        let long = "a".repeat(300);
        let cases = [
            ("", "empty"),
            ("..", "'.'"),
            (".", "'.'"),
            ("%2e", "'%'"),
            ("a%00b", "'%'"),
            ("ACME.", "'.'"),
            ("acme ", "a space"),
            (" acme", "a space"),
            ("a\0b", "U+0000"),
            ("a\nb", "U+000A"),
            ("acmé", "U+00E9"),
            ("аcme", "U+0430"),
            ("a\u{202e}b", "U+202E"),
            ("xn--acm-dma", "third place"),
            ("XN--acm-dma", "third place"),
            ("ab--cd", "third place"),
            ("-acme", "begins or ends"),
            ("acme-", "begins or ends"),
            ("-", "begins or ends"),
            ("tnt_0190", "'_'"),
            ("a/b", "'/'"),
            ("a\\b", "'\\'"),
            ("api", "reserved"),
            ("WWW", "reserved"),
            ("localhost", "reserved"),
            (long.as_str(), "300 bytes"),
        ];
        for (text, part) in cases {
            let message = refused(TenantName::parse_slug(text));
            assert!(message.contains(part), "{text:?}: {message}");
            assert!(message.contains("a-z, 0-9"), "{message}");
            assert!(!message.chars().any(char::is_control), "{message:?}");
            assert!(message.chars().count() < 320, "{message}");
        }
    }

    #[test]
    fn hosts_lose_port_dot_and_case() {
        let cases = [
            ("Example.COM", "example.com"),
            ("example.com.", "example.com"),
            ("example.com:8080", "example.com"),
            ("example.com.:443", "example.com"),
            ("Bücher.example", "xn--bcher-kva.example"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("bücher。example", "xn--bcher-kva.example"),
            ("acme.localhost:8080", "acme.localhost"),
            ("localhost", "localhost"),
            ("1.example", "1.example"),
        ];
        for (text, normal) in cases {
            assert_eq!(TenantName::parse_host(text).unwrap().as_str(), normal, "{text}");
        }
    }

    #[test]
    fn bad_hosts_are_refused() {
        let long = format!("{}.example", "a.".repeat(130));
        let label = format!("{}.example", "a".repeat(64));
        let cases = [
            "",
            ".",
            ":80",
            "a..b",
            ".a",
            "a.b..",
            "127.0.0.1",
            "127.0.0.1:80",
            "0x7f.1",
            "[::1]",
            "[::1]:80",
            "::1",
            "a.b:",
            "a.b:x",
            "a.b:99999",
            "a.b:+80",
            "a.b:80:80",
            "a@b.c",
            "a b.c",
            "a\0.b",
            "a%2e.b",
            "a_b.c",
            "-a.b",
            "a-.b",
            "xn--\u{fc}.b",
            "xn--zzzzzzzzzzz.b",
            "a/b.c",
            "a\u{202e}b.c",
            long.as_str(),
            label.as_str(),
        ];
        for text in cases {
            let message = refused(TenantName::parse_host(text));
            assert!(!message.chars().any(char::is_control), "{message:?}");
        }
    }

    #[test]
    fn reserved_words_are_slugs_otherwise_and_sorted() {
        assert!(RESERVED.is_sorted());
        for word in RESERVED {
            assert!(word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'), "{word}");
        }
    }
}
