//! The kinds of errors of this crate, each with its stable code. `http/error.rs` gives each kind its HTTP status.
//!
//! Two kinds may share a code. They differ in their status, or in whether another attempt may help.

/// Defines [`ErrorKind`] from the kinds of this crate, and the list of these kinds with their codes.
macro_rules! error_kinds {
    ($($(#[$doc:meta])+ $name:ident => $code:literal,)+) => {
        /// Why a request or a step failed.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum ErrorKind {
            $($(#[$doc])+ $name,)+
            /// An error of the catalog for which this crate has no kind of its own. See `From`.
            Catalog(catalog::ErrorKind),
            /// An error of an engine for which this crate has no kind of its own. See `From`.
            Engine(tenant_engine::ErrorKind),
            /// The router refused the request.
            Router(tenant_router::ErrorKind),
            /// The router could not be started.
            RouterStart(tenant_router::ErrorKind),
            /// An error that an earlier phase recorded in the catalog, with its code.
            Recorded(String),
        }

        impl ErrorKind {
            /// All kinds that this crate defines itself.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The stable code, for users, scripts and `fleetctl explain`.
            #[must_use]
            pub fn code(&self) -> &str {
                match self {
                    $(Self::$name => $code,)+
                    Self::Catalog(kind) => kind.code(),
                    Self::Engine(kind) => kind.code(),
                    Self::Router(kind) | Self::RouterStart(kind) => kind.code(),
                    Self::Recorded(code) => code,
                }
            }
        }
    };
}

error_kinds! {
    /// The request is well-formed, but a value in it is not valid.
    Invalid => "invalid",
    /// The selection names no tenant.
    SelectionEmpty => "selection_empty",
    /// The selection is valid, but no tenant matches it.
    SelectionMatchesNobody => "selection_matches_nobody",
    /// The number of selected tenants is not the expected number.
    CountMismatch => "count_mismatch",
    /// Nothing has this name or id.
    NotFound => "not_found",
    /// The name is taken.
    AlreadyExists => "already_exists",
    /// The state of the object does not allow the change, or it changed meanwhile.
    Conflict => "conflict",
    /// The object has another version than the `If-Match` header names.
    PreconditionFailed => "precondition_failed",
    /// Another operation works on the tenant.
    OperationInProgress => "operation_in_progress",
    /// The tenant is protected from deletion.
    Protected => "protected",
    /// The DNS has no record that proves control of a custom domain.
    DomainUnproven => "domain_unproven",
    /// The DNS did not say whether there is such a record.
    DnsUnavailable => "dns_unavailable",

    /// The `Host` header is missing, repeated or not valid.
    HostInvalid => "host_invalid",
    /// The cursor of a page is not valid for this list.
    InvalidCursor => "invalid_cursor",
    /// A header is not valid.
    InvalidHeader => "invalid_header",
    /// The body is not valid JSON.
    InvalidJson => "invalid_json",
    /// A part of the path is not valid.
    InvalidPath => "invalid_path",
    /// The query string is not valid.
    InvalidQuery => "invalid_query",
    /// The request has a body, but its path takes none.
    UnexpectedBody => "unexpected_body",
    /// The body has another media type than JSON.
    UnsupportedMediaType => "unsupported_media_type",
    /// A body is larger than the limit.
    BodyTooLarge => "body_too_large",
    /// The body did not arrive in time.
    BodyTimeout => "body_timeout",
    /// The path does not support the method.
    MethodNotAllowed => "method_not_allowed",
    /// The path exists on the other listener only.
    WrongListener => "wrong_listener",
    /// A request with the same Idempotency-Key is running.
    IdempotencyInProgress => "idempotency_in_progress",
    /// The Idempotency-Key belongs to a different request.
    IdempotencyKeyReused => "idempotency_key_reused",
    /// The request has no valid operator token.
    Unauthenticated => "unauthenticated",
    /// The caller's role does not allow the request.
    Forbidden => "forbidden",
    /// The credential may read in the tenant, but not write.
    ReadOnly => "read_only",
    /// The process is shutting down.
    ShuttingDown => "shutting_down",

    /// A selected tenant no longer belongs to the selection.
    TenantLeft => "tenant_left",
    /// A restore took the tenant back, so migrations of many tenants leave it out.
    TenantPinned => "tenant_pinned",
    /// The tenant is read-only, so the operation does not change its database.
    TenantReadOnly => "tenant_read_only",
    /// No migration leads from the tenant's version to the wanted one.
    SchemaUnreachable => "schema_unreachable",
    /// The ledger of applied migrations has another name in the tenant's database.
    LedgerNameDiffers => "ledger_name_differs",
    /// The text of a migration is refused before it runs.
    MigrationRefused => "migration_refused",
    /// A release cannot be applied to an empty database.
    ReleaseNotBuildable => "migration_failed",
    /// The database that an operation works on is not the one that the catalog expects.
    DatabaseFenced => "fenced",
    /// The database that an operation works on is damaged.
    DatabaseCorrupt => "database_corrupt",
    /// The tenant has no database that an operation could work on.
    DatabaseMissing => "database_missing",
    /// A copy of a database differs from its original.
    CopyDiffers => "copy_differs",
    /// No replaced database of the tenant is retained.
    NothingToUndo => "nothing_to_undo",
    /// The process that ran a step died too often.
    ProcessDied => "process_died",

    /// No backup matches.
    BackupNotFound => "backup_not_found",
    /// A backup or its manifest is missing or damaged.
    BackupDamaged => "backup_damaged",
    /// A key in the backup store does not have this program's form.
    BackupKeyInvalid => "backup_damaged",
    /// The backup is in a store that this process does not use.
    BackupElsewhere => "backup_elsewhere",
    /// The manifest has a newer format than this program reads.
    BackupNewer => "backup_newer",
    /// The manifest is not proved to come from this fleet.
    BackupNotAuthentic => "backup_not_authentic",
    /// The backup belongs to another tenant.
    WrongTenantBackup => "wrong_tenant_backup",
    /// The backup comes from another database engine.
    WrongEngineBackup => "wrong_engine_backup",
    /// The backup store does not answer.
    BackupStoreUnavailable => "backup_store_unavailable",
    /// The settings of the backup store are not valid.
    BackupStoreUnusable => "backup_store_unusable",

    /// No server can take the moved tenant.
    NoDestination => "no_destination",
    /// The server has no room for more tenants.
    ServerFull => "server_full",
    /// The server is cordoned.
    ServerCordoned => "server_cordoned",
    /// The new connection leads to another server than before.
    ServerDiffers => "server_invalid",
    /// The role on the server lacks privileges.
    ServerPrivilegeMissing => "server_privilege_missing",
    /// Another fleet or server uses the directory.
    BaseInUse => "base_in_use",

    /// There is no fleet in the data directory.
    NotInitialised => "not_initialised",
    /// The data directory cannot be used.
    DataDirUnusable => "data_dir_unusable",
    /// Another data directory of this fleet is in use.
    DataDirCopied => "data_dir_copied",
    /// A copy of the data directory has not finished becoming a separate fleet.
    IdentityUnfinished => "identity_unfinished",
    /// The process runs as another user than the owner of the data directory.
    WrongUser => "wrong_user",
    /// The sealing key is missing or belongs to another fleet.
    WrongKey => "wrong_key",
    /// SQLite is not safe on the file system of a directory.
    NetworkFileSystem => "network_file_system",
    /// A disk is full.
    DiskFull => "disk_full",
    /// A temporary file or directory cannot be read or written.
    TemporaryFileUnusable => "io",
    /// The clock of this machine differs too much from the catalog's times.
    ClockSkew => "clock_skew",
    /// The catalog does not answer.
    CatalogUnavailable => "catalog_unavailable",
    /// Operations are paused, because the catalog is not writable.
    OperationsPaused => "catalog_unavailable",
    /// The data directory was used, but its catalog is not there.
    CatalogMissing => "catalog_missing",
    /// The catalog was moved to a server that the settings do not name.
    CatalogMoved => "catalog_moved",
    /// The data directory has a catalog, and the settings name another one.
    TwoCatalogs => "two_catalogs",

    /// Another process serves the data directory.
    AlreadyServing => "already_serving",
    /// Another program listens on the address.
    AddressInUse => "address_in_use",
    /// This process cannot listen on the address.
    AddressUnusable => "address_unusable",
    /// The open listener cannot be used.
    ListenerUnusable => "address_unusable",
    /// The admin API would be reachable without encryption.
    AdminExposed => "admin_exposed",
    /// The certificate or its key cannot be used.
    TlsInvalid => "tls_invalid",
    /// The setting `data_path` cannot be used.
    DataPathInvalid => "data_path_invalid",
    /// A table `[[jwt]]` of the settings cannot be used.
    JwtInvalid => "jwt_invalid",
    /// An unexpected error.
    Internal => "internal",
}

impl ErrorKind {
    /// True when the same call may succeed later although nobody changes anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::OperationInProgress
            | Self::ShuttingDown
            | Self::BackupStoreUnavailable
            | Self::CatalogUnavailable
            | Self::DnsUnavailable
            | Self::DiskFull
            | Self::TemporaryFileUnusable => true,
            Self::Engine(kind) => kind.is_transient(),
            Self::Router(kind) => kind.retry_after().is_some(),
            _ => false,
        }
    }
}

/// A kind that this crate has too, with the same status, becomes this crate's. Any other one is wrapped.
impl From<catalog::ErrorKind> for ErrorKind {
    fn from(kind: catalog::ErrorKind) -> Self {
        use catalog::ErrorKind as Kind;
        match kind {
            Kind::NotFound => Self::NotFound,
            Kind::AlreadyExists => Self::AlreadyExists,
            Kind::Invalid => Self::Invalid,
            Kind::Conflict => Self::Conflict,
            Kind::Busy => Self::OperationInProgress,
            Kind::Protected => Self::Protected,
            Kind::WrongKey => Self::WrongKey,
            Kind::Unavailable => Self::CatalogUnavailable,
            Kind::DiskFull => Self::DiskFull,
            Kind::Claimed => Self::DataDirCopied,
            kind => Self::Catalog(kind),
        }
    }
}

/// A kind that this crate has too, with the same status, becomes this crate's. Any other one is wrapped.
impl From<tenant_engine::ErrorKind> for ErrorKind {
    fn from(kind: tenant_engine::ErrorKind) -> Self {
        match kind {
            tenant_engine::ErrorKind::DiskFull => Self::DiskFull,
            tenant_engine::ErrorKind::ServerClaimed => Self::DataDirCopied,
            kind => Self::Engine(kind),
        }
    }
}
