//! How a request names its tenant: path, host, header, or the credential's own claim. PURE.
//!
//! Called by `router.rs`. Finds the names and parses them with [`catalog::TenantName`], the only normaliser. Whether
//! several names lead to one tenant is decided after their look-up, because a slug and an alias may name one tenant.

use std::net::{IpAddr, SocketAddr};

use catalog::TenantName;

use crate::error::ErrorKind;

/// The parts of a request that name the tenant and the caller. Borrowed, so that any server can build it.
#[derive(Clone, Copy, Default)]
pub struct RequestView<'a> {
    /// The secret after `Bearer `.
    pub credential: Option<&'a str>,
    /// The path as received, not decoded.
    pub path: &'a str,
    /// The host as received, including the port.
    pub host: Option<&'a str>,
    /// The value of the header [`TENANT_HEADER`].
    pub tenant_header: Option<&'a str>,
}

impl std::fmt::Debug for RequestView<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { credential, path, host, tenant_header } = self;
        let credential = credential.map(|_| "[redacted]");
        f.debug_struct("RequestView")
            .field("credential", &credential)
            .field("path", path)
            .field("host", host)
            .field("tenant_header", tenant_header)
            .finish()
    }
}

/// The header in which a service names the tenant.
pub const TENANT_HEADER: &str = "x-tenant";

/// The parts of a request that may name the tenant. The default: the path prefix `/t/`, and the header for services.
#[derive(Debug, Clone)]
pub struct Naming {
    path_prefix: Option<String>,
    domain: Option<String>,
    custom_domains: CustomDomains,
    header: HeaderNaming,
}

/// Whether a host outside the domain may belong to a tenant.
#[derive(Debug, Clone)]
enum CustomDomains {
    Off,
    /// Every host except the application's own hosts.
    Except(Vec<String>),
}

/// Whether a service may name the tenant by header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HeaderNaming {
    Off,
    Services,
}

impl Default for Naming {
    fn default() -> Self {
        Self {
            path_prefix: Some("/t/".to_owned()),
            domain: None,
            custom_domains: CustomDomains::Off,
            header: HeaderNaming::Services,
        }
    }
}

impl Naming {
    /// Tenants are named by the first path segment after this prefix, for instance `/t/`.
    #[must_use]
    pub fn path_prefix(mut self, prefix: impl Into<String>) -> Self {
        let mut prefix = prefix.into();
        if !prefix.ends_with('/') {
            prefix.push('/');
        }
        self.path_prefix = Some(prefix);
        self
    }

    /// The path does not name a tenant.
    #[must_use]
    pub fn without_path(mut self) -> Self {
        self.path_prefix = None;
        self
    }

    /// `{tenant}.<domain>` names a tenant; the domain itself does not.
    #[must_use]
    pub fn domain(mut self, domain: impl Into<String>) -> Self {
        self.domain = Some(domain.into());
        self
    }

    /// Any other host names the tenant that it is registered for. `own` lists the application's own hosts, which name
    /// no tenant.
    #[must_use]
    pub fn custom_domains<T: Into<String>>(mut self, own: impl IntoIterator<Item = T>) -> Self {
        self.custom_domains = CustomDomains::Except(own.into_iter().map(Into::into).collect());
        self
    }

    /// The header does not name a tenant, not even for services.
    #[must_use]
    pub fn without_header(mut self) -> Self {
        self.header = HeaderNaming::Off;
        self
    }

    /// Converts every host to normal form.
    ///
    /// # Errors
    /// When the domain or an own host is not a valid host name.
    pub(crate) fn with_normal_hosts(mut self) -> catalog::Result<Self> {
        self.domain = self.domain.as_deref().map(normal_host).transpose()?;
        if let CustomDomains::Except(own) = &mut self.custom_domains {
            *own = own.iter().map(|host| normal_host(host)).collect::<catalog::Result<_>>()?;
        }
        Ok(self)
    }

