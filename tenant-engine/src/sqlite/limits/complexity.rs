//! PURE: measures how deep and how large a statement becomes inside SQLite, before SQLite reads it.
//!
//! SQLite prepares a statement by recursion over its tree. A short text with deep nesting takes much stack. Common
//! table expressions that use each other take memory and time that grow with a power of the text's length. Neither
//! stops at a deadline, so both are limited here. Called for requests by `requests/statement.rs` and for migrations by
//! `migrations/script.rs`; views of a schema are measured by `views.rs`.
//!
//! One pass over the tokens keeps a stack of [`ParenthesisLevel`]s, one for each open parenthesis. A level that closes
//! adds its depth to the level around it, and resolves the common table expressions that its names refer to.

use super::tokens::{SqliteToken, SqliteTokens};

/// Maximum depth of nested parentheses. People write 5, generators of SQL 30; SQLite's time and memory grow with the
/// cube.
const PARENTHESES_MAX: usize = 100;

/// Maximum levels of the tree that SQLite walks by recursion: parentheses, arms of compounds, BETWEEN and the bodies of
/// common table expressions that use each other. Each takes at most 3 KB of stack, and a worker has
/// `STACK_BYTES` (`requests/workers.rs`).
const DEPTH_MAX: usize = 1_000;

/// Maximum levels of a view or trigger in a file from elsewhere. Nobody writes so many, and SQLite needs a second for
/// them.
const STORED_DEPTH_MAX: usize = 500;

/// Maximum tokens that common table expressions add when each use is replaced by its text.
const TOKENS_MAX: usize = 200_000;

/// Maximum number of LIKE and GLOB in one statement. Each comparison runs between two checks of the clock.
const PATTERNS_MAX: usize = 1_000;

/// The weight of a LIKE or GLOB among the values: it takes much longer than a function that reads its text once.
const PATTERN_VALUES: usize = 16;

/// A text with at most this many parentheses and operators, and this short, cannot be complex.
const SIMPLE_SIGNS_MAX: usize = 4;
const SIMPLE_BYTES_MAX: usize = 2_000;

/// The cost of a statement inside SQLite.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::sqlite) struct StatementComplexity {
    /// Maximum depth of nested parentheses.
    parentheses: usize,
    /// Maximum levels of recursion.
    depth: usize,
    /// Tokens that common table expressions and views add where they are used.
    tokens: usize,
    /// Function calls, concatenations and JSON operators. Each may hold a value of its own while the statement runs.
    pub(in crate::sqlite) values: usize,
    /// Number of LIKE and GLOB.
    patterns: usize,
    /// True when common table expressions use each other in a circle.
    circle: bool,
    /// Tables and views that the statement reads, each as often as it is named.
    pub(super) names: Vec<String>,
}

impl StatementComplexity {
    /// True when the statement is simple because of its length alone.
    pub(in crate::sqlite) fn is_simple(sql: &str) -> bool {
        sql.len() <= SIMPLE_BYTES_MAX
            && sql.bytes().filter(|byte| matches!(byte, b'(' | b'|' | b'>')).count() <= SIMPLE_SIGNS_MAX
            && !has_pattern(sql.as_bytes())
    }

    /// Measures one statement.
    pub(in crate::sqlite) fn measure_sql(sql: &str) -> Self {
        let mut tokens = SqliteTokens::from_text(sql);
        measure_statement(&mut tokens)
    }

    /// Checks the limits, and names the exceeded one for the author of the statement.
    ///
    /// # Errors
    /// The reason as a sentence.
    pub(in crate::sqlite) fn check_limits(&self) -> Result<(), String> {
        if self.parentheses > PARENTHESES_MAX {
            return Err(format!("the SQL nests more than {PARENTHESES_MAX} parentheses"));
        }
        if self.circle {
            return Err("common table expressions of the SQL refer to each other in a circle".to_owned());
        }
        if self.depth > DEPTH_MAX {
            return Err(format!("the SQL is nested {} levels deep, at most {DEPTH_MAX} are allowed", self.depth));
        }
        if self.patterns > PATTERNS_MAX {
            return Err(format!("the SQL has more than {PATTERNS_MAX} LIKE or GLOB"));
        }
        if self.tokens > TOKENS_MAX {
            let message = "the SQL uses its common table expressions so often that it grows to more than";
            return Err(format!("{message} {TOKENS_MAX} words"));
        }
        Ok(())
    }
}

