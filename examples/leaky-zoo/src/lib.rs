//! The example application `tasks` with one deliberate leak between organisations at a time.
//!
//! ```text
//! request ─▶ the leak, if one is chosen ─▶ the routes of tasks, and the extras ─▶ one organisation's database
//!            leaks/, one file per leak     correct                      extras/
//! ```
//! A test that looks for leaks must find each of them, and nothing in the program without a leak. `leak.rs` lists the leaks.
//! `call.rs` and `shortcuts.rs` hold what several leaks need: the request as a leak reads it, and the wrong ways to a tenant.

pub mod call;
pub mod document;
pub mod extras;
pub mod leak;
mod leaks;
pub mod options;
pub mod shortcuts;
pub mod zoo;

use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use tasks::Application;
use tenant_router::axum::answers;

use crate::leak::Leak;
use crate::zoo::Zoo;

/// The routes of the application and the extras. With a leak, its change lies on top.
///
/// # Panics
/// When the temporary directory for files cannot be made.
pub fn routes(application: &Application, leak: Option<&'static Leak>) -> axum::Router {
    let zoo = Zoo::new(application.clone(), None).expect("a temporary directory can be made");
    routes_of(&zoo, leak)
}

/// The same for a process that has chosen its own settings.
pub fn routes_of(zoo: &Zoo, leak: Option<&'static Leak>) -> axum::Router {
    let tasks = zoo.application.clone().routes_with_document(document::merged());
    let clean = extras::count_requests(zoo, tasks.merge(extras::routes(zoo)));
    let Some(leak) = leak else { return clean };
    let leaky = (leak.install)(zoo, axum::Router::new().fallback_service(clean));
    // A leak reads the cookie as a credential, as the correct routes do.
    leaky.layer(from_fn(read_cookie)).layer(from_fn(answers))
}

async fn read_cookie(request: Request, next: Next) -> Response {
    // A service has no cookie, and sends from another site.
    if request.uri().path().starts_with("/webhooks/") {
        return next.run(request).await;
    }
    tasks::session::use_cookie(request, next).await
}
