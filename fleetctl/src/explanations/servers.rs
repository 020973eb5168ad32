//! Codes about servers that hold databases.

use super::{Explanation, e};

pub(super) const ALL: &[Explanation] = &[
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
    e(
        "not_restorable",
        "A server refuses an object of a dump, so the database cannot be made again from it; the message names the object.",
        "an expression that calls a function which fails on the rows that are there, or that names an object of another schema without it; or a newer server that no longer allows it",
        "change that object in a migration (name schemas inside functions, or alter function … set search_path), back up again",
    ),
    e(
        "not_dumpable",
        "A database holds something that a dump cannot carry, so no backup, clone or move of it is made; the message names it.",
        "row level security that is forced on the owner of a table, or large objects",
        "what the message says: take 'force' off the table, keep the bytes in a bytea column",
    ),
    e(
        "not_adoptable",
        "A copy of the database would not be equal to it, so it was not adopted; the message says each reason.",
        "settings of the database, event triggers, publications of all tables, a ledger elsewhere or dirty",
        "change the original as the message says, then the same command again",
    ),
    e("closed", "The pool or the engine is shutting down.", "a restart", "repeat in a moment"),
];
