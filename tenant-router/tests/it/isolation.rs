//! Everybody reaches their own tenant's rows and nobody else's.

use std::collections::HashSet;

use catalog::members;
use catalog::tokens::TokenScope;
use tenant_router::{ErrorKind, OperatorAccess, Principal, Read, RequestView, Role, Write};

use crate::world::{World, canary, note, open};

#[tokio::test]
async fn the_same_key_is_another_row_in_every_tenant() {
    let world = World::new().await;
    let names = ["acme", "globex", "initech"];
    let ids = world.tenants(&names).await;
    let router = world.router().await;
    for (name, id) in names.iter().zip(&ids) {
        let token = world.token_for(*id, Role::Reader).await;
        // Twice: cold, then from what is remembered.
        for _ in 0..2 {
            let tenant = open::<Read>(&router, name, &token).await.unwrap();
            assert_eq!((tenant.id(), tenant.name()), (*id, *name));
            for key in 1..=3 {
                assert_eq!(note(&tenant, key).await.unwrap(), canary(name, key));
            }
        }
    }
}

#[tokio::test]
async fn one_service_token_reaches_each_tenant_by_name_only() {
    let world = World::new().await;
    world.tenants(&["acme", "globex"]).await;
    let token = world.token(TokenScope::Service { role: Role::Reader }).await;
    let router = world.router().await;
    for _ in 0..10 {
        for name in ["acme", "globex"] {
            let tenant = open::<Read>(&router, name, &token).await.unwrap();
            assert_eq!(note(&tenant, 1).await.unwrap(), canary(name, 1));
        }
    }
}

#[tokio::test]
async fn members_enter_where_they_are_members() {
    let world = World::new().await;
    let ids = world.tenants(&["acme", "globex"]).await;
    let mut tx = world.catalog.write().await.unwrap();
    members::set_member(&mut tx, ids[0], "ann", Role::Writer).await.unwrap();
    tx.commit().await.unwrap();
    let token = world.token(TokenScope::Member { principal: "ann".to_owned() }).await;
    let router = world.router().await;
    let acme = open::<Write>(&router, "acme", &token).await.unwrap();
    assert_eq!(note(&acme, 2).await.unwrap(), canary("acme", 2));
    assert_eq!(acme.principal().name(), "ann");
    let foreign = open::<Read>(&router, "globex", &token).await.unwrap_err();
    assert_eq!(foreign.kind(), ErrorKind::NotFound);
    let more = open::<tenant_router::Manage>(&router, "acme", &token).await.unwrap_err();
    assert_eq!(more.kind(), ErrorKind::Forbidden);
}

