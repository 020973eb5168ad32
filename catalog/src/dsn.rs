//! The address of a catalog on Postgres. It is checked once, and never printed with its password.

use std::fmt;

use secrecy::{ExposeSecret as _, SecretString};
use sqlx::any::AnyConnectOptions;
#[cfg(feature = "postgres")]
use sqlx::postgres::PgConnectOptions;

use crate::error::{Error, ErrorKind, Result};

/// Parameters that are allowed after the `?`. Others are refused, not ignored: a misspelt `sslmode` must not lead to an
/// unencrypted connection, and a password has only one place.
const PARAMETERS: &[&str] = &["sslmode", "sslrootcert", "sslcert", "sslkey", "host", "options"];

/// Excludes `allow`, which the driver treats as `disable`.
const SSL_MODES: &[&str] = &["disable", "prefer", "require", "verify-ca", "verify-full"];

/// Maximum length: a longer text is another file.
const LENGTH_MAX: usize = 4_096;

/// `postgres://user:password@host:5432/database`. Prints without its password.
#[derive(Clone)]
pub struct CatalogDsn {
    url: SecretString,
    shown: String,
}

/// Environment variables for PostgreSQL's own programs.
pub(crate) type PgEnvironment = Vec<(&'static str, SecretString)>;

impl fmt::Debug for CatalogDsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dsn({})", self.shown)
    }
}

impl fmt::Display for CatalogDsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl PartialEq for CatalogDsn {
    fn eq(&self, other: &Self) -> bool {
        self.url.expose_secret() == other.url.expose_secret()
    }
}

impl Eq for CatalogDsn {}

impl CatalogDsn {
    /// Checks an address. Ignores surrounding white space.
    ///
    /// # Errors
    /// `Invalid`; the message does not repeat the text.
    pub fn from_text(text: &str) -> Result<Self> {
        let text = text.trim();
        let options = text.parse::<AnyConnectOptions>().map_err(|_| invalid_dsn("it is not a URL"))?;
        let mut url = options.database_url;
        if text.len() > LENGTH_MAX || !matches!(url.scheme(), "postgres" | "postgresql") {
            return Err(invalid_dsn("it does not begin with postgres://"));
        }
        if url.username().is_empty() || url.path().trim_matches('/').is_empty() {
            return Err(invalid_dsn("it has no user or no database"));
        }
        for (key, value) in url.query_pairs() {
            check_parameter(&key, &value)?;
        }
        if url.port().is_none() && url.has_host() {
            // Set here, so that no environment variable can set another value.
            let _ = url.set_port(Some(5432));
        }
        if !url.query_pairs().any(|(key, _)| key == "sslmode") {
            url.query_pairs_mut().append_pair("sslmode", "prefer");
        }
        let host = url.query_pairs().find(|(key, _)| key == "host").map(|(_, host)| host.into_owned());
        let host = host.or_else(|| url.host_str().filter(|host| !host.is_empty()).map(str::to_owned));
        let host = host.ok_or_else(|| invalid_dsn("it has no host"))?;
        let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
        let shown = format!("postgres://{}@{host}{port}{}", url.username(), url.path());
        if let Some(address) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            // The driver would treat the brackets of an IPv6 address as part of a name; a parameter has no brackets.
            url.query_pairs_mut().append_pair("host", address);
        }
        Ok(Self { url: SecretString::from(url.to_string()), shown })
    }

    /// The driver's options for a connection.
    pub(crate) fn connect_options(&self, application: &str) -> Result<AnyConnectOptions> {
        let mut options: AnyConnectOptions =
            self.url.expose_secret().parse().map_err(|_| invalid_dsn("it is not a URL"))?;
        options.database_url.query_pairs_mut().append_pair("application_name", application);
        Ok(options)
    }

    /// The driver's options for its listener.
    #[cfg(feature = "postgres")]
    pub(crate) fn listener_options(&self, application: &str) -> Result<PgConnectOptions> {
        let options: PgConnectOptions = self.url.expose_secret().parse().map_err(|_| invalid_dsn("it is not a URL"))?;
        Ok(options.application_name(application))
    }

    /// The address for `pg_dump`, as environment variables, which other users of the machine cannot read.
    pub(crate) fn pg_environment(&self) -> Result<PgEnvironment> {
        let url = self.connect_options("fleet catalog, snapshot")?.database_url;
        let mut variables: PgEnvironment = vec![
            ("PGUSER", percent_decoded(url.username())?.into()),
            ("PGDATABASE", percent_decoded(url.path().trim_start_matches('/'))?.into()),
        ];
        if let Some(host) = url.host_str().filter(|host| !host.is_empty()) {
            // An IPv6 address has brackets only in URLs.
            variables.push(("PGHOST", percent_decoded(host)?.trim_matches(['[', ']']).to_owned().into()));
        }
        if let Some(port) = url.port() {
            variables.push(("PGPORT", port.to_string().into()));
        }
        if let Some(password) = url.password() {
            variables.push(("PGPASSWORD", percent_decoded(password)?.into()));
        }
        for (key, value) in url.query_pairs() {
            if let Some(variable) = pg_variable(&key) {
                variables.push((variable, value.into_owned().into()));
            }
        }
        Ok(variables)
    }
}

