//! A service that sends webhooks: how it signs, and where it names the account.

use std::fmt;
use std::time::Duration;

use secrecy::SecretString;

/// How far the time of a signature may be from now, in both directions.
const TOLERANCE: Duration = Duration::from_secs(300);

/// How a service signs its webhooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SignatureScheme {
    /// The Standard Webhooks specification: `webhook-id`, `webhook-timestamp` and `webhook-signature`.
    StandardWebhooks,
    /// `Stripe-Signature: t=…,v1=…`. The event's id is the field `id` of the body.
    Stripe,
    /// `X-Hub-Signature-256: sha256=…`. The signature covers only the body, so the body's hash is the event's id.
    GitHub,
}

/// Where a webhook names the account, and which secret signs it.
pub enum AccountSource {
    /// The application's path names the account, and each account has a secret of its own in the catalog
    /// (`tenant account link --secret-file`). An account's secret never proves a webhook of another one.
    Path,
    /// One secret signs the webhooks of all accounts, and a field of the signed body names the account, as a JSON pointer: for
    /// instance `/account` or `/installation/id`. Several secrets are valid while one replaces the other.
    SignedField {
        /// The JSON pointer of the field.
        pointer: String,
        /// The secrets.
        secrets: Vec<SecretString>,
    },
}

/// A service that sends webhooks.
pub struct WebhookProvider {
    pub(super) name: String,
    pub(super) scheme: SignatureScheme,
    pub(super) accounts: AccountSource,
    pub(super) tolerance: Duration,
}

impl WebhookProvider {
    /// A service that follows the Standard Webhooks specification. `name` is the provider in `tenant account link`.
    #[must_use]
    pub fn standard(name: impl Into<String>, accounts: AccountSource) -> Self {
        Self::new(name, SignatureScheme::StandardWebhooks, accounts)
    }

    /// A service that signs as Stripe does.
    #[must_use]
    pub fn stripe(name: impl Into<String>, accounts: AccountSource) -> Self {
        Self::new(name, SignatureScheme::Stripe, accounts)
    }

    /// A service that signs as GitHub does. Its signatures have no time, so a webhook that somebody has recorded is refused only
    /// while the event is remembered: 90 days.
    #[must_use]
    pub fn github(name: impl Into<String>, accounts: AccountSource) -> Self {
        Self::new(name, SignatureScheme::GitHub, accounts)
    }

    fn new(name: impl Into<String>, scheme: SignatureScheme, accounts: AccountSource) -> Self {
        Self { name: name.into(), scheme, accounts, tolerance: TOLERANCE }
    }

    /// Sets how far the time of a signature may be from now, in both directions. The default is 5 minutes.
    #[must_use]
    pub fn tolerance(self, tolerance: Duration) -> Self {
        Self { tolerance, ..self }
    }
}

impl fmt::Debug for WebhookProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebhookProvider")
            .field("name", &self.name)
            .field("scheme", &self.scheme)
            .finish_non_exhaustive()
    }
}
