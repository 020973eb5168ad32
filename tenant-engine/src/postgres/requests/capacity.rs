//! PURE: how many of a server's connections requests may use.

/// What a server says about its own limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Facts {
    /// `max_connections`.
    pub(super) connections_max: usize,
    /// `superuser_reserved_connections`: never ours.
    pub(super) superuser_reserved: usize,
    /// `reserved_connections`, since version 16: for roles that we are not.
    pub(super) reserved: usize,
    /// `rolconnlimit` of the maintenance role; `None`: no limit.
    pub(super) maintenance_max: Option<usize>,
    /// For instance 150018.
    pub(super) version: u32,
}

/// Part of the usable connections that fleet work (migrations, dumps, inspections) finds free, in 1/n: it holds one
/// per database it works on, and a runner works on some at once.
const FLEET_SHARE: usize = 10;
/// At least a migration and a dump at the same time; more than this no control plane uses on one server.
const FLEET_BOUNDS: (usize, usize) = (2, 20);

/// Part left alone, in 1/n: a backend ends some milliseconds after its connection was closed, and monitoring, cron and
/// humans log in too.
const SLACK_SHARE: usize = 20;
const SLACK_BOUNDS: (usize, usize) = (1, 10);

/// Connections that the requests of all processes together may hold; at least one, or nothing would be served.
pub(super) fn for_requests(facts: &Facts) -> usize {
    let usable = facts.connections_max.saturating_sub(facts.superuser_reserved + facts.reserved);
    of_usable(usable, facts.maintenance_max)
}

/// The same of the connections that a server allows to roles like ours.
pub(in crate::postgres) fn of_usable(usable: usize, maintenance_max: Option<usize>) -> usize {
    let fleet = share(usable, FLEET_SHARE, FLEET_BOUNDS);
    // What the role may not hold anyway need not be kept free for it.
    let fleet = maintenance_max.map_or(fleet, |max| fleet.min(max));
    usable.saturating_sub(fleet + share(usable, SLACK_SHARE, SLACK_BOUNDS)).max(1)
}

fn share(of: usize, part: usize, (min, max): (usize, usize)) -> usize {
    (of / part).clamp(min, max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(connections_max: usize) -> Facts {
        Facts { connections_max, superuser_reserved: 3, reserved: 0, maintenance_max: None, version: 150_000 }
    }

    #[test]
    fn small_and_large_servers() {
        for (connections_max, expected) in [(1, 1), (5, 1), (10, 4), (20, 14), (100, 84), (500, 467), (5_000, 4_967)] {
            assert_eq!(for_requests(&facts(connections_max)), expected, "{connections_max}");
        }
    }

    #[test]
    fn what_others_reserve_is_left_alone() {
        assert_eq!(for_requests(&Facts { reserved: 10, ..facts(100) }), 75);
        assert_eq!(for_requests(&Facts { superuser_reserved: 200, ..facts(100) }), 1);
    }

    #[test]
    fn a_role_with_a_limit_needs_no_larger_reserve() {
        assert_eq!(for_requests(&Facts { maintenance_max: Some(3), ..facts(100) }), 90);
        assert_eq!(for_requests(&Facts { maintenance_max: Some(50), ..facts(100) }), 84);
    }
}
