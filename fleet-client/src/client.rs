//! The client: one method per call that an application needs.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use fleet_api::field;
use fleet_api::members::{MemberListQuery, MemberView, NewMember};
use fleet_api::pages::PageOf;
use fleet_api::tenants::{NewTenantRequest, TenantCreated, TenantView};
use fleet_api::tokens::{TokenFilters, TokenView, TokenWanted};
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;

use crate::change::{MintedToken, PendingChange};
use crate::error::{Error, ErrorKind, IN_PROGRESS, Result};
use crate::request::{ApiRequest, path_segment};
use crate::transport::{HttpTransport, READ_TIMEOUT};

/// How long a repeated request waits for the end of its first attempt. A change without an operation takes far less.
const FIRST_ATTEMPT_MAX: Duration = Duration::from_secs(10);
/// Items in one page of a list: the API's maximum.
const ITEMS_PER_PAGE: &str = "1000";
/// The pause between two requests that wait for the same event.
pub(crate) const PAUSE: Duration = Duration::from_millis(200);

/// A client of one control plane's admin API; cheap to clone.
///
/// Every method may return the errors of its route, and `unreachable`, `other_program` and `unexpected_answer`.
#[derive(Debug, Clone)]
pub struct FleetClient {
    transport: HttpTransport,
    /// The longest long poll, which must end before the transport gives up the connection.
    pub(crate) poll_max: Duration,
}

/// Builds a [`FleetClient`]; see [`FleetClient::builder`].
#[derive(Debug)]
pub struct FleetClientBuilder {
    url: String,
    token: SecretString,
    ca_file: Option<PathBuf>,
    timeout: Duration,
}

impl FleetClientBuilder {
    /// A file with further certificates to trust, as PEM. [`FleetClientBuilder::build`] reads it.
    #[must_use]
    pub fn ca_file(self, path: impl Into<PathBuf>) -> Self {
        Self { ca_file: Some(path.into()), ..self }
    }

    /// How long the client waits for the next bytes of an answer. Default: 90 seconds. The control plane holds back the
    /// answer to a long poll for at most two thirds of this time.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// The client. Nothing is sent.
    ///
    /// # Errors
    /// `invalid_address` for another address or token; `setup_failed` when the certificates cannot be read.
    pub fn build(self) -> Result<FleetClient> {
        check_address(&self.url)?;
        check_token(&self.token)?;
        let read = |path: PathBuf| {
            std::fs::read(&path).map_err(|e| {
                let detail = format!("cannot read the certificates in {}", path.display());
                Error::new(ErrorKind::SetupFailed, detail).with_cause(e).try_next("check the path and its permissions")
            })
        };
        let ca = self.ca_file.map(read).transpose()?;
        let transport = HttpTransport::over_address(&self.url, self.token, ca.as_deref(), Some(self.timeout))?;
        Ok(FleetClient { transport, poll_max: self.timeout * 2 / 3 })
    }
}

impl FleetClient {
    /// A client for the admin API at this address, for instance `https://fleet.example.org:8081`, with an operator's
    /// token.
    ///
    /// # Errors
    /// As [`FleetClientBuilder::build`].
    pub fn new(url: impl Into<String>, token: impl Into<SecretString>) -> Result<Self> {
        Self::builder(url, token).build()
    }

    /// As [`FleetClient::new`], with further settings.
    pub fn builder(url: impl Into<String>, token: impl Into<SecretString>) -> FleetClientBuilder {
        FleetClientBuilder { url: url.into(), token: token.into(), ca_file: None, timeout: READ_TIMEOUT }
    }

