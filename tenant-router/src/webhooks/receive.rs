//! [`Router::receive_webhook`]: from a webhook to the tenant's database, if its signature is right.

use std::fmt;
use std::sync::Arc;

use catalog::external_accounts::{self, AccountOwner};
use catalog::members::Role;
use secrecy::SecretString;
use tenant_engine::{SqlStatement, SqlValue};

use super::provider::{AccountSource, WebhookProvider};
use super::signature::{json_field, prove_webhook};
use crate::error::{Error, ErrorKind, Result};
use crate::principal::Principal;
use crate::router::Router;
use crate::tenant::{Tenant, Write};
use crate::transaction::WriteTx;

const RECEIVE: &str = "insert into _fleet_received (provider, account, event_id, received_at) \
     values (cast($1 as text), cast($2 as text), cast($3 as text), cast($4 as bigint)) on conflict do nothing";
const FORGET: &str = "delete from _fleet_received where received_at < $1";
/// How long the ids of events are remembered. Services repeat a delivery for some days.
const REMEMBERED_MS: i64 = 90 * 24 * 3_600_000;

/// The headers of a request, by their names in lower case.
pub trait WebhookHeaders: Sync {
    /// The value of the only header with this name. `None` when it is missing, present twice, or not text.
    fn header(&self, name: &str) -> Option<&str>;
}

impl WebhookHeaders for &[(&str, &str)] {
    fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        values.next().filter(|_| values.next().is_none()).map(|(_, value)| *value)
    }
}

/// A webhook whose signature is right, and the tenant that its account is linked to.
pub struct ReceivedWebhook {
    tenant: Tenant<Write>,
    provider: String,
    account: String,
    event_id: String,
}

impl ReceivedWebhook {
    /// The tenant of the account. The webhook opens no other.
    #[must_use]
    pub fn tenant(&self) -> &Tenant<Write> {
        &self.tenant
    }

    /// The account, as `tenant account link` names it.
    #[must_use]
    pub fn account(&self) -> &str {
        &self.account
    }

    /// The id of the event: equal for every delivery of it.
    #[must_use]
    pub fn event_id(&self) -> &str {
        &self.event_id
    }

    /// Records the event in the transaction that it changes. False when it was recorded before: then change nothing, and answer
    /// the service with a success.
    ///
    /// # Errors
    /// As [`WriteTx::execute`].
    pub async fn accept(&self, tx: &mut WriteTx<'_, Write>) -> Result<bool> {
        let now = self.tenant.router.inner.catalog.now();
        let forget = SqlStatement { sql: FORGET.to_owned(), params: vec![SqlValue::Integer(now - REMEMBERED_MS)] };
        tx.run_own(forget).await?;
        let [provider, account, event] =
            [&self.provider, &self.account, &self.event_id].map(|text| SqlValue::Text(text.clone()));
        let params = vec![provider, account, event, SqlValue::Integer(now)];
        let inserted = tx.run_own(SqlStatement { sql: RECEIVE.to_owned(), params }).await?;
        Ok(inserted.rows_affected > 0)
    }
}

impl fmt::Debug for ReceivedWebhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceivedWebhook")
            .field("tenant", &self.tenant.id())
            .field("provider", &self.provider)
            .field("account", &self.account)
            .field("event_id", &self.event_id)
            .finish_non_exhaustive()
    }
}

impl Router {
    /// Proves a webhook by its signature and opens the tenant of its account. `account` is the account in the request's path,
    /// for [`AccountSource::Path`]; `body` is the raw body, before anything has read or changed it.
    ///
    /// # Errors
    /// `WebhookRefused` when the signature, the time or the account is wrong, in each case alike; otherwise as [`Router::open`],
    /// for instance for a suspended tenant. The service then tries again later.
    pub async fn receive_webhook(
        &self,
        provider: &WebhookProvider,
        account: Option<&str>,
        headers: &dyn WebhookHeaders,
        body: &[u8],
    ) -> Result<ReceivedWebhook> {
        let proven = match &provider.accounts {
            AccountSource::Path => self.prove_by_account(provider, account, headers, body).await,
            AccountSource::SignedField { pointer, secrets } => {
                self.prove_by_field(provider, (pointer, secrets), account, headers, body).await
            }
        };
        let (owner, account, event_id) = proven?;
        let principal = Principal::of_tenant(format!("webhook:{}", provider.name), owner.tenant, Role::Writer);
        let tenant = self.open_id(Arc::new(principal), owner.tenant).await?;
        Ok(ReceivedWebhook { tenant, provider: provider.name.clone(), account, event_id })
    }

    /// The account's own secret must have signed the webhook.
    async fn prove_by_account(
        &self,
        provider: &WebhookProvider,
        account: Option<&str>,
        headers: &dyn WebhookHeaders,
        body: &[u8],
    ) -> Result<(AccountOwner, String, String)> {
        let account = account.ok_or_else(|| misused("the path does not name the account"))?;
        let owner = self.account_owner(provider, account).await?;
        let secret = owner.as_ref().and_then(|owner| owner.secret.clone());
        // An unknown account costs the time of a known one.
        let secrets = [secret.unwrap_or_else(unknown_secret)];
        let proven = prove_webhook(provider.scheme, &secrets, headers, body, self.webhook_time(provider));
        match (owner, proven) {
            (Some(owner), Some(proven)) => Ok((owner, account.to_owned(), proven.event_id)),
            _ => Err(refused(provider)),
        }
    }

    /// The provider's secret must have signed the webhook, whose body names the account.
    async fn prove_by_field(
        &self,
        provider: &WebhookProvider,
        (pointer, secrets): (&str, &[SecretString]),
        account: Option<&str>,
        headers: &dyn WebhookHeaders,
        body: &[u8],
    ) -> Result<(AccountOwner, String, String)> {
        let proven = prove_webhook(provider.scheme, secrets, headers, body, self.webhook_time(provider));
        let proven = proven.ok_or_else(|| refused(provider))?;
        let named = json_field(body, pointer).ok_or_else(|| refused(provider))?;
        if account.is_some_and(|account| account != named) {
            return Err(refused(provider));
        }
        // An account with a secret of its own is not the provider's to speak for.
        let owner = self.account_owner(provider, &named).await?.filter(|owner| owner.secret.is_none());
        Ok((owner.ok_or_else(|| refused(provider))?, named, proven.event_id))
    }

    async fn account_owner(&self, provider: &WebhookProvider, account: &str) -> Result<Option<AccountOwner>> {
        self.require_ready().await?;
        let mut tx = self.inner.catalog.read().await?;
        Ok(external_accounts::account_owner(&mut tx, &provider.name, account).await?)
    }

    fn webhook_time(&self, provider: &WebhookProvider) -> (i64, std::time::Duration) {
        (self.inner.catalog.now(), provider.tolerance)
    }
}

/// A secret that nobody knows, in the form of every scheme.
fn unknown_secret() -> SecretString {
    use base64::Engine as _;
    let mut bytes = uuid::Uuid::new_v4().into_bytes().to_vec();
    bytes.extend_from_slice(uuid::Uuid::new_v4().as_bytes());
    base64::engine::general_purpose::STANDARD.encode(bytes).into()
}

fn refused(provider: &WebhookProvider) -> Error {
    tracing::debug!(provider = provider.name, "a webhook was refused: wrong signature, time or account");
    ErrorKind::WebhookRefused.into()
}

fn misused(why: &'static str) -> Error {
    Error::new(ErrorKind::Misconfigured).with_source(why)
}
