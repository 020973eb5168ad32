//! PURE: splits an SQL text into tokens as far as `sandbox.rs` needs: it reports words and names, and skips strings,
//! dollar quotes and comments. It works like PostgreSQL's scanner with `standard_conforming_strings` on (chapter 4.1 of
//! its manual). An unclosed string or comment extends to the end of the text; the server refuses it anyway.

/// One token; white space and comments are not tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PostgresToken<'a> {
    /// A keyword, or a name without quotes.
    Word(&'a str),
    /// A quoted name, without its quotes. A name with quotes inside is [`PostgresToken::Other`], because none of the
    /// refused names has any.
    Quoted(&'a str),
    /// A name of the form `U&"…"`.
    UnicodeQuoted,
    /// A single character.
    Symbol(char),
    /// A string, a number or a parameter, which the sandbox does not need.
    Other,
}

#[derive(Debug, Clone)]
pub(super) struct PostgresLexer<'a> {
    rest: &'a str,
}

impl<'a> PostgresLexer<'a> {
    pub(super) fn new(sql: &'a str) -> Self {
        Self { rest: sql }
    }

    /// Skips white space and comments; comments with asterisks nest.
    fn skip_blank(&mut self) {
        loop {
            let trimmed = self.rest.trim_start_matches([' ', '\t', '\n', '\r', '\x0b', '\x0c']);
            self.rest = if let Some(comment) = trimmed.strip_prefix("--") {
                comment.find(['\n', '\r']).map_or("", |end| &comment[end..])
            } else if trimmed.starts_with("/*") {
                after_comment(trimmed)
            } else {
                self.rest = trimmed;
                return;
            };
        }
    }

    fn take_bytes(&mut self, bytes: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(bytes);
        self.rest = rest;
        taken
    }

    /// Skips a string whose first quote is `bytes` away.
    fn skip_string(&mut self, bytes: usize, escapes: StringEscapes) -> PostgresToken<'a> {
        let mut text = &self.rest.as_bytes()[bytes + 1..];
        while let Some((byte, rest)) = text.split_first() {
            text = match (byte, escapes) {
                (b'\\', StringEscapes::Backslash) => rest.get(1..).unwrap_or_default(),
                (b'\'', _) if rest.first() == Some(&b'\'') => &rest[1..],
                (b'\'', _) => match (string_continuation(rest), escapes) {
                    // Only here does the kind of the continued string matter.
                    (Some(rest), StringEscapes::Backslash) => rest,
                    _ => {
                        self.take_bytes(self.rest.len() - rest.len());
                        return PostgresToken::Other;
                    }
                },
                _ => rest,
            };
        }
        self.rest = "";
        PostgresToken::Other
    }

    /// Takes a quoted name whose first quote is next.
    fn quoted_name(&mut self) -> PostgresToken<'a> {
        let name = &self.rest[1..];
        let Some(end) = name.find('"') else {
            self.rest = "";
            return PostgresToken::Other;
        };
        self.rest = &name[end + 1..];
        if !self.rest.starts_with('"') {
            return PostgresToken::Quoted(&name[..end]);
        }
        // Continues to a quote that is not doubled.
        while self.rest.starts_with('"') {
            let more = &self.rest[1..];
            self.rest = more.find('"').map_or("", |end| &more[end + 1..]);
        }
        PostgresToken::Other
    }

    fn skip_dollar_quote(&mut self) -> PostgresToken<'a> {
        let tag = self.rest[1..].find(|c: char| !is_word_part(c) || c == '$').map(|end| &self.rest[..end + 2]);
        match tag {
            // A tag is empty or begins like a name; `$1` is a parameter.
            Some(tag) if tag.ends_with('$') && !tag[1..].starts_with(|c: char| c.is_ascii_digit()) => {
                let text = &self.rest[tag.len()..];
                self.rest = text.find(tag).map_or("", |end| &text[end + tag.len()..]);
            }
            _ => {
                self.take_bytes(1);
            }
        }
        PostgresToken::Other
    }

    fn read_word(&mut self) -> PostgresToken<'a> {
        let end = self.rest.find(|c: char| !is_word_part(c)).unwrap_or(self.rest.len());
        let word = &self.rest[..end];
        let next = &self.rest.as_bytes()[end..];
        match (word, next) {
            ("e" | "E", [b'\'', ..]) => self.skip_string(end, StringEscapes::Backslash),
            ("b" | "B" | "x" | "X" | "n" | "N", [b'\'', ..]) => self.skip_string(end, StringEscapes::None),
            ("u" | "U", [b'&', b'\'', ..]) => self.skip_string(end + 1, StringEscapes::None),
            ("u" | "U", [b'&', b'"', ..]) => {
                self.take_bytes(end + 1);
                self.quoted_name();
                PostgresToken::UnicodeQuoted
            }
            _ => PostgresToken::Word(self.take_bytes(end)),
        }
    }

    /// Skips digits, and what may follow them without a blank.
    fn skip_number(&mut self) -> PostgresToken<'a> {
        let end = self.rest.find(|c: char| !is_digit_part(c)).unwrap_or(self.rest.len());
        self.take_bytes(end);
        PostgresToken::Other
    }
}

