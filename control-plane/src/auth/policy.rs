//! What each role of operators may do: one line per route of the admin API. PURE.
//!
//! A route that is not in [`RULES`] is refused to everybody; a test compares the table with the registered routes.

use catalog::tokens::OperatorRole;
use catalog::tokens::OperatorRole::{Admin, Operator, Viewer};

/// Who may call a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// The HTTP method.
    pub method: &'static str,
    /// The route's template.
    pub path: &'static str,
    /// The least role that may call it.
    pub role: OperatorRole,
    /// What a lesser role may do with it.
    pub below: Below,
}

/// What a caller below a route's role may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Below {
    /// Nothing.
    Nothing,
    /// Ask for the plan: a body with `"dry_run": true`, which changes nothing.
    DryRun,
}

/// What [`decide`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Go on.
    Allow,
    /// Go on if the body asks for a dry run.
    AllowDryRun,
    /// 403.
    Refuse,
}

/// The table.
pub const RULES: &[Rule] = &[
    rule("GET", "/v1/status", Viewer),
    rule("GET", "/v1/doctor", Viewer),
    rule("POST", "/v1/scrub", Operator),
    planned("POST", "/v1/scrub/quarantine", Admin),
    rule("GET", "/v1/tenants", Viewer),
    planned("POST", "/v1/tenants", Operator),
    planned("POST", "/v1/tenants/batch", Operator),
    rule("POST", "/v1/tenants/adopt", Admin),
    rule("GET", "/v1/tenants/{tenant}", Viewer),
    planned("DELETE", "/v1/tenants/{tenant}", Admin),
    planned("PATCH", "/v1/tenants/{tenant}", Operator),
    planned("POST", "/v1/lifecycle/archive", Operator),
    planned("POST", "/v1/lifecycle/clone", Operator),
    planned("POST", "/v1/lifecycle/move", Operator),
    planned("POST", "/v1/lifecycle/purge", Admin),
    planned("POST", "/v1/lifecycle/read-only", Operator),
    planned("POST", "/v1/lifecycle/resume", Operator),
    planned("POST", "/v1/lifecycle/settle", Operator),
    planned("POST", "/v1/lifecycle/suspend", Operator),
    planned("POST", "/v1/lifecycle/unarchive", Operator),
    planned("POST", "/v1/lifecycle/undelete", Operator),
    rule("GET", "/v1/tenants/{tenant}/members", Viewer),
    planned("POST", "/v1/tenants/{tenant}/members", Admin),
    planned("DELETE", "/v1/tenants/{tenant}/members/{principal}", Admin),
    rule("GET", "/v1/tokens", Viewer),
    planned("POST", "/v1/tokens", Admin),
    planned("DELETE", "/v1/tokens/{token}", Admin),
    rule("GET", "/v1/servers", Viewer),
    // Even a dry run of these connects to an address that the caller names.
    rule("POST", "/v1/servers", Admin),
    rule("GET", "/v1/servers/{server}", Viewer),
    planned("DELETE", "/v1/servers/{server}", Admin),
    rule("GET", "/v1/servers/{server}/preparation", Operator),
    rule("POST", "/v1/servers/{server}/entry", Admin),
    planned("POST", "/v1/servers/{server}/cordon", Admin),
    planned("POST", "/v1/servers/{server}/drain", Admin),
    planned("POST", "/v1/servers/{server}/uncordon", Admin),
    rule("GET", "/v1/releases", Viewer),
    planned("POST", "/v1/releases", Operator),
    rule("GET", "/v1/releases/{release}", Viewer),
    planned("POST", "/v1/releases/{release}/activate", Operator),
    planned("POST", "/v1/migrations", Operator),
    rule("POST", "/v1/migrations/plan", Viewer),
    rule("GET", "/v1/migrations/status", Viewer),
    rule("GET", "/v1/backups", Viewer),
    planned("POST", "/v1/backups", Operator),
    rule("GET", "/v1/backups/{backup}", Viewer),
    planned("POST", "/v1/backups/verify", Operator),
    planned("POST", "/v1/restores", Operator),
    planned("POST", "/v1/restores/undo", Operator),
    rule("POST", "/v1/restores/preview", Viewer),
    rule("GET", "/v1/operations", Viewer),
    rule("GET", "/v1/operations/{operation}", Viewer),
    rule("GET", "/v1/operations/{operation}/steps", Viewer),
    rule("GET", "/v1/operations/{operation}/events", Viewer),
    planned("POST", "/v1/operations/{operation}/pause", Operator),
    planned("POST", "/v1/operations/{operation}/resume", Operator),
    planned("POST", "/v1/operations/{operation}/retry", Operator),
    planned("POST", "/v1/operations/{operation}/cancel", Operator),
    planned("POST", "/v1/operations/{operation}/abandon", Operator),
    rule("POST", "/v1/queries", Operator),
    rule("GET", "/v1/events", Viewer),
    rule("GET", "/v1/history", Viewer),
    planned("PATCH", "/v1/history", Admin),
];

/// A rule whose plan viewers may see.
const fn planned(method: &'static str, path: &'static str, role: OperatorRole) -> Rule {
    Rule { method, path, role, below: Below::DryRun }
}

const fn rule(method: &'static str, path: &'static str, role: OperatorRole) -> Rule {
    Rule { method, path, role, below: Below::Nothing }
}

/// The rule of a route, by its method and template; HEAD is a GET without its body.
#[must_use]
pub fn rule_of(method: &str, path: &str) -> Option<&'static Rule> {
    let method = if method == "HEAD" { "GET" } else { method };
    RULES.iter().find(|rule| rule.method == method && rule.path == path)
}

/// The methods that a template knows; empty for one without rules.
#[must_use]
pub fn methods_of(path: &str) -> Vec<&'static str> {
    RULES.iter().filter(|rule| rule.path == path).map(|rule| rule.method).collect()
}

/// What `role` may do on a route; a route without a rule is refused.
#[must_use]
pub fn decide(rule: Option<&Rule>, role: OperatorRole) -> Decision {
    match rule {
        Some(rule) if role >= rule.role => Decision::Allow,
        Some(rule) if rule.below == Below::DryRun => Decision::AllowDryRun,
        _ => Decision::Refuse,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_includes_the_lesser_ones() {
        let operators_only = rule("POST", "/x", Operator);
        assert_eq!(decide(Some(&operators_only), Viewer), Decision::Refuse);
        assert_eq!(decide(Some(&operators_only), Operator), Decision::Allow);
        assert_eq!(decide(Some(&operators_only), Admin), Decision::Allow);
        let planned = Rule { below: Below::DryRun, ..operators_only };
        assert_eq!(decide(Some(&planned), Viewer), Decision::AllowDryRun);
    }

    #[test]
    fn a_head_is_a_get_and_a_path_knows_its_methods() {
        assert_eq!(rule_of("HEAD", "/v1/tenants"), rule_of("GET", "/v1/tenants"));
        assert_eq!(methods_of("/v1/tokens/{token}"), ["DELETE"]);
        assert!(methods_of("/v1/everything").is_empty());
    }

    #[test]
    fn what_has_no_rule_is_refused_to_everybody() {
        assert_eq!(decide(rule_of("DELETE", "/v1/everything"), Admin), Decision::Refuse);
    }

    #[test]
    fn no_route_has_two_rules_and_only_reading_is_open_to_viewers() {
        for (at, one) in RULES.iter().enumerate() {
            assert!(!RULES[..at].iter().any(|other| (other.method, other.path) == (one.method, one.path)), "{one:?}");
        }
    }
}
