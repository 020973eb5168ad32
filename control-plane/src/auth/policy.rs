//! The rights of each operator role: one line per route of the admin API. PURE.
//!
//! A route that is not in [`RULES`] is refused to everybody. A test compares the table with the registered routes.

use catalog::tokens::OperatorRole;
use catalog::tokens::OperatorRole::{Admin, Operator, Viewer};

/// The access rule of one route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteRule {
    /// The HTTP method.
    pub method: &'static str,
    /// The route's template.
    pub path: &'static str,
    /// The lowest role that may call the route.
    pub role: OperatorRole,
    /// What a lower role may do on the route.
    pub below: LowerRoleAccess,
}

/// What a caller below a route's role may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LowerRoleAccess {
    /// Refused.
    Nothing,
    /// Request the plan only: a body with `"dry_run": true`, which changes nothing.
    DryRun,
}

/// The decision of [`decide_access`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessDecision {
    /// The request is allowed.
    Allow,
    /// The request is allowed if the body requests a dry run.
    AllowDryRun,
    /// The request is refused with 403.
    Refuse,
}

/// The access rules of all routes.
pub const RULES: &[RouteRule] = &[
    strict_rule("GET", "/v1/status", Viewer),
    strict_rule("GET", "/v1/doctor", Viewer),
    strict_rule("GET", "/v1/isolation", Operator),
    strict_rule("POST", "/v1/scrub", Operator),
    dry_run_rule("POST", "/v1/scrub/quarantine", Admin),
    strict_rule("GET", "/v1/tenants", Viewer),
    dry_run_rule("POST", "/v1/tenants", Operator),
    dry_run_rule("POST", "/v1/tenants/batch", Operator),
    strict_rule("POST", "/v1/tenants/adopt", Admin),
    strict_rule("GET", "/v1/tenants/{tenant}", Viewer),
    dry_run_rule("DELETE", "/v1/tenants/{tenant}", Admin),
    dry_run_rule("PATCH", "/v1/tenants/{tenant}", Operator),
    dry_run_rule("POST", "/v1/lifecycle/archive", Operator),
    dry_run_rule("POST", "/v1/lifecycle/clone", Operator),
    dry_run_rule("POST", "/v1/lifecycle/move", Operator),
    dry_run_rule("POST", "/v1/lifecycle/purge", Admin),
    dry_run_rule("POST", "/v1/lifecycle/read-only", Operator),
    dry_run_rule("POST", "/v1/lifecycle/resume", Operator),
    dry_run_rule("POST", "/v1/lifecycle/settle", Operator),
    dry_run_rule("POST", "/v1/lifecycle/suspend", Operator),
    dry_run_rule("POST", "/v1/lifecycle/unarchive", Operator),
    dry_run_rule("POST", "/v1/lifecycle/undelete", Operator),
    strict_rule("GET", "/v1/tenants/{tenant}/description", Viewer),
    strict_rule("GET", "/v1/tenants/{tenant}/members", Viewer),
    dry_run_rule("POST", "/v1/tenants/{tenant}/members", Admin),
    dry_run_rule("DELETE", "/v1/tenants/{tenant}/members/{principal}", Admin),
    dry_run_rule("POST", "/v1/tenants/{tenant}/impersonations", Admin),
    strict_rule("GET", "/v1/tenants/{tenant}/domains", Viewer),
    dry_run_rule("POST", "/v1/tenants/{tenant}/domains", Operator),
    dry_run_rule("DELETE", "/v1/tenants/{tenant}/domains/{host}", Operator),
    // Even a dry run of this route looks up a name that the caller chose.
    strict_rule("POST", "/v1/tenants/{tenant}/domains/{host}/verify", Operator),
    strict_rule("GET", "/v1/tenants/{tenant}/accounts", Viewer),
    dry_run_rule("POST", "/v1/tenants/{tenant}/accounts", Operator),
    dry_run_rule("DELETE", "/v1/tenants/{tenant}/accounts/{provider}/{account}", Operator),
    strict_rule("GET", "/v1/jobs", Viewer),
    strict_rule("GET", "/v1/tenants/{tenant}/jobs", Viewer),
    dry_run_rule("POST", "/v1/tenants/{tenant}/jobs/retry", Operator),
    dry_run_rule("POST", "/v1/tenants/{tenant}/jobs/drop", Operator),
    strict_rule("GET", "/v1/tokens", Viewer),
    dry_run_rule("POST", "/v1/tokens", Admin),
    dry_run_rule("DELETE", "/v1/tokens/{token}", Admin),
    strict_rule("GET", "/v1/servers", Viewer),
    // Even a dry run of these routes connects to an address that the caller names.
    strict_rule("POST", "/v1/servers", Admin),
    strict_rule("GET", "/v1/servers/{server}", Viewer),
    dry_run_rule("DELETE", "/v1/servers/{server}", Admin),
    strict_rule("GET", "/v1/servers/{server}/preparation", Operator),
    strict_rule("POST", "/v1/servers/{server}/entry", Admin),
    dry_run_rule("POST", "/v1/servers/{server}/cordon", Admin),
    dry_run_rule("POST", "/v1/servers/{server}/drain", Admin),
    dry_run_rule("POST", "/v1/servers/{server}/uncordon", Admin),
    strict_rule("GET", "/v1/releases", Viewer),
    dry_run_rule("POST", "/v1/releases", Operator),
    strict_rule("GET", "/v1/releases/{release}", Viewer),
    dry_run_rule("POST", "/v1/releases/{release}/activate", Operator),
    dry_run_rule("POST", "/v1/migrations", Operator),
    strict_rule("POST", "/v1/migrations/plan", Viewer),
    strict_rule("GET", "/v1/migrations/status", Viewer),
    strict_rule("GET", "/v1/backups", Viewer),
    dry_run_rule("POST", "/v1/backups", Operator),
    strict_rule("GET", "/v1/backups/{backup}", Viewer),
    dry_run_rule("POST", "/v1/backups/verify", Operator),
    dry_run_rule("POST", "/v1/restores", Operator),
    dry_run_rule("POST", "/v1/restores/undo", Operator),
    strict_rule("POST", "/v1/restores/preview", Viewer),
    strict_rule("GET", "/v1/operations", Viewer),
    strict_rule("GET", "/v1/operations/{operation}", Viewer),
    strict_rule("GET", "/v1/operations/{operation}/steps", Viewer),
    strict_rule("GET", "/v1/operations/{operation}/events", Viewer),
    dry_run_rule("POST", "/v1/operations/{operation}/pause", Operator),
    dry_run_rule("POST", "/v1/operations/{operation}/resume", Operator),
    dry_run_rule("POST", "/v1/operations/{operation}/retry", Operator),
    dry_run_rule("POST", "/v1/operations/{operation}/cancel", Operator),
    dry_run_rule("POST", "/v1/operations/{operation}/abandon", Operator),
    strict_rule("POST", "/v1/queries", Operator),
    strict_rule("GET", "/v1/events", Viewer),
    strict_rule("GET", "/v1/history", Viewer),
    dry_run_rule("PATCH", "/v1/history", Admin),
    strict_rule("GET", "/v1/plans", Viewer),
    dry_run_rule("POST", "/v1/plans", Operator),
    strict_rule("GET", "/v1/plans/{plan}", Viewer),
    dry_run_rule("PATCH", "/v1/plans/{plan}", Operator),
    dry_run_rule("DELETE", "/v1/plans/{plan}", Operator),
    strict_rule("GET", "/v1/webhooks", Viewer),
    // A webhook takes the audit log out of the fleet, and may reach private addresses.
    dry_run_rule("POST", "/v1/webhooks", Admin),
    dry_run_rule("DELETE", "/v1/webhooks/{webhook}", Admin),
    dry_run_rule("POST", "/v1/webhooks/{webhook}/pause", Operator),
    dry_run_rule("POST", "/v1/webhooks/{webhook}/resume", Operator),
    strict_rule("POST", "/v1/webhooks/{webhook}/test", Operator),
    strict_rule("GET", "/v1/webhooks/{webhook}/deliveries", Viewer),
];

