// What the example of a stream in docs/embedding.md runs on.

include!("tenants.rs");

async fn check_example() {
    let fleet = start_fleet("create table tasks (id integer primary key, title text not null)").await;
    for name in ["acme", "globex"] {
        let tenant: Tenant<tenant_router::Write> = open_tenant(&fleet, name).await;
        tenant.execute("insert into tasks values (1, $1), (2, 'x')", [name]).await.unwrap();
    }
    let mut exported = Vec::new();
    export(open_tenant(&fleet, "acme").await, &mut exported).await.unwrap();
    assert_eq!(exported, b"1;acme\n2;x\n");
}
