//! A real fleet in a temporary directory, served on free ports.

use std::path::PathBuf;
use std::sync::Arc;

use control_plane::config::ProcessRole;
use control_plane::serve::{RunningServer, ServeOptions, start_server};
use control_plane::{App, Config};
use fleet_client::fleet_api::pages::PageOf;
use fleet_client::fleet_api::tenants::NewTenantRequest;
use fleet_client::{ApiRequest, FleetClient, HttpTransport, SignUp};
use serde_json::Value;
use tempfile::TempDir;

pub(crate) struct ServedFleet {
    pub(crate) url: String,
    pub(crate) token: String,
    pub(crate) app: Arc<App>,
    serving: RunningServer,
    dir: TempDir,
}

impl ServedFleet {
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::new(dir.path().canonicalize().unwrap().join("data"), ProcessRole::Serving);
        config.listen = "127.0.0.1:0".parse().unwrap();
        config.admin_listen = "127.0.0.1:0".parse().unwrap();
        App::init_fleet(&config).await.unwrap();
        let app = App::open(config.clone()).await.unwrap();
        let serving = start_server(Arc::clone(&app), ServeOptions::default()).await.unwrap();
        let token = std::fs::read_to_string(config.data_dir.join("operator.token")).unwrap().trim().to_owned();
        Self { url: serving.server_endpoint().admin_url.clone(), token, app, serving, dir }
    }

    pub(crate) fn client(&self) -> FleetClient {
        self.client_through(&self.url)
    }

    /// A client with this fleet's token at another address.
    pub(crate) fn client_through(&self, url: &str) -> FleetClient {
        FleetClient::new(url, self.token.as_str()).unwrap()
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.dir.path().canonicalize().unwrap().join("data")
    }

    /// Every item of a list of the API. A test has fewer than a page.
    pub(crate) async fn list(&self, path: &str) -> Vec<Value> {
        let answer = self.send(&ApiRequest::get(path)).await;
        serde_json::from_value::<PageOf<Value>>(answer).unwrap().items
    }

    pub(crate) async fn send(&self, request: &ApiRequest) -> Value {
        let transport = HttpTransport::over_address(&self.url, self.token.as_str().into(), None, None).unwrap();
        let answer = transport.send_request(request).await.unwrap();
        answer.require_success().await.unwrap().read_json().await.unwrap()
    }

    /// Asserts that exactly one tenant, member and token of this sign-up exist.
    pub(crate) async fn assert_signed_up_once(&self, wanted: &SignUp) {
        let field = |item: &Value, key: &str| item[key].as_str().unwrap_or_default().to_owned();
        let tenants = self.list("/v1/tenants").await;
        let own = tenants.iter().filter(|tenant| tenant["labels"]["sign-up"] == wanted.key.as_str());
        let own: Vec<&str> = own.filter_map(|tenant| tenant["name"].as_str()).collect();
        assert_eq!(own, [wanted.tenant.name.as_str()]);
        let members = self.list(&format!("/v1/tenants/{}/members", wanted.tenant.name)).await;
        let roles: Vec<_> = members.iter().map(|member| (field(member, "principal"), field(member, "role"))).collect();
        assert_eq!(roles, [(wanted.member.clone(), wanted.role.clone())]);
        let tokens = self.list("/v1/tokens").await;
        assert_eq!(tokens.iter().filter(|token| token["principal"] == wanted.member.as_str()).count(), 1, "{tokens:?}");
    }

    pub(crate) async fn stop(self) {
        self.serving.stop_serving().await;
    }
}

/// A customer with this name, whose key and member belong to nobody else.
pub(crate) fn customer(name: &str) -> SignUp {
    SignUp {
        key: format!("order of {name}"),
        tenant: NewTenantRequest { name: name.to_owned(), ..NewTenantRequest::default() },
        member: format!("owner@{name}"),
        role: "manager".to_owned(),
        ..SignUp::default()
    }
}
