//! The refusals that every statement of the data API can get: the statuses, their codes, and an example of each. PURE.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tenant_engine::ErrorKind as DatabaseError;
use tenant_router::ErrorKind as RouterError;

use crate::error::{Error, ErrorKind};
use crate::http::error::{ErrorAudience, Problem};

/// What each status means.
const MEANINGS: [(u16, &str); 13] = [
    (400, "The request, a name of the tenant, or the SQL is not valid"),
    (401, "The credential is missing or not valid"),
    (403, "The caller or the sandbox does not allow this in the tenant"),
    (404, "The tenant does not exist, or the caller is not a member. Both have the same answer"),
    (408, "The body did not arrive in time"),
    (409, "The statement violates a constraint of the tenant's schema; nothing was changed"),
    (413, "The body is too large"),
    (415, "The body has another media type than JSON"),
    (422, "The body has another shape, or the answer would be too large"),
    (429, "The tenant sends more requests than its plan or its database allows"),
    (500, "Internal error; the log of the process has details under the request_id"),
    (503, "Temporarily unavailable; with Retry-After, repeat the request after that time"),
    (507, "A disk is full or read-only, or the tenant's database is as large as its plan allows; nothing was changed"),
];

/// Errors of requests. The first one of each status is its example.
const OF_REQUESTS: [ErrorKind; 9] = [
    ErrorKind::InvalidJson,
    ErrorKind::InvalidQuery,
    ErrorKind::HostInvalid,
    ErrorKind::ReadOnly,
    ErrorKind::BodyTimeout,
    ErrorKind::BodyTooLarge,
    ErrorKind::UnsupportedMediaType,
    ErrorKind::Invalid,
    ErrorKind::Internal,
];

/// Errors of the router: the credential, the name of the tenant, and its state.
const OF_ROUTER: [RouterError; 18] = [
    RouterError::TenantUnnamed,
    RouterError::TenantNameInvalid,
    RouterError::TenantAmbiguous,
    RouterError::TenantHeaderRefused,
    RouterError::Unauthenticated,
    RouterError::Forbidden,
    RouterError::Suspended,
    RouterError::ReadOnly,
    RouterError::NotFound,
    RouterError::WritesBlocked,
    RouterError::Fenced,
    RouterError::Archived,
    RouterError::CatalogUnavailable,
    RouterError::KeysUnavailable,
    RouterError::ShuttingDown,
    RouterError::CatalogDiskFull,
    RouterError::RateLimited,
    RouterError::RequestsMax,
];

/// Errors of the tenant's database and of its server.
const OF_DATABASES: [DatabaseError; 34] = [
    DatabaseError::SqlInvalid,
    DatabaseError::SqlTooComplex,
    DatabaseError::ParameterMismatch,
    DatabaseError::UnsupportedType,
    DatabaseError::SqlForbidden,
    DatabaseError::ReadOnlyTransaction,
    DatabaseError::Constraint,
    DatabaseError::RowsMax,
    DatabaseError::BytesMax,
    DatabaseError::QueueFull,
    DatabaseError::DeadlineExceeded,
    DatabaseError::Busy,
    DatabaseError::ConnectionsMax,
    DatabaseError::AnswersMax,
    DatabaseError::LogMax,
    DatabaseError::MemoryMax,
    DatabaseError::Closed,
    DatabaseError::ServerUnreachable,
    DatabaseError::ServerFull,
    DatabaseError::ConnectionLost,
    DatabaseError::StorageFull,
    DatabaseError::DiskFull,
    DatabaseError::DiskLow,
    DatabaseError::ReadOnlyStorage,
    DatabaseError::Corrupt,
    DatabaseError::Missing,
    DatabaseError::WrongTenant,
    DatabaseError::Io,
    DatabaseError::ServerAuthFailed,
    DatabaseError::ServerTls,
    DatabaseError::ServerInvalid,
    DatabaseError::ServerPrivilege,
    DatabaseError::ServerClaimed,
    DatabaseError::Internal,
];

/// The response of each status.
pub(super) fn refusal_responses() -> BTreeMap<u16, Value> {
    let mut by_status: BTreeMap<u16, Vec<Problem>> = BTreeMap::new();
    for problem in all_problems() {
        by_status.entry(problem.http_status().as_u16()).or_default().push(problem);
    }
    by_status.into_iter().map(|(status, problems)| (status, refusal_response(status, &problems))).collect()
}

fn all_problems() -> impl Iterator<Item = Problem> {
    let of_requests = OF_REQUESTS.into_iter().map(|kind| {
        let status = crate::http::status_of(&kind).as_u16();
        Problem::from(Error::new(kind, meaning_of(status)))
    });
    let of_router = OF_ROUTER.into_iter().chain(OF_DATABASES.into_iter().map(RouterError::Database));
    of_requests.chain(of_router.map(|kind| Problem::from(tenant_router::Error::new(kind))))
}

fn meaning_of(status: u16) -> &'static str {
    MEANINGS.iter().find(|(of, _)| *of == status).expect("every status of an error above has a meaning").1
}

fn refusal_response(status: u16, problems: &[Problem]) -> Value {
    let mut codes: Vec<_> = problems.iter().map(|problem| problem.as_error().code()).collect();
    codes.sort_unstable();
    codes.dedup();
    let listed: Vec<_> = codes.iter().map(|code| format!("`{code}`")).collect();
    let example = problems[0].problem_body("01981d3e5b7a7c2f9d1e4a6b8c0d2e4f", ErrorAudience::Stranger);
    let shape = json!({ "properties": { "status": { "const": status }, "code": { "enum": codes } } });
    json!({
        "description": format!("{}. Codes: {}.", meaning_of(status), listed.join(", ")),
        "headers": headers_of(status),
        "content": { "application/problem+json": {
            "schema": { "allOf": [{ "$ref": "#/components/schemas/ProblemBody" }, shape] },
            "example": example,
        } },
    })
}

/// The headers of a response.
pub(super) fn headers_of(status: u16) -> Value {
    let header = |text: &str, schema: Value| json!({ "description": text, "schema": schema });
    let mut headers = json!({ "X-Request-Id": header("Id of the request in the log", json!({ "type": "string" })) });
    match status {
        401 => headers["WWW-Authenticate"] = header("The kind of credential", json!({ "const": "Bearer" })),
        429 | 500.. => {
            let text = "Seconds after which the same request may succeed. Absent if repeating alone does not help";
            headers["Retry-After"] = header(text, json!({ "type": "integer", "minimum": 1 }));
        }
        _ => {}
    }
    headers
}
