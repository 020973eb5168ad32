//! Codes about what was asked.

use super::{Explanation, e};

pub(super) const ALL: &[Explanation] = &[
    // --- what was asked
    e(
        "invalid",
        "The input is malformed; the message says what is expected.",
        "a name with characters outside a-z, 0-9 and hyphen, a label without value, a field of the wrong type",
        "correct what the message names and send it again; nothing was done",
    ),
    e(
        "host_invalid",
        "An HTTP/1.1 request without a Host header, or with several.",
        "a client or proxy that writes requests by hand",
        "send one Host header",
    ),
    e(
        "selection_empty",
        "No tenant is selected.",
        "no names, no -l, no --server and no --all; or an empty file",
        "name tenants, select them by label or server, or say --all",
    ),
    e(
        "selection_matches_nobody",
        "The selection matches no tenant, so nothing was done.",
        "a typing error in a label, a server without tenants, tenants in another state",
        "look with the same selection: fleetctl tenant list -l …; if it may be empty: --allow-empty",
    ),
    e(
        "schema_unreachable",
        "Migrations only go forwards, and the version asked for lies behind.",
        "migrate run --target below a tenant's version; restore run --schema current of a backup that is newer than the tenant",
        "go back with a backup: fleetctl restore run TENANT --to BACKUP; a restore keeps its backup's schema",
    ),
    e(
        "tenant_pinned",
        "A restore left the tenant at an older schema, and it stays there until a migration names it.",
        "a run over --all, -l or --server; a retry of a run that is older than the restore",
        "fleetctl migrate run DIR TENANT, or --include-pinned for all of them",
    ),
    e(
        "count_mismatch",
        "The number of tenants meant differs from --expect-count.",
        "tenants came or went since the number was written down",
        "run with --dry-run, look at the plan, then give its number",
    ),
    e(
        "confirmation_required",
        "The command cannot simply be taken back and nobody confirmed it.",
        "a script without --yes, or a name typed wrongly",
        "give --yes, and for several tenants also --expect-count N",
    ),
    e(
        "no_server",
        "--no-wait needs a process that goes on with the work.",
        "the command works on the data directory by itself",
        "run fleetctl serve, or name a control plane with --url",
    ),
    e(
        "not_found",
        "Nothing of that name or id.",
        "a typing error, another fleet's id, a tenant that was purged, or (for a tenant's request) one the caller may not enter",
        "fleetctl tenant list, or the list of the noun in question",
    ),
    e(
        "backup_not_found",
        "No backup fits.",
        "the tenant was never backed up, or not yet at that time",
        "fleetctl backup list TENANT",
    ),
    e(
        "nothing_to_undo",
        "There is no replaced database to go back to.",
        "the tenant was never restored in place, or the time to undo is over",
        "fleetctl restore run TENANT --to TIME",
    ),
    e(
        "already_exists",
        "The name or id is taken.",
        "a tenant has it, or had it: names stay reserved",
        "choose another name; for lists: tenant create --if-exists skip",
    ),
    e(
        "conflict",
        "Somebody changed it since it was read, or it is in a state that does not allow this.",
        "two operators at once, or an operation that has ended already",
        "look again (fleetctl … get) and repeat if it still makes sense",
    ),
    e(
        "precondition_failed",
        "The thing has changed since the caller read it (If-Match).",
        "two operators at once",
        "read it again and repeat with the new ETag",
    ),
    e(
        "operation_in_progress",
        "Another operation works on the tenant.",
        "a migration, backup or restore that has not ended",
        "fleetctl op list --tenant TENANT --state running; then wait, or use --lock-wait 10m",
    ),
    e(
        "locked",
        "Another run of this kind is under way.",
        "a cron job that overlaps with the one before",
        "wait for it with --lock-wait 10m, or look: fleetctl op list --state running",
    ),
    e(
        "protected",
        "The tenant is protected from deletion.",
        "somebody ran fleetctl tenant protect",
        "fleetctl tenant protect TENANT --off, if you mean it",
    ),
    e(
        "idempotency_key_reused",
        "The same idempotency key came with another request.",
        "a client that does not make a new key for new work",
        "send a fresh Idempotency-Key",
    ),
    e(
        "idempotency_in_progress",
        "The first request with this idempotency key is still being answered.",
        "a retry that came too early",
        "wait a moment and send the same request again",
    ),
    e(
        "invalid_cursor",
        "The cursor of a list is damaged or belongs to another list.",
        "filters changed between two pages, or the text was cut",
        "start the list again without a cursor",
    ),
    e(
        "method_not_allowed",
        "The address exists, but not with this HTTP method.",
        "a typing error in a script",
        "see /openapi.json",
    ),
    e(
        "unsupported_media_type",
        "The body is not JSON, or does not say so.",
        "a missing Content-Type header",
        "send Content-Type: application/json",
    ),
    e(
        "body_too_large",
        "The body is longer than this address takes.",
        "too many names or statements at once",
        "send it in parts",
    ),
    e(
        "invalid_query",
        "The part of the address after ? is malformed or names an unknown field.",
        "a typing error in a script",
        "see /openapi.json",
    ),
    e(
        "unexpected_body",
        "The request has a body, and its address takes none.",
        "a field such as dry_run in the body of a DELETE, which reads it from the query",
        "see /openapi.json; send it after ?, if it is one of the parameters there",
    ),
    e("invalid_path", "A part of the address is malformed.", "characters that are not encoded", "see /openapi.json"),
    e("invalid_json", "The body is no JSON.", "a missing quote or brace, or an empty body", "correct the body"),
    e(
        "invalid_header",
        "A header of the request is malformed.",
        "an idempotency key or request id that is too long or no text",
        "correct the header",
    ),
];
