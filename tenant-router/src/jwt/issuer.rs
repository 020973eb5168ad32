//! The settings of one issuer of tokens, and the proof of a token with them.

use std::time::Duration;

use jsonwebtoken::{AlgorithmFamily, DecodingKey, Validation};
use secrecy::{ExposeSecret as _, SecretString};

use super::claims::{self, UnverifiedToken};
use super::keys::{self, KeySet};
use super::misconfigured;
use crate::error::{Error, ErrorKind, Result};
use crate::principal::Principal;

/// A shorter secret can be guessed from one token.
const SECRET_BYTES_MIN: usize = 32;

/// Clocks of issuers differ from this one by up to this much, when a token begins to be valid.
const NOT_BEFORE_LEEWAY: Duration = Duration::from_secs(30);

/// The kind of signature of an issuer. An issuer has one kind: a token of another kind is refused, so that a public key can
/// never be used as a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SigningAlgorithms {
    /// `RS256` to `RS512` and `PS256` to `PS512`.
    Rsa,
    /// `ES256` and `ES384`.
    Ecdsa,
    /// `EdDSA`.
    Ed25519,
}

impl SigningAlgorithms {
    fn family(self) -> AlgorithmFamily {
        match self {
            Self::Rsa => AlgorithmFamily::Rsa,
            Self::Ecdsa => AlgorithmFamily::Ec,
            Self::Ed25519 => AlgorithmFamily::Ed,
        }
    }
}

/// An identity provider whose tokens are accepted.
#[derive(Debug, Clone)]
pub struct JwtIssuer {
    name: String,
    audience: String,
    keys: KeySource,
    tenant_claim: Option<String>,
    principal_prefix: String,
    keys_age_max: Duration,
}

#[derive(Debug, Clone)]
enum KeySource {
    Jwks(SigningAlgorithms, String),
    PublicKey(SigningAlgorithms, String),
    Secret(SecretString),
}

impl JwtIssuer {
    /// Accepts tokens with the claims `iss` = `name` and `aud` = `audience`, signed with a key of the set at `jwks_url`.
    /// The set is fetched when it is needed, and again after 45 seconds.
    #[must_use]
    pub fn with_jwks(
        name: impl Into<String>,
        audience: impl Into<String>,
        algorithms: SigningAlgorithms,
        jwks_url: impl Into<String>,
    ) -> Self {
        Self::new(name.into(), audience.into(), KeySource::Jwks(algorithms, jwks_url.into()))
    }

    /// Accepts tokens that are signed with one public key, in PEM.
    #[must_use]
    pub fn with_public_key(
        name: impl Into<String>,
        audience: impl Into<String>,
        algorithms: SigningAlgorithms,
        pem: impl Into<String>,
    ) -> Self {
        Self::new(name.into(), audience.into(), KeySource::PublicKey(algorithms, pem.into()))
    }

    /// Accepts tokens that are signed with a shared secret (`HS256` to `HS512`) of at least 32 bytes. A program that
    /// verifies such tokens can also make them.
    #[must_use]
    pub fn with_secret(name: impl Into<String>, audience: impl Into<String>, secret: SecretString) -> Self {
        Self::new(name.into(), audience.into(), KeySource::Secret(secret))
    }

    fn new(name: String, audience: String, keys: KeySource) -> Self {
        let (tenant_claim, principal_prefix) = (None, String::new());
        Self { name, audience, keys, tenant_claim, principal_prefix, keys_age_max: keys::AGE_MAX }
    }

    /// The claim that names the tenant of a request, for instance `org`. It must agree with path and host.
    #[must_use]
    pub fn tenant_claim(self, claim: impl Into<String>) -> Self {
        Self { tenant_claim: Some(claim.into()), ..self }
    }

    /// Put before the claim `sub` to make the name of the member, for instance `google:`. With several issuers, each needs
    /// its own, because two issuers may give the same `sub` to different people.
    #[must_use]
    pub fn principal_prefix(self, prefix: impl Into<String>) -> Self {
        Self { principal_prefix: prefix.into(), ..self }
    }

    /// How long fetched keys are used before they are fetched again, at most 45 seconds.
    #[must_use]
    pub fn keys_age_max(self, age: Duration) -> Self {
        Self { keys_age_max: age.min(keys::AGE_MAX), ..self }
    }

