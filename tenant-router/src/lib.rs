//! Routes *one request* to the right tenant's database, if the caller has access to it.
//!
//! ```text
//! who asks ─▶ which names ─▶ which tenant ─▶ may they? ─▶ its pool ─▶ Tenant<Read | Write | Manage> ─▶ your handler
//! principal     key           resolve        authorize     pools        tenant
//! ```
//! Each step's output is the only key to the next: no [`Grant`] without [`authorize::authorize`] or
//! [`authorize::authorize_operator`], no pool without a grant, no [`Tenant`] without a pool. There is no ambient
//! tenant: a handler gets its tenant as an argument.
//!
//! # An application
//!
//! A [`Tenant`] is an extractor. All its methods work on one tenant's database, so no query needs a tenant column.
//!
#![cfg_attr(all(feature = "axum", feature = "sqlite", feature = "test-util"), doc = "```")]
#![cfg_attr(not(all(feature = "axum", feature = "sqlite", feature = "test-util")), doc = "```ignore")]
//! use axum::{Json, extract::Path, middleware, routing::get};
//! use tenant_router::{Error, Read, Router, Tenant, Write, axum::answers};
//!
//! async fn list(tenant: Tenant<Read>) -> Result<Json<Vec<String>>, Error> {
//!     Ok(Json(tenant.query_as("select title from tasks order by id", ()).fetch_all().await?))
//! }
//!
//! async fn add(tenant: Tenant<Write>, title: String) -> Result<Json<u64>, Error> {
//!     let added = tenant.execute("insert into tasks (title) values (?1)", [title]).await?;
//!     Ok(Json(added.rows_affected))
//! }
//!
//! fn application(router: Router) -> axum::Router {
//!     axum::Router::new()
//!         .route("/t/{tenant}/tasks", get(list).post(add))
//!         .layer(middleware::from_fn(answers))
//!         .with_state(router)
//! }
//! # include!("../tests/doc/fleet.rs");
//! # #[tokio::main]
//! # async fn main() {
//! #     let requests = Requests::new("create table tasks (id integer primary key, title text not null)").await;
//! #     let application = application(requests.fleet.router().clone());
//! #     let added = requests.send(&application, "POST", "/t/acme/tasks", "buy milk").await;
//! #     assert_eq!(added, (200, "1".to_owned()));
//! #     let listed = requests.send(&application, "GET", "/t/acme/tasks", "").await;
//! #     assert_eq!(listed, (200, r#"["buy milk"]"#.to_owned()));
//! #     assert_eq!(requests.send(&application, "GET", "/t/globex/tasks", "").await.0, 404);
//! # }
//! ```
//! Without axum, [`Router::open`] takes a [`RequestView`]: path, host, header and credential as text.
//!
//! # What the compiler refuses
//!
//! Writing with a tenant that was opened for reading:
//! ```compile_fail,E0599
//! # use tenant_router::{Read, Tenant};
//! async fn sneak(tenant: Tenant<Read>) {
//!     tenant.write();
//! }
//! ```
//! Making a grant without an authorization:
//! ```compile_fail,E0451
//! # use std::sync::Arc;
//! # use tenant_router::{Access, Grant, Principal, Role};
//! fn forge(principal: Arc<Principal>, record: Arc<catalog::TenantRecord>) -> Grant {
//!     Grant { principal, record, access: Access::Manage, role: Role::Manager }
//! }
//! ```
//! Defining a new level of access:
//! ```compile_fail,E0277
//! struct Everything;
//! impl tenant_router::AccessLevel for Everything {
//!     const ACCESS: tenant_router::Access = tenant_router::Access::Manage;
//! }
//! ```
//!
//! # Guarantees
//!
//! - A caller without access to a tenant gets the same answer as if the tenant did not exist.
//! - A database is used only if its own identity agrees with the catalog on tenant, fleet and generation. This is
//!   checked inside every transaction (on PostgreSQL: when a connection opens, and a change ends older connections). A
//!   router that missed a change notices it at the first statement and reads the catalog again. It never serves the old
//!   database or another tenant's database.
//! - Changes made by this process apply at once, changes made by other processes within a second. See
//!   [`principal::PRINCIPAL_AGE_MAX`] for the limit while the catalog cannot be read.
//! - All caches have a size limit and hold no secrets.

mod audit_log;
pub mod authorize;
#[cfg(feature = "axum")]
pub mod axum;
mod builder;
pub mod cache;
mod callers;
mod connection_shares;
mod drivers;
mod engines;
pub mod error;
mod feed;
pub mod fleet;
mod fleet_loop;
pub mod gate;
mod impersonation;
pub mod jobs;
pub mod json;
#[cfg(feature = "jwt")]
pub mod jwt;
pub mod key;
mod limits;
pub mod membership;
mod metrics;
mod object_key;
pub mod params;
mod pools;
pub mod principal;
pub mod realtime;
mod resolve;
mod retry;
pub mod router;
mod signed_link;
mod single_flight_cache;
pub mod tenant;
mod tenant_key;
#[cfg(feature = "test-util")]
pub mod test_fleet;
mod transaction;
pub mod typed;
pub mod webhooks;

pub use audit_log::{AuditEntry, AuditPage};
pub use authorize::{Access, Grant, OperatorAccess};
pub use builder::RouterBuilder;
pub use cache::{CacheKey, CacheNamespace, PublicCache, TenantCache};
pub use catalog::TenantId;
pub use catalog::members::Role;
pub use catalog::plans::PlanLimits;
#[cfg(feature = "sqlite")]
pub use drivers::RusqliteTx;
#[cfg(feature = "postgres")]
pub use drivers::SqlxTx;
pub use error::{Error, ErrorKind, Result};
pub use fleet::Fleet;
pub use fleet_loop::{FleetLoop, LoopReport};
pub use gate::{NewerSchemaPolicy, SchemaRange};
pub use impersonation::ImpersonationSession;
pub use jobs::{Job, JobError, JobOptions, JobRun, JobRunner, JobSchedule};
pub use json::Json;
pub use key::{Naming, RequestView};
pub use limits::RateState;
pub use membership::Memberships;
pub use object_key::ObjectKey;
pub use params::{IntoSqlValue, Params};
pub use principal::{Authenticate, Principal, PrincipalKind};
pub use router::Router;
pub use signed_link::LinkPurpose;
pub use tenant::{AccessLevel, CanWrite, Manage, Read, Tenant, Write};
pub use tenant_engine::{AnswerBudget, SessionLimits, SqlStatement, SqlValue};
pub use tenant_key::TenantKey;
pub use transaction::{ReadTx, WriteTx};
pub use typed::{TypedQuery, TypedStream};
pub use webhooks::{AccountSource, ReceivedWebhook, WebhookProvider};

// The drivers in the versions that this crate uses. Two versions of `rusqlite` or `sqlx` cannot be linked together, because
// both contain SQLite.
#[cfg(feature = "sqlite")]
pub use rusqlite;
#[cfg(feature = "postgres")]
pub use sqlx;

/// Compiles the guide for application developers, and runs its examples on the fleets of `tests/doc`.
#[cfg(all(
    doctest,
    feature = "axum",
    feature = "sqlite",
    feature = "postgres",
    feature = "test-util",
    feature = "jwt"
))]
#[doc = include_str!("../../docs/embedding.md")]
struct EmbeddingGuide;
