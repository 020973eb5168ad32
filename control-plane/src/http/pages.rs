//! Pages of lists, with keyset cursors.
//!
//! A cursor is the last key of a page. It is sealed with the fleet's key for one caller, one list and one set of
//! filters. So it reveals nothing, cannot be forged, and is refused anywhere else.

use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use catalog::seal::SecretSealer;
use fleet_api::bounded_number::PageLimit;
use fleet_api::pages::PageOf;
use secrecy::ExposeSecret;
use serde::Serialize;

use super::ApiState;
use super::admission::AdmittedCaller;
use super::error::{Problem, Result};
use crate::error::ErrorKind;

/// Default number of items per page.
const LIMIT_DEFAULT: u32 = 100;
/// Maximum length of a cursor: longer than any that is created here.
const CURSOR_BYTES_MAX: usize = 4_096;

/// The part of a list that a request selects.
pub(crate) struct PageWindow<'a> {
    sealer: &'a SecretSealer,
    scope: String,
    limit: u32,
    after: Option<String>,
}

impl<'a> PageWindow<'a> {
    /// Opens the cursor, if there is one. `list` and `filters` identify the list. A cursor of another list, of other
    /// filters or of another caller is refused.
    pub(crate) fn open_window(
        api: &'a ApiState,
        caller: &AdmittedCaller,
        list: &str,
        filters: &impl Serialize,
        (limit, cursor): (Option<PageLimit>, Option<&str>),
    ) -> Result<Self> {
        let limit = limit.map_or(LIMIT_DEFAULT, PageLimit::to_u32);
        let filters = without_part(serde_json::to_value(filters).expect("filters are plain JSON"));
        let scope = format!("{list}\n{}\n{filters}", caller.who.actor);
        let sealer = api.app.catalog.sealer();
        let after = cursor.map(|text| unseal_cursor(sealer, &scope, text)).transpose()?;
        Ok(Self { sealer, scope, limit, after })
    }

    /// The number of rows to read: one more than the page holds, to find out whether another page follows.
    pub(crate) fn rows_to_read(&self) -> u32 {
        self.limit + 1
    }

    /// Maximum number of items of the page.
    pub(crate) fn page_limit(&self) -> u32 {
        self.limit
    }

    /// The page of these items. The list continues after the key `next`.
    pub(crate) fn page_until<T>(&self, items: Vec<T>, next: Option<String>) -> PageOf<T> {
        PageOf { items, next_cursor: next.map(|key| self.seal_cursor(&key)) }
    }

    /// The key after which the page starts.
    pub(crate) fn after_key<K: FromStr>(&self) -> Result<Option<K>> {
        self.after.as_deref().map(|key| key.parse().map_err(|_| invalid_cursor())).transpose()
    }

    /// The page made of these rows, of which [`PageWindow::rows_to_read`] were read. `key` returns a row's key for the
    /// cursor.
    pub(crate) fn into_page<R, T>(
        self,
        mut rows: Vec<R>,
        key: impl Fn(&R) -> String,
        item: impl FnMut(R) -> T,
    ) -> PageOf<T> {
        let more = rows.len() > self.limit as usize;
        rows.truncate(self.limit as usize);
        let next_cursor = rows.last().filter(|_| more).map(|row| self.seal_cursor(&key(row)));
        PageOf { items: rows.into_iter().map(item).collect(), next_cursor }
    }

    fn seal_cursor(&self, key: &str) -> String {
        URL_SAFE_NO_PAD.encode(self.sealer.seal_value(cursor_context(&self.scope), key.as_bytes()))
    }
}

/// The filters without the parameters that only select the page.
fn without_part(mut filters: serde_json::Value) -> serde_json::Value {
    if let Some(filters) = filters.as_object_mut() {
        filters.retain(|name, _| name != "limit" && name != "cursor");
    }
    filters
}

fn cursor_context(scope: &str) -> (&str, &str, &str) {
    ("http", "cursor", scope)
}

fn unseal_cursor(sealer: &SecretSealer, scope: &str, cursor: &str) -> Result<String> {
    if cursor.len() > CURSOR_BYTES_MAX {
        return Err(invalid_cursor());
    }
    let sealed = URL_SAFE_NO_PAD.decode(cursor).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let sealed = sealed.ok_or_else(invalid_cursor)?;
    let key = sealer.open_sealed(cursor_context(scope), &sealed).map_err(|_| invalid_cursor())?;
    String::from_utf8(key.expose_secret().to_vec()).map_err(|_| invalid_cursor())
}

fn invalid_cursor() -> Problem {
    let detail = "the cursor was not issued for this caller, this list and these filters";
    Problem::new(ErrorKind::InvalidCursor, detail).try_next("start again without a cursor")
}
