//! Renews the leases of this process, all in one transaction, at a third of their length. A lost lease cancels its
//! step. A lease is lost when another process has claimed the step or the step has ended, independent of any clock.

use std::sync::Arc;
use std::time::Duration;

use catalog::{OperationId, TenantId};

use super::Runner;
use crate::error::Result;

/// How long a claim is valid without renewal, milliseconds. Long enough for a stalled disk. Short enough that another
/// process takes over while an operator still watches.
pub(super) const LEASE_MS: i64 = 20_000;

const RENEW_EVERY: Duration = Duration::from_millis(LEASE_MS.unsigned_abs() / 3);

impl Runner {
    /// Renews until the process is stopping and holds no more steps, because steps that may still finish need their
    /// leases.
    pub(super) async fn renew_leases(self: Arc<Self>) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(RENEW_EVERY) => {}
                () = self.idle_and_stopping() => return,
            }
            if let Err(error) = self.renew_once().await {
                tracing::warn!(code = %error.code(), %error, "leases were not renewed");
            }
        }
    }

    async fn renew_once(&self) -> Result<()> {
        let claims: Vec<(OperationId, TenantId, i64)> =
            self.lock_state().held.iter().map(|((op, tenant), held)| (*op, *tenant, held.epoch)).collect();
        if claims.is_empty() {
            return Ok(());
        }
        self.context.wait_while_halted().await;
        let mut tx = self.context.catalog.write().await?;
        let until = tx.now() + LEASE_MS;
        let renewed = catalog::steps::renew_claims(&mut tx, &claims, until).await?;
        let live = match usize::try_from(renewed) {
            Ok(renewed) if renewed >= claims.len() => vec![true; claims.len()],
            _ => catalog::steps::check_live_claims(&mut tx, &claims).await?,
        };
        tx.commit().await?;
        for ((op, tenant, epoch), _) in claims.iter().zip(live).filter(|(_, live)| !live) {
            self.lose_lease(*op, *tenant, *epoch);
        }
        Ok(())
    }

    /// Cancels a step whose lease another process holds, or that has ended: it must not continue here.
    fn lose_lease(&self, op: OperationId, tenant: TenantId, epoch: i64) {
        if let Some(held) = self.lock_state().held.get(&(op, tenant)).filter(|held| held.epoch == epoch) {
            tracing::warn!(%op, %tenant, "lost the lease of a step");
            held.lost.cancel();
        }
    }
}
