//! The public keys of one issuer: one fixed key, or a key set (JWKS) that is fetched when it is needed.
//!
//! A set is fetched again when it is old, and when a token names a key that it does not have. Both happen at most once per
//! pause, however many requests ask. While the issuer does not answer, the last keys are used for some minutes.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use jsonwebtoken::jwk::{Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use reqwest::{Client, Url, redirect};
use tokio::sync::Mutex;

use super::misconfigured;
use crate::error::Result;

/// How long fetched keys are used. With the time that a proved caller is cached, a removed key is refused within a minute.
pub(super) const AGE_MAX: Duration = Duration::from_secs(45);
/// How long keys are used while the issuer does not answer.
const STALE_MAX: Duration = Duration::from_secs(600);
/// Between two fetches.
const FETCH_PAUSE: Duration = Duration::from_secs(10);
/// How long a fetch may take.
const FETCH_MAX: Duration = Duration::from_secs(5);
/// Maximum size of a key set. Real ones have a few kilobytes.
const SET_BYTES_MAX: usize = 1 << 20;
/// Maximum number of keys of a set.
const KEYS_MAX: usize = 100;

/// Why a key set could not be fetched.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub(super) struct FetchError(String);

/// The keys of an issuer.
#[derive(Debug)]
pub(super) enum KeySet {
    /// One key for every token.
    One(Arc<DecodingKey>),
    /// A key set at an address.
    Fetched(Box<FetchedKeys>),
}

#[derive(Debug)]
pub(super) struct FetchedKeys {
    client: Client,
    url: Url,
    family: AlgorithmFamily,
    age_max: Duration,
    state: RwLock<KeysState>,
    /// Held while the set is fetched: all requests wait for one fetch.
    fetching: Mutex<()>,
}

#[derive(Debug, Default, Clone)]
struct KeysState {
    keys: Arc<Vec<PublicKey>>,
    fetched_at: Option<Instant>,
    attempted_at: Option<Instant>,
}

struct PublicKey {
    id: Option<String>,
    /// `None`: every algorithm of the family.
    algorithm: Option<String>,
    key: Arc<DecodingKey>,
}

impl std::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PublicKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// What to do for a request, given the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeyDecision {
    /// Use the keys as they are.
    Use,
    /// Fetch them first.
    Fetch,
    /// They are too old, and it is too early to ask again.
    Unavailable,
}

impl KeySet {
    pub(super) fn of_one(key: DecodingKey) -> Self {
        Self::One(Arc::new(key))
    }

    /// # Errors
    /// [`ErrorKind::Misconfigured`](crate::ErrorKind::Misconfigured) when the address is not one of HTTPS. Plain HTTP is
    /// accepted on this machine only: somebody on the way could replace the keys.
    pub(super) fn fetched_from(url: &str, family: AlgorithmFamily, age_max: Duration) -> Result<Self> {
        let address = Url::parse(url).map_err(|error| misconfigured(format!("the address of keys {url}: {error}")))?;
        if !address.username().is_empty() || address.password().is_some() {
            return Err(misconfigured("the address of keys must not have a user or a password"));
        }
        if address.scheme() != "https" && !is_this_machine(&address) {
            return Err(misconfigured(format!("the address of keys {url} must begin with https://")));
        }
        let client = Client::builder().timeout(FETCH_MAX).redirect(redirect::Policy::none()).build();
        let client = client.map_err(|error| misconfigured(format!("no HTTP client for {url}: {error}")))?;
        let (state, fetching) = (RwLock::default(), Mutex::default());
        Ok(Self::Fetched(Box::new(FetchedKeys { client, url: address, family, age_max, state, fetching })))
    }

    /// The key for a token with this key id. `None`: the issuer has no such key.
    pub(super) async fn key_of(
        &self,
        id: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<Option<Arc<DecodingKey>>, FetchError> {
        match self {
            Self::One(key) => Ok(Some(Arc::clone(key))),
            Self::Fetched(keys) => keys.key_of(id, algorithm).await,
        }
    }
}

impl FetchedKeys {
    async fn key_of(&self, id: Option<&str>, algorithm: Algorithm) -> Result<Option<Arc<DecodingKey>>, FetchError> {
        let state = self.current_state();
        let found = state.find_key(id, algorithm);
        match state.decide(found.is_some(), Instant::now(), self.age_max) {
            KeyDecision::Use => Ok(found),
            KeyDecision::Unavailable => Err(FetchError("the issuer does not answer".to_owned())),
            KeyDecision::Fetch => {
                self.fetch_once(state.attempted_at).await?;
                Ok(self.current_state().find_key(id, algorithm))
            }
        }
    }

