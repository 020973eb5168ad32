//! Checks domains against the DNS, and records what was found.
//!
//! The DNS is asked before the transaction begins, because other writers wait for a transaction.

use catalog::domains::{self, DomainRecord, DomainState, FailedCheck};
use catalog::events::{self, NewEvent};
use catalog::{Catalog, WriteTx};
use futures_util::StreamExt as _;

use super::decide::{CheckVerdict, decide_check};
use super::lookup::{LookupFailure, TxtLookup};
use super::record_name;
use crate::error::{Error, ErrorKind, Result};

/// How old the last check of an active domain may be, milliseconds.
const CHECK_EVERY_MS: i64 = 24 * 3_600_000;
/// Domains per query.
const BATCH: u32 = 100;
/// Look-ups at once: a slow name server must not hold up the others.
const LOOKUPS_MAX: usize = 8;

/// What a check found, not yet recorded.
#[derive(Debug)]
pub(crate) struct DomainCheck {
    domain: DomainRecord,
    answer: Result<Vec<String>, LookupFailure>,
}

/// What became of a check.
#[derive(Debug)]
pub(crate) enum CheckResult {
    /// The TXT record is there, and the domain is active.
    Proven,
    /// The TXT record is not there, or has another value.
    Unproven(String),
    /// The DNS gave no answer.
    Unanswered(String),
}

impl CheckResult {
    /// The error for an operator who asked for the check; `None` if the domain is proven.
    pub(crate) fn into_problem(self, domain: &DomainRecord) -> Option<Error> {
        let (kind, detail) = match self {
            Self::Proven => return None,
            Self::Unproven(detail) => (ErrorKind::DomainUnproven, detail),
            Self::Unanswered(detail) => (ErrorKind::DnsUnavailable, detail),
        };
        let next = match kind {
            ErrorKind::DomainUnproven => {
                format!("set the TXT record {} to {}, then verify again", record_name(&domain.host), domain.challenge)
            }
            _ => "verify again later, or set dns_server to a server that this machine reaches".to_owned(),
        };
        Some(Error::new(kind, detail).try_next(next))
    }
}

/// Asks the DNS about a domain. Changes nothing.
pub(crate) async fn look_up_domain(lookup: &dyn TxtLookup, domain: DomainRecord) -> DomainCheck {
    let answer = lookup.lookup_txt(&record_name(&domain.host)).await;
    DomainCheck { domain, answer }
}

/// Records what a check found. `event` makes the event of a change: its kind and data are the arguments.
///
/// # Errors
/// `already_exists` when the host belongs to another tenant; `conflict` when the domain changed meanwhile.
pub(crate) async fn record_check(
    tx: &mut WriteTx,
    check: DomainCheck,
    event: impl Fn(&str, serde_json::Value) -> NewEvent,
) -> Result<CheckResult> {
    let domain = check.domain;
    let data = || serde_json::json!({ "host": domain.host });
    match decide_check(&domain, &check.answer, tx.now()) {
        CheckVerdict::Proven => {
            domains::activate_domain(tx, &domain).await?;
            if domain.state != DomainState::Active {
                events::append_events(tx, &[event("tenant.domain_verified", data())]).await?;
            }
            Ok(CheckResult::Proven)
        }
        CheckVerdict::Failed(failed) => {
            let FailedCheck { error, .. } = failed.clone();
            domains::record_failed_check(tx, &domain, failed).await?;
            Ok(if check.answer.is_err() { CheckResult::Unanswered(error) } else { CheckResult::Unproven(error) })
        }
        CheckVerdict::Expired { error } => {
            domains::expire_domain(tx, &domain, &error).await?;
            events::append_events(tx, &[event("tenant.domain_expired", data())]).await?;
            Ok(CheckResult::Unproven(error))
        }
    }
}

/// Checks every active domain whose last check is a day old.
///
/// # Errors
/// Those of the catalog.
pub async fn check_due_domains(catalog: &Catalog, lookup: &dyn TxtLookup) -> Result<()> {
    let before = catalog.now() - CHECK_EVERY_MS;
    loop {
        let due = domains::due_domains(&mut catalog.read().await?, before, BATCH).await?;
        if due.is_empty() {
            return Ok(());
        }
        let checks = due.into_iter().map(|domain| look_up_domain(lookup, domain));
        let mut checks = futures_util::stream::iter(checks).buffer_unordered(LOOKUPS_MAX);
        while let Some(check) = checks.next().await {
            record_for_fleet(catalog, check).await?;
        }
    }
}

async fn record_for_fleet(catalog: &Catalog, check: DomainCheck) -> Result<()> {
    let (tenant, host) = (check.domain.tenant_id, check.domain.host.clone());
    let event = |kind: &str, data| NewEvent {
        kind: kind.to_owned(),
        actor: "fleet".to_owned(),
        tenant_id: Some(tenant),
        op_id: None,
        request_id: None,
        data,
    };
    let mut tx = catalog.write().await?;
    match record_check(&mut tx, check, event).await {
        Ok(CheckResult::Proven) => {}
        Ok(CheckResult::Unproven(error) | CheckResult::Unanswered(error)) => {
            tracing::warn!(%tenant, %host, %error, "the proof of a custom domain was not found");
        }
        // Removed or verified by an operator meanwhile.
        Err(error) if error.kind == ErrorKind::Conflict => return Ok(()),
        Err(error) => return Err(error),
    }
    tx.commit().await?;
    Ok(())
}