/// The token is limited to one tenant, and follows the membership there.
#[tokio::test]
async fn a_member_token_of_one_tenant_opens_no_other() {
    let world = World::new().await;
    let ids = world.tenants(&["acme", "globex"]).await;
    let mut tx = world.catalog.write().await.unwrap();
    for id in &ids {
        members::set_member(&mut tx, *id, "ann", Role::Manager).await.unwrap();
    }
    tx.commit().await.unwrap();
    let token = world.token(TokenScope::TenantMember { tenant: ids[0], principal: "ann".to_owned() }).await;
    let router = world.router().await;
    assert_eq!(open::<Write>(&router, "acme", &token).await.unwrap().principal().name(), "ann");
    assert_eq!(open::<Read>(&router, "globex", &token).await.unwrap_err().kind(), ErrorKind::NotFound);
    let mut tx = world.catalog.write().await.unwrap();
    members::remove_member(&mut tx, ids[0], "ann").await.unwrap();
    tx.commit().await.unwrap();
    router.catch_up().await.unwrap();
    assert_eq!(open::<Read>(&router, "acme", &token).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_write_in_one_tenant_leaves_the_others_alone() {
    let world = World::new().await;
    let ids = world.tenants(&["acme", "globex"]).await;
    let router = world.router().await;
    let acme = open::<Write>(&router, "acme", &world.token_for(ids[0], Role::Writer).await).await.unwrap();
    let changed = acme.execute("update notes set body = 'mine' where id = ?1", [1_i64]).await.unwrap();
    assert_eq!(changed.rows_affected, 1);
    assert_eq!(note(&acme, 1).await.unwrap(), "mine");
    let globex = open::<Read>(&router, "globex", &world.token_for(ids[1], Role::Reader).await).await.unwrap();
    assert_eq!(note(&globex, 1).await.unwrap(), canary("globex", 1));
}

#[tokio::test]
async fn a_tenant_opened_to_read_cannot_write() {
    let world = World::new().await;
    let id = world.tenant("acme").await;
    let router = world.router().await;
    let token = world.token_for(id, Role::Manager).await;
    let tenant = open::<Read>(&router, "acme", &token).await.unwrap();
    let refused = tenant.query("update notes set body = 'x'", ()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Database(tenant_engine::ErrorKind::ReadOnlyTransaction));
    assert_eq!(note(&tenant, 1).await.unwrap(), canary("acme", 1));
    // The same caller may ask for more.
    let writable = tenant.at::<Write>().await.unwrap();
    writable.execute("update notes set body = 'x' where id = 1", ()).await.unwrap();
    assert_eq!(note(&tenant, 1).await.unwrap(), "x");
}

#[tokio::test]
async fn outsiders_cannot_tell_a_foreign_tenant_from_none() {
    let world = World::new().await;
    let ids = world.tenants(&["acme", "globex"]).await;
    let tokens = [
        world.token_for(ids[0], Role::Manager).await,
        world.token(TokenScope::Member { principal: "eve".to_owned() }).await,
        world.token(TokenScope::Operator { role: catalog::tokens::OperatorRole::Admin }).await,
    ];
    let router = world.router().await;
    let mut answers = HashSet::new();
    for token in &tokens {
        for name in ["globex", "nobody"] {
            for _ in 0..2 {
                let error = open::<Read>(&router, name, token).await.unwrap_err();
                let source = std::error::Error::source(&error).is_some();
                answers.insert((error.code(), error.status(), error.to_string(), error.retry_after(), source));
            }
        }
    }
    assert_eq!(answers.len(), 1, "{answers:?}");
}

#[tokio::test]
async fn bad_credentials_prove_nobody_whatever_the_tenant() {
    let world = World::new().await;
    let id = world.tenant("acme").await;
    let good = world.token_for(id, Role::Reader).await;
    let router = world.router().await;
    let longer = format!("{good}x");
    for bad in ["", "flt_", "nonsense", &longer, &good[..good.len() - 1], &good.to_uppercase()] {
        for name in ["acme", "nobody"] {
            assert_eq!(open::<Read>(&router, name, bad).await.unwrap_err().kind(), ErrorKind::Unauthenticated, "{bad}");
        }
    }
    let none = RequestView { path: "/t/acme/notes", ..RequestView::default() };
    assert_eq!(router.open::<Read>(&none).await.unwrap_err().kind(), ErrorKind::Unauthenticated);
    open::<Read>(&router, "acme", &good).await.unwrap();
}

#[tokio::test]
async fn an_operator_reads_by_id_with_a_reason_and_no_more() {
    let world = World::new().await;
    let id = world.tenant("acme").await;
    let router = world.router().await;
    let operator = OperatorAccess::new("token:tok_1", "count notes");
    let tenant = router.open_for_operator(&operator, id).await.unwrap();
    assert_eq!(note(&tenant, 3).await.unwrap(), canary("acme", 3));
    assert_eq!(tenant.query("delete from notes", ()).await.unwrap_err().code(), "read_only_transaction");
    assert_eq!(tenant.at::<Write>().await.unwrap_err().kind(), ErrorKind::Forbidden);
    let nobody = router.open_for_operator(&operator, catalog::TenantId::generate()).await.unwrap_err();
    assert_eq!(nobody.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn an_application_may_prove_callers_itself() {
    let world = World::new().await;
    let ids = world.tenants(&["acme", "globex"]).await;
    let router = world.router().await;
    let request = RequestView { path: "/t/globex/notes", ..RequestView::default() };
    let principal = std::sync::Arc::new(Principal::of_tenant("session:7", ids[1], Role::Reader));
    let tenant = router.open_as::<Read>(principal.clone(), &request).await.unwrap();
    assert_eq!(note(&tenant, 1).await.unwrap(), canary("globex", 1));
    let other = router.open_id::<Read>(principal.clone(), ids[0]).await.unwrap_err();
    assert_eq!(other.kind(), ErrorKind::NotFound);
    let ended = std::sync::Arc::new(Principal::clone(&principal).expiring_at(world.catalog.now()));
    assert_eq!(router.open_as::<Read>(ended.clone(), &request).await.unwrap_err().kind(), ErrorKind::Unauthenticated);
    assert_eq!(router.open_id::<Read>(ended, ids[1]).await.unwrap_err().kind(), ErrorKind::Unauthenticated);
}

#[tokio::test]
async fn nothing_that_prints_shows_a_secret_or_a_path() {
    let world = World::new().await;
    let id = world.tenant("acme").await;
    let token = world.token_for(id, Role::Reader).await;
    let router = world.router().await;
    let tenant = open::<Read>(&router, "acme", &token).await.unwrap();
    let request = RequestView { credential: Some(&token), path: "/", ..RequestView::default() };
    let printed = format!("{tenant:?} {router:?} {request:?} {:?}", tenant.principal());
    assert!(!printed.contains(&token) && !printed.contains(".db"), "{printed}");
}