fn pg_variable(parameter: &str) -> Option<&'static str> {
    Some(match parameter {
        "sslmode" => "PGSSLMODE",
        "sslrootcert" => "PGSSLROOTCERT",
        "sslcert" => "PGSSLCERT",
        "sslkey" => "PGSSLKEY",
        "host" => "PGHOST",
        "options" => "PGOPTIONS",
        "application_name" => "PGAPPNAME",
        _ => return None,
    })
}

fn check_parameter(key: &str, value: &str) -> Result<()> {
    if !PARAMETERS.contains(&key) {
        return Err(invalid_dsn(&format!("the only parameters after the ? are {}", PARAMETERS.join(", "))));
    }
    if key == "sslmode" && !SSL_MODES.contains(&value) {
        return Err(invalid_dsn(&format!("sslmode must be one of {}", SSL_MODES.join(", "))));
    }
    Ok(())
}

fn invalid_dsn(why: &str) -> Error {
    let message = format!(
        "the address of the catalog cannot be used: {why}; expected postgres://user:password@host:5432/database"
    );
    Error::new(ErrorKind::Invalid, message)
}

/// Decodes percent-encoding such as `%20`.
fn percent_decoded(text: &str) -> Result<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let pair = after.get(..2).and_then(|pair| std::str::from_utf8(pair).ok());
        match pair.and_then(|pair| u8::from_str_radix(pair, 16).ok()).filter(|_| first == b'%') {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).map_err(|_| invalid_dsn("a part of it is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_in_nothing_that_is_printed() {
        let dsn =
            CatalogDsn::from_text(" postgres://fleet:hunter2%21@db.example.org/catalog?sslmode=require\n").unwrap();
        assert_eq!(dsn.to_string(), "postgres://fleet@db.example.org:5432/catalog");
        assert!(!format!("{dsn:?} {dsn}").contains("hunter2"));
        let password = dsn.pg_environment().unwrap().into_iter().find(|(name, _)| *name == "PGPASSWORD").unwrap().1;
        assert_eq!(password.expose_secret(), "hunter2!");
    }

    #[test]
    fn what_cannot_be_meant_is_refused_without_being_repeated() {
        for wrong in [
            "",
            "hunter2",
            "mysql://u:hunter2@h/db",
            "sqlite:///x.db",
            "postgres://u:hunter2@h",
            "postgres://u:hunter2@h/",
            "postgres://h/db",
            "postgres://u:hunter2@/db",
            "postgres://u:hun?ter2@h/db",
            "postgres://u@h/db?password=hunter2",
            "postgres://u:hunter2@h/db?sslmod=require",
            "postgres://u:hunter2@h/db?sslmode=allow",
            &format!("postgres://u:hunter2@h/{}", "x".repeat(LENGTH_MAX)),
        ] {
            let error = CatalogDsn::from_text(wrong).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{wrong}");
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        }
    }

    #[test]
    fn sockets_and_brackets_are_understood() {
        let socket = CatalogDsn::from_text("postgres://fleet@/catalog?host=/var/run/postgresql");
        let socket = socket
            .or_else(|_| CatalogDsn::from_text("postgres://fleet@localhost/catalog?host=/var/run/postgresql"))
            .unwrap();
        let host = socket.pg_environment().unwrap().into_iter().rfind(|(name, _)| *name == "PGHOST").unwrap().1;
        assert_eq!(host.expose_secret(), "/var/run/postgresql");
        let six = CatalogDsn::from_text("postgres://fleet@[::1]:5433/catalog").unwrap();
        assert_eq!(six.pg_environment().unwrap()[2].1.expose_secret(), "::1");
        assert_eq!(six.listener_options("test").unwrap().get_host(), "::1");
        assert_eq!(six.to_string(), "postgres://fleet@[::1]:5433/catalog");
    }
}
