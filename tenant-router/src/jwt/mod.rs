//! JSON Web Tokens as credentials: [`JwtVerifier`], with one [`JwtIssuer`] for each identity provider.
//!
//! ```text
//! token ─▶ its issuer ─▶ the issuer's key ─▶ signature and claims ─▶ Principal
//! ```
//! A token proves a user and nothing else: the memberships decide which tenants the user may open. A claim may *name* a
//! tenant, as a path or a host does. It must agree with them and grants nothing.
//!
//! `issuer.rs` has the settings and their checks, `keys.rs` fetches and keeps public keys, `claims.rs` checks a token.

mod claims;
mod issuer;
mod keys;

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;

use crate::error::{Error, ErrorKind, Result};
use crate::principal::{Authenticate, Principal};

pub use issuer::{JwtIssuer, SigningAlgorithms};

/// Longer tokens are refused before they are decoded.
const TOKEN_BYTES_MAX: usize = 8_192;

/// Verifies the tokens of some issuers. Use it with [`RouterBuilder::jwt`](crate::RouterBuilder::jwt).
#[derive(Debug)]
pub struct JwtVerifier {
    issuers: HashMap<String, issuer::CheckedIssuer>,
}

impl JwtVerifier {
    /// A verifier for these issuers. Fetches nothing yet.
    ///
    /// # Errors
    /// [`ErrorKind::Misconfigured`] when there is no issuer, when two have the same name, when the members of two could
    /// have the same name, or when the settings of one are not safe.
    pub fn new(issuers: impl IntoIterator<Item = JwtIssuer>) -> Result<Arc<Self>> {
        let mut checked: HashMap<String, issuer::CheckedIssuer> = HashMap::new();
        for issuer in issuers {
            let issuer = issuer.check()?;
            if let Some(other) =
                checked.values().find(|other| other.name() != issuer.name() && other.may_share_members(&issuer))
            {
                let (one, two) = (other.name(), issuer.name());
                let text =
                    format!("tokens of {one} and {two} could prove the same member: give each a principal_prefix");
                return Err(misconfigured(text));
            }
            if let Some(other) = checked.insert(issuer.name().to_owned(), issuer) {
                return Err(misconfigured(format!("two issuers of tokens have the name {}", other.name())));
            }
        }
        match checked.is_empty() {
            true => Err(misconfigured("no issuer of tokens is named")),
            false => Ok(Arc::new(Self { issuers: checked })),
        }
    }
}

#[async_trait]
impl Authenticate for JwtVerifier {
    async fn authenticate(&self, credential: &str) -> Result<Option<Principal>> {
        if credential.len() > TOKEN_BYTES_MAX {
            return Ok(None);
        }
        let Some(unverified) = claims::read_unverified(credential) else { return Ok(None) };
        let Some(issuer) = self.issuers.get(&unverified.issuer) else { return Ok(None) };
        issuer.prove_token(credential, &unverified).await
    }
}

fn misconfigured(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::Misconfigured).with_source(text.into())
}
