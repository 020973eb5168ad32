//! A server as this program may enter it.

use std::fmt;
use std::hash::{Hash, Hasher};

use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgConnectOptions;

use super::dsn::Dsn;
use super::logins::{LoginKey, login, migrator};
use crate::error::{Error, ErrorKind, Result};
use crate::pool::Access;

/// A PostgreSQL server: where it is, the role that maintains databases on it, and the key of their logins. Two values
/// are equal when they mean the same address. Never prints a secret.
#[derive(Clone)]
pub struct PostgresServer {
    address: String,
    dsn: Dsn,
    key: LoginKey,
}

/// What the catalog seals.
#[derive(Serialize, Deserialize)]
struct Secret {
    dsn: String,
    login_key: String,
}

impl PostgresServer {
    /// A server that no fleet has used yet: a new key is made for its logins.
    ///
    /// # Errors
    /// [`ErrorKind::ServerInvalid`], never repeating any of the connection string.
    pub fn new(dsn: &SecretString) -> Result<Self> {
        Ok(Self::of(Dsn::parse(dsn)?, LoginKey::generate()))
    }

    /// The server that [`PostgresServer::secret`] described.
    ///
    /// # Errors
    /// [`ErrorKind::ServerInvalid`].
    pub fn from_secret(secret: &SecretString) -> Result<Self> {
        let invalid = || Error::new(ErrorKind::ServerInvalid, "what the catalog holds about this server is damaged");
        let secret: Secret = serde_json::from_str(secret.expose_secret()).map_err(|_| invalid())?;
        let key = LoginKey::parse(&secret.login_key).ok_or_else(invalid)?;
        Ok(Self::of(Dsn::parse(&secret.dsn.into())?, key))
    }

    /// Everything needed to enter it again, to be sealed.
    #[must_use]
    pub fn secret(&self) -> SecretString {
        let secret =
            Secret { dsn: self.dsn.text().expose_secret().to_owned(), login_key: self.key.expose().to_string() };
        serde_json::to_string(&secret).expect("two texts are JSON").into()
    }

    /// The same server entered with another connection string; logins keep their passwords.
    ///
    /// # Errors
    /// [`ErrorKind::ServerInvalid`].
    pub fn with_dsn(&self, dsn: &SecretString) -> Result<Self> {
        Ok(Self::of(Dsn::parse(dsn)?, self.key.clone()))
    }

    /// `host:port`, without credentials.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    fn of(dsn: Dsn, key: LoginKey) -> Self {
        Self { address: format!("{}:{}", dsn.host(), dsn.port()), dsn, key }
    }

    pub(crate) fn dsn(&self) -> &Dsn {
        &self.dsn
    }

    /// As the maintenance role, in this database.
    pub(crate) fn maintenance(&self, database: &str) -> PgConnectOptions {
        self.dsn.options().database(database).application_name("fleet maintenance")
    }

    /// As one of the logins of this database.
    pub(crate) fn login(&self, database: &str, access: Access) -> PgConnectOptions {
        let login = login(database, access);
        let password = self.key.password(&login);
        self.dsn.options().database(database).username(&login).password(password.expose_secret())
    }

    /// The login that ran migrations in all databases of a server before each database had its own.
    pub(crate) fn former_migrator(&self) -> String {
        format!("fleet_migrator_{}", self.key.id())
    }

    /// As the login that migrates this database.
    pub(crate) fn migration(&self, database: &str) -> PgConnectOptions {
        let options = self.dsn.options().database(database).application_name("fleet migration");
        options.username(&migrator(database)).password(self.migrator_password(database).expose_secret())
    }

    pub(crate) fn migrator_password(&self, database: &str) -> SecretString {
        self.key.password(&migrator(database))
    }

    /// What the server is to store as the password of a login.
    pub(crate) fn verifier(&self, login: &str) -> String {
        self.key.verifier(login)
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
        let again = PostgresServer::from_secret(&server.secret()).unwrap();
        assert_eq!((server.address(), again.address()), ("h:1", "h:1"));
        assert_eq!(server.verifier("x"), again.verifier("x"));
        let moved = server.with_dsn(&"postgres://fleet:other@i:2/d".to_owned().into()).unwrap();
        assert_eq!((moved.verifier("x"), moved.address()), (server.verifier("x"), "i:2"));
        assert!(!format!("{server:?}").contains("hidden"));
        assert_eq!(PostgresServer::from_secret(&"{}".to_owned().into()).unwrap_err().kind(), ErrorKind::ServerInvalid);
    }
}
