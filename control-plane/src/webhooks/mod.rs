//! Webhooks: sends the fleet's events to addresses outside the fleet, in the format Standard Webhooks.
//!
//! `target` (pure) says which addresses a webhook may have, `address` (pure) which networks may be reached. `message`
//! (pure) makes and signs the request, `client` sends it once. `retry` (pure) says what an answer means. The background
//! task `background/webhooks.rs` joins them with the catalog. Nothing here reads or writes the catalog, except that
//! `message` looks up the names in an event.

pub mod address;
pub mod client;
pub(crate) mod message;
pub(crate) mod retry;
pub(crate) mod target;
