//! Encrypts stored secrets with AES-256-GCM. The additional data names table, column and row; the value names its key.
//!
//! Text form: `v1:<key id>:<base64 of nonce and ciphertext>`. Nonces are random; a key encrypts far fewer than 2^32
//! values.
//!
//! Signs data outside the catalog with HMAC-SHA256. Its key is derived from the fleet's, so that the two uses are
//! independent. The signed bytes are the context, as above, and then the text. Text form: `v1:<key id>:<base64>`.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::{digest, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{SecretSlice, SecretString};
use zeroize::{Zeroize as _, Zeroizing};

use crate::error::{Error, ErrorKind, Result};

/// Length of a key in bytes.
const KEY_LEN: usize = 32;
/// The only version of sealed values and signatures so far.
const FORM: &str = "v1";
/// The label from which the signature key is derived.
const SIGNATURES: &[u8] = b"fleet signatures 1";

/// The fleet's 256-bit key. Its debug output does not show it.
pub struct FleetKey(Zeroizing<[u8; KEY_LEN]>);

impl fmt::Debug for FleetKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FleetKey(…)")
    }
}

impl FleetKey {
    /// A new key of 32 random bytes.
    #[must_use]
    pub fn generate() -> Self {
        let mut bytes = Zeroizing::new([0; KEY_LEN]);
        getrandom::fill(bytes.as_mut()).expect("the system gives random bytes");
        Self(bytes)
    }

    /// Parses the text form (base64 of 32 bytes, with surrounding white space ignored): the content of `fleet.key` or
    /// `FLEET_KEY`.
    ///
    /// # Errors
    /// `WrongKey`; the message does not repeat the text.
    pub fn from_text(text: &str) -> Result<Self> {
        let malformed = || Error::new(ErrorKind::WrongKey, "the fleet key is not base64 of 32 bytes");
        let decoded = Zeroizing::new(STANDARD.decode(text.trim()).map_err(|_| malformed())?);
        let bytes: [u8; KEY_LEN] = decoded.as_slice().try_into().map_err(|_| malformed())?;
        Ok(Self(Zeroizing::new(bytes)))
    }

    /// The text form; the caller must not print it.
    #[must_use]
    pub fn secret_text(&self) -> SecretString {
        SecretString::from(STANDARD.encode(self.0.as_ref()))
    }

    /// Identifies the key without revealing any of it.
    fn key_id(&self) -> String {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(b"fleet key id\0");
        context.update(self.0.as_ref());
        lower_hex(&context.finish().as_ref()[..4])
    }
}

/// Seals, opens and signs values with one key.
pub struct SecretSealer {
    key: LessSafeKey,
    signer: hmac::Key,
    key_id: String,
}

impl fmt::Debug for SecretSealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretSealer").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

impl SecretSealer {
    /// A sealer with this key.
    #[must_use]
    pub fn new(key: &FleetKey) -> Self {
        let cipher = UnboundKey::new(&AES_256_GCM, key.0.as_ref()).expect("the key has the cipher's length");
        let derived = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.0.as_ref()), SIGNATURES);
        Self {
            key: LessSafeKey::new(cipher),
            signer: hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref()),
            key_id: key.key_id(),
        }
    }

    /// Signs these bytes for this context: proves later that a holder of the fleet's key wrote them.
    #[must_use]
    pub fn sign_bytes(&self, context: (&str, &str, &str), bytes: &[u8]) -> String {
        let tag = hmac::sign(&self.signer, &signed_bytes(context, bytes));
        format!("{FORM}:{}:{}", self.key_id, STANDARD.encode(tag.as_ref()))
    }

    /// A text that nobody can guess without the fleet's key, and that is always the same for this context and these
    /// bytes: 64 hexadecimal digits. It may be published.
    #[must_use]
    pub fn derive_text(&self, context: (&str, &str, &str), bytes: &[u8]) -> String {
        lower_hex(hmac::sign(&self.signer, &signed_bytes(context, bytes)).as_ref())
    }

    /// Checks a signature of [`SecretSealer::sign_bytes`].
    ///
    /// # Errors
    /// `WrongKey` when another key signed, `Corrupt` when bytes or context differ.
    pub fn verify_signature(&self, context: (&str, &str, &str), bytes: &[u8], signature: &str) -> Result<()> {
        let broken = || Error::new(ErrorKind::Corrupt, format!("the signature of {} does not match", context.2));
        let tag = self.decode_text(signature, broken)?;
        hmac::verify(&self.signer, &signed_bytes(context, bytes), &tag).map_err(|_| broken())
    }

    /// Decodes a text form, if it was made with this key.
    fn decode_text(&self, text: &str, broken: impl Fn() -> Error) -> Result<Vec<u8>> {
        let mut parts = text.splitn(3, ':');
        let (Some(FORM), Some(key_id), Some(text)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(broken());
        };
        if key_id != self.key_id {
            let message = format!("this was made with key {key_id}, but this process has key {}", self.key_id);
            return Err(Error::new(ErrorKind::WrongKey, message));
        }
        STANDARD.decode(text).map_err(|_| broken())
    }

    /// Seals a value. `context` is (table, column, id); the value can be opened only with the same context.
    #[must_use]
    pub fn seal_value(&self, context: (&str, &str, &str), plain: &[u8]) -> String {
        let (mut data, mut nonce) = (plain.to_vec(), [0; NONCE_LEN]);
        getrandom::fill(&mut nonce).expect("the system gives random bytes");
        self.key
            .seal_in_place_append_tag(Nonce::from(&nonce), Aad::from(context_bytes(context)), &mut data)
            .expect("a value in memory is shorter than the cipher's limit");
        let mut sealed = nonce.to_vec();
        sealed.append(&mut data);
        format!("{FORM}:{}:{}", self.key_id, STANDARD.encode(sealed))
    }

    /// Opens a value that was sealed for this context.
    ///
    /// # Errors
    /// `WrongKey` when another key sealed it, `Corrupt` when it was changed or moved.
    pub fn open_sealed(&self, context: (&str, &str, &str), sealed: &str) -> Result<SecretSlice<u8>> {
        let broken =
            || Error::new(ErrorKind::Corrupt, format!("the sealed {}.{} cannot be opened", context.0, context.1));
        let mut data = self.decode_text(sealed, broken)?;
        let nonce: [u8; NONCE_LEN] = data.get(..NONCE_LEN).and_then(|n| n.try_into().ok()).ok_or_else(broken)?;
        let aad = Aad::from(context_bytes(context));
        let opened = self.key.open_in_place(Nonce::from(&nonce), aad, &mut data[NONCE_LEN..]);
        let plain = opened.map(|plain| plain.to_vec()).map_err(|_| broken());
        data.zeroize();
        plain.map(SecretSlice::from)
    }
}

