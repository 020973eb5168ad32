//! Checks that each subscriber may still have its tenant's messages: by the same steps and caches as a request.
//!
//! A check costs two loads as long as the change feed reports no change of the tenant. Callers that the application itself
//! proves, or whose roles it keeps, are asked for at every check; the caches limit how often this reaches the application.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use catalog::Catalog;
use futures_util::StreamExt as _;
use secrecy::ExposeSecret as _;

use super::hub::SubscriptionHub;
use super::subscriber::{AccessCheck, Subscriber, SubscriptionEnd};
use crate::authorize::{Access, Grant, authorize};
use crate::error::{Error, ErrorKind, Result};
use crate::feed::RouterCaches;
use crate::principal::{PrincipalKind, is_token_shaped};

/// Time between two checks without a change. With the age of a cached answer, a caller of the application is checked within
/// 5 s.
pub(super) const CHECK_EVERY: Duration = Duration::from_secs(1);

/// How long a subscription goes on while its access cannot be checked. With the time between two checks, it is closed within
/// 5 s after the catalog was last read.
const UNCONFIRMED_MAX: Duration = Duration::from_secs(4);

/// The longest single check: a silent catalog must not keep the other subscribers from their checks.
const CHECK_MAX: Duration = Duration::from_secs(2);

/// Checks that run at the same time. The catalog has four readers.
const CHECKS_AT_ONCE: usize = 16;

/// Checks the subscribers of a hub.
pub(super) struct SubscriberGuard<'a> {
    pub(super) hub: &'a SubscriptionHub,
    pub(super) caches: &'a RouterCaches,
    pub(super) catalog: &'a Catalog,
    /// The count of all changes before the last check of all subscribers.
    checked_count: AtomicU64,
}

/// What is known about a subscriber before a check.
#[derive(Debug, Clone, Copy)]
struct CheckFacts {
    /// The feed has reported no change of the tenant since the last check.
    is_unchanged: bool,
    /// The principal has not expired.
    is_valid: bool,
    /// The feed reports every change that ends this access.
    is_told_by_feed: bool,
}

/// PURE: whether the feed alone confirms the access.
fn is_confirmed_by_feed(facts: CheckFacts) -> bool {
    facts.is_unchanged && facts.is_valid && facts.is_told_by_feed
}

/// PURE: the end of a subscription whose check failed; `None` when it goes on. `unconfirmed` is the time since the access was
/// last known to be right.
fn end_after_refusal(refusal: ErrorKind, unconfirmed: Duration) -> Option<SubscriptionEnd> {
    match refusal {
        ErrorKind::Suspended => Some(SubscriptionEnd::TenantSuspended),
        ErrorKind::Archived => Some(SubscriptionEnd::TenantArchived),
        ErrorKind::NotFound | ErrorKind::Unauthenticated | ErrorKind::Forbidden => Some(SubscriptionEnd::AccessEnded),
        _ => (unconfirmed > UNCONFIRMED_MAX).then_some(SubscriptionEnd::Unconfirmed),
    }
}

impl<'a> SubscriberGuard<'a> {
    pub(super) fn new(hub: &'a SubscriptionHub, caches: &'a RouterCaches, catalog: &'a Catalog) -> Self {
        Self { hub, caches, catalog, checked_count: AtomicU64::new(0) }
    }

    /// Checks the subscribers if anything has changed since the last check.
    pub(super) async fn check_after_changes(&self) {
        if !self.caches.change_counter.is_unchanged_since(self.checked_count.load(Ordering::Acquire)) {
            self.check_subscribers().await;
        }
    }

    /// Ends the subscriptions whose callers may not have them any more.
    pub(super) async fn check_subscribers(&self) {
        let count_before = self.caches.change_counter.change_count();
        let asking = self.confirm_by_feed().into_iter();
        let asking = asking.map(|subscriber| async move { self.check_subscriber(&subscriber).await });
        futures_util::stream::iter(asking).buffer_unordered(CHECKS_AT_ONCE).collect::<()>().await;
        self.checked_count.fetch_max(count_before, Ordering::AcqRel);
    }

    /// Confirms the access of the subscribers of which the feed reports everything, and returns the others. Ends all that were
    /// not confirmed for too long, also those that wait for an answer about them.
    pub(super) fn confirm_by_feed(&self) -> Vec<Arc<Subscriber>> {
        let (now, confirmed) = (self.catalog.now(), self.caches.change_counter.last_confirmed());
        let mut asked = Vec::new();
        for subscriber in self.hub.live_subscribers() {
            if is_confirmed_by_feed(self.check_facts(&subscriber, now)) {
                let mut check = subscriber.last_check();
                check.confirmed_at = check.confirmed_at.max(confirmed);
            } else {
                asked.push(subscriber.clone());
            }
            self.end_if_unconfirmed(&subscriber);
        }
        asked
    }

