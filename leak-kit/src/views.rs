//! What a tenant sees: the answers of all routes that only read.

use std::collections::BTreeMap;

use crate::error::Result;
use crate::exchange::{ComparableAnswer, Exchange};
use crate::route::Route;
use crate::session::{Call, Session};
use crate::values::is_free_text;
use crate::world::Side;

/// Maximum number of rows that are read through each route with a key.
const KEYS_READ_MAX: usize = 3;

/// The answers of a tenant, by route and path.
pub(crate) struct TenantView {
    pub(crate) answers: BTreeMap<(String, String), Exchange>,
    side: Side,
}

/// The start of every canary: a search for it finds all rows.
const SEARCHED: &str = "lk";

/// The requests that show a tenant's data: each route that reads, with several keys, and with a text in its query.
pub(crate) fn reading_calls(session: &Session, side: Side) -> Vec<Call<'_>> {
    let with_keys = session.reads().flat_map(|route| calls_with_keys(session, route, side));
    let searching = session.reads().flat_map(|route| {
        let texts = route.query_parameters().filter(|parameter| is_free_text(&parameter.schema));
        texts.map(move |parameter| Call::own(route, side).parameter(&parameter.name, SEARCHED))
    });
    with_keys.chain(searching).collect()
}

/// The tenant's own requests to a route: one for each of its keys, or one without a key.
pub(crate) fn calls_with_keys<'r>(session: &Session, route: &'r Route, side: Side) -> Vec<Call<'r>> {
    let own = Call::own(route, side);
    let Some(last) = route.path_parameters().last() else { return vec![own] };
    let keys = session.known().of(side, route, &last.name).to_vec();
    match keys.is_empty() {
        true => vec![own],
        false => keys.iter().take(KEYS_READ_MAX).map(|key| own.clone().parameter(&last.name, key)).collect(),
    }
}

impl TenantView {
    /// Reads everything that the tenant sees.
    pub(crate) async fn read(session: &Session, side: Side) -> Result<Self> {
        let mut answers = BTreeMap::new();
        for call in reading_calls(session, side) {
            let (label, body) = (call.route.label(), call.route.example.clone().unwrap_or_default());
            let exchange = session.send_as_owner(call).await?;
            answers.insert((label, format!("{} {body}", exchange.path)), exchange);
        }
        Ok(Self { answers, side })
    }

    /// The answers that differ from those of an earlier view, without parts in which two earlier views differed.
    pub(crate) fn changes<'v>(&'v self, session: &Session, before: (&Self, &Self)) -> Vec<(&'v str, &'v Exchange)> {
        let name = &session.world.tenant(self.side).name;
        let form = |exchange: &Exchange| exchange.comparable(name);
        let changed = |(key, exchange): &(&'v (String, String), &'v Exchange)| {
            let (Some(one), Some(two)) = (before.0.answers.get(*key), before.1.answers.get(*key)) else { return false };
            let (one, two) = (form(one), form(two));
            let plain = |answer: ComparableAnswer| answer.without_varying(&one, &two);
            plain(form(exchange)) != plain(two.clone())
        };
        self.answers.iter().filter(changed).map(|((route, _), exchange)| (route.as_str(), exchange)).collect()
    }
}
