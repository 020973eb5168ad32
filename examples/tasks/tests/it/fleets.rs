//! The application on a fleet of a control plane elsewhere, and on one engine after the other.

use std::path::Path;

use control_plane::config::ProcessRole;
use control_plane::serve::{ServeOptions, start_server};
use control_plane::{App, Config};
use fleet_client::fleet_api::tenants::NewTenantRequest;
use fleet_client::{FleetClient, SignUp};
use postgres_fixture::Cluster;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use crate::running::RunningTasks;

#[tokio::test(flavor = "multi_thread")]
async fn a_control_plane_elsewhere_serves_as_well() {
    let elsewhere = RunningTasks::start(None).await;
    let data_dir = elsewhere.dir.path().join("data");
    let endpoint: Value = serde_json::from_slice(&std::fs::read(data_dir.join("endpoint.json")).unwrap()).unwrap();
    let token_file = data_dir.join("operator.token").to_string_lossy().into_owned();
    let words = ["--data-dir", &*data_dir.to_string_lossy(), "--fleet", endpoint["admin_url"].as_str().unwrap()];
    let flags = words.into_iter().map(str::to_owned).chain(["--fleet-token-file".to_owned(), token_file]).collect();
    let running = RunningTasks::start_with(tempfile::tempdir().unwrap(), flags).await;
    let mut alice = running.sign_up("acme").await;
    assert_eq!(alice.post("/orgs/acme/api/tasks", &json!({ "title": "first" })).await.status, 201);
    alice.url.clone_from(&elsewhere.url);
    let seen = alice.get("/orgs/acme/api/tasks").await;
    assert_eq!(seen.body[0]["title"], "first", "{}", seen.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn organisations_stay_on_their_engine_when_new_ones_get_another() {
    let running = RunningTasks::start(None).await;
    let mut alice = running.sign_up("acme").await;
    let data_dir = running.dir.path().join("data").to_string_lossy().into_owned();
    let flags = vec!["--data-dir".to_owned(), data_dir];
    let cluster = Cluster::start();
    let with_postgres = [flags.clone(), vec!["--postgres".to_owned(), cluster.dsn("postgres")]].concat();
    let running = RunningTasks::start_with(running.stop().await, with_postgres.clone()).await;
    let mut bob = running.sign_up("globex").await;
    // The server is known at the second start, and not needed at the third.
    let running = RunningTasks::start_with(running.stop().await, with_postgres).await;
    let running = RunningTasks::start_with(running.stop().await, flags).await;
    running.sign_up("initech").await;
    for (browser, name) in [(&mut alice, "acme"), (&mut bob, "globex")] {
        browser.url.clone_from(&running.url);
        assert_eq!(browser.get(&format!("/orgs/{name}/api/tasks")).await.status, 200, "{name}");
    }
    let mut engines = Vec::new();
    for name in ["acme", "globex", "initech"] {
        engines.push(running.application().fleet.get_tenant(name).await.unwrap().engine);
    }
    assert_eq!(engines, ["sqlite", "postgres", "sqlite"]);
}

/// Makes a fleet with one tenant and no schema, as an operator may have done. Returns the token of its manager.
async fn fleet_without_schema(data_dir: &Path) -> String {
    let mut config = Config::new(data_dir.to_owned(), ProcessRole::Serving);
    (config.listen, config.admin_listen) = ("127.0.0.1:0".parse().unwrap(), "127.0.0.1:0".parse().unwrap());
    App::init_fleet(&config).await.unwrap();
    let server = start_server(App::open(config).await.unwrap(), ServeOptions::default()).await.unwrap();
    let admin = std::fs::read_to_string(data_dir.join("operator.token")).unwrap();
    let client = FleetClient::new(&*server.server_endpoint().admin_url, admin.trim()).unwrap();
    let tenant = NewTenantRequest { name: "acme".to_owned(), ..NewTenantRequest::default() };
    let (key, member, role) = ("by hand".to_owned(), "alice".to_owned(), "manager".to_owned());
    let signed_up = client.sign_up(&SignUp { key, tenant, member, role, ..SignUp::default() }).await.unwrap();
    server.stop_serving().await;
    signed_up.token.secret.expose_secret().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_organisation_that_lacks_the_schema_is_migrated_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("data");
    let token = fleet_without_schema(&data_dir).await;
    let flags = vec!["--data-dir".to_owned(), data_dir.to_string_lossy().into_owned()];
    let running = RunningTasks::start_with(dir, flags).await;
    let mut alice = running.visitor();
    let signed_in = alice.post("/orgs/acme/api/session", &json!({ "token": token })).await;
    alice.keep_cookie(&signed_in);
    let session = alice.get("/orgs/acme/api/session").await.body;
    let expected = json!({ "organisation": "acme", "title": "", "person": "alice", "name": null, "role": "manager",
                           "staff": null });
    assert_eq!(session, expected);
    // A member whom the application does not know by name may do the same as all others.
    assert_eq!(alice.post("/orgs/acme/api/tasks", &json!({ "title": "first" })).await.status, 201);
    let comment = alice.post("/orgs/acme/api/tasks/1/comments", &json!({ "text": "hello" })).await;
    assert_eq!((comment.status.as_u16(), &comment.body["author"]), (201, &Value::Null));
    assert_eq!(alice.get("/orgs/acme/api/members").await.body[0]["name"], "alice");
}
