//! The registry: one line per noun, and the layers around them.

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::get;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::middleware::{Listener, around, panicked};
use super::{Api, Transport, admin, admission, data, health, idempotency, openapi, shape};

/// Enough for any body but lists of tenants and migration files, which have [`BULK_BYTES_MAX`].
pub(crate) const BODY_BYTES_MAX: usize = 1 << 20;
/// 50,000 tenants with labels, or a large migration directory.
pub(crate) const BULK_BYTES_MAX: usize = 32 << 20;

/// Every route behind the admission.
fn nouns() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .merge(admin::status::routes())
        .merge(admin::doctor::routes())
        .merge(admin::scrub::routes())
        .merge(admin::tenants::routes())
        .merge(admin::tenant_work::routes())
        .merge(admin::tenant_adopt::routes())
        .merge(admin::lifecycle::routes())
        .merge(admin::members::routes())
        .merge(admin::tokens::routes())
        .merge(admin::servers::routes())
        .merge(admin::server_entry::routes())
        .merge(admin::server_drain::routes())
        .merge(admin::releases::routes())
        .merge(admin::migrations::routes())
        .merge(admin::backups::routes())
        .merge(admin::restores::routes())
        .merge(admin::operations::routes())
        .merge(admin::operation_control::routes())
        .merge(admin::queries::routes())
        .merge(admin::events::routes())
        .merge(admin::history::routes())
}

/// The routes that need no credential.
fn open() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(health::livez)).routes(routes!(health::readyz)).routes(routes!(health::metrics))
}

/// All documented routes.
pub(crate) fn documented() -> OpenApiRouter<Api> {
    OpenApiRouter::with_openapi(openapi::Document::openapi()).merge(nouns()).merge(open())
}

/// The admin listener's service.
pub(crate) fn admin(api: Api) -> Router {
    let document: Arc<str> = openapi::json().into();
    let shapes = shape::Shapes::of(&serde_json::from_str(&document).expect("the document is plain JSON"));
    let guarded = nouns()
        .route_layer(from_fn_with_state(api.clone(), idempotency::once))
        .route_layer(from_fn_with_state(Arc::new(shapes), shape::check))
        .route_layer(from_fn_with_state(api.clone(), admission::admit));
    let (router, _) = guarded.merge(open()).split_for_parts();
    let transport = api.transport;
    let router = router.route("/openapi.json", get(move || openapi::serve(Arc::clone(&document)))).with_state(api);
    finish(router, Listener::Admin, transport)
}

/// The data listener's service.
pub(crate) fn data(api: Api) -> Router {
    let transport = api.transport;
    let health = Router::new().route("/livez", get(health::livez)).route("/readyz", get(health::readyz));
    let router = data::statements::routes().merge(health).with_state(api);
    finish(router, Listener::Data, transport)
}

/// The layers of both listeners, innermost first.
fn finish(router: Router, listener: Listener, transport: Transport) -> Router {
    router
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn(move |request, next| around(listener, transport, request, next)))
}

#[cfg(test)]
mod tests {
    use crate::auth::policy::RULES;
    use std::collections::BTreeSet;

    /// A route that nobody thought about is refused, and fails this test.
    #[test]
    fn every_guarded_route_has_a_rule_and_every_rule_a_route() {
        let paths = serde_json::to_value(super::nouns().into_openapi()).unwrap()["paths"].take();
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
