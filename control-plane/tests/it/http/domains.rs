//! Custom domains over real HTTP, with a real DNS server: who reaches a tenant by its host, and when not.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use control_plane::domains::check::check_due_domains;
use control_plane::serve::ServeOptions;
use reqwest::Method;
use serde_json::{Value, json};

use crate::http::dns_server::{DnsReply, DnsServer};
use crate::http::site::{Answer, Site, raw, send};

const DAY_MS: i64 = 24 * 3_600_000;

/// A fleet that asks a DNS server of its own, with a clock that can be set ahead.
struct DomainSite {
    site: Site,
    dns: DnsServer,
    ahead: Arc<AtomicI64>,
}

impl DomainSite {
    async fn start() -> Self {
        let dns = DnsServer::start().await;
        let ahead = Arc::new(AtomicI64::new(0));
        let (system, moved) = (control_plane::clock::system_clock(), Arc::clone(&ahead));
        let clock: catalog::CatalogClock = Arc::new(move || system() + moved.load(Ordering::SeqCst));
        let change = |config: &mut control_plane::Config| {
            config.domain = Some("fleet.example".to_owned());
            config.own_hosts = Some(vec!["data.internal.example".to_owned()]);
            config.dns_server = Some(dns.address);
        };
        let site = Site::start_at(ServeOptions::default(), change, clock).await;
        site.create("acme").await;
        site.create("globex").await;
        Self { site, dns, ahead }
    }

    async fn add(&self, tenant: &str, host: &str) -> Value {
        self.site.post(&format!("/v1/tenants/{tenant}/domains"), &json!({ "host": host })).await.ok()
    }

    async fn verify(&self, tenant: &str, host: &str) -> Answer {
        self.site.post(&format!("/v1/tenants/{tenant}/domains/{host}/verify"), &json!({})).await
    }

    /// Adds, proves and verifies.
    async fn activate(&self, tenant: &str, host: &str) -> Value {
        let added = self.add(tenant, host).await;
        self.prove(&added);
        self.verify(tenant, host).await.ok();
        added
    }

    fn prove(&self, domain: &Value) {
        self.dns.set_txt(domain["txt_name"].as_str().unwrap(), domain["txt_value"].as_str().unwrap());
    }

    async fn remove(&self, tenant: &str, host: &str) {
        let path = format!("/v1/tenants/{tenant}/domains/{host}");
        assert_eq!(send(self.site.admin(Method::DELETE, &path)).await.status, 204);
    }

    async fn listed(&self, tenant: &str) -> Value {
        self.site.get(&format!("/v1/tenants/{tenant}/domains")).await.ok()["items"][0].clone()
    }

    /// One day later, as the background task sees it.
    async fn next_day(&self) {
        self.ahead.fetch_add(DAY_MS + 1, Ordering::SeqCst);
        check_due_domains(&self.site.app.catalog, self.site.app.dns.as_ref()).await.unwrap();
    }

    async fn ask(&self, host: &str) -> u16 {
        let url = format!("{}/v1/domains/ask?domain={host}", self.site.admin);
        send(self.site.client.get(url)).await.status
    }

