//! A connection string, parsed once into the parts that the driver, the programs and the catalog need.

use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use url::Url;

use crate::error::{Error, ErrorKind, Result};

/// A longer text is not a connection string.
const LENGTH_MAX: usize = 4_096;
const PORT_DEFAULT: u16 = 5432;
/// The database for maintenance connections when the string names none: it exists on every server.
const DATABASE_DEFAULT: &str = "postgres";

/// Parameters allowed after the `?`: those that the driver and PostgreSQL's own programs both know under one name. The
/// driver logs unknown names together with their values.
const PARAMETERS: [&str; 6] = ["host", "port", "sslmode", "sslrootcert", "sslcert", "sslkey"];
const SSL_MODES: [&str; 6] = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];

/// `postgres://user:password@host:port/database?sslmode=…`, checked.
#[derive(Clone)]
pub(crate) struct ServerDsn {
    text: SecretString,
    url: Url,
}

impl ServerDsn {
    /// Parses a connection string; the error never repeats any part of it.
    pub(crate) fn parse(text: &SecretString) -> Result<Self> {
        let given = text.expose_secret().trim();
        let url = Url::parse(given).map_err(|_| invalid_dsn("it is not a URL"))?;
        if given.len() > LENGTH_MAX || !matches!(url.scheme(), "postgres" | "postgresql") {
            return Err(invalid_dsn("expected postgres://user:password@host:port/database"));
        }
        if url.username().is_empty() {
            return Err(invalid_dsn("it names no user"));
        }
        let dsn = Self { text: given.to_owned().into(), url };
        if dsn.host_name().is_empty() {
            return Err(invalid_dsn("it names no host"));
        }
        dsn.check_parameters()?;
        let options = given.parse::<PgConnectOptions>();
        let options = options.map_err(|_| invalid_dsn("one of its parameters is not valid"))?;
        // The driver has read an options parameter from the environment, and it cannot be removed. A connection string
        // has no such parameter.
        if options.get_options().is_some() {
            let message = "the environment variable PGOPTIONS would change every session: unset it";
            return Err(Error::new(ErrorKind::ServerInvalid, message));
        }
        Ok(dsn)
    }

    fn check_parameters(&self) -> Result<()> {
        let mut met = std::collections::BTreeSet::new();
        for (name, value) in self.url.query_pairs() {
            if !PARAMETERS.contains(&name.as_ref()) || !met.insert(name.clone()) {
                return Err(invalid_dsn(&format!("after the '?' each of {} may be given once", PARAMETERS.join(", "))));
            }
            if name == "sslmode" && !SSL_MODES.contains(&value.as_ref()) {
                return Err(invalid_dsn(&format!("sslmode is one of {}", SSL_MODES.join(", "))));
            }
        }
        Ok(())
    }

    /// The text as it was given, for sealing.
    pub(crate) fn full_text(&self) -> &SecretString {
        &self.text
    }

    /// A host name, an address, or the directory of a socket.
    pub(crate) fn host_name(&self) -> String {
        match self.url.query_pairs().find(|(name, _)| name == "host") {
            Some((_, host)) => host.into_owned(),
            None => percent_decoded(self.url.host_str().unwrap_or_default()),
        }
    }

    pub(crate) fn port_number(&self) -> u16 {
        let named = self.url.query_pairs().find(|(name, _)| name == "port");
        named.and_then(|(_, port)| port.parse().ok()).or(self.url.port()).unwrap_or(PORT_DEFAULT)
    }

    pub(crate) fn user_name(&self) -> String {
        percent_decoded(self.url.username())
    }

    pub(crate) fn user_password(&self) -> Option<SecretString> {
        self.url.password().map(|password| percent_decoded(password).into())
    }

    pub(crate) fn database_name(&self) -> String {
        match self.url.path().trim_start_matches('/') {
            "" => DATABASE_DEFAULT.to_owned(),
            named => percent_decoded(named),
        }
    }

    /// The value of a parameter such as `sslmode` or `sslrootcert`.
    pub(crate) fn query_parameter(&self, name: &str) -> Option<String> {
        self.url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    }

    /// Options for the driver: this server, user and database, and the settings that all connections share.
    pub(crate) fn connect_options(&self) -> PgConnectOptions {
        let options: PgConnectOptions = self.text.expose_secret().parse().expect("it was read once already");
        // Every value is set, because the driver would fill gaps from the environment and from a password file.
        let password = self.user_password().unwrap_or_default();
        let mode =
            if self.query_parameter("sslmode").is_none() { options.ssl_mode(PgSslMode::Prefer) } else { options };
        // The driver would treat the brackets of an IPv6 address as part of a name. A path is a socket.
        let host = self.host_name();
        let mode = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(address) => mode.host(address),
            None => mode,
        };
        let mode = mode.port(self.port_number()).username(&self.user_name());
        mode.password(password.expose_secret()).database(&self.database_name()).application_name("fleet")
    }
}

fn percent_decoded(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}

fn invalid_dsn(why: &str) -> Error {
    Error::new(ErrorKind::ServerInvalid, format!("this is not a connection string of PostgreSQL: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ServerDsn> {
        ServerDsn::parse(&text.to_owned().into())
    }

    #[test]
    fn every_part_is_found() {
        let dsn = parse("postgres://fl%40et:p%3Aw@db.example:6000/main?sslmode=require&sslrootcert=/ca.pem\n").unwrap();
        assert_eq!((dsn.host_name().as_str(), dsn.port_number()), ("db.example", 6000));
        assert_eq!((dsn.user_name().as_str(), dsn.database_name().as_str()), ("fl@et", "main"));
        assert_eq!(dsn.user_password().unwrap().expose_secret(), "p:w");
        assert_eq!(dsn.query_parameter("sslmode").as_deref(), Some("require"));
        let plain = parse("postgresql://fleet@127.0.0.1").unwrap();
        assert_eq!(
            (plain.port_number(), plain.database_name().as_str(), plain.user_password().is_none()),
            (5432, "postgres", true)
        );
        let socket = parse("postgres://fleet@localhost/x?host=/var/run/pg").unwrap();
        assert_eq!(socket.host_name(), "/var/run/pg");
    }

    #[test]
    fn an_ipv6_address_reaches_the_driver_without_brackets() {
        for (text, host) in [
            ("postgres://fleet@[::1]:5433/x", "::1"),
            ("postgres://fleet@[fe80::2]/x?sslmode=disable", "fe80::2"),
            ("postgres://fleet@localhost/x?host=[::1]", "::1"),
            ("postgres://fleet@127.0.0.1/x", "127.0.0.1"),
        ] {
            assert_eq!(parse(text).unwrap().connect_options().get_host(), host, "{text}");
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
