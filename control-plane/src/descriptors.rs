//! Divides the file descriptors that the operating system allows among the parts of the process.
//!
//! Databases, sockets, steps and the catalog all need descriptors. The part that took the last one would stop the
//! others. So each part gets a fixed share, computed once from the limit. No part can starve another, and the admin
//! listener always answers. `app.rs` gives the shares to the engine and the runner, `serve.rs` to the listeners.

use std::path::Path;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The limit assumed when there is none: enough for all shares below at their largest.
const UNLIMITED: usize = 65_536;
/// Descriptors of the process itself: standard streams, runtime, logs, locks, the catalog's connections (three
/// descriptors for each of seven), the listing of directories, and temporary files of statements.
const OWN: usize = 96;
/// Sockets of the data listener: one part in four. The bounds of this and the next shares keep a small limit usable and
/// a large one in proportion.
const DATA_SOCKETS: DescriptorShare = DescriptorShare { part: 4, min: 16, max: 4_096 };
const ADMIN_SOCKETS: DescriptorShare = DescriptorShare { part: 16, min: 8, max: 256 };
/// Connections to the local socket. A command holds one while it waits for its operation, and scripts start many at
/// once.
const LOCAL_SOCKETS: DescriptorShare = DescriptorShare { part: 64, min: 16, max: 256 };
/// Connections of requests to database servers.
const SERVER_SOCKETS: DescriptorShare = DescriptorShare { part: 16, min: 8, max: 2_048 };
/// Steps at once. Many steps in flight share one flush of the disk; beyond 128 the catalog's batches do not get larger.
const STEPS: DescriptorShare = DescriptorShare { part: 32, min: 2, max: 128 };
/// Descriptors of one step: a snapshot, an object of the store or a socket to the bucket, a connection to its server,
/// and the pipes of one of PostgreSQL's programs.
const PER_STEP: usize = 5;
/// Descriptors of one database: its file, its log and its shared memory.
const PER_DATABASE: usize = 3;
/// Minimum number of databases: one writer and one reader.
const DATABASES_MIN: usize = 2;
/// Fewer free descriptors than this are an emergency. A checkpoint, a request and a probe at once need about as many.
const FREE_MIN: usize = 16;

/// A share of the limit, within bounds.
struct DescriptorShare {
    part: usize,
    min: usize,
    max: usize,
}

impl DescriptorShare {
    fn share_of_limit(&self, limit: usize) -> usize {
        (limit / self.part).clamp(self.min, self.max)
    }
}

/// The number of descriptors or objects that each part of the process may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DescriptorPlan {
    /// The limit of the operating system. `None`: no limit.
    pub limit: Option<u64>,
    /// Connections to SQLite databases.
    pub databases: usize,
    /// Sockets of the data listener.
    pub data_sockets: usize,
    /// Sockets of the admin listener.
    pub admin_sockets: usize,
    /// Connections to the admin API's Unix socket.
    pub local_sockets: usize,
    /// Connections of requests to database servers, all servers together. A step's own connections, and those to a
    /// bucket, are counted with the steps.
    pub server_sockets: usize,
    /// Steps of operations at once.
    pub steps: usize,
}

impl DescriptorPlan {
    /// The connections to each server, if there are this many servers.
    #[must_use]
    pub fn sockets_for_each(&self, servers: usize) -> usize {
        (self.server_sockets / servers.max(1)).max(1)
    }

    /// Raises the soft limit to the hard limit, and divides it.
    #[must_use]
    pub fn of_this_process() -> Self {
        Self::divide_limit(raise_limit())
    }

    /// PURE: divides a limit into shares.
    fn divide_limit(limit: Option<u64>) -> Self {
        let all = limit.map_or(UNLIMITED, |limit| usize::try_from(limit).unwrap_or(UNLIMITED));
        let (data_sockets, admin_sockets) = (DATA_SOCKETS.share_of_limit(all), ADMIN_SOCKETS.share_of_limit(all));
        let (server_sockets, steps) = (SERVER_SOCKETS.share_of_limit(all), STEPS.share_of_limit(all));
        let local_sockets = LOCAL_SOCKETS.share_of_limit(all);
        let others = OWN + data_sockets + admin_sockets + local_sockets + server_sockets + PER_STEP * steps;
        let databases = (all.saturating_sub(others) / PER_DATABASE).max(DATABASES_MIN);
        Self { limit, databases, data_sockets, admin_sockets, local_sockets, server_sockets, steps }
    }
}

/// Fails when the process is about to run out of descriptors. It opens one file to find out. The operating system
/// assigns the lowest free number, so a high number means that nearly all below it are taken.
///
/// # Errors
/// The reason, in words.
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
            tracing::warn!(%error, "the limit on open files was not raised");
            limit.current
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(plan: &DescriptorPlan) -> usize {
        let sockets = plan.data_sockets + plan.admin_sockets + plan.local_sockets + plan.server_sockets;
        OWN + sockets + PER_STEP * plan.steps + PER_DATABASE * plan.databases
    }

    #[test]
    fn the_parts_never_exceed_the_limit() {
        for limit in [256, 512, 700, 1_024, 4_096, 20_000, 65_536, 1_048_576] {
            let plan = DescriptorPlan::divide_limit(Some(limit));
            assert!(sum(&plan) as u64 <= limit, "{limit}: {plan:?}");
            assert!(plan.databases >= DATABASES_MIN && plan.admin_sockets >= 8, "{limit}: {plan:?}");
        }
        assert!(DescriptorPlan::divide_limit(Some(1_024)).databases >= 120);
        assert!(DescriptorPlan::divide_limit(None).databases >= 15_000);
        assert_eq!(DescriptorPlan::divide_limit(Some(1_024)).sockets_for_each(2), 32);
        assert_eq!(DescriptorPlan::divide_limit(Some(256)).sockets_for_each(100), 1);
        assert_eq!(DescriptorPlan::divide_limit(Some(20)).databases, DATABASES_MIN);
    }

    #[test]
    fn a_process_with_free_descriptors_says_so() {
        check_free(&std::env::temp_dir()).unwrap();
        assert!(check_free(Path::new("/none/such")).is_err());
    }
}
