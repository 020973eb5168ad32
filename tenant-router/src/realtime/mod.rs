//! Realtime: topics of a tenant, and the subscriptions of its members.
//!
//! ```text
//! Tenant ─▶ TenantTopic ─▶ publish ─▶ publisher ─▶ the catalog's messages
//!                                                       │ read by number, in every process with subscriptions
//!                      ─▶ subscribe ─▶ Subscription ◀── hub ◀── reader
//!                                                       ▲
//!                                                     guard: is the caller still a member? is the tenant still served?
//! ```
//! A topic is made only from a [`Tenant`](crate::Tenant), and its key has the tenant's id. So no text of a request leads to a
//! topic of another tenant. All messages go through the catalog, also those of this process. So every subscriber gets them in
//! one order, and once. A message is queued only after the reader has applied every change of the catalog up to then.
//!
//! A subscription holds no pool: a tenant moves, and its subscriptions go on. This module knows no HTTP;
//! `axum/realtime.rs` does.

mod guard;
mod hub;
mod limits;
mod publisher;
mod reader;
mod subscriber;
mod subscription;
mod topic;

pub(crate) use hub::SubscriptionHub;
pub use limits::RealtimeLimits;
pub(crate) use publisher::OUTBOX_MAX;
pub(crate) use reader::serve_topics;
pub use subscriber::{SubscriptionEnd, SubscriptionEvent, TopicMessage};
pub use subscription::{Subscription, SubscriptionRequest};
pub use topic::TenantTopic;
