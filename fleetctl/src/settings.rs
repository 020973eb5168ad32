//! Where every setting comes from: flag, environment, `./fleet.toml`, the user's file, default — in this order.
//!
//! The only file that reads the environment. Values stay text with their origin until a typed getter reads them, so that
//! a wrong one can be blamed on the place it was written.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read as _;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use control_plane::config::{Config, NetworkFileSystem, Role, Tls};
use secrecy::SecretString;

use crate::error::{Failure, Result};

/// One thing that can be set.
#[derive(Debug)]
pub(crate) struct Setting {
    /// In files; as a flag with hyphens.
    pub(crate) key: &'static str,
    pub(crate) variable: &'static str,
    pub(crate) default: Option<&'static str>,
    pub(crate) place: Place,
}

/// Where a setting may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Anywhere,
    /// A secret: never in a file that may be committed, never in a flag, never shown.
    EnvironmentOnly,
}

const fn anywhere(key: &'static str, variable: &'static str, default: Option<&'static str>) -> Setting {
    Setting { key, variable, default, place: Place::Anywhere }
}
const fn secret(key: &'static str, variable: &'static str) -> Setting {
    Setting { key, variable, default: None, place: Place::EnvironmentOnly }
}

/// The address of a catalog on Postgres: a secret, because it holds a password.
pub(crate) const CATALOG_URL: &str = "catalog_url";

/// Every setting there is; `config show` prints them in this order.
pub(crate) const SETTINGS: &[Setting] = &[
    anywhere("url", "FLEET_URL", None),
    secret("token", "FLEET_TOKEN"),
    anywhere("token_file", "FLEET_TOKEN_FILE", None),
    anywhere("ca_file", "FLEET_CA_FILE", None),
    anywhere("data_dir", "FLEET_DATA_DIR", Some("./fleet-data")),
    secret(CATALOG_URL, "FLEET_CATALOG_URL"),
    anywhere("catalog_url_file", "FLEET_CATALOG_URL_FILE", None),
    anywhere("output", "FLEET_OUTPUT", Some("table")),
    anywhere("lock_wait", "FLEET_LOCK_WAIT", Some("0")),
    anywhere("ping_url", "FLEET_PING_URL", None),
    secret("key", "FLEET_KEY"),
    anywhere("listen", "FLEET_LISTEN", Some("127.0.0.1:8080")),
    anywhere("admin_listen", "FLEET_ADMIN_LISTEN", Some("127.0.0.1:8081")),
    anywhere("domain", "FLEET_DOMAIN", None),
    anywhere("tls_certificate", "FLEET_TLS_CERTIFICATE", None),
    anywhere("tls_key", "FLEET_TLS_KEY", None),
    anywhere("backup_url", "FLEET_BACKUP_URL", None),
    anywhere("concurrency", "FLEET_CONCURRENCY", None),
    anywhere("hold_ms", "FLEET_HOLD_MS", Some("2000")),
    anywhere("sql_bytes_max", "FLEET_SQL_BYTES_MAX", Some("100000")),
    anywhere("value_bytes_max", "FLEET_VALUE_BYTES_MAX", Some("1000000")),
    anywhere("temp_bytes_max", "FLEET_TEMP_BYTES_MAX", Some("536870912")),
    anywhere("sqlite_memory_bytes_max", "FLEET_SQLITE_MEMORY_BYTES_MAX", None),
    anywhere("undo_keep", "FLEET_UNDO_KEEP", Some("7d")),
    anywhere("purge_after", "FLEET_PURGE_AFTER", Some("7d")),
    anywhere("catalog_copy_interval", "FLEET_CATALOG_COPY_INTERVAL", Some("1h")),
    anywhere("network_file_system", "FLEET_NETWORK_FILE_SYSTEM", Some("refuse")),
    anywhere("log", "FLEET_LOG", Some("info")),
];

/// The part of the process that settings come from, taken once.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// `FLEET_*`, `AWS_*`, `HOME`, `XDG_CONFIG_HOME`, `USER`.
    pub variables: BTreeMap<String, String>,
    /// Where relative paths start.
    pub directory: PathBuf,
}

impl Environment {
    /// This process's own. A variable that is not UTF-8 is left out: none of ours may be.
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

    /// Starts this program once more without the variables that PostgreSQL's programs and drivers read (`PG…`). Only our
    /// settings say where a connection goes and what it means; a driver's gap would be filled from there, and a process
    /// cannot remove its own variables safely. Returns where there are none.
    ///
    /// # Errors
    /// The operating system's, when the program cannot be started again.
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

