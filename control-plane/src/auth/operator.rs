//! Authenticates operators: by an API token of the catalog, or as this process itself.
//!
//! The HTTP layer calls [`OperatorAuthenticator::authenticate_header`] with the value of the Authorization header. An
//! embedded command carries an [`InProcess`], which only [`crate::App`] creates. Nothing here decides what an operator
//! may do: see [`super::policy`].

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use catalog::Catalog;
use catalog::tokens::{self, OperatorRole, TokenRecord, TokenScope};

use crate::error::{Error, ErrorKind, Result};

/// How long a token is cached. A revoked token is refused after at most this time, half of the promised second.
const CACHE_TTL: Duration = Duration::from_millis(500);
/// Maximum number of cached tokens. A fleet has a handful of operators.
const CACHE_MAX: usize = 1_024;
/// Maximum length of a token: longer than any that this program creates.
const TOKEN_BYTES_MAX: usize = 256;

/// An authenticated operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operator {
    /// The operator's name in the audit log.
    pub actor: String,
    /// The operator's role.
    pub role: OperatorRole,
}

/// The principal of this process, acting for the person who started it. Anyone who can read the data directory and its
/// key may do everything anyway.
///
/// No header, no body and no layer of the HTTP service can create one. It reaches a request only as an extension that
/// the embedded transport adds.
#[derive(Debug, Clone)]
pub struct InProcess {
    actor: String,
}

impl InProcess {
    /// Only [`crate::App`] may call this. A test searches the sources of the HTTP layers for other callers.
    #[must_use]
    pub(crate) fn new(actor: &str) -> Self {
        Self { actor: actor.to_owned() }
    }

    /// The operator that this principal acts as, with all rights.
    #[must_use]
    pub fn as_operator(&self) -> Operator {
        Operator { actor: self.actor.clone(), role: OperatorRole::Admin }
    }
}

/// SHA-256 of a secret. The cache never holds the secret, and comparing digests of attacker-chosen text leaks nothing.
type TokenDigest = [u8; 32];

#[derive(Debug, Clone)]
struct CachedOperator {
    since: Instant,
    operator: Operator,
    expires_at: Option<i64>,
}

/// Authenticates operators' tokens, and caches valid ones for half a second.
#[derive(Debug, Default)]
pub struct OperatorAuthenticator {
    known: Mutex<HashMap<TokenDigest, CachedOperator>>,
}

impl OperatorAuthenticator {
    /// The operator behind the value of an Authorization header.
    ///
    /// # Errors
    /// 401 `unauthenticated`. It is the same for a missing, malformed or unknown token and for a tenant's token, so
    /// that callers cannot tell them apart. The holder of an operator's token is told that it has expired or was
    /// revoked. 503 when the catalog cannot be read.
    pub async fn authenticate_header(&self, catalog: &Catalog, authorization: Option<&str>) -> Result<Operator> {
        let secret = authorization.and_then(bearer_token).ok_or_else(token_required)?;
        let digest = token_digest(secret);
        let now = catalog.now();
        if let Some(known) = self.cached_operator(&digest) {
            return if is_unexpired(known.expires_at, now) { Ok(known.operator) } else { Err(ended_token("expired")) };
        }
        let mut tx = catalog.read().await?;
        let record = tokens::by_secret(&mut tx, secret).await?.ok_or_else(token_required)?;
        let operator = operator_of(&record, now).ok_or_else(|| refused_token(&record))?;
        self.remember_operator(
            digest,
            CachedOperator { since: Instant::now(), operator: operator.clone(), expires_at: record.expires_at },
        );
        Ok(operator)
    }

    fn cached_operator(&self, digest: &TokenDigest) -> Option<CachedOperator> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(digest).filter(|k| k.since.elapsed() < CACHE_TTL).cloned()
    }

    fn remember_operator(&self, digest: TokenDigest, entry: CachedOperator) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= CACHE_MAX {
            known.retain(|_, k| k.since.elapsed() < CACHE_TTL);
        }
        if known.len() < CACHE_MAX {
            known.insert(digest, entry);
        }
    }
}

