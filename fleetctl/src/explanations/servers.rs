//! Codes about servers that hold databases.

use super::{CodeExplanation, new_explanation};

pub(super) const ALL: &[CodeExplanation] = &[
    // --- servers
    new_explanation(
        "server_unreachable",
        "The server that holds the database does not answer.",
        "a wrong address, a server that is down or restarting, a network failure",
        "fleetctl server get <name>; waiting work continues when the server is back",
    ),
    new_explanation(
        "server_invalid",
        "The connection string of a server is malformed.",
        "a typing error, or a file with other content",
        "expected postgres://user:password@host:port/database?sslmode=require",
    ),
    new_explanation(
        "server_auth_failed",
        "The server rejected the user name or password.",
        "a changed password, or a rule in the server's pg_hba.conf",
        "fleetctl server set <name> --dsn-file <file> with the right connection string",
    ),
    new_explanation(
        "server_tls",
        "The server and this program do not agree on TLS.",
        "the server requires TLS and the connection string says sslmode=disable, or its certificate is not trusted",
        "set sslmode (and sslrootcert) in the connection string",
    ),
    new_explanation(
        "server_connections_max",
        "The server accepts no more connections; those of all programs count together.",
        "max_connections is reached, by this fleet or by other programs",
        "raise max_connections, or find the users in pg_stat_activity; waiting work continues automatically",
    ),
    new_explanation(
        "server_privilege_missing",
        "The role that the fleet uses on this server lacks a privilege.",
        "a grant that was never made or was revoked",
        "run the statement that the message names",
    ),
    new_explanation(
        "connection_lost",
        "The connection broke while a statement ran: it may or may not have been applied.",
        "a restarted server, a terminated session, a network failure",
        "check whether the change is there before repeating it; fleet operations check this themselves",
    ),
    new_explanation(
        "unsupported_type",
        "A column or parameter has a type without a neutral form.",
        "arrays, ranges, geometric types and types of extensions",
        "cast it to text in the statement: select tags::text from …",
    ),
    new_explanation(
        "other_engine",
        "The application used sqlx on a SQLite tenant, or rusqlite on a PostgreSQL tenant.",
        "the fleet has tenants on both engines, or a tenant was moved to the other one",
        "use query_as and execute, which work on both; or ask the tenant for its engine first",
    ),
    new_explanation(
        "tool_missing",
        "pg_dump or pg_restore was not found, or did not start.",
        "PostgreSQL's client programs are not installed on this machine",
        "install them (Debian: postgresql-client), of a version not older than the server's",
    ),
    new_explanation(
        "tool_failed",
        "pg_dump, pg_restore or psql ended with an error; the message contains its output.",
        "a full disk, too little memory, a killed program, or an object that it cannot handle",
        "correct what the message names, then fleetctl op retry OPERATION",
    ),
    new_explanation(
        "tool_too_old",
        "pg_dump is older than the server; its dump could be incomplete.",
        "client programs of an older major version",
        "install the client programs of the server's version",
    ),
    new_explanation(
        "not_restorable",
        "A server refuses an object of a dump, so the database cannot be restored from it; the message names the object.",
        "a function in an expression fails on the existing rows, or names an object without its schema; or a newer server no longer allows it",
        "change that object in a migration (name schemas inside functions, or alter function … set search_path), then back up again",
    ),
    new_explanation(
        "not_dumpable",
        "The database contains an object that a dump cannot contain, so it cannot be backed up, cloned or moved; the message names the object.",
        "row level security that is forced on a table's owner, or large objects",
        "follow the message: remove 'force' from the table, or keep the bytes in a bytea column",
    ),
    new_explanation(
        "not_adoptable",
        "A copy of the database would differ from it, so it was not adopted; the message lists the reasons.",
        "database settings, event triggers, publications of all tables, or a ledger that is dirty or in another place",
        "change the original as the message says, then run the same command again",
    ),
    new_explanation("closed", "The pool or the engine is shutting down.", "a restart", "repeat the request shortly"),
];