/// A rule whose plan viewers may request.
const fn dry_run_rule(method: &'static str, path: &'static str, role: OperatorRole) -> RouteRule {
    RouteRule { method, path, role, below: LowerRoleAccess::DryRun }
}

const fn strict_rule(method: &'static str, path: &'static str, role: OperatorRole) -> RouteRule {
    RouteRule { method, path, role, below: LowerRoleAccess::Nothing }
}

/// The rule of a route, by its method and template. HEAD is treated as GET without a body.
#[must_use]
pub fn rule_of(method: &str, path: &str) -> Option<&'static RouteRule> {
    let method = if method == "HEAD" { "GET" } else { method };
    RULES.iter().find(|rule| rule.method == method && rule.path == path)
}

/// The methods that a template has rules for. Empty for an unknown template.
#[must_use]
pub fn methods_of(path: &str) -> Vec<&'static str> {
    RULES.iter().filter(|rule| rule.path == path).map(|rule| rule.method).collect()
}

/// Decides what `role` may do on a route. A route without a rule is refused.
#[must_use]
pub fn decide_access(rule: Option<&RouteRule>, role: OperatorRole) -> AccessDecision {
    match rule {
        Some(rule) if role >= rule.role => AccessDecision::Allow,
        Some(rule) if rule.below == LowerRoleAccess::DryRun => AccessDecision::AllowDryRun,
        _ => AccessDecision::Refuse,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_includes_the_lesser_ones() {
        let operators_only = strict_rule("POST", "/x", Operator);
        assert_eq!(decide_access(Some(&operators_only), Viewer), AccessDecision::Refuse);
        assert_eq!(decide_access(Some(&operators_only), Operator), AccessDecision::Allow);
        assert_eq!(decide_access(Some(&operators_only), Admin), AccessDecision::Allow);
        let planned = RouteRule { below: LowerRoleAccess::DryRun, ..operators_only };
        assert_eq!(decide_access(Some(&planned), Viewer), AccessDecision::AllowDryRun);
    }

    #[test]
    fn a_head_is_a_get_and_a_path_knows_its_methods() {
        assert_eq!(rule_of("HEAD", "/v1/tenants"), rule_of("GET", "/v1/tenants"));
        assert_eq!(methods_of("/v1/tokens/{token}"), ["DELETE"]);
        assert!(methods_of("/v1/everything").is_empty());
    }

    #[test]
    fn what_has_no_rule_is_refused_to_everybody() {
        assert_eq!(decide_access(rule_of("DELETE", "/v1/everything"), Admin), AccessDecision::Refuse);
    }

    #[test]
    fn no_route_has_two_rules_and_only_reading_is_open_to_viewers() {
        for (at, one) in RULES.iter().enumerate() {
            assert!(!RULES[..at].iter().any(|other| (other.method, other.path) == (one.method, one.path)), "{one:?}");
        }
    }
}
