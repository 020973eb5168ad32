//! Changes that are sent when they are awaited, each with an idempotency key.

use std::future::IntoFuture;
use std::marker::PhantomData;

use fleet_api::tokens::{TokenMade, TokenView};
use futures_util::future::BoxFuture;
use secrecy::SecretString;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::client::FleetClient;
use crate::error::Result;
use crate::request::ApiRequest;

/// A change that has not been sent. `.await` sends it and returns the answer `A`.
///
/// It has an idempotency key of its own, so that a lost connection does not make the change twice. A caller that may be
/// interrupted chooses the key and stores it first.
#[derive(Debug)]
#[must_use = "a change is sent when it is awaited"]
pub struct PendingChange<'a, A> {
    client: &'a FleetClient,
    request: Result<ApiRequest>,
    answer: PhantomData<fn() -> A>,
}

impl<'a, A> PendingChange<'a, A> {
    pub(crate) fn new(client: &'a FleetClient, request: Result<ApiRequest>) -> Self {
        Self { client, request, answer: PhantomData }
    }

    /// Uses the caller's key: 1 to 255 printable ASCII characters. For 24 hours, the same change with the same key
    /// returns the first answer and changes nothing. Another change with this key is refused (`idempotency_key_reused`).
    ///
    /// A key counts for one token of the admin API. Another token with the same key makes the change again.
    pub fn idempotency_key(self, key: &str) -> Self {
        Self { request: self.request.and_then(|request| request.with_key(key)), ..self }
    }
}

impl<'a, A: DeserializeOwned + 'a> IntoFuture for PendingChange<'a, A> {
    type Output = Result<A>;
    type IntoFuture = BoxFuture<'a, Result<A>>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { client, request, .. } = self;
        Box::pin(async move { client.send(&request?).await })
    }
}

/// A new token and its secret.
#[derive(Debug, Clone, Deserialize)]
#[serde(from = "TokenMade")]
pub struct MintedToken {
    /// The token without its secret.
    pub token: TokenView,
    /// The secret, which the API never shows again. `Debug` hides it.
    pub secret: SecretString,
}

impl From<TokenMade> for MintedToken {
    fn from(made: TokenMade) -> Self {
        Self { token: made.token, secret: made.secret.into() }
    }
}
