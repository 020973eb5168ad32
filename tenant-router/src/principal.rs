//! Who asks. The router turns a credential into a [`Principal`] before it looks at any tenant.
//!
//! Called by `router.rs`; calls the catalog's tokens, or the application's own [`Authenticate`]. Decides nothing about
//! tenants, and never keeps a secret: the cache knows hashes.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_lc_rs::digest::{SHA256, digest};
use catalog::members::Role;
use catalog::tokens::{self, OperatorRole, TokenRecord, TokenScope};
use catalog::{Catalog, TenantId};

use crate::error::{ErrorKind, Result};
use crate::memo::{Epoch, Memo, TenantMark};

/// Who asks, proven. The application makes one only after it has checked a credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    name: String,
    kind: PrincipalKind,
    expires_at: Option<i64>,
}

/// What a principal may open, before any tenant is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PrincipalKind {
    /// One tenant, with this role.
    Tenant {
        /// The only one.
        tenant: TenantId,
        /// In it.
        role: Role,
    },
    /// Every tenant it is a member of, with its role there.
    Member,
    /// Every tenant, with this role; may name the tenant by header.
    Service {
        /// In each.
        role: Role,
    },
    /// The admin API; no tenant's data.
    Operator {
        /// There.
        role: OperatorRole,
    },
}

impl Principal {
    /// Somebody whose memberships decide.
    #[must_use]
    pub fn member(name: impl Into<String>) -> Self {
        Self { name: name.into(), kind: PrincipalKind::Member, expires_at: None }
    }

    /// Somebody who may enter one tenant, whoever its members are.
    #[must_use]
    pub fn of_tenant(name: impl Into<String>, tenant: TenantId, role: Role) -> Self {
        Self { name: name.into(), kind: PrincipalKind::Tenant { tenant, role }, expires_at: None }
    }

    /// A program of the operator's own that acts in every tenant.
    #[must_use]
    pub fn service(name: impl Into<String>, role: Role) -> Self {
        Self { name: name.into(), kind: PrincipalKind::Service { role }, expires_at: None }
    }

    /// An operator: known, but in no tenant.
    #[must_use]
    pub fn operator(name: impl Into<String>, role: OperatorRole) -> Self {
        Self { name: name.into(), kind: PrincipalKind::Operator { role }, expires_at: None }
    }

    /// The same, refused from `at` on (milliseconds since 1970), however long it was cached.
    #[must_use]
    pub fn expiring_at(mut self, at: i64) -> Self {
        self.expires_at = Some(at);
        self
    }

    /// The member's principal, or `token:<id>`. For logs and audit; not a secret.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// See [`PrincipalKind`].
    #[must_use]
    pub fn kind(&self) -> PrincipalKind {
        self.kind
    }

    /// False from the moment the credential expires. `now` in milliseconds since 1970.
    #[must_use]
    pub fn is_valid_at(&self, now: i64) -> bool {
        self.expires_at.is_none_or(|end| now < end)
    }

    /// The tenant its credential claims, if it can enter only one.
    pub(crate) fn claimed_tenant(&self) -> Option<TenantId> {
        match self.kind {
            PrincipalKind::Tenant { tenant, .. } => Some(tenant),
            _ => None,
        }
    }
}

/// The application's own way to prove who asks: sessions, JWTs, an identity provider.
///
/// The router caches the answer by a hash of the credential for at most [`PRINCIPAL_AGE_MAX`].
#[async_trait]
pub trait Authenticate: Send + Sync + 'static {
    /// The principal this credential proves, `None` when it proves nothing.
    ///
    /// # Errors
    /// When it cannot be told now; the request fails with 503.
    async fn authenticate(&self, credential: &str) -> Result<Option<Principal>>;
}

/// How long an answer about a credential may be used. Revoked tokens are dropped by the change feed long before; this
/// bounds the harm while the feed cannot be read, and how late an application's own revocation is noticed.
pub const PRINCIPAL_AGE_MAX: Duration = Duration::from_secs(5);

/// SHA-256 of a credential: what caches are keyed by, so that no secret rests in memory.
type CredentialHash = [u8; 32];

