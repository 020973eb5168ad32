// Two tenants for the examples in docs/embedding.md.

async fn start_fleet(schema: &str) -> tenant_router::test_fleet::TestFleet {
    tenant_router::test_fleet::TestFleet::start(schema, ["acme", "globex"]).await.unwrap()
}

/// A tenant, opened by one of its managers.
async fn open_tenant<A: tenant_router::AccessLevel>(
    fleet: &tenant_router::test_fleet::TestFleet,
    name: &str,
) -> tenant_router::Tenant<A> {
    let token = fleet.token(name, tenant_router::Role::Manager).await.unwrap();
    let path = format!("/t/{name}/page");
    let request = tenant_router::RequestView { credential: Some(&token), path: &path, ..Default::default() };
    fleet.router().open(&request).await.unwrap()
}
