//! Signs up a customer: tenant, first member and token, in an order that can be repeated from the start.
//!
//! Each step has an idempotency key that is derived from the caller's key. The control plane stores the answer to a key
//! for 24 hours. The tenant also carries the caller's key as a label. So a later call, or a call with another token of the
//! admin API, still finds its own tenant and does not take another customer's.
//!
//! A second label says that the member was added. It is set before the token is created. So a call that is repeated much
//! later does not bring back a member who was removed since, nor a role that was changed since.

use std::collections::BTreeMap;
use std::time::Duration;

use fleet_api::members::MemberView;
use fleet_api::tenants::{NewTenantRequest, TenantPatch, TenantView};
use fleet_api::tokens::TokenWanted;
use jiff::Timestamp;

use crate::change::MintedToken;
use crate::client::{FleetClient, tenant_path};
use crate::error::{Error, ErrorKind, Result};
use crate::request::ApiRequest;
use crate::wait::require_active;

/// The label of a tenant that holds the key of its sign-up.
pub const SIGN_UP_LABEL: &str = "sign-up";
/// The label of a tenant whose sign-up has added the first member.
pub const SIGNED_UP_LABEL: &str = "signed-up";
/// Maximum length of a sign-up's key in bytes: the derived keys and the label must have room for it.
const KEY_BYTES_MAX: usize = 200;
/// The default of [`SignUp::wait_max`]. A tenant is created in much less.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// The sign-up of one customer.
#[derive(Debug, Clone)]
pub struct SignUp {
    /// Key of the sign-up, which the application stores before the first call: 1 to 200 printable ASCII characters. It is
    /// visible in the tenant's label `sign-up`, so it must not be a secret.
    pub key: String,
    /// The tenant to create.
    pub tenant: NewTenantRequest,
    /// The first member: the application's own name for a person or program.
    pub member: String,
    /// Role of the member: `reader`, `writer` or `manager`.
    pub role: String,
    /// How long the token is valid, counted from the creation of the tenant. Default: without end.
    pub token_lifetime: Option<Duration>,
    /// Maximum time to wait until the tenant is active. Default: 60 seconds.
    pub wait_max: Duration,
}

impl Default for SignUp {
    fn default() -> Self {
        Self {
            key: String::new(),
            tenant: NewTenantRequest::default(),
            member: String::new(),
            role: String::new(),
            token_lifetime: None,
            wait_max: WAIT_MAX,
        }
    }
}

/// A customer who is signed up.
#[derive(Debug, Clone)]
pub struct SignedUp {
    /// The active tenant.
    pub tenant: TenantView,
    /// The first member.
    pub member: MemberView,
    /// A token of the member. It gives access to this tenant, while the principal is a member.
    pub token: MintedToken,
}

impl FleetClient {
    /// Creates the tenant, waits until it is active, adds the first member and creates a token of the member. Needs an
    /// operator's token with the role `admin`.
    ///
    /// After an error or a crash, the same call continues where the last one ended, and never creates a second tenant.
    /// Within 24 hours a repeated call returns the same token, later a new one. A finished sign-up changes no member: a
    /// role that was changed since stays.
    ///
    /// # Errors
    /// `already_exists` when the name belongs or belonged to the tenant of another sign-up; `idempotency_key_reused` when
    /// the key was used for other values; `sign_up_over` when the sign-up was finished, and its member was removed since
    /// or the lifetime of its token is over; `invalid`; and the errors of [`FleetClient::wait_for_tenant`].
    pub async fn sign_up(&self, wanted: &SignUp) -> Result<SignedUp> {
        let tenant = self.own_tenant(wanted).await?;
        let member = match tenant.labels.contains_key(SIGNED_UP_LABEL) {
            true => self.member_of(&tenant, &wanted.member).await?,
            false => self.add_first_member(&tenant, wanted).await?,
        };
        let token = TokenWanted {
            tenant: Some(tenant.id.clone()),
            member: Some(wanted.member.clone()),
            expires_at: token_end(&tenant, wanted.token_lifetime)?,
            ..TokenWanted::default()
        };
        let token = self.create_token(&token).idempotency_key(&step_key(wanted, "token")).await?;
        Ok(SignedUp { tenant, member, token })
    }

    async fn add_first_member(&self, tenant: &TenantView, wanted: &SignUp) -> Result<MemberView> {
        let member = self.add_member(&tenant.id, &wanted.member, &wanted.role);
        let member = member.idempotency_key(&step_key(wanted, "member")).await?;
        let labels = BTreeMap::from([(SIGNED_UP_LABEL.to_owned(), Some("yes".to_owned()))]);
        let patch = TenantPatch { labels, ..TenantPatch::default() };
        self.send::<TenantView>(&ApiRequest::patch(tenant_path(&tenant.id)?, &patch).repeatable()).await?;
        Ok(member)
    }