/// How many credentials are remembered: 10,000 active callers take about 3 MB.
const PRINCIPALS_MAX: u64 = 10_000;

/// Proves principals and remembers them for a while.
pub(crate) struct Principals {
    source: Source,
    epoch: Epoch,
    known: Memo<CredentialHash, Proven>,
}

/// What a credential proved.
#[derive(Debug, Clone)]
enum Proven {
    /// Nothing, when so many changes had been heard of: any of them may have made the credential.
    Nothing(u64),
    /// A principal of one tenant, whose changes may end it. Without a mark when something changed during the look-up.
    OfTenant(Arc<Principal>, TenantId, Option<TenantMark>),
    /// A principal of the whole fleet, when everything had been forgotten so often: what ends one makes everything forgotten.
    OfFleet(Arc<Principal>, u64),
}

/// Where principals come from.
pub(crate) enum Source {
    /// API tokens of the catalog.
    Tokens(Catalog),
    /// The application.
    Application(Arc<dyn Authenticate>),
}

impl Principals {
    pub(crate) fn new(source: Source, epoch: &Epoch) -> Self {
        Self { source, epoch: epoch.clone(), known: Memo::new(epoch, PRINCIPALS_MAX, PRINCIPAL_AGE_MAX) }
    }

    /// Whom a credential proves; nobody at all is [`ErrorKind::Unauthenticated`].
    pub(crate) async fn of(&self, credential: Option<&str>, now: i64) -> Result<Arc<Principal>> {
        let credential = credential.ok_or(ErrorKind::Unauthenticated)?;
        let hash = hash(credential);
        let mut proven = self.known.get_or(hash, || self.prove(credential)).await?;
        if !self.is_current(&proven) {
            self.known.forget(&hash).await;
            proven = self.known.get_or(hash, || self.prove(credential)).await?;
        }
        let known = match proven {
            Proven::Nothing(_) => None,
            Proven::OfTenant(principal, ..) | Proven::OfFleet(principal, _) => Some(principal),
        };
        known.filter(|principal| principal.is_valid_at(now)).ok_or_else(|| ErrorKind::Unauthenticated.into())
    }

    fn is_current(&self, proven: &Proven) -> bool {
        match proven {
            Proven::Nothing(changes) => self.epoch.is_still(*changes),
            Proven::OfTenant(_, tenant, mark) => *mark == Some(self.epoch.mark(*tenant)),
            Proven::OfFleet(_, everything) => self.epoch.everything() == *everything,
        }
    }

    /// Forgets every credential.
    pub(crate) fn forget_all(&self) {
        self.known.forget_all();
    }

    async fn prove(&self, credential: &str) -> Result<Proven> {
        let (before, everything) = (self.epoch.now(), self.epoch.everything());
        let principal = match &self.source {
            Source::Tokens(catalog) => {
                tokens::by_secret(&mut catalog.read().await?, credential).await?.and_then(from_token)
            }
            Source::Application(application) => application.authenticate(credential).await?,
        };
        let Some(principal) = principal.map(Arc::new) else { return Ok(Proven::Nothing(before)) };
        Ok(match principal.claimed_tenant() {
            Some(tenant) => Proven::OfTenant(principal, tenant, self.epoch.mark_since(tenant, before)),
            None => Proven::OfFleet(principal, everything),
        })
    }
}

fn hash(credential: &str) -> CredentialHash {
    let mut hash = CredentialHash::default();
    hash.copy_from_slice(digest(&SHA256, credential.as_bytes()).as_ref());
    hash
}

/// What a token's row proves; a revoked one proves nothing.
fn from_token(token: TokenRecord) -> Option<Principal> {
    if token.revoked_at.is_some() {
        return None;
    }
    let name = || format!("token:{}", token.id);
    let principal = match token.scope {
        TokenScope::Tenant { tenant, role } => Principal::of_tenant(name(), tenant, role),
        TokenScope::Member { principal } => Principal::member(principal),
        TokenScope::Service { role } => Principal::service(name(), role),
        TokenScope::Operator { role } => Principal::operator(name(), role),
    };
    Some(Principal { expires_at: token.expires_at, ..principal })
}
