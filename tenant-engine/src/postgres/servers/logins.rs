//! The logins of each tenant database: their names, and their passwords, which are derived and never stored. Two logins
//! are for requests. The third migrates and restores, and exists only during that work (`migrator.rs`).
//!
//! A password is derived from the server's own random key (sealed in the catalog) and the login's name, which is used
//! once. So a repeated step sets an equal password, and two workers cannot lock each other out. A catalog restored from
//! a backup still knows every login.

use aws_lc_rs::{digest, hmac, pbkdf2};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroizing;

use crate::statement::AccessMode;

/// Key stretching protects short passwords from being guessed. These have 256 random bits, and each connection costs
/// both sides this many rounds.
const ROUNDS: u32 = 1;
const SALT_BYTES: usize = 16;

/// The key from which all passwords of one server are derived.
#[derive(Clone)]
pub(crate) struct LoginKey(Zeroizing<[u8; 32]>);

impl LoginKey {
    pub(crate) fn generate() -> Self {
        let mut bytes = Zeroizing::new([0; 32]);
        getrandom::fill(bytes.as_mut()).expect("the system has random numbers");
        Self(bytes)
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let bytes = Zeroizing::new(STANDARD.decode(text).ok()?);
        Some(Self(Zeroizing::new(bytes.as_slice().try_into().ok()?)))
    }

    pub(crate) fn encode_key(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(self.0.as_slice()))
    }

    /// The password of this login.
    pub(crate) fn login_password(&self, login: &str) -> SecretString {
        URL_SAFE_NO_PAD.encode(self.derive_bytes("password", login)).into()
    }

    /// The verifier that the server stores (RFC 5803). The password itself is never sent and never in the server's log.
    pub(crate) fn password_verifier(&self, login: &str) -> String {
        let salt = &self.derive_bytes("salt", login)[..SALT_BYTES];
        let rounds = ROUNDS.try_into().expect("it is not zero");
        let mut salted = Zeroizing::new([0; 32]);
        let password = self.login_password(login);
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, salt, password.expose_secret().as_bytes(), salted.as_mut());
        let key = hmac::Key::new(hmac::HMAC_SHA256, salted.as_slice());
        let stored = digest::digest(&digest::SHA256, hmac::sign(&key, b"Client Key").as_ref());
        let server = hmac::sign(&key, b"Server Key");
        let [salt, stored, server] = [salt, stored.as_ref(), server.as_ref()].map(|bytes| STANDARD.encode(bytes));
        format!("SCRAM-SHA-256${ROUNDS}:{salt}${stored}:{server}")
    }

    /// Identifies this key in the name of a role that a whole server has once. 32 bits are enough for the few fleets
    /// that share a server, and reveal nothing about the key.
    pub(crate) fn key_id(&self) -> String {
        self.derive_bytes("name", "")[..4].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn derive_bytes(&self, purpose: &str, login: &str) -> [u8; 32] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.0.as_slice());
        let tag = hmac::sign(&key, format!("{purpose} {login}").as_bytes());
        tag.as_ref().try_into().expect("SHA-256 has 32 bytes")
    }
}

/// The login of a database for this access; at most 61 bytes, while the server allows 63.
pub(crate) fn login_name(database: &str, access: AccessMode) -> String {
    match access {
        AccessMode::Read => format!("{database}_r"),
        AccessMode::Write => format!("{database}_w"),
    }
}

/// The name of the login that migrates and restores this database.
pub(crate) fn migrator_login(database: &str) -> String {
    format!("{database}_m")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_login_has_its_own_password_and_always_the_same() {
        let key = LoginKey::generate();
        let same = LoginKey::parse(&key.encode_key()).unwrap();
        let password = |key: &LoginKey, login| key.login_password(login).expose_secret().to_owned();
        assert_eq!(password(&key, "a_r"), password(&same, "a_r"));
        assert_eq!(key.password_verifier("a_r"), same.password_verifier("a_r"));
        assert_ne!(password(&key, "a_r"), password(&key, "a_w"));
        assert_ne!(password(&key, "a_r"), password(&LoginKey::generate(), "a_r"));
        assert!(LoginKey::parse("AAAA").is_none() && LoginKey::parse("%").is_none());
    }

    #[test]
    fn the_longest_name_fits() {
        let longest = format!("t_{}_g{}_{}", "f".repeat(32), 9_999_999_999_i64, 9_999_999_999_i64);
        assert!(login_name(&longest, AccessMode::Write).len() <= 63);
    }
}
