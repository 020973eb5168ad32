//! A tag that is cheap to compute and not unique. A cache between two customers keeps the report of one for the other, because the
//! program says that nothing has changed.

use crate::call::ApiCall;
use crate::extras::report::{report_of, tagged_answer};
use crate::leak::Leak;
use crate::zoo::Zoo;
use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use tasks::error::Result;
use tenant_router::Read;

pub(crate) const LEAK: Leak = Leak {
    name: "etag",
    class: "The tag of a report is its number of tasks, and the tag of another organisation is accepted.",
    probes: &["shared-caching"],
    routes: &["GET /orgs/{tenant}/api/report"],
    install,
};

fn install(zoo: &Zoo, routes: Router) -> Router {
    routes.layer(from_fn_with_state(zoo.clone(), show_report))
}

async fn show_report(State(zoo): State<Zoo>, request: Request, next: Next) -> Result<Response> {
    let call = ApiCall::of(&request);
    if !call.is("GET", "/report") {
        return Ok(next.run(request).await);
    }
    let headers = request.headers().clone();
    let report = report_of(&call.open::<Read>(&zoo).await?).await?;
    let tag = format!("\"report-{}\"", report.tasks.len());
    Ok(tagged_answer(&headers, tag, report))
}
