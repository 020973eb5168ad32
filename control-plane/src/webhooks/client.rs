//! Sends one message to one webhook, once. The only module here that knows the HTTP library.
//!
//! The host of the address is looked up once per attempt. Every address that the DNS names is checked, and the connection
//! is made to one of these addresses. So a name that leads elsewhere a moment later gains nothing. Redirects are not
//! followed, no proxy is used, and the body of an answer is not read.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Client, header, redirect};

use super::address::is_allowed_address;
use super::message::{WebhookMessage, sign_message};
use super::target::{parse_target, refused_address};
use crate::domains::lookup::AddressLookup;

/// How long an attempt may take in all: shorter than a webhook's lease.
const ATTEMPT_MAX: Duration = Duration::from_secs(20);
/// How long it may take until there is a connection, with the look-up.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// What the receiver sees as the sender.
const USER_AGENT: &str = concat!("fleetctl/", env!("CARGO_PKG_VERSION"), " webhooks");

/// Where and how one message is sent.
#[derive(Debug)]
pub(crate) struct WebhookRequest<'a> {
    /// The address of the webhook.
    pub(crate) url: &'a str,
    /// Whether plain HTTP and private addresses are allowed.
    pub(crate) private_allowed: bool,
    /// The key of the signature.
    pub(crate) key: &'a [u8],
    /// The message.
    pub(crate) message: &'a WebhookMessage,
    /// The time of the attempt, milliseconds since 1970.
    pub(crate) now: i64,
}

/// The receiver's answer to one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WebhookAnswer {
    /// The HTTP status; `None`: there was no answer.
    pub(crate) status: Option<u16>,
    /// Why the attempt failed, for people; `None`: the message was accepted.
    pub(crate) error: Option<String>,
    /// The header `Retry-After`, as the receiver wrote it.
    pub(crate) retry_after: Option<String>,
    /// How long it took, milliseconds.
    pub(crate) duration_ms: i64,
}

/// Sends messages to webhooks.
#[derive(Debug)]
pub struct WebhookClient {
    lookup: Arc<dyn AddressLookup>,
    attempt_max: Duration,
    /// Built at the first use, because it reads the system's certificates. The second one reaches private addresses.
    clients: [OnceLock<Result<Client, String>>; 2],
}

impl WebhookClient {
    /// A client that finds hosts with this look-up.
    #[must_use]
    pub fn new(lookup: Arc<dyn AddressLookup>) -> Self {
        Self { lookup, attempt_max: ATTEMPT_MAX, clients: [OnceLock::new(), OnceLock::new()] }
    }

    /// The same client, with attempts of at most this length.
    #[must_use]
    pub fn attempt_max(self, attempt_max: Duration) -> Self {
        Self { attempt_max, ..self }
    }

    /// Sends a message once. A status other than 200 to 299 is an error, also a redirect.
    pub(crate) async fn send_message(&self, request: WebhookRequest<'_>) -> WebhookAnswer {
        let begin = Instant::now();
        let sent = tokio::time::timeout(self.attempt_max, self.send_unlimited(request)).await;
        let (status, retry_after, error) = match sent {
            Ok(Ok((status, retry_after))) => (Some(status), retry_after, status_error(status)),
            Ok(Err(error)) => (None, None, Some(error)),
            Err(_) => (None, None, Some(format!("no answer within {} s", self.attempt_max.as_secs_f32()))),
        };
        let duration_ms = i64::try_from(begin.elapsed().as_millis()).unwrap_or(i64::MAX);
        WebhookAnswer { status, error, retry_after, duration_ms }
    }

    /// The status of the answer, and its header `Retry-After`.
    async fn send_unlimited(&self, request: WebhookRequest<'_>) -> Result<(u16, Option<String>), String> {
        // Checked again, because an address that holds no name is never looked up.
        let url = parse_target(request.url, request.private_allowed)?;
        let seconds = request.now.div_euclid(1_000);
        let answer = self
            .client(request.private_allowed)?
            .post(url)
            .header(header::CONTENT_TYPE, "application/json")
            .header("webhook-id", &request.message.id)
            .header("webhook-timestamp", seconds)
            .header("webhook-signature", sign_message(request.key, request.message, seconds))
            .body(request.message.body.clone())
            .send()
            .await
            .map_err(|error| last_cause(&error))?;
        // The body may be endless, and a stranger's text is not for the log. The connection ends with it.
        let retry_after = answer.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
        Ok((answer.status().as_u16(), retry_after.map(str::to_owned)))
    }

    fn client(&self, private_allowed: bool) -> Result<&Client, String> {
        let slot = &self.clients[usize::from(private_allowed)];
        let client = slot.get_or_init(|| self.build_client(private_allowed).map_err(|error| last_cause(&error)));
        client.as_ref().map_err(Clone::clone)
    }

