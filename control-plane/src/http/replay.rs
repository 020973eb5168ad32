//! Answers again for a repeated Idempotency-Key, from the operation that the first request started.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use catalog::OperationId;

use super::ApiState;
use super::admin::change::accepted_response;
use super::admin::tenants::create::created_response;
use super::error::Result;
use super::extract::JsonBody;
use crate::error::Error;
use crate::http::admin::operations::operation_view;

/// Creates again the answer of the route `path`, which started or controlled this operation.
pub(crate) async fn replay_started(
    api: &ApiState,
    path: &str,
    status: StatusCode,
    operation: OperationId,
) -> Result<Response> {
    let found = catalog::operations::get(&mut api.app.catalog.read().await?, operation).await?;
    let record = found.ok_or_else(|| Error::internal("the operation of a stored answer is not in the catalog"))?;
    match path {
        "/v1/tenants" | "/v1/tenants/adopt" => created_response(api, record).await,
        _ if status == StatusCode::ACCEPTED => accepted_response(api, record).await,
        _ => Ok(JsonBody(operation_view(&mut api.app.catalog.read().await?, record).await?).into_response()),
    }
}