    /// A query to the data API that names its tenant by its host only.
    async fn query(&self, host: &str, token: &str) -> Answer {
        let body = r#"{"sql":"select 1"}"#;
        let head = format!(
            "POST /query HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\nX-Request-Id: same\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        raw(&self.site.data, head).await
    }

    /// The answer for this host is, to the byte, the one for a host that nobody ever heard of.
    async fn assert_unknown(&self, host: &str, token: &str) {
        let (mut found, mut unknown) = (self.query(host, token).await, self.query("unheard.example", token).await);
        assert_eq!(found.status, 404, "{host}: {found:?}");
        for answer in [&mut found, &mut unknown] {
            answer.headers.remove("date");
        }
        assert_eq!(found, unknown, "{host}");
    }
}

#[tokio::test]
async fn a_host_reaches_its_tenant_only_once_it_is_proven() {
    let fleet = DomainSite::start().await;
    let token = fleet.site.tenant_token("acme", "writer").await;
    let others = fleet.site.tenant_token("globex", "writer").await;
    fleet.assert_unknown("shop.example", &token).await;
    let added = fleet.add("acme", "Shop.Example.").await;
    assert_eq!((&added["host"], &added["state"]), (&json!("shop.example"), &json!("pending")));
    assert_eq!(added["txt_name"], "_fleet-challenge.shop.example");
    fleet.assert_unknown("shop.example", &token).await;
    assert_eq!(fleet.ask("shop.example").await, 404);

    let refused = fleet.verify("acme", "shop.example").await.problem(409, "domain_unproven");
    assert!(refused["next_steps"][0].as_str().unwrap().contains(added["txt_value"].as_str().unwrap()));
    fleet.dns.set_txt("_fleet-challenge.shop.example", "something else");
    fleet.verify("acme", "shop.example").await.problem(409, "domain_unproven");
    assert!(fleet.listed("acme").await["check_error"].as_str().unwrap().contains("another value"));
    fleet.assert_unknown("shop.example", &token).await;

    fleet.prove(&added);
    let active = fleet.verify("acme", "shop.example").await.ok();
    assert_eq!((&active["state"], &active["check_error"]), (&json!("active"), &Value::Null));
    for spelling in ["shop.example", "SHOP.Example", "shop.example.", "shop.example:8080", "shop.example.:443"] {
        let found = fleet.query(spelling, &token).await;
        assert_eq!(found.status, 200, "{spelling}: {found:?}");
        // Somebody else's tenant looks like no tenant.
        fleet.assert_unknown(spelling, &others).await;
    }
    assert_eq!((fleet.ask("shop.example").await, fleet.ask("SHOP.example.").await), (200, 200));
    for host in ["www.shop.example", "example", "127.0.0.1", "", "acme.fleet.example"] {
        assert_eq!(fleet.ask(host).await, 404, "{host}");
    }
    let described = fleet.site.get("/v1/tenants/acme/description").await.ok();
    assert_eq!(described["hosts"], json!(["shop.example"]));

    fleet.remove("acme", "shop.example").await;
    fleet.assert_unknown("shop.example", &token).await;
    assert_eq!(fleet.ask("shop.example").await, 404);
    fleet.verify("acme", "shop.example").await.problem(404, "not_found");
    fleet.site.stop().await;
}

#[tokio::test]
async fn an_international_host_is_the_same_in_both_spellings() {
    let fleet = DomainSite::start().await;
    let token = fleet.site.tenant_token("acme", "writer").await;
    let added = fleet.activate("acme", "bücher.example").await;
    assert_eq!(added["host"], "xn--bcher-kva.example");
    for spelling in ["xn--bcher-kva.example", "XN--BCHER-KVA.example:80"] {
        assert_eq!(fleet.query(spelling, &token).await.status, 200, "{spelling}");
    }
    assert_eq!(fleet.ask("b%C3%BCcher.example").await, 200);
    fleet.site.stop().await;
}

#[tokio::test]
async fn the_first_that_proves_a_host_owns_it() {
    let fleet = DomainSite::start().await;
    let tokens = [fleet.site.tenant_token("acme", "writer").await, fleet.site.tenant_token("globex", "writer").await];
    let (first, second) = (fleet.add("acme", "shop.example").await, fleet.add("globex", "shop.example").await);
    assert_ne!(first["txt_value"], second["txt_value"]);
    // A stranger's value proves nothing for another tenant.
    fleet.prove(&second);
    fleet.verify("acme", "shop.example").await.problem(409, "domain_unproven");
    fleet.verify("globex", "shop.example").await.ok();
    assert_eq!(fleet.query("shop.example", &tokens[1]).await.status, 200);
    fleet.assert_unknown("shop.example", &tokens[0]).await;
    fleet.prove(&first);
    let refused = fleet.verify("acme", "shop.example").await;
    refused.problem(409, "already_exists");
    assert!(!refused.text.contains("globex"), "{}", refused.text);
    fleet.remove("globex", "shop.example").await;
    fleet.verify("acme", "shop.example").await.ok();
    assert_eq!(fleet.query("shop.example", &tokens[0]).await.status, 200);
    fleet.assert_unknown("shop.example", &tokens[1]).await;
    fleet.site.stop().await;
}

#[tokio::test]
async fn a_lost_proof_ends_a_domain_after_days_and_a_failing_dns_never() {
    let fleet = DomainSite::start().await;
    let token = fleet.site.tenant_token("acme", "writer").await;
    let added = fleet.activate("acme", "shop.example").await;
    let name = "_fleet-challenge.shop.example";
    for reply in [DnsReply::Fail, DnsReply::Refer] {
        fleet.dns.set(name, reply);
        for _ in 0..9 {
            fleet.next_day().await;
        }
        let listed = fleet.listed("acme").await;
        assert_eq!(listed["state"], "active");
        assert!(listed["check_error"].as_str().unwrap().contains("gave no answer"), "{listed}");
        fleet.verify("acme", "shop.example").await.problem(503, "dns_unavailable");
    }
    fleet.dns.set(name, DnsReply::Txt(Vec::new()));
    for _ in 0..7 {
        fleet.next_day().await;
        assert_eq!(fleet.listed("acme").await["state"], "active");
    }
    assert_eq!(fleet.query("shop.example", &token).await.status, 200);
    fleet.next_day().await;
    assert_eq!(fleet.listed("acme").await["state"], "expired");
    fleet.assert_unknown("shop.example", &token).await;
    assert_eq!(fleet.ask("shop.example").await, 404);
    fleet.prove(&added);
    fleet.next_day().await;
    fleet.assert_unknown("shop.example", &token).await;
    fleet.verify("acme", "shop.example").await.ok();
    assert_eq!(fleet.query("shop.example", &token).await.status, 200);
    let events = fleet.site.get("/v1/events?tenant=acme&limit=1000").await.ok();
    let kinds: Vec<_> = events["items"].as_array().unwrap().iter().filter_map(|event| event["kind"].as_str()).collect();
    for (kind, times) in [("added", 1), ("verified", 2), ("expired", 1), ("removed", 0)] {
        let kind = format!("tenant.domain_{kind}");
        assert_eq!(kinds.iter().filter(|found| **found == kind).count(), times, "{kind}: {kinds:?}");
    }
    fleet.site.stop().await;
}

#[tokio::test]
async fn a_repaired_record_begins_the_grace_anew_and_time_alone_ends_nothing() {
    let fleet = DomainSite::start().await;
    let added = fleet.activate("acme", "shop.example").await;
    let name = "_fleet-challenge.shop.example";
    fleet.dns.set(name, DnsReply::Txt(Vec::new()));
    fleet.next_day().await;
    // The process was stopped for a month after one failed check.
    fleet.ahead.fetch_add(30 * DAY_MS, Ordering::SeqCst);
    fleet.next_day().await;
    assert_eq!(fleet.listed("acme").await["state"], "active");
    fleet.prove(&added);
    fleet.next_day().await;
    fleet.dns.set(name, DnsReply::Txt(Vec::new()));
    for _ in 0..3 {
        fleet.next_day().await;
    }
    assert_eq!(fleet.listed("acme").await["state"], "active");
    fleet.site.stop().await;
}

#[tokio::test]
async fn a_server_that_is_silent_is_no_proof_of_absence() {
    let fleet = DomainSite::start().await;
    fleet.add("acme", "shop.example").await;
    fleet.dns.set("_fleet-challenge.shop.example", DnsReply::Silence);
    fleet.verify("acme", "shop.example").await.problem(503, "dns_unavailable");
    fleet.site.stop().await;
}

#[tokio::test]
async fn hosts_that_cannot_be_custom_domains_are_refused() {
    let fleet = DomainSite::start().await;
    for host in [
        "127.0.0.1",
        "[::1]",
        "shop",
        "shop.",
        "*.shop.example",
        "fleet.example",
        "FLEET.example.",
        "acme.fleet.example",
        "a.b.fleet.example",
        "data.internal.example",
        "",
    ] {
        fleet.site.post("/v1/tenants/acme/domains", &json!({ "host": host })).await.problem(422, "invalid");
    }
    let long = format!("{}.{}.{}.{}.example", "a".repeat(60), "b".repeat(60), "c".repeat(60), "d".repeat(46));
    assert_eq!(long.len(), 237);
    fleet.site.post("/v1/tenants/acme/domains", &json!({ "host": long })).await.problem(422, "invalid");
    fleet.activate("acme", &long[1..]).await;
    fleet.add("acme", "myfleet.example").await;
    fleet.site.stop().await;
}

#[tokio::test]
async fn a_deleted_tenant_is_unknown_and_a_purged_one_frees_its_host() {
    let fleet = DomainSite::start().await;
    let (token, others) =
        (fleet.site.tenant_token("acme", "writer").await, fleet.site.tenant_token("globex", "writer").await);
    fleet.activate("acme", "shop.example").await;
    let begun = send(fleet.site.admin(Method::DELETE, "/v1/tenants/acme?no_backup=true")).await.ok();
    fleet.site.done(begun["id"].as_str().unwrap()).await;
    fleet.assert_unknown("shop.example", &others).await;
    assert_eq!(fleet.ask("shop.example").await, 404);
    let claim = fleet.add("globex", "shop.example").await;
    fleet.prove(&claim);
    fleet.verify("globex", "shop.example").await.problem(409, "already_exists");
    run(&fleet, "undelete").await;
    assert_eq!(fleet.query("shop.example", &token).await.status, 200, "as its names do");
    let begun = send(fleet.site.admin(Method::DELETE, "/v1/tenants/acme?no_backup=true")).await.ok();
    fleet.site.done(begun["id"].as_str().unwrap()).await;
    run(&fleet, "purge").await;
    fleet.verify("globex", "shop.example").await.ok();
    assert_eq!(fleet.query("shop.example", &others).await.status, 200);
    fleet.site.stop().await;
}

async fn run(fleet: &DomainSite, verb: &str) {
    let body = json!({ "selection": { "names": ["acme"] } });
    let begun = fleet.site.post(&format!("/v1/lifecycle/{verb}"), &body).await.ok();
    fleet.site.done(begun["id"].as_str().unwrap()).await;
}

#[tokio::test]
async fn a_dry_run_and_a_viewer_change_nothing() {
    let fleet = DomainSite::start().await;
    let planned = json!({ "host": "shop.example", "dry_run": true });
    let plan = fleet.site.post("/v1/tenants/acme/domains", &planned).await.ok();
    assert_eq!(plan["plan"]["kind"], "tenant.domain_added");
    assert_eq!(fleet.listed("acme").await, Value::Null);
    let added = fleet.add("acme", "shop.example").await;
    fleet.prove(&added);
    let verify = "/v1/tenants/acme/domains/shop.example/verify";
    fleet.site.post(verify, &json!({ "dry_run": true })).await.ok();
    assert_eq!(fleet.listed("acme").await["state"], "pending");
    let (_, viewer) = fleet.site.operator("viewer").await;
    let request = fleet.site.client.post(format!("{}{verify}", fleet.site.admin)).bearer_auth(viewer);
    send(request.json(&json!({ "dry_run": true }))).await.problem(403, "forbidden");
    fleet.site.stop().await;
}
