//! Every setting and its sources: flag, environment, `./fleet.toml`, the user's file, default — in this order.
//!
//! The only module that reads the environment. Values stay text with their origin until a typed getter reads them. So
//! an error names the place where a wrong value was written.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read as _;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use control_plane::ErrorKind;
use control_plane::config::{Config, DataPath, ProcessRole, TlsFiles, parse_hosts};
use secrecy::SecretString;

use crate::error::{CommandFailure, Result};
use crate::issuer_tables::IssuerTables;
use crate::setting_values::{
    SQL_BYTES, SQLITE_MEMORY_BYTES, TEMP_BYTES, VALUE_BYTES, parse_bytes, parse_concurrency, parse_dns_server,
    parse_duration, parse_hold_ms, parse_network_file_system,
};

/// The definition of one setting.
#[derive(Debug)]
pub(crate) struct SettingDefinition {
    /// The name in files; as a flag it is written with hyphens.
    pub(crate) key: &'static str,
    pub(crate) variable: &'static str,
    pub(crate) default: Option<&'static str>,
    pub(crate) place: SettingPlace,
}

/// The places where a setting is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SettingPlace {
    Anywhere,
    /// A secret: never in a file that may be committed, never in a flag, never shown.
    EnvironmentOnly,
}

const fn plain_setting(key: &'static str, variable: &'static str, default: Option<&'static str>) -> SettingDefinition {
    SettingDefinition { key, variable, default, place: SettingPlace::Anywhere }
}
const fn secret_setting(key: &'static str, variable: &'static str) -> SettingDefinition {
    SettingDefinition { key, variable, default: None, place: SettingPlace::EnvironmentOnly }
}

/// The address of a catalog on Postgres: a secret, because it contains a password.
pub(crate) const CATALOG_URL: &str = "catalog_url";

/// All settings, in the order in which `config show` prints them.
pub(crate) const SETTINGS: &[SettingDefinition] = &[
    plain_setting("url", "FLEET_URL", None),
    secret_setting("token", "FLEET_TOKEN"),
    plain_setting("token_file", "FLEET_TOKEN_FILE", None),
    plain_setting("ca_file", "FLEET_CA_FILE", None),
    plain_setting("data_dir", "FLEET_DATA_DIR", Some("./fleet-data")),
    secret_setting(CATALOG_URL, "FLEET_CATALOG_URL"),
    plain_setting("catalog_url_file", "FLEET_CATALOG_URL_FILE", None),
    plain_setting("output", "FLEET_OUTPUT", Some("table")),
    plain_setting("lock_wait", "FLEET_LOCK_WAIT", Some("0")),
    plain_setting("ping_url", "FLEET_PING_URL", None),
    secret_setting("key", "FLEET_KEY"),
    plain_setting("listen", "FLEET_LISTEN", Some("127.0.0.1:8080")),
    plain_setting("admin_listen", "FLEET_ADMIN_LISTEN", Some("127.0.0.1:8081")),
    plain_setting("data_path", "FLEET_DATA_PATH", Some("/t/{tenant}")),
    plain_setting("domain", "FLEET_DOMAIN", None),
    plain_setting("own_hosts", "FLEET_OWN_HOSTS", None),
    plain_setting("dns_server", "FLEET_DNS_SERVER", None),
    plain_setting("tls_certificate", "FLEET_TLS_CERTIFICATE", None),
    plain_setting("tls_key", "FLEET_TLS_KEY", None),
    plain_setting("backup_url", "FLEET_BACKUP_URL", None),
    plain_setting("concurrency", "FLEET_CONCURRENCY", None),
    plain_setting("hold_ms", "FLEET_HOLD_MS", Some("2000")),
    plain_setting("sql_bytes_max", "FLEET_SQL_BYTES_MAX", Some("100000")),
    plain_setting("value_bytes_max", "FLEET_VALUE_BYTES_MAX", Some("1000000")),
    plain_setting("temp_bytes_max", "FLEET_TEMP_BYTES_MAX", Some("536870912")),
    plain_setting("sqlite_memory_bytes_max", "FLEET_SQLITE_MEMORY_BYTES_MAX", None),
    plain_setting("undo_keep", "FLEET_UNDO_KEEP", Some("7d")),
    plain_setting("purge_after", "FLEET_PURGE_AFTER", Some("7d")),
    plain_setting("catalog_copy_interval", "FLEET_CATALOG_COPY_INTERVAL", Some("1h")),
    plain_setting("network_file_system", "FLEET_NETWORK_FILE_SYSTEM", Some("refuse")),
    plain_setting("log", "FLEET_LOG", Some("info")),
];

