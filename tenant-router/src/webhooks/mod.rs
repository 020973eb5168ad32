//! Webhooks that other services send: proven by their signature, for the tenant that is linked to their account, and each event
//! once.
//!
//! The order is fixed. The signature over the raw body is checked first, so nothing reads a body that was not signed. The tenant
//! then comes from the catalog's `external_accounts`. The event's id is recorded in the tenant's own database, in the
//! transaction that the event changes (`_fleet_received`).

mod provider;
mod receive;
mod signature;

pub use provider::{AccountSource, WebhookProvider};
pub use receive::{ReceivedWebhook, WebhookHeaders};
