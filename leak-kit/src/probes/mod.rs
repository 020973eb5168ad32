//! The probes: one file for each, and one line in [`PROBES`].

mod colliding_keys;
mod concurrency;
mod error_texts;
mod foreign_address;
mod foreign_ids;
mod foreign_writes;
mod idempotency_keys;
mod interference;
mod lifecycle;
mod live_messages;
mod name_variants;
mod operator_routes;
mod outputs;
mod replayed_values;
mod shared_caching;
mod taken_values;
mod tenant_override;
mod webhook_payloads;

use std::future::Future;
use std::pin::Pin;

use crate::error::Result;
use crate::findings::ProbeOutcome;
use crate::session::Session;

/// What runs a probe.
type ProbeRun = for<'s> fn(&'s Session, &'s mut ProbeOutcome) -> Pin<Box<dyn Future<Output = Result<()>> + Send + 's>>;

/// One way in which an application can leak.
pub struct Probe {
    /// The name in reports.
    pub name: &'static str,
    /// What it looks for, in one sentence.
    pub about: &'static str,
    pub(crate) run: ProbeRun,
}

impl std::fmt::Debug for Probe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Probe").field("name", &self.name).finish_non_exhaustive()
    }
}

macro_rules! probe {
    ($name:literal, $module:ident, $about:literal) => {
        Probe { name: $name, about: $about, run: |session, outcome| Box::pin($module::run(session, outcome)) }
    };
}

/// All probes, in the order in which they run. Those that only read come first.
pub const PROBES: &[Probe] = &[
    probe!(
        "colliding-keys",
        colliding_keys,
        "Both tenants send the same request in turn; each must see only its own data."
    ),
    probe!("foreign-address", foreign_address, "The address of another tenant must look like that of an unknown one."),
    probe!("foreign-ids", foreign_ids, "Keys that only another tenant has must look like keys that nobody has."),
    probe!(
        "replayed-values",
        replayed_values,
        "Cursors and links from answers for one tenant must show another nothing."
    ),
    probe!("name-variants", name_variants, "Other spellings of a tenant's name must not open it."),
    probe!("operator-routes", operator_routes, "Credentials of tenants must not open routes for operators."),
    probe!("shared-caching", shared_caching, "Caches between the application and its users must keep tenants apart."),
    probe!("error-texts", error_texts, "Refusals must not quote data of another tenant."),
    probe!(
        "tenant-override",
        tenant_override,
        "No header, query or field may select a tenant that the caller is not in."
    ),
    probe!("taken-values", taken_values, "A value that another tenant uses must not be refused as taken."),
    probe!("idempotency-keys", idempotency_keys, "The same idempotency key of two tenants is two requests."),
    probe!("interference", interference, "What one tenant does must not change what another one sees."),
    probe!(
        "foreign-writes",
        foreign_writes,
        "Changes sent to another tenant, or with its keys, must not arrive there."
    ),
    probe!("live-messages", live_messages, "Live messages must reach only the tenant that they are about."),
    probe!(
        "webhook-payloads",
        webhook_payloads,
        "The tenant of a webhook comes from its account and not from its contents."
    ),
    probe!("concurrency", concurrency, "Many requests of both tenants at once, some of them abandoned, must not mix."),
    probe!("lifecycle", lifecycle, "After a restore or a suspension, no remembered answer may be given."),
    probe!("outputs", outputs, "Logs, metrics and other outputs must contain no data of tenants."),
];