    fn check_facts(&self, subscriber: &Subscriber, now: i64) -> CheckFacts {
        let mark = self.caches.change_counter.tenant_mark(subscriber.tenant);
        let roles = match subscriber.principal.kind() {
            PrincipalKind::Member | PrincipalKind::TenantMember { .. } => self.caches.roles.is_told_by_feed(),
            _ => true,
        };
        let credential = match &subscriber.credential {
            Some(text) if self.caches.token_principals.is_some() && is_token_shaped(text.expose_secret()) => false,
            Some(_) => self.caches.principals.is_told_by_feed(),
            None => true,
        };
        CheckFacts {
            is_unchanged: subscriber.last_check().mark == mark,
            is_valid: subscriber.principal.is_valid_at(now),
            is_told_by_feed: roles && credential,
        }
    }

    fn end_if_unconfirmed(&self, subscriber: &Subscriber) {
        if subscriber.last_check().confirmed_at.elapsed() > UNCONFIRMED_MAX {
            self.hub.end_subscriber(subscriber, SubscriptionEnd::Unconfirmed);
        }
    }

    async fn check_subscriber(&self, subscriber: &Subscriber) {
        let checked = tokio::time::timeout(CHECK_MAX, confirm_access(self.caches, self.catalog, subscriber)).await;
        let refusal = match checked {
            Ok(Ok(check)) => {
                let before = std::mem::replace(&mut *subscriber.last_check(), check.clone());
                // The data was restored or moved. After a restore, it is other data.
                if before.placement != check.placement {
                    subscriber.push_reload(self.hub.position());
                }
                subscriber.release(self.hub.position());
                return;
            }
            Ok(Err(error)) => error.kind(),
            Err(_elapsed) => ErrorKind::CatalogUnavailable,
        };
        subscriber.hold();
        let unconfirmed = subscriber.last_check().confirmed_at.elapsed();
        if let Some(end) = end_after_refusal(refusal, unconfirmed) {
            self.hub.end_subscriber(subscriber, end);
        }
    }
}

/// Confirms that the subscriber's caller may read its tenant now. Opens no database.
pub(super) async fn confirm_access(
    caches: &RouterCaches,
    catalog: &Catalog,
    subscriber: &Subscriber,
) -> Result<AccessCheck> {
    // Read before the look-ups: a change during them then causes another check.
    let (mark, asked_at) = (caches.change_counter.tenant_mark(subscriber.tenant), Instant::now());
    let now = catalog.now();
    let principal = match &subscriber.credential {
        Some(credential) => caches.prove_caller(Some(credential.expose_secret()), now).await?,
        None => subscriber.principal.clone(),
    };
    if !principal.is_valid_at(now) || principal.name() != subscriber.principal.name() {
        return Err(Error::new(ErrorKind::Unauthenticated));
    }
    let record = caches.directory.by_id(subscriber.tenant).await?;
    let membership = caches.caller_membership(&principal, record.as_ref()).await?;
    let grant: Grant = authorize(&principal, record.as_ref(), membership, Access::Read)?;
    Ok(AccessCheck { mark, confirmed_at: asked_at, placement: grant.record().placement.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_an_expiry_and_an_application_are_looked_into() {
        let quiet = CheckFacts { is_unchanged: true, is_valid: true, is_told_by_feed: true };
        assert!(is_confirmed_by_feed(quiet));
        for other in [
            CheckFacts { is_unchanged: false, ..quiet },
            CheckFacts { is_valid: false, ..quiet },
            CheckFacts { is_told_by_feed: false, ..quiet },
        ] {
            assert!(!is_confirmed_by_feed(other), "{other:?}");
        }
    }

    #[test]
    fn a_refusal_ends_at_once_and_a_failure_after_some_seconds() {
        for (refusal, at_once, later) in [
            (ErrorKind::NotFound, Some(SubscriptionEnd::AccessEnded), Some(SubscriptionEnd::AccessEnded)),
            (ErrorKind::Unauthenticated, Some(SubscriptionEnd::AccessEnded), Some(SubscriptionEnd::AccessEnded)),
            (ErrorKind::Suspended, Some(SubscriptionEnd::TenantSuspended), Some(SubscriptionEnd::TenantSuspended)),
            (ErrorKind::Archived, Some(SubscriptionEnd::TenantArchived), Some(SubscriptionEnd::TenantArchived)),
            (ErrorKind::CatalogUnavailable, None, Some(SubscriptionEnd::Unconfirmed)),
            (ErrorKind::KeysUnavailable, None, Some(SubscriptionEnd::Unconfirmed)),
        ] {
            assert_eq!(end_after_refusal(refusal, Duration::ZERO), at_once, "{refusal:?}");
            assert_eq!(end_after_refusal(refusal, Duration::from_millis(4_001)), later, "{refusal:?}");
        }
    }
}