impl<'a> Iterator for PostgresLexer<'a> {
    type Item = PostgresToken<'a>;

    fn next(&mut self) -> Option<PostgresToken<'a>> {
        self.skip_blank();
        let first = self.rest.chars().next()?;
        Some(match first {
            '\'' => self.skip_string(0, StringEscapes::None),
            '"' => self.quoted_name(),
            '$' => self.skip_dollar_quote(),
            '0'..='9' => self.skip_number(),
            c if is_word_start(c) => self.read_word(),
            c => {
                self.take_bytes(c.len_utf8());
                PostgresToken::Symbol(c)
            }
        })
    }
}

#[derive(Clone, Copy)]
enum StringEscapes {
    None,
    Backslash,
}

fn is_word_start(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_' || !c.is_ascii()
}

fn is_word_part(c: char) -> bool {
    is_word_start(c) || c.is_ascii_digit() || c == '$'
}

/// Accepts only digits: in old versions, letters right after a number begin a word.
fn is_digit_part(c: char) -> bool {
    c.is_ascii_digit()
}

/// The text after the opening quote, when a string continues after a line break.
fn string_continuation(mut rest: &[u8]) -> Option<&[u8]> {
    let mut line_ended = false;
    loop {
        match rest {
            [b'\n' | b'\r', after @ ..] => (line_ended, rest) = (true, after),
            [b' ' | b'\t' | b'\x0b' | b'\x0c', after @ ..] => rest = after,
            [b'-', b'-', after @ ..] => {
                let end = after.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
                rest = &after[end?..];
            }
            [b'\'', after @ ..] if line_ended => return Some(after),
            _ => return None,
        }
    }
}

fn after_comment(text: &str) -> &str {
    let (bytes, mut at, mut depth) = (text.as_bytes(), 2, 1);
    while depth > 0 {
        match bytes.get(at..at + 2) {
            Some(b"/*") => (at, depth) = (at + 2, depth + 1),
            Some(b"*/") => (at, depth) = (at + 2, depth - 1),
            Some(_) => at += 1,
            None => return "",
        }
    }
    &text[at..]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(sql: &str) -> Vec<&str> {
        let word = |token| match token {
            PostgresToken::Word(word) | PostgresToken::Quoted(word) => Some(word),
            _ => None,
        };
        PostgresLexer::new(sql).filter_map(word).collect()
    }

    #[test]
    fn only_what_is_code_is_seen() {
        for (sql, seen) in [
            ("a 'b' c", vec!["a", "c"]),
            ("a 'b''c' d", vec!["a", "d"]),
            ("a 'b\\' c", vec!["a", "c"]),
            ("a E'b\\' c' d", vec!["a", "d"]),
            ("a e'b\\\\' c", vec!["a", "c"]),
            ("a E'b'\n'\\'' c --'", vec!["a", "c"]),
            ("a E'b' '\\' c", vec!["a", "c"]),
            ("a 'b'\n'\\' c", vec!["a", "c"]),
            ("a U&'\\' c", vec!["a", "c"]),
            ("a \"b c\" d", vec!["a", "b c", "d"]),
            ("a \"b\"\"c\" d", vec!["a", "d"]),
            ("a $$b$$ c", vec!["a", "c"]),
            ("a $x$b$$c$x$ d", vec!["a", "d"]),
            ("a $1 b $2c$d$2c$", vec!["a", "b", "c$d$2c$"]),
            ("a$b$c", vec!["a$b$c"]),
            ("a -- b\nc", vec!["a", "c"]),
            ("a /* b /* c */ d */ e", vec!["a", "e"]),
            ("a /* b", vec!["a"]),
            ("a 'b", vec!["a"]),
            ("1E'b\\' c' d", vec!["d"]),
            ("x'41' b'1' n'a' fooE'\\' d", vec!["fooE", "d"]),
            ("ä.öß('x')", vec!["ä", "öß"]),
        ] {
            assert_eq!(words(sql), seen, "{sql}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_comes_to_its_end(sql: String) {
            proptest::prop_assert!(PostgresLexer::new(&sql).count() <= sql.chars().count());
        }

        #[test]
        fn any_mix_of_what_matters_comes_to_its_end(sql in "([eEuUxX&]|'|\"|\\$|\\\\|-|/|\\*|\n| |[a1é(])*") {
            proptest::prop_assert!(PostgresLexer::new(&sql).count() <= sql.chars().count());
            let _ = super::super::sandbox::check_statement(&sql);
        }
    }
}
