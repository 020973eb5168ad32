// What the example of an external cache in docs/embedding.md runs on: one cache for both tenants.

include!("tenants.rs");

#[derive(Default)]
struct SharedCache(std::sync::Mutex<std::collections::HashMap<String, String>>);

impl ExternalCache for SharedCache {
    async fn get(&self, key: &str) -> Option<String> {
        self.0.lock().unwrap().get(key).cloned()
    }

    async fn set(&self, key: &str, value: &str, _: Duration) {
        self.0.lock().unwrap().insert(key.to_owned(), value.to_owned());
    }
}

async fn check_example() {
    let fleet = start_fleet("create table report (text text not null)").await;
    let cache = SharedCache::default();
    for name in ["acme", "globex"] {
        let tenant: Tenant<tenant_router::Write> = open_tenant(&fleet, name).await;
        tenant.execute("insert into report values ($1)", [name]).await.unwrap();
        let reader: Tenant<Read> = open_tenant(&fleet, name).await;
        assert_eq!(report(&reader, &cache).await.unwrap(), name);
        tenant.execute("update report set text = 'new'", ()).await.unwrap();
        assert_eq!(report(&reader, &cache).await.unwrap(), name, "it is cached");
    }
    assert_eq!(cache.0.lock().unwrap().len(), 2);
}
