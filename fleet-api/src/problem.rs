//! The body of every error: RFC 9457, application/problem+json.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One invalid entry of a list in the request's body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BadLine {
    /// Position of the entry in the list, from 0.
    pub index: usize,
    /// Name of the entry as it was sent, shortened.
    pub name: String,
    /// Description of the error in the entry.
    pub detail: String,
}

/// The body of every error.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ProblemBody {
    /// URI of the kind of problem: `urn:fleet:problem:<code>`.
    #[serde(rename = "type")]
    pub type_uri: String,
    /// Short name of the kind of problem, for people.
    pub title: String,
    /// HTTP status of the response.
    pub status: u16,
    /// Description of what happened, for people.
    pub detail: String,
    /// URI of this occurrence: `urn:fleet:request:<request_id>`. It does not contain the path, so that the answers
    /// about an unknown and a foreign tenant do not differ.
    pub instance: String,
    /// Stable error code, for programs.
    pub code: String,
    /// Id of the request, to find it in the log.
    pub request_id: String,
    /// Advice, most helpful first.
    pub next_steps: Vec<String>,
    /// Invalid entries of a list in the request, at most 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<BadLine>,
}
