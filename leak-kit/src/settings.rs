//! The file that describes an application to the kit: `leaktest.toml`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::Value;

use crate::error::{KitError, Result};
use crate::exceptions::RouteExceptions;
use crate::inventory::RouteInventory;
use crate::leak_test::LeakTest;
use crate::outputs::WatchedOutput;
use crate::request_example::RequestExample;
use crate::webhooks::{WebhookAccount, WebhookSender, WebhookStyle};
use crate::world::{TenantNaming, TestTenant};

/// The parameter that names the tenant, unless the file says otherwise.
const TENANT_PARAMETER: &str = "tenant";
/// Maximum size of a file that the settings name, in bytes.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// What the file says.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeakTestSettings {
    /// The OpenAPI document: a path of the application that begins with `/`, or a file.
    pub openapi: Option<String>,
    first: Option<TenantSettings>,
    second: Option<TenantSettings>,
    tenant_parameter: Option<String>,
    tenant_host: Option<String>,
    tenant_header: Option<String>,
    #[serde(default)]
    tenant_in_credential: bool,
    settle_ms: Option<u64>,
    exceptions: Option<PathBuf>,
    #[serde(default)]
    outputs: Vec<PathBuf>,
    #[serde(default)]
    classes: BTreeMap<String, String>,
    #[serde(default)]
    requests: Vec<RequestSettings>,
    #[serde(default)]
    webhooks: Vec<WebhookSettings>,
    /// The directory of the file; other files are named from there.
    #[serde(skip)]
    directory: PathBuf,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct TenantSettings {
    #[serde(default)]
    name: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// A file with a bearer token.
    token_file: Option<PathBuf>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct RequestSettings {
    route: String,
    body: Value,
    #[serde(default)]
    reads: bool,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct WebhookSettings {
    route: String,
    style: String,
    /// The service as the application names it, for accounts that the test links itself.
    provider: Option<String>,
    first: Option<AccountSettings>,
    second: Option<AccountSettings>,
    payload: Value,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct AccountSettings {
    account: String,
    secret: String,
}

fn invalid(text: String) -> KitError {
    KitError::new("settings_invalid", text)
}

impl LeakTestSettings {
    /// Reads the text of a file in this directory.
    ///
    /// # Errors
    /// `settings_invalid` with the place in the file.
    pub fn parse(text: &str, directory: &Path) -> Result<Self> {
        let settings: Self = toml::from_str(text).map_err(|error| invalid(error.to_string()))?;
        let namings = [settings.tenant_host.is_some(), settings.tenant_header.is_some(), settings.tenant_in_credential];
        if namings.into_iter().filter(|given| *given).count() > 1 {
            return Err(invalid("use one of tenant_host, tenant_header and tenant_in_credential".to_owned()));
        }
        Ok(Self { directory: directory.to_owned(), ..settings })
    }

    /// Both tenants; `None` when the file names none.
    ///
    /// # Errors
    /// `settings_invalid` when the file names only one, or a header that HTTP does not allow.
    pub fn tenants(&self) -> Result<Option<(TestTenant, TestTenant)>> {
        match (&self.first, &self.second) {
            (None, None) => Ok(None),
            (Some(first), Some(second)) => Ok(Some((self.tenant(first)?, self.tenant(second)?))),
            _ => Err(invalid("the file names only one of the tenants `first` and `second`".to_owned())),
        }
    }

    fn tenant(&self, tenant: &TenantSettings) -> Result<TestTenant> {
        let mut credential = Vec::new();
        for (name, value) in &tenant.headers {
            credential.push((header_name(name)?, header_value(name, value)?));
        }
        if let Some(file) = &tenant.token_file {
            let token = self.read_file(file)?;
            credential.push((
                http::header::AUTHORIZATION,
                header_value("authorization", &format!("Bearer {}", token.trim()))?,
            ));
        }
        Ok(TestTenant { name: tenant.name.clone(), credential })
    }

    /// How requests name their tenant.
    ///
    /// # Errors
    /// `settings_invalid` for a header name that HTTP does not allow.
    pub fn naming(&self) -> Result<TenantNaming> {
        Ok(match (&self.tenant_host, &self.tenant_header, self.tenant_in_credential) {
            (Some(pattern), _, _) => TenantNaming::Host(pattern.clone()),
            (_, Some(name), _) => TenantNaming::Header(header_name(name)?),
            (_, _, true) => TenantNaming::Credential,
            _ => TenantNaming::Path,
        })
    }

    /// The routes of the document, with the classes and bodies of the file.
    ///
    /// # Errors
    /// As [`RouteInventory::from_openapi`], [`RouteInventory::set_classes`] and [`RouteInventory::add_example`].
    pub fn inventory(&self, document: &str) -> Result<RouteInventory> {
        let parameter = self.tenant_parameter.as_deref().unwrap_or(TENANT_PARAMETER);
        let mut inventory = RouteInventory::from_openapi(document, parameter)?;
        inventory.set_classes(&self.classes)?;
        for RequestSettings { route, body, reads } in self.requests.clone() {
            inventory.add_example(RequestExample { route, body, reads })?;
        }
        Ok(inventory)
    }

    /// Adds the other settings to a test.
    ///
    /// # Errors
    /// `settings_invalid` when a file cannot be read, `exceptions_invalid` for a wrong line in the list of exceptions.
    pub fn apply(&self, mut test: LeakTest) -> Result<LeakTest> {
        if let Some(settle) = self.settle_ms {
            test = test.settle(Duration::from_millis(settle));
        }
        if let Some(file) = &self.exceptions {
            test = test.exceptions(RouteExceptions::parse(&self.read_file(file)?)?);
        }
        for path in &self.outputs {
            test = test.output(WatchedOutput::at_path(self.directory.join(path)));
        }
        for webhook in &self.webhooks {
            if let (Some(first), Some(second)) = (&webhook.first, &webhook.second) {
                test = test.webhook(webhook.sender(first.account(), second.account())?);
            }
        }
        Ok(test)
    }

    /// The services whose accounts the test has to link to its own tenants.
    pub fn providers(&self) -> impl Iterator<Item = &str> {
        self.webhooks.iter().filter(|webhook| webhook.first.is_none()).filter_map(|webhook| webhook.provider.as_deref())
    }

    /// Adds the webhooks of a service whose accounts were linked.
    ///
    /// # Errors
    /// `settings_invalid` for an unknown style.
    pub fn apply_accounts(
        &self,
        mut test: LeakTest,
        provider: &str,
        accounts: &[WebhookAccount; 2],
    ) -> Result<LeakTest> {
        for webhook in self.webhooks.iter().filter(|webhook| webhook.provider.as_deref() == Some(provider)) {
            test = test.webhook(webhook.sender(accounts[0].clone(), accounts[1].clone())?);
        }
        Ok(test)
    }

    /// The text of a file beside the settings.
    ///
    /// # Errors
    /// `settings_invalid` when it cannot be read or is too large.
    pub fn read_file(&self, path: &Path) -> Result<String> {
        let path = self.directory.join(path);
        let unreadable = |error: std::io::Error| invalid(format!("cannot read {}: {error}", path.display()));
        if std::fs::metadata(&path).map_err(unreadable)?.len() > FILE_BYTES_MAX {
            return Err(invalid(format!("{} has more than {FILE_BYTES_MAX} bytes", path.display())));
        }
        std::fs::read_to_string(&path).map_err(unreadable)
    }
}

impl WebhookSettings {
    fn sender(&self, first: WebhookAccount, second: WebhookAccount) -> Result<WebhookSender> {
        let style = WebhookStyle::from_word(&self.style).ok_or_else(|| {
            invalid(format!("{:?} is not a style of webhooks; use standard, stripe or github", self.style))
        })?;
        Ok(WebhookSender { route: self.route.clone(), style, first, second, payload: self.payload.clone() })
    }
}

impl AccountSettings {
    fn account(&self) -> WebhookAccount {
        WebhookAccount { account: self.account.clone(), secret: self.secret.clone() }
    }
}

fn header_name(name: &str) -> Result<HeaderName> {
    HeaderName::try_from(name).map_err(|_| invalid(format!("{name:?} cannot be the name of a header")))
}

/// The value is a credential, so an error does not show it.
fn header_value(name: &str, value: &str) -> Result<HeaderValue> {
    let mut value =
        HeaderValue::from_str(value).map_err(|_| invalid(format!("the value of {name} cannot be a header")))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = r#"
        openapi = "/openapi.json"
        first = { name = "acme", headers = { authorization = "Bearer a" } }
        second = { name = "globex", headers = { cookie = "session=b" } }
    "#;

    fn parse(text: &str) -> Result<LeakTestSettings> {
        LeakTestSettings::parse(text, Path::new("."))
    }

    #[test]
    fn three_lines_describe_an_application() {
        let settings = parse(SMALL).unwrap();
        let (first, second) = settings.tenants().unwrap().unwrap();
        assert_eq!((first.name.as_str(), second.name.as_str()), ("acme", "globex"));
        assert_eq!(second.credential[0].0, http::header::COOKIE);
        assert_eq!(settings.naming().unwrap(), TenantNaming::Path);
        assert!(!format!("{first:?}").contains("Bearer a"), "a credential is not printed");
    }

    #[test]
    fn a_wrong_file_is_refused() {
        let half = "first = { name = \"acme\" }";
        assert_eq!(parse(half).unwrap().tenants().unwrap_err().code(), "settings_invalid");
        for wrong in
            ["openapi = 1", "unknown = true", "tenant_host = \"{tenant}.x\"\ntenant_header = \"x\"", "first = {"]
        {
            assert_eq!(parse(wrong).unwrap_err().code(), "settings_invalid", "{wrong}");
        }
        assert!(parse("").unwrap().tenants().unwrap().is_none());
        let missing = parse("exceptions = \"missing.txt\"").unwrap().read_file(Path::new("missing.txt")).unwrap_err();
        assert!(missing.to_string().contains("missing.txt"), "{missing}");
    }
}
