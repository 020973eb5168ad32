//! [`RowMismatch`]: which column of an answer does not fit the type of the program, without the value itself.

use std::fmt;

use serde::de::{Expected, Unexpected};
use tenant_engine::CellValue;

/// A row that cannot be read as the program's type. Its text names the column, the expected type and the found type. It
/// never holds the value, because errors are logged.
#[derive(Clone, PartialEq, Eq)]
pub struct RowMismatch {
    column: Option<String>,
    problem: String,
    /// What a type's own check said. May quote the value, so only [`fmt::Debug`] shows it.
    detail: Option<String>,
}

impl RowMismatch {
    pub(super) fn new(problem: impl Into<String>) -> Self {
        Self { column: None, problem: problem.into(), detail: None }
    }

    /// The same mismatch, in this column, which holds a value of the kind `found`.
    pub(super) fn in_column(mut self, column: &str, found: &str) -> Self {
        if self.column.is_none() {
            self.column = Some(column.to_owned());
        }
        if self.problem.is_empty() {
            self.problem = format!("{found} is not a valid value of its field");
        }
        self
    }

    /// The name of the column; `None` when the row as a whole does not fit.
    #[must_use]
    pub fn column(&self) -> Option<&str> {
        self.column.as_deref()
    }
}

impl fmt::Display for RowMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.column {
            Some(column) => write!(f, "column '{column}': {}", self.problem),
            None => f.write_str(&self.problem),
        }
    }
}

impl fmt::Debug for RowMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.detail {
            Some(detail) => write!(f, "RowMismatch({self}: {detail})"),
            None => write!(f, "RowMismatch({self})"),
        }
    }
}

impl std::error::Error for RowMismatch {}

impl serde::de::Error for RowMismatch {
    fn custom<T: fmt::Display>(text: T) -> Self {
        Self { column: None, problem: String::new(), detail: Some(text.to_string()) }
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(format!("expected {expected}, found {}", unexpected_noun(&found)))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(format!("expected {expected}, found {} that does not fit", unexpected_noun(&found)))
    }

    fn invalid_length(length: usize, expected: &dyn Expected) -> Self {
        Self::new(format!("expected {expected}, found {length} values"))
    }

    fn unknown_variant(_found: &str, expected: &'static [&'static str]) -> Self {
        Self::new(format!("expected one of {}, found another text", expected.join(", ")))
    }

    fn unknown_field(found: &str, expected: &'static [&'static str]) -> Self {
        Self::new(format!("the answer has a column '{found}', expected only {}", expected.join(", ")))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(format!("the answer has no column '{field}'"))
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self::new(format!("the answer has two columns '{field}': give one another name with AS"))
    }
}

/// The kind of a value in messages.
pub(super) fn value_noun(value: &CellValue<'_>) -> &'static str {
    match value {
        CellValue::Null => "NULL",
        CellValue::Boolean(_) => "a boolean",
        CellValue::Integer(_) => "an integer",
        CellValue::Real(_) => "a float",
        CellValue::Text(_) => "text",
        CellValue::Blob(_) => "bytes",
    }
}

/// As [`value_noun`], for the values that serde reports.
fn unexpected_noun(found: &Unexpected<'_>) -> &'static str {
    match found {
        Unexpected::Bool(_) => "a boolean",
        Unexpected::Unsigned(_) | Unexpected::Signed(_) => "an integer",
        Unexpected::Float(_) => "a float",
        Unexpected::Char(_) | Unexpected::Str(_) => "text",
        Unexpected::Bytes(_) => "bytes",
        Unexpected::Unit | Unexpected::Option => "NULL",
        Unexpected::Seq => "a list",
        Unexpected::Map => "an object",
        _ => "another kind of value",
    }
}
