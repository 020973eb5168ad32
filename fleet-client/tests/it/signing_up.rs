//! A customer is signed up once, whatever happens in between.

use std::time::Duration;

use fleet_client::ErrorKind;
use fleet_client::fleet_api::tenants::NewTenantRequest;
use fleet_client::fleet_api::tokens::TokenWanted;
use secrecy::ExposeSecret;

use crate::cutting_proxy::{Cut, CuttingProxy};
use crate::served_fleet::{ServedFleet, customer};

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_sign_up_returns_the_same_customer() {
    let fleet = ServedFleet::start().await;
    let (client, wanted) = (fleet.client(), customer("acme"));
    let first = client.sign_up(&wanted).await.unwrap();
    let described = (first.tenant.state.as_str(), first.member.role.as_str(), first.token.token.principal.as_str());
    assert_eq!(described, ("active", "manager", "owner@acme"));
    assert!(!format!("{first:?}").contains(first.token.secret.expose_secret()), "a secret is not printed");
    let again = client.sign_up(&wanted).await.unwrap();
    assert_eq!(again.tenant.id, first.tenant.id);
    assert_eq!(again.token.secret.expose_secret(), first.token.secret.expose_secret());
    fleet.assert_signed_up_once(&wanted).await;
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_belongs_to_its_first_sign_up() {
    let fleet = ServedFleet::start().await;
    let (client, wanted) = (fleet.client(), customer("acme"));
    client.sign_up(&wanted).await.unwrap();
    let mut other = customer("acme");
    other.key = "another order".to_owned();
    let taken = client.sign_up(&other).await.unwrap_err();
    assert_eq!((taken.code(), taken.status(), taken.is_transient()), ("already_exists", Some(409), false));
    assert!(!taken.next_steps().is_empty() && taken.detail().contains("acme"), "{taken}");
    let mut changed = customer("globex");
    changed.key.clone_from(&wanted.key);
    assert_eq!(client.sign_up(&changed).await.unwrap_err().code(), "idempotency_key_reused");
    fleet.assert_signed_up_once(&wanted).await;
    fleet.stop().await;
}

/// An idempotency key counts for one token of the admin API. The label of the tenant counts for every one.
#[tokio::test(flavor = "multi_thread")]
async fn a_sign_up_continues_with_another_token_of_the_admin_api() {
    let fleet = ServedFleet::start().await;
    let wanted = customer("acme");
    let first = fleet.client().sign_up(&wanted).await.unwrap();
    let operator = TokenWanted { operator: Some("admin".to_owned()), ..TokenWanted::default() };
    let rotated = fleet.client().create_token(&operator).await.unwrap().secret;
    let client = fleet_client::FleetClient::new(fleet.url.as_str(), rotated).unwrap();
    let again = client.sign_up(&wanted).await.unwrap();
    assert_eq!(again.tenant.id, first.tenant.id);
    assert_ne!(again.token.secret.expose_secret(), first.token.secret.expose_secret());
    assert_eq!(fleet.list("/v1/tenants").await.len(), 1);
    fleet.stop().await;
}

/// The second client has another token, so it gets no stored answers: as a call that is repeated after a day.
#[tokio::test(flavor = "multi_thread")]
async fn a_finished_sign_up_changes_no_member() {
    let fleet = ServedFleet::start().await;
    let (client, mut wanted) = (fleet.client(), customer("acme"));
    let day = Duration::from_secs(86_400);
    wanted.token_lifetime = Some(day);
    let first = client.sign_up(&wanted).await.unwrap();
    let (tenant, ends) = (&first.tenant.id, first.token.token.expires_at.clone());
    assert_eq!(first.token.token.tenant.as_ref(), Some(tenant), "the token opens this tenant only");
    let operator = TokenWanted { operator: Some("admin".to_owned()), ..TokenWanted::default() };
    let later =
        fleet_client::FleetClient::new(fleet.url.as_str(), client.create_token(&operator).await.unwrap().secret);
    let later = later.unwrap();

    client.add_member(tenant, &wanted.member, "reader").await.unwrap();
    let again = later.sign_up(&wanted).await.unwrap();
    assert_eq!((again.member.role.as_str(), again.token.token.expires_at), ("reader", ends), "the new role stays");

    wanted.token_lifetime = Some(Duration::from_millis(1));
    assert_eq!(later.sign_up(&wanted).await.unwrap_err().kind(), ErrorKind::SignUpOver);
    wanted.token_lifetime = Some(day);
    client.remove_member(tenant, &wanted.member).await.unwrap();
    let over = later.sign_up(&wanted).await.unwrap_err();
    assert_eq!((over.code(), over.is_transient()), ("sign_up_over", false));
    assert!(client.list_members(tenant, None).await.unwrap().items.is_empty(), "the member does not come back");
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_answers_make_no_second_tenant() {
    let fleet = ServedFleet::start().await;
    for (name, cut) in [("acme", Cut::AfterAnswer), ("globex", Cut::AfterRequest)] {
        let proxy = CuttingProxy::start(&fleet.url, move |n| if n % 2 == 0 { cut } else { Cut::No }).await;
        let wanted = customer(name);
        let done = fleet.client_through(&proxy.url).sign_up(&wanted).await.unwrap();
        assert_eq!(done.tenant.state, "active");
        fleet.assert_signed_up_once(&wanted).await;
    }
    fleet.stop().await;
}

/// From some request on, no answer arrives any more: as in an application that dies there. The next call finishes the job.
#[tokio::test(flavor = "multi_thread")]
async fn a_sign_up_that_ended_at_any_request_is_finished_by_the_next_call() {
    let fleet = ServedFleet::start().await;
    let mut ended_early = 0;
    for answered in 0.. {
        let wanted = customer(&format!("customer-{answered}"));
        let proxy =
            CuttingProxy::start(&fleet.url, move |n| if n < answered { Cut::No } else { Cut::AfterAnswer }).await;
        let cut_off = fleet.client_through(&proxy.url).sign_up(&wanted).await;
        fleet.client().sign_up(&wanted).await.unwrap();
        fleet.assert_signed_up_once(&wanted).await;
        match cut_off {
            Err(error) => assert!(error.is_transient() && error.kind() == ErrorKind::ConnectionFailed, "{error}"),
            Ok(_) => break,
        }
        ended_early += 1;
    }
    assert!(ended_early >= 5, "only {ended_early} requests were cut");
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_steps_are_calls_of_their_own() {
    let fleet = ServedFleet::start().await;
    let client = fleet.client();
    let new = NewTenantRequest { name: "acme".to_owned(), ..NewTenantRequest::default() };
    let created = client.create_tenant(&new).idempotency_key("signup-4711").await.unwrap();
    let again = client.create_tenant(&new).idempotency_key("signup-4711").await.unwrap();
    assert_eq!(again.tenant.id, created.tenant.id);
    assert_eq!(client.create_tenant(&new).await.unwrap_err().code(), "already_exists");
    let tenant = client.wait_for_tenant("acme", Duration::from_secs(60)).await.unwrap();
    assert_eq!((tenant.id.as_str(), tenant.state.as_str()), (created.tenant.id.as_str(), "active"));
    client.add_member("acme", "user-17", "reader").await.unwrap();
    assert_eq!(client.add_member("acme", "user-17", "writer").await.unwrap().role, "writer");
    let wanted = TokenWanted { member: Some("user-17".to_owned()), ..TokenWanted::default() };
    assert!(!client.create_token(&wanted).await.unwrap().secret.expose_secret().is_empty());
    fleet.stop().await;
}
