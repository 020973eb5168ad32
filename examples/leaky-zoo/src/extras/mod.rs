//! Correct routes that `tasks` does not have, for leaks that need them.

pub mod admin;
pub mod bulk;
pub mod files;
pub mod imports;
pub mod metrics;
pub mod pages;
pub mod profile;
pub mod report;
pub mod search;

use axum::Router;
use axum::middleware::from_fn;
use tasks::add_layers;
use tenant_router::axum::answers;

pub use self::metrics::count_requests;
use crate::zoo::Zoo;

/// The routes of all extras.
pub(crate) fn routes(zoo: &Zoo) -> Router {
    let of_organisation = Router::new()
        .merge(bulk::routes())
        .merge(files::routes())
        .merge(imports::routes())
        .merge(pages::routes())
        .merge(profile::routes())
        .merge(report::routes())
        .merge(search::routes());
    let all = Router::new().nest("/orgs/{tenant}/api", of_organisation).merge(admin::routes()).merge(metrics::routes());
    add_layers(all).layer(from_fn(answers)).with_state(zoo.clone())
}
