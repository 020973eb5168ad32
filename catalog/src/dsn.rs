//! The address of a catalog on Postgres: checked once, and never printed with its password.

use std::fmt;

use secrecy::{ExposeSecret as _, SecretString};
use sqlx::any::AnyConnectOptions;
use sqlx::postgres::PgConnectOptions;

use crate::error::{Error, ErrorKind, Result};

/// What may stand after the `?`. Anything else is refused instead of being ignored: a misspelt `sslmode` must not lead
/// to a connection in the clear, and a password has one place only.
const PARAMETERS: &[&str] = &["sslmode", "sslrootcert", "sslcert", "sslkey", "host", "options"];

/// Without `allow`, which the driver takes for `disable`.
const SSL_MODES: &[&str] = &["disable", "prefer", "require", "verify-ca", "verify-full"];

/// A longer one is some other file.
const LENGTH_MAX: usize = 4_096;

/// `postgres://user:password@host:5432/database`. Prints without its password.
#[derive(Clone)]
pub struct Dsn {
    url: SecretString,
    shown: String,
}

/// What a program of PostgreSQL's own takes from its environment.
pub(crate) type Variables = Vec<(&'static str, SecretString)>;

impl fmt::Debug for Dsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dsn({})", self.shown)
    }
}

impl fmt::Display for Dsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl PartialEq for Dsn {
    fn eq(&self, other: &Self) -> bool {
        self.url.expose_secret() == other.url.expose_secret()
    }
}

impl Eq for Dsn {}

impl Dsn {
    /// Checks an address; white space around it is ignored.
    ///
    /// # Errors
    /// `Invalid`; the message repeats nothing of the text.
    pub fn parse(text: &str) -> Result<Self> {
        let text = text.trim();
        let options = text.parse::<AnyConnectOptions>().map_err(|_| invalid("it is no URL"))?;
        let mut url = options.database_url;
        if text.len() > LENGTH_MAX || !matches!(url.scheme(), "postgres" | "postgresql") {
            return Err(invalid("it does not begin with postgres://"));
        }
        if url.username().is_empty() || url.path().trim_matches('/').is_empty() {
            return Err(invalid("it names no user or no database"));
        }
        for (key, value) in url.query_pairs() {
            check_parameter(&key, &value)?;
        }
        if url.port().is_none() && url.has_host() {
            // Said here, so that no variable of the environment says something else.
            let _ = url.set_port(Some(5432));
        }
        let host = url.query_pairs().find(|(key, _)| key == "host").map(|(_, host)| host.into_owned());
        let host = host.or_else(|| url.host_str().filter(|host| !host.is_empty()).map(str::to_owned));
        let host = host.ok_or_else(|| invalid("it names no host"))?;
        let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
        let shown = format!("postgres://{}@{host}{port}{}", url.username(), url.path());
        if let Some(address) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            // The driver takes the brackets of an IPv6 address for a part of a name; a parameter has none.
            url.query_pairs_mut().append_pair("host", address);
        }
        Ok(Self { url: SecretString::from(url.to_string()), shown })
    }

    /// How the driver connects.
    pub(crate) fn options(&self, application: &str) -> Result<AnyConnectOptions> {
        let mut options: AnyConnectOptions = self.url.expose_secret().parse().map_err(|_| invalid("it is no URL"))?;
        options.database_url.query_pairs_mut().append_pair("application_name", application);
        Ok(options)
    }

    /// How the driver's listener connects.
    pub(crate) fn listener_options(&self, application: &str) -> Result<PgConnectOptions> {
        let options: PgConnectOptions = self.url.expose_secret().parse().map_err(|_| invalid("it is no URL"))?;
        Ok(options.application_name(application))
    }

    /// The same for `pg_dump`: by its environment, which other users of the machine cannot read.
    pub(crate) fn variables(&self) -> Result<Variables> {
        let url = self.options("fleet catalog, snapshot")?.database_url;
        let mut variables: Variables = vec![
            ("PGUSER", decoded(url.username())?.into()),
            ("PGDATABASE", decoded(url.path().trim_start_matches('/'))?.into()),
        ];
        if let Some(host) = url.host_str().filter(|host| !host.is_empty()) {
            // An IPv6 address stands in brackets only in URLs.
            variables.push(("PGHOST", decoded(host)?.trim_matches(['[', ']']).to_owned().into()));
        }
        if let Some(port) = url.port() {
            variables.push(("PGPORT", port.to_string().into()));
        }
        if let Some(password) = url.password() {
            variables.push(("PGPASSWORD", decoded(password)?.into()));
        }
        for (key, value) in url.query_pairs() {
            if let Some(variable) = variable(&key) {
                variables.push((variable, value.into_owned().into()));
            }
        }
        Ok(variables)
    }
}

fn variable(parameter: &str) -> Option<&'static str> {
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
        return Err(invalid(&format!("after the ? it may say only {}", PARAMETERS.join(", "))));
    }
    if key == "sslmode" && !SSL_MODES.contains(&value) {
        return Err(invalid(&format!("sslmode is one of {}", SSL_MODES.join(", "))));
    }
    Ok(())
}

fn invalid(why: &str) -> Error {
    let message = format!(
        "the address of the catalog cannot be used: {why}; expected postgres://user:password@host:5432/database"
    );
    Error::new(ErrorKind::Invalid, message)
}

/// Undoes `%20`.
fn decoded(text: &str) -> Result<String> {
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
    String::from_utf8(bytes).map_err(|_| invalid("a part of it is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_in_nothing_that_is_printed() {
        let dsn = Dsn::parse(" postgres://fleet:hunter2%21@db.example.org/catalog?sslmode=require\n").unwrap();
        assert_eq!(dsn.to_string(), "postgres://fleet@db.example.org:5432/catalog");
        assert!(!format!("{dsn:?} {dsn}").contains("hunter2"));
        let password = dsn.variables().unwrap().into_iter().find(|(name, _)| *name == "PGPASSWORD").unwrap().1;
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
            let error = Dsn::parse(wrong).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{wrong}");
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        }
    }

    #[test]
    fn sockets_and_brackets_are_understood() {
        let socket = Dsn::parse("postgres://fleet@/catalog?host=/var/run/postgresql");
        let socket =
            socket.or_else(|_| Dsn::parse("postgres://fleet@localhost/catalog?host=/var/run/postgresql")).unwrap();
        let host = socket.variables().unwrap().into_iter().rfind(|(name, _)| *name == "PGHOST").unwrap().1;
        assert_eq!(host.expose_secret(), "/var/run/postgresql");
        let six = Dsn::parse("postgres://fleet@[::1]:5433/catalog").unwrap();
        assert_eq!(six.variables().unwrap()[2].1.expose_secret(), "::1");
        assert_eq!(six.listener_options("test").unwrap().get_host(), "::1");
        assert_eq!(six.to_string(), "postgres://fleet@[::1]:5433/catalog");
    }
}