/// The parts of the process that settings come from, read once.
#[derive(Debug, Clone, Default)]
pub struct ProcessEnvironment {
    /// `FLEET_*`, `AWS_*`, `HOME`, `XDG_CONFIG_HOME`, `USER`.
    pub variables: BTreeMap<String, String>,
    /// The directory that relative paths start from.
    pub directory: PathBuf,
}

impl ProcessEnvironment {
    /// The environment of this process. Ignores variables that are not UTF-8, because no setting may be.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
    pub fn of_process() -> Self {
        let wanted = |name: &str| {
            name.starts_with("FLEET_")
                || name.starts_with("AWS_")
                || ["HOME", "XDG_CONFIG_HOME", "USER"].contains(&name)
        };
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        let variables = std::env::vars_os().filter_map(text).filter(|(name, _)| wanted(name)).collect();
        Self { variables, directory: std::env::current_dir().unwrap_or_default() }
    }

    /// Makes new files and directories of this process private to its user (umask 077). The libraries create the files
    /// of tenants, backups and keys as private ones by themselves; this covers all others, such as reports.
    pub fn keep_files_private() {
        rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    }

    /// Starts this program again without the variables that PostgreSQL's programs and drivers read (`PG…`). Only this
    /// program's settings decide where a connection goes. A driver would otherwise fill missing parts from these
    /// variables, and a process cannot remove its own variables safely. Returns when there are no such variables.
    ///
    /// # Errors
    /// The operating system's error when the program cannot be started again.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
    pub fn forget_postgres_variables() -> std::io::Result<()> {
        use std::os::unix::ffi::OsStrExt as _;
        use std::os::unix::process::CommandExt as _;
        let of_postgres = |name: &std::ffi::OsString| name.as_bytes().starts_with(b"PG");
        let found: Vec<_> = std::env::vars_os().map(|(name, _)| name).filter(of_postgres).collect();
        if found.is_empty() {
            return Ok(());
        }
        let mut arguments = std::env::args_os();
        let mut again = std::process::Command::new(std::env::current_exe()?);
        again.arg0(arguments.next().unwrap_or_else(|| "fleetctl".into())).args(arguments);
        for name in &found {
            again.env_remove(name);
        }
        Err(again.exec())
    }

    /// The width of tables at a terminal, if the variable COLUMNS sets it.
    pub(crate) fn table_width(&self) -> Option<usize> {
        self.variables.get("COLUMNS")?.parse().ok().filter(|columns| *columns > 0)
    }

    /// The actor for the audit log: `user@host`.
    pub(crate) fn actor_name(&self) -> String {
        let named = self.variables.get("USER").filter(|u| !u.is_empty()).cloned();
        let user = named.unwrap_or_else(|| format!("uid-{}", rustix::process::getuid().as_raw()));
        let uname = rustix::system::uname();
        format!("{user}@{}", uname.nodename().to_string_lossy())
    }

    fn user_file(&self) -> Option<PathBuf> {
        let base = match self.variables.get("XDG_CONFIG_HOME").filter(|x| !x.is_empty()) {
            Some(xdg) => PathBuf::from(xdg),
            None => Path::new(self.variables.get("HOME")?).join(".config"),
        };
        Some(base.join("fleetctl/config.toml"))
    }
}

/// The place where a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SettingOrigin {
    Flag,
    Variable(&'static str),
    File(PathBuf),
    Default,
}

impl fmt::Display for SettingOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("flag"),
            Self::Variable(name) => f.write_str(name),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// All settings that have a value, with their origins.
#[derive(Debug, Clone)]
pub(crate) struct CommandSettings {
    values: BTreeMap<&'static str, (String, SettingOrigin)>,
    backup_options: Vec<(String, SecretString)>,
    issuers: IssuerTables,
    directory: PathBuf,
}

