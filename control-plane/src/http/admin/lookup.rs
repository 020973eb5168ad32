//! From what a path or a filter says to a record, or a 404 that names it.

use std::str::FromStr;

use catalog::tenants::LabelSelector;
use catalog::{Name, ReadTx, ServerRecord, TenantRecord, server::ServerState, servers, tenants};

use crate::http::error::{Problem, Result};

/// What an operator typed, made safe to show: one line, not longer than any real name.
pub(crate) fn shown(text: &str) -> String {
    text.chars().take(80).flat_map(char::escape_debug).collect()
}

/// The tenant of this name (slug, alias or host) or id, in whatever state, with its labels.
pub(crate) async fn tenant(tx: &mut ReadTx, name: &str) -> Result<TenantRecord> {
    let found = match name.parse() {
        Ok(id) => tenants::get(tx, id).await?,
        Err(_) => tenants::by_name(tx, &normal(name)?).await?,
    };
    found.ok_or_else(|| {
        Problem::not_found(format!("there is no tenant '{}'", shown(name))).try_next("fleetctl tenant list")
    })
}

/// A name with a dot is a host, everything else a slug.
fn normal(name: &str) -> Result<Name> {
    Ok(if name.trim_end_matches('.').contains('.') { Name::host(name)? } else { Name::slug(name)? })
}

/// The server of this name or id that was not removed.
pub(crate) async fn server(tx: &mut ReadTx, name: &str) -> Result<ServerRecord> {
    let found = match name.parse() {
        Ok(id) => servers::get(tx, id).await?,
        Err(_) => servers::by_name(tx, name).await?,
    };
    found.filter(|server| server.state != ServerState::Removed).ok_or_else(|| {
        Problem::not_found(format!("there is no server '{}'", shown(name))).try_next("fleetctl server list")
    })
}

/// An id in a path: what is no id names nothing.
pub(crate) fn id<T: FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T> {
    text.parse().map_err(|error: T::Err| Problem::not_found(error.to_string()))
}

/// A label selector: `k=v,k2!=v2`.
pub(crate) fn labels(text: &str) -> Result<LabelSelector> {
    text.parse().map_err(|error: catalog::Error| Problem::invalid(format!("labels: {error}")))
}

/// One of a closed list of words; `what` names it in the refusal.
pub(crate) fn known<'a>(what: &str, word: Option<&'a str>, words: &[&str]) -> Result<Option<&'a str>> {
    match word {
        Some(word) if !words.contains(&word) => {
            let detail = format!("{what}: unknown value '{}', expected one of {}", shown(word), words.join(", "));
            Err(Problem::invalid(detail))
        }
        word => Ok(word),
    }
}

/// Values of an enum that is written in snake_case, separated by commas; `what` names it in the refusal.
pub(crate) fn states<T: serde::de::DeserializeOwned>(what: &str, text: Option<&str>) -> Result<Vec<T>> {
    let state = |word: &str| {
        serde_json::from_value(serde_json::Value::from(word)).map_err(|error| {
            let detail = error.to_string();
            Problem::invalid(format!("{what}: {}", detail.split(" at line").next().unwrap_or_default()))
        })
    };
    text.into_iter().flat_map(|text| text.split(',')).map(str::trim).map(state).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use catalog::TenantState;

    #[test]
    fn labels_are_selected_by_the_grammar_of_selectors() {
        for good in ["plan=pro, region=eu", "plan=", "plan!=free", "plan in (a,b)", "!plan"] {
            assert!(labels(good).is_ok(), "{good:?}");
        }
        for bad in ["", "plan!", "=pro", "plan=pro,,x=y"] {
            assert!(labels(bad).unwrap_err().error().detail.starts_with("labels: "), "{bad:?}");
        }
    }

    #[test]
    fn a_word_of_a_closed_list_is_known_or_refused_with_the_list() {
        let words = ["migrate", "backup"];
        assert_eq!(known("kind", Some("backup"), &words).unwrap(), Some("backup"));
        assert_eq!(known("kind", None, &words).unwrap(), None);
        let refused = known("kind", Some("mgirate"), &words).unwrap_err();
        assert_eq!(refused.error().detail, "kind: unknown value 'mgirate', expected one of migrate, backup");
    }

    #[test]
    fn states_are_named_when_unknown() {
        assert_eq!(states::<TenantState>("state", Some("active,deleted")).unwrap().len(), 2);
        assert!(states::<TenantState>("state", None).unwrap().is_empty());
        let refused = states::<TenantState>("state", Some("alive")).unwrap_err();
        assert!(refused.error().detail.contains("`alive`"), "{}", refused.error().detail);
    }

    #[test]
    fn what_is_shown_stays_one_short_line() {
        assert_eq!(shown("a\nb\0"), "a\\nb\\0");
        assert_eq!(shown(&"x".repeat(300)).len(), 80);
    }
}
