//! Keeps what this process holds: one statement renews all leases at a third of their length; a lost one cancels its
//! step.

use std::sync::Arc;
use std::time::Duration;

use catalog::{OperationId, TenantId};

use super::{LEASE_MS, Runner};
use crate::error::Result;

const RENEW_EVERY: Duration = Duration::from_millis(LEASE_MS.unsigned_abs() / 3);

impl Runner {
    /// Renews until the process is stopping and holds nothing any more: steps that may finish still need their leases.
    pub(super) async fn renew(self: Arc<Self>) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(RENEW_EVERY) => {}
                () = self.idle_and_stopping() => return,
            }
            if let Err(error) = self.renew_once().await {
                tracing::warn!(code = %error.code, %error, "leases were not renewed");
            }
        }
    }

    async fn renew_once(&self) -> Result<()> {
        let claims: Vec<(OperationId, TenantId, i64)> =
            self.state().held.iter().map(|((op, tenant), held)| (*op, *tenant, held.epoch)).collect();
        if claims.is_empty() {
            return Ok(());
        }
        self.fleet.awake().await;
        let mut tx = self.fleet.catalog.write().await?;
        let until = tx.now() + LEASE_MS;
        let renewed = catalog::steps::renew(&mut tx, &self.owner, until).await?;
        let live = match usize::try_from(renewed) {
            Ok(renewed) if renewed >= claims.len() => vec![true; claims.len()],
            _ => catalog::steps::live(&mut tx, &claims).await?,
        };
        tx.commit().await?;
        for ((op, tenant, epoch), _) in claims.iter().zip(live).filter(|(_, live)| !live) {
            self.lose(*op, *tenant, *epoch);
        }
        Ok(())
    }

    /// Somebody else holds it, or it has ended: what still runs here must not go on.
    fn lose(&self, op: OperationId, tenant: TenantId, epoch: i64) {
        if let Some(held) = self.state().held.get(&(op, tenant)).filter(|held| held.epoch == epoch) {
            tracing::warn!(%op, %tenant, "lost the lease of a step");
            held.lost.cancel();
        }
    }
}