    /// The first member of a finished sign-up.
    async fn member_of(&self, tenant: &TenantView, principal: &str) -> Result<MemberView> {
        let mut page = self.list_members(&tenant.id, None).await?;
        loop {
            if let Some(member) = page.items.into_iter().find(|member| member.principal == principal) {
                return Ok(member);
            }
            let Some(cursor) = page.next_cursor else {
                return Err(sign_up_over("its first member was removed since"));
            };
            page = self.list_members(&tenant.id, Some(&cursor)).await?;
        }
    }

    /// The active tenant of this sign-up: created now, or by an earlier call.
    async fn own_tenant(&self, wanted: &SignUp) -> Result<TenantView> {
        let new = labelled_tenant(wanted)?;
        match self.create_tenant(&new).idempotency_key(&step_key(wanted, "tenant")).await {
            Ok(created) => {
                self.wait_for_operation(&created.operation.id, wanted.wait_max).await?;
                require_active(self.get_tenant(&created.tenant.id).await?)
            }
            Err(error) if error.code() == "already_exists" => match self.get_tenant(&new.name).await {
                Ok(found) if found.labels.get(SIGN_UP_LABEL) == Some(&wanted.key) => {
                    self.wait_for_tenant(&found.id, wanted.wait_max).await
                }
                Err(unread) if unread.is_transient() => Err(unread),
                _ => Err(error),
            },
            Err(error) => Err(error),
        }
    }
}

/// The idempotency key of one step of the sign-up.
fn step_key(wanted: &SignUp, step: &str) -> String {
    format!("{}/{step}", wanted.key)
}

/// The end of the token's lifetime. It depends on nothing but the tenant, because a repeated step must be the same step.
fn token_end(tenant: &TenantView, lifetime: Option<Duration>) -> Result<Option<String>> {
    let Some(lifetime) = lifetime else { return Ok(None) };
    let created_at: Timestamp = tenant.created_at.parse().map_err(|error| {
        Error::unexpected_answer(format!("the tenant's time of creation is {:?}", tenant.created_at)).with_cause(error)
    })?;
    let end = created_at
        .checked_add(lifetime)
        .map_err(|error| Error::new(ErrorKind::Invalid, "the lifetime of the token is too long").with_cause(error))?;
    match end > Timestamp::now() {
        true => Ok(Some(end.to_string())),
        false => Err(sign_up_over("the lifetime of its token is over")),
    }
}

fn sign_up_over(cause: &str) -> Error {
    let error = Error::new(ErrorKind::SignUpOver, format!("the sign-up was finished, and {cause}"));
    error.try_next("let a manager of the tenant add the person, and create a token")
}

/// The tenant with the label that says which sign-up it belongs to.
fn labelled_tenant(wanted: &SignUp) -> Result<NewTenantRequest> {
    let key = &wanted.key;
    if !(1..=KEY_BYTES_MAX).contains(&key.len()) || !key.bytes().all(|b| b.is_ascii_graphic() || b == b' ') {
        let detail = format!("the key of a sign-up has 1 to {KEY_BYTES_MAX} printable ASCII characters");
        return Err(Error::new(ErrorKind::Invalid, detail).try_next("use the id of the customer's order or account"));
    }
    let mut tenant = wanted.tenant.clone();
    let taken = [SIGN_UP_LABEL, SIGNED_UP_LABEL].into_iter().find(|label| tenant.labels.contains_key(*label));
    if let Some(label) = taken {
        let detail = format!("the label '{label}' belongs to the sign-up itself");
        return Err(Error::new(ErrorKind::Invalid, detail).try_next("give the label another name"));
    }
    tenant.labels.insert(SIGN_UP_LABEL.to_owned(), key.clone());
    Ok(tenant)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sign_up_has_a_key_that_fits_and_its_own_label() {
        let keyed = |key: &str| SignUp { key: key.to_owned(), ..SignUp::default() };
        let tenant = labelled_tenant(&keyed("order-4711")).unwrap();
        assert_eq!(tenant.labels[SIGN_UP_LABEL], "order-4711");
        for wrong in ["", "a\nb", "é", &"x".repeat(201)] {
            assert_eq!(labelled_tenant(&keyed(wrong)).unwrap_err().code(), "invalid");
        }
        assert_eq!(labelled_tenant(&SignUp { tenant, ..keyed("k") }).unwrap_err().code(), "invalid");
    }
}
