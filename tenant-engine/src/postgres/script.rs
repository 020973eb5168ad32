//! PURE: the statements of a text, told apart as the server tells them apart, without asking it.
//!
//! Knows strings, quoted names, dollar quotes, nested comments, parentheses and `begin atomic` bodies. What it says is
//! used to refuse transaction control before anything has run, to run the statements of a `-- no-transaction` file one
//! by one, and to name the line a statement begins on.

/// Words kept of each statement: enough to tell what it is.
const WORDS_MAX: usize = 12;

/// One statement of a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Statement<'a> {
    /// From its first token on, without the semicolon.
    pub(super) text: &'a str,
    /// The line its first token is on, from 1.
    pub(super) line: usize,
    /// Its first words, outside quotes and parentheses: keywords in upper case, quoted names as written.
    pub(super) words: Vec<String>,
}

impl Statement<'_> {
    /// True when it begins with these words.
    pub(super) fn begins(&self, words: &[&str]) -> bool {
        self.words.len() >= words.len() && self.words.iter().zip(words).all(|(found, word)| found == word)
    }
}

/// The statements in order; empty ones are left out. The last one may lack its semicolon or its closing quote.
pub(super) fn statements(sql: &str) -> Vec<Statement<'_>> {
    let mut lexer = Lexer { sql, at: byte_order_mark(sql), found: Vec::new(), open: None, counted: 0, line: 1 };
    while let Some(token) = lexer.next() {
        lexer.take(token);
    }
    lexer.end(sql.len());
    lexer.found
}

/// Length of the byte-order mark that some editors put before a text.
pub(super) fn byte_order_mark(sql: &str) -> usize {
    if sql.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 }
}

/// The line a byte is on, from 1.
pub(super) fn line_at(sql: &str, offset: usize) -> usize {
    1 + sql.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}

/// A piece of a text that is neither white space nor a comment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Token {
    kind: Kind,
    start: usize,
    end: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Semicolon,
    Open,
    Close,
    Word,
    /// `"a name"`
    Name,
    /// A string, a number, an operator.
    Other,
}

struct Lexer<'a> {
    sql: &'a str,
    at: usize,
    found: Vec<Statement<'a>>,
    open: Option<Open>,
    /// Up to here the lines are counted.
    counted: usize,
    line: usize,
}

/// The statement that is being read.
struct Open {
    start: usize,
    words: Vec<String>,
    parentheses: usize,
    /// `begin atomic` and `case` inside a function's body.
    blocks: usize,
    after_begin: bool,
}

impl Lexer<'_> {
    fn take(&mut self, token: Token) {
        let text = &self.sql[token.start..token.end];
        let inside = self.open.as_ref().is_some_and(|open| open.parentheses > 0 || open.blocks > 0);
        if token.kind == Kind::Semicolon && !inside {
            return self.end(token.start);
        }
        let open = self.open.get_or_insert_with(|| Open::at(token.start));
        match token.kind {
            Kind::Open => open.parentheses += 1,
            Kind::Close => open.parentheses = open.parentheses.saturating_sub(1),
            Kind::Word => open.word(text.to_uppercase()),
            Kind::Name if open.parentheses == 0 => open.keep(text.to_owned()),
            Kind::Name | Kind::Other | Kind::Semicolon => {}
        }
        open.after_begin = token.kind == Kind::Word && text.eq_ignore_ascii_case("begin");
    }

    fn end(&mut self, end: usize) {
        if let Some(open) = self.open.take() {
            let text = self.sql[open.start..end].trim_end();
            self.line += line_at(&self.sql[self.counted..], open.start - self.counted) - 1;
            self.counted = open.start;
            self.found.push(Statement { text, line: self.line, words: open.words });
        }
    }

    fn next(&mut self) -> Option<Token> {
        self.skip_space();
        let start = self.at;
        let rest = &self.sql.as_bytes()[start..];
        let kind = match *rest.first()? {
            b';' => self.one(Kind::Semicolon),
            b'(' => self.one(Kind::Open),
            b')' => self.one(Kind::Close),
            b'\'' => self.string(false),
            b'"' => self.until_quote(b'"', Kind::Name),
            b'$' => self.dollar(),
            b'e' | b'E' if rest.get(1) == Some(&b'\'') => {
                self.at += 1;
                self.string(true)
            }
            byte if begins_word(byte) => self.word(),
            _ => self.one(Kind::Other),
        };
        Some(Token { kind, start, end: self.at })
    }

    /// One character, whatever its length.
    fn one(&mut self, kind: Kind) -> Kind {
        self.at += self.sql[self.at..].chars().next().map_or(1, char::len_utf8);
        kind
    }

    fn word(&mut self) -> Kind {
        let bytes = self.sql.as_bytes();
        let length = bytes[self.at..].iter().take_while(|byte| begins_word(**byte) || is_inside_word(**byte)).count();
        self.at += length;
        Kind::Word
    }

    fn string(&mut self, backslashes: bool) -> Kind {
        let bytes = self.sql.as_bytes();
        self.at += 1;
        while self.at < bytes.len() {
            match bytes[self.at] {
                b'\\' if backslashes => self.at += 1,
                b'\'' => {
                    self.at += 1;
                    return Kind::Other;
                }
                _ => {}
            }
            self.at += 1;
        }
        self.at = bytes.len();
        Kind::Other
    }

    /// A doubled quote is two quoted pieces side by side, which end in the same place.
    fn until_quote(&mut self, quote: u8, kind: Kind) -> Kind {
        let rest = &self.sql.as_bytes()[self.at + 1..];
        self.at += rest.iter().position(|byte| *byte == quote).map_or(rest.len() + 1, |length| length + 2);
        kind
    }

    /// `$$ … $$`, `$tag$ … $tag$`, or a lone dollar of a parameter.
    fn dollar(&mut self) -> Kind {
        let rest = &self.sql[self.at..];
        let tag = rest[1..].find('$').map(|end| &rest[..end + 2]).filter(|tag| is_tag(&tag[1..tag.len() - 1]));
        let Some(tag) = tag else { return self.one(Kind::Other) };
        let body = &rest[tag.len()..];
        self.at += body.find(tag).map_or(rest.len(), |end| tag.len() + end + tag.len());
        Kind::Other
    }

    fn skip_space(&mut self) {
        loop {
            let rest = &self.sql[self.at..];
            let skipped = if rest.starts_with("--") {
                rest.find('\n').unwrap_or(rest.len())
            } else if rest.starts_with("/*") {
                comment(rest)
            } else {
                rest.bytes().take_while(|byte| byte.is_ascii_whitespace() || *byte == 0x0b).count()
            };
            if skipped == 0 {
                return;
            }
            self.at += skipped;
        }
    }
}

