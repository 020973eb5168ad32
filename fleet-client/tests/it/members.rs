//! The members of a tenant: list, change, remove.

use fleet_client::ApiRequest;
use fleet_client::fleet_api::servers::ServerView;

use crate::served_fleet::{ServedFleet, customer};

#[tokio::test(flavor = "multi_thread")]
async fn members_are_listed_and_removed() {
    let fleet = ServedFleet::start().await;
    let client = fleet.client();
    client.sign_up(&customer("acme")).await.unwrap();
    client.add_member("acme", "a/b é", "reader").await.unwrap();
    client.add_member("acme", "a/b é", "writer").await.unwrap();
    let page = client.list_members("acme", None).await.unwrap();
    let members: Vec<_> = page.items.iter().map(|member| (&*member.principal, &*member.role)).collect();
    assert_eq!(members, [("a/b é", "writer"), ("owner@acme", "manager")]);
    assert_eq!(page.next_cursor, None);
    client.remove_member("acme", "a/b é").await.unwrap();
    assert_eq!(client.remove_member("acme", "a/b é").await.unwrap_err().code(), "not_found");
    assert_eq!(client.list_members("acme", None).await.unwrap().items.len(), 1);
    assert_eq!(client.list_members("globex", None).await.unwrap_err().code(), "not_found");
    let wrong = client.list_members("acme", Some("no cursor")).await.unwrap_err();
    assert_eq!(wrong.status(), Some(400), "{wrong}");
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn any_other_request_is_sent_with_the_types_of_the_api() {
    let fleet = ServedFleet::start().await;
    let client = fleet.client();
    let server: ServerView = client.send(&ApiRequest::get("/v1/servers/local")).await.unwrap();
    assert_eq!((&*server.engine, server.tenants), ("sqlite", 0));
    let missing = client.send::<ServerView>(&ApiRequest::get("/v1/servers/none")).await.unwrap_err();
    assert_eq!(missing.code(), "not_found");
    fleet.stop().await;
}
