// What the example of the cache in docs/embedding.md runs on: two tenants with a task 1 each.

include!("tenants.rs");

async fn check_example() {
    let schema = "create table tasks (id integer primary key, assignee text, done integer not null default 0)";
    let fleet = start_fleet(schema).await;
    let mut tenants = Vec::new();
    for name in ["acme", "globex"] {
        let tenant: Tenant<Write> = open_tenant(&fleet, name).await;
        tenant.execute("insert into tasks (id) values (1)", ()).await.unwrap();
        let reader: Tenant<Read> = open_tenant(&fleet, name).await;
        assert_eq!(open_tasks(&reader, "ada").await.unwrap(), 0);
        tenants.push((tenant, reader));
    }
    assign(&tenants[0].0, 1, "ada").await.unwrap();
    assert_eq!(open_tasks(&tenants[0].1, "ada").await.unwrap(), 1);
    assert_eq!(open_tasks(&tenants[1].1, "ada").await.unwrap(), 0);
    // Without a call of `forget` the cached value is used.
    tenants[0].0.execute("update tasks set done = 1", ()).await.unwrap();
    assert_eq!(open_tasks(&tenants[0].1, "ada").await.unwrap(), 1);
}