/// The token in `Bearer <token>`. The scheme is case-insensitive (RFC 9110).
fn bearer_token(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.split_once(' ')?;
    let token = token.trim();
    let plausible = !token.is_empty() && token.len() <= TOKEN_BYTES_MAX && token.bytes().all(|b| b.is_ascii_graphic());
    (scheme.eq_ignore_ascii_case("bearer") && plausible).then_some(token)
}

fn token_digest(secret: &str) -> TokenDigest {
    let mut out = [0; 32];
    out.copy_from_slice(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, secret.as_bytes()).as_ref());
    out
}

fn is_unexpired(expires_at: Option<i64>, now: i64) -> bool {
    expires_at.is_none_or(|at| now < at)
}

/// PURE: the operator that a token represents at this time. `None` for a tenant's, expired or revoked token.
fn operator_of(record: &TokenRecord, now: i64) -> Option<Operator> {
    match record.scope {
        TokenScope::Operator { role } if record.revoked_at.is_none() && is_unexpired(record.expires_at, now) => {
            Some(Operator { actor: format!("token:{}", record.id), role })
        }
        _ => None,
    }
}

/// The error of a known token that represents no operator now.
fn refused_token(record: &TokenRecord) -> Error {
    match record.scope {
        TokenScope::Operator { .. } if record.revoked_at.is_some() => ended_token("was revoked"),
        TokenScope::Operator { .. } => ended_token("expired"),
        _ => token_required(),
    }
}

fn ended_token(how: &str) -> Error {
    Error::new(ErrorKind::Unauthenticated, format!("this operator's token {how}"))
        .try_next("ask an admin for a new one: fleetctl token create --operator ROLE")
        .try_next("on the server's machine, without a token: fleetctl --data-dir DIR token create --operator ROLE")
}

fn token_required() -> Error {
    Error::new(ErrorKind::Unauthenticated, "this needs the token of an operator")
        .try_next("send `Authorization: Bearer <token>`; `fleetctl token create --operator operator` creates one")
}

#[cfg(test)]
mod tests {
    use super::*;
    use catalog::TokenId;
    use catalog::members::Role;

    fn record(scope: TokenScope) -> TokenRecord {
        TokenRecord { id: TokenId::generate(), scope, label: None, created_at: 0, expires_at: None, revoked_at: None }
    }

    #[test]
    fn bearer_wants_one_plausible_token() {
        assert_eq!(bearer_token("Bearer flt_abc"), Some("flt_abc"));
        assert_eq!(bearer_token("bearer  flt_abc "), Some("flt_abc"));
        for bad in ["", "Bearer", "Bearer ", "Basic flt_abc", "Bearer a b", "Bearer \u{e9}"] {
            assert_eq!(bearer_token(bad), None, "{bad:?}");
        }
        assert_eq!(bearer_token(&format!("Bearer {}", "x".repeat(TOKEN_BYTES_MAX + 1))), None);
    }

    #[test]
    fn only_a_living_operator_token_is_an_operator() {
        let good = record(TokenScope::Operator { role: OperatorRole::Viewer });
        assert_eq!(operator_of(&good, 10).map(|o| o.role), Some(OperatorRole::Viewer));
        assert_eq!(operator_of(&TokenRecord { revoked_at: Some(5), ..good.clone() }, 10), None);
        assert_eq!(operator_of(&TokenRecord { expires_at: Some(10), ..good.clone() }, 10), None);
        assert!(operator_of(&TokenRecord { expires_at: Some(11), ..good }, 10).is_some());
        assert_eq!(operator_of(&record(TokenScope::Service { role: Role::Manager }), 10), None);
    }

    #[test]
    fn no_http_layer_makes_an_in_process_principal() {
        let made = concat!("InProcess", "::new");
        let mut folders = vec![std::path::PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))];
        let mut makers = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()) {
                if entry.is_dir() {
                    folders.push(entry);
                } else if std::fs::read_to_string(&entry).unwrap().contains(made) {
                    makers.push(entry.file_name().unwrap().to_string_lossy().into_owned());
                }
            }
        }
        assert!(makers.iter().all(|file| file == "app.rs"), "{makers:?}");
    }
}
