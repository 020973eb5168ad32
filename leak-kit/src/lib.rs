//! Finds leaks between the tenants of any HTTP application.
//!
//! The kit acts as two tenants, A and B. It gives both data with the same keys and different *canaries*: texts that only
//! one tenant's data contains. Then its probes send requests over every route, and look for data of one tenant in the
//! answers for the other. Each probe has a *control*: the owner must see its own data, so that "nothing found" means
//! something.
//!
//! ```text
//! OpenAPI document ─▶ routes with classes ─▶ planted data ─▶ probes ─▶ report
//! ```
//! The application may be at an address ([`HttpApplication`]) or inside the process ([`ServiceApplication`]).

mod application;
mod canary;
mod databases;
mod error;
mod exceptions;
mod exchange;
mod findings;
#[cfg(feature = "fleet")]
pub mod fleet;
mod inventory;
mod known_values;
mod leak_test;
mod live;
mod outputs;
mod plant;
pub mod probes;
mod recorder;
mod report;
mod request_example;
mod route;
mod session;
mod settings;
mod values;
mod views;
mod webhooks;
mod world;

pub use application::{BodyStream, HttpApplication, ServiceApplication, TestedApplication};
pub use canary::{Canaries, CanaryHit};
pub use databases::{FleetControl, TenantDatabases};
pub use error::{KitError, Result};
pub use exceptions::RouteExceptions;
pub use exchange::Exchange;
pub use findings::{Finding, FindingKind, ProbeOutcome};
pub use inventory::RouteInventory;
pub use leak_test::LeakTest;
pub use outputs::WatchedOutput;
pub use recorder::{RecordingService, RequestRecorder};
pub use report::{LeakReport, ReportFormat};
pub use request_example::RequestExample;
pub use route::{ParameterPlace, Route, RouteClass, RouteParameter};
pub use settings::LeakTestSettings;
pub use webhooks::{WebhookAccount, WebhookSender, WebhookStyle};
pub use world::{Caller, Side, TenantAddress, TenantNaming, TestTenant, World};
