//! The list of routes: one line per noun, and the layers around them.

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{any, get};
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::Problem;
use super::limits::BODY_BYTES_MAX;
use super::middleware::{ListenerKind, handle_request, panic_response};
use super::{ApiState, RequestTransport, admin, admission, data, health, idempotency, openapi, request_shape};
use crate::config::DataPath;
use crate::error::ErrorKind;

/// Every route behind the admission.
fn guarded_routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .merge(admin::status::routes())
        .merge(admin::doctor::routes())
        .merge(admin::isolation::routes())
        .merge(admin::scrub::routes())
        .merge(admin::tenants::routes())
        .merge(admin::plans::routes())
        .merge(admin::members::routes())
        .merge(admin::domains::routes())
        .merge(admin::impersonations::routes())
        .merge(admin::accounts::routes())
        .merge(admin::jobs::routes())
        .merge(admin::tokens::routes())
        .merge(admin::servers::routes())
        .merge(admin::releases::routes())
        .merge(admin::migrations::routes())
        .merge(admin::backups::routes())
        .merge(admin::restores::routes())
        .merge(admin::operations::routes())
        .merge(admin::queries::routes())
        .merge(admin::events::routes())
        .merge(admin::history::routes())
        .merge(admin::webhooks::routes())
}

/// The routes that need no credential.
fn public_routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(health::report_liveness))
        .routes(routes!(health::report_readiness))
        .routes(routes!(health::report_metrics))
}

/// All documented routes.
pub(crate) fn documented_routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::with_openapi(openapi::OpenApiDocument::openapi())
        .merge(guarded_routes())
        .merge(admin::domains::public_routes())
        .merge(public_routes())
}

/// The admin listener's service.
pub(crate) fn admin_service(api: ApiState) -> Router {
    let document: Arc<str> = openapi::document_json().into();
    let shapes = request_shape::RequestShapes::from_document(
        &serde_json::from_str(&document).expect("the document is plain JSON"),
    );
    let check_shape = from_fn_with_state(Arc::new(shapes), request_shape::check_shape);
    let guarded = guarded_routes()
        .route_layer(from_fn_with_state(api.clone(), idempotency::run_once))
        .route_layer(check_shape.clone())
        .route_layer(from_fn_with_state(api.clone(), admission::admit_request));
    let questions = admin::domains::public_routes().route_layer(check_shape);
    let (router, _) = guarded.merge(questions).merge(public_routes()).split_for_parts();
    let transport = api.transport;
    let router =
        router.route("/openapi.json", get(move || openapi::serve_document(Arc::clone(&document)))).with_state(api);
    add_layers(router, ListenerKind::Admin, transport)
}

/// All documented routes of the data listener. The statements are at the root, too, where the host, the token or a
/// header names the tenant.
pub(crate) fn data_routes(path: &DataPath) -> OpenApiRouter<ApiState> {
    OpenApiRouter::with_openapi(openapi::DataDocument::openapi())
        .merge(data::statements::routes())
        .merge(data::audit::routes())
        .nest(&path.to_string(), data::statements::routes().merge(data::audit::routes()))
        .routes(routes!(health::report_liveness))
        .routes(routes!(health::report_readiness))
}

/// The data listener's service.
pub(crate) fn data_service(api: ApiState) -> Router {
    let (transport, path) = (api.transport, api.app.config.data_path.clone());
    let document: Arc<str> = openapi::data_document_json(&path).into();
    let (router, _) = data_routes(&path).split_for_parts();
    let router =
        router.route("/openapi.json", get(move || openapi::serve_document(Arc::clone(&document)))).with_state(api);
    let router = router.route("/v1", any(wrong_listener)).route("/v1/{*rest}", any(wrong_listener));
    add_layers(router, ListenerKind::Data, transport)
}

/// The answer to a request for the admin API at the data API's address.
async fn wrong_listener() -> Problem {
    let detail = "this address serves tenants' data; the admin API is at the other address of the server";
    Problem::new(ErrorKind::WrongListener, detail)
        .try_next("use the admin address that `fleetctl serve` prints; its port is 8081 unless it was changed")
}

/// The layers of both listeners, innermost first.
fn add_layers(router: Router, listener: ListenerKind, transport: RequestTransport) -> Router {
    router
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(CatchPanicLayer::custom(panic_response))
        .layer(from_fn(move |request, next| handle_request(listener, transport, request, next)))
}

#[cfg(test)]
mod tests {
    use crate::auth::policy::RULES;
    use std::collections::BTreeSet;

    /// A route without a rule is refused, and fails this test.
    #[test]
    fn every_guarded_route_has_a_rule_and_every_rule_a_route() {
        let paths = serde_json::to_value(super::guarded_routes().into_openapi()).unwrap()["paths"].take();
        let mut registered = BTreeSet::new();
        for (path, item) in paths.as_object().unwrap() {
            for method in item.as_object().unwrap().keys().filter(|k| k.len() <= 7 && *k != "servers") {
                registered.insert((method.to_uppercase(), path.clone()));
            }
        }
        let ruled: BTreeSet<_> = RULES.iter().map(|r| (r.method.to_owned(), r.path.to_owned())).collect();
        assert_eq!(registered, ruled);
    }
}
