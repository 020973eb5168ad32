//! PURE: how many of a server's connections requests may use.

/// The limits that a server reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ServerLimits {
    /// The setting `max_connections`.
    pub(super) connections_max: usize,
    /// The setting `superuser_reserved_connections`: not available to this program.
    pub(super) superuser_reserved: usize,
    /// The setting `reserved_connections`, since version 16: for roles that this program does not use.
    pub(super) reserved: usize,
    /// `rolconnlimit` of the maintenance role; `None` means no limit.
    pub(super) maintenance_max: Option<usize>,
    /// The server's version as a number, such as 150018.
    pub(super) version: u32,
    /// Number of processes that have their catalog on this server, including this one.
    pub(super) catalogs: usize,
}

/// The part of the usable connections, in 1/n, that is left free for fleet work (migrations, dumps, inspections). A
/// process holds up to 8 working connections and 8 idle ones on a server: a server of 100 connections has room for all
/// of them.
const FLEET_SHARE: usize = 5;
/// At least enough for a migration and a dump at the same time. One control plane never uses more than the upper bound
/// on one server.
const FLEET_BOUNDS: (usize, usize) = (2, 20);

/// Maximum connections that a process holds to a catalog on the server.
const CATALOG_CONNECTIONS: usize = 7;

/// The part that is left alone, in 1/n: a backend ends some milliseconds after its connection was closed, and
/// monitoring, cron jobs and people log in, too.
const SLACK_SHARE: usize = 20;
const SLACK_BOUNDS: (usize, usize) = (1, 10);

/// Connections that the requests of all processes together may hold. At least one, otherwise no request would be
/// served.
pub(super) fn for_requests(facts: &ServerLimits) -> usize {
    let usable = facts.connections_max.saturating_sub(facts.superuser_reserved + facts.reserved);
    of_usable(usable, facts.maintenance_max, facts.catalogs)
}

/// Connections for requests, out of those that a server allows to ordinary roles; `catalogs` processes have their
/// catalog there.
pub(in crate::postgres) fn of_usable(usable: usize, maintenance_max: Option<usize>, catalogs: usize) -> usize {
    let usable = usable.saturating_sub(catalogs * CATALOG_CONNECTIONS);
    let fleet = clamped_share(usable, FLEET_SHARE, FLEET_BOUNDS);
    // Connections that the role may not hold anyway need not be left free for it.
    let fleet = maintenance_max.map_or(fleet, |max| fleet.min(max));
    usable.saturating_sub(fleet + clamped_share(usable, SLACK_SHARE, SLACK_BOUNDS)).max(1)
}

fn clamped_share(of: usize, part: usize, (min, max): (usize, usize)) -> usize {
    (of / part).clamp(min, max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(connections_max: usize) -> ServerLimits {
        ServerLimits {
            connections_max,
            superuser_reserved: 3,
            reserved: 0,
            maintenance_max: None,
            version: 150_000,
            catalogs: 0,
        }
    }

    #[test]
    fn small_and_large_servers() {
        for (connections_max, expected) in [(1, 1), (5, 1), (10, 4), (20, 13), (100, 74), (500, 467), (5_000, 4_967)] {
            assert_eq!(for_requests(&facts(connections_max)), expected, "{connections_max}");
        }
    }

    #[test]
    fn what_others_reserve_is_left_alone() {
        assert_eq!(for_requests(&ServerLimits { reserved: 10, ..facts(100) }), 66);
        assert_eq!(for_requests(&ServerLimits { superuser_reserved: 200, ..facts(100) }), 1);
    }

    #[test]
    fn a_role_with_a_limit_needs_no_larger_reserve() {
        assert_eq!(for_requests(&ServerLimits { maintenance_max: Some(3), ..facts(100) }), 90);
        assert_eq!(for_requests(&ServerLimits { maintenance_max: Some(50), ..facts(100) }), 74);
    }

    #[test]
    fn catalogs_on_the_server_are_counted() {
        assert_eq!(for_requests(&ServerLimits { catalogs: 2, ..facts(100) }), 63);
        assert_eq!(for_requests(&ServerLimits { catalogs: 9, ..facts(20) }), 1);
    }
}