    /// The issuer's name, which is the claim `iss` of its tokens.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether a subject of this issuer and a subject of the other one could make the same name of a member. A
    /// [`JwtVerifier`](super::JwtVerifier) refuses two such issuers.
    #[must_use]
    pub fn may_share_members(&self, other: &Self) -> bool {
        let (own, other) = (&self.principal_prefix, &other.principal_prefix);
        own.starts_with(other.as_str()) || other.starts_with(own.as_str())
    }

    /// Refuses settings that would accept tokens of strangers.
    pub(super) fn check(self) -> Result<CheckedIssuer> {
        if self.name.is_empty() || self.audience.is_empty() {
            return Err(misconfigured("an issuer of tokens needs a name (iss) and an audience (aud)"));
        }
        let (family, keys) = self.key_set()?;
        let mut validation = Validation::new_for_family(family);
        validation.set_issuer(&[&self.name]);
        validation.set_audience(&[&self.audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.validate_nbf = true;
        validation.leeway = NOT_BEFORE_LEEWAY.as_secs();
        Ok(CheckedIssuer { settings: self, keys, validation })
    }

    fn key_set(&self) -> Result<(AlgorithmFamily, KeySet)> {
        match &self.keys {
            KeySource::Jwks(algorithms, url) => {
                Ok((algorithms.family(), KeySet::fetched_from(url, algorithms.family(), self.keys_age_max)?))
            }
            KeySource::PublicKey(algorithms, pem) => {
                let key = read_pem(*algorithms, pem).map_err(|error| {
                    misconfigured(format!("the public key of {} cannot be read: {error}", self.name))
                })?;
                Ok((algorithms.family(), KeySet::of_one(key)))
            }
            KeySource::Secret(secret) if secret.expose_secret().len() < SECRET_BYTES_MIN => {
                let text = format!("the secret of {} has less than {SECRET_BYTES_MIN} bytes", self.name);
                Err(misconfigured(text))
            }
            KeySource::Secret(secret) => {
                let key = DecodingKey::from_secret(secret.expose_secret().as_bytes());
                let key = key.map_err(|error| misconfigured(format!("the secret of {}: {error}", self.name)))?;
                Ok((AlgorithmFamily::Hmac, KeySet::of_one(key)))
            }
        }
    }
}

fn read_pem(algorithms: SigningAlgorithms, pem: &str) -> jsonwebtoken::errors::Result<DecodingKey> {
    match algorithms {
        SigningAlgorithms::Rsa => DecodingKey::from_rsa_pem(pem.as_bytes()),
        SigningAlgorithms::Ecdsa => DecodingKey::from_ec_pem(pem.as_bytes()),
        SigningAlgorithms::Ed25519 => DecodingKey::from_ed_pem(pem.as_bytes()),
    }
}

/// An issuer whose settings are safe.
#[derive(Debug)]
pub(super) struct CheckedIssuer {
    settings: JwtIssuer,
    keys: KeySet,
    validation: Validation,
}

impl CheckedIssuer {
    pub(super) fn name(&self) -> &str {
        &self.settings.name
    }

    /// See [`JwtIssuer::may_share_members`].
    pub(super) fn may_share_members(&self, other: &Self) -> bool {
        self.settings.may_share_members(&other.settings)
    }

    /// The principal that the token proves; `None` when it proves none.
    ///
    /// # Errors
    /// [`ErrorKind::KeysUnavailable`] when the keys cannot be fetched.
    pub(super) async fn prove_token(&self, token: &str, unverified: &UnverifiedToken) -> Result<Option<Principal>> {
        // Before a key is looked up, so that a token of another kind causes no fetch.
        if !self.validation.algorithms.contains(&unverified.algorithm) {
            return Ok(None);
        }
        let key = self.keys.key_of(unverified.key_id.as_deref(), unverified.algorithm).await.map_err(|error| {
            let text = format!("the keys of {} cannot be fetched: {error}", self.settings.name);
            Error::new(ErrorKind::KeysUnavailable).with_source(text)
        })?;
        let Some(key) = key else { return Ok(None) };
        let proven = claims::verify_token(token, &key, &self.validation, self.settings.tenant_claim.as_deref());
        Ok(proven.map(|claims| {
            let name = format!("{}{}", self.settings.principal_prefix, claims.subject);
            Principal::member(name).expiring_at(claims.expires_at).naming_tenant(claims.tenant)
        }))
    }
}
