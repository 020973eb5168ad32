//! Parses the address of a webhook. PURE.

use std::net::IpAddr;

use url::{Host, Url};

use super::address::is_allowed_address;

/// Maximum length of an address, bytes: what servers accept in a request line.
const URL_BYTES_MAX: usize = 2_000;
/// The ports below 1024 that receivers use. The others belong to services that are not HTTP.
const LOW_PORTS: [u16; 2] = [80, 443];

/// Parses the address of a webhook. `private_allowed` also allows plain HTTP and private addresses.
///
/// # Errors
/// A text for people, without the address.
pub(crate) fn parse_target(text: &str, private_allowed: bool) -> Result<Url, String> {
    if text.len() > URL_BYTES_MAX {
        return Err(format!("expected at most {URL_BYTES_MAX} bytes"));
    }
    // The parser removes these, so the stored text would be another address than the shown one.
    if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err("expected an address without spaces".to_owned());
    }
    let url = Url::parse(text).map_err(|error| format!("expected https://…: {error}"))?;
    match url.scheme() {
        "https" => {}
        "http" if private_allowed => {}
        "http" => return Err("expected https://…; plain HTTP needs allow_private".to_owned()),
        _ => return Err("expected https://…".to_owned()),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("expected an address without a user or a password".to_owned());
    }
    if url.fragment().is_some() {
        return Err("expected an address without #…, which is never sent".to_owned());
    }
    let port = url.port_or_known_default().unwrap_or(0);
    if port < 1_024 && !LOW_PORTS.contains(&port) {
        return Err(format!("expected port 80, 443, or 1024 and above, not {port}"));
    }
    match literal_address(&url) {
        Some(address) if !is_allowed_address(address, private_allowed) => Err(refused_address(address)),
        _ => Ok(url),
    }
}

/// The address in a URL that has no host name.
pub(crate) fn literal_address(url: &Url) -> Option<IpAddr> {
    match url.host()? {
        Host::Ipv4(address) => Some(address.into()),
        Host::Ipv6(address) => Some(address.into()),
        Host::Domain(_) => None,
    }
}

/// Why an address is refused, for people.
pub(crate) fn refused_address(address: IpAddr) -> String {
    format!("the address {address} is not public, so no webhook is sent to it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_webhook_has_a_public_https_address() {
        for good in [
            "https://receiver.example/hooks/1?team=a",
            "https://receiver.example:8443/",
            "https://8.8.8.8/",
            "https://[2606:4700::1111]:443/",
            "https://bücher.example/",
        ] {
            parse_target(good, false).unwrap_or_else(|error| panic!("{good}: {error}"));
        }
        for bad in [
            "",
            "receiver.example",
            "http://receiver.example/",
            "ftp://receiver.example/",
            "file:///etc/passwd",
            "https://",
            "https://user@receiver.example/",
            "https://user:word@receiver.example/",
            "https://:word@receiver.example/",
            "https://receiver.example/#part",
            "https://receiver.example:0/",
            "https://receiver.example:22/",
            "https://receiver.example:25/",
            "https://receiver.example:99999/",
            "https://receiver example/",
            "https://receiver.example/\n",
            // Every spelling of a private address.
            "https://127.0.0.1/",
            "https://127.1/",
            "https://2130706433/",
            "https://0x7f000001/",
            "https://0177.0.0.1/",
            "https://[::1]/",
            "https://[::ffff:127.0.0.1]/",
            "https://[::ffff:8.8.8.8]/",
            "https://169.254.169.254/latest/meta-data",
            "https://[fe80::1]/",
            "https://0/",
        ] {
            assert!(parse_target(bad, false).is_err(), "{bad}");
        }
        assert!(parse_target(&format!("https://receiver.example/{}", "x".repeat(2_000)), false).is_err());
    }

    #[test]
    fn permission_allows_plain_http_and_private_addresses_only() {
        for good in ["http://127.0.0.1:9000/", "http://receiver.internal/", "https://10.0.0.1/", "http://[::1]:8080/"] {
            parse_target(good, true).unwrap_or_else(|error| panic!("{good}: {error}"));
        }
        for bad in [
            "http://169.254.169.254/",
            "http://[::ffff:127.0.0.1]/",
            "http://0.0.0.0:8080/",
            "http://user:word@127.0.0.1:9000/",
            "http://127.0.0.1:22/",
            "unix:///run/socket",
        ] {
            assert!(parse_target(bad, true).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_refusal_does_not_repeat_a_password() {
        let refused = parse_target("https://user:hunter2@receiver.example/", false).unwrap_err();
        assert!(!refused.contains("hunter2"), "{refused}");
    }
}
