//! Enums as the words that stand in the catalog's text columns.

use crate::error::{Error, ErrorKind, Result};

/// An enum that is stored as one of a few words; the same words serde writes.
pub(crate) trait Word: Copy + PartialEq + 'static {
    /// What it is, for the message about a word this program does not know.
    const NOUN: &'static str;
    /// Every value with its word.
    const WORDS: &'static [(Self, &'static str)];

    /// The word of this value.
    fn word(self) -> &'static str {
        Self::WORDS
            .iter()
            .find(|(value, _)| *value == self)
            .map(|(_, word)| *word)
            .expect("every value is listed in WORDS")
    }

    /// The value of this word. A word unknown here was written by something else: `Corrupt`.
    fn of_word(word: &str) -> Result<Self> {
        Self::WORDS.iter().find(|(_, known)| *known == word).map(|(value, _)| *value).ok_or_else(|| {
            Error::new(ErrorKind::Corrupt, format!("the catalog holds an unknown {}: {word:?}", Self::NOUN))
        })
    }
}

/// Words as a list for `in (…)`; made of constants only.
pub(crate) fn list<W: Word>(values: &[W]) -> String {
    values.iter().map(|value| format!("'{}'", value.word())).collect::<Vec<_>>().join(",")
}
