// What the example of staff in docs/embedding.md runs on: a ticket as `fleetctl tenant impersonate` makes it.

include!("tenants.rs");

/// A ticket for the member `ann` of this tenant.
async fn make_ticket(fleet: &tenant_router::test_fleet::TestFleet, name: &str) -> String {
    use catalog::tokens::{Impersonation, TokenScope, create_token};
    use secrecy::ExposeSecret as _;

    let key = std::fs::read_to_string(fleet.data_dir().join(catalog::home::KEY_FILE)).unwrap();
    let key = catalog::seal::FleetKey::from_text(&key).unwrap();
    let location = catalog::db::CatalogLocation::File(fleet.data_dir().join(catalog::home::CATALOG_FILE));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
    let catalog = catalog::Catalog::open(&location, key, std::sync::Arc::new(move || now)).await.unwrap();
    let tenant = fleet.tenant_id(name).unwrap();
    let of = Impersonation { tenant, principal: "ann".to_owned(), staff: "token:tok_support".to_owned() };
    let mut tx = catalog.write().await.unwrap();
    let scope = TokenScope::ImpersonationTicket(of);
    let (_, ticket) = create_token(&mut tx, scope, None, Some(now + 60_000)).await.unwrap();
    tx.commit().await.unwrap();
    catalog.close().await;
    ticket.expose_secret().to_owned()
}

async fn check_example() {
    use secrecy::ExposeSecret as _;

    let fleet = start_fleet("create table tasks (id integer primary key)").await;
    fleet.set_member("acme", "ann", tenant_router::Role::Reader).await.unwrap();
    let ticket = make_ticket(&fleet, "acme").await;
    assert!(begin_support(fleet.router(), "/t/globex/support", &ticket).await.is_err());
    let session = begin_support(fleet.router(), "/t/acme/support", &ticket).await.unwrap();
    assert!(begin_support(fleet.router(), "/t/acme/support", &ticket).await.is_err(), "a ticket is for one session");
    let credential = Some(session.secret.expose_secret());
    let request = RequestView { credential, path: "/t/acme/tasks", ..RequestView::default() };
    let acme: Tenant<tenant_router::Read> = fleet.router().open(&request).await.unwrap();
    assert_eq!((acme.principal().name(), acme.principal().staff()), ("ann", Some("token:tok_support")));
    let log = access_log(&open_tenant(&fleet, "acme").await).await.unwrap();
    assert_eq!(log, ["impersonation.started token:tok_support None"]);
    assert_eq!(access_log(&open_tenant(&fleet, "globex").await).await.unwrap(), [] as [&str; 0]);
}
