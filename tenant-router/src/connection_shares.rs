//! This process's share of the connections to each PostgreSQL server. Together, all processes of a fleet stay within
//! the server's limit.
//!
//! A share is a lease in the catalog. A background task renews it; requests never do. A new process takes very few
//! connections at once, then what the others leave free. The others shrink to an equal part at their next renewal. The
//! lease of a dead process expires. After a clock was set back, leases of live processes end too far in the future.
//! [`Ahead`] then measures whether they are still renewed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use catalog::leases::{self, ConnectionShare};
use catalog::{Catalog, ServerId};
use tenant_engine::{ConnectionUsage, DatabaseServer, Engine};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::error::Result;

/// How many connections a process may open before it has a share: enough to answer, too few to disturb the others.
const FIRST: u64 = 2;
/// The lease time of a share. A dead process's share is free after this time.
const LEASE_MS: i64 = 15_000;
/// A third of the lease time: two renewals may fail.
const RENEW_EVERY: Duration = Duration::from_secs(5);
/// The lease time as a duration.
const LEASE: Duration = Duration::from_millis(LEASE_MS.unsigned_abs());
/// The pause before the next try for a server that has not reported its connection limit yet.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// The longest time that returning the shares may delay the end of a process.
const FAREWELL_MAX: Duration = Duration::from_secs(2);

/// The servers that this process has used, and its shares.
pub(crate) struct ConnectionShares {
    catalog: Catalog,
    owner: String,
    met: Mutex<HashMap<ServerId, KnownServer>>,
    ahead: Mutex<Ahead>,
    news: Notify,
}

#[derive(Clone)]
struct KnownServer {
    server: DatabaseServer,
    engine: Arc<dyn Engine>,
}

impl ConnectionShares {
    pub(crate) fn new(catalog: Catalog) -> Self {
        Self { catalog, owner: new_owner_name(), met: Mutex::default(), ahead: Mutex::default(), news: Notify::new() }
    }

    /// Called before the first connection to a server. Limits the server to very few connections until there is a
    /// share.
    pub(crate) fn register_server(&self, id: ServerId, server: &DatabaseServer, engine: &Arc<dyn Engine>) {
        let DatabaseServer::Postgres(_) = server else { return };
        let met = KnownServer { server: server.clone(), engine: Arc::clone(engine) };
        let before = self.lock_servers().insert(id, met);
        // Equal means the same address. A new address has a budget of its own.
        if before.is_none_or(|before| before.server != *server) {
            engine.set_connections_max(server, FIRST);
            self.news.notify_one();
        }
    }

    /// Renews the shares until told to stop.
    pub(crate) async fn keep_shares(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let again = if self.renew_shares().await { RENEW_EVERY } else { LOOK_AGAIN };
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.news.notified() => {}
                () = tokio::time::sleep(again) => {}
            }
        }
    }

    /// Returns the shares after all connections are closed. If that fails, the leases expire.
    pub(crate) async fn release_all(&self) {
        if !self.lock_servers().is_empty() {
            let _ = tokio::time::timeout(FAREWELL_MAX, self.drop_shares()).await;
        }
    }

    /// False when a server has not reported its connection limit yet.
    async fn renew_shares(&self) -> bool {
        let mut all_known = true;
        for (id, met) in self.known_servers() {
            let Some(connections) = met.engine.connection_usage(&met.server) else {
                all_known = false;
                continue;
            };
            match self.lease_share(id, connections).await {
                Ok(share) => met.engine.set_connections_max(&met.server, share),
                // The share is kept: while the catalog is unavailable, no other process can take more either.
                Err(error) => tracing::warn!(%error, server = %id, "the share of connections was not renewed"),
            }
        }
        all_known
    }

    async fn lease_share(&self, server: ServerId, connections: ConnectionUsage) -> Result<u64> {
        let mut tx = self.catalog.write().await?;
        let others = leases::connection_shares(&mut tx, server).await?;
        let others = self.live(server, others);
        let share = fair_share(connections.budget, &self.owner, &others);
        let until = tx.now() + LEASE_MS;
        // Connections of a larger share that are still open are not free for others yet.
        let amount = i64::try_from(share.max(connections.open)).unwrap_or(i64::MAX);
        leases::set_connection_share(&mut tx, server, &self.owner, amount, until).await?;
        tx.commit().await?;
        Ok(share)
    }

    async fn drop_shares(&self) -> Result<()> {
        let mut tx = self.catalog.write().await?;
        for (id, _) in self.known_servers() {
            leases::drop_connection_share(&mut tx, id, &self.owner).await?;
        }
        Ok(tx.commit().await?)
    }

    fn live(&self, server: ServerId, slices: Vec<ConnectionShare>) -> Vec<ConnectionShare> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner).live(server, slices, Instant::now())
    }

    fn known_servers(&self) -> Vec<(ServerId, KnownServer)> {
        self.lock_servers().iter().map(|(id, met)| (*id, met.clone())).collect()
    }

    fn lock_servers(&self) -> MutexGuard<'_, HashMap<ServerId, KnownServer>> {
        self.met.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Shares that end too far in the future, with the end that this process first saw.
