//! Codes about wrong input and refused requests.

use super::{CodeExplanation, new_explanation};

pub(super) const ALL: &[CodeExplanation] = &[
    // --- input
    new_explanation(
        "invalid",
        "The input is malformed; the message says what is expected.",
        "a name with characters outside a-z, 0-9 and hyphen, a label without a value, or a field of the wrong type",
        "correct the input that the message names and send it again; nothing was done",
    ),
    new_explanation(
        "host_invalid",
        "The HTTP/1.1 request has no Host header, or more than one.",
        "a client or proxy that builds its own HTTP requests",
        "send one Host header",
    ),
    new_explanation(
        "selection_empty",
        "No tenant is selected.",
        "no names, no -l, no --server and no --all; or an empty file",
        "name tenants, select them by label or server, or use --all",
    ),
    new_explanation(
        "selection_matches_nobody",
        "The selection matches no tenant, so nothing was done.",
        "a typing error in a label, a server without tenants, or tenants in another state",
        "check the selection: fleetctl tenant list -l …; if it may be empty, add --allow-empty",
    ),
    new_explanation(
        "schema_unreachable",
        "The requested version is older, and migrations only go forwards.",
        "migrate run --target below a tenant's version, or restore run --schema current of a backup that is newer than the tenant",
        "restore an older backup: fleetctl restore run TENANT --to BACKUP; it keeps the backup's schema",
    ),
    new_explanation(
        "tenant_pinned",
        "A restore left the tenant at an older schema, and it stays there until a migration names it.",
        "a run over --all, -l or --server, or a retry of a run that is older than the restore",
        "fleetctl migrate run DIR TENANT, or --include-pinned for all pinned tenants",
    ),
    new_explanation(
        "count_mismatch",
        "The number of selected tenants differs from --expect-count.",
        "tenants were created or deleted since the number was determined",
        "run with --dry-run, check the plan, then use its number",
    ),
    new_explanation(
        "confirmation_required",
        "The command is hard to undo and was not confirmed.",
        "a script without --yes, or a mistyped name",
        "use --yes, and for several tenants also --expect-count N",
    ),
    new_explanation(
        "no_server",
        "--no-wait needs a process that continues the work.",
        "the command works on the data directory directly",
        "run fleetctl serve, or name a control plane with --url",
    ),
    new_explanation(
        "not_found",
        "There is no object with this name or id.",
        "a typing error, another fleet's id, a purged tenant, or (for a tenant's request) a tenant that the caller may not access",
        "fleetctl tenant list, or the list command of the object's noun",
    ),
    new_explanation(
        "backup_not_found",
        "No matching backup exists.",
        "the tenant was never backed up, or not before that time",
        "fleetctl backup list TENANT",
    ),
    new_explanation(
        "nothing_to_undo",
        "There is no replaced database to restore.",
        "the tenant was never restored in place, or the time to undo is over",
        "fleetctl restore run TENANT --to TIME",
    ),
    new_explanation(
        "already_exists",
        "The name or id is taken.",
        "a tenant has it, or had it earlier: names stay reserved",
        "choose another name; for lists: tenant create --if-exists skip",
    ),
    new_explanation(
        "conflict",
        "The object changed since it was read, or its state does not allow this.",
        "two operators working at the same time, or an operation that has ended already",
        "read it again (fleetctl … get) and repeat the command if it still makes sense",
    ),
    new_explanation(
        "precondition_failed",
        "The object has changed since the caller read it (If-Match).",
        "two operators working at the same time",
        "read it again and repeat with the new ETag",
    ),
    new_explanation(
        "operation_in_progress",
        "Another operation works on the tenant.",
        "a migration, backup or restore that has not ended",
        "fleetctl op list --tenant TENANT --state running; then wait, or use --lock-wait 10m",
    ),
    new_explanation(
        "locked",
        "Another run of this kind is in progress.",
        "a cron job that overlaps with its previous run",
        "wait for it with --lock-wait 10m, or find it: fleetctl op list --state running",
    ),
    new_explanation(
        "protected",
        "The tenant is protected from deletion.",
        "an operator ran fleetctl tenant protect",
        "fleetctl tenant protect TENANT --off, if it should really be deleted",
    ),
    new_explanation(
        "plan_in_use",
        "The plan cannot be removed, because tenants have it.",
        "tenants were given the plan with fleetctl tenant set --plan",
        "fleetctl tenant list -o wide shows the plans; then fleetctl tenant set TENANT --plan OTHER, or --no-plan",
    ),
    new_explanation(
        "idempotency_key_reused",
        "The idempotency key was already used for a different request.",
        "a client that does not create a new key for each request",
        "send a new Idempotency-Key",
    ),
    new_explanation(
        "idempotency_in_progress",
        "The first request with this idempotency key is still in progress.",
        "a retry that was sent too early",
        "wait a little and send the same request again",
    ),
    new_explanation(
        "invalid_cursor",
        "The cursor of a list is damaged or belongs to another list.",
        "the filters changed between two pages, or the cursor was truncated",
        "request the list again without a cursor",
    ),
    new_explanation(
        "method_not_allowed",
        "The address exists, but not with this HTTP method.",
        "a typing error in a script",
        "see /openapi.json",
    ),
    new_explanation(
        "unsupported_media_type",
        "The body is not JSON, or is not declared as JSON.",
        "a missing Content-Type header",
        "send Content-Type: application/json",
    ),
    new_explanation(
        "body_too_large",
        "The body is larger than this address accepts.",
        "too many names or statements at once",
        "send it in smaller parts",
    ),
    new_explanation(
        "invalid_query",
        "The query part of the address (after ?) is malformed or has an unknown field.",
        "a typing error in a script",
        "see /openapi.json",
    ),
    new_explanation(
        "unexpected_body",
        "The request has a body, but its address accepts none.",
        "a field such as dry_run in the body of a DELETE, which accepts it only in the query",
        "see /openapi.json; send it in the query, if it is a parameter there",
    ),
    new_explanation(
        "invalid_path",
        "A part of the address is malformed.",
        "characters that are not encoded",
        "see /openapi.json",
    ),
    new_explanation(
        "invalid_json",
        "The body is not valid JSON.",
        "a missing quote or brace, or an empty body",
        "correct the body",
    ),
    new_explanation(
        "invalid_header",
        "A header of the request is malformed.",
        "an idempotency key or request id that is too long or not text",
        "correct the header",
    ),
];
