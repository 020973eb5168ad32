//! Every way to name a tenant, and every way to contradict oneself.

use std::time::{Duration, Instant};

use catalog::name::NameKind;
use catalog::tokens::TokenScope;
use catalog::{TenantId, TenantName, names};
use proptest::prelude::*;
use tenant_router::{ErrorKind, Naming, Read, RequestView, Role, Router};

use crate::world::{World, canary, note};

/// A fleet with acme (alias `acme-old`, domain `notes.acme.example`) and globex, named in every way there is.
struct Named {
    world: World,
    router: Router,
    service: String,
    acme: TenantId,
}

impl Named {
    async fn new() -> Self {
        let world = World::new().await;
        let acme = world.tenant("acme").await;
        world.tenant("globex").await;
        let mut tx = world.catalog.write().await.unwrap();
        names::insert_name(&mut tx, &TenantName::parse_slug("acme-old").unwrap(), acme, NameKind::Alias).await.unwrap();
        names::insert_name(&mut tx, &TenantName::parse_host("notes.acme.example").unwrap(), acme, NameKind::Host)
            .await
            .unwrap();
        tx.commit().await.unwrap();
        let naming = Naming::default().domain("fleet.example").custom_domains(["www.fleet.example", "localhost"]);
        let router = world.builder().naming(naming).build().await.unwrap();
        let service = world.token(TokenScope::Service { role: Role::Reader }).await;
        Self { world, router, service, acme }
    }

    /// Which tenant a service is taken to.
    async fn reach(&self, path: &str, host: Option<&str>, header: Option<&str>) -> Result<TenantId, ErrorKind> {
        let request = RequestView { credential: Some(&self.service), path, host, tenant_header: header };
        let tenant = self.router.open::<Read>(&request).await.map_err(|error| error.kind())?;
        assert_eq!(note(&tenant, 1).await.unwrap(), canary(tenant.name(), 1));
        Ok(tenant.id())
    }
}

#[tokio::test]
async fn every_way_leads_to_the_tenant() {
    let fleet = Named::new().await;
    let ways: &[(&str, Option<&str>, Option<&str>)] = &[
        ("/t/acme", None, None),
        ("/t/acme/", None, None),
        ("/t/acme/notes/1", None, None),
        ("/t/ACME/notes", None, None),
        ("/t/acme-old/notes", None, None),
        ("/notes", Some("acme.fleet.example"), None),
        ("/notes", Some("ACME.Fleet.Example.:8443"), None),
        ("/notes", Some("notes.acme.example"), None),
        ("/notes", Some("NOTES.acme.example:443"), None),
        ("/notes", None, Some("acme")),
        ("/notes", Some("fleet.example"), Some("Acme")),
        ("/notes", Some("127.0.0.1:8080"), Some("acme")),
        ("/t/acme/notes", Some("[::1]:8080"), None),
        ("/t/acme/notes", Some("www.fleet.example"), None),
        ("/t/acme/notes", Some("localhost:8080"), None),
        // All of them together, an alias among them.
        ("/t/acme-old/notes", Some("notes.acme.example"), Some("ACME")),
    ];
    for (path, host, header) in ways {
        assert_eq!(fleet.reach(path, *host, *header).await, Ok(fleet.acme), "{path} {host:?} {header:?}");
    }
}

#[tokio::test]
async fn names_that_disagree_are_refused_even_when_one_is_unknown() {
    let fleet = Named::new().await;
    let spellings = ["acme", "globex", "nobody", "somebody"];
    for one in spellings {
        for other in spellings.into_iter().filter(|other| *other != one) {
            let (path, host) = (format!("/t/{one}/notes"), format!("{other}.fleet.example"));
            let neutral = "www.fleet.example";
            let answers = [
                fleet.reach(&path, Some(&host), None).await,
                fleet.reach(&path, Some(neutral), Some(other)).await,
                fleet.reach("/notes", Some(&host), Some(one)).await,
                fleet.reach(&path, Some(&host), Some(one)).await,
            ];
            for answer in answers {
                assert_eq!(answer, Err(ErrorKind::TenantAmbiguous), "{one} and {other}");
            }
        }
    }
    let custom = fleet.reach("/t/globex/notes", Some("notes.acme.example"), None).await;
    assert_eq!(custom, Err(ErrorKind::TenantAmbiguous));
    let unknown = fleet.reach("/t/acme/notes", Some("notes.nobody.example"), None).await;
    assert_eq!(unknown, Err(ErrorKind::TenantAmbiguous));
}

#[tokio::test]
async fn no_name_a_bad_name_and_an_unknown_name_are_told_apart() {
    let fleet = Named::new().await;
    assert_eq!(fleet.reach("/notes", None, None).await, Err(ErrorKind::TenantUnnamed));
    assert_eq!(fleet.reach("/notes", Some("fleet.example"), None).await, Err(ErrorKind::TenantUnnamed));
    assert_eq!(fleet.reach("/t", None, None).await, Err(ErrorKind::TenantUnnamed));
    assert_eq!(fleet.reach("/t/nobody/notes", None, None).await, Err(ErrorKind::NotFound));
    assert_eq!(fleet.reach("/notes", Some("notes.nobody.example"), None).await, Err(ErrorKind::NotFound));
    let long = "a".repeat(300);
    for bad in ["", "..", "%2e", "%61cme", "ac me", "acme.", "acme%00", "a\0cme", "xn--80ak6aa92e", "-a", "www", &long]
    {
        let path = format!("/t/{bad}/notes");
        assert_eq!(fleet.reach(&path, None, None).await, Err(ErrorKind::TenantNameInvalid), "{bad:?}");
        assert_eq!(fleet.reach("/notes", None, Some(bad)).await, Err(ErrorKind::TenantNameInvalid), "{bad:?}");
    }
    for bad in ["a b", "..", "a..b", "acme.fleet.example:99999", "x.y.fleet.example", "%61cme.fleet.example"] {
        assert_eq!(fleet.reach("/notes", Some(bad), None).await, Err(ErrorKind::TenantNameInvalid), "{bad:?}");
    }
}

