//! The tenants that the kit acts as, and the callers and addresses of its requests.

use http::{HeaderName, HeaderValue};

/// One of the two tenants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// Tenant A.
    First,
    /// Tenant B.
    Second,
}

impl Side {
    /// Both, in order.
    pub const BOTH: [Self; 2] = [Self::First, Self::Second];

    /// The other tenant.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }

    /// The letter in canaries.
    #[must_use]
    pub fn letter(self) -> char {
        match self {
            Self::First => 'a',
            Self::Second => 'b',
        }
    }
}

/// A tenant of the application, and a credential that opens it and nothing else.
#[derive(Debug, Clone)]
pub struct TestTenant {
    /// The tenant's name in addresses.
    pub name: String,
    /// The headers of a signed-in caller, for instance `authorization`.
    pub credential: Vec<(HeaderName, HeaderValue)>,
}

/// How a request says which tenant it is for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum TenantNaming {
    /// A parameter of the path. The OpenAPI document names it.
    #[default]
    Path,
    /// The header `Host`: the text, with the tenant's name in the place of `{tenant}`.
    Host(String),
    /// A header of this name.
    Header(HeaderName),
    /// Only the credential.
    Credential,
}

/// Who sends a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// A member of this tenant.
    Member(Side),
    /// Nobody: no credential.
    Nobody,
    /// A caller whose credential was never valid.
    Stranger,
}

/// The tenant that a request names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TenantAddress {
    /// One of the two tenants.
    Of(Side),
    /// A name that no tenant has. It is as long as the names of the tenants.
    Unknown,
    /// This text in the place of a name, as it is.
    Text(String),
}

/// Both tenants, and how requests name them.
#[derive(Debug, Clone)]
pub struct World {
    first: TestTenant,
    second: TestTenant,
    naming: TenantNaming,
}

impl World {
    /// The world with tenant A and tenant B.
    #[must_use]
    pub fn new(first: TestTenant, second: TestTenant) -> Self {
        Self { first, second, naming: TenantNaming::default() }
    }

    /// Says how requests name their tenant.
    #[must_use]
    pub fn naming(self, naming: TenantNaming) -> Self {
        Self { naming, ..self }
    }

    /// The tenant of a side.
    #[must_use]
    pub fn tenant(&self, side: Side) -> &TestTenant {
        match side {
            Side::First => &self.first,
            Side::Second => &self.second,
        }
    }

    /// How requests name their tenant.
    pub(crate) fn naming_kind(&self) -> &TenantNaming {
        &self.naming
    }

    /// Whether a request can name a tenant other than the credential's.
    pub(crate) fn names_tenants(&self) -> bool {
        self.naming != TenantNaming::Credential
    }

    /// The text that names the tenant in an address.
    pub(crate) fn name_of(&self, address: &TenantAddress) -> String {
        match address {
            TenantAddress::Of(side) => self.tenant(*side).name.clone(),
            TenantAddress::Unknown => unknown_name(&self.second.name),
            TenantAddress::Text(text) => text.clone(),
        }
    }

    /// The headers of a request that name its tenant.
    pub(crate) fn address_headers(&self, address: &TenantAddress) -> Vec<(HeaderName, HeaderValue)> {
        let name = self.name_of(address);
        let header = match &self.naming {
            TenantNaming::Host(pattern) => (http::header::HOST, pattern.replace("{tenant}", &name)),
            TenantNaming::Header(header) => (header.clone(), name),
            TenantNaming::Path | TenantNaming::Credential => return Vec::new(),
        };
        HeaderValue::from_str(&header.1).map(|value| vec![(header.0, value)]).unwrap_or_default()
    }

    /// The headers that say who calls.
    pub(crate) fn caller_headers(&self, caller: Caller) -> Vec<(HeaderName, HeaderValue)> {
        match caller {
            Caller::Member(side) => self.tenant(side).credential.clone(),
            Caller::Nobody => Vec::new(),
            Caller::Stranger => {
                let spoil = |(name, value): &(HeaderName, HeaderValue)| Some((name.clone(), spoilt_value(value)?));
                self.first.credential.iter().filter_map(spoil).collect()
            }
        }
    }
}

/// A name that no tenant has, as long as this one: the answers for both can then be compared byte by byte.
fn unknown_name(like: &str) -> String {
    like.chars()
        .enumerate()
        .map(|(position, character)| match character {
            '-' => '-',
            _ => char::from(b"zqxjkvw"[position % 7]),
        })
        .collect()
}

/// The credential with its last half replaced.
fn spoilt_value(value: &HeaderValue) -> Option<HeaderValue> {
    let text = value.to_str().ok()?;
    let half = text.char_indices().nth(text.chars().count() / 2)?.0;
    let spoilt = text[half..].chars().map(|character| if character.is_ascii_alphanumeric() { 'x' } else { character });
    HeaderValue::from_str(&(text[..half].to_owned() + &spoilt.collect::<String>())).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unknown_name_and_the_wrong_credential_look_like_the_right_ones() {
        assert_eq!(unknown_name("globex-2").len(), "globex-2".len());
        assert_ne!(unknown_name("globex"), "globex");
        let token = HeaderValue::from_static("Bearer ftk_0123456789abcdef");
        let spoilt = spoilt_value(&token).unwrap();
        assert_eq!(spoilt.len(), token.len());
        assert!(spoilt != token && spoilt.to_str().unwrap().starts_with("Bearer ftk_"));
    }
}
