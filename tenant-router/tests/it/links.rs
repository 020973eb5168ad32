//! Ids that leave a request: keys of rows, keys of files and signed links.

use std::time::Duration;

use catalog::TenantState;
use tenant_router::{ErrorKind, LinkPurpose, Read, RequestView, Role, Router, Tenant, TenantKey};

use crate::world::{World, canary, note, open};

const DOWNLOAD: LinkPurpose<i64> = LinkPurpose::new("download", Duration::from_secs(600));
const UPLOAD: LinkPurpose<i64> = LinkPurpose::new("upload", Duration::from_secs(600));
const OVER: LinkPurpose<i64> = LinkPurpose::new("download", Duration::ZERO);

async fn open_link(router: &Router, tenant: &str, link: &str) -> Result<(Tenant<Read>, i64), ErrorKind> {
    let path = format!("/t/{tenant}/download");
    let request = RequestView { path: &path, ..RequestView::default() };
    router.open_link(&request, &DOWNLOAD, link).await.map_err(|error| error.kind())
}

#[tokio::test]
async fn the_key_of_a_row_belongs_to_its_tenant() {
    let world = World::new().await;
    let ids = world.tenants(&["acme", "globex"]).await;
    let (acme, globex) = (world.open_as_manager::<Read>("acme").await, world.open_as_manager::<Read>("globex").await);
    let key = acme.key(1_i64);
    assert_eq!((key, key.tenant()), (acme.key(1), ids[0]));
    assert_ne!(key, globex.key(1));
    let text = serde_json::to_string(&key).unwrap();
    let back: TenantKey<i64> = serde_json::from_str(&text).unwrap();
    assert_eq!(acme.own_id(back).unwrap(), 1);
    assert_eq!(globex.own_id(back).unwrap_err().kind(), ErrorKind::NotFound);
    for parts in [&["exports", "tasks.csv"][..], &["..", "..", &ids[1].to_string(), "x"], &["/etc/passwd"]] {
        let object = acme.object_key(parts).to_string();
        assert!(object.starts_with(&format!("tenants/{}/", ids[0])) && !object.contains(".."), "{object}");
        assert_eq!(object.matches('/').count(), parts.len() + 1, "{object}");
    }
}

#[tokio::test]
async fn a_link_opens_its_value_of_its_tenant_and_nothing_else() {
    let world = World::new().await;
    let ids = world.tenants(&["acme", "globex"]).await;
    let router = world.router().await;
    let acme = open::<Read>(&router, "acme", &world.token_for(ids[0], Role::Reader).await).await.unwrap();
    let link = acme.sign_link(&DOWNLOAD, &2).unwrap();
    assert!(link.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)), "a segment of a path: {link}");
    let (tenant, value) = open_link(&router, "acme", &link).await.unwrap();
    assert_eq!((tenant.id(), value, tenant.role()), (ids[0], 2, Role::Reader));
    assert_eq!(tenant.principal().name(), acme.principal().name(), "the log names the caller that made the link");
    assert_eq!(note(&tenant, value).await.unwrap(), canary("acme", 2));
    assert_eq!(acme.link_value(&DOWNLOAD, &link).unwrap(), 2);

    let refused = Err(ErrorKind::NotFound);
    let kind = |opened: Result<(Tenant<Read>, i64), ErrorKind>| opened.map(|(_, value)| value);
    assert_eq!(kind(open_link(&router, "globex", &link).await), refused, "the same id exists there");
    assert_eq!(kind(open_link(&router, "nowhere", &link).await), refused);
    assert_eq!(acme.link_value(&UPLOAD, &link).unwrap_err().kind(), ErrorKind::NotFound, "another purpose");
    let over = acme.sign_link(&OVER, &2).unwrap();
    assert_eq!(kind(open_link(&router, "acme", &over).await), refused, "its time is over");
    for at in 0..link.len() {
        let mut bytes = link.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        assert!(acme.link_value(&DOWNLOAD, std::str::from_utf8(&bytes).unwrap()).is_err(), "byte {at}");
        assert!(acme.link_value(&DOWNLOAD, &link[..at]).is_err(), "cut at {at}");
    }
    for wrong in ["", ".", "a.b", &format!("{link}x"), &format!("{link}.x"), &"a".repeat(100_000)] {
        assert_eq!(kind(open_link(&router, "acme", wrong).await), refused);
    }
}

/// A restore may have given the id to another row.
#[tokio::test]
async fn a_link_ends_with_the_generation_of_its_database() {
    let world = World::new().await;
    let acme = world.tenant("acme").await;
    let router = world.router().await;
    let token = world.token_for(acme, Role::Manager).await;
    let link = open::<Read>(&router, "acme", &token).await.unwrap().sign_link(&DOWNLOAD, &2).unwrap();
    world.fill(acme, "restored").await;
    assert!(matches!(open_link(&router, "acme", &link).await, Err(ErrorKind::NotFound)));
    let link = open::<Read>(&router, "acme", &token).await.unwrap().sign_link(&DOWNLOAD, &2).unwrap();
    world.update_tenant(acme, |update| update.state = Some(TenantState::Suspended)).await;
    assert!(matches!(open_link(&router, "acme", &link).await, Err(ErrorKind::NotFound)));
}
