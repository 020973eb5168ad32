//! A PostgreSQL server and the ways in which this program connects to it.

use std::fmt;
use std::hash::{Hash, Hasher};

use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgConnectOptions;

use super::dsn::ServerDsn;
use super::logins::{LoginKey, login_name, migrator_login};
use crate::claim::FleetClaims;
use crate::error::{Error, ErrorKind, Result};
use crate::statement::AccessMode;

/// A PostgreSQL server: its address, the role that maintains databases on it, and the key of their logins. Two values
/// are equal when their addresses are equal. Printing it never shows a secret.
#[derive(Clone)]
pub struct PostgresServer {
    address: String,
    dsn: ServerDsn,
    key: LoginKey,
    claims: FleetClaims,
}

/// The secret that the catalog stores sealed.
#[derive(Serialize, Deserialize)]
struct ServerSecret {
    dsn: String,
    login_key: String,
}

impl PostgresServer {
    /// A server that no fleet has used yet; a new key is made for its logins.
    ///
    /// # Errors
    /// [`ErrorKind::ServerInvalid`], never repeating any part of the connection string.
    pub fn new(dsn: &SecretString) -> Result<Self> {
        Ok(Self::from_parts(ServerDsn::parse(dsn)?, LoginKey::generate()))
    }

    /// The server from a text of [`PostgresServer::secret_text`].
    ///
    /// # Errors
    /// [`ErrorKind::ServerInvalid`] when the text cannot be read.
    pub fn from_secret(secret: &SecretString) -> Result<Self> {
        let invalid = || Error::new(ErrorKind::ServerInvalid, "the catalog's record of this server is damaged");
        let secret: ServerSecret = serde_json::from_str(secret.expose_secret()).map_err(|_| invalid())?;
        let key = LoginKey::parse(&secret.login_key).ok_or_else(invalid)?;
        Ok(Self::from_parts(ServerDsn::parse(&secret.dsn.into())?, key))
    }

    /// Everything needed to connect to the server again, as a text to be sealed.
    #[must_use]
    pub fn secret_text(&self) -> SecretString {
        let secret = ServerSecret {
            dsn: self.dsn.full_text().expose_secret().to_owned(),
            login_key: self.key.encode_key().to_string(),
        };
        serde_json::to_string(&secret).expect("two texts are JSON").into()
    }

    /// This server with another connection string; the logins keep their passwords.
    ///
    /// # Errors
    /// [`ErrorKind::ServerInvalid`] when the connection string is malformed.
    pub fn with_dsn(&self, dsn: &SecretString) -> Result<Self> {
        Ok(Self::from_parts(ServerDsn::parse(dsn)?, self.key.clone()).with_claims(self.claims.clone()))
    }

    /// This server, usable only while the fleet of these claims may use it.
    #[must_use]
    pub fn with_claims(self, claims: FleetClaims) -> Self {
        Self { claims, ..self }
    }

    pub(crate) fn fleet_claims(&self) -> &FleetClaims {
        &self.claims
    }

    /// Identifies the key of the logins, in the names of objects that a whole server has once.
    pub(crate) fn key_id(&self) -> String {
        self.key.key_id()
    }

    /// `host:port`, without credentials.
    #[must_use]
    pub fn host_and_port(&self) -> &str {
        &self.address
    }

    /// Whether a connection without TLS is refused: `sslmode` is `require`, `verify-ca` or `verify-full`.
    #[must_use]
    pub fn requires_encryption(&self) -> bool {
        let mode = self.dsn.query_parameter("sslmode");
        mode.is_some_and(|mode| matches!(&*mode, "require" | "verify-ca" | "verify-full"))
    }

    fn from_parts(dsn: ServerDsn, key: LoginKey) -> Self {
        Self { address: format!("{}:{}", dsn.host_name(), dsn.port_number()), dsn, key, claims: FleetClaims::default() }
    }

    pub(crate) fn server_dsn(&self) -> &ServerDsn {
        &self.dsn
    }

    /// Options to connect to this database as the maintenance role.
    pub(crate) fn maintenance_options(&self, database: &str) -> PgConnectOptions {
        self.dsn.connect_options().database(database).application_name("fleet maintenance")
    }

    /// Options to connect as one of the logins of this database.
    pub(crate) fn login_options(&self, database: &str, access: AccessMode) -> PgConnectOptions {
        let login = login_name(database, access);
        let password = self.key.login_password(&login);
        self.dsn.connect_options().database(database).username(&login).password(password.expose_secret())
    }

    /// The login that ran the migrations of all databases of a server, before each database had its own.
    pub(crate) fn former_migrator(&self) -> String {
        format!("fleet_migrator_{}", self.key.key_id())
    }

    /// Options to connect as the login that migrates this database.
    pub(crate) fn migration_options(&self, database: &str) -> PgConnectOptions {
        let options = self.dsn.connect_options().database(database).application_name("fleet migration");
        options.username(&migrator_login(database)).password(self.migrator_password(database).expose_secret())
    }

    pub(crate) fn migrator_password(&self, database: &str) -> SecretString {
        self.key.login_password(&migrator_login(database))
    }

    /// The text that the server stores as the password of a login.
    pub(crate) fn login_verifier(&self, login: &str) -> String {
        self.key.password_verifier(login)
    }
}

impl fmt::Debug for PostgresServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresServer").field("address", &self.address).finish_non_exhaustive()
    }
}

impl PartialEq for PostgresServer {
    fn eq(&self, other: &Self) -> bool {
        self.address == other.address
    }
}
impl Eq for PostgresServer {}
impl Hash for PostgresServer {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.address.hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_survives_sealing_and_never_prints_a_secret() {
        let server = PostgresServer::new(&"postgres://fleet:hidden@h:1/d".to_owned().into()).unwrap();
        let again = PostgresServer::from_secret(&server.secret_text()).unwrap();
        assert_eq!((server.host_and_port(), again.host_and_port()), ("h:1", "h:1"));
        assert_eq!(server.login_verifier("x"), again.login_verifier("x"));
        let moved = server.with_dsn(&"postgres://fleet:other@i:2/d".to_owned().into()).unwrap();
        assert_eq!((moved.login_verifier("x"), moved.host_and_port()), (server.login_verifier("x"), "i:2"));
        assert!(!format!("{server:?}").contains("hidden"));
        assert_eq!(PostgresServer::from_secret(&"{}".to_owned().into()).unwrap_err().kind(), ErrorKind::ServerInvalid);
    }
}
