//! Codes about who asks, and one tenant's request.

use super::{Explanation, e};

pub(super) const ALL: &[Explanation] = &[
    // --- who asks
    e(
        "unauthenticated",
        "There is no valid credential.",
        "no token, or one that expired or was revoked, or a tenant's token at the admin API",
        "set FLEET_TOKEN or --token-file; make one: fleetctl token create",
    ),
    e(
        "forbidden",
        "The credential is valid, but its role is not enough.",
        "a viewer that runs an operation, an operator that makes tokens, a reader that manages members",
        "use a token with a higher role",
    ),
    // --- one tenant's request
    e(
        "tenant_unnamed",
        "The request names no tenant.",
        "a path without /t/TENANT and a host that is no tenant's",
        "use /t/TENANT/query",
    ),
    e(
        "tenant_name_invalid",
        "A name in the request cannot be a tenant's.",
        "wrong characters, too long, reserved",
        "names are 1 to 63 of a-z, 0-9 and hyphen",
    ),
    e(
        "tenant_ambiguous",
        "The names in the request lead to different tenants.",
        "path, host and header disagree",
        "name the tenant once",
    ),
    e(
        "tenant_header_refused",
        "X-Tenant came with a credential that may not use it.",
        "a member's or tenant's token",
        "use a service token, or name the tenant in the path",
    ),
    e(
        "tenant_suspended",
        "The tenant is suspended.",
        "an operator suspended it",
        "fleetctl tenant get TENANT says why",
    ),
    e(
        "tenant_archived",
        "Only a backup of the tenant is left.",
        "it was archived for lack of use",
        "try again when it is awake (Retry-After)",
    ),
    e(
        "tenant_read_only",
        "An operator made the tenant read-only.",
        "maintenance, or a limit",
        "fleetctl tenant get TENANT says why",
    ),
    e(
        "read_only",
        "The role may only read.",
        "a reader's token with a writing statement",
        "use a token with the role writer",
    ),
    e(
        "writes_blocked",
        "An operation blocks writes for a moment, longer than the request may wait.",
        "a restore or a move at its last step",
        "repeat after Retry-After",
    ),
    e(
        "fenced",
        "The database is not the one the catalog names now.",
        "the tenant was restored or moved a moment ago, or a database was put back by hand",
        "repeat; if it stays so: fleetctl doctor, then fleetctl tenant settle (--newest after the catalog was restored)",
    ),
    e(
        "schema_behind",
        "The tenant's schema is older than the application can serve.",
        "a migration that is not done yet, or a restore to an older schema, which leaves the tenant pinned",
        "fleetctl migrate status; a pinned tenant: fleetctl migrate run DIR TENANT",
    ),
    e(
        "schema_ahead",
        "The tenant's schema is newer than the application can serve.",
        "an old program is still running",
        "update the application",
    ),
    e("shutting_down", "The process is ending.", "a restart", "repeat in a moment"),
    e(
        "body_timeout",
        "The body did not arrive in time.",
        "a slow or broken connection",
        "send it again, or in smaller parts",
    ),
];
