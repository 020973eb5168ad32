//! The extractors in a real axum application.

use axum::body::Body;
use axum::extract::FromRef;
use axum::routing::{get, post};
use axum::{Json, middleware};
use catalog::tokens::TokenScope;
use catalog::{TenantId, TenantState};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tenant_router::axum::{PublicAnswer, answers};
use tenant_router::{Error, Read, Role, Router, Tenant, Write};
use tower::ServiceExt as _;

use crate::world::{World, canary, note};

#[derive(Clone)]
struct Application {
    router: Router,
}

impl FromRef<Application> for Router {
    fn from_ref(application: &Application) -> Self {
        application.router.clone()
    }
}

async fn first_note(tenant: Tenant<Read>) -> Result<String, Error> {
    note(&tenant, 1).await
}

async fn add_note(tenant: Tenant<Write>) -> Result<Json<u64>, Error> {
    let added = tenant.execute("insert into notes (id, body) values (1, 'again')", ()).await?;
    Ok(Json(added.rows_affected))
}

/// A page that every visitor may see; `?fail` makes it an error.
async fn front_page(uri: http::Uri) -> PublicAnswer<Result<String, Error>> {
    let answer = match uri.query() {
        None => Ok("welcome".to_owned()),
        Some(_) => Err(tenant_router::ErrorKind::NotFound.into()),
    };
    PublicAnswer { answer, age_max: std::time::Duration::from_secs(60) }
}

fn application(router: Router) -> axum::Router {
    let notes = axum::Router::new()
        .route("/notes/first", get(first_note))
        .route("/notes", post(add_note))
        .route("/front", get(front_page));
    axum::Router::new()
        .nest("/t/{tenant}", notes)
        .layer(middleware::from_fn(answers))
        .with_state(Application { router })
}

fn request(method: &str, path: &str, token: Option<&str>) -> Request<Body> {
    let request = Request::builder().method(method).uri(path).header("x-request-id", "req-1");
    let request = match token {
        Some(token) => request.header("authorization", format!("Bearer {token}")),
        None => request,
    };
    request.body(Body::empty()).unwrap()
}

async fn text(response: Response<Body>) -> (StatusCode, String, String) {
    let (status, headers) = (response.status(), format!("{:?}", response.headers()));
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, headers, String::from_utf8(body.to_vec()).unwrap())
}

async fn fleet() -> (World, Vec<TenantId>, axum::Router) {
    let world = World::new().await;
    let ids = world.tenants(&["acme", "globex"]).await;
    let application = application(world.router().await);
    (world, ids, application)
}

#[tokio::test]
async fn only_a_public_answer_may_be_kept() {
    let (_world, _, application) = fleet().await;
    for (path, expected) in [
        ("/t/acme/front", "public, max-age=60"),
        ("/t/acme/front?fail", "private, no-store"),
        ("/t/acme/notes/first", "private, no-store"),
    ] {
        let answer = application.clone().oneshot(request("GET", path, None)).await.unwrap();
        assert_eq!(answer.headers()["cache-control"], expected, "{path}");
    }
}

#[tokio::test]
async fn handlers_receive_their_tenant() {
    let (world, ids, application) = fleet().await;
    for (name, id) in ["acme", "globex"].into_iter().zip(ids) {
        let token = world.token_for(id, Role::Reader).await;
        let path = format!("/t/{name}/notes/first");
        let (status, headers, body) =
            text(application.clone().oneshot(request("GET", &path, Some(&token))).await.unwrap()).await;
        assert_eq!((status, body), (StatusCode::OK, canary(name, 1)));
        assert!(headers.contains("private, no-store") && headers.contains("req-1"), "{headers}");
    }
}