impl CommandSettings {
    /// Merges all sources. `flags` holds the values of the command line, by key.
    pub(crate) fn from_sources(environment: &ProcessEnvironment, flags: Vec<(&'static str, String)>) -> Result<Self> {
        let mut out = Self {
            values: SETTINGS
                .iter()
                .filter_map(|s| Some((s.key, (s.default?.to_owned(), SettingOrigin::Default))))
                .collect(),
            backup_options: store_variables(environment),
            issuers: IssuerTables::default(),
            directory: environment.directory.clone(),
        };
        for file in environment.user_file().into_iter().chain([environment.directory.join("fleet.toml")]) {
            out.add_file(&file)?;
        }
        for setting in SETTINGS {
            if let Some(value) = environment.variables.get(setting.variable).filter(|v| !v.is_empty()) {
                out.values.insert(setting.key, (value.clone(), SettingOrigin::Variable(setting.variable)));
            }
        }
        out.values.extend(flags.into_iter().map(|(key, value)| (key, (value, SettingOrigin::Flag))));
        Ok(out)
    }

    fn add_file(&mut self, path: &Path) -> Result<()> {
        let unusable = |why: String| {
            CommandFailure::usage_error(format!("cannot use the settings in {}", path.display())).with_cause(why)
        };
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
                return Ok(());
            }
            Err(e) => return Err(unusable(e.to_string())),
        };
        let table: toml::Table =
            text.parse().map_err(|e: toml::de::Error| unusable(e.to_string().trim().to_owned()))?;
        for (key, value) in flatten_table(table) {
            if key == "backup_options" {
                self.add_backup_options(&value).map_err(unusable)?;
                continue;
            }
            if key == "jwt" {
                self.issuers = IssuerTables::read_tables(path, &value)?;
                continue;
            }
            let known = SETTINGS.iter().find(|s| s.key == key && s.place == SettingPlace::Anywhere);
            let setting = known.ok_or_else(|| unusable(unknown_key(&key)).try_next("fleetctl config show --origin"))?;
            let text = scalar_text(&value).ok_or_else(|| unusable(format!("{key} must be a text or a number")))?;
            self.values.insert(setting.key, (text, SettingOrigin::File(path.to_owned())));
        }
        Ok(())
    }

    fn add_backup_options(&mut self, value: &toml::Value) -> Result<(), String> {
        let table = value.as_table().ok_or("backup_options must be a table")?;
        for (key, value) in table {
            let text = scalar_text(value).ok_or_else(|| format!("backup_options.{key} must be a text or a number"))?;
            self.backup_options.push((key.to_lowercase(), SecretString::from(text)));
        }
        Ok(())
    }

    /// The value of a key of [`SETTINGS`].
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(|(value, _)| value.as_str())
    }

    pub(crate) fn value_origin(&self, key: &str) -> Option<&SettingOrigin> {
        self.values.get(key).map(|(_, origin)| origin)
    }

    /// Sets a command's own default, used when no source has a value.
    pub(crate) fn set_default(&mut self, key: &'static str, value: &str) {
        if self.value_origin(key).is_none_or(|origin| *origin == SettingOrigin::Default) {
            self.values.insert(key, (value.to_owned(), SettingOrigin::Default));
        }
    }

    /// Reads a value with `parse`. An error names the value's origin.
    pub(crate) fn parse_value<T, E: fmt::Display>(
        &self,
        key: &str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Result<Option<T>> {
        let Some((value, origin)) = self.values.get(key) else { return Ok(None) };
        parse(value).map(Some).map_err(|e| {
            CommandFailure::usage_error(format!("{key} cannot be {value:?}"))
                .with_cause(e)
                .with_cause(format!("it was set by: {origin}"))
        })
    }

    /// A path, relative to the working directory.
    pub(crate) fn value_path(&self, key: &str) -> Option<PathBuf> {
        self.get(key).map(|p| self.directory.join(p.strip_prefix("./").unwrap_or(p)))
    }

    /// The tables `[[jwt]]` of the nearest file that has some.
    pub(crate) fn issuer_tables(&self) -> &IssuerTables {
        &self.issuers
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.value_path("data_dir").unwrap_or_else(|| self.directory.clone())
    }

    pub(crate) fn token_value(&self) -> Option<SecretString> {
        self.get("token").map(|t| SecretString::from(t.trim().to_owned()))
    }

    /// The address of the catalog, if it is not in the data directory. As for every setting, a flag has priority over
    /// the environment, which has priority over a file. Both settings name the same value.
    pub(crate) fn catalog_url(&self) -> Result<Option<SecretString>> {
        let given = self.get(CATALOG_URL).map(|url| SecretString::from(url.to_owned()));
        let Some(file) = self.value_path("catalog_url_file") else { return Ok(given) };
        let file_is_nearer = matches!(self.value_origin("catalog_url_file"), Some(SettingOrigin::Flag));
        match given {
            Some(given) if !file_is_nearer => Ok(Some(given)),
            _ => secret_in(&file).map(Some),
        }
    }

    /// The configuration of a control plane in this process.
    pub(crate) fn control_plane_config(&self, role: ProcessRole) -> Result<Config> {
        let mut config = Config::new(self.data_dir(), role);
        config.catalog_url = self.catalog_url()?;
        config.fleet_key = self.get("key").map(|k| SecretString::from(k.to_owned()));
        config.backup_url = self.get("backup_url").map(str::to_owned);
        config.backup_options = self.backup_options.clone();
        config.listen = self.parse_value("listen", str::parse::<SocketAddr>)?.unwrap_or(config.listen);
        config.admin_listen =
            self.parse_value("admin_listen", str::parse::<SocketAddr>)?.unwrap_or(config.admin_listen);
        config.data_path = self.data_path()?;
        config.domain = self.get("domain").map(str::to_owned);
        config.own_hosts = self.parse_value("own_hosts", parse_hosts)?;
        config.dns_server = self.parse_value("dns_server", parse_dns_server)?;
        // Other commands need no right to read the files of keys and secrets.
        if role == ProcessRole::Serving {
            config.jwt_issuers = self.issuers.read_issuers(&self.directory)?;
        }
        config.tls = self.tls_files()?;
        config.concurrency = self.parse_value("concurrency", parse_concurrency)?;
        config.hold_ms = self.parse_value("hold_ms", parse_hold_ms)?.unwrap_or(config.hold_ms);
        self.set_limits(&mut config)?;
        config.undo_ms =
            self.parse_value("undo_keep", parse_duration)?.map_or(config.undo_ms, |d| d.as_millis() as i64);
        config.catalog_copy_ms = self
            .parse_value("catalog_copy_interval", parse_duration)?
            .map_or(config.catalog_copy_ms, |d| d.as_millis() as i64);
        config.network_file_system =
            self.parse_value("network_file_system", parse_network_file_system)?.unwrap_or(config.network_file_system);
        config.purge_after_ms =
            self.parse_value("purge_after", parse_duration)?.map_or(config.purge_after_ms, |d| d.as_millis() as i64);
        Ok(config)
    }

    fn data_path(&self) -> Result<DataPath> {
        let found = self.parse_value("data_path", DataPath::parse).map_err(|failure| {
            failure.code(ErrorKind::DataPathInvalid.code()).try_next("use a path such as /orgs/{tenant}")
        })?;
        Ok(found.unwrap_or_default())
    }

    /// Sets the limits of one statement, and of SQLite in total.
    fn set_limits(&self, config: &mut Config) -> Result<()> {
        let bytes = |key, range: RangeInclusive<u64>| self.parse_value(key, |text| parse_bytes(text, &range));
        let set = |limit: &mut usize, found: Option<u64>| {
            *limit = found.map_or(*limit, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        };
        set(&mut config.limits.sql_bytes_max, bytes("sql_bytes_max", SQL_BYTES)?);
        set(&mut config.limits.value_bytes_max, bytes("value_bytes_max", VALUE_BYTES)?);
        set(&mut config.limits.temp_bytes_max, bytes("temp_bytes_max", TEMP_BYTES)?);
        config.sqlite_memory_bytes_max = bytes("sqlite_memory_bytes_max", SQLITE_MEMORY_BYTES)?;
        Ok(())
    }

    fn tls_files(&self) -> Result<Option<TlsFiles>> {
        match (self.value_path("tls_certificate"), self.value_path("tls_key")) {
            (None, None) => Ok(None),
            (Some(certificate), Some(key)) => Ok(Some(TlsFiles { certificate, key })),
            _ => Err(CommandFailure::usage_error("TLS needs both tls_certificate and tls_key")
                .try_next("fleetctl config show --origin")),
        }
    }
}

/// The only secret in a file, without surrounding white space.
pub(crate) fn secret_in(file: &Path) -> Result<SecretString> {
    read_secret(file).map_err(|why| {
        CommandFailure::usage_error(format!("cannot use the secret in {}", file.display())).with_cause(why)
    })
}

/// [`secret_in`], with the reason of a failure alone.
pub(crate) fn read_secret(file: &Path) -> Result<SecretString, String> {
    /// A longer file is not a secret.
    const SECRET_BYTES_MAX: u64 = 16_384;
    let mut text = String::new();
    let opened = std::fs::File::open(file).map_err(|e| e.to_string())?;
    opened.take(SECRET_BYTES_MAX + 1).read_to_string(&mut text).map_err(|e| e.to_string())?;
    match text.trim() {
        // The rest would be cut off without a word.
        _ if text.len() as u64 > SECRET_BYTES_MAX => Err(format!("it has more than {SECRET_BYTES_MAX} bytes")),
        "" => Err("it is empty".to_owned()),
        secret => Ok(SecretString::from(secret.to_owned())),
    }
}

/// Credentials of the backup store under their usual names. Upper case marks variables, some of which the store may not
/// know.
fn store_variables(environment: &ProcessEnvironment) -> Vec<(String, SecretString)> {
    let store = environment.variables.iter().filter(|(name, _)| name.starts_with("AWS_"));
    store.map(|(name, value)| (name.clone(), SecretString::from(value.clone()))).collect()
}

/// Converts `[tls] certificate = …` in files to `tls_certificate`, the name of the flag.
fn flatten_table(table: toml::Table) -> Vec<(String, toml::Value)> {
    let mut out = Vec::new();
    for (key, value) in table {
        match value {
            toml::Value::Table(inner) if key == "tls" => {
                out.extend(inner.into_iter().map(|(k, v)| (format!("tls_{k}"), v)));
            }
            other => out.push((key, other)),
        }
    }
    out
}

fn unknown_key(key: &str) -> String {
    let secret = SETTINGS.iter().find(|s| s.key == key && s.place == SettingPlace::EnvironmentOnly);
    match secret {
        Some(s) => format!("{key} is a secret and is not allowed in a file; use {}", s.variable),
        None => format!("there is no setting {key:?}"),
    }
}

fn scalar_text(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(s) => Some(s.clone()),
        toml::Value::Integer(i) => Some(i.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(directory: &Path, variables: &[(&str, &str)]) -> ProcessEnvironment {
        let variables = variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        ProcessEnvironment { variables, directory: directory.to_owned() }
    }

    #[test]
    fn the_document_lists_every_setting() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let document = std::fs::read_to_string(root.join("docs/configuration.md")).unwrap();
        let row = |s: &SettingDefinition| {
            let default = s.default.map_or("–".to_owned(), |default| format!("`{default}`"));
            format!("| `{}` | `{}` | {default} |", s.key, s.variable)
        };
        let missing: Vec<_> = SETTINGS.iter().map(row).filter(|row| !document.contains(row)).collect();
        assert!(missing.is_empty(), "docs/configuration.md lacks {missing:#?}");
        let secrets = SETTINGS.iter().filter(|s| s.place == SettingPlace::EnvironmentOnly).count();
        assert_eq!(document.matches("| *Secret.* ").count(), secrets);
        assert_eq!(document.lines().filter(|line| line.starts_with("| `")).count(), SETTINGS.len());
    }

    #[test]
    fn nearer_sources_win() {
        let dir = tempfile::tempdir().unwrap();
        let user = dir.path().join("home/.config/fleetctl");
        std::fs::create_dir_all(&user).unwrap();
        let home = dir.path().join("home").display().to_string();
        let get = |env: &[(&str, &str)], flags| {
            let s = CommandSettings::from_sources(&environment(dir.path(), env), flags).unwrap();
            (s.get("domain").map(str::to_owned), s.value_origin("domain").map(ToString::to_string))
        };
        assert_eq!(get(&[("HOME", &home)], vec![]), (None, None));
        std::fs::write(user.join("config.toml"), "domain = 'user'").unwrap();
        assert_eq!(get(&[("HOME", &home)], vec![]).0.as_deref(), Some("user"));
        std::fs::write(dir.path().join("fleet.toml"), "domain = 'here'").unwrap();
        assert_eq!(get(&[("HOME", &home)], vec![]).0.as_deref(), Some("here"));
        let env = [("HOME", home.as_str()), ("FLEET_DOMAIN", "env")];
        assert_eq!(get(&env, vec![]), (Some("env".into()), Some("FLEET_DOMAIN".into())));
        assert_eq!(get(&env, vec![("domain", "flag".into())]), (Some("flag".into()), Some("flag".into())));
    }

    #[test]
    fn a_file_with_an_unknown_key_a_secret_or_no_toml_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for (text, says) in [
            ("colour = 'red'", "no setting \"colour\""),
            ("token = 'flt_x'", "is a secret"),
            ("url = [1]", "must be a text"),
            ("url = ", "TOML"),
        ] {
            std::fs::write(dir.path().join("fleet.toml"), text).unwrap();
            let failure = CommandSettings::from_sources(&environment(dir.path(), &[]), vec![]).unwrap_err();
            assert!(failure.causes.join(" ").contains(says), "{text}: {failure:?}");
            assert!(!format!("{failure:?}").contains("flt_x"));
        }
    }

    #[test]
    fn limits_have_bounds_and_an_origin() {
        let dir = tempfile::tempdir().unwrap();
        let with = |key: &str, value: &str| {
            std::fs::write(dir.path().join("fleet.toml"), format!("{key} = {value}")).unwrap();
            CommandSettings::from_sources(&environment(dir.path(), &[]), vec![])
                .unwrap()
                .control_plane_config(ProcessRole::Embedded)
        };
        let limits = |key, value| with(key, value).unwrap().limits;
        assert_eq!(limits("domain", "'example.org'"), Config::new(dir.path().to_owned(), ProcessRole::Embedded).limits);
        assert_eq!(limits("sql_bytes_max", "1000000").sql_bytes_max, 1_000_000);
        assert_eq!(limits("value_bytes_max", "16777216").value_bytes_max, 16 << 20);
        assert_eq!(limits("temp_bytes_max", "1000000").temp_bytes_max, 1_000_000);
        let memory = with("sqlite_memory_bytes_max", "268435456").unwrap().sqlite_memory_bytes_max;
        assert_eq!(memory, Some(256 << 20));
        for (key, value) in [
            ("sql_bytes_max", "1000001"),
            ("value_bytes_max", "16777217"),
            ("value_bytes_max", "0"),
            ("value_bytes_max", "-1"),
            ("value_bytes_max", "'2MB'"),
            ("temp_bytes_max", "999999"),
            ("sqlite_memory_bytes_max", "268435455"),
        ] {
            let failure = with(key, value).unwrap_err();
            let said = format!("{failure:?}");
            assert!(said.contains(key) && said.contains("bytes from") && said.contains("fleet.toml"), "{said}");
        }
    }

    #[test]
    fn the_catalogs_address_comes_from_the_nearest_place() {
        use secrecy::ExposeSecret;
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("url"), " postgres://in-a-file\n").unwrap();
        let given = |variables: &[(&str, &str)], flags: Vec<(&'static str, String)>| {
            let settings = CommandSettings::from_sources(&environment(dir.path(), variables), flags).unwrap();
            settings.catalog_url().map(|url| url.map(|url| url.expose_secret().to_owned()))
        };
        let variable = [("FLEET_CATALOG_URL", "postgres://in-a-variable")];
        let flag = || vec![("catalog_url_file", "url".to_owned())];
        assert_eq!(given(&[], vec![]).unwrap(), None);
        assert_eq!(given(&variable, vec![]).unwrap().unwrap(), "postgres://in-a-variable");
        assert_eq!(given(&variable, flag()).unwrap().unwrap(), "postgres://in-a-file");
        assert_eq!(given(&[("FLEET_CATALOG_URL_FILE", "url")], vec![]).unwrap().unwrap(), "postgres://in-a-file");
        assert!(given(&[("FLEET_CATALOG_URL_FILE", "none")], vec![]).is_err());
        std::fs::write(dir.path().join("fleet.toml"), "catalog_url_file = 'none'").unwrap();
        assert_eq!(given(&variable, vec![]).unwrap().unwrap(), "postgres://in-a-variable");
        assert!(given(&[], vec![]).is_err());
    }

    #[test]
    fn a_wrong_value_is_blamed_on_its_origin() {
        let settings =
            CommandSettings::from_sources(&environment(Path::new("/nowhere"), &[("FLEET_LISTEN", "8080")]), vec![])
                .unwrap();
        let failure = settings.control_plane_config(ProcessRole::Embedded).unwrap_err();
        assert!(failure.what.contains("listen") && failure.causes[1].contains("FLEET_LISTEN"), "{failure:?}");
    }
}
