//! Finds the record that a path or a filter names, or answers 404 with the name.

use catalog::tenants::LabelSelector;
use catalog::{ReadTx, ServerRecord, TenantName, TenantRecord, server::ServerState, servers, tenants};

use tenant_engine::ids::{IdKind, ParseIdError, TypedId};

use crate::http::error::{Problem, Result};
use crate::plan::select::refuse_other_id;

/// A text from an operator, made safe to show: one line, at most as long as a real name.
pub(crate) fn display_safe(text: &str) -> String {
    text.chars().take(80).flat_map(char::escape_debug).collect()
}

/// The tenant with this name (slug, alias or host) or id, in any state, with its labels.
pub(crate) async fn find_tenant(tx: &mut ReadTx, name: &str) -> Result<TenantRecord> {
    let found = match name.parse() {
        Ok(id) => tenants::get(tx, id).await?,
        Err(error) => {
            refuse_other_id(name, &error)?;
            tenants::by_name(tx, &parse_name(name)?).await?
        }
    };
    found.ok_or_else(|| {
        Problem::not_found(format!("there is no tenant '{}'", display_safe(name))).try_next("fleetctl tenant list")
    })
}

/// A name with a dot is a host, everything else a slug.
fn parse_name(name: &str) -> Result<TenantName> {
    Ok(if name.trim_end_matches('.').contains('.') {
        TenantName::parse_host(name)?
    } else {
        TenantName::parse_slug(name)?
    })
}

/// The server with this name or id, unless it was removed.
pub(crate) async fn find_server(tx: &mut ReadTx, name: &str) -> Result<ServerRecord> {
    let found = match name.parse() {
        Ok(id) => servers::get(tx, id).await?,
        Err(error) => {
            refuse_other_id(name, &error)?;
            servers::by_name(tx, name).await?
        }
    };
    found.filter(|server| server.state != ServerState::Removed).ok_or_else(|| {
        Problem::not_found(format!("there is no server '{}'", display_safe(name))).try_next("fleetctl server list")
    })
}

/// Parses an id in a path. An invalid id is answered with 404.
pub(crate) fn parse_id<K: IdKind>(text: &str) -> Result<TypedId<K>> {
    text.parse().map_err(|error: ParseIdError| {
        let list = match K::PREFIX {
            "op" => "fleetctl op list",
            "bkp" => "fleetctl backup list",
            "rel" => "fleetctl release list",
            "tok" => "fleetctl token list",
            "whk" => "fleetctl webhook list",
            _ => "fleetctl tenant list",
        };
        Problem::not_found(error.to_string()).try_next(format!("{list}      # the ids that exist"))
    })
}

/// Parses a label selector: `k=v,k2!=v2`.
pub(crate) fn parse_labels(text: &str) -> Result<LabelSelector> {
    text.parse().map_err(|error: catalog::Error| Problem::invalid(format!("labels: {error}")))
}

/// Parses one of a closed list of words. `what` names the field in the refusal.
pub(crate) fn parse_word<'a>(what: &str, word: Option<&'a str>, words: &[&str]) -> Result<Option<&'a str>> {
    match word {
        Some(word) if !words.contains(&word) => {
            let detail =
                format!("{what}: unknown value '{}', expected one of {}", display_safe(word), words.join(", "));
            Err(Problem::invalid(detail))
        }
        word => Ok(word),
    }
}

/// Parses values of an enum in snake_case, separated by commas. `what` names the field in the refusal.
pub(crate) fn parse_states<T: serde::de::DeserializeOwned>(what: &str, text: Option<&str>) -> Result<Vec<T>> {
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
            assert!(parse_labels(good).is_ok(), "{good:?}");
        }
        for bad in ["", "plan!", "=pro", "plan=pro,,x=y"] {
            assert!(parse_labels(bad).unwrap_err().as_error().detail.starts_with("labels: "), "{bad:?}");
        }
    }

    #[test]
    fn a_word_of_a_closed_list_is_known_or_refused_with_the_list() {
        let words = ["migrate", "backup"];
        assert_eq!(parse_word("kind", Some("backup"), &words).unwrap(), Some("backup"));
        assert_eq!(parse_word("kind", None, &words).unwrap(), None);
        let refused = parse_word("kind", Some("mgirate"), &words).unwrap_err();
        assert_eq!(refused.as_error().detail, "kind: unknown value 'mgirate', expected one of migrate, backup");
    }

    #[test]
    fn states_are_named_when_unknown() {
        assert_eq!(parse_states::<TenantState>("state", Some("active,deleted")).unwrap().len(), 2);
        assert!(parse_states::<TenantState>("state", None).unwrap().is_empty());
        let refused = parse_states::<TenantState>("state", Some("alive")).unwrap_err();
        assert!(refused.as_error().detail.contains("`alive`"), "{}", refused.as_error().detail);
    }

    #[test]
    fn what_is_shown_stays_one_short_line() {
        assert_eq!(display_safe("a\nb\0"), "a\\nb\\0");
        assert_eq!(display_safe(&"x".repeat(300)).len(), 80);
    }
}