/// Whether a text contains the letters of LIKE or GLOB.
fn has_pattern(sql: &[u8]) -> bool {
    let is = |from: usize, word: &[u8]| sql.get(from..from + 4).is_some_and(|text| text.eq_ignore_ascii_case(word));
    memchr::memchr2_iter(b'l', b'L', sql).any(|at| is(at, b"like") || (at > 0 && is(at - 1, b"glob")))
}

/// Checks every statement of a script; returns the offset of the statement that is too complex, and the reason.
///
/// # Errors
/// Offset in bytes, and the reason as a sentence.
pub(in crate::sqlite) fn check_script(sql: &str) -> Result<(), (usize, String)> {
    let mut tokens = SqliteTokens::from_text(sql);
    while tokens.byte_offset() < sql.len() {
        let start = tokens.byte_offset();
        measure_statement(&mut tokens).check_limits().map_err(|why| (start, why))?;
    }
    Ok(())
}

/// Checks a text of a schema that no migration of this program has made: only for statements that SQLite cannot handle.
///
/// # Errors
/// The reason as a sentence.
pub(super) fn check_stored(sql: &str) -> Result<(), String> {
    let mut tokens = SqliteTokens::from_text(sql);
    while tokens.byte_offset() < sql.len() {
        let measure = measure_statement(&mut tokens);
        if measure.depth.max(measure.parentheses) > STORED_DEPTH_MAX || measure.tokens > TOKENS_MAX {
            return Err(format!(
                "it nests more than {STORED_DEPTH_MAX} levels, or grows to more than {TOKENS_MAX} words"
            ));
        }
    }
    Ok(())
}

/// Measures up to the next semicolon or the end.
fn measure_statement(tokens: &mut SqliteTokens<'_>) -> StatementComplexity {
    let mut walk = ComplexityWalk { levels: vec![ParenthesisLevel::default()], ..ComplexityWalk::default() };
    for token in tokens.by_ref() {
        if token == SqliteToken::Sign(b';') {
            break;
        }
        walk.take_token(token);
    }
    walk.finish_measure()
}

/// A name without its quotes, in the form in which SQLite compares names.
pub(in crate::sqlite) fn plain_name(name: &str) -> String {
    let Some(quote) = name.chars().next().filter(|first| matches!(first, '"' | '\'' | '`' | '[')) else {
        return name.to_ascii_lowercase();
    };
    let close = if quote == '[' { ']' } else { quote };
    // Without a closing quote it is an error that SQLite reports.
    let bare = name[1..].strip_suffix(close).unwrap_or(&name[1..]);
    bare.replace(&[quote, quote].iter().collect::<String>(), &quote.to_string()).to_ascii_lowercase()
}

/// What may come next in a list of tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum TablePosition {
    /// Outside a FROM clause.
    #[default]
    Elsewhere,
    /// A table may be named here.
    Table,
    /// In a FROM clause, after a table: a comma or JOIN leads to the next table.
    Behind,
}

/// One open parenthesis, or the whole statement.
#[derive(Debug, Default)]
struct ParenthesisLevel {
    place: TablePosition,
    /// Compound arms and BETWEENs at this level.
    own: usize,
    /// The deepest level inside.
    inner: usize,
    /// The name before the parenthesis: a common table expression with columns, or a function.
    before: Option<String>,
    /// The common table expression whose body this level is.
    body: Option<usize>,
    /// Common table expressions that are defined at this level.
    defined: Vec<(String, usize)>,
    /// Unresolved names, each with the body in which it stands.
    names: Vec<(String, Option<usize>)>,
}

/// A common table expression.
#[derive(Debug, Default)]
struct CommonTableExpression {
    depth: usize,
    tokens: usize,
    uses: Vec<usize>,
}

#[derive(Debug, Default)]
struct ComplexityWalk {
    levels: Vec<ParenthesisLevel>,
    bodies: Vec<CommonTableExpression>,
    /// Uses outside of all bodies.
    uses: Vec<usize>,
    tokens: usize,
    values: usize,
    patterns: usize,
    parentheses: usize,
    /// The last name or number, when it was the last token.
    last: Option<String>,
    /// True when the last token was IN.
    after_in: bool,
    /// The name before AS.
    before_as: Option<String>,
    /// A table name, unless a dot follows: then it is the name of a schema.
    named: Option<String>,
    /// Tables and views named with their schema, which are never common table expressions.
    qualified: Vec<String>,
    /// True when the last token was the dot after a schema.
    behind_schema: bool,
    /// The last token, if it was an operator or punctuation.
    sign: u8,
}

