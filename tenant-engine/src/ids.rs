//! Typed ids. Outside the process an id is text with a prefix that says what it names (`tnt_…`, `op_…`);
//! inside it is a UUID v7, never reused. The engine never looks one up.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What an id names; gives its text form a prefix.
pub trait IdKind: 'static {
    /// The prefix without the underscore, for instance `tnt`.
    const PREFIX: &'static str;
    /// What the id names, in words, for error messages.
    const NOUN: &'static str;
}

/// The id of one `K`: a UUID v7 that prints as `<prefix>_<32 hex digits>`.
pub struct Id<K> {
    uuid: Uuid,
    kind: PhantomData<fn() -> K>,
}

/// Names a tenant for ever; names change, this does not.
pub type TenantId = Id<TenantKind>;
/// Names a fleet: keeps a staging program out of production's databases.
pub type FleetId = Id<FleetKind>;
/// Names an operation: one piece of fleet work.
pub type OperationId = Id<OperationKind>;

/// Marks [`TenantId`].
#[derive(Debug)]
pub enum TenantKind {}
/// Marks [`FleetId`].
#[derive(Debug)]
pub enum FleetKind {}
/// Marks [`OperationId`].
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

impl<K: IdKind> Id<K> {
    /// A new id; ids made later sort later.
    #[must_use]
    pub fn generate() -> Self {
        Self::from_uuid(Uuid::now_v7())
    }

    /// The id with these bits.
    #[must_use]
    pub fn from_uuid(uuid: Uuid) -> Self {
        Self { uuid, kind: PhantomData }
    }

    /// The bits of this id.
    #[must_use]
    pub fn uuid(self) -> Uuid {
        self.uuid
    }
}

/// The text is not an id of the kind asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not the id of any {noun}: expected {prefix}_ and 32 hex digits")]
pub struct ParseIdError {
    text: String,
    noun: &'static str,
    prefix: &'static str,
}

impl<K: IdKind> FromStr for Id<K> {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        text.strip_prefix(K::PREFIX)
            .and_then(|rest| rest.strip_prefix('_'))
            .filter(|hex| hex.len() == 32)
            .and_then(|hex| Uuid::try_parse(hex).ok())
            .map(Self::from_uuid)
            .ok_or_else(|| ParseIdError { text: text.chars().take(80).collect(), noun: K::NOUN, prefix: K::PREFIX })
    }
}

impl<K: IdKind> fmt::Display for Id<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}", K::PREFIX, self.uuid.simple())
    }
}

impl<K: IdKind> fmt::Debug for Id<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

// Derives would ask `K` for the same traits; an id needs nothing of its marker.
impl<K> Clone for Id<K> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<K> Copy for Id<K> {}
impl<K> PartialEq for Id<K> {
    fn eq(&self, other: &Self) -> bool {
        self.uuid == other.uuid
    }
}
impl<K> Eq for Id<K> {}
impl<K> PartialOrd for Id<K> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<K> Ord for Id<K> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.uuid.cmp(&other.uuid)
    }
}
impl<K> Hash for Id<K> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.uuid.hash(state);
    }
}

impl<K: IdKind> Serialize for Id<K> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de, K: IdKind> Deserialize<'de> for Id<K> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Counts the changes of a tenant's state, blocks, server or placement; the catalog and the database must agree on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub i64);

impl Generation {
    /// What every new tenant starts with.
    pub const FIRST: Self = Self(1);

    /// The one after this.
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
