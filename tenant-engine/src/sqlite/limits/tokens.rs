//! PURE: splits an SQL text into tokens exactly where SQLite splits it.
//!
//! Used by `complexity.rs`. A parenthesis that is hidden from SQLite (in a string, a quoted name, a comment or a
//! variable) is hidden here too, and no other. A text that SQLite cannot split ends where SQLite stops.

/// One token. White space and comments are not tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sqlite) enum SqliteToken<'a> {
    /// A keyword, an unquoted name, or a number.
    Word(&'a str),
    /// A name or text in quotes of any kind, including the quotes.
    Quoted(&'a str),
    /// One byte of an operator or of punctuation.
    Sign(u8),
    /// A bound parameter.
    Variable,
}

/// Splits a text into tokens.
#[derive(Debug, Clone)]
pub(in crate::sqlite) struct SqliteTokens<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> SqliteTokens<'a> {
    /// The tokens of this text.
    pub(in crate::sqlite) fn from_text(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// Position of the next token, in bytes.
    pub(in crate::sqlite) fn byte_offset(&self) -> usize {
        self.at
    }

    fn peek_byte(&self, ahead: usize) -> u8 {
        self.text.as_bytes().get(self.at + ahead).copied().unwrap_or(0)
    }

    /// Skips past the next occurrence of `end`, or to the end of the text.
    fn skip_past(&mut self, from: usize, end: &str) {
        let rest = self.text.get(self.at + from..).unwrap_or_default();
        self.at = rest.find(end).map_or(self.text.len(), |found| self.at + from + found + end.len());
    }

    /// Skips white space and comments.
    fn skip_blank(&mut self) {
        loop {
            match (self.peek_byte(0), self.peek_byte(1)) {
                (b' ' | b'\t' | b'\n' | b'\r' | 0x0c, _) => self.at += 1,
                (b'-', b'-') => self.skip_past(2, "\n"),
                (b'/', b'*') => self.skip_past(2, "*/"),
                _ => return,
            }
        }
    }

    fn read_word(&mut self) -> SqliteToken<'a> {
        let start = self.at;
        while is_name_byte(self.peek_byte(0)) {
            self.at += 1;
        }
        SqliteToken::Word(&self.text[start..self.at])
    }

    /// A doubled quote represents the quote itself.
    fn read_quoted(&mut self, close: u8) -> SqliteToken<'a> {
        let start = self.at;
        let bytes = self.text.as_bytes();
        self.at += 1;
        while self.at < bytes.len() {
            let closes = bytes[self.at] == close;
            let doubled = closes && close != b']' && self.peek_byte(1) == close;
            self.at += if doubled { 2 } else { 1 };
            if closes && !doubled {
                break;
            }
        }
        SqliteToken::Quoted(&self.text[start..self.at])
    }

    /// `$name::part(anything but space)` is one variable, for the Tcl interface.
    fn read_variable(&mut self) -> SqliteToken<'a> {
        self.at += 1;
        let mut named = false;
        loop {
            match self.peek_byte(0) {
                byte if is_name_byte(byte) => named = true,
                b':' if self.peek_byte(1) == b':' => self.at += 1,
                b'(' if named => {
                    self.skip_suffix();
                    return SqliteToken::Variable;
                }
                _ => return SqliteToken::Variable,
            }
            self.at += 1;
        }
    }

    fn skip_suffix(&mut self) {
        while self.at < self.text.len()
            && !matches!(self.peek_byte(0), b')' | b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
        {
            self.at += 1;
        }
        if self.peek_byte(0) == b')' {
            self.at += 1;
        }
    }
}

impl<'a> Iterator for SqliteTokens<'a> {
    type Item = SqliteToken<'a>;

    fn next(&mut self) -> Option<SqliteToken<'a>> {
        self.skip_blank();
        if self.at >= self.text.len() {
            return None;
        }
        Some(match self.peek_byte(0) {
            quote @ (b'\'' | b'"' | b'`') => self.read_quoted(quote),
            b'[' => self.read_quoted(b']'),
            b'$' | b'@' | b':' | b'#' => self.read_variable(),
            byte if is_name_byte(byte) => self.read_word(),
            byte => {
                self.at += 1;
                SqliteToken::Sign(byte)
            }
        })
    }
}

/// `$` may be inside a name, and so may every byte of a non-ASCII character.
fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte >= 0x80
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signs(text: &str) -> String {
        SqliteTokens::from_text(text)
            .filter_map(|token| if let SqliteToken::Sign(byte) = token { Some(char::from(byte)) } else { None })
            .collect()
    }

    #[test]
    fn only_what_sqlite_reads_as_a_sign_is_one() {
        for (text, expected) in [
            ("select (1)", "()"),
            ("'(' || \"(\" || `(` || [(]", "||||||"),
            ("'it''s (' (", "("),
            ("\"a\"\"(\" `b``(` (", "("),
            ("[a]](", "]("),
            ("-- (\n( /* ( */ ( /*/ ( */ (", "((("),
            ("(/* never closed (", "("),
            ("('never closed (", "("),
            ("$a(') ( $b(')", "("),
            ("$a(( ) (", ")("),
            ("@a::b(() (", "("),
            (":1 (?1)", "(?)"),
            ("a$(", "("),
            ("x'00' (", "("),
            ("1e5( 1.5(", "(.("),
            ("é(ü", "("),
        ] {
            assert_eq!(signs(text), expected, "{text}");
        }
    }
}