    /// Who acts, for the audit log: `user@host`.
    pub(crate) fn actor(&self) -> String {
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

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    Flag,
    Variable(&'static str),
    File(PathBuf),
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("flag"),
            Self::Variable(name) => f.write_str(name),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// Every setting that has a value, with where it came from.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    values: BTreeMap<&'static str, (String, Origin)>,
    backup_options: Vec<(String, SecretString)>,
    directory: PathBuf,
}

impl Settings {
    /// Lays the sources over each other. `flags` holds what was given on the command line, by key.
    pub(crate) fn resolve(environment: &Environment, flags: Vec<(&'static str, String)>) -> Result<Self> {
        let mut out = Self {
            values: SETTINGS.iter().filter_map(|s| Some((s.key, (s.default?.to_owned(), Origin::Default)))).collect(),
            backup_options: store_variables(environment),
            directory: environment.directory.clone(),
        };
        for file in environment.user_file().into_iter().chain([environment.directory.join("fleet.toml")]) {
            out.add_file(&file)?;
        }
        for setting in SETTINGS {
            if let Some(value) = environment.variables.get(setting.variable).filter(|v| !v.is_empty()) {
                out.values.insert(setting.key, (value.clone(), Origin::Variable(setting.variable)));
            }
        }
        out.values.extend(flags.into_iter().map(|(key, value)| (key, (value, Origin::Flag))));
        Ok(out)
    }

    fn add_file(&mut self, path: &Path) -> Result<()> {
        let unusable =
            |why: String| Failure::usage(format!("cannot use the settings in {}", path.display())).because(why);
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
                return Ok(());
            }
            Err(e) => return Err(unusable(e.to_string())),
        };
        let table: toml::Table =
            text.parse().map_err(|e: toml::de::Error| unusable(e.to_string().trim().to_owned()))?;
        for (key, value) in flattened(table) {
            if key == "backup_options" {
                self.add_backup_options(&value).map_err(unusable)?;
                continue;
            }
            let known = SETTINGS.iter().find(|s| s.key == key && s.place == Place::Anywhere);
            let setting = known.ok_or_else(|| unusable(unknown_key(&key)).try_next("fleetctl config show --origin"))?;
            let text = scalar(&value).ok_or_else(|| unusable(format!("{key} must be a text or a number")))?;
            self.values.insert(setting.key, (text, Origin::File(path.to_owned())));
        }
        Ok(())
    }

    fn add_backup_options(&mut self, value: &toml::Value) -> Result<(), String> {
        let table = value.as_table().ok_or("backup_options must be a table")?;
        for (key, value) in table {
            let text = scalar(value).ok_or_else(|| format!("backup_options.{key} must be a text or a number"))?;
            self.backup_options.push((key.clone(), SecretString::from(text)));
        }
        Ok(())
    }

    /// The value of a key of [`SETTINGS`].
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(|(value, _)| value.as_str())
    }

    pub(crate) fn origin(&self, key: &str) -> Option<&Origin> {
        self.values.get(key).map(|(_, origin)| origin)
    }

    /// What a command prefers when nobody said anything.
    pub(crate) fn set_default(&mut self, key: &'static str, value: &str) {
        if self.origin(key).is_none_or(|origin| *origin == Origin::Default) {
            self.values.insert(key, (value.to_owned(), Origin::Default));
        }
    }

