//! Pages of lists by keyset cursors.
//!
//! A cursor is the last key of a page, sealed with the fleet's key for one caller, one list and one set of filters: it
//! tells nothing, cannot be made up, and is refused anywhere else.

use std::str::FromStr;

use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use catalog::seal::Sealer;
use secrecy::ExposeSecret;
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::admission::Caller;
use super::error::{Problem, Result};
use super::number::Limit;

/// Items of a page unless asked otherwise.
const LIMIT_DEFAULT: u32 = 100;
/// Longer than any cursor made here.
const CURSOR_BYTES_MAX: usize = 4_096;

/// One page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PageOf<T> {
    /// In the list's order.
    pub(crate) items: Vec<T>,
    /// Give it back as `cursor` for the next page; null on the last one.
    pub(crate) next_cursor: Option<String>,
}

/// The part of a list that a request asks for.
pub(crate) struct Window<'a> {
    sealer: &'a Sealer,
    scope: String,
    limit: u32,
    after: Option<String>,
}

impl<'a> Window<'a> {
    /// Opens the cursor, if there is one. `list` and `filters` say what is listed: a cursor of another list, of other
    /// filters or of another caller does not open.
    pub(crate) fn open(
        api: &'a Api,
        caller: &Caller,
        list: &str,
        filters: &impl Serialize,
        (limit, cursor): (Option<Limit>, Option<&str>),
    ) -> Result<Self> {
        let limit = limit.map_or(LIMIT_DEFAULT, Limit::narrow);
        let filters = without_part(serde_json::to_value(filters).expect("filters are plain JSON"));
        let scope = format!("{list}\n{}\n{filters}", caller.who.actor);
        let sealer = api.app.catalog.sealer();
        let after = cursor.map(|text| unseal(sealer, &scope, text)).transpose()?;
        Ok(Self { sealer, scope, limit, after })
    }

    /// How many rows to read: one more than the page holds, to know whether another page follows.
    pub(crate) fn rows(&self) -> u32 {
        self.limit + 1
    }

    /// The key after which the page begins.
    pub(crate) fn after<K: FromStr>(&self) -> Result<Option<K>> {
        self.after.as_deref().map(|key| key.parse().map_err(|_| invalid_cursor())).transpose()
    }

    /// The page made of these rows (as many as [`Window::rows`] asked for); `key` names a row for the cursor.
    pub(crate) fn page<R, T>(
        self,
        mut rows: Vec<R>,
        key: impl Fn(&R) -> String,
        item: impl FnMut(R) -> T,
    ) -> PageOf<T> {
        let more = rows.len() > self.limit as usize;
        rows.truncate(self.limit as usize);
        let next_cursor = rows.last().filter(|_| more).map(|row| self.seal(&key(row)));
        PageOf { items: rows.into_iter().map(item).collect(), next_cursor }
    }

    fn seal(&self, key: &str) -> String {
        URL_SAFE_NO_PAD.encode(self.sealer.seal(context(&self.scope), key.as_bytes()))
    }
}

/// What is listed, without which part of it.
fn without_part(mut filters: serde_json::Value) -> serde_json::Value {
    if let Some(filters) = filters.as_object_mut() {
        filters.retain(|name, _| name != "limit" && name != "cursor");
    }
    filters
}

fn context(scope: &str) -> (&str, &str, &str) {
    ("http", "cursor", scope)
}

fn unseal(sealer: &Sealer, scope: &str, cursor: &str) -> Result<String> {
    if cursor.len() > CURSOR_BYTES_MAX {
        return Err(invalid_cursor());
    }
    let sealed = URL_SAFE_NO_PAD.decode(cursor).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let sealed = sealed.ok_or_else(invalid_cursor)?;
    let key = sealer.open(context(scope), &sealed).map_err(|_| invalid_cursor())?;
    String::from_utf8(key.expose_secret().to_vec()).map_err(|_| invalid_cursor())
}

fn invalid_cursor() -> Problem {
    let detail = "the cursor is not one that this list gave to this caller with these filters";
    Problem::new(StatusCode::BAD_REQUEST, "invalid_cursor", detail).try_next("begin again without a cursor")
}
