//! Words of closed sets, such as states and roles: as text for an answer, and parsed from a request.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde::de::value::{Error as WordError, StrDeserializer};

use super::lookup::display_safe;
use crate::http::error::{Problem, Result};

/// The word that the API and the catalog use for a value.
pub(crate) fn word_of(value: &impl Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|json| json.as_str().map(str::to_owned)).unwrap_or_default()
}

/// Parses a word of a closed set. `field` names it in the refusal, which lists the words.
pub(crate) fn parse_choice<T: DeserializeOwned>(field: &str, word: &str) -> Result<T> {
    T::deserialize(StrDeserializer::<WordError>::new(&display_safe(word)))
        .map_err(|error| Problem::invalid(format!("{field}: {error}")))
}