    /// Reads a value with `parse`, blaming its origin when it is wrong.
    pub(crate) fn parse<T, E: fmt::Display>(
        &self,
        key: &str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Result<Option<T>> {
        let Some((value, origin)) = self.values.get(key) else { return Ok(None) };
        parse(value).map(Some).map_err(|e| {
            Failure::usage(format!("{key} cannot be {value:?}")).because(e).because(format!("it was set by: {origin}"))
        })
    }

    /// A path, relative to the working directory.
    pub(crate) fn path(&self, key: &str) -> Option<PathBuf> {
        self.get(key).map(|p| self.directory.join(p.strip_prefix("./").unwrap_or(p)))
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.path("data_dir").unwrap_or_else(|| self.directory.clone())
    }

    pub(crate) fn token(&self) -> Option<SecretString> {
        self.get("token").map(|t| SecretString::from(t.trim().to_owned()))
    }

    /// The address of the catalog, if it is not in the data directory. A flag beats the environment, which beats a file's
    /// word, as for every setting; the two settings are one thing said in two ways.
    pub(crate) fn catalog_url(&self) -> Result<Option<SecretString>> {
        let given = self.get(CATALOG_URL).map(|url| SecretString::from(url.to_owned()));
        let Some(file) = self.path("catalog_url_file") else { return Ok(given) };
        let file_is_nearer = matches!(self.origin("catalog_url_file"), Some(Origin::Flag));
        match given {
            Some(given) if !file_is_nearer => Ok(Some(given)),
            _ => secret_in(&file).map(Some),
        }
    }

    /// What a control plane in this process is told.
    pub(crate) fn config(&self, role: Role) -> Result<Config> {
        let mut config = Config::new(self.data_dir(), role);
        config.catalog_url = self.catalog_url()?;
        config.fleet_key = self.get("key").map(|k| SecretString::from(k.to_owned()));
        config.backup_url = self.get("backup_url").map(str::to_owned);
        config.backup_options = self.backup_options.clone();
        config.listen = self.parse("listen", str::parse::<SocketAddr>)?.unwrap_or(config.listen);
        config.admin_listen = self.parse("admin_listen", str::parse::<SocketAddr>)?.unwrap_or(config.admin_listen);
        config.domain = self.get("domain").map(str::to_owned);
        config.tls = self.tls()?;
        config.concurrency = self.parse("concurrency", concurrency)?;
        config.hold_ms = self.parse("hold_ms", hold_ms)?.unwrap_or(config.hold_ms);
        self.limit(&mut config)?;
        config.undo_ms = self.parse("undo_keep", duration)?.map_or(config.undo_ms, |d| d.as_millis() as i64);
        config.catalog_copy_ms =
            self.parse("catalog_copy_interval", duration)?.map_or(config.catalog_copy_ms, |d| d.as_millis() as i64);
        config.network_file_system =
            self.parse("network_file_system", network_file_system)?.unwrap_or(config.network_file_system);
        config.purge_after_ms =
            self.parse("purge_after", duration)?.map_or(config.purge_after_ms, |d| d.as_millis() as i64);
        Ok(config)
    }

    /// How much one statement may take, and SQLite altogether.
    fn limit(&self, config: &mut Config) -> Result<()> {
        let bytes = |key, range: RangeInclusive<u64>| self.parse(key, |text| bytes(text, &range));
        let set = |limit: &mut usize, found: Option<u64>| {
            *limit = found.map_or(*limit, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        };
        set(&mut config.limits.sql_bytes_max, bytes("sql_bytes_max", SQL_BYTES)?);
        set(&mut config.limits.value_bytes_max, bytes("value_bytes_max", VALUE_BYTES)?);
        set(&mut config.limits.temp_bytes_max, bytes("temp_bytes_max", TEMP_BYTES)?);
        config.sqlite_memory_bytes_max = bytes("sqlite_memory_bytes_max", SQLITE_MEMORY_BYTES)?;
        Ok(())
    }

    fn tls(&self) -> Result<Option<Tls>> {
        match (self.path("tls_certificate"), self.path("tls_key")) {
            (None, None) => Ok(None),
            (Some(certificate), Some(key)) => Ok(Some(Tls { certificate, key })),
            _ => {
                Err(Failure::usage("TLS needs both tls_certificate and tls_key")
                    .try_next("fleetctl config show --origin"))
            }
        }
    }
}

/// The one secret that a file holds; white space around it is ignored.
pub(crate) fn secret_in(file: &Path) -> Result<SecretString> {
    /// A longer one is some other file.
    const SECRET_BYTES_MAX: u64 = 16_384;
    let unusable = |why: String| Failure::usage(format!("cannot use the secret in {}", file.display())).because(why);
    let mut text = String::new();
    let opened = std::fs::File::open(file).map_err(|e| unusable(e.to_string()))?;
    opened.take(SECRET_BYTES_MAX).read_to_string(&mut text).map_err(|e| unusable(e.to_string()))?;
    match text.trim() {
        "" => Err(unusable("it is empty".to_owned())),
        secret => Ok(SecretString::from(secret.to_owned())),
    }
}

/// Credentials of the backup store by the names its owners use; the store takes them in lower case.
fn store_variables(environment: &Environment) -> Vec<(String, SecretString)> {
    let store = environment.variables.iter().filter(|(name, _)| name.starts_with("AWS_"));
    store.map(|(name, value)| (name.to_lowercase(), SecretString::from(value.clone()))).collect()
}

/// `[tls] certificate = …` is written in files what `tls_certificate` is as a flag.
fn flattened(table: toml::Table) -> Vec<(String, toml::Value)> {
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
    let secret = SETTINGS.iter().find(|s| s.key == key && s.place == Place::EnvironmentOnly);
    match secret {
        Some(s) => format!("{key} is a secret and may not stand in a file; use {}", s.variable),
        None => format!("there is no setting {key:?}"),
    }
}

fn scalar(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(s) => Some(s.clone()),
        toml::Value::Integer(i) => Some(i.to_string()),
        _ => None,
    }
}

fn hold_ms(text: &str) -> Result<u64, String> {
    /// A request that waits longer has lost its client.
    const HOLD_MS_MAX: u64 = 60_000;
    match text.parse() {
        Ok(n) if n <= HOLD_MS_MAX => Ok(n),
        _ => Err(format!("expected milliseconds, at most {HOLD_MS_MAX}")),
    }
}

/// Less than a kilobyte is no statement; SQLite prepares a longer text than a megabyte beyond every deadline.
const SQL_BYTES: RangeInclusive<u64> = 1_000..=1_000_000;
/// A value with a smaller limit would refuse ordinary rows; an answer has at most 16 MiB.
const VALUE_BYTES: RangeInclusive<u64> = 100_000..=16_777_216;
/// Less than a megabyte would refuse ordinary sorts; more than a terabyte is a typing error.
const TEMP_BYTES: RangeInclusive<u64> = 1_000_000..=1_099_511_627_776;
/// The engine refuses less than 256 MiB; more than a petabyte is a typing error.
const SQLITE_MEMORY_BYTES: RangeInclusive<u64> = 268_435_456..=1_125_899_906_842_624;

fn bytes(text: &str, range: &RangeInclusive<u64>) -> Result<u64, String> {
    match text.parse() {
        Ok(n) if range.contains(&n) => Ok(n),
        _ => Err(format!("expected a number of bytes from {} to {}", range.start(), range.end())),
    }
}

fn concurrency(text: &str) -> Result<usize, String> {
    /// More steps at once than this only queue for the same disk.
    const CONCURRENCY_MAX: usize = 1_024;
    match text.parse() {
        Ok(n) if (1..=CONCURRENCY_MAX).contains(&n) => Ok(n),
        _ => Err(format!("expected a number from 1 to {CONCURRENCY_MAX}")),
    }
}

fn network_file_system(text: &str) -> Result<NetworkFileSystem, String> {
    match text {
        "refuse" => Ok(NetworkFileSystem::Refused),
        "accept-data-loss" => Ok(NetworkFileSystem::DataLossAccepted),
        _ => Err("expected refuse, or accept-data-loss".to_owned()),
    }
}

/// `0`, `500ms`, `30s`, `10m`, `12h`, `7d`: one number and one unit.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no duration; write 30s, 10m, 12h or 7d");
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let milliseconds = match unit {
        "" if number == 0 => 0,
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    /// A century: longer is a typing error and would overflow sums of times.
    const MILLISECONDS_MAX: u64 = 100 * 366 * 86_400_000;
    let total = number.checked_mul(milliseconds).filter(|ms| *ms <= MILLISECONDS_MAX).ok_or_else(wrong)?;
    Ok(Duration::from_millis(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(directory: &Path, variables: &[(&str, &str)]) -> Environment {
        let variables = variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Environment { variables, directory: directory.to_owned() }
    }

    #[test]
    fn nearer_sources_win() {
        let dir = tempfile::tempdir().unwrap();
        let user = dir.path().join("home/.config/fleetctl");
        std::fs::create_dir_all(&user).unwrap();
        let home = dir.path().join("home").display().to_string();
        let get = |env: &[(&str, &str)], flags| {
            let s = Settings::resolve(&environment(dir.path(), env), flags).unwrap();
            (s.get("domain").map(str::to_owned), s.origin("domain").map(ToString::to_string))
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
            let failure = Settings::resolve(&environment(dir.path(), &[]), vec![]).unwrap_err();
            assert!(failure.causes.join(" ").contains(says), "{text}: {failure:?}");
            assert!(!format!("{failure:?}").contains("flt_x"));
        }
    }

    #[test]
    fn limits_have_bounds_and_an_origin() {
        let dir = tempfile::tempdir().unwrap();
        let with = |key: &str, value: &str| {
            std::fs::write(dir.path().join("fleet.toml"), format!("{key} = {value}")).unwrap();
            Settings::resolve(&environment(dir.path(), &[]), vec![]).unwrap().config(Role::Embedded)
        };
        let limits = |key, value| with(key, value).unwrap().limits;
        assert_eq!(limits("domain", "'example.org'"), Config::new(dir.path().to_owned(), Role::Embedded).limits);
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
            let settings = Settings::resolve(&environment(dir.path(), variables), flags).unwrap();
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
            Settings::resolve(&environment(Path::new("/nowhere"), &[("FLEET_LISTEN", "8080")]), vec![]).unwrap();
        let failure = settings.config(Role::Embedded).unwrap_err();
        assert!(failure.what.contains("listen") && failure.causes[1].contains("FLEET_LISTEN"), "{failure:?}");
    }

    #[test]
    fn durations_have_one_number_and_one_unit() {
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        assert_eq!(duration("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(duration("7d"), Ok(Duration::from_secs(604_800)));
        for wrong in ["", "5", "m", "1h30m", "-1s", "1.5s", "99999999999999999999s", "9999999d"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
