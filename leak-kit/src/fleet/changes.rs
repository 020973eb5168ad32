//! Changes of tenants through the admin API.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use fleet_client::ApiRequest;
use serde_json::{Value, json};

use crate::databases::FleetControl;
use crate::error::{KitError, Result};
use crate::world::Side;

/// How long a change of one small tenant may take.
const CHANGE_MAX: Duration = Duration::from_secs(60);
const POLL_EACH: Duration = Duration::from_millis(50);
/// A router knows a change of another process within this time.
const ROUTERS_KNOW: Duration = Duration::from_millis(1_500);

/// Sends requests to the admin API.
#[async_trait]
pub trait FleetAdmin: Send + Sync {
    /// Sends a request, and returns the answer as JSON.
    ///
    /// # Errors
    /// `fleet_change_failed` with the API's own text.
    async fn call(&self, request: &ApiRequest) -> Result<Value>;
}

#[async_trait]
impl FleetAdmin for fleet_client::FleetClient {
    async fn call(&self, request: &ApiRequest) -> Result<Value> {
        self.send(request).await.map_err(|error| change_failed(&error))
    }
}

fn change_failed(cause: &dyn std::fmt::Display) -> KitError {
    KitError::new("fleet_change_failed", cause.to_string())
}

/// Changes both tenants of a test.
pub struct FleetChanges {
    admin: Arc<dyn FleetAdmin>,
    tenants: [String; 2],
}

impl FleetChanges {
    /// Changes of these two tenants, A first.
    #[must_use]
    pub fn new(admin: Arc<dyn FleetAdmin>, tenants: [String; 2]) -> Self {
        Self { admin, tenants }
    }

    fn tenant(&self, side: Side) -> &str {
        match side {
            Side::First => &self.tenants[0],
            Side::Second => &self.tenants[1],
        }
    }

    /// Starts an operation and waits for its end.
    pub(super) async fn run(&self, path: &str, body: &Value) -> Result<()> {
        let started = self.admin.call(&ApiRequest::post(path, body)).await?;
        let id = started["id"].as_str().unwrap_or_default().to_owned();
        let waited = tokio::time::timeout(CHANGE_MAX, self.wait_for(&id)).await;
        waited.map_err(|_| change_failed(&format!("the operation {id} does not end")))?
    }

    pub(super) async fn wait_for(&self, id: &str) -> Result<()> {
        loop {
            let operation = self.admin.call(&ApiRequest::get(format!("/v1/operations/{id}"))).await?;
            match operation["state"].as_str().unwrap_or_default() {
                "succeeded" => return Ok(()),
                "pending" | "running" => tokio::time::sleep(POLL_EACH).await,
                state => return Err(change_failed(&format!("the operation {id} is {state}"))),
            }
        }
    }

    fn selection(&self, side: Side) -> Value {
        json!({ "selection": { "names": [self.tenant(side)] }, "reason": "leak test" })
    }
}

#[async_trait]
impl FleetControl for FleetChanges {
    async fn back_up(&self, side: Side) -> Result<String> {
        self.run("/v1/backups", &self.selection(side)).await?;
        Ok("latest".to_owned())
    }

    async fn restore(&self, side: Side, backup: &str) -> Result<()> {
        self.run("/v1/restores", &json!({ "tenant": self.tenant(side), "to": backup, "reason": "leak test" })).await
    }

    async fn suspend(&self, side: Side) -> Result<()> {
        self.run("/v1/lifecycle/suspend", &self.selection(side)).await
    }

    async fn resume(&self, side: Side) -> Result<()> {
        self.run("/v1/lifecycle/resume", &self.selection(side)).await
    }

    async fn settle(&self) {
        tokio::time::sleep(ROUTERS_KNOW).await;
    }
}