    /// Starts to create a tenant. The answer names the operation that creates it; see
    /// [`FleetClient::wait_for_operation`].
    ///
    /// The answer is an error with `already_exists` when the name belongs or belonged to a tenant, and `invalid` for a
    /// dry run.
    pub fn create_tenant(&self, new: &NewTenantRequest) -> PendingChange<'_, TenantCreated> {
        let request = refuse_dry_run(new.dry_run).map(|()| ApiRequest::post("/v1/tenants", new));
        PendingChange::new(self, request)
    }

    /// The tenant with this name or id, in any state.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn get_tenant(&self, name_or_id: &str) -> Result<TenantView> {
        self.send(&ApiRequest::get(tenant_path(name_or_id)?)).await
    }

    /// Adds a member to the tenant, or changes the member's role: `reader`, `writer` or `manager`. The principal is the
    /// application's own name for a person or program.
    pub fn add_member(&self, tenant: &str, principal: &str, role: &str) -> PendingChange<'_, MemberView> {
        let new = NewMember { principal: principal.to_owned(), role: role.to_owned(), ..NewMember::default() };
        let path = tenant_path(tenant).map(|path| format!("{path}/members"));
        PendingChange::new(self, path.map(|path| ApiRequest::post(path, &new)))
    }

    /// One page of the tenant's members, at most 1,000, ordered by principal. `cursor` is the `next_cursor` of the page
    /// before it.
    ///
    /// # Errors
    /// `not_found` for the tenant.
    pub async fn list_members(&self, tenant: &str, cursor: Option<&str>) -> Result<PageOf<MemberView>> {
        let request = ApiRequest::get(format!("{}/members", tenant_path(tenant)?));
        let request = request.with_query(field!(MemberListQuery: limit), ITEMS_PER_PAGE);
        self.send(&match cursor {
            Some(cursor) => request.with_query(field!(MemberListQuery: cursor), cursor),
            None => request,
        })
        .await
    }

    /// Removes a member from the tenant. Tokens of the member no longer open this tenant.
    ///
    /// # Errors
    /// `not_found` when the tenant has no such member. A repeated call has this answer, too.
    pub async fn remove_member(&self, tenant: &str, principal: &str) -> Result<()> {
        let path = format!("{}/members/{}", tenant_path(tenant)?, path_segment(principal)?);
        self.transport.send_request(&ApiRequest::delete(path)).await?.require_success().await.map(drop)
    }

    /// Creates a token. Only this answer contains its secret.
    ///
    /// The answer is an error with `invalid` for a dry run.
    pub fn create_token(&self, wanted: &TokenWanted) -> PendingChange<'_, MintedToken> {
        let request = refuse_dry_run(wanted.dry_run).map(|()| ApiRequest::post("/v1/tokens", wanted));
        PendingChange::new(self, request)
    }

    /// One page of the tokens that are limited to this tenant and act as this principal, at most 1,000, including revoked
    /// ones. `cursor` is the `next_cursor` of the page before it.
    ///
    /// # Errors
    /// `not_found` for the tenant.
    pub async fn list_member_tokens(
        &self,
        tenant: &str,
        principal: &str,
        cursor: Option<&str>,
    ) -> Result<PageOf<TokenView>> {
        let request = ApiRequest::get("/v1/tokens").with_query(field!(TokenFilters: tenant), tenant);
        let request = request.with_query(field!(TokenFilters: principal), principal);
        let request = request.with_query(field!(TokenFilters: limit), ITEMS_PER_PAGE);
        self.send(&match cursor {
            Some(cursor) => request.with_query(field!(TokenFilters: cursor), cursor),
            None => request,
        })
        .await
    }

    /// Revokes a token. A repeated call changes nothing.
    ///
    /// # Errors
    /// `not_found` when no token has this id.
    pub async fn revoke_token(&self, id: &str) -> Result<TokenView> {
        self.send(&ApiRequest::delete(format!("/v1/tokens/{}", path_segment(id)?))).await
    }

    /// Sends a request of the admin API that has no method here, and reads the answer as `A`. Waits while an earlier attempt
    /// with the same idempotency key is running.
    ///
    /// # Errors
    /// The API's problem; `unexpected_answer` when the answer is not an `A`.
    pub async fn send<A: DeserializeOwned>(&self, request: &ApiRequest) -> Result<A> {
        let give_up = Instant::now() + FIRST_ATTEMPT_MAX;
        loop {
            let answer = self.transport.send_request(request).await?.require_success().await;
            match answer {
                Err(error) if error.code() == IN_PROGRESS && Instant::now() < give_up => {
                    tokio::time::sleep(PAUSE).await;
                }
                answer => return answer?.read_as().await,
            }
        }
    }
}

pub(crate) fn tenant_path(name_or_id: &str) -> Result<String> {
    Ok(format!("/v1/tenants/{}", path_segment(name_or_id)?))
}

/// The answer to a dry run has another type.
fn refuse_dry_run(dry_run: bool) -> Result<()> {
    if dry_run {
        let error = Error::new(ErrorKind::Invalid, "dry_run: this client makes changes and does not plan them");
        return Err(error.try_next("use `fleetctl … --dry-run` for a plan"));
    }
    Ok(())
}

fn check_address(url: &str) -> Result<()> {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://")).unwrap_or_default();
    let is_base = !rest.is_empty() && !rest.contains(['@', '?', '#']) && !rest.split('/').any(|part| part == "v1");
    if is_base {
        return Ok(());
    }
    let detail = "the address of a control plane looks like https://host:port, without user, query or /v1";
    Err(Error::new(ErrorKind::InvalidAddress, detail).try_next("use the admin address that `fleetctl serve` prints"))
}

fn check_token(token: &SecretString) -> Result<()> {
    let token = token.expose_secret();
    if !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic()) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::InvalidAddress, "the token is empty, or has spaces or line ends in it")
        .try_next("fleetctl token create --operator admin      # the secret is printed once"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_the_base_of_the_api() {
        for good in ["http://127.0.0.1:8081", "https://fleet.example.org/base/"] {
            assert!(check_address(good).is_ok(), "{good}");
        }
        for wrong in ["", "localhost:8081", "ftp://x", "http://", "https://u:p@host", "http://x/?a=b", "http://x/v1/"] {
            assert_eq!(check_address(wrong).unwrap_err().code(), "invalid_address", "{wrong}");
        }
        for wrong in ["", "flt_x\n"] {
            assert!(FleetClient::new("http://x", wrong).is_err(), "{wrong:?}");
        }
    }

    #[tokio::test]
    async fn a_dry_run_is_refused_before_it_is_sent() {
        let client = FleetClient::new("http://127.0.0.1:1", "t").unwrap();
        let new = NewTenantRequest { dry_run: true, ..NewTenantRequest::default() };
        assert_eq!(client.create_tenant(&new).await.unwrap_err().code(), "invalid");
    }
}
