//! Plans: their limits travel with the records of tenants, and a change reaches every process through the change feed.

use catalog::changes::{self, FeedChanges};
use catalog::plans::{self, PlanLimits};
use catalog::{Catalog, ErrorKind, TenantId, TenantName, tenants};

use super::{Fixture, seed};

fn limits(requests_per_second: u64) -> PlanLimits {
    PlanLimits { requests_per_second: Some(requests_per_second), ..PlanLimits::default() }
}

async fn add(catalog: &Catalog, name: &str, limits: &PlanLimits) -> catalog::Result<()> {
    let mut tx = catalog.write().await?;
    plans::add_plan(&mut tx, &TenantName::parse_slug(name)?, limits).await?;
    tx.commit().await
}

async fn give(catalog: &Catalog, tenant: TenantId, plan: Option<&str>) -> catalog::Result<()> {
    let mut tx = catalog.write().await?;
    plans::set_tenant_plan(&mut tx, tenant, plan).await?;
    tx.commit().await
}

async fn set(catalog: &Catalog, name: &str, limits: &PlanLimits) -> catalog::Result<()> {
    let mut tx = catalog.write().await?;
    plans::set_limits(&mut tx, name, limits).await?;
    tx.commit().await
}

/// The tenant's plan and its limits, by each way to read a tenant.
async fn plan_of(catalog: &Catalog, tenant: TenantId) -> Option<(String, PlanLimits)> {
    let mut tx = catalog.read().await.unwrap();
    let one = tenants::get(&mut tx, tenant).await.unwrap().unwrap();
    let many = tenants::get_many(&mut tx, &[tenant]).await.unwrap();
    let name = TenantName::parse_slug(&one.name).unwrap();
    let named = tenants::by_name(&mut tx, &name).await.unwrap().unwrap();
    assert_eq!((&one.plan, &one.plan), (&many[0].plan, &named.plan));
    one.plan.map(|plan| (plan.name, plan.limits))
}

async fn news(catalog: &Catalog, seq: i64) -> FeedChanges {
    changes::changes_since(&mut catalog.read().await.unwrap(), seq).await.unwrap()
}

async fn head(catalog: &Catalog) -> i64 {
    changes::feed_head(&mut catalog.read().await.unwrap()).await.unwrap()
}

#[tokio::test]
async fn a_tenants_record_carries_the_limits_of_its_plan() {
    let fixture = Fixture::new().await;
    let (catalog, other) = (&fixture.catalog, fixture.other_process().await);
    let (_, ids) = seed(catalog, 2).await;
    add(catalog, "free", &limits(50)).await.unwrap();
    assert_eq!(plan_of(&other, ids[0]).await, None);
    let before = head(catalog).await;
    give(catalog, ids[0], Some("free")).await.unwrap();
    assert_eq!(plan_of(&other, ids[0]).await, Some(("free".to_owned(), limits(50))));
    assert_eq!(plan_of(&other, ids[1]).await, None);
    assert!(matches!(news(&other, before).await, FeedChanges::Tenants { ids: changed, .. } if changed == [ids[0]]));
    let before = head(catalog).await;
    set(catalog, "free", &limits(70)).await.unwrap();
    assert_eq!(plan_of(&other, ids[0]).await, Some(("free".to_owned(), limits(70))));
    assert!(matches!(news(&other, before).await, FeedChanges::Tenants { ids: changed, .. } if changed == [ids[0]]));
    give(catalog, ids[0], None).await.unwrap();
    assert_eq!(plan_of(&other, ids[0]).await, None);
}

#[tokio::test]
async fn a_change_for_very_many_tenants_is_one_entry() {
    let fixture = Fixture::new().await;
    let catalog = &fixture.catalog;
    let (_, ids) = seed(catalog, 1_001).await;
    add(catalog, "free", &limits(50)).await.unwrap();
    for id in &ids {
        let mut tx = catalog.write().await.unwrap();
        plans::set_tenant_plan(&mut tx, *id, Some("free")).await.unwrap();
        tx.commit().await.unwrap();
    }
    let before = head(catalog).await;
    set(catalog, "free", &limits(70)).await.unwrap();
    assert_eq!(news(catalog, before).await, FeedChanges::Everything { seq: before + 1 });
}

#[tokio::test]
async fn a_plan_with_tenants_stays_and_a_wrong_one_is_refused() {
    let fixture = Fixture::new().await;
    let catalog = &fixture.catalog;
    let (_, ids) = seed(catalog, 1).await;
    add(catalog, "free", &limits(50)).await.unwrap();
    assert_eq!(add(catalog, "free", &limits(1)).await.unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(add(catalog, "none", &limits(0)).await.unwrap_err().kind(), ErrorKind::Invalid);
    let burst_alone = PlanLimits { burst: Some(5), ..PlanLimits::default() };
    assert_eq!(set(catalog, "free", &burst_alone).await.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(give(catalog, ids[0], Some("pro")).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(give(catalog, TenantId::generate(), Some("free")).await.unwrap_err().kind(), ErrorKind::NotFound);
    give(catalog, ids[0], Some("free")).await.unwrap();
    let remove = async || {
        let mut tx = catalog.write().await.unwrap();
        plans::remove_plan(&mut tx, "free").await?;
        tx.commit().await
    };
    assert_eq!(remove().await.unwrap_err().kind(), ErrorKind::PlanInUse);
    assert_eq!(plans::list_plans(&mut catalog.read().await.unwrap(), None, 10).await.unwrap()[0].tenants, 1);
    give(catalog, ids[0], None).await.unwrap();
    remove().await.unwrap();
    assert_eq!(remove().await.unwrap_err().kind(), ErrorKind::NotFound);
}
