//! Enums that are stored as words in the catalog's text columns.

use crate::error::{Error, ErrorKind, Result};

/// An enum that is stored as one of a few words, which are the words that serde writes.
pub(crate) trait TextEnum: Copy + PartialEq + 'static {
    /// Name of the enum, for the message about an unknown word.
    const NOUN: &'static str;
    /// Every value with its word.
    const WORDS: &'static [(Self, &'static str)];

    /// The word of this value.
    fn stored_text(self) -> &'static str {
        Self::WORDS
            .iter()
            .find(|(value, _)| *value == self)
            .map(|(_, word)| *word)
            .expect("every value is listed in WORDS")
    }

    /// The value of this word. An unknown word is `Corrupt`, because another program wrote it.
    fn from_stored_text(word: &str) -> Result<Self> {
        Self::WORDS.iter().find(|(_, known)| *known == word).map(|(value, _)| *value).ok_or_else(|| {
            Error::new(ErrorKind::Corrupt, format!("the catalog contains an unknown {}: {word:?}", Self::NOUN))
        })
    }
}

/// Words as a list for `in (…)`; made only of constants.
pub(crate) fn quoted_list<W: TextEnum>(values: &[W]) -> String {
    values.iter().map(|value| format!("'{}'", value.stored_text())).collect::<Vec<_>>().join(",")
}
