//! Codes about migrations, backups and the fleet itself.

use super::{Explanation, e};

pub(super) const ALL: &[Explanation] = &[
    // --- migrations
    e(
        "base_in_use",
        "The directory cannot become a server, because something else uses it.",
        "a directory with other files, another server's, another fleet's, or one of the control plane itself",
        "fleetctl server add NAME --base EMPTY_DIRECTORY",
    ),
    e(
        "data_dir_copied",
        "The data directory is a copy, and the original is still there.",
        "a copy made with cp or rsync: both would work on the same servers, tenants and backups",
        "use the original; if the copy replaces it, move the original away first",
    ),
    e(
        "network_file_system",
        "SQLite files would lie on a network file system, where SQLite can lose data without an error.",
        "a directory on NFS, SMB, 9p, virtiofs, sshfs or another file system of other machines or of user space",
        "use a local disk, or Postgres; only if losing data is acceptable: FLEET_NETWORK_FILE_SYSTEM=accept-data-loss",
    ),
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
    // --- runs over many tenants
    e(
        "nothing_done",
        "Every selected tenant was skipped, so the run did nothing.",
        "all tenants were deleted, archived or changed after the selection, or none can take part",
        "fleetctl op get OPERATION --steps skipped; where that is right, add --allow-empty",
    ),
    e(
        "tenant_left",
        "The tenant was skipped: since the run was planned it left the selection.",
        "it was deleted, archived, suspended or moved, or has already what the run brings about",
        "nothing, if that was meant; name the tenant to have it treated as an error",
    ),
    // --- backups
    e(
        "backup_damaged",
        "The backup does not match its manifest.",
        "a truncated or changed object",
        "fleetctl backup list TENANT, and take another one; fleetctl backup verify finds others",
    ),
    e(
        "backup_not_authentic",
        "Nothing proves that this fleet wrote the manifest of the backup.",
        "somebody changed the manifest in the backup store, or the catalog does not know the backup and another fleet key signed it",
        "fleetctl backup list TENANT, and take another one; find out who can write to the backup store",
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
    e(
        "wrong_engine_backup",
        "A backup of one engine cannot fill a database of the other.",
        "the tenant's server runs another engine than the backup was taken from",
        "restore it for a tenant on a server of its own engine",
    ),
    // --- the fleet
    e(
        "clock_skew",
        "This machine's clock and the catalog's server's differ by more than five seconds.",
        "no time synchronisation on one of them",
        "set the clock (ntp, chrony); processes that share a catalog decide by it whose lease is over",
    ),
    e(
        "not_initialised",
        "There is no fleet here yet.",
        "another directory is meant, or init was not run",
        "fleetctl init, or --data-dir DIR",
    ),
    e(
        "catalog_unavailable",
        "The catalog cannot be reached, is locked for too long, or its disk is full.",
        "another process, a full disk, a Postgres server that is down, restarting or out of connections",
        "repeat; then fleetctl doctor, or fleetctl catalog check",
    ),
    e(
        "catalog_refused",
        "The server of the catalog refuses this process.",
        "a wrong password or database in FLEET_CATALOG_URL, missing rights, TLS that one side demands, a server older than 14",
        "do what the message says; fleetctl catalog check tries again",
    ),
    e(
        "catalog_moved",
        "The catalog of this data directory was copied to Postgres and lives there now.",
        "FLEET_CATALOG_URL (or catalog_url_file) is not set for this command",
        "set it; catalog.moved says where to. To go back to the file and lose what was written since, remove catalog.moved",
    ),
    e(
        "two_catalogs",
        "The data directory has a catalog of its own, and another one is named too.",
        "FLEET_CATALOG_URL is set on a machine that had a fleet of its own",
        "unset it, or fleetctl catalog copy, or another --data-dir",
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
        "catalog.db was deleted, truncated or not copied along; or FLEET_CATALOG_URL names an empty database",
        "put it back: runs of backups keep copies under v1/catalog in the backup store, at least one an hour",
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
        "fleet.key was lost or exchanged, FLEET_KEY is another fleet's, or a new data directory joins a catalog that is there",
        "put the right key back; init said to keep a copy. To join, copy fleet.key from a control plane of that fleet",
    ),
    e(
        "data_dir_unusable",
        "The data directory cannot be used.",
        "it is missing, read-only, or another user's",
        "check path, owner and mount",
    ),
    e(
        "no_destination",
        "There is no other server that could take the tenant.",
        "a move needs another active server of the same engine",
        "add one (fleetctl server add), or uncordon one (fleetctl server uncordon)",
    ),
    e(
        "copy_differs",
        "A copy did not hold the same rows or objects as the original; it was dropped, and the tenant serves where it was.",
        "an object that the roles of a fleet may not make, a function that changes rows while a restore runs, a fault of a \
         disk, or a program that writes past the fence",
        "look at the table or object that the message names, and at fleetctl doctor; then the same command again",
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
        "process_died",
        "The process that ran the step ended again and again; the step is given up.",
        "too little memory, a crash, or a machine that restarts",
        "read the log of the process, correct the cause, then fleetctl op retry",
    ),
    e(
        "internal",
        "A bug in this program.",
        "something nobody thought of",
        "report it with the request id and the log around it",
    ),
];
