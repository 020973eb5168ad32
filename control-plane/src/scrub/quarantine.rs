//! Quarantines objects that a person has confirmed. It checks each object again, records the intention, moves the
//! object, and records the result. It never deletes anything.

use std::collections::HashMap;

use catalog::events::NewEvent;
use catalog::{ReadTx, TenantId};
use serde_json::json;
use tenant_engine::{ExpectedIdentity, ListedObject};

use super::compare::{ClaimIndex, GRACE_MS, ObjectStanding, compare_claims};
use super::finding::{DatabaseOwner, FindingSubject};
use super::server_contents::{InspectionScope, ServerContents};
use super::{ScrubEvidence, gather_evidence};
use crate::error::{Error, ErrorKind, Result};
use crate::operation::StepContext;
use crate::runner::submit::{AuditCaller, SubmitMode};

/// Maximum number of objects per request. Each takes two commits of the catalog and a flush.
pub const SUBJECTS_MAX: usize = 1_000;

/// The result for one object.
#[derive(Debug)]
pub enum QuarantineOutcome {
    /// The object was moved, and has this name now.
    Done(String),
    /// Dry run: the object would be moved.
    Planned,
    /// The object was left where it is, for this reason.
    Refused(Error),
}

/// The requester and the reason.
#[derive(Debug, Clone)]
pub struct QuarantineRequester {
    /// The user, for the audit log.
    pub caller: AuditCaller,
    /// The reason, for the audit log.
    pub reason: Option<String>,
}

/// Quarantines those `subjects` that are still as they were reported. Returns one result each, in their order.
///
/// # Errors
/// `invalid` for too many at once, and those of the catalog before anything is done.
pub async fn run_quarantine(
    context: &StepContext,
    asker: &QuarantineRequester,
    subjects: &[FindingSubject],
    mode: SubmitMode,
) -> Result<Vec<QuarantineOutcome>> {
    if subjects.len() > SUBJECTS_MAX {
        return Err(Error::new(ErrorKind::Invalid, format!("at most {SUBJECTS_MAX} findings at once")));
    }
    let these = subjects.iter().map(|subject| (subject.server.clone(), subject.name.clone())).collect();
    let gathered = gather_evidence(context, &InspectionScope::These(these)).await?;
    let fresh = compare_claims(&gathered.comparison_input()).findings;
    let fresh: HashMap<(&str, &str), &FindingSubject> =
        fresh.iter().map(|f| ((f.subject.server.as_str(), f.subject.name.as_str()), &f.subject)).collect();
    let label = date_label(gathered.after.now);
    let mut fates = Vec::with_capacity(subjects.len());
    for subject in subjects {
        let now = fresh.get(&(subject.server.as_str(), subject.name.as_str())).copied();
        let fate = match check_subject(&gathered, subject, now) {
            Err(error) => QuarantineOutcome::Refused(error),
            Ok(_) if mode == SubmitMode::Plan => QuarantineOutcome::Planned,
            Ok((place, found)) => match quarantine_object(context, asker, (place, found, subject), &label).await {
                Ok(name) => QuarantineOutcome::Done(name),
                Err(error) => QuarantineOutcome::Refused(error),
            },
        };
        fates.push(fate);
    }
    Ok(fates)
}

/// The day, as names contain it.
fn date_label(now: i64) -> String {
    let at = jiff::Timestamp::from_millisecond(now).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    at.strftime("%Y%m%d").to_string()
}

/// PURE: the object, if it is still what was reported.
fn check_subject<'a>(
    gathered: &'a ScrubEvidence,
    subject: &FindingSubject,
    now: Option<&FindingSubject>,
) -> Result<(&'a ServerContents, &'a ListedObject)> {
    if !subject.kind.is_orphan() {
        return Err(Error::new(ErrorKind::Invalid, "only unowned objects (kinds orphan_…) can be quarantined"));
    }
    let place = gathered.places.iter().find(|place| place.server.name == subject.server);
    let place = place.ok_or_else(|| Error::new(ErrorKind::NotFound, "there is no such server"))?;
    let listing = place.listing.as_ref().map_err(|error| Error::new(error.kind.clone(), error.detail.clone()))?;
    let found = listing.found.iter().find(|found| found.name == subject.name);
    let found = found.ok_or_else(|| Error::new(ErrorKind::NotFound, "the object is not there any more"))?;
    match now {
        Some(now) if now == subject => return Ok((place, found)),
        _ => {}
    }
    let seen = gathered.comparison_input();
    Err(finding_changed(match ClaimIndex::build_index(&seen).object_standing(&place.server, found) {
        ObjectStanding::Named => "the catalog names it".to_owned(),
        ObjectStanding::Busy => "an operation works on its tenant".to_owned(),
        ObjectStanding::Young => format!("it is younger than {} minutes", GRACE_MS / 60_000),
        ObjectStanding::Foreign => "it belongs to another fleet".to_owned(),
        ObjectStanding::Orphan => subject_difference(subject, now),
    }))
}

