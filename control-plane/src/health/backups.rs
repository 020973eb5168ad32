//! Checks of backups: their age, and the store that holds them.

use std::time::Duration;

use catalog::{ReadTx, backups};

use super::check::HealthCheck;
use crate::app::App;
use crate::error::{Error, Result};

const HOUR_MS: i64 = 3_600_000;
/// How far a backup's time may be in the future, milliseconds. Clocks of processes may differ by seconds; more means
/// that a clock was wrong.
const BACKUP_AHEAD_MAX_MS: i64 = 5 * 60_000;
/// Number of manifests that are looked up in the backup store. A store that was lost or replaced lacks all of them.
pub(super) const MANIFESTS_PROBED: u32 = 8;
/// How long the backup store may take to answer.
const PROBE_MAX: Duration = Duration::from_secs(10);

/// Checks the age of each tenant's newest backup.
pub(super) async fn backup_age(tx: &mut ReadTx, hours: u32) -> Result<HealthCheck> {
    let now = tx.now();
    let old = now - i64::from(hours) * HOUR_MS;
    Ok(freshness_check(&backups::backup_freshness(tx, old, now + BACKUP_AHEAD_MAX_MS).await?, hours))
}

/// PURE: the check of backups' ages. Each tenant counts, so that one fresh backup does not hide the old ones of others.
/// A tenant that is younger than the maximum age only causes a warning: its first backup may be due tonight.
fn freshness_check(found: &backups::BackupFreshness, hours: u32) -> HealthCheck {
    let counts = [
        (found.never, "without a backup".to_owned()),
        (found.stale, format!("with none of the last {hours} hours")),
        (found.in_future, "with one dated in the future".to_owned()),
        (found.young, "new, and without a backup yet".to_owned()),
    ];
    let told =
        counts.into_iter().filter(|(tenants, _)| *tenants > 0).map(|(tenants, what)| format!("{tenants} {what}"));
    let told: Vec<String> = told.collect();
    let next = "fleetctl backup run --all; if a date is in the future, check the clocks";
    let detail = format!("of {} tenants, {}", found.tenants, told.join(", "));
    match (found.never + found.stale, found.in_future + found.young) {
        (0, 0) => HealthCheck::new_ok("backups", format!("all {} tenants have a fresh one", found.tenants)),
        (0, _) => HealthCheck::new_warning("backups", detail, next),
        _ => HealthCheck::new_failure("backups", detail, next),
    }
}

/// Checks whether the store answers, and holds the backups that the catalog lists.
pub(super) async fn backup_store(app: &App, last: &[String]) -> HealthCheck {
    let next = "check that the backup store is there (setting backup_url), then fleetctl backup verify --all";
    let Ok(keys) = last.iter().map(|key| key.parse()).collect::<std::result::Result<Vec<_>, Error>>() else {
        return HealthCheck::new_failure(
            "backup_store",
            "the catalog lists an object key that does not belong to a backup",
            next,
        );
    };
    let probe = tokio::time::timeout(PROBE_MAX, app.context.store.probe_store(&keys)).await;
    match probe {
        Ok(Ok(0)) => {
            let detail = format!("an object was written, read and removed; the last {} backups are there", keys.len());
            HealthCheck::new_ok("backup_store", detail)
        }
        Ok(Ok(missing)) => HealthCheck::new_failure(
            "backup_store",
            format!("it lacks {missing} of the last {} backups", keys.len()),
            next,
        ),
        Ok(Err(error)) => HealthCheck::new_unknown("backup_store", format!("{}: {}", error.code(), error.detail), next),
        Err(_) => HealthCheck::new_unknown("backup_store", "it does not answer in time", next),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::check::HealthVerdict;

    #[test]
    fn one_fresh_backup_hides_no_other_tenant() {
        let found = |never, stale, in_future, young| {
            freshness_check(&backups::BackupFreshness { tenants: 9, never, stale, in_future, young }, 26)
        };
        assert_eq!(found(0, 0, 0, 0).verdict, HealthVerdict::Ok);
        for (counts, verdict, words) in [
            ((1, 0, 0, 0), HealthVerdict::Fail, "1 without a backup"),
            ((0, 2, 0, 0), HealthVerdict::Fail, "2 with none of the last 26 hours"),
            ((0, 0, 3, 0), HealthVerdict::Warn, "3 with one dated"),
            ((0, 0, 0, 4), HealthVerdict::Warn, "4 new"),
            ((0, 1, 1, 1), HealthVerdict::Fail, "1 with one dated"),
        ] {
            let check = found(counts.0, counts.1, counts.2, counts.3);
            assert!(check.verdict == verdict && check.detail.contains(words), "{}", check.detail);
        }
    }
}
