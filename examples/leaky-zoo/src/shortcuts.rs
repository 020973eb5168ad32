//! The wrong ways to a tenant: as a program that may open every one. The router allows them to programs of an operator, and no
//! request of a customer may lead here.

use std::pin::Pin;
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use tasks::error::Result;
use tenant_router::{AccessLevel, Error, FleetLoop, Principal, Read, RequestView, Role, Tenant, Write};

use crate::zoo::{UNPOISONED, Zoo};

/// A task as several leaks tell it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToldTask {
    /// The id, which begins at 1 in each organisation.
    pub id: i64,
    /// The title.
    pub title: String,
    /// The notes.
    pub notes: String,
}

/// A principal that may do everything in every organisation.
pub fn everywhere() -> Arc<Principal> {
    Arc::new(Principal::service("zoo", Role::Manager))
}

/// Opens an organisation by its name, whatever the caller may open.
///
/// # Errors
/// Those of the router.
pub async fn open_unchecked<A: AccessLevel>(zoo: &Zoo, organisation: &str) -> Result<Tenant<A>> {
    let path = format!("/orgs/{organisation}/api");
    let request = RequestView { path: &path, ..RequestView::default() };
    Ok(zoo.router().open_as(everywhere(), &request).await?)
}

/// Every organisation, later. A type of its own, because a handler must be able to wait for it on any thread.
pub type TenantsFuture = Pin<Box<dyn Future<Output = Result<Vec<Tenant<Write>>>> + Send>>;

/// Every organisation that serves.
///
/// # Errors
/// Those of the catalog.
pub fn all_organisations(zoo: &Zoo) -> TenantsFuture {
    let router = zoo.router().clone();
    Box::pin(async move {
        let found = Arc::new(Mutex::new(Vec::new()));
        let all = FleetLoop::over_all("leaky-zoo", "a leak reads every organisation");
        let into = Arc::clone(&found);
        let collect = async move |tenant: Tenant<Write>| {
            into.lock().expect(UNPOISONED).push(tenant);
            Ok::<_, Error>(())
        };
        router.for_each(all, collect).await?;
        let tenants = std::mem::take(&mut *found.lock().expect(UNPOISONED));
        Ok(tenants)
    })
}

/// The tasks of an organisation, oldest first.
///
/// # Errors
/// Those of the router.
pub async fn tasks_of<A: AccessLevel>(tenant: &Tenant<A>) -> Result<Vec<ToldTask>> {
    Ok(tenant.query_as("select id, title, notes from tasks order by id", ()).fetch_all().await?)
}

/// The title of an organisation.
///
/// # Errors
/// Those of the router.
pub async fn title_of(tenant: &Tenant<Read>) -> Result<String> {
    Ok(tenant.query_as("select title from organisation", ()).fetch_one().await?)
}
