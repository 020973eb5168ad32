//! Errors of the kit itself. What it finds in the application is a finding and not an error.

use std::fmt;

/// The kit cannot do its work. The error has a stable code and a text for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KitError {
    code: &'static str,
    text: String,
}

/// Results of the kit.
pub type Result<T> = std::result::Result<T, KitError>;

impl KitError {
    /// An error with its code.
    #[must_use]
    pub fn new(code: &'static str, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.code
    }
}

impl fmt::Display for KitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for KitError {}
