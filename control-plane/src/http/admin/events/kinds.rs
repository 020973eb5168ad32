//! The kinds of events that this program writes. A filter by any other kind is refused. A test compares the list with
//! the sources.

use std::collections::BTreeSet;

use crate::http::admin::lookup;
use crate::http::error::Result;

/// Every kind but those that end in `_given_up`.
const WRITTEN: &[&str] = &[
    "account.linked",
    "account.unlinked",
    "backup.created",
    "database.quarantine_begun",
    "database.quarantine_refused",
    "database.quarantined",
    "fleet.identity_given",
    "fleet.loop_begun",
    "fleet.servers_taken_over",
    "history.changed",
    "impersonation.ended",
    "impersonation.requested",
    "impersonation.started",
    "job.dropped",
    "job.retried",
    "member.removed",
    "member.set",
    "operation.abandoned",
    "operation.cancelled",
    "operation.ended",
    "operation.opened",
    "operation.opening",
    "operation.paused",
    "operation.resumed",
    "operation.retried",
    "operation.submitted",
    "plan.added",
    "plan.changed",
    "plan.removed",
    "query.run",
    "release.activated",
    "release.stored",
    "server.added",
    "server.entry_changed",
    "server.state_changed",
    "tenant.activated",
    "tenant.adopted",
    "tenant.archived",
    "tenant.cloned",
    "tenant.created",
    "tenant.deleted",
    "tenant.domain_added",
    "tenant.domain_expired",
    "tenant.domain_removed",
    "tenant.domain_verified",
    "tenant.labelled",
    "tenant.migrated",
    "tenant.moved",
    "tenant.plan_set",
    "tenant.protected",
    "tenant.purged",
    "tenant.read_only",
    "tenant.renamed",
    "tenant.restore_undone",
    "tenant.restored",
    "tenant.resumed",
    "tenant.settled",
    "tenant.suspended",
    "tenant.unarchived",
    "tenant.undeleted",
    "tenant.unprotected",
    "tenant.writable",
    "token.created",
    "token.revoked",
    "webhook.added",
    "webhook.event_given_up",
    "webhook.paused",
    "webhook.removed",
    "webhook.resumed",
];

/// Parses the kind in a filter.
pub(crate) fn parse_kind(kind: Option<&str>) -> Result<Option<String>> {
    let known = known_kinds();
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    Ok(lookup::parse_word("kind", kind, &known)?.map(str::to_owned))
}

/// Parses the kinds that a webhook selects, each once. An unknown one is refused.
pub(crate) fn parse_kinds(kinds: &[String]) -> Result<Vec<String>> {
    let parsed: BTreeSet<String> =
        kinds.iter().filter_map(|kind| parse_kind(Some(kind)).transpose()).collect::<Result<_>>()?;
    Ok(parsed.into_iter().collect())
}

/// All kinds. An operation that is given up after its fence writes an event with its own kind.
fn known_kinds() -> Vec<String> {
    let given_up = crate::operations::KINDS.iter().map(|kind| format!("tenant.{kind}_given_up"));
    WRITTEN.iter().map(|kind| (*kind).to_owned()).chain(given_up).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Words that look like a kind and are not one.
    const OTHERS: &[&str] = &[
        "catalog.db",
        "catalog.reserve",
        "fleet.claims",
        "fleet.key",
        "operation.abandon",
        "operation.cancel",
        "operation.pause",
        "operation.resume",
        "operation.retry",
        "tenant.changed",
        "webhook.test",
    ];

    #[test]
    fn every_kind_that_the_sources_write_is_known() {
        let mut found = Vec::new();
        collect(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")), &mut found);
        // The router starts and ends impersonations, and begins the loops of applications.
        for file in ["impersonation.rs", "fleet_loop.rs"] {
            collect_file(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../tenant-router/src").join(file), &mut found);
        }
        let known = known_kinds();
        for word in found.iter().filter(|word| !OTHERS.contains(&word.as_str())) {
            assert!(known.contains(word), "{word} is not in the list");
        }
        for kind in WRITTEN {
            assert!(found.iter().any(|word| word == kind), "{kind} is in no source");
        }
    }

    fn collect(directory: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
            match entry.is_dir() {
                true => collect(&entry, found),
                false if entry.ends_with("events/kinds.rs") => {}
                false => collect_file(&entry, found),
            }
        }
    }

    fn collect_file(file: &Path, found: &mut Vec<String>) {
        let text = std::fs::read_to_string(file).unwrap();
        found.extend(text.split('"').filter(|word| is_kind(word)).map(str::to_owned));
    }

    fn is_kind(word: &str) -> bool {
        let nouns = WRITTEN.iter().filter_map(|kind| kind.split_once('.')).map(|(noun, _)| noun).collect::<Vec<_>>();
        word.split_once('.').is_some_and(|(noun, verb)| {
            nouns.contains(&noun)
                && !verb.is_empty()
                && verb.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        })
    }
}
