//! Tenants: rows, pages, selections, compare-and-set.

use std::collections::BTreeMap;

use catalog::tenants::{self, TenantCriteria, TenantUpdate};
use catalog::{ErrorKind, Generation, TenantName, TenantState};

use super::{Fixture, START, new_tenant, seed};

#[tokio::test]
async fn a_new_tenant_is_found_by_id_and_name() {
    let fixture = Fixture::new().await;
    let (server, ids) = seed(&fixture.catalog, 3).await;
    let mut tx = fixture.catalog.read().await.unwrap();
    let tenant = tenants::get(&mut tx, ids[1]).await.unwrap().unwrap();
    assert_eq!(
        (tenant.name.as_str(), tenant.state, tenant.generation),
        ("t1", TenantState::Provisioning, Generation(1))
    );
    assert_eq!((tenant.server_id, tenant.placement.clone(), tenant.created_at), (server, None, START));
    let named = tenants::by_name(&mut tx, &TenantName::parse_slug("T1").unwrap()).await.unwrap().unwrap();
    assert_eq!(named, tenant);
    assert!(tenants::by_name(&mut tx, &TenantName::parse_slug("t9").unwrap()).await.unwrap().is_none());
}

#[tokio::test]
async fn a_taken_name_is_named_and_nothing_is_written() {
    let fixture = Fixture::new().await;
    let (server, _) = seed(&fixture.catalog, 3).await;
    for (names, named) in [(["x", "t2"], "'t2'"), (["y", "y"], "'y'")] {
        let new: Vec<_> = names.iter().map(|name| new_tenant(name, server)).collect();
        let mut tx = fixture.catalog.write().await.unwrap();
        let error = tenants::insert_many(&mut tx, &new).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert!(error.to_string().contains(named), "{error}");
    }
    let mut tx = fixture.catalog.read().await.unwrap();
    assert_eq!(tenants::count_tenants(&mut tx, &TenantCriteria::default()).await.unwrap(), 3);
}

#[tokio::test]
async fn an_update_applies_once_and_only_where_the_generation_fits() {
    let fixture = Fixture::new().await;
    let (_, ids) = seed(&fixture.catalog, 3).await;
    let mut updates: Vec<TenantUpdate> =
        ids.iter().map(|id| TenantUpdate::for_generation(*id, Generation(1))).collect();
    updates[0].state = Some(TenantState::Active);
    updates[0].placement = Some(Some("a/g2-1.db".to_owned()));
    updates[1].from = Generation(7);
    fixture.advance(5);
    let mut tx = fixture.catalog.write().await.unwrap();
    assert_eq!(tenants::update_many(&mut tx, &updates).await.unwrap(), [ids[1]]);
    tx.commit().await.unwrap();
    let mut tx = fixture.catalog.read().await.unwrap();
    let all = tenants::list_tenants(&mut tx, &TenantCriteria::default(), None, 10).await.unwrap();
    assert_eq!(all.iter().map(|t| t.generation.0).collect::<Vec<_>>(), [2, 1, 2]);
    assert_eq!((all[0].state, all[0].placement.as_deref()), (TenantState::Active, Some("a/g2-1.db")));
    assert_eq!((all[0].updated_at, all[1].updated_at), (START + 5, START));
    assert_eq!((all[2].state, all[2].placement.as_deref()), (TenantState::Provisioning, None));
    drop(tx);

    let mut twice = vec![
        TenantUpdate::for_generation(ids[2], Generation(2)),
        TenantUpdate::for_generation(ids[2], Generation(3)),
        TenantUpdate::for_generation(ids[2], Generation(3)),
    ];
    twice[1].placement = Some(Some("a/g2-1.db".to_owned()));
    twice.remove(1);
    let mut tx = fixture.catalog.write().await.unwrap();
    assert_eq!(tenants::update_many(&mut tx, &twice).await.unwrap(), []);
    let mut same_place = TenantUpdate::for_generation(ids[2], Generation(4));
    same_place.placement = Some(Some("a/g2-1.db".to_owned()));
    assert_eq!(tenants::update_many(&mut tx, &[same_place]).await.unwrap_err().kind(), ErrorKind::Conflict);
}

#[tokio::test]
async fn a_selection_narrows_by_all_its_fields() {
    let fixture = Fixture::new().await;
    let (server, ids) = seed(&fixture.catalog, 5).await;
    let mut tx = fixture.catalog.write().await.unwrap();
    let pro = BTreeMap::from([("plan".to_owned(), Some("pro".to_owned()))]);
    for id in &ids[1..4] {
        tenants::set_labels(&mut tx, *id, &pro).await.unwrap();
    }
    tx.commit().await.unwrap();
    let mut tx = fixture.catalog.read().await.unwrap();
    let mut selection = TenantCriteria { server: Some(server), ..TenantCriteria::default() };
    selection.labels = "plan=pro".parse().unwrap();
    selection.ids = Some(vec![ids[4], ids[3], ids[1], ids[1]]);
    selection.states = vec![TenantState::Provisioning];
    let page = tenants::list_tenants(&mut tx, &selection, None, 10).await.unwrap();
    assert_eq!(page.iter().map(|t| t.id).collect::<Vec<_>>(), [ids[1], ids[3]]);
    assert_eq!(page[0].labels.get("plan").map(String::as_str), Some("pro"));
    assert_eq!(tenants::count_tenants(&mut tx, &selection).await.unwrap(), 2);
    let rest = tenants::list_tenants(&mut tx, &selection, Some(ids[1]), 1).await.unwrap();
    assert_eq!(rest.iter().map(|t| t.id).collect::<Vec<_>>(), [ids[3]]);
    selection.ids = Some(Vec::new());
    assert_eq!(tenants::count_tenants(&mut tx, &selection).await.unwrap(), 0);
}

#[tokio::test]
async fn labels_are_selected_by_every_form_of_a_selector() {
    let fixture = Fixture::new().await;
    let (_, ids) = seed(&fixture.catalog, 4).await;
    let mut tx = fixture.catalog.write().await.unwrap();
    for (id, plan, region) in [(ids[0], Some("pro"), "eu"), (ids[1], Some("free"), "us"), (ids[2], Some("team"), "eu")]
    {
        let labels = [("plan", plan), ("region", Some(region))];
        let labels = labels.map(|(key, value)| (key.to_owned(), value.map(str::to_owned)));
        tenants::set_labels(&mut tx, id, &BTreeMap::from(labels)).await.unwrap();
    }
    tx.commit().await.unwrap();
    let mut tx = fixture.catalog.read().await.unwrap();
    for (selector, expected) in [
        ("plan=pro", vec![0]),
        ("plan!=free", vec![0, 2, 3]),
        ("plan in (pro, free)", vec![0, 1]),
        ("plan notin (pro, free)", vec![2, 3]),
        ("plan", vec![0, 1, 2]),
        ("!plan", vec![3]),
        ("plan,plan!=free,region=eu", vec![0, 2]),
        ("plan=pro,plan=free", vec![]),
    ] {
        let selection = TenantCriteria { labels: selector.parse().unwrap(), ..TenantCriteria::default() };
        let page = tenants::list_tenants(&mut tx, &selection, None, 10).await.unwrap();
        let expected: Vec<_> = expected.into_iter().map(|at: usize| ids[at]).collect();
        assert_eq!(page.iter().map(|tenant| tenant.id).collect::<Vec<_>>(), expected, "{selector}");
    }
}
