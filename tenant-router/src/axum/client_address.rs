//! The address of the client, also behind proxies.
//!
//! A proxy adds the address of its own client to the end of `X-Forwarded-For`. A client can send this header itself, with any
//! content. So the header is read from its end, and only as far as the addresses belong to trusted proxies.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr as _;
use std::sync::Arc;

use ::axum::extract::{ConnectInfo, Request, State};
use ::axum::middleware::Next;
use ::axum::response::Response;
use http::{HeaderMap, HeaderName};
use ipnet::IpNet;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The networks of the proxies before this application.
///
/// ```
/// use std::net::SocketAddr;
/// use tenant_router::axum::{TrustedProxies, answers, client_address};
///
/// # async fn serve(application: axum::Router, listener: tokio::net::TcpListener) -> Result<(), Box<dyn std::error::Error>> {
/// let proxies = TrustedProxies::new(["10.0.0.0/8", "127.0.0.1"])?;
/// let application = application
///     .layer(axum::middleware::from_fn(answers))
///     .layer(axum::middleware::from_fn_with_state(proxies, client_address));
/// axum::serve(listener, application.into_make_service_with_connect_info::<SocketAddr>()).await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Default)]
pub struct TrustedProxies(Arc<[IpNet]>);

/// A text that is neither an address nor a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyInvalid(String);

impl std::fmt::Display for ProxyInvalid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} is neither an IP address nor a network such as 10.0.0.0/8", self.0)
    }
}

impl std::error::Error for ProxyInvalid {}

/// The address of the client, in the extensions of a request that passed [`client_address`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClientAddress(pub IpAddr);

impl TrustedProxies {
    /// The proxies with these addresses or in these networks. Trust no network in which clients are.
    ///
    /// # Errors
    /// When a text is neither an address nor a network.
    pub fn new<'a>(networks: impl IntoIterator<Item = &'a str>) -> Result<Self, ProxyInvalid> {
        let parse = |text: &'a str| {
            let network = IpNet::from_str(text).or_else(|_| IpAddr::from_str(text).map(IpNet::from));
            network.map_err(|_| ProxyInvalid(text.to_owned()))
        };
        networks.into_iter().map(parse).collect::<Result<Vec<_>, _>>().map(|networks| Self(networks.into()))
    }

    fn is_trusted(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }

    /// The client of a request that came from `peer` with these headers.
    fn client_of(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.to_canonical();
        let lists = headers.get_all(FORWARDED_FOR).iter().rev();
        for text in lists.flat_map(|list| list.as_bytes().rsplit(|byte| *byte == b',')) {
            if !self.is_trusted(client) {
                break;
            }
            // Text that is not an address was written by the client: the proxy behind it is the last known one.
            let Some(before) = std::str::from_utf8(text).ok().and_then(parse_address) else { break };
            client = before;
        }
        client
    }
}

/// An address, with or without a port.
fn parse_address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let address = text.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|socket| socket.ip()));
    address.map(|address: IpAddr| address.to_canonical())
}

/// A middleware that finds the client's address, and puts it into the extensions of the request as [`ClientAddress`]. The
/// layer [`answers`](super::answers) inside it adds the address to the log. The server must give the address of the
/// connection (`into_make_service_with_connect_info`); without it the request gets no [`ClientAddress`].
pub async fn client_address(State(proxies): State<TrustedProxies>, mut request: Request, next: Next) -> Response {
    if let Some(ConnectInfo(peer)) = request.extensions().get::<ConnectInfo<SocketAddr>>() {
        let client = proxies.client_of(peer.ip(), request.headers());
        request.extensions_mut().insert(ClientAddress(client));
    }
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn client(peer: &str, lists: &[&str]) -> String {
        let proxies = TrustedProxies::new(["10.0.0.0/8", "127.0.0.1", "fd00::/8"]).unwrap();
        let mut headers = HeaderMap::new();
        for list in lists {
            headers.append(FORWARDED_FOR, HeaderValue::from_str(list).unwrap());
        }
        proxies.client_of(peer.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn only_a_trusted_proxy_names_another_address() {
        for (peer, lists, expected) in [
            ("203.0.113.9", &[][..], "203.0.113.9"),
            ("203.0.113.9", &["198.51.100.1"], "203.0.113.9"),
            ("10.1.1.1", &["198.51.100.1"], "198.51.100.1"),
            ("10.1.1.1", &["1.1.1.1, 198.51.100.1"], "198.51.100.1"),
            ("10.1.1.1", &["1.1.1.1", "198.51.100.1, 10.2.2.2"], "198.51.100.1"),
            ("127.0.0.1", &["198.51.100.1,10.2.2.2 , fd00::1"], "198.51.100.1"),
            ("10.1.1.1", &[], "10.1.1.1"),
            ("10.1.1.1", &[""], "10.1.1.1"),
            ("10.1.1.1", &["localhost"], "10.1.1.1"),
            ("10.1.1.1", &["1.1.1.1, unknown, 10.2.2.2"], "10.2.2.2"),
            ("10.1.1.1", &["10.3.3.3, 10.2.2.2"], "10.3.3.3"),
            ("10.1.1.1", &["198.51.100.1:4711"], "198.51.100.1"),
            ("10.1.1.1", &["[2001:db8::7]:443"], "2001:db8::7"),
            ("::ffff:10.1.1.1", &["::ffff:198.51.100.1"], "198.51.100.1"),
        ] {
            assert_eq!(client(peer, lists), expected, "{peer} {lists:?}");
        }
    }

    #[test]
    fn a_wrong_network_is_refused() {
        for wrong in ["", "10.0.0.0/33", "localhost", "10.0.0", "*"] {
            assert_eq!(TrustedProxies::new([wrong]).unwrap_err(), ProxyInvalid(wrong.to_owned()));
        }
    }
}