impl ComplexityWalk {
    fn take_token(&mut self, token: SqliteToken<'_>) {
        self.tokens += 1;
        let behind_schema = std::mem::take(&mut self.behind_schema);
        if let Some(name) = self.named.take() {
            if token == SqliteToken::Sign(b'.') {
                self.behind_schema = true;
            } else {
                let owner = self.levels.iter().rev().find_map(|level| level.body);
                self.current_level().names.push((name, owner));
            }
        }
        match token {
            SqliteToken::Sign(b'(') => self.open_level(),
            SqliteToken::Sign(b')') => self.close_level(),
            SqliteToken::Sign(sign) => self.take_operator(sign),
            SqliteToken::Quoted(name) if behind_schema => self.qualified.push(plain_name(name)),
            SqliteToken::Word(name) if behind_schema => self.qualified.push(plain_name(name)),
            SqliteToken::Quoted(name) => self.take_name(plain_name(name)),
            SqliteToken::Word(word) => self.take_word(&word.to_ascii_lowercase()),
            SqliteToken::Variable => self.forget_last(),
        }
        self.sign = if let SqliteToken::Sign(sign) = token { sign } else { 0 };
    }

    /// Forgets the tokens before, which do not affect the next one.
    fn forget_last(&mut self) {
        self.last = None;
        self.before_as = None;
        self.after_in = false;
    }

    fn current_level(&mut self) -> &mut ParenthesisLevel {
        if self.levels.is_empty() {
            self.levels.push(ParenthesisLevel::default());
        }
        let last = self.levels.len() - 1;
        &mut self.levels[last]
    }

    fn take_operator(&mut self, sign: u8) {
        self.values += usize::from(matches!((self.sign, sign), (b'|', b'|') | (b'-', b'>')));
        self.forget_last();
        let level = self.current_level();
        if sign == b',' && level.place != TablePosition::Elsewhere {
            level.place = TablePosition::Table;
        }
    }

    /// A word counts as a keyword only where SQLite cannot take it for a name.
    fn take_word(&mut self, word: &str) {
        self.patterns += usize::from(matches!(word, "like" | "glob"));
        match word {
            "as" => self.before_as = self.last.take(),
            "not" | "materialized" if self.before_as.is_some() => {}
            _ if self.take_keyword(word) => {
                self.forget_last();
                self.after_in = word == "in";
            }
            _ => self.take_name(word.to_owned()),
        }
    }

    fn take_keyword(&mut self, word: &str) -> bool {
        let level = self.current_level();
        match word {
            "from" | "join" => level.place = TablePosition::Table,
            "select" | "where" | "group" | "order" | "having" | "limit" | "set" | "returning" | "values" => {
                level.place = TablePosition::Elsewhere;
            }
            "union" | "intersect" | "except" => {
                level.place = TablePosition::Elsewhere;
                level.own += 1;
            }
            "between" => level.own += 1,
            "in" | "and" | "or" | "not" | "on" | "using" | "exists" | "when" | "then" | "else" | "case"
            | "distinct" | "all" | "is" | "escape" | "into" | "check" | "default" | "references" => {}
            _ => return false,
        }
        true
    }

    fn take_name(&mut self, name: String) {
        let after_in = self.after_in;
        let level = self.current_level();
        if level.place == TablePosition::Table {
            level.place = TablePosition::Behind;
            self.named = Some(name.clone());
        } else if after_in {
            self.named = Some(name.clone());
        }
        self.forget_last();
        self.last = Some(name);
    }

    fn open_level(&mut self) {
        let (body, before) = (self.before_as.take(), self.last.take());
        self.forget_last();
        let level = self.current_level();
        // A parenthesis in the place of a table represents a table, and may begin with one.
        let place = level.place;
        let inside = match place {
            TablePosition::Table => {
                level.place = TablePosition::Behind;
                TablePosition::Table
            }
            TablePosition::Behind | TablePosition::Elsewhere => TablePosition::Elsewhere,
        };
        self.values += usize::from(before.is_some());
        let body = body.map(|name| self.define_expression(name));
        self.levels.push(ParenthesisLevel { place: inside, before, body, ..ParenthesisLevel::default() });
        self.parentheses = self.parentheses.max(self.levels.len() - 1);
    }