impl Open {
    fn at(start: usize) -> Self {
        Self { start, words: Vec::new(), parentheses: 0, blocks: 0, after_begin: false }
    }

    fn word(&mut self, word: String) {
        match word.as_str() {
            "ATOMIC" if self.after_begin && self.defines_routine() => self.blocks += 1,
            "CASE" if self.blocks > 0 => self.blocks += 1,
            "END" if self.blocks > 0 => self.blocks -= 1,
            _ => {}
        }
        if self.parentheses == 0 && self.blocks == 0 {
            self.keep(word);
        }
    }

    fn keep(&mut self, word: String) {
        if self.words.len() < WORDS_MAX {
            self.words.push(word);
        }
    }

    fn defines_routine(&self) -> bool {
        let is_routine = |word: &String| matches!(word.as_str(), "FUNCTION" | "PROCEDURE");
        self.words.first().is_some_and(|word| word == "CREATE") && self.words.iter().take(4).any(is_routine)
    }
}

/// Length of a comment, which may hold others.
fn comment(text: &str) -> usize {
    let (mut at, mut depth) = (0, 0);
    let bytes = text.as_bytes();
    while at < bytes.len() {
        match bytes.get(at..at + 2) {
            Some(b"/*") => (at, depth) = (at + 2, depth + 1),
            Some(b"*/") => (at, depth) = (at + 2, depth - 1),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    bytes.len()
}

fn begins_word(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

fn is_inside_word(byte: u8) -> bool {
    byte.is_ascii_digit() || byte == b'$'
}

fn is_tag(tag: &str) -> bool {
    tag.bytes().all(|byte| begins_word(byte) || byte.is_ascii_digit())
        && tag.bytes().next().is_none_or(|first| !first.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(sql: &str) -> Vec<&str> {
        statements(sql).iter().map(|statement| statement.text).collect()
    }

    #[test]
    fn semicolons_inside_things_do_not_end_a_statement() {
        for one in [
            "select ';'",
            "select 'it''s; fine'",
            r"select E'\';', e'\\'",
            r"select '\'",
            "select \"a;\"\"b\" from t",
            "do $$ begin commit; end $$",
            "do $a1$ begin $$;$$; end $a1$",
            "select a$b$c from t",
            "select /* ; /* ; */ ; */ 1 -- ;\n + 1",
            "create rule r as on insert to t do also (delete from a; delete from b)",
            "create or replace function f() returns int begin atomic select case when true then 1 end; select 2; end",
            "create table \u{e4}(\u{f6} text default ';')",
        ] {
            assert_eq!(texts(&format!("  {one} ;\n ; select 2;")), [one, "select 2"], "{one}");
        }
        assert_eq!(texts("select $1; select a$b$ ; c"), ["select $1", "select a$b$", "c"]);
        assert_eq!(texts("select 'open; select 2"), ["select 'open; select 2"]);
        assert_eq!(texts(" -- nothing\n;; /* at all */ "), Vec::<&str>::new());
        assert_eq!(texts("\u{feff}select 1; select '\u{feff}'"), ["select 1", "select '\u{feff}'"]);
        assert_eq!(texts("begin; select 1; end"), ["begin", "select 1", "end"]);
        assert_eq!(texts("/* never closed; select 1"), Vec::<&str>::new());
    }

    #[test]
    fn lines_and_words_are_found() {
        let found = statements("-- one\n\ncreate /* x */ index\n concurrently \"My i\" on t(a);\n\n drop table t;");
        assert_eq!(found.iter().map(|s| s.line).collect::<Vec<_>>(), [3, 6]);
        assert_eq!(found[0].words, ["CREATE", "INDEX", "CONCURRENTLY", "\"My i\"", "ON", "T"]);
        assert!(found[1].begins(&["DROP", "TABLE"]) && !found[1].begins(&["DROP", "TABLE", "T", "X"]));
    }
}