#[tokio::test]
async fn foreign_unknown_and_not_a_member_are_the_same_bytes() {
    let (world, ids, application) = fleet().await;
    let foreign = world.token_for(ids[0], Role::Manager).await;
    let nobody = world.token(TokenScope::Member { principal: "eve".to_owned() }).await;
    world.tenant("removed").await;
    let removed = world.record(world.tenant("gone").await).await.id;
    world.update_tenant(removed, |update| update.state = Some(TenantState::Deleted)).await;
    let own = world.token_for(removed, Role::Manager).await;
    let mut answers = std::collections::HashSet::new();
    for (name, token) in [
        ("globex", &foreign),
        ("nobody", &foreign),
        ("globex", &nobody),
        ("nobody", &nobody),
        ("gone", &own),
        ("gone", &foreign),
    ] {
        for method_and_path in [("GET", format!("/t/{name}/notes/first")), ("POST", format!("/t/{name}/notes"))] {
            let (method, path) = method_and_path;
            answers.insert(text(application.clone().oneshot(request(method, &path, Some(token))).await.unwrap()).await);
        }
    }
    assert_eq!(answers.len(), 1, "{answers:#?}");
    let (status, _, body) = answers.into_iter().next().unwrap();
    let problem: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (status, &problem["code"], &problem["request_id"]),
        (StatusCode::NOT_FOUND, &"not_found".into(), &"req-1".into())
    );
}

#[tokio::test]
async fn without_a_valid_token_every_tenant_answers_the_same() {
    let (_world, _ids, application) = fleet().await;
    let mut answers = std::collections::HashSet::new();
    for name in ["acme", "nobody", "..", "www"] {
        for token in [None, Some("flt_nonsense"), Some("")] {
            let path = format!("/t/{name}/notes/first");
            answers.insert(text(application.clone().oneshot(request("GET", &path, token)).await.unwrap()).await);
        }
    }
    assert_eq!(answers.len(), 1, "{answers:#?}");
    let (status, headers, body) = answers.into_iter().next().unwrap();
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert!(headers.contains(r#""www-authenticate": "Bearer""#), "{headers}");
    assert!(body.contains(r#""code":"unauthenticated""#), "{body}");
}

#[tokio::test]
async fn errors_are_problems_with_all_their_fields() {
    let (world, ids, application) = fleet().await;
    let token = world.token_for(ids[0], Role::Writer).await;
    let (status, headers, body) =
        text(application.oneshot(request("POST", "/t/acme/notes", Some(&token))).await.unwrap()).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(headers.contains("application/problem+json"), "{headers}");
    let problem: Value = serde_json::from_str(&body).unwrap();
    for field in ["type", "title", "status", "detail", "instance", "code", "request_id", "next_steps"] {
        assert!(!problem[field].is_null(), "{field} is missing in {problem}");
    }
    assert_eq!((&problem["code"], &problem["status"]), (&"constraint_violation".into(), &409.into()));
}

#[tokio::test]
async fn a_request_that_names_two_tenants_is_refused() {
    let (world, ids, application) = fleet().await;
    let token = world.token(TokenScope::Service { role: Role::Reader }).await;
    let mut two = request("GET", "/t/acme/notes/first", Some(&token));
    two.headers_mut().insert("x-tenant", "globex".parse().unwrap());
    let (status, _, body) = text(application.clone().oneshot(two).await.unwrap()).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(body.contains("tenant_ambiguous"), "{body}");
    let mut twice = request("GET", "/t/acme/notes/first", Some(&token));
    twice.headers_mut().append("x-tenant", "acme".parse().unwrap());
    twice.headers_mut().append("x-tenant", "acme".parse().unwrap());
    assert_eq!(application.clone().oneshot(twice).await.unwrap().status(), StatusCode::BAD_REQUEST);
    let mut hosts = request("GET", "http://one.example/t/acme/notes/first", Some(&token));
    hosts.headers_mut().insert("host", "two.example".parse().unwrap());
    assert_eq!(application.clone().oneshot(hosts).await.unwrap().status(), StatusCode::BAD_REQUEST);
    // Two tokens prove nobody.
    let mut tokens = request("GET", "/t/acme/notes/first", Some(&token));
    let other = world.token_for(ids[1], Role::Reader).await;
    tokens.headers_mut().append("authorization", format!("Bearer {other}").parse().unwrap());
    assert_eq!(application.oneshot(tokens).await.unwrap().status(), StatusCode::UNAUTHORIZED);
}
