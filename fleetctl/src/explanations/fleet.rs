//! Codes about migrations, backups and the fleet.

use super::{CodeExplanation, new_explanation};

pub(super) const ALL: &[CodeExplanation] = &[
    // --- directories and users
    new_explanation(
        "base_in_use",
        "The directory cannot become a server, because something else uses it.",
        "a directory with other files, or one that belongs to another server, another fleet or the control plane",
        "fleetctl server add NAME --base EMPTY_DIRECTORY",
    ),
    new_explanation(
        "data_dir_copied",
        "There are two copies of one data directory; this copy may not work on tenants and servers that both know.",
        "a copy made with cp or rsync, or an original that is used again after its copy was used",
        "use the data directory that is in use; to go back to the original: fleetctl catalog take-over on it; to use both: fleetctl catalog new-identity on the copy",
    ),
    new_explanation(
        "wrong_user",
        "The data directory belongs to another user.",
        "a command run as root or as your own user, while the service runs as its own user",
        "sudo -u USER fleetctl …, with the user in the message",
    ),
    new_explanation(
        "identity_unfinished",
        "The data directory was getting an identity of its own when the command was interrupted.",
        "a crash, a full disk or Ctrl-C during fleetctl catalog new-identity",
        "fleetctl catalog new-identity --data-dir DIRECTORY (continues where it stopped)",
    ),
    new_explanation(
        "network_file_system",
        "SQLite files would be on a network file system, where SQLite can lose data without an error.",
        "a directory on NFS, SMB, 9p, virtiofs, sshfs or another network or user-space file system",
        "use a local disk, or Postgres; only if losing data is acceptable: FLEET_NETWORK_FILE_SYSTEM=accept-data-loss",
    ),
    new_explanation(
        "migration_invalid",
        "The migration directory is not valid.",
        "a file name without a version, a duplicate version, or a file that is not UTF-8",
        "name the files like 0001_name.sql",
    ),
    new_explanation(
        "ledger_name_differs",
        "The release names another ledger (table-name in sqlx.toml) than this fleet's databases use.",
        "a changed or missing sqlx.toml, or tenants that were created before the first release",
        "set table-name to the name in the message; a fleet without tenants accepts any name with its first release",
    ),
    new_explanation(
        "migration_refused",
        "The text of some migrations shows that they cannot run in any database. No tenant was changed.",
        "ROLLBACK, ATTACH, psql commands, changes to the ledger, VACUUM in a transaction, SQLite syntax errors",
        "each cause names file and line; correct the files, then run the command again",
    ),
    new_explanation(
        "migration_changed",
        "A file was changed after this database applied it.",
        "an old migration was edited",
        "restore the old text, and write a new migration",
    ),
    new_explanation(
        "migration_missing",
        "The database applied a version whose file is not in the set.",
        "a deleted file, or a checkout of another branch",
        "run the set that contains it",
    ),
    new_explanation(
        "migration_ahead",
        "The database is newer than the migration set.",
        "an old checkout",
        "run the newer set",
    ),
    new_explanation(
        "migration_failed",
        "A statement of a migration failed; the tenant is unchanged.",
        "data that does not match the new schema",
        "correct the data or the file, then fleetctl migrate run DIRECTORY again (migrate retry and op retry use the old text)",
    ),
    new_explanation(
        "migration_dirty",
        "A migration without a transaction stopped in the middle.",
        "a crash or an error in a file marked no-transaction",
        "inspect the tenant's database and finish by hand, or restore it",
    ),
    // --- runs over many tenants
    new_explanation(
        "nothing_done",
        "All selected tenants left the selection or were left out, so the run did nothing.",
        "all tenants were deleted, archived or changed after the selection, or are not eligible",
        "fleetctl op get OPERATION --steps skipped; if that is right, add --allow-empty",
    ),
    new_explanation(
        "tenant_left",
        "The tenant was skipped, because it left the selection after the run was planned.",
        "it was deleted, archived, suspended or moved, or already has the result of the run",
        "nothing, if that is intended; a tenant given by name is treated as an error instead",
    ),
    // --- backups
    new_explanation(
        "backup_damaged",
        "The backup does not match its manifest.",
        "a truncated or changed object",
        "fleetctl backup list TENANT, and use another backup; fleetctl backup verify finds others",
    ),
    new_explanation(
        "backup_elsewhere",
        "The backup is in another store than the one that this process uses.",
        "backup_url was different when it was taken, or this process has other settings",
        "set backup_url (FLEET_BACKUP_URL) and backup_options to the store that the message names",
    ),
    new_explanation(
        "backup_not_authentic",
        "The manifest of the backup is not proven to come from this fleet.",
        "the manifest in the backup store was changed, or the catalog does not know the backup and another fleet's key signed it",
        "fleetctl backup list TENANT, and use another backup; find out who can write to the backup store",
    ),
    new_explanation(
        "backup_newer",
        "The backup was written by a newer version of this program.",
        "a downgrade",
        "update the program",
    ),
    new_explanation(
        "backup_store_unavailable",
        "The backup store does not answer.",
        "the network, the credentials, or the store itself",
        "fleetctl doctor; then fleetctl op retry OPERATION",
    ),
    new_explanation(
        "backup_store_unusable",
        "The settings of the backup store are not usable.",
        "a mistyped address or option",
        "fleetctl config show --origin",
    ),
    new_explanation(
        "wrong_engine_backup",
        "A backup of one engine cannot be restored into a database of another engine.",
        "the tenant's server uses another engine than the backup",
        "restore it for a tenant on a server with the backup's engine",
    ),
    // --- the fleet
    new_explanation(
        "clock_skew",
        "The clocks of this machine and of the catalog's server differ by more than five seconds.",
        "one of them has no time synchronisation",
        "set the clock (ntp, chrony); processes that share a catalog use it to decide which leases have expired",
    ),
    new_explanation(
        "not_initialised",
        "The data directory does not contain a fleet yet.",
        "a wrong directory, or init was not run",
        "fleetctl init, or --data-dir DIR",
    ),
    new_explanation(
        "catalog_unavailable",
        "The catalog is not reachable, was locked for too long, or cannot be written.",
        "another process, a full or read-only disk, or a Postgres server that is down, restarting or out of connections",
        "repeat; then fleetctl doctor, or fleetctl catalog check",
    ),
    new_explanation(
        "catalog_refused",
        "The catalog's server rejected this process.",
        "a wrong password or database in FLEET_CATALOG_URL, missing privileges, TLS that one side requires, or a server older than 14",
        "follow the message, then check with fleetctl catalog check",
    ),
    new_explanation(
        "catalog_moved",
        "The catalog of this data directory was moved to Postgres.",
        "FLEET_CATALOG_URL (or catalog_url_file) is not set for this command",
        "set it; catalog.moved names the new place. To go back to the file and lose all later changes, remove catalog.moved",
    ),
    new_explanation(
        "two_catalogs",
        "The data directory has a catalog of its own, and the settings name another one.",
        "FLEET_CATALOG_URL is set on a machine that already had a fleet",
        "unset it, use fleetctl catalog copy, or use another --data-dir",
    ),
    new_explanation(
        "catalog_newer",
        "The catalog was written by a newer version of this program.",
        "a downgrade",
        "use the newer program",
    ),
    new_explanation(
        "catalog_missing",
        "The data directory belongs to a fleet, but its catalog is missing.",
        "catalog.db was deleted, truncated or not copied along; or FLEET_CATALOG_URL names an empty database",
        "restore it: runs of backups store copies under v1/catalog in the backup store (docs/operations.md, Disaster recovery)",
    ),
    new_explanation(
        "catalog_corrupt",
        "The content of the catalog breaks a rule of this program.",
        "a change by hand, or a failing disk",
        "restore the catalog's snapshot from the backup store",
    ),
    new_explanation(
        "wrong_key",
        "The fleet key is missing, or belongs to another fleet.",
        "fleet.key was lost or replaced, FLEET_KEY belongs to another fleet, or a new data directory joins an existing catalog",
        "restore the right key from the copy that init asked you to keep. To join, copy fleet.key from a control plane of that fleet",
    ),
    new_explanation(
        "data_dir_unusable",
        "The data directory cannot be used.",
        "it is missing, read-only, or owned by another user",
        "check its path, owner and mount",
    ),
    new_explanation(
        "no_destination",
        "There is no other server that can accept the tenant.",
        "a move needs another active server of the same engine",
        "add one (fleetctl server add), or uncordon one (fleetctl server uncordon)",
    ),
    new_explanation(
        "copy_differs",
        "A copy did not have the same rows or objects as the original. The copy was dropped; the tenant still uses its old database.",
        "an object that the fleet's roles may not create, a function that changes rows during a restore, a disk \
         fault, or a program that bypasses the fence",
        "check the table or object in the message, and fleetctl doctor; then run the same command again",
    ),
    new_explanation(
        "server_full",
        "No server has room for another tenant.",
        "every server is at its maximum or cordoned",
        "fleetctl server add, or raise tenants_max",
    ),
    new_explanation(
        "server_cordoned",
        "The server is cordoned: it accepts no new tenants.",
        "an operator ran fleetctl server cordon",
        "fleetctl server uncordon NAME, or name another server",
    ),
    new_explanation(
        "already_serving",
        "Another process already serves this data directory.",
        "serve or dev is already running",
        "use that process, or stop it first",
    ),
    new_explanation(
        "address_unusable",
        "The program cannot listen on the address.",
        "another program uses the port, or the address does not belong to this machine",
        "choose another address: --listen 127.0.0.1:0 uses any free port",
    ),
    new_explanation(
        "address_in_use",
        "Another program already listens on this address.",
        "serve or dev for another fleet, or any other program",
        "choose another address: --listen 127.0.0.1:0 uses any free port",
    ),
    new_explanation(
        "admin_exposed",
        "The admin API would be reachable from outside without encryption.",
        "--admin-listen with an outside address and no certificate",
        "use --tls-certificate and --tls-key, or listen on 127.0.0.1",
    ),
    new_explanation(
        "tls_invalid",
        "The TLS certificate or key is not usable.",
        "a wrong file, a file that is not PEM, or a key that does not match the certificate",
        "check tls_certificate and tls_key",
    ),
    new_explanation(
        "data_path_invalid",
        "The path under which the data API would serve tenants is not usable.",
        "data_path does not end in {tenant}, has other characters than plain ones, or begins as a path of the data API itself",
        "use a path such as /orgs/{tenant}; fleetctl config show --origin says where it was set",
    ),
    new_explanation(
        "jwt_invalid",
        "A table [[jwt]] of the settings is not usable, so nothing was served.",
        "an unknown or missing key, two sources of keys, an issuer named twice, a short secret, or an address without https://",
        "correct the key that the error names; docs/configuration.md lists all keys",
    ),
    new_explanation(
        "process_died",
        "The process that ran the step died repeatedly, so the step failed.",
        "too little memory, a crash, or machine restarts",
        "read the log of the process, fix the cause, then fleetctl op retry",
    ),
    new_explanation(
        "internal",
        "An unexpected error happened, for which there is no specific code.",
        "an unexpected answer of a server or file system, or a bug in this program",
        "find the cause in the log by the request id; if it happens again, report both",
    ),
];
