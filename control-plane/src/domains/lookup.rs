//! Looks up TXT records and addresses of hosts. The only module that uses the DNS.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use async_trait::async_trait;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::{Resolver, ResolverBuilder, TokioResolver};

/// How long a server may take for one answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// How often a server is asked.
const ATTEMPTS: usize = 2;
/// How long a look-up may take in all. A request waits for it.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(8);

/// Why a look-up has no answer, for people: no server answered, or it could not say whether the record exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LookupFailure(pub String);

/// Looks up TXT records.
#[async_trait]
pub trait TxtLookup: Send + Sync + std::fmt::Debug {
    /// The values of all TXT records of a name; none if the DNS says that there are none.
    ///
    /// # Errors
    /// A failure when the DNS does not say whether there are any.
    async fn lookup_txt(&self, name: &str) -> Result<Vec<String>, LookupFailure>;
}

/// Looks up the addresses of hosts.
#[async_trait]
pub trait AddressLookup: Send + Sync + std::fmt::Debug {
    /// All addresses of a host; none if the DNS says that there are none.
    ///
    /// # Errors
    /// A failure when the DNS does not say whether there are any.
    async fn lookup_addresses(&self, host: &str) -> Result<Vec<IpAddr>, LookupFailure>;
}

/// The DNS as this machine is configured to use it, or one named server.
#[derive(Debug, Clone, Default)]
pub struct DnsLookup {
    server: Option<SocketAddr>,
}

impl DnsLookup {
    /// Asks this server; `None`: the servers of `/etc/resolv.conf`.
    #[must_use]
    pub fn new(server: Option<SocketAddr>) -> Self {
        Self { server }
    }

    /// A resolver without a cache, so that a record that was just set is found. It is built for each look-up, so that a
    /// change of `/etc/resolv.conf` counts at once.
    fn build_resolver(&self) -> Result<TokioResolver, NetError> {
        let mut builder = match self.server {
            Some(server) => server_resolver(server),
            None => Resolver::builder_tokio()?,
        };
        let options = builder.options_mut();
        options.cache_size = 0;
        options.timeout = ANSWER_TIMEOUT;
        options.attempts = ATTEMPTS;
        builder.build()
    }
}

fn server_resolver(server: SocketAddr) -> ResolverBuilder<TokioRuntimeProvider> {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = server.port();
        connection
    });
    let server = NameServerConfig::new(server.ip(), true, connections.to_vec());
    let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
    Resolver::builder_with_config(config, TokioRuntimeProvider::default())
}

#[async_trait]
impl TxtLookup for DnsLookup {
    async fn lookup_txt(&self, name: &str) -> Result<Vec<String>, LookupFailure> {
        let asked = async {
            // The dot at the end keeps search domains away.
            let name = Name::from_ascii(format!("{name}.")).map_err(|error| NetError::from(error.to_string()))?;
            self.build_resolver()?.lookup(name, RecordType::TXT).await
        };
        let Ok(answer) = tokio::time::timeout(LOOKUP_TIMEOUT, asked).await else {
            return Err(LookupFailure("no DNS server answered in time".to_owned()));
        };
        match answer {
            Ok(found) => Ok(found.answers().iter().filter_map(|record| txt_value(&record.data)).collect()),
            Err(error) if says_absent(&error) => Ok(Vec::new()),
            Err(error) => Err(LookupFailure(error.to_string())),
        }
    }
}

#[async_trait]
impl AddressLookup for DnsLookup {
    async fn lookup_addresses(&self, host: &str) -> Result<Vec<IpAddr>, LookupFailure> {
        let asked = async {
            let host = host.trim_end_matches('.');
            let name = Name::from_ascii(format!("{host}.")).map_err(|error| NetError::from(error.to_string()))?;
            self.build_resolver()?.lookup_ip(name).await
        };
        let Ok(answer) = tokio::time::timeout(LOOKUP_TIMEOUT, asked).await else {
            return Err(LookupFailure("no DNS server answered in time".to_owned()));
        };
        match answer {
            Ok(found) => Ok(found.iter().collect()),
            Err(error) if says_absent(&error) => Ok(Vec::new()),
            Err(error) => Err(LookupFailure(error.to_string())),
        }
    }
}

/// The value of a TXT record. A long one is stored in parts.
fn txt_value(data: &RData) -> Option<String> {
    let RData::TXT(txt) = data else { return None };
    Some(String::from_utf8_lossy(&txt.txt_data.concat()).into_owned())
}

/// Whether the DNS says that there is no such record. A referral to other servers does not say so.
fn says_absent(error: &NetError) -> bool {
    matches!(error, NetError::Dns(DnsError::NoRecordsFound(none)) if none.ns.is_none())
}
