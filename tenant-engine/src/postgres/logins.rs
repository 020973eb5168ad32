//! The logins of each tenant database: their names, and passwords that nobody has to remember. Two are for requests;
//! the third migrates and restores, and is there only meanwhile (`migrator.rs`).
//!
//! A password is derived from the server's own random key (sealed in the catalog) and the login's name, which is used
//! once. So a repeated step sets the password it set before, two workers cannot lock each other out, and a catalog that
//! comes back from a backup still knows every login.

use aws_lc_rs::{digest, hmac, pbkdf2};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroizing;

use crate::pool::Access;

/// Stretching protects short passwords from being guessed. These have 256 random bits, and connecting costs the server
/// and us this many rounds each time.
const ROUNDS: u32 = 1;
const SALT_BYTES: usize = 16;

/// What all passwords of one server are derived from.
#[derive(Clone)]
pub(crate) struct LoginKey(Zeroizing<[u8; 32]>);

impl LoginKey {
    pub(crate) fn generate() -> Self {
        let mut bytes = Zeroizing::new([0; 32]);
        aws_lc_rs::rand::fill(bytes.as_mut()).expect("the system has random numbers");
        Self(bytes)
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let bytes = Zeroizing::new(STANDARD.decode(text).ok()?);
        Some(Self(Zeroizing::new(bytes.as_slice().try_into().ok()?)))
    }

    pub(crate) fn expose(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(self.0.as_slice()))
    }

    /// The password of this login.
    pub(crate) fn password(&self, login: &str) -> SecretString {
        URL_SAFE_NO_PAD.encode(self.derive("password", login)).into()
    }

    /// What the server stores of it (RFC 5803): the password itself is never sent, and never in the server's log.
    pub(crate) fn verifier(&self, login: &str) -> String {
        let salt = &self.derive("salt", login)[..SALT_BYTES];
        let rounds = ROUNDS.try_into().expect("it is not zero");
        let mut salted = Zeroizing::new([0; 32]);
        let password = self.password(login);
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, salt, password.expose_secret().as_bytes(), salted.as_mut());
        let key = hmac::Key::new(hmac::HMAC_SHA256, salted.as_slice());
        let stored = digest::digest(&digest::SHA256, hmac::sign(&key, b"Client Key").as_ref());
        let server = hmac::sign(&key, b"Server Key");
        let [salt, stored, server] = [salt, stored.as_ref(), server.as_ref()].map(|bytes| STANDARD.encode(bytes));
        format!("SCRAM-SHA-256${ROUNDS}:{salt}${stored}:{server}")
    }

    /// Tells this key from another's in the name of a role that a whole server has once: 32 bits are plenty for the few
    /// fleets that share a server, and say nothing about the key.
    pub(crate) fn id(&self) -> String {
        self.derive("name", "")[..4].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn derive(&self, purpose: &str, login: &str) -> [u8; 32] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.0.as_slice());
        let tag = hmac::sign(&key, format!("{purpose} {login}").as_bytes());
        tag.as_ref().try_into().expect("SHA-256 has 32 bytes")
    }
}

/// The login of a database for this access; at most 61 bytes, the server allows 63.
pub(crate) fn login(database: &str, access: Access) -> String {
    match access {
        Access::Read => format!("{database}_r"),
        Access::Write => format!("{database}_w"),
    }
}

/// The login that migrates and restores this database.
pub(crate) fn migrator(database: &str) -> String {
    format!("{database}_m")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_login_has_its_own_password_and_always_the_same() {
        let key = LoginKey::generate();
        let same = LoginKey::parse(&key.expose()).unwrap();
        let password = |key: &LoginKey, login| key.password(login).expose_secret().to_owned();
        assert_eq!(password(&key, "a_r"), password(&same, "a_r"));
        assert_eq!(key.verifier("a_r"), same.verifier("a_r"));
        assert_ne!(password(&key, "a_r"), password(&key, "a_w"));
        assert_ne!(password(&key, "a_r"), password(&LoginKey::generate(), "a_r"));
        assert!(LoginKey::parse("AAAA").is_none() && LoginKey::parse("%").is_none());
    }

    #[test]
    fn the_longest_name_fits() {
        let longest = format!("t_{}_g{}_{}", "f".repeat(32), 9_999_999_999_i64, 9_999_999_999_i64);
        assert!(login(&longest, Access::Write).len() <= 63);
    }
}
