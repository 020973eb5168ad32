//! Waits until an operation has ended or a tenant is active, by long polls.

use std::time::{Duration, Instant};

use fleet_api::bounded_number::WaitSeconds;
use fleet_api::field;
use fleet_api::operations::{FailureDetail, OperationFilters, OperationView, StepFilters, StepView, WaitQuery};
use fleet_api::pages::PageOf;
use fleet_api::tenants::TenantView;

use crate::client::{FleetClient, PAUSE};
use crate::error::{Error, ErrorKind, Result};
use crate::request::{ApiRequest, path_segment};

/// The API's maximum for one long poll, in seconds.
const POLL_SECONDS_MAX: u64 = 60;

impl FleetClient {
    /// Waits for at most `max` until the operation has succeeded, and returns it.
    ///
    /// # Errors
    /// `operation_failed`, whose causes name the error of a failed step; `operation_paused`; `still_running` when the time
    /// is over. The operation continues then, and the same call waits again.
    pub async fn wait_for_operation(&self, id: &str, max: Duration) -> Result<OperationView> {
        let deadline = Instant::now() + max;
        loop {
            let asked = Instant::now();
            let poll = deadline.saturating_duration_since(asked).min(self.poll_max);
            let operation: OperationView = self.send(&poll_request(id, poll)?).await?;
            match operation.state.as_str() {
                "succeeded" => return Ok(operation),
                "pending" | "running" => {}
                "paused" => return Err(paused_error(&operation)),
                _ => return Err(self.failure_of(&operation).await),
            }
            if Instant::now() >= deadline {
                return Err(running_error(&operation));
            }
            // A server that shuts down answers at once.
            if asked.elapsed() < PAUSE {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Waits for at most `max` until the tenant with this name or id is active, and returns it.
    ///
    /// # Errors
    /// `not_found`; `not_active` for a tenant that is suspended, archived or deleted; and the errors of
    /// [`FleetClient::wait_for_operation`].
    pub async fn wait_for_tenant(&self, name_or_id: &str, max: Duration) -> Result<TenantView> {
        let deadline = Instant::now() + max;
        let tenant = self.get_tenant(name_or_id).await?;
        if tenant.state != "provisioning" {
            return require_active(tenant);
        }
        let operation = self.creating_operation(&tenant).await?;
        self.wait_for_operation(&operation, deadline.saturating_duration_since(Instant::now())).await?;
        require_active(self.get_tenant(&tenant.id).await?)
    }

    /// Id of the operation that creates the tenant.
    async fn creating_operation(&self, tenant: &TenantView) -> Result<String> {
        if let Some(id) = &tenant.operation_id {
            return Ok(id.clone());
        }
        // A failed operation no longer works on the tenant, and is the newest one in the list.
        let request = ApiRequest::get("/v1/operations").with_query(field!(OperationFilters: tenant), &tenant.id);
        let request = request.with_query(field!(OperationFilters: limit), "1");
        let newest: PageOf<OperationView> = self.send(&request).await?;
        newest.items.into_iter().next().map(|operation| operation.id).ok_or_else(|| not_active_error(tenant))
    }

    /// The error for an operation that ended without success.
    async fn failure_of(&self, operation: &OperationView) -> Error {
        let (id, state) = (&operation.id, &operation.state);
        let detail = format!("the operation {id} ended, and its state is {state}");
        let error = Error::new(ErrorKind::OperationFailed, detail).of_operation(id);
        let error = match self.failure_cause(operation).await {
            Some(cause) => error.with_cause(format!("{}: {}", cause.code, cause.detail)),
            None => error,
        };
        match state.as_str() {
            "failed" | "partial" => error.try_next(format!("fleetctl op retry {id}      # after its cause is removed")),
            _ => error.try_next(format!("fleetctl op get {id}")),
        }
    }

    /// The error of the operation itself, or else of its first failed step. `None` also when the steps cannot be read:
    /// the caller learns of the failure in any case.
    async fn failure_cause(&self, operation: &OperationView) -> Option<FailureDetail> {
        if operation.error.is_some() {
            return operation.error.clone();
        }
        let request = ApiRequest::get(format!("/v1/operations/{}/steps", path_segment(&operation.id).ok()?));
        let request = request.with_query(field!(StepFilters: state), "failed");
        let failed: PageOf<StepView> = self.send(&request.with_query(field!(StepFilters: limit), "1")).await.ok()?;
        failed.items.into_iter().next()?.error
    }
}

/// A request whose answer comes when the operation has ended, or after `poll` in whole seconds.
fn poll_request(id: &str, poll: Duration) -> Result<ApiRequest> {
    let seconds = (poll.as_secs_f64().ceil() as u64).min(POLL_SECONDS_MAX);
    let request = ApiRequest::get(format!("/v1/operations/{}", path_segment(id)?));
    Ok(match WaitSeconds::new(seconds) {
        Some(wait) => request.with_query(field!(WaitQuery: wait_seconds), &wait.get().to_string()),
        None => request,
    })
}

fn paused_error(operation: &OperationView) -> Error {
    let id = &operation.id;
    Error::new(ErrorKind::OperationPaused, format!("an operator paused the operation {id}"))
        .of_operation(id)
        .try_next(format!("fleetctl op resume {id}"))
}

fn running_error(operation: &OperationView) -> Error {
    let id = &operation.id;
    Error::new(ErrorKind::StillRunning, format!("the time to wait is over, and the operation {id} continues"))
        .of_operation(id)
        .try_next("wait for it again")
}

/// The tenant itself if it is active.
pub(crate) fn require_active(tenant: TenantView) -> Result<TenantView> {
    if tenant.state == "active" { Ok(tenant) } else { Err(not_active_error(&tenant)) }
}

fn not_active_error(tenant: &TenantView) -> Error {
    let detail = format!("the tenant '{}' is {}, not active", tenant.name, tenant.state);
    Error::new(ErrorKind::NotActive, detail).try_next(format!("fleetctl tenant describe {}", tenant.name))
}
