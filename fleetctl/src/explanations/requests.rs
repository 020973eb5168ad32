//! Codes about authentication and about requests to one tenant.

use super::{CodeExplanation, new_explanation};

pub(super) const ALL: &[CodeExplanation] = &[
    // --- authentication
    new_explanation(
        "unauthenticated",
        "The request has no valid credential.",
        "no token, an expired or revoked token, or a tenant's token at the admin API",
        "set FLEET_TOKEN or --token-file; create a token: fleetctl token create",
    ),
    new_explanation(
        "keys_unavailable",
        "A JSON Web Token cannot be checked, because the public keys of its issuer cannot be fetched.",
        "the identity provider is down, or its address of keys (JWKS) is wrong or not reachable from here",
        "repeat the request later; see the application's log for the address and the cause",
    ),
    new_explanation(
        "forbidden",
        "The credential is valid, but its role does not allow this.",
        "a viewer that runs an operation, an operator that creates tokens, a reader that manages members",
        "use a token with a higher role",
    ),
    new_explanation(
        "wrong_listener",
        "The request was for the admin API, but the address serves tenants' data.",
        "the port of the data API in --url or FLEET_URL",
        "use the admin address: fleetctl serve prints both when it starts",
    ),
    // --- plans
    new_explanation(
        "rate_limited",
        "The tenant has used up the rate of its plan. The request did not reach the database.",
        "more requests than the plan allows; a process takes an equal part of the fleet's rate",
        "repeat after the time in Retry-After; fleetctl plan get PLAN shows the rate, fleetctl plan set changes it",
    ),
    new_explanation(
        "requests_max",
        "The tenant has as many open requests as its plan allows. The request did not reach the database.",
        "slow statements, long transactions, or more clients at once than the plan allows",
        "repeat after the time in Retry-After; fleetctl plan set PLAN --concurrency N",
    ),
    new_explanation(
        "storage_full",
        "The tenant's database is as large as its plan allows. Nothing was changed.",
        "the tenant has stored as much as its plan allows; deleted rows of a PostgreSQL database still count until a VACUUM",
        "delete rows, or fleetctl plan set PLAN --storage-bytes N, or fleetctl tenant set TENANT --plan OTHER",
    ),
    // --- webhooks from other services
    new_explanation(
        "webhook_refused",
        "A webhook of another service was not accepted, and changed nothing.",
        "a wrong secret, a clock that is more than five minutes off, a changed body, or an account that is linked to no tenant",
        "fleetctl tenant account list TENANT shows the accounts; link the account again with the service's secret",
    ),
    // --- background jobs
    new_explanation(
        "job_invalid",
        "A job, its key or its schedule is not valid, and was not enqueued.",
        "the job is larger than 100,000 bytes as JSON, a name is empty or too long, or a schedule names no time",
        "store large data in a table and refer to it; write a schedule of five fields, for instance 0 3 * * *",
    ),
    new_explanation(
        "loop_invalid",
        "A program's loop over many tenants was not begun.",
        "its selection matches no tenant that serves, or it does not say who runs it and why",
        "check the labels: fleetctl tenant list -l LABELS; give an actor and a reason",
    ),
    new_explanation(
        "job_claim_lost",
        "Another process runs the job meanwhile, so this run was rolled back.",
        "the process stood still for longer than its claim lasts, or an operator dropped the job",
        "nothing: the other run ends the job; for slow machines, set a longer lease of the job runner",
    ),
    // --- custom domains
    new_explanation(
        "domain_unproven",
        "The DNS has no record that proves control of the domain.",
        "the TXT record is not set, has another value, or other DNS servers do not know it yet",
        "fleetctl tenant domain list TENANT shows the record; set it, and verify again",
    ),
    new_explanation(
        "dns_unavailable",
        "The DNS did not say whether the TXT record exists.",
        "no DNS server is reachable, or the name servers of the domain fail",
        "verify again later; set dns_server to a server that this machine reaches",
    ),
    // --- live messages
    new_explanation(
        "topic_invalid",
        "The name of a topic is not valid.",
        "a name with other characters than a-z, 0-9, '-', '_', '.' and ':', or with more than 64",
        "correct the name in the application",
    ),
    new_explanation(
        "message_too_large",
        "A message for a topic is larger than the application's limit; nothing was published.",
        "a whole record in the message",
        "publish the id of what changed, and let the page read the rest; or raise RealtimeLimits::message_bytes_max",
    ),
    new_explanation(
        "messages_max",
        "Too many messages are being published; this one was not.",
        "a tenant publishes more than 50 messages in a second, or the catalog is slow",
        "publish one message for many changes; or raise RealtimeLimits::tenant_messages_per_second_max",
    ),
    new_explanation(
        "subscriptions_max",
        "The tenant, or the process, has as many live connections as its limit allows.",
        "many open pages, or a client that opens connections and does not close them",
        "close connections, run another process, or raise the limits in RealtimeLimits",
    ),
    new_explanation(
        "origin_refused",
        "A page of another site tried to open a live connection.",
        "a page of another origin, or a proxy that changes the header Host",
        "use the application's own page; let the proxy pass Host; in the application, RealtimeRequest::allow_origins",
    ),
    // --- one tenant's request
    new_explanation(
        "row_not_found",
        "The application asked for one row, and there is none. The HTTP status is 404.",
        "the id in the request belongs to no row of this tenant",
        "check the id; in the application, fetch_optional returns None instead",
    ),
    new_explanation(
        "row_mismatch",
        "A row of an answer cannot be read as the type that the application expects.",
        "the type of a field, or its name, differs from the column; a column is NULL and its field is not an Option",
        "see the application's log: it names the column, the expected type and the found type",
    ),
    new_explanation(
        "tenant_unnamed",
        "The request names no tenant.",
        "a path without /t/TENANT, and a host that belongs to no tenant",
        "use /t/TENANT/query",
    ),
    new_explanation(
        "tenant_name_invalid",
        "A name in the request is not a valid tenant name.",
        "wrong characters, too long, or reserved",
        "names are 1 to 63 of a-z, 0-9 and hyphen",
    ),
    new_explanation(
        "tenant_ambiguous",
        "The names in the request lead to different tenants.",
        "path, host and header disagree",
        "name the tenant once",
    ),
    new_explanation(
        "tenant_header_refused",
        "The request has the header X-Tenant, but its credential may not use it.",
        "a member's or tenant's token",
        "use a service token, or name the tenant in the path",
    ),
    new_explanation(
        "tenant_suspended",
        "The tenant is suspended.",
        "an operator suspended it",
        "fleetctl tenant get TENANT shows the reason",
    ),
    new_explanation(
        "tenant_archived",
        "The tenant is archived: it has a backup, but no live database.",
        "it was archived because it was not used",
        "repeat after Retry-After, when it is awake",
    ),
    new_explanation(
        "tenant_read_only",
        "An operator made the tenant read-only.",
        "maintenance, or a limit",
        "fleetctl tenant get TENANT shows the reason",
    ),
    new_explanation(
        "read_only",
        "The role allows only reading.",
        "a reader's token with a writing statement",
        "use a token with the role writer",
    ),
    new_explanation(
        "writes_blocked",
        "An operation blocked writes for longer than the request may wait.",
        "a restore or a move in its last step",
        "repeat after Retry-After",
    ),
    new_explanation(
        "fenced",
        "The database is not the one that the catalog expects.",
        "the tenant was just restored or moved, an operation failed or was cancelled in the middle, or a database was put back by hand",
        "repeat; if it persists: fleetctl doctor, then fleetctl tenant repair (--find-latest after a restore of the catalog)",
    ),
    new_explanation(
        "schema_behind",
        "The tenant's schema is older than the application can serve.",
        "a migration that has not run yet, or a restore to an older schema, which leaves the tenant pinned",
        "fleetctl migrate status; a pinned tenant: fleetctl migrate run DIR TENANT",
    ),
    new_explanation(
        "schema_ahead",
        "The tenant's schema is newer than the application can serve.",
        "an old version of the application is still running",
        "update the application",
    ),
    new_explanation("shutting_down", "The process is shutting down.", "a restart", "repeat the request shortly"),
    new_explanation(
        "body_timeout",
        "The request body did not arrive in time.",
        "a slow or broken connection",
        "send it again, or in smaller parts",
    ),
];
