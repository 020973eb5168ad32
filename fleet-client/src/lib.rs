//! A client of the admin API for applications. `fleetctl` sends its commands through the same transport.
//!
//! A method of [`FleetClient`] makes an [`ApiRequest`]. The [`HttpTransport`] sends it, and repeats it when the connection
//! fails and the request may be repeated. The [`ApiAnswer`] becomes a type of `fleet-api`, or an [`Error`] with the code
//! of the API's problem. [`FleetClient::sign_up`] is the sequence of such calls that a new customer needs.
//!
//! The crate starts no task, reads no environment and prints nothing. It does not know databases.

mod answer;
mod change;
mod client;
mod error;
mod request;
mod sign_up;
mod transport;
mod wait;

pub use answer::{AnswerLines, ApiAnswer};
pub use change::{MintedToken, PendingChange};
pub use client::{FleetClient, FleetClientBuilder};
pub use error::{Error, ErrorKind, Result};
pub use fleet_api;
pub use request::{ACCEPTED_TYPES, ApiRequest, HttpVerb, path_segment};
pub use sign_up::{SIGN_UP_LABEL, SIGNED_UP_LABEL, SignUp, SignedUp};
pub use transport::HttpTransport;

/// Compiles the guide in the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeGuide;
