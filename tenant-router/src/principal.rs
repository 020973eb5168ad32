//! Principals: the proven callers. The router turns a credential into a [`Principal`] before it looks up any tenant.
//!
//! Called by `router.rs`; calls the catalog's tokens, or the application's own [`Authenticate`]. Decides nothing about
//! tenants. Never keeps a secret: the cache is keyed by hashes.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_lc_rs::digest::{SHA256, digest};
use catalog::members::Role;
use catalog::tokens::{self, OperatorRole, TokenRecord, TokenScope};
use catalog::{Catalog, TenantId};

use crate::error::{ErrorKind, Result};
use crate::single_flight_cache::{ChangeCounter, InvalidationSource, SingleFlightCache, TenantMark};

/// A proven caller. The application makes a principal only after it has checked a credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    name: String,
    kind: PrincipalKind,
    expires_at: Option<i64>,
    named_tenant: Option<String>,
    staff: Option<String>,
}

/// What a principal may open in general.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PrincipalKind {
    /// One tenant, with one role.
    Tenant {
        /// The only tenant that the principal may open.
        tenant: TenantId,
        /// The principal's role in that tenant.
        role: Role,
    },
    /// Every tenant that the principal is a member of, with its role there.
    Member,
    /// One tenant, with the role that the principal has there as a member.
    TenantMember {
        /// The only tenant that the principal may open.
        tenant: TenantId,
    },
    /// Every tenant, with one role. May name the tenant by header.
    Service {
        /// The principal's role in every tenant.
        role: Role,
    },
    /// The admin API, but no tenant's data.
    Operator {
        /// The principal's role in the admin API.
        role: OperatorRole,
    },
}

impl Principal {
    /// A user whose memberships decide the access.
    #[must_use]
    pub fn member(name: impl Into<String>) -> Self {
        Self::of_kind(name, PrincipalKind::Member)
    }

    /// A user whose membership of one tenant counts, and no other.
    #[must_use]
    pub fn tenant_member(name: impl Into<String>, tenant: TenantId) -> Self {
        Self::of_kind(name, PrincipalKind::TenantMember { tenant })
    }

    /// A caller that may open one tenant, without being one of its members.
    #[must_use]
    pub fn of_tenant(name: impl Into<String>, tenant: TenantId, role: Role) -> Self {
        Self::of_kind(name, PrincipalKind::Tenant { tenant, role })
    }

    /// A program of the operator that acts in every tenant.
    #[must_use]
    pub fn service(name: impl Into<String>, role: Role) -> Self {
        Self::of_kind(name, PrincipalKind::Service { role })
    }

    /// An operator: a known caller without access to any tenant.
    #[must_use]
    pub fn operator(name: impl Into<String>, role: OperatorRole) -> Self {
        Self::of_kind(name, PrincipalKind::Operator { role })
    }

    fn of_kind(name: impl Into<String>, kind: PrincipalKind) -> Self {
        Self { name: name.into(), kind, expires_at: None, named_tenant: None, staff: None }
    }

    /// Makes the principal expire at `at` (milliseconds since 1970), even while it is cached.
    #[must_use]
    pub fn expiring_at(mut self, at: i64) -> Self {
        self.expires_at = Some(at);
        self
    }

    /// Lets the credential name the tenant of its requests, as a path or a host does. The name must agree with theirs,
    /// and grants nothing.
    #[must_use]
    pub fn naming_tenant(self, name: Option<String>) -> Self {
        Self { named_tenant: name, ..self }
    }

    /// The operator who acts as this principal, if there is one. Show it to the people who see what the principal does.
    #[must_use]
    pub fn staff(&self) -> Option<&str> {
        self.staff.as_deref()
    }

    /// The member's principal, or `token:<id>`. For logs and audit; not a secret.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The tenants that this principal may open, and its role.
    #[must_use]
    pub fn kind(&self) -> PrincipalKind {
        self.kind
    }

    /// False from the moment the credential expires. `now` in milliseconds since 1970.
    #[must_use]
    pub fn is_valid_at(&self, now: i64) -> bool {
        self.expires_at.is_none_or(|end| now < end)
    }

    /// The tenant that the credential names.
    pub(crate) fn named_tenant(&self) -> Option<&str> {
        self.named_tenant.as_deref()
    }

    /// The tenant of a credential that can open only one tenant.
    pub(crate) fn claimed_tenant(&self) -> Option<TenantId> {
        match self.kind {
            PrincipalKind::Tenant { tenant, .. } | PrincipalKind::TenantMember { tenant } => Some(tenant),
            _ => None,
        }
    }
}

/// The application's own way to authenticate callers: sessions, JWTs, an identity provider.
///
/// The router caches the answer by a hash of the credential for at most [`PRINCIPAL_AGE_MAX`].
#[async_trait]
pub trait Authenticate: Send + Sync + 'static {
    /// The principal that this credential proves; `None` when it proves none.
    ///
    /// # Errors
    /// When the credential cannot be checked now; the request fails with 503.
    async fn authenticate(&self, credential: &str) -> Result<Option<Principal>>;
}

/// How long an answer about a credential may be used. The change feed drops revoked tokens much earlier. This limits
/// the delay while the feed cannot be read, and the delay of an application's own revocation. With the second between two
/// checks of a subscription, a connection of a revoked caller is closed within 5 s.
pub const PRINCIPAL_AGE_MAX: Duration = Duration::from_secs(4);

/// SHA-256 of a credential. Caches use it as their key, so that no secret stays in memory.
type CredentialHash = [u8; 32];

