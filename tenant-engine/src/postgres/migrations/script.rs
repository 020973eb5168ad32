//! PURE: splits a text into statements as the server does, without asking the server.
//!
//! It knows strings, quoted names, dollar quotes, nested comments, parentheses and `begin atomic` bodies. The result
//! has three uses: to refuse transaction control before anything has run, to run a `-- no-transaction` file statement
//! by statement, and to report the line of a statement.

/// Words kept of each statement: enough to recognize its kind.
const WORDS_MAX: usize = 12;

/// One statement of a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::postgres) struct ScriptStatement<'a> {
    /// The text from its first token on, without the semicolon.
    pub(in crate::postgres) text: &'a str,
    /// The line of its first token, counted from 1.
    pub(super) line: usize,
    /// Its first words outside quotes and parentheses: keywords in upper case, quoted names as written.
    pub(super) words: Vec<String>,
}

impl ScriptStatement<'_> {
    /// True when the statement begins with these words.
    pub(in crate::postgres) fn begins_with(&self, words: &[&str]) -> bool {
        self.words.len() >= words.len() && self.words.iter().zip(words).all(|(found, word)| found == word)
    }
}

/// The statements in order; empty ones are left out. The last one may lack its semicolon or its closing quote.
pub(in crate::postgres) fn split_statements(sql: &str) -> Vec<ScriptStatement<'_>> {
    let mut lexer = ScriptLexer { sql, at: byte_order_mark(sql), found: Vec::new(), open: None, counted: 0, line: 1 };
    while let Some(token) = lexer.next_token() {
        lexer.take_token(token);
    }
    lexer.end_statement(sql.len());
    lexer.found
}

/// Length of the byte-order mark that some editors write at the start of a text.
pub(super) fn byte_order_mark(sql: &str) -> usize {
    if sql.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 }
}

/// The line of a byte, counted from 1.
pub(super) fn line_at(sql: &str, offset: usize) -> usize {
    1 + sql.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}

/// A piece of a text that is neither white space nor a comment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ScriptToken {
    kind: ScriptTokenKind,
    start: usize,
    end: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ScriptTokenKind {
    Semicolon,
    Open,
    Close,
    Word,
    /// A quoted name, such as `"a name"`.
    Name,
    /// A string, a number or an operator.
    Other,
}

struct ScriptLexer<'a> {
    sql: &'a str,
    at: usize,
    found: Vec<ScriptStatement<'a>>,
    open: Option<OpenStatement>,
    /// Lines are counted up to this byte.
    counted: usize,
    line: usize,
}

/// The statement that is being read.
struct OpenStatement {
    start: usize,
    words: Vec<String>,
    parentheses: usize,
    /// Number of open `begin atomic` and `case` blocks in a function's body.
    blocks: usize,
    after_begin: bool,
}

