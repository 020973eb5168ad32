//! Webhooks: addresses that get the events of the fleet.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::bounded_number::PageLimit;
use crate::changes::is_false;

/// A webhook: an address that gets events.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[schema(as = Webhook)]
pub struct WebhookView {
    /// Id of the webhook: `whk_…`.
    pub id: String,
    /// Address to which events are sent.
    pub url: String,
    /// Kinds of the events to send. Empty: every kind.
    pub kinds: Vec<String>,
    /// Id of the tenant whose events are sent. Null: the events of the whole fleet.
    pub tenant_id: Option<String>,
    /// Current name of this tenant.
    pub tenant: Option<String>,
    /// Whether plain HTTP and private addresses are allowed.
    pub allow_private: bool,
    /// State of the webhook: enabled, failing (the last attempt failed), paused (nothing is sent).
    pub state: String,
    /// Number of the last event that is dealt with.
    pub sent_seq: i64,
    /// Failed attempts at the next event.
    pub failures: i64,
    /// Time of the next attempt at the event that failed, RFC 3339. Null: nothing waits.
    pub next_attempt_at: Option<String>,
    /// Time of the last delivery, RFC 3339. Null: never.
    pub delivered_at: Option<String>,
    /// Time at which the webhook was added, RFC 3339.
    pub created_at: String,
}

/// A webhook to add.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewWebhook {
    /// Address to which events are sent: `https://…`, without a user or a password. Viewers see it.
    pub url: String,
    /// Kinds of the events to send, for instance `tenant.created`. Empty: every kind.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kinds: Vec<String>,
    /// Name or id of the tenant whose events are sent. Absent: the events of the whole fleet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// True: also allow plain HTTP, and addresses of this machine and of private networks.
    #[serde(default, skip_serializing_if = "is_false")]
    pub allow_private: bool,
    /// True: only describe the change and do nothing.
    #[serde(default, skip_serializing_if = "is_false")]
    pub dry_run: bool,
    /// Reason of the change, for the audit log: one line of at most 1,000 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A new webhook with its secret, which is shown only here.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct WebhookMade {
    /// The webhook.
    pub webhook: WebhookView,
    /// The secret with which a receiver verifies the signatures: `whsec_…`, in the format Standard Webhooks.
    pub secret: String,
}

/// One attempt to send an event to a webhook.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct WebhookDelivery {
    /// Number of the attempt. Later attempts of a webhook have larger numbers.
    pub number: i64,
    /// Number of the event. Null: it was a test.
    pub event_seq: Option<i64>,
    /// Kind of the event.
    pub kind: String,
    /// The header `webhook-id`: the same in every attempt at one event.
    pub message_id: String,
    /// Counts the attempts at this event, from 1.
    pub attempt: i64,
    /// Start of the attempt, RFC 3339.
    pub at: String,
    /// Result of the attempt: delivered, failed (it is tried again, unless it was a test), given_up, gone (the webhook is
    /// paused).
    pub result: String,
    /// HTTP status of the answer. Null: there was none.
    pub status: Option<i64>,
    /// Reason of a failure. Null: delivered.
    pub error: Option<String>,
    /// Duration of the attempt in milliseconds.
    pub duration_ms: i64,
}

/// Page of a list of webhooks, or of the log of one.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct WebhookListQuery {
    /// Maximum number of items per page: 1 to 1000. Default: 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000)]
    pub limit: Option<PageLimit>,
    /// The `next_cursor` of the previous page. Absent: the first page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}
