//! Typed ids. Inside the process an id is a UUID version 7 that is never used again. Outside it is text with a prefix
//! for the kind of object (`tnt_…`, `op_…`). The engine never looks up an id.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The kind of object that an id names. It gives the id's text its prefix.
pub trait IdKind: 'static {
    /// The prefix without the underscore, for instance `tnt`.
    const PREFIX: &'static str;
    /// The kind of object in words, for error messages.
    const NOUN: &'static str;
}

/// The id of an object of kind `K`: a UUID version 7 that prints as `<prefix>_<32 hex digits>`.
pub struct TypedId<K> {
    uuid: Uuid,
    kind: PhantomData<fn() -> K>,
}

/// Names a tenant permanently: the tenant's names may change, its id never does.
pub type TenantId = TypedId<TenantKind>;
/// Names a fleet. It keeps a staging program out of production's databases.
pub type FleetId = TypedId<FleetKind>;
/// Names an operation, a piece of work on the fleet.
pub type OperationId = TypedId<OperationKind>;

/// The kind of [`TenantId`].
#[derive(Debug)]
pub enum TenantKind {}
/// The kind of [`FleetId`].
#[derive(Debug)]
pub enum FleetKind {}
/// The kind of [`OperationId`].
#[derive(Debug)]
pub enum OperationKind {}

impl IdKind for TenantKind {
    const PREFIX: &'static str = "tnt";
    const NOUN: &'static str = "tenant";
}
impl IdKind for FleetKind {
    const PREFIX: &'static str = "flt";
    const NOUN: &'static str = "fleet";
}
impl IdKind for OperationKind {
    const PREFIX: &'static str = "op";
    const NOUN: &'static str = "operation";
}

impl<K: IdKind> TypedId<K> {
    /// A new id. Later ids sort after earlier ones.
    #[must_use]
    pub fn generate() -> Self {
        Self::from_uuid(Uuid::now_v7())
    }

    /// The id with these 128 bits.
    #[must_use]
    pub fn from_uuid(uuid: Uuid) -> Self {
        Self { uuid, kind: PhantomData }
    }

    /// The 128 bits of this id.
    #[must_use]
    pub fn uuid(self) -> Uuid {
        self.uuid
    }
}

/// The prefixes of all ids of a fleet, with the kind of object. Used only in messages about an id of the wrong kind.
const NOUNS: [(&str, &str); 7] = [
    ("tnt_", "a tenant"),
    ("op_", "an operation"),
    ("srv_", "a server"),
    ("bkp_", "a backup"),
    ("rel_", "a release"),
    ("tok_", "a token"),
    ("flt_", "a fleet"),
];

/// The kind of object by the text's prefix, such as "an operation". `None` when the text does not look like an id.
#[must_use]
pub fn named_by(text: &str) -> Option<&'static str> {
    NOUNS.into_iter().find(|(prefix, _)| text.starts_with(prefix)).map(|(_, noun)| noun)
}

/// Whether the text looks like the secret of a token. Ids and secrets once both began with `flt_`; the length
/// distinguishes them.
#[must_use]
pub fn looks_secret(text: &str) -> bool {
    text.starts_with("ftk_") || (text.starts_with("flt_") && text.len() > "flt_".len() + 32)
}

/// The text is not an id of the expected kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseIdError {
    /// The refused text, shortened; empty when it looks like a secret.
    text: String,
    noun: &'static str,
    prefix: &'static str,
}

impl ParseIdError {
    fn new(text: &str, noun: &'static str, prefix: &'static str) -> Self {
        let text = if looks_secret(text) { String::new() } else { text.chars().take(80).collect() };
        Self { text, noun, prefix }
    }
}

impl std::error::Error for ParseIdError {}

impl fmt::Display for ParseIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { text, noun, prefix } = self;
        let is_own = text.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('_'));
        match named_by(text).filter(|_| !is_own) {
            Some(other) => write!(f, "'{text}' is the id of {other}; the id of a different kind is expected: {noun}"),
            None if text.is_empty() => {
                write!(f, "this is not the id of any {noun}: expected {prefix}_ and 32 hex digits")
            }
            None => write!(f, "'{text}' is not the id of any {noun}: expected {prefix}_ and 32 hex digits"),
        }
    }
}

impl<K: IdKind> FromStr for TypedId<K> {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        text.strip_prefix(K::PREFIX)
            .and_then(|rest| rest.strip_prefix('_'))
            .filter(|hex| hex.len() == 32)
            .and_then(|hex| Uuid::try_parse(hex).ok())
            .map(Self::from_uuid)
            .ok_or_else(|| ParseIdError::new(text, K::NOUN, K::PREFIX))
    }
}

impl<K: IdKind> fmt::Display for TypedId<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}", K::PREFIX, self.uuid.simple())
    }
}

impl<K: IdKind> fmt::Debug for TypedId<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

// Derives would require the same traits of `K`, but an id needs nothing from its marker type.
impl<K> Clone for TypedId<K> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<K> Copy for TypedId<K> {}
impl<K> PartialEq for TypedId<K> {
    fn eq(&self, other: &Self) -> bool {
        self.uuid == other.uuid
    }
}
impl<K> Eq for TypedId<K> {}
impl<K> PartialOrd for TypedId<K> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<K> Ord for TypedId<K> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.uuid.cmp(&other.uuid)
    }
}
impl<K> Hash for TypedId<K> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.uuid.hash(state);
    }
}

impl<K: IdKind> Serialize for TypedId<K> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de, K: IdKind> Deserialize<'de> for TypedId<K> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Number of changes of a tenant's state, blocks, server or placement. The catalog and the database must agree on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub i64);

impl Generation {
    /// The generation of a new tenant.
    pub const FIRST: Self = Self(1);

    /// The next generation.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_of_another_kind_is_named_and_a_secret_is_not_shown() {
        let said = |text: &str| text.parse::<TenantId>().unwrap_err().to_string();
        let operation = OperationId::generate().to_string();
        assert!(said(&operation).contains("is the id of an operation"), "{}", said(&operation));
        assert!(said(&operation).ends_with("expected: tenant"));
        assert!(said("tnt_12").contains("expected tnt_ and 32 hex digits"));
        assert!(said("acme").contains("'acme' is not the id of any tenant"));
        for secret in [format!("ftk_{}", "s".repeat(47)), format!("flt_{}", "s".repeat(47))] {
            assert!(!said(&secret).contains("sss"), "{}", said(&secret));
        }
        assert!(said(&FleetId::generate().to_string()).contains("is the id of a fleet"));
    }
}
