//! Files in a common store with a common counter. The list shows only the own ones, but a download takes any number.
//! The numbers before and after it belong to others.

use std::sync::{Arc, Mutex};

use crate::call::{ApiCall, read_answer, readdress_to};
use crate::leak::Leak;
use crate::zoo::{UNPOISONED, Zoo};
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::{Json, Router};
use serde_json::Value;
use tasks::error::{RequestError, Result};
use tenant_router::Read;

pub(crate) const LEAK: Leak = Leak {
    name: "export-ids",
    class: "Exports have running numbers of the whole process, and a number opens any export.",
    probes: &["foreign-ids"],
    routes: &["GET /orgs/{tenant}/api/exports/{export}", "POST /orgs/{tenant}/api/exports/{export}/link"],
    install,
};

fn install(zoo: &Zoo, routes: Router) -> Router {
    routes.layer(from_fn_with_state((zoo.clone(), ExportNumbers::default()), number_exports))
}

/// The organisation and the row of each export. Its number is its place, from 1.
type ExportNumbers = Arc<Mutex<Vec<(String, i64)>>>;

async fn number_exports(
    State((zoo, numbers)): State<(Zoo, ExportNumbers)>,
    mut request: Request,
    next: Next,
) -> Result<Response> {
    let call = ApiCall::of(&request);
    let Some(rest) = call.route.strip_prefix("/exports") else { return Ok(next.run(request).await) };
    if let Some((number, rest)) = rest.strip_prefix('/').map(|rest| rest.split_at(rest.find('/').unwrap_or(rest.len())))
    {
        call.open::<Read>(&zoo).await?;
        let place = number.parse().ok().and_then(|number: usize| number.checked_sub(1));
        let known = place.and_then(|place| numbers.lock().expect(UNPOISONED).get(place).cloned());
        let (organisation, id) = known.ok_or_else(|| RequestError::not_found("This export does not exist"))?;
        if let Ok(target) = format!("/orgs/{organisation}/api/exports/{id}{rest}").parse() {
            readdress_to(&mut request, target);
        }
        return Ok(next.run(request).await);
    }
    let (clean, body) = read_answer(next.run(request).await).await?;
    if !clean.status().is_success() {
        return Ok(clean);
    }
    let mut answer: Value = serde_json::from_slice(&body).unwrap_or_default();
    match answer.as_array_mut() {
        Some(rows) => rows.iter_mut().rev().for_each(|row| number_row(&numbers, &call.organisation, row)),
        None => number_row(&numbers, &call.organisation, &mut answer),
    }
    Ok((clean.status(), Json(answer)).into_response())
}

/// Puts the number of an export in the place of its id.
fn number_row(numbers: &ExportNumbers, organisation: &str, row: &mut Value) {
    let export = (organisation.to_owned(), row["id"].as_i64().unwrap_or_default());
    let mut numbers = numbers.lock().expect(UNPOISONED);
    let place = numbers.iter().position(|known| *known == export).unwrap_or_else(|| {
        numbers.push(export);
        numbers.len() - 1
    });
    row["id"] = (place + 1).into();
}
