// What the example of webhooks in docs/embedding.md runs on: two tenants with an account each, and a signing service.

include!("tenants.rs");

const EVENT: &str = r#"{"id":"evt_1","type":"invoice.paid"}"#;

/// The header `Stripe-Signature` of a body that is sent now.
fn stripe_signature(secret: &str, body: &str) -> String {
    use aws_lc_rs::hmac;

    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let tag = hmac::sign(&key, format!("{now}.{body}").as_bytes());
    let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("t={now},v1={hex}")
}

/// Sends a body with a signature to the account's route, and returns the status.
async fn deliver(application: &axum::Router, account: &str, signature: &str, body: &str) -> u16 {
    let request = http::Request::post(format!("/webhooks/stripe/{account}"))
        .header("stripe-signature", signature)
        .body(axum::body::Body::from(body.to_owned()))
        .unwrap();
    tower::ServiceExt::oneshot(application.clone(), request).await.unwrap().status().as_u16()
}

/// The events that a tenant has in its table.
async fn payments(fleet: &tenant_router::test_fleet::TestFleet, name: &str) -> Vec<(String, String)> {
    let tenant: tenant_router::Tenant<tenant_router::Read> = open_tenant(fleet, name).await;
    tenant.query_as("select event, contents from payments", ()).fetch_all().await.unwrap()
}

async fn check_example() {
    let fleet = start_fleet("create table payments (event text not null, contents text not null)").await;
    for (name, account) in [("acme", "acct_1"), ("globex", "acct_2")] {
        let secret = format!("the secret of {name}");
        fleet.link_account(name, "stripe", account, Some(&secret)).await.unwrap();
    }
    let application = application(fleet.router().clone());
    let signature = stripe_signature("the secret of acme", EVENT);
    let changed = EVENT.replace("evt_1", "evt_2");
    assert_eq!(deliver(&application, "acct_1", &signature, &changed).await, 401, "a changed byte");
    assert_eq!(deliver(&application, "acct_2", &signature, EVENT).await, 401, "the secret of another account");
    assert_eq!(deliver(&application, "acct_3", &signature, EVENT).await, 401, "an unknown account");
    assert_eq!(payments(&fleet, "acme").await, []);
    for _ in 0..2 {
        assert_eq!(deliver(&application, "acct_1", &signature, EVENT).await, 204);
    }
    assert_eq!(payments(&fleet, "acme").await, [("evt_1".to_owned(), EVENT.to_owned())], "it counts once");
    assert_eq!(payments(&fleet, "globex").await, []);
}
