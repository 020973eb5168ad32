// What the example of links in docs/embedding.md runs on: two tenants, each with an export 1.

include!("tenants.rs");

async fn check_example() {
    let fleet = start_fleet("create table exports (id integer primary key, content text not null)").await;
    let mut paths = Vec::new();
    for name in ["acme", "globex"] {
        let tenant: Tenant<tenant_router::Write> = open_tenant(&fleet, name).await;
        tenant.execute("insert into exports values (1, $1)", [format!("the export of {name}")]).await.unwrap();
        paths.push(link_to(&open_tenant(&fleet, name).await, 1).unwrap());
    }
    for (name, path) in ["acme", "globex"].into_iter().zip(&paths) {
        let link = path.rsplit('/').next().unwrap();
        assert_eq!(download(fleet.router(), path, link).await.unwrap(), format!("the export of {name}"));
        let other = if name == "acme" { "/t/globex/download" } else { "/t/acme/download" };
        assert!(download(fleet.router(), other, link).await.is_err(), "a link opens its own tenant");
        assert!(download(fleet.router(), path, &link[1..]).await.is_err(), "a changed link opens nothing");
    }
}