    /// The parts of a request that may name its tenant, as received.
    pub(crate) fn name_parts<'a>(&self, request: &RequestView<'a>) -> TenantNameParts<'a> {
        let segment = self.path_prefix.as_deref().and_then(|prefix| segment_after(prefix, request.path));
        let host = self.reads_host().then_some(request.host).flatten();
        let header = (self.header == HeaderNaming::Services).then_some(request.tenant_header).flatten();
        TenantNameParts { segment, host, header }
    }

    /// The names in these parts, each once.
    ///
    /// # Errors
    /// [`ErrorKind::TenantNameInvalid`] when a part is not a valid name.
    pub(crate) fn tenant_names(&self, parts: &TenantNameParts<'_>) -> Result<Vec<TenantName>, ErrorKind> {
        let slugs = [parts.segment, parts.header].into_iter().flatten().map(TenantName::parse_slug);
        let host = parts.host.and_then(|host| self.name_of_host(host).transpose());
        let mut names =
            slugs.chain(host).collect::<catalog::Result<Vec<_>>>().map_err(|_| ErrorKind::TenantNameInvalid)?;
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    fn reads_host(&self) -> bool {
        self.domain.is_some() || matches!(self.custom_domains, CustomDomains::Except(_))
    }

    /// The tenant name in a host; `None` for the application's own hosts.
    fn name_of_host(&self, host: &str) -> catalog::Result<Option<TenantName>> {
        if is_address(host) {
            return Ok(None);
        }
        let host = TenantName::parse_host(host)?;
        let domain = self.domain.as_deref();
        if domain == Some(host.as_str()) {
            return Ok(None);
        }
        if let Some(label) = domain.and_then(|domain| host.as_str().strip_suffix(domain)?.strip_suffix('.')) {
            return self.name_below_domain(&host, label);
        }
        match &self.custom_domains {
            CustomDomains::Off => Ok(None),
            CustomDomains::Except(own) => Ok((!own.iter().any(|own| own == host.as_str())).then_some(host)),
        }
    }

    /// `app.<domain>` may be the application's own host. Everything else below the domain is a slug.
    fn name_below_domain(&self, host: &TenantName, label: &str) -> catalog::Result<Option<TenantName>> {
        match &self.custom_domains {
            CustomDomains::Except(own) if own.iter().any(|own| own == host.as_str()) => Ok(None),
            _ => TenantName::parse_slug(label).map(Some),
        }
    }
}

/// The result of [`Naming::name_parts`], as received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TenantNameParts<'a> {
    pub(crate) segment: Option<&'a str>,
    pub(crate) host: Option<&'a str>,
    pub(crate) header: Option<&'a str>,
}

fn normal_host(text: &str) -> catalog::Result<String> {
    Ok(TenantName::parse_host(text)?.as_str().to_owned())
}

/// The first segment after the prefix: `acme` of `/t/acme/tasks` and `/t/acme`.
fn segment_after<'a>(prefix: &str, path: &'a str) -> Option<&'a str> {
    path.strip_prefix(prefix)?.split('/').next()
}

/// True for an IP address, which never names a tenant.
fn is_address(host: &str) -> bool {
    host.parse::<SocketAddr>().is_ok() || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn naming() -> Naming {
        Naming::default().domain("Fleet.Example.").custom_domains(["www.fleet.example"]).with_normal_hosts().unwrap()
    }

    fn names(path: &str, host: Option<&str>, header: Option<&str>) -> Result<Vec<String>, ErrorKind> {
        let naming = naming();
        let request = RequestView { credential: None, path, host, tenant_header: header };
        let names = naming.tenant_names(&naming.name_parts(&request))?;
        Ok(names.iter().map(|name| name.as_str().to_owned()).collect())
    }

    #[test]
    fn each_part_gives_its_name_and_equal_ones_count_once() {
        assert_eq!(names("/t/Acme/x", Some("ACME.fleet.example.:80"), Some("acme")), Ok(vec!["acme".to_owned()]));
        assert_eq!(names("/t/a/x", Some("b.fleet.example"), Some("c")).unwrap(), ["a", "b", "c"]);
        assert_eq!(names("/x", Some("Shop.Example"), None).unwrap(), ["shop.example"]);
    }

    #[test]
    fn the_applications_own_hosts_name_nobody() {
        for own in ["fleet.example", "WWW.fleet.example:8080", "127.0.0.1", "127.0.0.1:80", "[::1]", "[::1]:80", "::1"]
        {
            assert_eq!(names("/x", Some(own), None), Ok(vec![]), "{own}");
        }
    }

    #[test]
    fn parts_that_are_not_looked_at_cannot_be_wrong() {
        let request = RequestView { path: "/t/..", host: Some("a b"), tenant_header: Some("%"), credential: None };
        let parts = Naming::default().without_path().without_header().name_parts(&request);
        assert_eq!(parts, TenantNameParts { segment: None, host: None, header: None });
    }

    #[test]
    fn a_request_prints_without_its_credential() {
        let request = RequestView { credential: Some("flt_secret"), path: "/t/acme", ..RequestView::default() };
        assert!(!format!("{request:?}").contains("secret"));
    }

    proptest! {
        #[test]
        fn a_name_found_anywhere_is_in_normal_form(path in "\\PC{0,30}", host in "\\PC{0,30}", header in "\\PC{0,30}") {
            if let Ok(found) = names(&format!("/t/{path}"), Some(&host), Some(&header)) {
                for name in found {
                    let again = TenantName::parse_slug(&name).or_else(|_| TenantName::parse_host(&name)).unwrap();
                    prop_assert_eq!(again.as_str(), name);
                }
            }
        }

        #[test]
        fn a_slug_is_the_same_tenant_in_path_host_and_header(slug in "[a-z0-9]([a-z0-9]{0,20}[a-z0-9])?", port in 1_u16..) {
            prop_assume!(TenantName::parse_slug(&slug).is_ok());
            let upper = slug.to_uppercase();
            let host = format!("{upper}.FLEET.example.:{port}");
            prop_assert_eq!(names(&format!("/t/{upper}"), Some(&host), Some(&slug)), Ok(vec![slug]));
        }
    }
}
