//! Who an operator is: an API token of the catalog, or this process itself.
//!
//! The HTTP layer asks [`Operators::authenticate`] with what the Authorization header holds; an embedded command carries
//! an [`InProcess`] that only [`crate::App`] hands out. Nothing here decides what an operator may do: see
//! [`super::policy`].

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use catalog::Catalog;
use catalog::tokens::{self, OperatorRole, TokenRecord, TokenScope};

use crate::error::{Error, Result};

/// A revoked token is refused after at most this long; half of the promised second.
const CACHE_TTL: Duration = Duration::from_millis(500);
/// Distinct tokens remembered; a fleet has a handful of operators.
const CACHE_MAX: usize = 1_024;
/// Longer than any token this program makes.
const TOKEN_BYTES_MAX: usize = 256;

/// An authenticated operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operator {
    /// Who, as the audit log writes it.
    pub actor: String,
    /// What they may do.
    pub role: OperatorRole,
}

/// The caller is this very process, acting for the human who started it: whoever can read the data directory and its
/// key may do everything anyway.
///
/// No header, no body and no layer of the HTTP service can make one; it reaches a request only as an extension that the
/// embedded transport puts there.
#[derive(Debug, Clone)]
pub struct InProcess {
    actor: String,
}

impl InProcess {
    /// Called by [`crate::App`] alone; a test reads the sources of the HTTP layers for other callers.
    #[must_use]
    pub(crate) fn new(actor: &str) -> Self {
        Self { actor: actor.to_owned() }
    }

    /// The operator this principal acts as.
    #[must_use]
    pub fn operator(&self) -> Operator {
        Operator { actor: self.actor.clone(), role: OperatorRole::Admin }
    }
}

/// SHA-256 of a secret: the cache never holds the secret, and comparing digests of attacker-chosen text leaks nothing.
type Digest = [u8; 32];

#[derive(Debug, Clone)]
struct Known {
    since: Instant,
    operator: Operator,
    expires_at: Option<i64>,
}

/// Authenticates operators' tokens, remembering the good ones for half a second.
#[derive(Debug, Default)]
pub struct Operators {
    known: Mutex<HashMap<Digest, Known>>,
}

impl Operators {
    /// The operator behind the value of an Authorization header.
    ///
    /// # Errors
    /// 401 `unauthenticated`, the same for a missing, malformed, unknown, expired or revoked token and for one of a
    /// tenant: none of them may learn which it is. 503 when the catalog cannot be read.
    pub async fn authenticate(&self, catalog: &Catalog, authorization: Option<&str>) -> Result<Operator> {
        let secret = authorization.and_then(bearer).ok_or_else(unauthenticated)?;
        let digest = digest(secret);
        let now = catalog.now();
        if let Some(known) = self.fresh(&digest) {
            return if alive(known.expires_at, now) { Ok(known.operator) } else { Err(unauthenticated()) };
        }
        let mut tx = catalog.read().await?;
        let record = tokens::by_secret(&mut tx, secret).await?.ok_or_else(unauthenticated)?;
        let operator = operator_of(&record, now).ok_or_else(unauthenticated)?;
        self.remember(
            digest,
            Known { since: Instant::now(), operator: operator.clone(), expires_at: record.expires_at },
        );
        Ok(operator)
    }

    fn fresh(&self, digest: &Digest) -> Option<Known> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(digest).filter(|k| k.since.elapsed() < CACHE_TTL).cloned()
    }

    fn remember(&self, digest: Digest, entry: Known) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= CACHE_MAX {
            known.retain(|_, k| k.since.elapsed() < CACHE_TTL);
        }
        if known.len() < CACHE_MAX {
            known.insert(digest, entry);
        }
    }
}

/// The token in `Bearer <token>`; the scheme's case does not matter (RFC 9110).
fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.split_once(' ')?;
    let token = token.trim();
    let plausible = !token.is_empty() && token.len() <= TOKEN_BYTES_MAX && token.bytes().all(|b| b.is_ascii_graphic());
    (scheme.eq_ignore_ascii_case("bearer") && plausible).then_some(token)
}

fn digest(secret: &str) -> Digest {
    let mut out = [0; 32];
    out.copy_from_slice(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, secret.as_bytes()).as_ref());
    out
}

fn alive(expires_at: Option<i64>, now: i64) -> bool {
    expires_at.is_none_or(|at| now < at)
}

/// PURE: the operator a token stands for now; `None` for a tenant's token or a dead one.
fn operator_of(record: &TokenRecord, now: i64) -> Option<Operator> {
    match record.scope {
        TokenScope::Operator { role } if record.revoked_at.is_none() && alive(record.expires_at, now) => {
            Some(Operator { actor: format!("token:{}", record.id), role })
        }
        _ => None,
    }
}

fn unauthenticated() -> Error {
    Error::new(401, "unauthenticated", "this needs the token of an operator")
        .try_next("send `Authorization: Bearer <token>`; `fleetctl token create --operator operator` makes one")
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
        assert_eq!(bearer("Bearer flt_abc"), Some("flt_abc"));
        assert_eq!(bearer("bearer  flt_abc "), Some("flt_abc"));
        for bad in ["", "Bearer", "Bearer ", "Basic flt_abc", "Bearer a b", "Bearer \u{e9}"] {
            assert_eq!(bearer(bad), None, "{bad:?}");
        }
        assert_eq!(bearer(&format!("Bearer {}", "x".repeat(TOKEN_BYTES_MAX + 1))), None);
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