    fn build_client(&self, private_allowed: bool) -> reqwest::Result<Client> {
        Client::builder()
            .dns_resolver(Arc::new(CheckedResolver { lookup: Arc::clone(&self.lookup), private_allowed }))
            .redirect(redirect::Policy::none())
            .no_proxy()
            .referer(false)
            .connect_timeout(CONNECT_MAX)
            // A kept connection would skip the look-up of the next attempt.
            .pool_max_idle_per_host(0)
            .user_agent(USER_AGENT)
            .build()
    }
}

/// Why a status is a failure, for people.
fn status_error(status: u16) -> Option<String> {
    match status {
        200..=299 => None,
        300..=399 => Some(format!("the receiver answered with {status}; redirects are not followed")),
        _ => Some(format!("the receiver answered with {status}")),
    }
}

/// Looks up a host, and passes on its addresses only if all of them are allowed.
#[derive(Debug)]
struct CheckedResolver {
    lookup: Arc<dyn AddressLookup>,
    private_allowed: bool,
}

impl Resolve for CheckedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (lookup, private_allowed) = (Arc::clone(&self.lookup), self.private_allowed);
        Box::pin(async move {
            let found = allowed_addresses(lookup.as_ref(), name.as_str(), private_allowed).await?;
            let addresses: Addrs = Box::new(found.into_iter());
            Ok(addresses)
        })
    }
}

/// The addresses of a host, with port 0, which stands for the URL's own.
async fn allowed_addresses(
    lookup: &dyn AddressLookup,
    host: &str,
    private_allowed: bool,
) -> Result<Vec<SocketAddr>, String> {
    let found = lookup.lookup_addresses(host).await.map_err(|failure| format!("{host}: {}", failure.0))?;
    // One refused address is enough: a mixed answer is an attack or a mistake.
    if let Some(refused) = found.iter().find(|address| !is_allowed_address(**address, private_allowed)) {
        return Err(format!("{host}: {}", refused_address(*refused)));
    }
    match found.is_empty() {
        true => Err(format!("{host}: the DNS has no address for this host")),
        false => Ok(found.into_iter().map(|address| SocketAddr::new(address, 0)).collect()),
    }
}

/// The innermost cause of an error. The outer ones contain the address.
fn last_cause(error: &reqwest::Error) -> String {
    let causes = std::iter::successors(std::error::Error::source(error), |error| error.source());
    match causes.last() {
        Some(_) if error.is_timeout() && error.is_connect() => "no connection in time".to_owned(),
        Some(cause) => cause.to_string(),
        None => "the request failed".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::net::IpAddr;
    use std::sync::Mutex;

    use async_trait::async_trait;

    use super::*;
    use crate::domains::lookup::LookupFailure;

    /// A DNS server that answers each time with the next list.
    #[derive(Debug)]
    struct ChangingLookup(Mutex<VecDeque<Vec<IpAddr>>>);

    impl ChangingLookup {
        fn new(answers: &[&[&str]]) -> Self {
            let parsed = |answer: &&[&str]| answer.iter().map(|text| text.parse().unwrap()).collect();
            Self(Mutex::new(answers.iter().map(parsed).collect()))
        }
    }

    #[async_trait]
    impl AddressLookup for ChangingLookup {
        async fn lookup_addresses(&self, _: &str) -> Result<Vec<IpAddr>, LookupFailure> {
            self.0.lock().unwrap().pop_front().ok_or_else(|| LookupFailure("it was asked too often".to_owned()))
        }
    }

    #[tokio::test]
    async fn a_host_that_changes_its_mind_is_refused() {
        let lookup = ChangingLookup::new(&[&["8.8.8.8", "2606:4700::1111"], &["10.0.0.1"], &["8.8.8.8", "127.0.0.1"]]);
        let found = allowed_addresses(&lookup, "receiver.example", false).await.unwrap();
        assert_eq!(found, ["8.8.8.8:0".parse().unwrap(), "[2606:4700::1111]:0".parse().unwrap()]);
        for address in ["10.0.0.1", "127.0.0.1"] {
            let refused = allowed_addresses(&lookup, "receiver.example", false).await.unwrap_err();
            assert!(refused.contains(address), "{refused}");
        }
        let empty = ChangingLookup::new(&[&[]]);
        assert!(allowed_addresses(&empty, "receiver.example", true).await.unwrap_err().contains("no address"));
    }

    #[tokio::test]
    async fn a_refused_host_gets_no_connection() {
        let addresses: &[&[&str]] = &[&["127.0.0.1"], &["::ffff:127.0.0.1"], &["169.254.169.254"]];
        let client = WebhookClient::new(Arc::new(ChangingLookup::new(addresses)));
        let message = super::super::message::test_message(catalog::WebhookId::generate(), 0);
        for private_allowed in [false, true, true] {
            let request = WebhookRequest {
                url: "https://receiver.example/",
                private_allowed,
                key: &[1; 32],
                message: &message,
                now: 0,
            };
            let answer = client.send_message(request).await;
            assert!(answer.error.unwrap().contains("is not public"));
            assert_eq!(answer.status, None);
        }
    }
}
