//! The loop over many tenants: the only way in which an application's program opens more than one tenant without a request.
//!
//! One event in the audit log says who ran it, why and over how many tenants, before the first tenant is opened.

use std::fmt;
use std::sync::Arc;

use catalog::events::{self, NewEvent};
use catalog::members::Role;
use catalog::tenants::{self, LabelSelector, TenantCriteria};
use catalog::{TenantId, TenantState};
use futures_util::StreamExt as _;
use serde_json::json;

use crate::error::{Error, ErrorKind, Result};
use crate::principal::Principal;
use crate::router::Router;
use crate::tenant::{Tenant, Write};

/// Tenants that are open at the same time. Low, because the tenants' own requests take precedence.
const AT_ONCE: usize = 4;
/// Failures whose reasons a report keeps; all are counted.
const FAILURES_KEPT: usize = 1_000;
const PAGE: u32 = 500;

/// Which tenants a loop opens, for whom and why.
#[derive(Debug, Clone)]
pub struct FleetLoop {
    actor: String,
    reason: String,
    selection: LoopSelection,
    at_once: usize,
}

#[derive(Debug, Clone)]
enum LoopSelection {
    All,
    Labels(String),
    Ids(Vec<TenantId>),
}

impl FleetLoop {
    /// A loop over all tenants that serve. `actor` is the program or the person, as the audit log shows it; `reason` is a line.
    #[must_use]
    pub fn over_all(actor: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { actor: actor.into(), reason: reason.into(), selection: LoopSelection::All, at_once: AT_ONCE }
    }

    /// Only tenants whose labels match, for instance `plan=pro`.
    #[must_use]
    pub fn labelled(self, labels: impl Into<String>) -> Self {
        Self { selection: LoopSelection::Labels(labels.into()), ..self }
    }

    /// Only these tenants.
    #[must_use]
    pub fn tenants(self, ids: impl IntoIterator<Item = TenantId>) -> Self {
        Self { selection: LoopSelection::Ids(ids.into_iter().collect()), ..self }
    }

    /// Sets how many tenants are open at the same time. The default is 4.
    #[must_use]
    pub fn at_once(self, tenants: usize) -> Self {
        Self { at_once: tenants.max(1), ..self }
    }

    fn criteria(&self) -> Result<TenantCriteria> {
        let states = vec![TenantState::Active];
        let criteria = TenantCriteria { states, ..TenantCriteria::default() };
        match &self.selection {
            LoopSelection::All => Ok(criteria),
            LoopSelection::Ids(ids) => Ok(TenantCriteria { ids: Some(ids.clone()), ..criteria }),
            LoopSelection::Labels(labels) => {
                let labels: LabelSelector = labels.parse().map_err(loop_invalid)?;
                if labels.is_empty() {
                    return Err(loop_invalid("the selection of labels is empty: say `over_all` without labels"));
                }
                Ok(TenantCriteria { labels, ..criteria })
            }
        }
    }

    fn check_texts(&self) -> Result<()> {
        let is_line = |text: &str| !text.trim().is_empty() && text.len() <= 1_000 && !text.contains(char::is_control);
        if is_line(&self.actor) && is_line(&self.reason) {
            return Ok(());
        }
        Err(loop_invalid("a loop over tenants names its actor and its reason, each on one line of at most 1,000 bytes"))
    }
}

fn loop_invalid(why: impl fmt::Display) -> Error {
    Error::new(ErrorKind::LoopInvalid).with_detail(why.to_string())
}

/// What became of a loop.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoopReport {
    /// Tenants for which the work succeeded.
    pub done: u64,
    /// Tenants for which it failed, or that could not be opened.
    pub failed: u64,
    /// The first thousand of them, with the reason.
    pub failures: Vec<(TenantId, String)>,
}

impl Router {
    /// Calls `visit` for each selected tenant that serves reads and writes, a few at a time. A failure of one tenant does not end
    /// the loop. Tenants that are created meanwhile may be visited or not.
    ///
    /// ```no_run
    /// # use tenant_router::{Error, FleetLoop, JobSchedule, Router, Tenant, Write};
    /// # use tenant_router::Job;
    /// # #[derive(serde::Serialize, serde::Deserialize)] struct NightlyReport;
    /// # impl Job for NightlyReport { const KIND: &'static str = "nightly-report"; }
    /// async fn schedule_reports(router: &Router) -> Result<(), Error> {
    ///     let all = FleetLoop::over_all("deployment", "every tenant gets the nightly report");
    ///     let report = router.for_each(all, async |tenant: Tenant<Write>| {
    ///         let mut tx = tenant.write();
    ///         tx.schedule("nightly-report", &JobSchedule::parse("0 3 * * *")?, &NightlyReport).await?;
    ///         tx.commit().await
    ///     });
    ///     let report = report.await?;
    ///     println!("{} tenants, {} failed", report.done, report.failed);
    ///     Ok(())
    /// }
    /// ```
    /// # Errors
    /// `LoopInvalid` when a text of the loop is not valid, or when no tenant is selected; `CatalogUnavailable`.
    pub async fn for_each<E: fmt::Display>(
        &self,
        which: FleetLoop,
        visit: impl AsyncFn(Tenant<Write>) -> Result<(), E>,
    ) -> Result<LoopReport> {
        self.require_ready().await?;
        which.check_texts()?;
        let criteria = which.criteria()?;
        self.record_loop(&which, &criteria).await?;
        let (mut report, mut after) = (LoopReport::default(), None);
        loop {
            let mut tx = self.inner.catalog.read().await?;
            let page = tenants::list_tenants(&mut tx, &criteria, after, PAGE).await?;
            drop(tx);
            let Some(last) = page.last() else { return Ok(report) };
            after = Some(last.id);
            let visits = futures_util::stream::iter(page).map(|record| self.visit_tenant(record.id, &which, &visit));
            let mut ended = std::pin::pin!(visits.buffer_unordered(which.at_once));
            while let Some((tenant, outcome)) = ended.next().await {
                report.count(tenant, outcome);
            }
        }
    }

    /// Records the loop, and refuses one without tenants.
    async fn record_loop(&self, which: &FleetLoop, criteria: &TenantCriteria) -> Result<()> {
        let mut tx = self.inner.catalog.write().await?;
        let count = tenants::count_tenants(&mut tx, criteria).await?;
        if count == 0 {
            return Err(loop_invalid("the loop selects no tenant that serves"));
        }
        let event = NewEvent {
            kind: "fleet.loop_begun".to_owned(),
            actor: which.actor.clone(),
            tenant_id: None,
            op_id: None,
            request_id: None,
            data: json!({ "reason": which.reason, "tenants": count }),
        };
        events::append_events(&mut tx, &[event]).await?;
        Ok(tx.commit().await?)
    }

    async fn visit_tenant<E: fmt::Display>(
        &self,
        tenant: TenantId,
        which: &FleetLoop,
        visit: &impl AsyncFn(Tenant<Write>) -> Result<(), E>,
    ) -> (TenantId, Result<(), String>) {
        let principal = Arc::new(Principal::of_tenant(&*which.actor, tenant, Role::Writer));
        let outcome = match self.open_id(principal, tenant).await {
            Ok(opened) => visit(opened).await.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        (tenant, outcome)
    }
}

impl LoopReport {
    fn count(&mut self, tenant: TenantId, outcome: Result<(), String>) {
        let Err(reason) = outcome else {
            self.done += 1;
            return;
        };
        self.failed += 1;
        if self.failures.len() < FAILURES_KEPT {
            self.failures.push((tenant, reason));
        }
    }
}
