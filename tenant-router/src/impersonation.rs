//! Impersonation: an operator sees what a member of a tenant sees.
//!
//! The control plane makes a ticket for a stated reason. The application exchanges it, once and within a minute, for a session
//! with the rights of the member. The log, the audit log and the principal of each request name the operator.

use std::fmt;
use std::time::Duration;

use catalog::events::{self, NewEvent};
use catalog::tokens::{self, Impersonation, TokenScope};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;

use crate::error::{ErrorKind, Result};
use crate::key::RequestView;
use crate::router::Router;

/// How long a session lasts.
const SESSION_MAX: Duration = Duration::from_secs(30 * 60);

/// A session of an operator who acts as a member. Its secret is a credential, for instance in a cookie.
pub struct ImpersonationSession {
    /// The member.
    pub principal: String,
    /// The operator, as the audit log names it.
    pub staff: String,
    /// The credential of the session.
    pub secret: SecretString,
    /// The end of the session, milliseconds since 1970.
    pub ends_at: i64,
}

impl fmt::Debug for ImpersonationSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImpersonationSession").field("principal", &self.principal).finish_non_exhaustive()
    }
}

impl Router {
    /// Exchanges a ticket of `fleetctl tenant impersonate` for a session of half an hour. The request names the tenant by path
    /// or host. A ticket is exchanged once.
    ///
    /// # Errors
    /// `Unauthenticated` when the ticket is not of this tenant, is over, or was exchanged before; `CatalogUnavailable`.
    pub async fn start_impersonation(&self, request: &RequestView<'_>, ticket: &str) -> Result<ImpersonationSession> {
        self.require_ready().await?;
        let catalog = &self.inner.catalog;
        // Read first: a stranger's text must neither lock the catalog nor tell which tenants exist.
        let known = tokens::by_secret(&mut catalog.read().await?, ticket).await?.map(|token| token.scope);
        if !matches!(known, Some(TokenScope::ImpersonationTicket(_))) {
            return Err(ErrorKind::Unauthenticated.into());
        }
        let tenant = self.named_tenant(request).await?.ok_or(ErrorKind::Unauthenticated)?;
        let session_ms = i64::try_from(SESSION_MAX.as_millis()).unwrap_or(i64::MAX);
        let ends_at = catalog.now().saturating_add(session_ms);
        let mut tx = catalog.write().await?;
        let redeemed = tokens::redeem_ticket(&mut tx, ticket, tenant, ends_at).await?;
        let (session, of, secret) = redeemed.ok_or(ErrorKind::Unauthenticated)?;
        let data = json!({ "on_behalf_of": of.principal, "token": session.id, "ends_at": ends_at });
        events::append_events(&mut tx, &[staff_event("impersonation.started", &of, data)]).await?;
        tx.commit().await?;
        Ok(ImpersonationSession { principal: of.principal, staff: of.staff, secret, ends_at })
    }

    /// Ends the session of an operator who acts as a member. Repeating it changes nothing.
    ///
    /// # Errors
    /// `Unauthenticated` when the credential is not such a session; `CatalogUnavailable`.
    pub async fn end_impersonation(&self, credential: &SecretString) -> Result<()> {
        let catalog = &self.inner.catalog;
        // Read first: a stranger's text must not lock the catalog.
        let known = tokens::by_secret(&mut catalog.read().await?, credential.expose_secret()).await?;
        let session = known.ok_or(ErrorKind::Unauthenticated)?;
        let TokenScope::Impersonation(of) = session.scope else {
            return Err(ErrorKind::Unauthenticated.into());
        };
        if session.revoked_at.is_some() {
            return Ok(());
        }
        let mut tx = catalog.write().await?;
        tokens::revoke_token(&mut tx, session.id).await?;
        let data = json!({ "on_behalf_of": of.principal, "token": session.id });
        events::append_events(&mut tx, &[staff_event("impersonation.ended", &of, data)]).await?;
        tx.commit().await?;
        Ok(())
    }
}

fn staff_event(kind: &str, of: &Impersonation, data: serde_json::Value) -> NewEvent {
    NewEvent {
        kind: kind.to_owned(),
        actor: of.staff.clone(),
        tenant_id: Some(of.tenant),
        op_id: None,
        request_id: None,
        data,
    }
}
