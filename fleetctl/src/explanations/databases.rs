//! Codes about SQL, and the databases it runs on.

use super::{Explanation, e};

pub(super) const ALL: &[Explanation] = &[
    // --- SQL
    e(
        "sql_invalid",
        "The SQL does not parse, names what is not there, or failed by its own values or by an error that a function raised.",
        "a typing error, a schema that is behind, a limit of the database, a rule in a function or trigger",
        "fleetctl migrate status shows the versions",
    ),
    e(
        "sql_too_complex",
        "The SQL, or a view or trigger of the schema, is longer or nests deeper than a database can safely prepare.",
        "generated SQL, values written into the text, common table expressions that use each other again and again",
        "send values as parameters, split the statement, or keep a step in a table",
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
    e(
        "memory_max",
        "No memory is left for SQL statements; nothing was changed.",
        "many large statements at once; SQLite may take half of the machine's memory",
        "repeat the request; give the machine more memory, or the statements less to do",
    ),
    e(
        "answers_max",
        "No memory is left for answers; nothing was changed.",
        "many large answers at once, or clients that read slowly",
        "repeat the request; ask for fewer rows, or for fewer tenants at once",
    ),
    e(
        "bytes_max",
        "More bytes than allowed, in the answer, in one value or in temporary files.",
        "large texts or blobs, or a sort, group or join of very many rows",
        "select fewer columns or rows; add an index for the order",
    ),
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
        "disk_low",
        "The disk is almost full, so tenants' writes are refused, and reads that need much room for temporary files.",
        "growth, kept databases, too many backups, or large sorts of many tenants at once",
        "suspend, delete and purge still work; fleetctl doctor shows the room on each disk",
    ),
    e(
        "log_max",
        "Readers keep the write-ahead log of the database from being reset, and it reached its limit.",
        "a program that keeps a read transaction open on the file, such as a backup tool or a shell",
        "end that program; the next write resets the log",
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
];