/// PURE: how the object differs from what was reported.
fn subject_difference(then: &FindingSubject, now: Option<&FindingSubject>) -> String {
    let Some(now) = now else { return "it is not reported any more".to_owned() };
    match () {
        () if now.physical != then.physical => "another object has its name now",
        () if now.identity != then.identity => "its identity has changed",
        () => "it is not what was reported",
    }
    .to_owned()
}

fn finding_changed(why: String) -> Error {
    Error::new(ErrorKind::Conflict, why).try_next("fleetctl scrub --out report.json, and look again")
}

type QuarantineObject<'a> = (&'a ServerContents, &'a ListedObject, &'a FindingSubject);

/// Moves one object to quarantine, with an event before and one after.
async fn quarantine_object(
    context: &StepContext,
    asker: &QuarantineRequester,
    object: QuarantineObject<'_>,
    label: &str,
) -> Result<String> {
    let (place, found, subject) = object;
    record_begin(context, asker, object).await?;
    let server = context.load_server(place.server.id).await?;
    let expected = subject.identity.map(expected_identity);
    let engine = context.engine_of_kind(place.server.engine)?;
    let done = engine.quarantine_object(&server, found, expected.as_ref(), label).await;
    let event = match &done {
        Ok(to) => quarantine_event(asker, object, "database.quarantined", json!({ "to": to })),
        Err(error) => {
            quarantine_event(asker, object, "database.quarantine_refused", json!({ "code": error.kind().code() }))
        }
    };
    let mut tx = context.catalog.write().await?;
    catalog::events::append_events(&mut tx, &[event]).await?;
    tx.commit().await?;
    Ok(done?)
}

/// Checks the catalog a last time, in the transaction that records the intention. No placement is ever named again. So
/// an object without an owner cannot get one before it is moved.
async fn record_begin(context: &StepContext, asker: &QuarantineRequester, object: QuarantineObject<'_>) -> Result<()> {
    let mut tx = context.catalog.write().await?;
    if let Some(tenant) = object.1.tenant {
        require_unclaimed(&mut tx, tenant, &object.1.name).await?;
    }
    let event = quarantine_event(asker, object, "database.quarantine_begun", json!({}));
    catalog::events::append_events(&mut tx, &[event]).await?;
    Ok(tx.commit().await?)
}

async fn require_unclaimed(tx: &mut ReadTx, tenant: TenantId, name: &str) -> Result<()> {
    let found = catalog::tenants::get(tx, tenant).await?;
    let busy = found.as_ref().is_some_and(|found| found.op_id.is_some());
    if busy || catalog::steps::has_unfinished(tx, tenant).await? {
        return Err(finding_changed("an operation works on its tenant".to_owned()));
    }
    let kept = catalog::retained::of_tenant(tx, tenant).await?;
    let current = found.and_then(|found| found.placement);
    if current.iter().chain(kept.iter().map(|kept| &kept.placement)).any(|named| belongs_to_database(name, named)) {
        return Err(finding_changed("the catalog names it".to_owned()));
    }
    Ok(())
}

/// Whether a name is that of the database or of one of its side files or logins, which are named after it.
fn belongs_to_database(name: &str, database: &str) -> bool {
    name.strip_prefix(database).is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '_']))
}

fn expected_identity(whose: DatabaseOwner) -> ExpectedIdentity {
    let DatabaseOwner { tenant, fleet, generation, state } = whose;
    ExpectedIdentity { tenant, fleet, generation, states: vec![state] }
}

fn quarantine_event(
    asker: &QuarantineRequester,
    (place, found, subject): QuarantineObject<'_>,
    kind: &str,
    mut data: serde_json::Value,
) -> NewEvent {
    data["server"] = place.server.name.clone().into();
    data["name"] = found.name.clone().into();
    data["what"] = found.what.as_str().into();
    data["finding"] = json!(subject.kind);
    if let Some(reason) = &asker.reason {
        data["reason"] = reason.clone().into();
    }
    NewEvent {
        kind: kind.to_owned(),
        actor: asker.caller.actor.clone(),
        tenant_id: found.tenant,
        op_id: None,
        request_id: asker.caller.request_id.clone(),
        data,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_has_eight_digits() {
        assert_eq!(date_label(1_764_000_000_000), "20251124");
    }

    #[test]
    fn companions_belong_to_their_database() {
        assert!(belongs_to_database("u/g1-1.db", "u/g1-1.db") && belongs_to_database("u/g1-1.db-wal", "u/g1-1.db"));
        assert!(belongs_to_database("t_1_g1_1_r", "t_1_g1_1"));
        assert!(!belongs_to_database("u/g1-1.db.part", "u/g1-1.db") && !belongs_to_database("u/g1-10.db", "u/g1-1.db"));
    }
}
