// What the example of a transaction in docs/embedding.md runs on.

include!("tenants.rs");

async fn check_example() {
    let fleet =
        start_fleet("create table shelf (id integer primary key, stock integer not null check (stock >= 0))").await;
    for name in ["acme", "globex"] {
        let tenant: Tenant<Write> = open_tenant(&fleet, name).await;
        tenant.execute("insert into shelf values (1, 5), (2, 0)", ()).await.unwrap();
    }
    move_stock(open_tenant(&fleet, "acme").await, 1, 2, 3).await.unwrap();
    assert!(move_stock(open_tenant(&fleet, "acme").await, 2, 1, 4).await.is_err(), "more than there is");
    for (name, stock) in [("acme", [2, 3]), ("globex", [5, 0])] {
        let tenant: Tenant<tenant_router::Read> = open_tenant(&fleet, name).await;
        let found: Vec<i64> = tenant.query_as("select stock from shelf order by id", ()).fetch_all().await.unwrap();
        assert_eq!(found, stock, "{name}");
    }
}
