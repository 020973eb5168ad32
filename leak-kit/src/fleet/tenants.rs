//! Two tenants that exist only for one test.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fleet_client::ApiRequest;
use http::HeaderValue;
use http::header::AUTHORIZATION;
use serde_json::json;

use super::changes::{FleetAdmin, FleetChanges};
use crate::error::{KitError, Result};
use crate::webhooks::WebhookAccount;
use crate::world::{Side, TestTenant, World};

/// How long the creation of a tenant may take.
const CREATION_MAX: Duration = Duration::from_secs(60);

/// Two new tenants of a fleet, with a token for each.
pub struct FleetTenants {
    admin: Arc<dyn FleetAdmin>,
    names: [String; 2],
    tokens: [String; 2],
}

impl FleetTenants {
    /// Creates the tenants `leaktest-…-a` and `leaktest-…-b`. `label` makes their names unlike those of other tests. `server`
    /// is the database server for them; the control plane chooses one if it is `None`.
    ///
    /// # Errors
    /// `fleet_change_failed`.
    pub async fn create(admin: Arc<dyn FleetAdmin>, label: &str, server: Option<&str>) -> Result<Self> {
        let names = ["a", "b"].map(|letter| format!("leaktest-{label}-{letter}"));
        let mut tenants = Self { admin, names, tokens: Default::default() };
        for position in 0..2 {
            if let Err(error) = tenants.create_one(position, server).await {
                // Nothing half-made stays.
                let _ = tenants.remove().await;
                return Err(error);
            }
        }
        Ok(tenants)
    }

    async fn create_one(&mut self, position: usize, server: Option<&str>) -> Result<()> {
        let name = self.names[position].clone();
        let mut new = json!({ "name": name, "reason": "leak test", "labels": { "leaktest": "true" } });
        if let Some(server) = server {
            new["server"] = json!(server);
        }
        self.admin.call(&ApiRequest::post("/v1/tenants", &new)).await?;
        let waited = tokio::time::timeout(CREATION_MAX, self.wait_until_active(&name)).await;
        waited.map_err(|_| KitError::new("fleet_change_failed", format!("the tenant {name} is not created")))??;
        // Some applications keep at least one manager.
        let member = json!({ "principal": "leaktest-manager", "role": "manager" });
        self.admin.call(&ApiRequest::post(format!("/v1/tenants/{name}/members"), &member)).await?;
        let wanted = json!({ "tenant": name, "role": "manager", "label": "leak test" });
        let made = self.admin.call(&ApiRequest::post("/v1/tokens", &wanted)).await?;
        self.tokens[position] = made["secret"].as_str().unwrap_or_default().to_owned();
        Ok(())
    }

    async fn wait_until_active(&self, name: &str) -> Result<()> {
        loop {
            let tenant = self.admin.call(&ApiRequest::get(format!("/v1/tenants/{name}"))).await?;
            match tenant["state"].as_str().unwrap_or_default() {
                "active" => return Ok(()),
                "provisioning" => tokio::time::sleep(Duration::from_millis(50)).await,
                state => {
                    return Err(KitError::new("fleet_change_failed", format!("the tenant {name} is {state}")));
                }
            }
        }
    }

    /// Links an account of each tenant with a service that sends webhooks, with a secret of its own.
    ///
    /// # Errors
    /// `fleet_change_failed`.
    pub async fn link_accounts(&self, provider: &str) -> Result<[WebhookAccount; 2]> {
        let account_of = async |position: usize| {
            let (name, token) = (&self.names[position], &self.tokens[position]);
            // Nobody else knows the token, so nobody can guess the secret.
            let key = blake3::hash(token.as_bytes());
            let secret = STANDARD.encode(blake3::keyed_hash(key.as_bytes(), provider.as_bytes()).as_bytes());
            let account = format!("acct-{name}");
            let link = json!({ "provider": provider, "account": account, "secret": secret });
            self.admin.call(&ApiRequest::post(format!("/v1/tenants/{name}/accounts"), &link)).await?;
            Ok(WebhookAccount { account, secret })
        };
        Ok([account_of(0).await?, account_of(1).await?])
    }

    /// The world of these tenants.
    #[must_use]
    pub fn world(&self) -> World {
        let tenant = |side: Side| {
            let position = usize::from(side == Side::Second);
            let bearer = HeaderValue::from_str(&format!("Bearer {}", self.tokens[position]));
            let credential = bearer.into_iter().map(|mut value| {
                value.set_sensitive(true);
                (AUTHORIZATION, value)
            });
            TestTenant { name: self.names[position].clone(), credential: credential.collect() }
        };
        World::new(tenant(Side::First), tenant(Side::Second))
    }

    /// Names and tokens, for [`FleetDatabases`](super::FleetDatabases).
    #[must_use]
    pub fn credentials(&self) -> [(String, String); 2] {
        [0, 1].map(|position| (self.names[position].clone(), self.tokens[position].clone()))
    }

    /// Changes of the tenants between requests.
    #[must_use]
    pub fn changes(&self) -> FleetChanges {
        FleetChanges::new(Arc::clone(&self.admin), self.names.clone())
    }

    /// Deletes and purges the tenants.
    ///
    /// # Errors
    /// `fleet_change_failed`.
    pub async fn remove(&self) -> Result<()> {
        let changes = self.changes();
        for name in &self.names {
            let delete = ApiRequest::delete(format!("/v1/tenants/{name}")).with_query("no_backup", "true");
            let delete = delete.with_query("reason", "leak test");
            match self.admin.call(&delete).await {
                Ok(operation) => changes.wait_for(operation["id"].as_str().unwrap_or_default()).await?,
                Err(error) if error.to_string().contains("not exist") => continue,
                Err(error) => return Err(error),
            }
            let purge = json!({ "selection": { "names": [name] }, "reason": "leak test" });
            changes.run("/v1/lifecycle/purge", &purge).await?;
        }
        Ok(())
    }
}
