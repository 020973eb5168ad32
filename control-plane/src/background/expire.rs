//! Drops replaced databases whose time for an undo is over.

use catalog::retained::RetainedRecord;

use crate::error::Result;
use crate::operation::StepContext;
use crate::replacement::retained::drop_retained;

/// Maximum number of databases per run. The rest waits for the next run.
const BATCH: u32 = 100;

/// Drops expired databases. `now` is the time up to which databases may be dropped; see `steady_time.rs`.
pub(super) async fn drop_expired(context: &StepContext, now: i64) -> Result<()> {
    let expired = {
        let mut tx = context.catalog.read().await?;
        catalog::retained::expired_retained(&mut tx, now, BATCH).await?
    };
    for record in expired {
        // A server that is unreachable must not keep the databases on other servers.
        if let Err(error) = drop_one(context, &record).await {
            tracing::warn!(tenant = %record.tenant_id, code = %error.code(), %error, "a replaced database was not dropped");
        }
    }
    Ok(())
}

/// Checks before it deletes. The catalog must name another database for the tenant, and no operation may work on the
/// tenant: it could be an undo that brings this database back.
async fn drop_one(context: &StepContext, record: &RetainedRecord) -> Result<()> {
    // The row goes first, in a transaction that sees no running operation. An undo that comes later finds nothing.
    let mut tx = context.catalog.write().await?;
    let tenant = catalog::tenants::get(&mut tx, record.tenant_id).await?;
    let in_use = |tenant: &catalog::TenantRecord| {
        tenant.op_id.is_some() || tenant.placement.as_deref() == Some(record.placement.as_str())
    };
    // Also true for a paused operation. Between two attempts it holds no lease, and it may be an undo.
    let is_awaited = catalog::steps::is_awaited(&mut tx, record.tenant_id, record.op_id).await?;
    if tenant.as_ref().is_none_or(in_use) || is_awaited {
        return Ok(());
    }
    catalog::retained::remove_retained(&mut tx, record.server_id, &record.placement).await?;
    tx.commit().await?;
    if let Err(error) = drop_retained(context, record).await {
        // Recorded again: a database that may still exist must stay findable.
        let mut tx = context.catalog.write().await?;
        catalog::retained::insert_retained(&mut tx, record).await?;
        tx.commit().await?;
        return Err(error);
    }
    tracing::info!(tenant = %record.tenant_id, "a replaced database was dropped");
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering};

    use catalog::{CatalogClock, Generation, OperationId};

    use super::*;
    use crate::config::{Config, ProcessRole};

    #[tokio::test]
    async fn a_kept_database_goes_when_its_time_is_over_and_not_before() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config::new(dir.path().canonicalize().unwrap(), ProcessRole::Embedded);
        let now = Arc::new(AtomicI64::new(1_000));
        let reads = Arc::clone(&now);
        let clock: CatalogClock = Arc::new(move || reads.load(Ordering::SeqCst));
        crate::app::App::init_with(&config, Arc::clone(&clock)).await.unwrap();
        let app = crate::app::App::open_with(config.clone(), clock).await.unwrap();
        let record = kept(&app.context).await;
        let file = config.data_dir.join("tenants").join(&record.placement);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, "kept").unwrap();
        drop_expired(&app.context, app.catalog.now()).await.unwrap();
        assert!(file.exists());
        now.store(record.keep_until + 1, Ordering::SeqCst);
        drop_expired(&app.context, app.catalog.now()).await.unwrap();
        assert!(!file.exists());
        let left =
            catalog::retained::of_tenant(&mut app.catalog.read().await.unwrap(), record.tenant_id).await.unwrap();
        assert!(left.is_empty());
        drop_expired(&app.context, app.catalog.now()).await.unwrap();
    }

    #[tokio::test]
    async fn a_kept_database_waits_for_an_operation_that_may_want_it_back() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config::new(dir.path().canonicalize().unwrap(), ProcessRole::Embedded);
        let clock: CatalogClock = Arc::new(|| 10_000);
        crate::app::App::init_with(&config, Arc::clone(&clock)).await.unwrap();
        let app = crate::app::App::open_with(config, clock).await.unwrap();
        let record = kept(&app.context).await;
        let undo = catalog::operations::NewOperation {
            id: OperationId::generate(),
            kind: "restore_undo".to_owned(),
            params: "{}".to_owned(),
            release_id: None,
            tenants: vec![record.tenant_id],
            skipped: 0,
            left_out: Vec::new(),
            when_left: catalog::operations::WhenLeft::Fail,
            concurrency: 1,
            requested_by: "test".to_owned(),
            reason: None,
        };
        let mut tx = app.catalog.write().await.unwrap();
        catalog::operations::insert_operation(&mut tx, &undo).await.unwrap();
        tx.commit().await.unwrap();
        drop_expired(&app.context, app.catalog.now()).await.unwrap();
        let left = async || {
            catalog::retained::of_tenant(&mut app.catalog.read().await.unwrap(), record.tenant_id).await.unwrap().len()
        };
        assert_eq!(left().await, 1);
        let mut tx = app.catalog.write().await.unwrap();
        catalog::steps::cancel_pending(&mut tx, undo.id, &[]).await.unwrap();
        tx.commit().await.unwrap();
        drop_expired(&app.context, app.catalog.now()).await.unwrap();
        assert_eq!(left().await, 0);
    }

    /// A tenant with a retained database beside its current one.
    async fn kept(context: &StepContext) -> RetainedRecord {
        let mut tx = context.catalog.write().await.unwrap();
        let server = catalog::servers::by_name(&mut tx, "local").await.unwrap().unwrap();
        let id = catalog::TenantId::generate();
        let name = catalog::TenantName::parse_slug("acme").unwrap();
        let new =
            catalog::tenants::NewTenant { id, name, server_id: server.id, labels: Default::default(), plan: None };
        catalog::tenants::insert_many(&mut tx, &[new]).await.unwrap();
        let at = tenant_engine::Placement::new_sqlite(server.base.as_ref(), id, Generation(2), 1);
        let op_id = OperationId::generate();
        let record = RetainedRecord {
            tenant_id: id,
            server_id: server.id,
            placement: at.catalog_reference().to_owned(),
            generation: Generation(2),
            reason: catalog::retained::RetainedReason::Restore,
            op_id,
            schema_version: None,
            pin: None,
            created_at: 1_000,
            keep_until: 5_000,
        };
        catalog::retained::insert_retained(&mut tx, &record).await.unwrap();
        tx.commit().await.unwrap();
        record
    }
}
