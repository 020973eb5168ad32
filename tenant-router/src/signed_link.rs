//! Signed links: the right to one thing of one tenant, in the text of a URL.
//!
//! The signature is made with a key that is derived from the fleet's key. It covers the purpose, the tenant, the generation of
//! its database, the end of the link and the value. So a link opens nothing after a restore, which may have given an id to
//! another row.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use catalog::members::Role;
use catalog::{Catalog, Generation, TenantId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::key::RequestView;
use crate::principal::Principal;
use crate::router::Router;
use crate::tenant::{AccessLevel, Read, Tenant};

/// Maximum length of a link. Longer texts are not even decoded.
const LINK_BYTES_MAX: usize = 4_096;

/// A kind of signed links: what they open, the type of their value, and how long they are valid.
///
/// ```
/// use std::time::Duration;
/// use tenant_router::{Error, LinkPurpose, Read, RequestView, Router, Tenant};
///
/// const DOWNLOAD: LinkPurpose<i64> = LinkPurpose::new("download", Duration::from_secs(600));
///
/// fn link_to(tenant: &Tenant<Read>, export: i64) -> Result<String, Error> {
///     Ok(format!("/t/{}/download/{}", tenant.name(), tenant.sign_link(&DOWNLOAD, &export)?))
/// }
///
/// async fn download(router: &Router, path: &str, link: &str) -> Result<String, Error> {
///     let request = RequestView { path, ..RequestView::default() };
///     let (tenant, export) = router.open_link(&request, &DOWNLOAD, link).await?;
///     tenant.query_as("select content from exports where id = $1", [export]).fetch_one().await
/// }
/// ```
#[derive(Debug)]
pub struct LinkPurpose<T> {
    name: &'static str,
    valid_for: Duration,
    value: PhantomData<fn() -> T>,
}

impl<T: Serialize + DeserializeOwned> LinkPurpose<T> {
    /// Links with this name, which are valid for this time.
    #[must_use]
    pub const fn new(name: &'static str, valid_for: Duration) -> Self {
        Self { name, valid_for, value: PhantomData }
    }
}

/// The signed part of a link.
#[derive(Debug, Serialize, Deserialize)]
struct LinkContents<T> {
    generation: Generation,
    /// Milliseconds since 1970.
    ends_at: i64,
    /// The principal that made the link, or the operator who acted as it.
    by: String,
    value: T,
}

impl<A: AccessLevel> Tenant<A> {
    /// A text that gives everyone who has it this value of this tenant, until the purpose's time is over. It can be a segment
    /// of a path. It is signed and not encrypted: its holder can read the value and the name of the caller.
    ///
    /// # Errors
    /// `Misconfigured` when the value cannot be JSON, or is too long for a link.
    pub fn sign_link<T: Serialize + DeserializeOwned>(&self, purpose: &LinkPurpose<T>, value: &T) -> Result<String> {
        let catalog = &self.router.inner.catalog;
        let valid_ms = i64::try_from(purpose.valid_for.as_millis()).unwrap_or(i64::MAX);
        let ends_at = catalog.now().saturating_add(valid_ms);
        let by = self.principal().staff().unwrap_or(self.principal().name()).to_owned();
        let contents = LinkContents { generation: self.generation(), ends_at, by, value };
        let contents = serde_json::to_vec(&contents)
            .map_err(|error| Error::new(ErrorKind::Misconfigured).with_source(error.to_string()))?;
        let signature = signature_of(catalog, self.id(), purpose.name, &contents);
        let link = format!("{}.{signature}", URL_SAFE_NO_PAD.encode(contents));
        match link.len() <= LINK_BYTES_MAX {
            true => Ok(link),
            false => Err(Error::new(ErrorKind::Misconfigured).with_source("the value is too long for a link")),
        }
    }

    /// The value of a link that was made for this tenant, for a caller who has access to the tenant anyway.
    ///
    /// # Errors
    /// `NotFound` when the link is of another tenant, purpose or generation, is over, or was changed.
    pub fn link_value<T: Serialize + DeserializeOwned>(&self, purpose: &LinkPurpose<T>, link: &str) -> Result<T> {
        let catalog = &self.router.inner.catalog;
        Ok(proven_contents(catalog, self.id(), self.generation(), purpose, link)?.value)
    }
}

impl Router {
    /// Opens the tenant that a request names for the holder of a link, and returns the value of the link. The principal is the
    /// one that made the link, as a reader. The request's credential is ignored.
    ///
    /// # Errors
    /// `NotFound` for every link that does not fit the named tenant, exactly as for an unknown tenant; otherwise as
    /// [`Router::open`].
    pub async fn open_link<T: Serialize + DeserializeOwned + Send>(
        &self,
        request: &RequestView<'_>,
        purpose: &LinkPurpose<T>,
        link: &str,
    ) -> Result<(Tenant<Read>, T)> {
        let proven = |id, generation| {
            let contents = proven_contents(&self.inner.catalog, id, generation, purpose, link)?;
            let principal = Principal::of_tenant(&*contents.by, id, Role::Reader).expiring_at(contents.ends_at);
            Ok((Arc::new(principal), contents))
        };
        let (tenant, contents) = self.open_proven(request, proven).await?;
        // The request may have waited while the database was replaced.
        match tenant.generation() == contents.generation {
            true => Ok((tenant, contents.value)),
            false => Err(ErrorKind::NotFound.into()),
        }
    }
}

fn signature_of(catalog: &Catalog, tenant: TenantId, purpose: &str, contents: &[u8]) -> String {
    catalog.sealer().derive_text(("signed link", purpose, &tenant.to_string()), contents)
}

fn proven_contents<T: DeserializeOwned>(
    catalog: &Catalog,
    tenant: TenantId,
    generation: Generation,
    purpose: &LinkPurpose<T>,
    link: &str,
) -> Result<LinkContents<T>> {
    let refused = || Error::from(ErrorKind::NotFound);
    let (text, signature) = link.split_once('.').filter(|_| link.len() <= LINK_BYTES_MAX).ok_or_else(refused)?;
    let contents = URL_SAFE_NO_PAD.decode(text).map_err(|_| refused())?;
    let expected = signature_of(catalog, tenant, purpose.name, &contents);
    verify_slices_are_equal(expected.as_bytes(), signature.as_bytes()).map_err(|_| refused())?;
    let contents: LinkContents<T> = serde_json::from_slice(&contents).map_err(|_| refused())?;
    match contents.generation == generation && catalog.now() < contents.ends_at {
        true => Ok(contents),
        false => Err(refused()),
    }
}
