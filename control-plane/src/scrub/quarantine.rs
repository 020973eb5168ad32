//! Puts aside what a human has looked at: checks each thing again, writes down what is about to be done, does it, and
//! writes down what came of it. Never deletes.

use std::collections::HashMap;

use catalog::events::NewEvent;
use catalog::{ReadTx, TenantId};
use serde_json::json;
use tenant_engine::{Expected, Found};

use super::compare::{GRACE_MS, Index, Standing, compare};
use super::finding::{Subject, Whose};
use super::look::{Opening, Place};
use super::{Gathered, gather};
use crate::error::{Error, Result};
use crate::operations::Fleet;
use crate::runner::submit::{Caller, Mode};

/// Things put aside in one request: each takes two commits of the catalog and a flush.
pub const SUBJECTS_MAX: usize = 1_000;

/// What became of one of them.
#[derive(Debug)]
pub enum Fate {
    /// It has this name now.
    Done(String),
    /// It would be put aside.
    Planned,
    /// It is where it was, for this reason.
    Refused(Error),
}

/// Who asks, and why.
#[derive(Debug, Clone)]
pub struct Asker {
    /// For the audit log.
    pub caller: Caller,
    /// For the audit log.
    pub reason: Option<String>,
}

/// Puts aside those of `subjects` that are still as they were reported; one fate each, in their order.
///
/// # Errors
/// `invalid` for too many at once, and those of the catalog before anything is done.
pub async fn run(fleet: &Fleet, asker: &Asker, subjects: &[Subject], mode: Mode) -> Result<Vec<Fate>> {
    if subjects.len() > SUBJECTS_MAX {
        return Err(Error::new(422, "invalid", format!("at most {SUBJECTS_MAX} findings at once")));
    }
    let these = subjects.iter().map(|subject| (subject.server.clone(), subject.name.clone())).collect();
    let gathered = gather(fleet, &Opening::These(these)).await?;
    let fresh = compare(&gathered.seen()).findings;
    let fresh: HashMap<(&str, &str), &Subject> =
        fresh.iter().map(|f| ((f.subject.server.as_str(), f.subject.name.as_str()), &f.subject)).collect();
    let label = label(gathered.after.now);
    let mut fates = Vec::with_capacity(subjects.len());
    for subject in subjects {
        let now = fresh.get(&(subject.server.as_str(), subject.name.as_str())).copied();
        let fate = match check(&gathered, subject, now) {
            Err(error) => Fate::Refused(error),
            Ok(_) if mode == Mode::Plan => Fate::Planned,
            Ok((place, found)) => match aside(fleet, asker, (place, found, subject), &label).await {
                Ok(name) => Fate::Done(name),
                Err(error) => Fate::Refused(error),
            },
        };
        fates.push(fate);
    }
    Ok(fates)
}

/// The day, as it stands in names.
fn label(now: i64) -> String {
    let at = jiff::Timestamp::from_millisecond(now).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    at.strftime("%Y%m%d").to_string()
}

/// PURE: the object, if it is what was reported.
fn check<'a>(gathered: &'a Gathered, subject: &Subject, now: Option<&Subject>) -> Result<(&'a Place, &'a Found)> {
    if !subject.kind.is_orphan() {
        return Err(Error::new(422, "invalid", "only orphans can be put aside"));
    }
    let place = gathered.places.iter().find(|place| place.server.name == subject.server);
    let place = place.ok_or_else(|| Error::new(404, "not_found", "there is no such server"))?;
    let listing = place.listing.as_ref().map_err(|error| Error::new(503, error.code.clone(), error.detail.clone()))?;
    let found = listing.found.iter().find(|found| found.name == subject.name);
    let found = found.ok_or_else(|| Error::new(404, "not_found", "it is not there any more"))?;
    match now {
        Some(now) if now == subject => return Ok((place, found)),
        _ => {}
    }
    let seen = gathered.seen();
    Err(changed(match Index::of(&seen).standing(&place.server, found) {
        Standing::Named => "the catalog names it".to_owned(),
        Standing::Busy => "an operation works on its tenant".to_owned(),
        Standing::Young => format!("it is younger than {} minutes", GRACE_MS / 60_000),
        Standing::Foreign => "it belongs to another fleet".to_owned(),
        Standing::Orphan => difference(subject, now),
    }))
}