    fn current_state(&self) -> KeysState {
        self.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Fetches the set, unless another request has done so since `seen`. A failure counts only if the keys are too old.
    async fn fetch_once(&self, seen: Option<Instant>) -> Result<(), FetchError> {
        let _turn = self.fetching.lock().await;
        if self.current_state().attempted_at != seen {
            return self.current_state().require_usable(Instant::now());
        }
        let fetched = self.fetch_keys().await;
        let now = Instant::now();
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.attempted_at = Some(now);
        match fetched {
            Ok(keys) => {
                *state = KeysState { keys: Arc::new(keys), fetched_at: Some(now), attempted_at: Some(now) };
                Ok(())
            }
            Err(error) => {
                tracing::warn!(url = %self.url, %error, "the keys of an issuer of tokens cannot be fetched");
                state.require_usable(now).map_err(|_| error)
            }
        }
    }

    async fn fetch_keys(&self) -> Result<Vec<PublicKey>, FetchError> {
        let failed = |error: reqwest::Error| FetchError(error.without_url().to_string());
        let mut answer = self.client.get(self.url.clone()).send().await.map_err(failed)?;
        if answer.status() != reqwest::StatusCode::OK {
            return Err(FetchError(format!("the answer has the status {}", answer.status())));
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > SET_BYTES_MAX {
                return Err(FetchError(format!("the key set has more than {SET_BYTES_MAX} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        let set: JwkSet = serde_json::from_slice(&body)
            .map_err(|error| FetchError(format!("the answer is not a key set: {error}")))?;
        let keys: Vec<_> = set.keys.iter().filter_map(|jwk| public_key(jwk, self.family)).take(KEYS_MAX).collect();
        match keys.is_empty() {
            true => Err(FetchError("the key set has no key for the algorithms of this issuer".to_owned())),
            false => Ok(keys),
        }
    }
}

impl KeysState {
    /// The key with this id. A token without an id needs a set of one key.
    fn find_key(&self, id: Option<&str>, algorithm: Algorithm) -> Option<Arc<DecodingKey>> {
        let fits = |key: &&PublicKey| key.algorithm.as_ref().is_none_or(|only| *only == format!("{algorithm:?}"));
        let found = match (id, self.keys.as_slice()) {
            (Some(id), keys) => keys.iter().find(|key| key.id.as_deref() == Some(id)),
            (None, [only]) => Some(only),
            (None, _) => None,
        };
        found.filter(fits).map(|key| Arc::clone(&key.key))
    }

    /// PURE: whether the keys can be used for a request.
    fn decide(&self, has_key: bool, now: Instant, age_max: Duration) -> KeyDecision {
        let age = self.fetched_at.map(|at| now.saturating_duration_since(at));
        let may_fetch =
            self.attempted_at.is_none_or(|at| now.saturating_duration_since(at) >= FETCH_PAUSE.min(age_max));
        match age {
            Some(age) if age < age_max && (has_key || !may_fetch) => KeyDecision::Use,
            _ if may_fetch => KeyDecision::Fetch,
            Some(age) if age < STALE_MAX => KeyDecision::Use,
            _ => KeyDecision::Unavailable,
        }
    }

    fn require_usable(&self, now: Instant) -> Result<(), FetchError> {
        match self.fetched_at {
            Some(at) if now.saturating_duration_since(at) < STALE_MAX => Ok(()),
            _ => Err(FetchError("the issuer does not answer".to_owned())),
        }
    }
}

/// A key of the set that can verify tokens of this family.
fn public_key(jwk: &Jwk, family: AlgorithmFamily) -> Option<PublicKey> {
    if matches!(jwk.common.public_key_use, Some(PublicKeyUse::Encryption)) {
        return None;
    }
    let key = DecodingKey::from_jwk(jwk).ok().filter(|key| key.family() == family)?;
    let algorithm = jwk.common.key_algorithm.as_ref().map(ToString::to_string);
    Some(PublicKey { id: jwk.common.key_id.clone(), algorithm, key: Arc::new(key) })
}

fn is_this_machine(url: &Url) -> bool {
    let address = url.host_str().and_then(|host| host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().ok());
    url.scheme() == "http" && address.is_some_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(fetched: Option<u64>, attempted: Option<u64>, start: Instant) -> KeysState {
        let at = |seconds: Option<u64>| seconds.map(|seconds| start + Duration::from_secs(seconds));
        KeysState { keys: Arc::default(), fetched_at: at(fetched), attempted_at: at(attempted) }
    }

    #[test]
    fn keys_are_fetched_when_they_are_old_or_missing_and_not_more_often() {
        use KeyDecision::{Fetch, Unavailable, Use};
        let start = Instant::now();
        let cases = [
            // fetched, attempted, has the key, now, decision
            (None, None, false, 0, Fetch),
            (Some(0), Some(0), true, 44, Use),
            (Some(0), Some(0), true, 45, Fetch),
            // An unknown key: one fetch per pause, and otherwise the keys are right.
            (Some(0), Some(0), false, 9, Use),
            (Some(0), Some(0), false, 10, Fetch),
            // The issuer does not answer.
            (Some(0), Some(50), true, 55, Use),
            (Some(0), Some(50), true, 60, Fetch),
            (Some(0), Some(595), true, 604, Unavailable),
            (None, Some(0), false, 9, Unavailable),
        ];
        for (fetched, attempted, has_key, now, decision) in cases {
            let decided = state(fetched, attempted, start).decide(has_key, start + Duration::from_secs(now), AGE_MAX);
            assert_eq!(decided, decision, "{fetched:?} {attempted:?} {has_key} {now}");
        }
    }

    #[test]
    fn keys_come_over_https_or_from_this_machine() {
        let make = |url| KeySet::fetched_from(url, AlgorithmFamily::Rsa, AGE_MAX).map(drop).map_err(|e| e.to_string());
        for good in ["https://id.example/keys", "http://127.0.0.1:8000/keys", "http://[::1]/keys"] {
            assert_eq!(make(good), Ok(()), "{good}");
        }
        for bad in
            ["http://id.example/keys", "http://localhost.id.example/", "file:///keys", "keys", "ftp://127.0.0.1/"]
        {
            assert!(make(bad).is_err(), "{bad}");
        }
        let with_password = make("https://user:secret@id.example/keys").unwrap_err();
        assert!(with_password.contains("password") && !with_password.contains("secret"), "{with_password}");
    }
}
