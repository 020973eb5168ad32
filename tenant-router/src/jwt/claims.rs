//! PURE: reads a token, and checks its signature and its claims with a given key.

use std::collections::BTreeMap;

use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use serde_json::Value;

/// What a token says before anything is proved: which key could prove it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UnverifiedToken {
    pub(super) issuer: String,
    pub(super) algorithm: Algorithm,
    pub(super) key_id: Option<String>,
}

/// The claims of a token whose signature, issuer, audience and times are proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ProvenClaims {
    pub(super) subject: String,
    /// Milliseconds since 1970.
    pub(super) expires_at: i64,
    pub(super) tenant: Option<String>,
}

#[derive(Deserialize)]
struct IssuerClaim {
    iss: String,
}

#[derive(Deserialize)]
struct AllClaims {
    sub: String,
    exp: f64,
    #[serde(flatten)]
    others: BTreeMap<String, Value>,
}

/// `None` when the text is not a token, has an algorithm that is not supported (as `none`), or demands extensions.
pub(super) fn read_unverified(token: &str) -> Option<UnverifiedToken> {
    let header = jsonwebtoken::decode_header(token).ok()?;
    if header.crit.is_some() {
        return None;
    }
    let claims: IssuerClaim = jsonwebtoken::dangerous::insecure_decode_claims(token).ok()?;
    Some(UnverifiedToken { issuer: claims.iss, algorithm: header.alg, key_id: header.kid })
}

/// The claims, if the key proves the token and every rule of `rules` holds. A tenant claim that is not a text is a token
/// that nobody meant, so it proves nothing.
pub(super) fn verify_token(
    token: &str,
    key: &DecodingKey,
    rules: &Validation,
    tenant_claim: Option<&str>,
) -> Option<ProvenClaims> {
    let claims: AllClaims = jsonwebtoken::decode(token, key, rules).ok()?.claims;
    let tenant = match tenant_claim.and_then(|name| claims.others.get(name)) {
        None | Some(Value::Null) => None,
        Some(Value::String(name)) => Some(name.clone()),
        Some(_) => return None,
    };
    let is_named = !claims.sub.is_empty();
    is_named.then_some(ProvenClaims { subject: claims.sub, expires_at: (claims.exp * 1_000.0) as i64, tenant })
}