/// How many credentials are cached: 10,000 active callers take about 3 MB.
const PRINCIPALS_MAX: u64 = 10_000;

/// Authenticates credentials and caches the principals for a short time.
pub(crate) struct PrincipalCache {
    source: PrincipalSource,
    change_counter: ChangeCounter,
    known: SingleFlightCache<CredentialHash, ProvenCredential>,
}

/// The cached result for a credential.
#[derive(Debug, Clone)]
enum ProvenCredential {
    /// The credential proved nothing, at this count of all changes. Any later change may have created the credential.
    Nothing(u64),
    /// A principal of one tenant, whose changes may end it. The mark is `None` when anything changed during the
    /// look-up.
    OfTenant(Arc<Principal>, TenantId, Option<TenantMark>),
    /// A principal of the whole fleet, at this count of resets. A change that ends such a principal is always a reset.
    OfFleet(Arc<Principal>, u64),
}

/// Where principals are looked up.
pub(crate) enum PrincipalSource {
    /// The API tokens of the catalog.
    Tokens(Catalog),
    /// The application's own authentication.
    Application(Arc<dyn Authenticate>),
}

impl PrincipalCache {
    pub(crate) fn new(source: PrincipalSource, counter: &ChangeCounter) -> Self {
        let told = match source {
            PrincipalSource::Tokens(_) => InvalidationSource::ByFeed,
            PrincipalSource::Application(_) => InvalidationSource::ByTimeAlone,
        };
        Self {
            source,
            change_counter: counter.clone(),
            known: SingleFlightCache::new(counter, PRINCIPALS_MAX, PRINCIPAL_AGE_MAX, told),
        }
    }

    /// The principal that a credential proves; [`ErrorKind::Unauthenticated`] when there is none.
    pub(crate) async fn principal_of(&self, credential: Option<&str>, now: i64) -> Result<Arc<Principal>> {
        let credential = credential.ok_or(ErrorKind::Unauthenticated)?;
        let hash = hash_credential(credential);
        let mut proven = self.known.get_or_look_up(hash, || self.prove_credential(credential)).await?;
        if !self.is_current(&proven) {
            self.known.forget_answer(&hash).await;
            proven = self.known.get_or_look_up(hash, || self.prove_credential(credential)).await?;
        }
        let known = match proven {
            ProvenCredential::Nothing(_) => None,
            ProvenCredential::OfTenant(principal, ..) | ProvenCredential::OfFleet(principal, _) => Some(principal),
        };
        known.filter(|principal| principal.is_valid_at(now)).ok_or_else(|| ErrorKind::Unauthenticated.into())
    }

    fn is_current(&self, proven: &ProvenCredential) -> bool {
        match proven {
            ProvenCredential::Nothing(changes) => self.change_counter.is_unchanged_since(*changes),
            ProvenCredential::OfTenant(_, tenant, mark) => *mark == Some(self.change_counter.tenant_mark(*tenant)),
            ProvenCredential::OfFleet(_, everything) => self.change_counter.reset_count() == *everything,
        }
    }

    /// True when the change feed reports every change that ends a credential.
    pub(crate) fn is_told_by_feed(&self) -> bool {
        matches!(self.source, PrincipalSource::Tokens(_))
    }

    /// Forgets every credential.
    pub(crate) fn forget_all(&self) {
        self.known.forget_all();
    }

    async fn prove_credential(&self, credential: &str) -> Result<ProvenCredential> {
        let (before, everything) = (self.change_counter.change_count(), self.change_counter.reset_count());
        let principal = match &self.source {
            PrincipalSource::Tokens(catalog) => {
                tokens::by_secret(&mut catalog.read().await?, credential).await?.and_then(principal_from_token)
            }
            PrincipalSource::Application(application) => application.authenticate(credential).await?,
        };
        let Some(principal) = principal.map(Arc::new) else { return Ok(ProvenCredential::Nothing(before)) };
        Ok(match principal.claimed_tenant() {
            Some(tenant) => {
                ProvenCredential::OfTenant(principal, tenant, self.change_counter.tenant_mark_since(tenant, before))
            }
            None => ProvenCredential::OfFleet(principal, everything),
        })
    }
}

/// True for a text of the form of a JSON Web Token: three parts with dots between them. API tokens have no dots.
pub(crate) fn is_token_shaped(credential: &str) -> bool {
    credential.bytes().filter(|byte| *byte == b'.').count() == 2
}

fn hash_credential(credential: &str) -> CredentialHash {
    let mut hash = CredentialHash::default();
    hash.copy_from_slice(digest(&SHA256, credential.as_bytes()).as_ref());
    hash
}

/// The principal of a token's row; a revoked token has none.
fn principal_from_token(token: TokenRecord) -> Option<Principal> {
    if token.revoked_at.is_some() {
        return None;
    }
    let name = || format!("token:{}", token.id);
    let principal = match token.scope {
        TokenScope::Tenant { tenant, role } => Principal::of_tenant(name(), tenant, role),
        TokenScope::Member { principal } => Principal::member(principal),
        TokenScope::TenantMember { tenant, principal } => Principal::tenant_member(principal, tenant),
        // A ticket is not a credential: it is exchanged for one.
        TokenScope::ImpersonationTicket(_) => return None,
        TokenScope::Impersonation(of) => {
            Principal { staff: Some(of.staff), ..Principal::tenant_member(of.principal, of.tenant) }
        }
        TokenScope::Service { role } => Principal::service(name(), role),
        TokenScope::Operator { role } => Principal::operator(name(), role),
    };
    Some(Principal { expires_at: token.expires_at, ..principal })
}
