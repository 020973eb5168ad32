//! The audit log of one tenant, as its managers may see it: who has accessed the tenant, and who has changed it.

use catalog::events::{self, EventFilter, EventOrder, EventRecord};

use crate::error::Result;
use crate::tenant::{Manage, Tenant};

const IMPERSONATIONS: &str = "impersonation.";

/// The kinds of events that a tenant sees. Others, such as the placement of its database, concern the operator.
const VISIBLE: [&str; 4] = [IMPERSONATIONS, "member.", "token.", "tenant."];

/// An entry of the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// Number of the entry. Later entries have larger numbers.
    pub seq: i64,
    /// Time of the entry, milliseconds since 1970.
    pub at: i64,
    /// Kind of the entry, for instance `impersonation.started`.
    pub kind: String,
    /// Actor, for instance `token:tok_…`; `operator` for an operator without a token.
    pub actor: String,
    /// The member in whose name the actor acted.
    pub on_behalf_of: Option<String>,
    /// Reason of an impersonation. Reasons of other changes are notes of the operator.
    pub reason: Option<String>,
}

/// A part of the audit log, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditPage {
    /// The entries.
    pub entries: Vec<AuditEntry>,
    /// Where the next part begins; `None` at the end of the log.
    pub next: Option<i64>,
}

impl Tenant<Manage> {
    /// The newest entries of this tenant's audit log before the entry with the number `before`. Reads at most `entries_max`
    /// events; a page may be empty and have a next one.
    ///
    /// # Errors
    /// `CatalogUnavailable` when the catalog cannot be read.
    pub async fn audit_log(&self, before: Option<i64>, entries_max: u32) -> Result<AuditPage> {
        let mut tx = self.router.inner.catalog.read().await?;
        let filter = EventFilter { tenant: Some(self.id()), ..EventFilter::default() };
        let page = events::read_events(&mut tx, &filter, EventOrder::Newest, before, entries_max).await?;
        Ok(AuditPage { entries: page.events.iter().filter(is_visible).map(audit_entry).collect(), next: page.next })
    }
}

fn is_visible(record: &&EventRecord) -> bool {
    VISIBLE.iter().any(|start| record.event.kind.starts_with(start))
}

fn audit_entry(record: &EventRecord) -> AuditEntry {
    let text = |field: &str| record.event.data[field].as_str().map(str::to_owned);
    AuditEntry {
        seq: record.seq,
        at: record.at,
        kind: record.event.kind.clone(),
        actor: shown_actor(&record.event.actor).to_owned(),
        on_behalf_of: text("on_behalf_of"),
        reason: text("reason").filter(|_| record.event.kind.starts_with(IMPERSONATIONS)),
    }
}

/// The actor without the name of an operator's account and machine.
fn shown_actor(actor: &str) -> &str {
    if actor.starts_with("token:") { actor } else { "operator" }
}
