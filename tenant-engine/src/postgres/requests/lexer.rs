//! PURE: takes a SQL text apart as far as `sandbox.rs` needs: words and names are seen; strings, dollar quotes and
//! comments are skipped. As PostgreSQL's scanner with `standard_conforming_strings` on (chapter 4.1 of its manual). What
//! is not closed reaches to the end of the text; the server refuses it anyway.

/// One token; white space and comments are none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// A key word, or a name that is not quoted.
    Word(&'a str),
    /// A quoted name, without its quotes; one with quotes inside is [`Token::Other`], as no name of ours has any.
    Quoted(&'a str),
    /// `U&"…"`.
    UnicodeQuoted,
    /// A character of its own.
    Symbol(char),
    /// A string, a number, a parameter: of no interest.
    Other,
}

#[derive(Debug, Clone)]
pub(super) struct Lexer<'a> {
    rest: &'a str,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(sql: &'a str) -> Self {
        Self { rest: sql }
    }

    /// White space and comments; those with asterisks nest.
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

    fn take(&mut self, bytes: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(bytes);
        self.rest = rest;
        taken
    }

    /// Past the end of a string whose first quote is `bytes` away.
    fn string(&mut self, bytes: usize, escapes: Escapes) -> Token<'a> {
        let mut text = &self.rest.as_bytes()[bytes + 1..];
        while let Some((byte, rest)) = text.split_first() {
            text = match (byte, escapes) {
                (b'\\', Escapes::Backslash) => rest.get(1..).unwrap_or_default(),
                (b'\'', _) if rest.first() == Some(&b'\'') => &rest[1..],
                (b'\'', _) => match (continued(rest), escapes) {
                    // Only here it matters which kind of string goes on.
                    (Some(rest), Escapes::Backslash) => rest,
                    _ => {
                        self.take(self.rest.len() - rest.len());
                        return Token::Other;
                    }
                },
                _ => rest,
            };
        }
        self.rest = "";
        Token::Other
    }

    /// A quoted name whose first quote is next.
    fn quoted(&mut self) -> Token<'a> {
        let name = &self.rest[1..];
        let Some(end) = name.find('"') else {
            self.rest = "";
            return Token::Other;
        };
        self.rest = &name[end + 1..];
        if !self.rest.starts_with('"') {
            return Token::Quoted(&name[..end]);
        }
        // The rest of the name, up to a quote that stands alone.
        while self.rest.starts_with('"') {
            let more = &self.rest[1..];
            self.rest = more.find('"').map_or("", |end| &more[end + 1..]);
        }
        Token::Other
    }

    fn dollar(&mut self) -> Token<'a> {
        let tag = self.rest[1..].find(|c: char| !is_word_part(c) || c == '$').map(|end| &self.rest[..end + 2]);
        match tag {
            // A tag is empty or begins as a name does; `$1` is a parameter.
            Some(tag) if tag.ends_with('$') && !tag[1..].starts_with(|c: char| c.is_ascii_digit()) => {
                let text = &self.rest[tag.len()..];
                self.rest = text.find(tag).map_or("", |end| &text[end + tag.len()..]);
            }
            _ => {
                self.take(1);
            }
        }
        Token::Other
    }

    fn word(&mut self) -> Token<'a> {
        let end = self.rest.find(|c: char| !is_word_part(c)).unwrap_or(self.rest.len());
        let word = &self.rest[..end];
        let next = &self.rest.as_bytes()[end..];
        match (word, next) {
            ("e" | "E", [b'\'', ..]) => self.string(end, Escapes::Backslash),
            ("b" | "B" | "x" | "X" | "n" | "N", [b'\'', ..]) => self.string(end, Escapes::None),
            ("u" | "U", [b'&', b'\'', ..]) => self.string(end + 1, Escapes::None),
            ("u" | "U", [b'&', b'"', ..]) => {
                self.take(end + 1);
                self.quoted();
                Token::UnicodeQuoted
            }
            _ => Token::Word(self.take(end)),
        }
    }

    /// Digits, and what may follow them without a blank.
    fn number(&mut self) -> Token<'a> {
        let end = self.rest.find(|c: char| !is_digit_part(c)).unwrap_or(self.rest.len());
        self.take(end);
        Token::Other
    }
}

impl<'a> Iterator for Lexer<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        self.skip_blank();
        let first = self.rest.chars().next()?;
        Some(match first {
            '\'' => self.string(0, Escapes::None),
            '"' => self.quoted(),
            '$' => self.dollar(),
            '0'..='9' => self.number(),
            c if is_word_start(c) => self.word(),
            c => {
                self.take(c.len_utf8());
                Token::Symbol(c)
            }
        })
    }
}

#[derive(Clone, Copy)]
enum Escapes {
    None,
    Backslash,
}

fn is_word_start(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_' || !c.is_ascii()
}

fn is_word_part(c: char) -> bool {
    is_word_start(c) || c.is_ascii_digit() || c == '$'
}

/// Only digits: letters right after a number begin a word, in old versions.
fn is_digit_part(c: char) -> bool {
    c.is_ascii_digit()
}

/// What follows the opening quote, when a string goes on behind a line break.
fn continued(mut rest: &[u8]) -> Option<&[u8]> {
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
            Token::Word(word) | Token::Quoted(word) => Some(word),
            _ => None,
        };
        Lexer::new(sql).filter_map(word).collect()
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
            proptest::prop_assert!(Lexer::new(&sql).count() <= sql.chars().count());
        }

        #[test]
        fn any_mix_of_what_matters_comes_to_its_end(sql in "([eEuUxX&]|'|\"|\\$|\\\\|-|/|\\*|\n| |[a1é(])*") {
            proptest::prop_assert!(Lexer::new(&sql).count() <= sql.chars().count());
            let _ = super::super::sandbox::check(&sql);
        }
    }
}