/// PURE.
fn difference(then: &Subject, now: Option<&Subject>) -> String {
    let Some(now) = now else { return "it is not reported any more".to_owned() };
    match () {
        () if now.physical != then.physical => "another object has its name now",
        () if now.identity != then.identity => "it says something else of itself now",
        () => "it is not what was reported",
    }
    .to_owned()
}

fn changed(why: String) -> Error {
    Error::new(409, "conflict", why).try_next("fleetctl scrub --out report.json, and look again")
}

type Object<'a> = (&'a Place, &'a Found, &'a Subject);

/// Puts one object aside, with an event before and one after.
async fn aside(fleet: &Fleet, asker: &Asker, object: Object<'_>, label: &str) -> Result<String> {
    let (place, found, subject) = object;
    begin(fleet, asker, object).await?;
    let server = fleet.server(place.server.id).await?;
    let expected = subject.identity.map(expected);
    let engine = fleet.engine(place.server.engine)?;
    let done = engine.quarantine(&server, found, expected.as_ref(), label).await;
    let event = match &done {
        Ok(to) => event(asker, object, "database.quarantined", json!({ "to": to })),
        Err(error) => event(asker, object, "database.quarantine_refused", json!({ "code": error.kind().code() })),
    };
    let mut tx = fleet.catalog.write().await?;
    catalog::events::append(&mut tx, &[event]).await?;
    tx.commit().await?;
    Ok(done?)
}

/// The last look into the catalog, in the transaction that says what is about to be done. No placement is ever named
/// again, so nothing that is nobody's here can become somebody's before it is put aside.
async fn begin(fleet: &Fleet, asker: &Asker, object: Object<'_>) -> Result<()> {
    let mut tx = fleet.catalog.write().await?;
    if let Some(tenant) = object.1.tenant {
        require_unclaimed(&mut tx, tenant, &object.1.name).await?;
    }
    let event = event(asker, object, "database.quarantine_begun", json!({}));
    catalog::events::append(&mut tx, &[event]).await?;
    Ok(tx.commit().await?)
}

async fn require_unclaimed(tx: &mut ReadTx, tenant: TenantId, name: &str) -> Result<()> {
    let found = catalog::tenants::get(tx, tenant).await?;
    let busy = found.as_ref().is_some_and(|found| found.op_id.is_some());
    if busy || catalog::steps::has_unfinished(tx, tenant).await? {
        return Err(changed("an operation works on its tenant".to_owned()));
    }
    let kept = catalog::retained::of_tenant(tx, tenant).await?;
    let current = found.and_then(|found| found.placement);
    if current.iter().chain(kept.iter().map(|kept| &kept.placement)).any(|named| belongs(name, named)) {
        return Err(changed("the catalog names it".to_owned()));
    }
    Ok(())
}

/// A database's companions and logins are called after it.
fn belongs(name: &str, database: &str) -> bool {
    name.strip_prefix(database).is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '_']))
}

fn expected(whose: Whose) -> Expected {
    let Whose { tenant, fleet, generation, state } = whose;
    Expected { tenant, fleet, generation, states: vec![state] }
}

fn event(asker: &Asker, (place, found, subject): Object<'_>, kind: &str, mut data: serde_json::Value) -> NewEvent {
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
        assert_eq!(label(1_764_000_000_000), "20251124");
    }

    #[test]
    fn companions_belong_to_their_database() {
        assert!(belongs("u/g1-1.db", "u/g1-1.db") && belongs("u/g1-1.db-wal", "u/g1-1.db"));
        assert!(belongs("t_1_g1_1_r", "t_1_g1_1"));
        assert!(!belongs("u/g1-1.db.part", "u/g1-1.db") && !belongs("u/g1-10.db", "u/g1-1.db"));
    }
}
