//! A common bucket without a prefix for the tenant. Everybody's logo is called logo.png.

use crate::call::{ApiCall, read_answer};
use crate::extras::files::{read_file, write_file};
use crate::leak::Leak;
use crate::zoo::Zoo;
use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use tasks::error::Result;
use tenant_router::Read;

pub(crate) const LEAK: Leak = Leak {
    name: "files-by-name",
    class: "Files of all organisations are stored under their plain names.",
    probes: &["colliding-keys"],
    routes: &["GET /orgs/{tenant}/api/files/{name}", "PUT /orgs/{tenant}/api/files/{name}"],
    install,
};

fn install(zoo: &Zoo, routes: Router) -> Router {
    routes.layer(from_fn_with_state(zoo.clone(), store_by_name))
}

async fn store_by_name(State(zoo): State<Zoo>, request: Request, next: Next) -> Result<Response> {
    let call = ApiCall::of(&request);
    let Some(name) = call.route.strip_prefix("/files/") else { return Ok(next.run(request).await) };
    let path = zoo.memory.files.path().join(format!("file-{name}"));
    if call.method == "GET" {
        call.open::<Read>(&zoo).await?;
        return Ok(read_file(&path).await?.into_response());
    }
    let (clean, body) = read_answer(next.run(request).await).await?;
    if let Ok(file) = serde_json::from_slice(&body)
        && clean.status().is_success()
    {
        write_file(&path, &file).await.map(drop)?;
    }
    Ok(clean)
}
