//! This process's share of each Postgres server's connections, so that all processes of a fleet together stay within
//! what the server allows.
//!
//! A share is a lease in the catalog, renewed in the background and never by a request. A process that comes new takes
//! very few at once, then what the others leave; they shrink to an equal part at their next renewal. One that dies
//! leaves a lease that runs out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use catalog::leases::{self, Slice};
use catalog::{Catalog, ServerId};
use tenant_engine::{Connections, Engine, Server};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::error::Result;

/// What a process may open before it holds a share: enough to answer, too few to hurt the others.
const FIRST: u64 = 2;
/// How long a share lasts without being renewed: a process that died gives it back after this.
const LEASE_MS: i64 = 15_000;
/// A third of the lease: two renewals may fail.
const RENEW_EVERY: Duration = Duration::from_secs(5);
/// How soon to look again for a server that has not said yet how many connections it allows.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// How long giving a share back may delay the end of a process.
const FAREWELL_MAX: Duration = Duration::from_secs(2);

/// The servers this process has met.
pub(crate) struct Slices {
    catalog: Catalog,
    owner: String,
    met: Mutex<HashMap<ServerId, Met>>,
    news: Notify,
}

#[derive(Clone)]
struct Met {
    server: Server,
    engine: Arc<dyn Engine>,
}

impl Slices {
    pub(crate) fn new(catalog: Catalog) -> Self {
        Self { catalog, owner: owner(), met: Mutex::default(), news: Notify::new() }
    }

    /// Before the first connection to a server: holds back until there is a share.
    pub(crate) fn meet(&self, id: ServerId, server: &Server, engine: &Arc<dyn Engine>) {
        let Server::Postgres(_) = server else { return };
        let met = Met { server: server.clone(), engine: Arc::clone(engine) };
        let before = self.met().insert(id, met);
        // Equal means the same address; a new one is a budget of its own.
        if before.is_none_or(|before| before.server != *server) {
            engine.set_connections_max(server, FIRST);
            self.news.notify_one();
        }
    }

    /// Keeps the shares until told to stop.
    pub(crate) async fn keep(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let again = if self.renew().await { RENEW_EVERY } else { LOOK_AGAIN };
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.news.notified() => {}
                () = tokio::time::sleep(again) => {}
            }
        }
    }

    /// Gives the shares back, when every connection is closed. If that fails, they run out by themselves.
    pub(crate) async fn part(&self) {
        if !self.met().is_empty() {
            let _ = tokio::time::timeout(FAREWELL_MAX, self.give_back()).await;
        }
    }

    /// False when a server has still to say how many connections it allows.
    async fn renew(&self) -> bool {
        let mut all_known = true;
        for (id, met) in self.all() {
            let Some(connections) = met.engine.connections(&met.server) else {
                all_known = false;
                continue;
            };
            match self.lease(id, connections).await {
                Ok(share) => met.engine.set_connections_max(&met.server, share),
                // What is held stays held: if the catalog is gone, nobody else can take more either.
                Err(error) => tracing::warn!(%error, server = %id, "the share of connections was not renewed"),
            }
        }
        all_known
    }

    async fn lease(&self, server: ServerId, connections: Connections) -> Result<u64> {
        let mut tx = self.catalog.write().await?;
        let others = leases::slices(&mut tx, server).await?;
        let share = share(connections.budget, &self.owner, &others);
        let until = tx.now() + LEASE_MS;
        // What is still open of a larger share is not the others' yet.
        let amount = i64::try_from(share.max(connections.open)).unwrap_or(i64::MAX);
        leases::set_slice(&mut tx, server, &self.owner, amount, until).await?;
        tx.commit().await?;
        Ok(share)
    }

    async fn give_back(&self) -> Result<()> {
        let mut tx = self.catalog.write().await?;
        for (id, _) in self.all() {
            leases::drop_slice(&mut tx, id, &self.owner).await?;
        }
        Ok(tx.commit().await?)
    }

    fn all(&self) -> Vec<(ServerId, Met)> {
        self.met().iter().map(|(id, met)| (*id, met.clone())).collect()
    }

    fn met(&self) -> MutexGuard<'_, HashMap<ServerId, Met>> {
        self.met.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A name of this process that no other ever has.
fn owner() -> String {
    catalog::OperationId::generate().uuid().simple().to_string()
}

/// PURE: an equal part, but no more than the others leave, and never nothing.
fn share(budget: u64, owner: &str, held: &[Slice]) -> u64 {
    let others: Vec<u64> = held.iter().filter(|s| s.owner != owner).map(|s| s.amount.unsigned_abs()).collect();
    let equal = budget / (others.len() as u64 + 1);
    let left = budget.saturating_sub(others.iter().sum());
    equal.min(left).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(shares: &[(&str, i64)]) -> Vec<Slice> {
        shares.iter().map(|(owner, amount)| Slice { owner: (*owner).to_owned(), amount: *amount, until: 0 }).collect()
    }

    #[test]
    fn shares_become_equal_and_never_exceed_the_budget() {
        assert_eq!(share(90, "a", &held(&[])), 90);
        assert_eq!(share(90, "b", &held(&[("a", 90)])), 1, "the first has not given way yet");
        assert_eq!(share(90, "a", &held(&[("a", 90), ("b", 1)])), 45);
        assert_eq!(share(90, "b", &held(&[("a", 45), ("b", 1)])), 45);
        assert_eq!(share(90, "c", &held(&[("a", 45), ("b", 45)])), 1);
        assert_eq!(share(90, "a", &held(&[("a", 45), ("b", 45), ("c", 1)])), 30);
        assert_eq!(share(1, "b", &held(&[("a", 1)])), 1);
    }

    #[test]
    fn whatever_the_order_of_renewals_the_sum_stays_within_the_budget() {
        let owners = ["a", "b", "c", "d"];
        let mut now: Vec<(&str, i64)> = Vec::new();
        for turn in 0..40 {
            let owner = owners[(turn * 7 + turn / 3) % owners.len()];
            let mine = share(90, owner, &held(&now)) as i64;
            now.retain(|(other, _)| *other != owner);
            now.push((owner, mine));
            let sum: i64 = now.iter().map(|(_, amount)| amount).sum();
            assert!(sum <= 90 + owners.len() as i64, "{now:?}");
        }
        assert!(now.iter().all(|(_, amount)| *amount >= 22), "{now:?}");
    }
}