#[derive(Default)]
struct Ahead {
    seen: HashMap<(ServerId, String), (i64, Instant)>,
}

impl Ahead {
    /// The shares that count; PURE except for what it remembers. A share that ends too far in the future counts until
    /// it has not been renewed for one lease time.
    fn live(&mut self, server: ServerId, slices: Vec<ConnectionShare>, now: Instant) -> Vec<ConnectionShare> {
        let mut seen = HashMap::new();
        let mut live = Vec::with_capacity(slices.len());
        for slice in slices {
            let name = (server, slice.owner.clone());
            let before = self.seen.get(&name).filter(|(until, _)| *until == slice.until);
            let since = before.map_or(now, |(_, since)| *since);
            if slice.is_ahead {
                seen.insert(name, (slice.until, since));
            }
            if !slice.is_ahead || now.saturating_duration_since(since) < LEASE {
                live.push(slice);
            }
        }
        self.seen.retain(|(of, _), _| *of != server);
        self.seen.extend(seen);
        live
    }
}

/// A name for this process that no other process ever has.
fn new_owner_name() -> String {
    catalog::OperationId::generate().uuid().simple().to_string()
}

/// PURE: an equal part, but at most what the others leave free, and at least one connection.
fn fair_share(budget: u64, owner: &str, held: &[ConnectionShare]) -> u64 {
    let others: Vec<u64> = held.iter().filter(|s| s.owner != owner).map(|s| s.amount.unsigned_abs()).collect();
    let equal = budget / (others.len() as u64 + 1);
    let left = budget.saturating_sub(others.iter().sum());
    equal.min(left).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(shares: &[(&str, i64)]) -> Vec<ConnectionShare> {
        let slice =
            |owner: &str, amount| ConnectionShare { owner: owner.to_owned(), amount, until: 0, is_ahead: false };
        shares.iter().map(|(owner, amount)| slice(owner, *amount)).collect()
    }

    #[test]
    fn shares_become_equal_and_never_exceed_the_budget() {
        assert_eq!(fair_share(90, "a", &held(&[])), 90);
        assert_eq!(fair_share(90, "b", &held(&[("a", 90)])), 1, "the first has not given way yet");
        assert_eq!(fair_share(90, "a", &held(&[("a", 90), ("b", 1)])), 45);
        assert_eq!(fair_share(90, "b", &held(&[("a", 45), ("b", 1)])), 45);
        assert_eq!(fair_share(90, "c", &held(&[("a", 45), ("b", 45)])), 1);
        assert_eq!(fair_share(90, "a", &held(&[("a", 45), ("b", 45), ("c", 1)])), 30);
        assert_eq!(fair_share(1, "b", &held(&[("a", 1)])), 1);
    }

    #[test]
    fn a_slice_of_a_wrong_clock_counts_until_it_was_not_renewed_for_a_lease() {
        let (server, start) = (ServerId::generate(), Instant::now());
        let slice =
            |owner: &str, until, is_ahead| ConnectionShare { owner: owner.to_owned(), amount: 45, until, is_ahead };
        let (mut ahead, after) = (Ahead::default(), |seconds| start + Duration::from_secs(seconds));
        let mut live = |slices, seconds| -> Vec<i64> {
            ahead.live(server, slices, after(seconds)).into_iter().map(|slice| slice.until).collect()
        };
        // The clock was set back: one process renews, the other has died.
        let both = || vec![slice("dead", 900, true), slice("live", 900, true)];
        assert_eq!(live(both(), 0), [900, 900]);
        assert_eq!(live(vec![slice("dead", 900, true), slice("live", 20, false)], 5), [900, 20]);
        assert_eq!(live(vec![slice("dead", 900, true), slice("live", 35, false)], 15), [35]);
        assert_eq!(live(vec![slice("dead", 900, true), slice("live", 910, true)], 16), [910], "set back once more");
        assert_eq!(live(vec![slice("dead", 920, true)], 17), [920], "it lives after all");
        assert_eq!(ahead.live(ServerId::generate(), both(), after(99)).len(), 2, "another server's");
    }

    #[test]
    fn whatever_the_order_of_renewals_the_sum_stays_within_the_budget() {
        let owners = ["a", "b", "c", "d"];
        let mut now: Vec<(&str, i64)> = Vec::new();
        for turn in 0..40 {
            let owner = owners[(turn * 7 + turn / 3) % owners.len()];
            let mine = fair_share(90, owner, &held(&now)) as i64;
            now.retain(|(other, _)| *other != owner);
            now.push((owner, mine));
            let sum: i64 = now.iter().map(|(_, amount)| amount).sum();
            assert!(sum <= 90 + owners.len() as i64, "{now:?}");
        }
        assert!(now.iter().all(|(_, amount)| *amount >= 22), "{now:?}");
    }
}
