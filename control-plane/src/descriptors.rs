//! How the process divides the descriptors that the operating system allows it.
//!
//! Databases, sockets, steps and the catalog all take descriptors, and the part that takes the last one stops the others. So
//! each gets a fixed part, made once from the limit: none can starve another, and the admin listener always answers.
//! `app.rs` hands the parts to the engine and the runner, `serve.rs` to the listeners.

use std::path::Path;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Counted on when there is no limit: enough for everything below at its largest.
const UNLIMITED: usize = 65_536;
/// Of the process itself: standard streams, runtime, logs, locks, the catalog's connections (three descriptors for each
/// of seven), the listing of directories, and temporary files of statements.
const OWN: usize = 96;
/// One part in so many for each kind of socket; the bounds keep a small limit usable and a large one in proportion.
const DATA_SOCKETS: Share = Share { part: 4, min: 16, max: 4_096 };
const ADMIN_SOCKETS: Share = Share { part: 16, min: 8, max: 256 };
/// Connections of requests to servers of databases.
const SERVER_SOCKETS: Share = Share { part: 16, min: 8, max: 2_048 };
/// Steps at once: many steps in flight share one flush of the disk; beyond 128 the catalog's batches do not get larger.
const STEPS: Share = Share { part: 32, min: 2, max: 128 };
/// One step holds a snapshot, an object of the store or a socket to the bucket, a connection to its server, and the pipes
/// of one of PostgreSQL's programs.
const PER_STEP: usize = 5;
/// A database takes its file, its log and its shared memory.
const PER_DATABASE: usize = 3;
/// One writer and one reader, or nothing works at all.
const DATABASES_MIN: usize = 2;
/// Fewer free descriptors than this are an emergency: a checkpoint, a request and a probe at once take about as many.
const FREE_MIN: usize = 16;

/// A part of the limit, within bounds.
struct Share {
    part: usize,
    min: usize,
    max: usize,
}

impl Share {
    fn of(&self, limit: usize) -> usize {
        (limit / self.part).clamp(self.min, self.max)
    }
}

/// What each part of the process may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DescriptorPlan {
    /// What the operating system allows; `None`: no limit.
    pub limit: Option<u64>,
    /// Connections to SQLite databases.
    pub databases: usize,
    /// Sockets of the data listener.
    pub data_sockets: usize,
    /// Sockets of the admin listener.
    pub admin_sockets: usize,
    /// Connections for requests to servers of databases, all servers together. A step's own, and those to a bucket, are
    /// counted with the steps.
    pub server_sockets: usize,
    /// Steps of operations at once.
    pub steps: usize,
}

impl DescriptorPlan {
    /// Of the connections to servers, those to each of so many.
    #[must_use]
    pub fn sockets_for_each(&self, servers: usize) -> usize {
        (self.server_sockets / servers.max(1)).max(1)
    }

    /// Raises the soft limit to the hard one and divides it.
    #[must_use]
    pub fn of_this_process() -> Self {
        Self::divide(raise_limit())
    }

    /// PURE.
    fn divide(limit: Option<u64>) -> Self {
        let all = limit.map_or(UNLIMITED, |limit| usize::try_from(limit).unwrap_or(UNLIMITED));
        let (data_sockets, admin_sockets) = (DATA_SOCKETS.of(all), ADMIN_SOCKETS.of(all));
        let (server_sockets, steps) = (SERVER_SOCKETS.of(all), STEPS.of(all));
        let others = OWN + data_sockets + admin_sockets + server_sockets + PER_STEP * steps;
        let databases = (all.saturating_sub(others) / PER_DATABASE).max(DATABASES_MIN);
        Self { limit, databases, data_sockets, admin_sockets, server_sockets, steps }
    }
}

/// Fails when the process is about to run out of descriptors; opens one to find out. The operating system gives the
/// lowest number that is free, so a high one means that nearly all below it are taken.
///
/// # Errors
/// With the reason, in words.
pub fn check_free(directory: &Path) -> Result<(), &'static str> {
    use std::os::fd::AsRawFd as _;
    let Ok(probe) = std::fs::File::open(directory) else { return Err("no file can be opened") };
    let number = usize::try_from(probe.as_raw_fd()).unwrap_or(usize::MAX);
    match getrlimit(Resource::Nofile).current {
        Some(limit) if number.saturating_add(FREE_MIN) as u64 >= limit => Err("nearly every file descriptor is in use"),
        _ => Ok(()),
    }
}

fn raise_limit() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(error) => {
            tracing::warn!(%error, "the limit on open files stays as it is");
            limit.current
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(plan: &DescriptorPlan) -> usize {
        let sockets = plan.data_sockets + plan.admin_sockets + plan.server_sockets;
        OWN + sockets + PER_STEP * plan.steps + PER_DATABASE * plan.databases
    }

    #[test]
    fn the_parts_never_exceed_the_limit() {
        for limit in [256, 512, 700, 1_024, 4_096, 20_000, 65_536, 1_048_576] {
            let plan = DescriptorPlan::divide(Some(limit));
            assert!(sum(&plan) as u64 <= limit, "{limit}: {plan:?}");
            assert!(plan.databases >= DATABASES_MIN && plan.admin_sockets >= 8, "{limit}: {plan:?}");
        }
        assert!(DescriptorPlan::divide(Some(1_024)).databases >= 128);
        assert!(DescriptorPlan::divide(None).databases >= 15_000);
        assert_eq!(DescriptorPlan::divide(Some(1_024)).sockets_for_each(2), 32);
        assert_eq!(DescriptorPlan::divide(Some(256)).sockets_for_each(100), 1);
        assert_eq!(DescriptorPlan::divide(Some(20)).databases, DATABASES_MIN);
    }

    #[test]
    fn a_process_with_free_descriptors_says_so() {
        check_free(&std::env::temp_dir()).unwrap();
        assert!(check_free(Path::new("/none/such")).is_err());
    }
}
