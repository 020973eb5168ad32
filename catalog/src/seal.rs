//! Secrets at rest: AES-256-GCM, the additional data names table, column and row, the value names its key.

use crate::error::Result;

/// The fleet's 256-bit key. Does not print.
pub struct FleetKey {}

impl FleetKey {
    /// 32 random bytes.
    #[must_use]
    pub fn generate() -> Self {
        todo!()
    }
    /// From its text form (base64 of 32 bytes, white space around it ignored): the content of `fleet.key` or `FLEET_KEY`.
    pub fn parse(_text: &str) -> Result<Self> {
        todo!()
    }
    /// The text form; the caller keeps it from being printed.
    #[must_use]
    pub fn expose(&self) -> secrecy::SecretString {
        todo!()
    }
}

/// Seals and opens values with one key.
pub struct Sealer {}

impl Sealer {
    /// `context` is (table, column, id); the value opens only there.
    #[must_use]
    pub fn seal(&self, _context: (&str, &str, &str), _plain: &[u8]) -> String {
        todo!()
    }
    /// Fails with `WrongKey` or `Corrupt`.
    pub fn open(&self, _context: (&str, &str, &str), _sealed: &str) -> Result<secrecy::SecretSlice<u8>> {
        todo!()
    }
}
