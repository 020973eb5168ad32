use http::header::{AUTHORIZATION, CACHE_CONTROL, ETAG, IF_NONE_MATCH};
use http::{HeaderMap, Method, StatusCode};

use crate::error::Result;
use crate::exchange::Exchange;
use crate::findings::{FindingKind, ProbeOutcome};
use crate::route::Route;
use crate::session::{Call, Session};
use crate::views::reading_calls;
use crate::world::{Caller, Side, TenantAddress};

/// How many rows A gets before a tag counts as the tenant's own.
const ROWS_ADDED_MAX: usize = 40;

pub(super) async fn run(session: &Session, outcome: &mut ProbeOutcome) -> Result<()> {
    for call in reading_calls(session, Side::First) {
        let label = call.route.label();
        let own = session.send(&call).await?;
        if !own.is_success() {
            continue;
        }
        outcome.control(&label);
        let has_authorization =
            session.world.tenant(Side::First).credential.iter().any(|(name, _)| *name == AUTHORIZATION);
        if is_shared(&own.headers, has_authorization) {
            let text = "a shared cache may store the answer: Cache-Control says neither private nor no-store";
            outcome.report(FindingKind::SharedCache, &label, text, &own);
        }
        check_tag(session, outcome, &call, &own).await?;
    }
    Ok(())
}

/// Whether a cache that several users share may store the answer and give it to others (RFC 9111, section 3). Answers to
/// requests with `Authorization` are stored only if the answer allows it; a cookie does not prevent it.
fn is_shared(headers: &HeaderMap, has_authorization: bool) -> bool {
    let values = headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    let words: Vec<String> =
        values.flat_map(|value| value.split(',')).map(|word| word.trim().to_ascii_lowercase()).collect();
    let has = |name: &str| words.iter().any(|word| word == name || word.starts_with(&format!("{name}=")));
    let is_allowed = has("public") || has("s-maxage") || (has("max-age") && !has_authorization);
    is_allowed && !has("private") && !has("no-store")
}

/// A tag of A's answer must not tell B that B's answer is unchanged. A tag may depend on the number of rows, so A adds rows
/// one by one until the tags are equal, or A has more rows than B.
async fn check_tag(session: &Session, outcome: &mut ProbeOutcome, call: &Call<'_>, own: &Exchange) -> Result<()> {
    if own.headers.get(ETAG).is_none() {
        return Ok(());
    }
    let adding =
        session.writes().filter(|route| route.method == Method::POST && route.path_parameters().next().is_none());
    let adding: Vec<&Route> = adding.filter(|route| session.reach_of(&route.label()).is_some()).collect();
    for round in 0..ROWS_ADDED_MAX {
        check_tag_once(session, outcome, call).await?;
        if let Some(route) = adding.get(round % adding.len().max(1)) {
            session.send_own(route, Side::First).await?;
        }
    }
    Ok(())
}

async fn check_tag_once(session: &Session, outcome: &mut ProbeOutcome, call: &Call<'_>) -> Result<()> {
    let own = session.send(call).await?;
    let Some(tag) = own.headers.get(ETAG).and_then(|tag| tag.to_str().ok()) else { return Ok(()) };
    let other = call.clone().to(TenantAddress::Of(Side::Second)).by(Caller::Member(Side::Second));
    let theirs = session.send(&other).await?;
    let answer = session.send(&other.header(IF_NONE_MATCH.as_str(), tag)).await?;
    if answer.status == StatusCode::NOT_MODIFIED && theirs.is_success() && theirs.body != own.body {
        let text = "the tag of one tenant's answer is accepted for another tenant's, which differs";
        outcome.report(FindingKind::SharedCache, &call.route.label(), text, &answer);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_answers_that_a_shared_cache_may_keep_are_reported() {
        let headers = |value: &str| HeaderMap::from_iter([(CACHE_CONTROL, value.parse().unwrap())]);
        let shared = |value: &str| is_shared(&headers(value), true);
        for value in ["public", "public, max-age=60", "s-maxage=1"] {
            assert!(shared(value), "{value}");
        }
        assert!(!shared("max-age=60") && is_shared(&headers("max-age=60"), false));
        for value in ["private, max-age=60", "no-store", "Private", "no-cache, no-store", "public, no-store"] {
            assert!(!shared(value), "{value}");
        }
        assert!(!is_shared(&HeaderMap::new(), false));
    }
}
