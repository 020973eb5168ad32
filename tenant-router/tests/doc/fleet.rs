// What the example in the crate's documentation runs on: a temporary fleet of one tenant, `acme`, and its token.

struct Fleet {
    router: tenant_router::Router,
    token: String,
    _dir: tempfile::TempDir,
}

impl Fleet {
    async fn new(schema: &str) -> Self {
        use catalog::tokens::{TokenScope, create_token};
        use catalog::{Generation, TenantName, TenantId, TenantState, seal::FleetKey, servers, tenants};
        use secrecy::ExposeSecret;
        use std::sync::Arc;
        use tenant_engine::sqlite::{SqliteEngine, SqliteOptions};
        use tenant_engine::{Engine, Identity, IdentityState, MigrationSet, Placement, migration::MigrationFile};

        let dir = tempfile::tempdir().unwrap();
        let file = catalog::db::CatalogLocation::File(dir.path().join("catalog.db"));
        let catalog = catalog::Catalog::create(&file, FleetKey::generate(), Arc::new(|| 1)).await.unwrap();
        let options = SqliteOptions::new(dir.path().join("scratch"));
        let engine = Arc::new(SqliteEngine::new(options).unwrap());

        let (tenant, generation) = (TenantId::generate(), Generation::FIRST.next());
        let at = Placement::new_sqlite(dir.path(), tenant, generation, 1);
        let set = [MigrationFile { name: "0001_first.sql".to_owned(), sql: schema.to_owned() }];
        let template = engine.prepare_template(&tenant_engine::DatabaseServer::new_sqlite(dir.path()), &MigrationSet::from_files(&set).unwrap()).await.unwrap();
        let (fleet, state) = (catalog.fleet_id(), IdentityState::Active);
        let identity = Identity { tenant, fleet, generation, state, op: None, stamped_at: 1 };
        engine.provision_database(&at, &template, &identity).await.unwrap();

        let mut tx = catalog.write().await.unwrap();
        let base = dir.path().to_str().unwrap();
        let server_id = servers::insert_server(&mut tx, servers::NewServer::in_directory("local", base)).await.unwrap().id;
        let name = TenantName::parse_slug("acme").unwrap();
        let new = tenants::NewTenant { id: tenant, name, server_id, labels: Default::default() };
        tenants::insert_many(&mut tx, &[new]).await.unwrap();
        let mut update = tenants::TenantUpdate::for_generation(tenant, Generation::FIRST);
        update.state = Some(TenantState::Active);
        update.placement = Some(Some(at.catalog_reference().to_owned()));
        tenants::update_many(&mut tx, &[update]).await.unwrap();
        let scope = TokenScope::Tenant { tenant, role: tenant_router::Role::Writer };
        let token = create_token(&mut tx, scope, None, None).await.unwrap().1.expose_secret().to_owned();
        tx.commit().await.unwrap();

        let router = tenant_router::Router::builder(catalog).engine(engine).build().await.unwrap();
        Self { router, token, _dir: dir }
    }

    async fn get(&self, application: &axum::Router, path: &str) -> (u16, String) {
        self.send(application, "GET", path, "").await
    }

    async fn post(&self, application: &axum::Router, path: &str, body: &str) -> (u16, String) {
        self.send(application, "POST", path, body).await
    }

    async fn send(&self, application: &axum::Router, method: &str, path: &str, body: &str) -> (u16, String) {
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("Bearer {}", self.token))
            .body(axum::body::Body::from(body.to_owned()))
            .unwrap();
        let response = tower::ServiceExt::oneshot(application.clone(), request).await.unwrap();
        let status = response.status().as_u16();
        let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }
}
