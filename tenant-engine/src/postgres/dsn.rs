//! A connection string, taken apart once: what the driver, the tools and the catalog each need of it.

use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use url::Url;

use crate::error::{Error, ErrorKind, Result};

/// Longer ones are not connection strings.
const LENGTH_MAX: usize = 4_096;
const PORT_DEFAULT: u16 = 5432;
/// Where a maintenance connection goes when the string names no database: it exists on every server.
const DATABASE_DEFAULT: &str = "postgres";

/// What may follow the `?`: what the driver and PostgreSQL's own programs both understand, by one name. The driver logs
/// names it does not know together with their values.
const PARAMETERS: [&str; 6] = ["host", "port", "sslmode", "sslrootcert", "sslcert", "sslkey"];
const SSL_MODES: [&str; 6] = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];

/// `postgres://user:password@host:port/database?sslmode=…`, checked.
#[derive(Clone)]
pub(crate) struct Dsn {
    text: SecretString,
    url: Url,
}

impl Dsn {
    /// Reads one; the error never repeats any of it.
    pub(crate) fn parse(text: &SecretString) -> Result<Self> {
        let given = text.expose_secret().trim();
        let url = Url::parse(given).map_err(|_| invalid("it is not a URL"))?;
        if given.len() > LENGTH_MAX || !matches!(url.scheme(), "postgres" | "postgresql") {
            return Err(invalid("expected postgres://user:password@host:port/database"));
        }
        if url.username().is_empty() {
            return Err(invalid("it names no user"));
        }
        let dsn = Self { text: given.to_owned().into(), url };
        if dsn.host().is_empty() {
            return Err(invalid("it names no host"));
        }
        dsn.check_parameters()?;
        given.parse::<PgConnectOptions>().map_err(|_| invalid("a parameter of it is not understood"))?;
        Ok(dsn)
    }

    fn check_parameters(&self) -> Result<()> {
        let mut met = std::collections::BTreeSet::new();
        for (name, value) in self.url.query_pairs() {
            if !PARAMETERS.contains(&name.as_ref()) || !met.insert(name.clone()) {
                return Err(invalid(&format!("after the '?' each of {} may stand once", PARAMETERS.join(", "))));
            }
            if name == "sslmode" && !SSL_MODES.contains(&value.as_ref()) {
                return Err(invalid(&format!("sslmode is one of {}", SSL_MODES.join(", "))));
            }
        }
        Ok(())
    }

    /// As given, for sealing.
    pub(crate) fn text(&self) -> &SecretString {
        &self.text
    }

    /// A host name, an address, or the directory of a socket.
    pub(crate) fn host(&self) -> String {
        match self.url.query_pairs().find(|(name, _)| name == "host") {
            Some((_, host)) => host.into_owned(),
            None => decoded(self.url.host_str().unwrap_or_default()),
        }
    }

    pub(crate) fn port(&self) -> u16 {
        let named = self.url.query_pairs().find(|(name, _)| name == "port");
        named.and_then(|(_, port)| port.parse().ok()).or(self.url.port()).unwrap_or(PORT_DEFAULT)
    }

    pub(crate) fn user(&self) -> String {
        decoded(self.url.username())
    }

    pub(crate) fn password(&self) -> Option<SecretString> {
        self.url.password().map(|password| decoded(password).into())
    }

    pub(crate) fn database(&self) -> String {
        match self.url.path().trim_start_matches('/') {
            "" => DATABASE_DEFAULT.to_owned(),
            named => decoded(named),
        }
    }

    /// A parameter such as `sslmode` or `sslrootcert`.
    pub(crate) fn parameter(&self, name: &str) -> Option<String> {
        self.url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    }

    /// For the driver: this server, user and database, with what is the same for all our connections.
    pub(crate) fn options(&self) -> PgConnectOptions {
        let options: PgConnectOptions = self.text.expose_secret().parse().expect("it was read once already");
        // Said in full: the driver would fill gaps from the environment and from a password file.
        let password = self.password().unwrap_or_default();
        let mode = if self.parameter("sslmode").is_none() { options.ssl_mode(PgSslMode::Prefer) } else { options };
        // The driver takes the brackets of an IPv6 address for a part of a name. A path is a socket.
        let host = self.host();
        let mode = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(address) => mode.host(address),
            None => mode,
        };
        mode.password(password.expose_secret()).database(&self.database()).application_name("fleet")
    }
}

fn decoded(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}

fn invalid(why: &str) -> Error {
    Error::new(ErrorKind::ServerInvalid, format!("this is not a connection string of PostgreSQL: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Dsn> {
        Dsn::parse(&text.to_owned().into())
    }

    #[test]
    fn every_part_is_found() {
        let dsn = parse("postgres://fl%40et:p%3Aw@db.example:6000/main?sslmode=require&sslrootcert=/ca.pem\n").unwrap();
        assert_eq!((dsn.host().as_str(), dsn.port()), ("db.example", 6000));
        assert_eq!((dsn.user().as_str(), dsn.database().as_str()), ("fl@et", "main"));
        assert_eq!(dsn.password().unwrap().expose_secret(), "p:w");
        assert_eq!(dsn.parameter("sslmode").as_deref(), Some("require"));
        let plain = parse("postgresql://fleet@127.0.0.1").unwrap();
        assert_eq!((plain.port(), plain.database().as_str(), plain.password().is_none()), (5432, "postgres", true));
        let socket = parse("postgres://fleet@localhost/x?host=/var/run/pg").unwrap();
        assert_eq!(socket.host(), "/var/run/pg");
    }

    #[test]
    fn an_ipv6_address_reaches_the_driver_without_brackets() {
        for (text, host) in [
            ("postgres://fleet@[::1]:5433/x", "::1"),
            ("postgres://fleet@[fe80::2]/x?sslmode=disable", "fe80::2"),
            ("postgres://fleet@localhost/x?host=[::1]", "::1"),
            ("postgres://fleet@127.0.0.1/x", "127.0.0.1"),
        ] {
            assert_eq!(parse(text).unwrap().options().get_host(), host, "{text}");
        }
    }

    #[test]
    fn what_is_none_is_refused_without_repeating_it() {
        for bad in [
            "",
            "secret-word",
            "mysql://u:secret-word@h/d",
            "postgres://h/d",
            "postgres://u:secret-word@h/d?sslmode=secret-word",
            "postgres://u:secret-word@h/d?pasword=secret-word",
            "postgres://u@h/d?host=a&host=secret-word",
        ] {
            let error = parse(bad).err().unwrap();
            assert_eq!(error.kind(), ErrorKind::ServerInvalid);
            assert!(!error.to_string().contains("secret-word"), "{error}");
        }
    }
}