    /// Begins the definition of a common table expression. Until it ends, its size field holds the position of its
    /// start.
    fn define_expression(&mut self, name: String) -> usize {
        self.bodies.push(CommonTableExpression { tokens: self.tokens, ..CommonTableExpression::default() });
        let number = self.bodies.len() - 1;
        self.current_level().defined.push((name, number));
        number
    }

    fn close_level(&mut self) {
        // A closing parenthesis too many is an error that SQLite reports.
        if self.levels.len() < 2 {
            return;
        }
        let Some(closed) = self.levels.pop() else { return };
        let depth = 1 + closed.own + closed.inner;
        if let Some(number) = closed.body {
            let body = &mut self.bodies[number];
            body.depth = depth;
            body.tokens = self.tokens - body.tokens;
        }
        let left = self.resolve_names(closed.defined, closed.names);
        self.last = closed.before;
        let level = self.current_level();
        level.inner = level.inner.max(depth);
        level.names.extend(left);
    }

    /// Resolves the names at this level; returns those that refer to an outer level.
    fn resolve_names(
        &mut self,
        defined: Vec<(String, usize)>,
        names: Vec<(String, Option<usize>)>,
    ) -> Vec<(String, Option<usize>)> {
        if defined.is_empty() {
            return names;
        }
        let defined: std::collections::HashMap<String, usize> = defined.into_iter().collect();
        let mut left = Vec::new();
        for (name, owner) in names {
            match (defined.get(&name), owner) {
                // The expression itself: a recursive one, whose text SQLite inserts once.
                (Some(body), Some(owner)) if *body == owner => {}
                (Some(body), Some(owner)) => self.bodies[owner].uses.push(*body),
                (Some(body), None) => self.uses.push(*body),
                (None, _) => left.push((name, owner)),
            }
        }
        left
    }

    fn finish_measure(mut self) -> StatementComplexity {
        // The last name of the text still waits for the token after it.
        self.take_token(SqliteToken::Sign(b' '));
        while self.levels.len() > 1 {
            self.close_level();
        }
        let top = self.levels.pop().unwrap_or_default();
        let left = self.resolve_names(top.defined, top.names);
        let mut sizes =
            ExpressionSizes { bodies: &self.bodies, known: vec![KnownSize::No; self.bodies.len()], circle: false };
        let (depth, tokens) = sizes.of_all(&self.uses, DEPTH_MAX);
        StatementComplexity {
            parentheses: self.parentheses,
            depth: top.own + top.inner + depth,
            tokens,
            values: self.values + PATTERN_VALUES * self.patterns,
            patterns: self.patterns,
            circle: sizes.circle,
            names: left.into_iter().map(|(name, _)| name).chain(self.qualified).collect(),
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum KnownSize {
    No,
    /// This expression is being measured.
    Open,
    Size(usize, usize),
}

/// Depth and tokens of bodies, with the texts of all expressions that they use inserted.
struct ExpressionSizes<'a> {
    bodies: &'a [CommonTableExpression],
    known: Vec<KnownSize>,
    circle: bool,
}

impl ExpressionSizes<'_> {
    /// The greatest depth, and the sum of the tokens.
    fn of_all(&mut self, uses: &[usize], left: usize) -> (usize, usize) {
        uses.iter().fold((0, 0), |(depth, tokens), used| {
            let (deep, large) = self.expression_size(*used, left);
            (depth.max(deep), tokens.saturating_add(large))
        })
    }

    /// Goes no deeper than `left`, because anything deeper is too deep in any case.
    fn expression_size(&mut self, number: usize, left: usize) -> (usize, usize) {
        match self.known[number] {
            KnownSize::Size(depth, tokens) => return (depth, tokens),
            KnownSize::Open => {
                self.circle = true;
                return (0, 0);
            }
            KnownSize::No if left == 0 => return (DEPTH_MAX, TOKENS_MAX),
            KnownSize::No => self.known[number] = KnownSize::Open,
        }
        let bodies = self.bodies;
        let body = &bodies[number];
        let (depth, tokens) = self.of_all(&body.uses, left - 1);
        let size = (depth + body.depth, tokens.saturating_add(body.tokens));
        self.known[number] = KnownSize::Size(size.0, size.1);
        size
    }
}

#[cfg(test)]
mod tests;
