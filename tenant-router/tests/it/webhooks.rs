//! Webhooks of other services: signed by a stock tool, for the tenant of their account, once.

use std::io::Write as _;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use catalog::{TenantId, TenantState, external_accounts};
use secrecy::SecretString;
use tenant_router::webhooks::WebhookHeaders;
use tenant_router::{AccountSource, ErrorKind, Manage, Read, ReceivedWebhook, Router, Tenant, WebhookProvider};

use crate::world::World;

const NOW: i64 = 1_800_000_000_000;
const SECONDS: i64 = NOW / 1_000;
const SECRETS: [&str; 2] = ["the secret of acme's account", "the secret of globex's account"];

/// The hexadecimal HMAC-SHA256 of `openssl`.
fn openssl_hmac(key: &[u8], text: &str) -> String {
    let key: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut openssl = Command::new("openssl")
        .args(["dgst", "-sha256", "-mac", "HMAC", "-macopt", &format!("hexkey:{key}"), "-r"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    openssl.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = openssl.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().split_whitespace().next().unwrap().to_owned()
}

fn base64_of_hex(hex: &str) -> String {
    let bytes: Vec<u8> =
        (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect();
    STANDARD.encode(bytes)
}

type Headers = Vec<(&'static str, String)>;

fn stripe_headers(secret: &str, seconds: i64, body: &str) -> Headers {
    let signature = openssl_hmac(secret.as_bytes(), &format!("{seconds}.{body}"));
    vec![("Stripe-Signature", format!("t={seconds},v0=old,v1={signature}"))]
}

fn standard_headers(key: &[u8], id: &str, seconds: i64, body: &str) -> Headers {
    let signature = base64_of_hex(&openssl_hmac(key, &format!("{id}.{seconds}.{body}")));
    let signatures = format!("v1a,ed25519 v1,AAAA v1,{signature}");
    vec![("webhook-id", id.to_owned()), ("webhook-timestamp", seconds.to_string()), ("webhook-signature", signatures)]
}

fn github_headers(secret: &str, body: &str) -> Headers {
    vec![("X-Hub-Signature-256", format!("sha256={}", openssl_hmac(secret.as_bytes(), body)))]
}

struct WebhookWorld {
    world: World,
    router: Router,
    ids: Vec<TenantId>,
}

impl WebhookWorld {
    /// Two tenants, each with an account and a secret of its own.
    async fn start() -> Self {
        let world = World::with_clock(std::sync::Arc::new(|| NOW)).await;
        let ids = world.tenants(&["acme", "globex"]).await;
        let this = Self { router: world.router().await, world, ids };
        for (number, account) in ["acct_acme", "acct_globex"].into_iter().enumerate() {
            this.link(number, "stripe", account, Some(SECRETS[number])).await;
        }
        this
    }

    async fn link(&self, number: usize, provider: &str, account: &str, secret: Option<&str>) {
        let mut tx = self.world.catalog.write().await.unwrap();
        let secret = secret.map(SecretString::from);
        external_accounts::link_account(&mut tx, self.ids[number], (provider, account), secret.as_ref()).await.unwrap();
        tx.commit().await.unwrap();
    }

    async fn receive(
        &self,
        provider: &WebhookProvider,
        account: Option<&str>,
        headers: &Headers,
        body: &str,
    ) -> Result<ReceivedWebhook, ErrorKind> {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let headers: &dyn WebhookHeaders = &&headers[..];
        self.router.receive_webhook(provider, account, headers, body.as_bytes()).await.map_err(|error| error.kind())
    }

    /// As an application handles a webhook: false when it knew the event.
    async fn handle(&self, webhook: &ReceivedWebhook, note: &str) -> bool {
        let mut tx = webhook.tenant().write();
        if !webhook.accept(&mut tx).await.unwrap() {
            return false;
        }
        tx.execute("insert into notes (body) values ($1)", [note]).await.unwrap();
        tx.commit().await.unwrap();
        true
    }

    async fn notes(&self, name: &str) -> Vec<String> {
        let tenant: Tenant<Manage> = self.world.open_as_manager(name).await;
        tenant.query_as("select body from notes where id > 3 order by id", ()).fetch_all().await.unwrap()
    }
}

fn stripe() -> WebhookProvider {
    WebhookProvider::stripe("stripe", AccountSource::Path)
}

const EVENT: &str = r#"{"id":"evt_1","type":"invoice.paid","tenant":"globex","metadata":{"tenant_id":"globex"}}"#;

#[tokio::test]
async fn a_webhook_changes_the_tenant_of_its_account_once() {
    let fleet = WebhookWorld::start().await;
    let headers = stripe_headers(SECRETS[0], SECONDS, EVENT);
    let webhook = fleet.receive(&stripe(), Some("acct_acme"), &headers, EVENT).await.unwrap();
    assert_eq!((webhook.tenant().id(), webhook.account(), webhook.event_id()), (fleet.ids[0], "acct_acme", "evt_1"));
    assert_eq!(webhook.tenant().principal().name(), "webhook:stripe");
    // A transaction that is rolled back has not accepted the event.
    let mut tx = webhook.tenant().write();
    assert!(webhook.accept(&mut tx).await.unwrap());
    tx.rollback().await.unwrap();
    assert!(fleet.handle(&webhook, "paid").await);
    assert!(!fleet.handle(&webhook, "paid twice").await);
    let later = stripe_headers(SECRETS[0], SECONDS + 60, EVENT);
    let again = fleet.receive(&stripe(), Some("acct_acme"), &later, EVENT).await.unwrap();
    assert!(!fleet.handle(&again, "another delivery of the event").await);
    // The id of an event counts for its account only.
    let other = stripe_headers(SECRETS[1], SECONDS, EVENT);
    let other = fleet.receive(&stripe(), Some("acct_globex"), &other, EVENT).await.unwrap();
    assert!(fleet.handle(&other, "globex has paid").await);
    assert_eq!(
        (fleet.notes("acme").await, fleet.notes("globex").await),
        (vec!["paid".to_owned()], vec!["globex has paid".to_owned()])
    );
}

#[tokio::test]
async fn a_webhook_that_is_not_signed_now_for_this_account_is_refused() {
    let fleet = WebhookWorld::start().await;
    fleet.link(0, "stripe", "acct_shared", None).await;
    let good = stripe_headers(SECRETS[0], SECONDS, EVENT);
    let changed = EVENT.replacen("evt_1", "evt_2", 1);
    let twice = [good.clone(), good.clone()].concat();
    let cases: [(&str, Option<&str>, Headers, &str); 10] = [
        ("another account's secret", Some("acct_globex"), good.clone(), EVENT),
        ("an unknown account", Some("acct_none"), good.clone(), EVENT),
        ("an account without a secret", Some("acct_shared"), good.clone(), EVENT),
        ("a body that was changed by a byte", Some("acct_acme"), good.clone(), &changed),
        ("a body that was changed by a space", Some("acct_acme"), good.clone(), &format!("{EVENT} ")),
        ("an old signature", Some("acct_acme"), stripe_headers(SECRETS[0], SECONDS - 301, EVENT), EVENT),
        ("a signature of the future", Some("acct_acme"), stripe_headers(SECRETS[0], SECONDS + 301, EVENT), EVENT),
        ("two signatures", Some("acct_acme"), twice, EVENT),
        ("no signature", Some("acct_acme"), Vec::new(), EVENT),
        ("another provider's form", Some("acct_acme"), github_headers(SECRETS[0], EVENT), EVENT),
    ];
    for (what, account, headers, body) in cases {
        let refused = fleet.receive(&stripe(), account, &headers, body).await.unwrap_err();
        assert_eq!(refused, ErrorKind::WebhookRefused, "{what}");
    }
    assert_eq!(fleet.receive(&stripe(), None, &good, EVENT).await.unwrap_err(), ErrorKind::Misconfigured);
    for name in ["acme", "globex"] {
        assert_eq!(fleet.notes(name).await, [] as [&str; 0]);
        let queue = fleet.world.open_as_manager::<Read>(name).await;
        let tables: Vec<String> =
            queue.query_as("select name from sqlite_schema where name like '%received'", ()).fetch_all().await.unwrap();
        assert_eq!(tables, [] as [&str; 0], "nothing was recorded");
    }
    let suspended = |update: &mut catalog::tenants::TenantUpdate| update.state = Some(TenantState::Suspended);
    fleet.world.update_tenant(fleet.ids[0], suspended).await;
    fleet.router.catch_up().await.unwrap();
    assert_eq!(fleet.receive(&stripe(), Some("acct_acme"), &good, EVENT).await.unwrap_err(), ErrorKind::Suspended);
}

#[tokio::test]
async fn standard_webhooks_are_signed_by_any_of_the_secrets_and_name_the_account_in_the_signed_body() {
    let fleet = WebhookWorld::start().await;
    fleet.link(0, "crm", "4711", None).await;
    fleet.link(1, "crm", "own", Some(SECRETS[1])).await;
    let (old, new) = (b"the old key of the service".as_slice(), b"the new key of the service".as_slice());
    let secret = |key: &[u8]| SecretString::from(format!("whsec_{}", STANDARD.encode(key)));
    let accounts = || AccountSource::SignedField {
        pointer: "/organisation/id".to_owned(),
        secrets: vec![secret(new), secret(old)],
    };
    let crm = WebhookProvider::standard("crm", accounts());
    let body = r#"{"organisation":{"id":4711},"tenant":"globex"}"#;
    for (number, key) in [old, new].into_iter().enumerate() {
        let headers = standard_headers(key, &format!("msg_{number}"), SECONDS, body);
        let webhook = fleet.receive(&crm, None, &headers, body).await.unwrap();
        assert_eq!((webhook.tenant().id(), webhook.account()), (fleet.ids[0], "4711"));
        assert_eq!(webhook.event_id(), format!("msg_{number}"));
        assert!(fleet.handle(&webhook, "x").await);
    }
    let good = standard_headers(new, "msg_9", SECONDS, body);
    let mut other_id = good.clone();
    other_id[0].1 = "msg_8".to_owned();
    let mut other_time = good.clone();
    other_time[1].1 = (SECONDS + 1).to_string();
    for headers in [other_id, other_time] {
        assert_eq!(fleet.receive(&crm, None, &headers, body).await.unwrap_err(), ErrorKind::WebhookRefused);
    }
    assert_eq!(
        fleet.receive(&crm, Some("own"), &good, body).await.unwrap_err(),
        ErrorKind::WebhookRefused,
        "the path disagrees"
    );
    for body in [r#"{"organisation":{"id":"none"}}"#, r#"{"organisation":{"id":"own"}}"#, "{}", "not JSON"] {
        let headers = standard_headers(new, "msg_5", SECONDS, body);
        assert_eq!(fleet.receive(&crm, None, &headers, body).await.unwrap_err(), ErrorKind::WebhookRefused, "{body}");
    }
}

#[tokio::test]
async fn a_delivery_of_github_is_known_by_its_body() {
    let fleet = WebhookWorld::start().await;
    fleet.link(0, "github", "77", None).await;
    let secrets = vec![SecretString::from("the secret of the app")];
    let accounts = AccountSource::SignedField { pointer: "/installation/id".to_owned(), secrets };
    let github = WebhookProvider::github("github", accounts);
    let body = r#"{"installation":{"id":77},"after":"abc"}"#;
    let mut headers = github_headers("the secret of the app", body);
    headers.push(("X-GitHub-Delivery", "1".to_owned()));
    let webhook = fleet.receive(&github, None, &headers, body).await.unwrap();
    assert!(fleet.handle(&webhook, "pushed").await);
    // Somebody who has recorded the request cannot repeat it under another number.
    headers[1].1 = "2".to_owned();
    let again = fleet.receive(&github, None, &headers, body).await.unwrap();
    assert!(!fleet.handle(&again, "pushed again").await);
    assert_eq!(fleet.notes("acme").await, ["pushed"]);
}
