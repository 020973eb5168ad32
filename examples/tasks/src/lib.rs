//! An example application: organisations and their tasks. Each organisation is a tenant with a database of its own.
//!
//! ```text
//! request ─▶ session ─▶ the router ─▶ Tenant<Read | Write | Manage> ─▶ handler ─▶ SQL
//!            cookie     who, where,     one organisation's database     one file
//!            → token    which role                                     per noun
//! ```
//! No statement has a tenant column, and no handler checks a role: the type of its argument says what it may do.
//! `fleet_setup.rs` opens the fleet, `local_fleet.rs` starts one inside this process.

pub mod counts;
pub mod digests;
pub mod error;
pub mod fleet_setup;
pub mod input;
pub mod live;
pub mod openapi;
pub mod options;
pub mod serving;
pub mod session;

mod comments;
mod exports;
mod form_key;
mod local_fleet;
mod members;
mod organisations;
mod page;
mod payments;
mod tasks;

use axum::extract::{DefaultBodyLimit, FromRef};
use axum::middleware::from_fn;
use fleet_client::FleetClient;
use tenant_router::axum::answers;
use tenant_router::{Naming, Router};

/// Maximum size of a request's body: the longest notes, and room for the other fields.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// What the handlers share.
#[derive(Debug, Clone)]
pub struct Application {
    /// Takes each request to the database of its organisation.
    pub router: Router,
    /// Signs up organisations, and changes their members.
    pub fleet: FleetClient,
    /// The database server for new organisations. `None`: the control plane chooses one.
    pub new_server: Option<String>,
}

impl FromRef<Application> for Router {
    fn from_ref(application: &Application) -> Self {
        application.router.clone()
    }
}

impl Application {
    /// How a request names its organisation: `/orgs/acme/…`, and in no other way.
    #[must_use]
    pub fn naming() -> Naming {
        Naming::default().path_prefix("/orgs/").without_header()
    }

    /// Every route: the page, and the API that it calls.
    pub fn routes(self) -> axum::Router {
        self.routes_with_document(openapi::DOCUMENT.to_owned())
    }

    /// The same with another OpenAPI document, for a program that adds routes.
    pub fn routes_with_document(self, document: String) -> axum::Router {
        let of_organisation = axum::Router::new()
            .merge(session::routes())
            .merge(tasks::routes())
            .merge(comments::routes())
            .merge(counts::routes())
            .merge(digests::routes())
            .merge(payments::routes())
            .merge(exports::routes())
            .merge(live::routes())
            .merge(members::routes());
        let api = axum::Router::new()
            .merge(organisations::routes())
            .merge(exports::link_routes())
            .merge(openapi::routes(document))
            .nest("/orgs/{tenant}/api", of_organisation)
            .fallback(error::unknown_route);
        // A service has no cookie, and sends from another site.
        let api = add_layers(api).merge(payments::webhook_routes()).layer(from_fn(answers));
        page::routes().merge(api).layer(from_fn(page::add_headers)).with_state(self)
    }
}

/// Adds what every route of the API has: a limit for bodies, and the cookie as a credential.
pub fn add_layers<S: Clone + Send + Sync + 'static>(routes: axum::Router<S>) -> axum::Router<S> {
    routes.layer(DefaultBodyLimit::max(BODY_BYTES_MAX)).layer(from_fn(session::use_cookie))
}
