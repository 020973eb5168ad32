//! What every error code means. Tests hold this table against the crates that make the codes.

/// One code.
#[derive(Debug)]
pub(crate) struct Explanation {
    pub(crate) code: &'static str,
    pub(crate) meaning: &'static str,
    pub(crate) causes: &'static str,
    pub(crate) next: &'static str,
}

/// The explanation of a code.
pub(crate) fn find(code: &str) -> Option<&'static Explanation> {
    EXPLANATIONS.iter().find(|e| e.code == code)
}

const fn e(code: &'static str, meaning: &'static str, causes: &'static str, next: &'static str) -> Explanation {
    Explanation { code, meaning, causes, next }
}

/// Every code a user can meet, grouped by who makes it.
pub(crate) const EXPLANATIONS: &[Explanation] = &[
    // --- what was asked
    e(
        "invalid",
        "The input is malformed; the message says what is expected.",
        "a name with characters outside a-z, 0-9 and hyphen, a label without value, a field of the wrong type",
        "correct what the message names and send it again; nothing was done",
    ),
    e(
        "selection_empty",
        "No tenant is selected.",
        "labels that no tenant has, a server without tenants, an empty file",
        "look with the same selection: fleetctl tenant list -l …",
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
    e("invalid_path", "A part of the address is malformed.", "characters that are not encoded", "see /openapi.json"),
    e("invalid_json", "The body is no JSON.", "a missing quote or brace, or an empty body", "correct the body"),
    e(
        "invalid_header",
        "A header of the request is malformed.",
        "an idempotency key or request id that is too long or no text",
        "correct the header",
    ),
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
        "repeat; if it stays so: fleetctl doctor, then restore the tenant",
    ),
    e(
        "schema_behind",
        "The tenant's schema is older than the application can serve.",
        "a migration that is not done yet",
        "fleetctl migrate status",
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
    // --- SQL
    e(
        "sql_invalid",
        "The SQL does not parse, or names what is not there.",
        "a typing error, or a schema that is behind",
        "fleetctl migrate status shows the versions",
    ),
    e(
        "sql_forbidden",
        "This SQL is not allowed in a tenant's request.",
        "ATTACH, DDL, transaction control, a PRAGMA, or a system table",
        "schema changes are migrations: fleetctl migrate run",
    ),
    e(
        "constraint_violation",
        "A constraint of the tenant's own schema refused the change.",
        "a duplicate key, a missing parent, a failed check",
        "correct the data",
    ),
    e(
        "read_only_transaction",
        "A write in a read-only transaction.",
        "a query of an operator, or a reader's request",
        "use a token with the role writer",
    ),
    e(
        "parameter_mismatch",
        "The parameters do not fit the statement.",
        "too few, too many, or of a type the database has not",
        "count the ?1, ?2 … of the statement",
    ),
    e("rows_max", "More rows than allowed.", "a select without limit", "add limit, or ask page by page"),
    e("bytes_max", "More bytes than allowed.", "large texts or blobs", "select fewer columns or rows"),
    e(
        "deadline_exceeded",
        "The statement ran longer than allowed.",
        "a missing index, or a very large table",
        "explain query plan, then add an index by a migration",
    ),
    // --- databases
    e("database_busy", "Another writer holds the database.", "long transactions", "repeat; keep transactions short"),
    e(
        "database_missing",
        "There is no database where the catalog says.",
        "a file removed by hand, a disk that is not mounted",
        "mount the disk, or fleetctl restore run TENANT --to latest",
    ),
    e("database_exists", "A database is already where a new one should be.", "files copied by hand", "fleetctl doctor"),
    e(
        "wrong_tenant",
        "The database belongs to another tenant.",
        "files exchanged or copied by hand",
        "put the files back, or fleetctl restore run TENANT --to latest",
    ),
    e(
        "wrong_tenant_backup",
        "The backup belongs to another tenant.",
        "objects renamed or copied in the backup store",
        "fleetctl backup list TENANT shows its own backups",
    ),
    e(
        "database_corrupt",
        "The database is damaged, or no database at all.",
        "a failing disk, or a file overwritten by hand",
        "fleetctl restore run TENANT --to latest",
    ),
    e(
        "disk_full",
        "The disk is full.",
        "growth, or too many kept backups",
        "free space, then fleetctl op retry OPERATION",
    ),
    e(
        "read_only_storage",
        "The storage does not allow writing.",
        "a read-only mount, or permissions",
        "check mount and owner of the data directory",
    ),
    e(
        "io",
        "A file, the network or the operating system failed.",
        "a failing disk, a limit of open files",
        "the server's log has the details; then repeat",
    ),
    e(
        "connections_max",
        "Every connection this process may open is in use.",
        "a low limit of open files, or very many active tenants",
        "raise the limit (ulimit -n) and repeat",
    ),
    e(
        "queue_full",
        "So many requests are waiting for this tenant's database that one more is refused at once.",
        "one tenant that asks faster than its database answers; others are not affected",
        "send fewer requests at once, and repeat after the time in Retry-After",
    ),
    // --- servers
    e(
        "server_unreachable",
        "The server that holds the database does not answer.",
        "a wrong address, a server that is down or restarting, a cut network",
        "fleetctl server get <name>; the work goes on by itself when the server is back",
    ),
    e(
        "server_invalid",
        "The connection string of a server is malformed.",
        "a typing mistake, or a file that holds something else",
        "expected postgres://user:password@host:port/database?sslmode=require",
    ),
    e(
        "server_auth_failed",
        "The server refuses who we say we are.",
        "a password that was changed, or a rule in its pg_hba.conf",
        "fleetctl server set <name> --dsn-file <file> with the right connection string",
    ),
    e(
        "server_tls",
        "The server and this program do not agree on TLS.",
        "the server takes only TLS and the connection string says sslmode=disable, or its certificate is not trusted",
        "set sslmode (and sslrootcert) in the connection string",
    ),
    e(
        "server_connections_max",
        "The server takes no more connections, everybody's together.",
        "max_connections is reached, by us or by others",
        "raise max_connections, or find who holds them in pg_stat_activity; waiting work goes on by itself",
    ),
    e(
        "server_privilege_missing",
        "The role that the fleet uses on this server lacks a right.",
        "a grant that was never given or was taken away",
        "the message names the statement that grants it",
    ),
    e(
        "connection_lost",
        "The connection broke while a statement ran: it may or may not have been done.",
        "a server that was restarted, a session that was ended, a cut network",
        "look whether the change is there before repeating it; fleet operations find out by themselves",
    ),
    e(
        "unsupported_type",
        "A column or parameter has a type without a neutral form.",
        "arrays, ranges, geometric types and types of extensions",
        "cast it to text in the statement: select tags::text from …",
    ),
    e(
        "tool_missing",
        "pg_dump or pg_restore was not found, or did not start.",
        "PostgreSQL's client programs are not installed on this machine",
        "install them (Debian: postgresql-client), of a version not older than the server's",
    ),
    e(
        "tool_too_old",
        "pg_dump is older than the server; its dump could lack something.",
        "client programs of an older major version",
        "install the client programs of the server's version",
    ),
    e("closed", "The pool or the engine is shutting down.", "a restart", "repeat in a moment"),
    // --- migrations
    e(
        "migration_invalid",
        "The migration directory itself is wrong.",
        "a file name without version, a version twice, a file that is not UTF-8",
        "names look like 0001_name.sql",
    ),
    e(
        "migration_changed",
        "A file was changed after this database applied it.",
        "an edit of an old migration",
        "put the old text back, and write a new migration",
    ),
    e(
        "migration_missing",
        "The database applied a version whose file is not in the set.",
        "a deleted file, or another branch",
        "run the set that holds it",
    ),
    e("migration_ahead", "The database is newer than the set.", "an old checkout", "run the newer set"),
    e(
        "migration_failed",
        "A statement of a migration failed; the tenant is as before.",
        "data that does not fit the new schema",
        "data: correct it, then fleetctl migrate retry; file: correct it, then fleetctl migrate run again (retry uses the old text)",
    ),
    e(
        "migration_dirty",
        "A migration without transaction stopped in the middle.",
        "a crash or an error in a file marked no-transaction",
        "look into the tenant's database and finish by hand, or restore it",
    ),
    // --- backups
    e(
        "backup_damaged",
        "The backup does not match its manifest.",
        "a truncated or changed object",
        "fleetctl backup list TENANT, and take another one; fleetctl backup verify finds others",
    ),
    e(
        "backup_newer",
        "The backup was written by a newer version of this program.",
        "a downgrade",
        "update the program",
    ),
    e(
        "backup_store_unavailable",
        "The backup store does not answer.",
        "network, credentials, or the store itself",
        "fleetctl doctor; then fleetctl op retry OPERATION",
    ),
    e(
        "backup_store_unusable",
        "The backup store's settings cannot be used.",
        "a mistyped address or option",
        "fleetctl config show --origin",
    ),
    // --- the fleet
    e(
        "not_initialised",
        "There is no fleet here yet.",
        "another directory is meant, or init was not run",
        "fleetctl init, or --data-dir DIR",
    ),
    e(
        "catalog_unavailable",
        "The catalog cannot be reached, is locked for too long, or its disk is full.",
        "another process, or a full disk",
        "repeat; then fleetctl doctor",
    ),
    e(
        "catalog_newer",
        "The catalog was made by a newer version of this program.",
        "a downgrade",
        "use the newer program",
    ),
    e(
        "catalog_missing",
        "A fleet was here, but its catalog is gone.",
        "catalog.db was deleted, truncated or not copied along",
        "put it back: every backup run keeps a copy under v1/catalog in the backup store",
    ),
    e(
        "catalog_corrupt",
        "What the catalog holds breaks a rule of this program.",
        "an edit by hand, or a failing disk",
        "restore the catalog's snapshot from the backup store",
    ),
    e(
        "wrong_key",
        "The key is missing or is not this fleet's.",
        "fleet.key was lost or exchanged, or FLEET_KEY is another fleet's",
        "put the right key back; init said to keep a copy",
    ),
    e(
        "data_dir_unusable",
        "The data directory cannot be used.",
        "it is missing, read-only, or another user's",
        "check path, owner and mount",
    ),
    e(
        "server_full",
        "No server has room for another tenant.",
        "every server is at its maximum or cordoned",
        "fleetctl server add, or raise tenants_max",
    ),
    e(
        "server_cordoned",
        "The server takes no new tenants.",
        "somebody ran fleetctl server cordon",
        "fleetctl server uncordon NAME, or name another server",
    ),
    e(
        "already_serving",
        "Another process serves this data directory.",
        "serve or dev runs already",
        "use it, or stop it first",
    ),
    e(
        "address_unusable",
        "The address cannot be listened on.",
        "another program has the port, or the address is not this machine's",
        "choose another: --listen 127.0.0.1:0 takes any free port",
    ),
    e(
        "address_in_use",
        "Another program listens on this address.",
        "serve or dev for another fleet, or any other program",
        "choose another: --listen 127.0.0.1:0 takes any free port",
    ),
    e(
        "admin_exposed",
        "The admin API would be reachable from outside without encryption.",
        "--admin-listen with an outside address and no certificate",
        "give --tls-certificate and --tls-key, or listen on 127.0.0.1",
    ),
    e(
        "tls_invalid",
        "Certificate or key cannot be used.",
        "a wrong file, no PEM, or two that do not belong together",
        "check tls_certificate and tls_key",
    ),
    e(
        "internal",
        "A bug in this program.",
        "something nobody thought of",
        "report it with the request id and the log around it",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_stands_once_and_has_everything() {
        for (at, e) in EXPLANATIONS.iter().enumerate() {
            assert!(!EXPLANATIONS[..at].iter().any(|o| o.code == e.code), "{} stands twice", e.code);
            assert!(![e.meaning, e.causes, e.next].contains(&""), "{}", e.code);
        }
    }
}
