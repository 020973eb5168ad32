//! Operators who act as a member of a tenant.

use catalog::members;
use catalog::tokens::{Impersonation, TokenScope};
use secrecy::ExposeSecret as _;
use tenant_router::{ErrorKind, ImpersonationSession, Manage, Read, RequestView, Role, Router, Write};

use crate::world::{World, open};

async fn start(router: &Router, tenant: &str, ticket: &str) -> Result<ImpersonationSession, ErrorKind> {
    let path = format!("/t/{tenant}/support");
    let request = RequestView { path: &path, ..RequestView::default() };
    router.start_impersonation(&request, ticket).await.map_err(|error| error.kind())
}

#[tokio::test]
async fn a_session_has_the_rights_of_the_member_and_names_the_operator() {
    let world = World::new().await;
    let ids = world.tenants(&["acme", "globex"]).await;
    let mut tx = world.catalog.write().await.unwrap();
    for id in &ids {
        members::set_member(&mut tx, *id, "ann", Role::Writer).await.unwrap();
    }
    tx.commit().await.unwrap();
    let of = Impersonation { tenant: ids[0], principal: "ann".to_owned(), staff: "token:tok_support".to_owned() };
    let minute = world.catalog.now() + 60_000;
    let ticket = world.token_until(TokenScope::ImpersonationTicket(of), minute).await;
    let router = world.router().await;
    let refused = ErrorKind::Unauthenticated;
    assert_eq!(
        open::<Read>(&router, "acme", &ticket).await.unwrap_err().kind(),
        refused,
        "a ticket is not a credential"
    );
    for (tenant, ticket) in [("globex", &*ticket), ("nowhere", &*ticket), ("acme", "wrong"), ("acme", "")] {
        assert_eq!(start(&router, tenant, ticket).await.unwrap_err(), refused, "{tenant} {ticket}");
    }
    let (one, two) = tokio::join!(start(&router, "acme", &ticket), start(&router, "acme", &ticket));
    let mut sessions: Vec<_> = [one, two].into_iter().flatten().collect();
    assert_eq!(sessions.len(), 1, "a ticket is exchanged once");
    let session = sessions.remove(0);
    assert_eq!((&*session.principal, &*session.staff), ("ann", "token:tok_support"));
    let secret = session.secret.expose_secret();
    let acme = open::<Write>(&router, "acme", secret).await.unwrap();
    assert_eq!((acme.principal().name(), acme.principal().staff()), ("ann", Some("token:tok_support")));
    assert_eq!(open::<Manage>(&router, "acme", secret).await.unwrap_err().kind(), ErrorKind::Forbidden);
    assert_eq!(open::<Read>(&router, "globex", secret).await.unwrap_err().kind(), ErrorKind::NotFound);
    let own = world.token(TokenScope::Member { principal: "ann".to_owned() }).await;
    assert_eq!(open::<Read>(&router, "acme", &own).await.unwrap().principal().staff(), None);
    assert_eq!(router.end_impersonation(&own.into()).await.unwrap_err().kind(), refused, "not such a session");
    for _ in 0..2 {
        router.end_impersonation(&session.secret).await.unwrap();
    }
    assert_eq!(open::<Read>(&router, "acme", secret).await.unwrap_err().kind(), refused, "the session has ended");
    let log = world.open_as_manager::<Manage>("acme").await.audit_log(None, 100).await.unwrap();
    let entries: Vec<_> =
        log.entries.iter().map(|entry| (&*entry.kind, &*entry.actor, entry.on_behalf_of.as_deref())).collect();
    let [staff, ann] = ["token:tok_support", "ann"];
    assert_eq!(entries, [("impersonation.ended", staff, Some(ann)), ("impersonation.started", staff, Some(ann))]);
    assert_eq!(world.open_as_manager::<Manage>("globex").await.audit_log(None, 100).await.unwrap().entries, []);
}