impl ScriptLexer<'_> {
    fn take_token(&mut self, token: ScriptToken) {
        let text = &self.sql[token.start..token.end];
        let inside = self.open.as_ref().is_some_and(|open| open.parentheses > 0 || open.blocks > 0);
        if token.kind == ScriptTokenKind::Semicolon && !inside {
            return self.end_statement(token.start);
        }
        let open = self.open.get_or_insert_with(|| OpenStatement::starting_at(token.start));
        match token.kind {
            ScriptTokenKind::Open => open.parentheses += 1,
            ScriptTokenKind::Close => open.parentheses = open.parentheses.saturating_sub(1),
            ScriptTokenKind::Word => open.add_word(text.to_uppercase()),
            ScriptTokenKind::Name if open.parentheses == 0 => open.keep_word(text.to_owned()),
            ScriptTokenKind::Name | ScriptTokenKind::Other | ScriptTokenKind::Semicolon => {}
        }
        open.after_begin = token.kind == ScriptTokenKind::Word && text.eq_ignore_ascii_case("begin");
    }

    fn end_statement(&mut self, end: usize) {
        if let Some(open) = self.open.take() {
            let text = self.sql[open.start..end].trim_end();
            self.line += line_at(&self.sql[self.counted..], open.start - self.counted) - 1;
            self.counted = open.start;
            self.found.push(ScriptStatement { text, line: self.line, words: open.words });
        }
    }

    fn next_token(&mut self) -> Option<ScriptToken> {
        self.skip_space();
        let start = self.at;
        let rest = &self.sql.as_bytes()[start..];
        let kind = match *rest.first()? {
            b';' => self.take_character(ScriptTokenKind::Semicolon),
            b'(' => self.take_character(ScriptTokenKind::Open),
            b')' => self.take_character(ScriptTokenKind::Close),
            b'\'' => self.skip_string(false),
            b'"' => self.until_quote(b'"', ScriptTokenKind::Name),
            b'$' => self.skip_dollar_quote(),
            b'e' | b'E' if rest.get(1) == Some(&b'\'') => {
                self.at += 1;
                self.skip_string(true)
            }
            byte if begins_word(byte) => self.take_word(),
            _ => self.take_character(ScriptTokenKind::Other),
        };
        Some(ScriptToken { kind, start, end: self.at })
    }

    /// Takes one character, of any length in bytes.
    fn take_character(&mut self, kind: ScriptTokenKind) -> ScriptTokenKind {
        self.at += self.sql[self.at..].chars().next().map_or(1, char::len_utf8);
        kind
    }

    fn take_word(&mut self) -> ScriptTokenKind {
        let bytes = self.sql.as_bytes();
        let length = bytes[self.at..].iter().take_while(|byte| begins_word(**byte) || is_inside_word(**byte)).count();
        self.at += length;
        ScriptTokenKind::Word
    }

    fn skip_string(&mut self, backslashes: bool) -> ScriptTokenKind {
        let bytes = self.sql.as_bytes();
        self.at += 1;
        while self.at < bytes.len() {
            match bytes[self.at] {
                b'\\' if backslashes => self.at += 1,
                b'\'' => {
                    self.at += 1;
                    return ScriptTokenKind::Other;
                }
                _ => {}
            }
            self.at += 1;
        }
        self.at = bytes.len();
        ScriptTokenKind::Other
    }

    /// A doubled quote counts as two adjacent quoted pieces, which end in the same place.
    fn until_quote(&mut self, quote: u8, kind: ScriptTokenKind) -> ScriptTokenKind {
        let rest = &self.sql.as_bytes()[self.at + 1..];
        self.at += rest.iter().position(|byte| *byte == quote).map_or(rest.len() + 1, |length| length + 2);
        kind
    }

    /// Skips `$$ … $$`, `$tag$ … $tag$`, or a single dollar sign of a parameter.
    fn skip_dollar_quote(&mut self) -> ScriptTokenKind {
        let rest = &self.sql[self.at..];
        let tag = rest[1..].find('$').map(|end| &rest[..end + 2]).filter(|tag| is_tag(&tag[1..tag.len() - 1]));
        let Some(tag) = tag else { return self.take_character(ScriptTokenKind::Other) };
        let body = &rest[tag.len()..];
        self.at += body.find(tag).map_or(rest.len(), |end| tag.len() + end + tag.len());
        ScriptTokenKind::Other
    }

    fn skip_space(&mut self) {
        loop {
            let rest = &self.sql[self.at..];
            let skipped = if rest.starts_with("--") {
                rest.find('\n').unwrap_or(rest.len())
            } else if rest.starts_with("/*") {
                comment_length(rest)
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

impl OpenStatement {
    fn starting_at(start: usize) -> Self {
        Self { start, words: Vec::new(), parentheses: 0, blocks: 0, after_begin: false }
    }

    fn add_word(&mut self, word: String) {
        match word.as_str() {
            "ATOMIC" if self.after_begin && self.defines_routine() => self.blocks += 1,
            "CASE" if self.blocks > 0 => self.blocks += 1,
            "END" if self.blocks > 0 => self.blocks -= 1,
            _ => {}
        }
        if self.parentheses == 0 && self.blocks == 0 {
            self.keep_word(word);
        }
    }

    fn keep_word(&mut self, word: String) {
        if self.words.len() < WORDS_MAX {
            self.words.push(word);
        }
    }

    fn defines_routine(&self) -> bool {
        let is_routine = |word: &String| matches!(word.as_str(), "FUNCTION" | "PROCEDURE");
        self.words.first().is_some_and(|word| word == "CREATE") && self.words.iter().take(4).any(is_routine)
    }
}

/// Length of a comment, which may contain other comments.
fn comment_length(text: &str) -> usize {
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
        split_statements(sql).iter().map(|statement| statement.text).collect()
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
        let found =
            split_statements("-- one\n\ncreate /* x */ index\n concurrently \"My i\" on t(a);\n\n drop table t;");
        assert_eq!(found.iter().map(|s| s.line).collect::<Vec<_>>(), [3, 6]);
        assert_eq!(found[0].words, ["CREATE", "INDEX", "CONCURRENTLY", "\"My i\"", "ON", "T"]);
        assert!(found[1].begins_with(&["DROP", "TABLE"]) && !found[1].begins_with(&["DROP", "TABLE", "T", "X"]));
    }
}
