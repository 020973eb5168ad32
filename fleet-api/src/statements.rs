//! SQL statements of one tenant, on the data API.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

/// Maximum number of statements in one transaction, because it holds the tenant's only writer.
pub const STATEMENTS_MAX: usize = 100;
/// Maximum number of parameters of a statement: SQLite's default.
pub const PARAMETERS_MAX: usize = 32_766;

/// One SQL statement.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "sql": "select id, title from tasks where id = ?1", "params": [1] }))]
pub struct StatementRequest {
    /// One SQL statement. Its parameters are `$1`, `$2` …; SQLite also takes `?1`, `?2` ….
    pub sql: String,
    /// Values of the parameters, in their order, at most 32,766.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<StatementValue>, max_items = 32_766)]
    pub params: Vec<Box<RawValue>>,
}

/// Several SQL statements, which run in one transaction.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "statements": [
    { "sql": "insert into tasks (title) values (?1)", "params": ["buy milk"] },
    { "sql": "select count(*) from tasks" },
] }))]
pub struct StatementBatch {
    /// The statements in their order: 1 to 100.
    #[schema(min_items = 1, max_items = 100)]
    pub statements: Vec<StatementRequest>,
}

/// The answer to one statement.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({ "columns": ["id", "title"], "rows": [[1, "buy milk"]], "rows_affected": 0 }))]
pub struct StatementAnswer {
    /// Names of the columns.
    pub columns: Vec<String>,
    /// The rows. Each has one value per column.
    pub rows: Vec<Vec<StatementValue>>,
    /// Number of rows that the statement inserted, changed or deleted.
    pub rows_affected: u64,
}

/// The answers to all statements of a transaction.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct BatchAnswer {
    /// One answer per statement, in their order.
    pub results: Vec<StatementAnswer>,
}

/// A parameter, or a cell of a row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum StatementValue {
    /// NULL.
    Null,
    /// A boolean. SQLite stores 0 or 1.
    Boolean(bool),
    /// A number. An answer has integers beyond ±2^53 as `$int`, because many readers of JSON would round them.
    Number(f64),
    /// A text.
    Text(String),
    /// An integer, exactly.
    Integer(IntegerText),
    /// Bytes.
    Blob(BlobText),
    /// A number that JSON has not.
    Real(RealText),
}

/// A 64-bit integer in decimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct IntegerText {
    /// The digits, for instance `9007199254740993`.
    #[serde(rename = "$int")]
    #[schema(pattern = "^[+-]?[0-9]+$")]
    pub digits: String,
}

/// Bytes in Base64.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BlobText {
    /// The bytes in the standard alphabet of Base64, with padding.
    #[serde(rename = "$blob")]
    pub base64: String,
}

/// Infinity, or not a number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RealText {
    /// `inf`, `-inf` or `nan`.
    #[serde(rename = "$real")]
    #[schema(pattern = "^(-?inf|nan)$")]
    pub name: String,
}