#[tokio::test]
async fn only_services_may_use_the_header() {
    let fleet = Named::new().await;
    let token = fleet.world.token_for(fleet.acme, Role::Manager).await;
    let request = RequestView { credential: Some(&token), path: "/notes", host: None, tenant_header: Some("acme") };
    let refused = fleet.router.open::<Read>(&request).await.unwrap_err();
    assert_eq!((refused.kind(), refused.status()), (ErrorKind::TenantHeaderRefused, 400));
    // Where the header is off, it is not looked at.
    let router = fleet.world.builder().naming(Naming::default().without_header()).build().await.unwrap();
    let request = RequestView { tenant_header: Some("globex"), path: "/t/acme", ..request };
    assert_eq!(router.open::<Read>(&request).await.unwrap().id(), fleet.acme);
}

#[tokio::test]
async fn a_tenants_own_token_names_it_when_nothing_else_does() {
    let fleet = Named::new().await;
    let token = fleet.world.token_for(fleet.acme, Role::Reader).await;
    let open = |path: &'static str| {
        let (router, token) = (fleet.router.clone(), token.clone());
        async move {
            let request = RequestView { credential: Some(&token), path, ..RequestView::default() };
            router.open::<Read>(&request).await.map(|tenant| tenant.id()).map_err(|error| error.kind())
        }
    };
    assert_eq!(open("/notes").await, Ok(fleet.acme));
    assert_eq!(open("/t/acme/notes").await, Ok(fleet.acme));
    // Elsewhere it is a stranger, like any other.
    assert_eq!(open("/t/globex/notes").await, Err(ErrorKind::NotFound));
    assert_eq!(open("/t/nobody/notes").await, Err(ErrorKind::NotFound));
}

/// Who has no role in a tenant learns nothing of names: not whether one exists, and not whether two lead to one tenant.
#[tokio::test]
async fn strangers_hear_the_same_of_any_name_and_of_any_two() {
    let fleet = Named::new().await;
    let own = fleet.world.tenant("initech").await;
    let strangers = [
        fleet.world.token_for(own, Role::Manager).await,
        fleet.world.token(TokenScope::Member { principal: "eve".to_owned() }).await,
        fleet.world.token(TokenScope::Operator { role: catalog::tokens::OperatorRole::Admin }).await,
    ];
    let open = |token: String, path: String, host: &'static str| {
        let router = fleet.router.clone();
        async move {
            let request = RequestView { credential: Some(&token), path: &path, host: Some(host), tenant_header: None };
            let begun = Instant::now();
            let refused = router.open::<Read>(&request).await.map(drop).unwrap_err().kind();
            // A sleep never ends early: this bound holds on any machine.
            assert!(begun.elapsed() >= Duration::from_millis(10), "{path} {host} was answered at once");
            refused
        }
    };
    for token in &strangers {
        for name in ["acme", "acme-old", "globex", "nobody"] {
            assert_eq!(open(token.clone(), format!("/t/{name}/x"), "localhost").await, ErrorKind::NotFound, "{name}");
        }
        // Alias and name of one tenant, of two, of none, of one's own and another's.
        for (name, host) in [
            ("acme-old", "acme.fleet.example"),
            ("acme", "notes.acme.example"),
            ("acme", "globex.fleet.example"),
            ("acme", "nobody.fleet.example"),
            ("nobody", "somebody.fleet.example"),
            ("nobody", "acme.fleet.example"),
            ("initech", "acme.fleet.example"),
            ("initech", "nobody.fleet.example"),
        ] {
            let refused = open(token.clone(), format!("/t/{name}/x"), host).await;
            assert_eq!(refused, ErrorKind::TenantAmbiguous, "{name} {host}");
        }
    }
}

#[tokio::test]
async fn a_naming_with_a_bad_host_is_refused_when_the_router_is_built() {
    let world = World::new().await;
    for naming in [Naming::default().domain("a b"), Naming::default().custom_domains(["127.0.0.1"])] {
        assert_eq!(world.builder().naming(naming).build().await.unwrap_err().kind(), ErrorKind::Misconfigured);
    }
}

#[test]
fn whatever_is_sent_leads_to_the_tenant_it_spells_or_nowhere() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let fleet = runtime.block_on(Named::new());
    let spelling = prop_oneof![
        // Case, dots, ports, encodings and neighbours of names that exist, and anything at all.
        "(?i)(acme|globex)",
        "[./%]{0,2}(acme|ACME|globex|acme-old)[.:/%0-9a-f]{0,4}",
        "\\PC{0,20}",
        any::<String>(),
    ];
    proptest!(ProptestConfig::with_cases(400), |(path in spelling.clone(), host in proptest::option::of(spelling))| {
        let full = format!("/t/{path}/notes");
        let reached = runtime.block_on(fleet.reach(&full, host.as_deref(), None));
        if let Ok(id) = reached {
            let segment = path.split('/').next().unwrap_or_default().to_ascii_lowercase();
            let wanted = if segment == "globex" { "globex" } else { "acme" };
            prop_assert!(["acme", "acme-old", "globex"].contains(&segment.as_str()), "{full} reached {id}");
            prop_assert_eq!(id == fleet.acme, wanted == "acme", "{} {:?}", full, host);
        }
    });
}
