//! PURE: the tokens of a SQL text, cut exactly where SQLite cuts them.
//!
//! Used by `complexity.rs`. What hides a parenthesis from SQLite (a string, a quoted name, a comment, a variable) hides
//! it here too, and nothing else does. A text that SQLite cannot cut ends where SQLite stops.

/// One token. White space and comments are not tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// A keyword, a bare name, or a number.
    Word(&'a str),
    /// A name or text in quotes of any kind, with its quotes.
    Quoted(&'a str),
    /// One byte of an operator or of punctuation.
    Sign(u8),
    /// A bound parameter.
    Variable,
}

/// Cuts a text.
#[derive(Debug, Clone)]
pub(super) struct Tokens<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Tokens<'a> {
    /// The tokens of this text.
    pub(super) fn of(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// Where the next token is looked for, in bytes.
    pub(super) fn offset(&self) -> usize {
        self.at
    }

    fn peek(&self, ahead: usize) -> u8 {
        self.text.as_bytes().get(self.at + ahead).copied().unwrap_or(0)
    }

    /// Skips to the end of what `find` finds in the rest, or to the end of the text.
    fn skip_past(&mut self, from: usize, end: &str) {
        let rest = self.text.get(self.at + from..).unwrap_or_default();
        self.at = rest.find(end).map_or(self.text.len(), |found| self.at + from + found + end.len());
    }

    /// Skips white space and comments.
    fn skip_blank(&mut self) {
        loop {
            match (self.peek(0), self.peek(1)) {
                (b' ' | b'\t' | b'\n' | b'\r' | 0x0c, _) => self.at += 1,
                (b'-', b'-') => self.skip_past(2, "\n"),
                (b'/', b'*') => self.skip_past(2, "*/"),
                _ => return,
            }
        }
    }

    fn word(&mut self) -> Token<'a> {
        let start = self.at;
        while is_name_byte(self.peek(0)) {
            self.at += 1;
        }
        Token::Word(&self.text[start..self.at])
    }

    /// A doubled quote stands for itself.
    fn quoted(&mut self, close: u8) -> Token<'a> {
        let start = self.at;
        let bytes = self.text.as_bytes();
        self.at += 1;
        while self.at < bytes.len() {
            let closes = bytes[self.at] == close;
            let doubled = closes && close != b']' && self.peek(1) == close;
            self.at += if doubled { 2 } else { 1 };
            if closes && !doubled {
                break;
            }
        }
        Token::Quoted(&self.text[start..self.at])
    }

    /// `$name::part(anything but space)`, as the Tcl interface wants it, belongs to one variable.
    fn variable(&mut self) -> Token<'a> {
        self.at += 1;
        let mut named = false;
        loop {
            match self.peek(0) {
                byte if is_name_byte(byte) => named = true,
                b':' if self.peek(1) == b':' => self.at += 1,
                b'(' if named => {
                    self.suffix();
                    return Token::Variable;
                }
                _ => return Token::Variable,
            }
            self.at += 1;
        }
    }

    fn suffix(&mut self) {
        while self.at < self.text.len() && !matches!(self.peek(0), b')' | b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c) {
            self.at += 1;
        }
        if self.peek(0) == b')' {
            self.at += 1;
        }
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        self.skip_blank();
        if self.at >= self.text.len() {
            return None;
        }
        Some(match self.peek(0) {
            quote @ (b'\'' | b'"' | b'`') => self.quoted(quote),
            b'[' => self.quoted(b']'),
            b'$' | b'@' | b':' | b'#' => self.variable(),
            byte if is_name_byte(byte) => self.word(),
            byte => {
                self.at += 1;
                Token::Sign(byte)
            }
        })
    }
}

/// `$` may stand inside a name. Every byte of a character beyond ASCII may, too.
fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || byte >= 0x80
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signs(text: &str) -> String {
        Tokens::of(text)
            .filter_map(|token| if let Token::Sign(byte) = token { Some(char::from(byte)) } else { None })
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