/// Table, column and id, each preceded by its length, so that different contexts give different bytes.
fn context_bytes((table, column, id): (&str, &str, &str)) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in [table, column, id] {
        bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bytes.extend_from_slice(part.as_bytes());
    }
    bytes
}

/// The context, as in [`context_bytes`], followed by the bytes.
fn signed_bytes(context: (&str, &str, &str), bytes: &[u8]) -> Vec<u8> {
    let mut all = context_bytes(context);
    all.extend_from_slice(bytes);
    all
}

/// Formats bytes as lower-case hexadecimal.
pub(crate) fn lower_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        for nibble in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(nibble), 16).expect("a nibble is a hex digit"));
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret as _;

    const HERE: (&str, &str, &str) = ("servers", "secret", "srv_1");

    #[test]
    fn what_was_sealed_opens_in_its_place_only() {
        let sealer = SecretSealer::new(&FleetKey::generate());
        let sealed = sealer.seal_value(HERE, b"hunter2");
        assert_eq!(sealer.open_sealed(HERE, &sealed).unwrap().expose_secret(), b"hunter2");
        for there in [("server", "ssecret", "srv_1"), ("servers", "secret", "srv_2"), ("servers", "base", "srv_1")] {
            assert_eq!(sealer.open_sealed(there, &sealed).unwrap_err().kind(), ErrorKind::Corrupt);
        }
    }

    #[test]
    fn the_same_value_never_looks_the_same() {
        let sealer = SecretSealer::new(&FleetKey::generate());
        assert_ne!(sealer.seal_value(HERE, b"x"), sealer.seal_value(HERE, b"x"));
    }

    #[test]
    fn another_key_is_named_and_refused() {
        let sealed = SecretSealer::new(&FleetKey::generate()).seal_value(HERE, b"x");
        let error = SecretSealer::new(&FleetKey::generate()).open_sealed(HERE, &sealed).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WrongKey);
        assert!(error.to_string().contains(sealed.split(':').nth(1).unwrap()), "{error}");
    }

    #[test]
    fn every_flipped_character_is_noticed() {
        let sealer = SecretSealer::new(&FleetKey::generate());
        let sealed = sealer.seal_value(HERE, b"a secret");
        for at in 0..sealed.len() {
            let mut bytes = sealed.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            assert!(sealer.open_sealed(HERE, &changed).is_err(), "{at}");
        }
        for cut in 0..sealed.len() {
            assert!(sealer.open_sealed(HERE, &sealed[..cut]).is_err(), "{cut}");
        }
    }

    #[test]
    fn a_signature_holds_for_its_bytes_its_context_and_its_key_only() {
        let key = FleetKey::generate();
        let (sealer, again) = (
            SecretSealer::new(&key),
            SecretSealer::new(&FleetKey::from_text(key.secret_text().expose_secret()).unwrap()),
        );
        let signature = sealer.sign_bytes(HERE, b"a manifest");
        again.verify_signature(HERE, b"a manifest", &signature).unwrap();
        assert_eq!(again.verify_signature(HERE, b"a manifesT", &signature).unwrap_err().kind(), ErrorKind::Corrupt);
        for there in [("server", "ssecret", "srv_1"), ("servers", "secret", "srv_2"), ("servers", "secret", "srv_1a")] {
            assert!(again.verify_signature(there, b"a manifest", &signature).is_err());
        }
        let other = SecretSealer::new(&FleetKey::generate());
        assert_eq!(other.verify_signature(HERE, b"a manifest", &signature).unwrap_err().kind(), ErrorKind::WrongKey);
        let named = signature.replacen(&sealer.key_id, &other.key_id, 1);
        assert_eq!(other.verify_signature(HERE, b"a manifest", &named).unwrap_err().kind(), ErrorKind::Corrupt);
        for cut in 0..signature.len() {
            assert!(again.verify_signature(HERE, b"a manifest", &signature[..cut]).is_err(), "{cut}");
        }
    }

    #[test]
    fn a_key_survives_its_text_form_and_never_prints() {
        let key = FleetKey::generate();
        let text = key.secret_text();
        let again = FleetKey::from_text(&format!("  {}\n", text.expose_secret())).unwrap();
        assert_eq!(key.key_id(), again.key_id());
        assert!(!format!("{key:?}{:?}", SecretSealer::new(&key)).contains(text.expose_secret()));
        for bad in ["", "abc", "!!!!", &STANDARD.encode([0; 31]), &STANDARD.encode([0; 33])] {
            assert_eq!(FleetKey::from_text(bad).unwrap_err().kind(), ErrorKind::WrongKey, "{bad}");
        }
    }
}
