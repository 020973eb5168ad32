//! The ONE normaliser of names. Router, command line, caches and metrics all use it; nothing else compares names.

use crate::error::Result;

/// A normalised tenant slug or host name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Box<str>);

/// What kind of name a row of `names` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameKind {
    /// The tenant's current name.
    Slug,
    /// A former slug; still leads to the tenant.
    Alias,
    /// A custom domain.
    Host,
}

impl Name {
    /// A slug: 1 to 63 of `[a-z0-9-]`, no hyphen at either end, lower-cased, not reserved, not `xn--…`.
    ///
    /// Fails with `Invalid`, saying what is allowed.
    pub fn slug(_text: &str) -> Result<Self> {
        todo!()
    }
    /// A host name as found in a Host header: port, trailing dot and case removed, Unicode to A-labels.
    pub fn host(_text: &str) -> Result<Self> {
        todo!()
    }
    /// The normal form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
