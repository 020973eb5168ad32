//! Codes about SQL and about tenant databases.

use super::{CodeExplanation, new_explanation};

pub(super) const ALL: &[CodeExplanation] = &[
    // --- SQL
    new_explanation(
        "sql_invalid",
        "The SQL does not parse, names a missing object, or failed on its own values or on an error that a function raised.",
        "a typing error, an older schema, a limit of the database, or a rule in a function or trigger",
        "fleetctl migrate status shows the versions",
    ),
    new_explanation(
        "sql_too_complex",
        "The SQL, or a view or trigger of the schema, is too long or too deeply nested to be prepared safely.",
        "generated SQL, values written into the text, or common table expressions that use each other many times",
        "send values as parameters, split the statement, or store a step in a table",
    ),
    new_explanation(
        "sql_forbidden",
        "This SQL is not allowed in a tenant's request.",
        "ATTACH, DDL, transaction control, a PRAGMA, or a system table",
        "schema changes are migrations: fleetctl migrate run",
    ),
    new_explanation(
        "constraint_violation",
        "A constraint of the tenant's schema refused the change.",
        "a duplicate key, a missing parent, a failed check",
        "correct the data",
    ),
    new_explanation(
        "read_only_transaction",
        "The statement writes, but its transaction is read-only.",
        "a query of an operator, or a reader's request",
        "use a token with the role writer",
    ),
    new_explanation(
        "parameter_mismatch",
        "The parameters do not match the statement.",
        "too few, too many, or a type that the database does not support",
        "count the ?1, ?2 … of the statement",
    ),
    new_explanation(
        "rows_max",
        "The answer has too many rows.",
        "a select without limit",
        "add limit, or read page by page",
    ),
    new_explanation(
        "memory_max",
        "The memory for SQL statements is full; nothing was changed.",
        "many large statements at once; SQLite may use half of the machine's memory",
        "repeat the request; add memory, or make the statements smaller",
    ),
    new_explanation(
        "answers_max",
        "The memory for answers is full; nothing was changed.",
        "many large answers at once, or clients that read slowly",
        "repeat the request; request fewer rows, or fewer tenants at once",
    ),
    new_explanation(
        "bytes_max",
        "The answer, one value or the temporary files are too large.",
        "large texts or blobs, or a sort, group or join of very many rows",
        "select fewer columns or rows; add an index for the order",
    ),
    new_explanation(
        "deadline_exceeded",
        "The statement ran longer than allowed.",
        "a missing index, or a very large table",
        "explain query plan, then add an index by a migration",
    ),
    // --- databases
    new_explanation(
        "database_busy",
        "Another writer has locked the database.",
        "long transactions",
        "repeat; keep transactions short",
    ),
    new_explanation(
        "database_missing",
        "There is no database at the place that the catalog names.",
        "a file that was removed by hand, or a disk that is not mounted",
        "mount the disk, or fleetctl restore run TENANT --to latest",
    ),
    new_explanation(
        "database_exists",
        "A database exists at the place of a new one.",
        "files copied by hand",
        "fleetctl doctor",
    ),
    new_explanation(
        "wrong_tenant",
        "The database belongs to another tenant.",
        "files that were swapped or copied by hand",
        "put the files back, or fleetctl restore run TENANT --to latest",
    ),
    new_explanation(
        "wrong_tenant_backup",
        "The backup belongs to another tenant.",
        "objects that were renamed or copied in the backup store",
        "fleetctl backup list TENANT shows its own backups",
    ),
    new_explanation(
        "database_corrupt",
        "The database is damaged, or the file is not a database.",
        "a failing disk, or a file overwritten by hand",
        "fleetctl restore run TENANT --to latest",
    ),
    new_explanation(
        "disk_full",
        "A disk is full: that of the tenant's database, the catalog or the backup store. Nothing was changed.",
        "growth, or too many kept backups; fleetctl doctor shows which disk",
        "free space, then repeat the request, or fleetctl op retry OPERATION",
    ),
    new_explanation(
        "disk_low",
        "The disk is almost full. Tenants' writes, and reads with large temporary files, are refused.",
        "growth, retained databases, too many backups, or large sorts of many tenants at once",
        "suspend, delete and purge still work; fleetctl doctor shows the free space of each disk",
    ),
    new_explanation(
        "log_max",
        "The write-ahead log of the database reached its limit, because readers prevent its reset.",
        "a program that keeps a read transaction open on the file, such as a backup tool or a shell",
        "stop that program; the next write resets the log",
    ),
    new_explanation(
        "read_only_storage",
        "The storage does not allow writing.",
        "a read-only mount, or permissions",
        "check mount and owner of the data directory",
    ),
    new_explanation(
        "io",
        "A file, the network or the operating system failed.",
        "a failing disk, or a limit of open files",
        "see the server's log, then repeat",
    ),
    new_explanation(
        "connections_max",
        "All connections that this process may open are in use.",
        "a low limit of open files, or very many active tenants",
        "raise the limit (ulimit -n) and repeat",
    ),
    new_explanation(
        "queue_full",
        "Too many requests are waiting for this tenant's database, so further requests are refused at once.",
        "a tenant that sends requests faster than its database answers; others are not affected",
        "send fewer requests at once, and repeat after the time in Retry-After",
    ),
];
