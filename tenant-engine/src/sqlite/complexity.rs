//! PURE: how deep and how large a statement becomes inside SQLite, measured before SQLite sees it.
//!
//! SQLite prepares a statement by recursion over its tree: a short text that nests deeply takes much stack, and one
//! whose common table expressions use each other takes memory and time that grow with a power of its length. Neither
//! stops at a deadline, so both are bounded here. Called for requests by `statement.rs` and for migrations by
//! `script.rs`; views of a schema are measured by `views.rs`.
//!
//! One pass over the tokens keeps a stack of [`Level`]s, one for each open parenthesis. A level that closes adds its
//! depth to the level around it, and finds the common table expressions that its names mean.

use super::tokens::{Token, Tokens};

/// Parentheses inside each other. People write 5, generators of SQL 30; SQLite's time and memory grow with the cube.
const PARENTHESES_MAX: usize = 100;

/// Levels of the tree that SQLite walks by recursion: parentheses, arms of compounds, BETWEEN and the bodies of common
/// table expressions that use each other. Each takes at most 3 KB of stack, and a worker has [`super::workers::STACK_BYTES`].
const DEPTH_MAX: usize = 1_000;

/// Levels of a view or trigger in a file from elsewhere. Nobody writes so many, and SQLite needs a second for them.
const STORED_DEPTH_MAX: usize = 500;

/// Tokens that the uses of common table expressions add when each is replaced by its text.
const TOKENS_MAX: usize = 200_000;

/// LIKE and GLOB of one statement. Each is compared between two looks at the clock.
const PATTERNS_MAX: usize = 1_000;

/// What one of them counts among the values: it takes much longer than a function that reads its text once.
const PATTERN_VALUES: usize = 16;

/// A text with so few parentheses and operators, and this short, cannot be complex.
const SIMPLE_SIGNS_MAX: usize = 4;
const SIMPLE_BYTES_MAX: usize = 2_000;

/// What a statement takes inside SQLite.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Measure {
    /// Most parentheses inside each other.
    parentheses: usize,
    /// Levels of recursion at most.
    depth: usize,
    /// Tokens that common table expressions and views add where they are used.
    tokens: usize,
    /// Function calls, concatenations and JSON operators: each may hold a value of its own while the statement runs.
    pub(super) values: usize,
    /// LIKE and GLOB.
    patterns: usize,
    /// Common table expressions that use each other in a circle.
    circle: bool,
    /// Tables and views that it reads, each as often as it is named.
    pub(super) names: Vec<String>,
}

impl Measure {
    /// The measure of a statement that is simple by its length alone.
    pub(super) fn is_simple(sql: &str) -> bool {
        sql.len() <= SIMPLE_BYTES_MAX
            && sql.bytes().filter(|byte| matches!(byte, b'(' | b'|' | b'>')).count() <= SIMPLE_SIGNS_MAX
            && !has_pattern(sql.as_bytes())
    }

    /// The measure of one statement.
    pub(super) fn of(sql: &str) -> Self {
        let mut tokens = Tokens::of(sql);
        statement(&mut tokens)
    }

    /// Says what is too much, for the author of the statement.
    ///
    /// # Errors
    /// The reason as a sentence.
    pub(super) fn check(&self) -> Result<(), String> {
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

/// Whether the letters of LIKE or GLOB are in a text.
fn has_pattern(sql: &[u8]) -> bool {
    let is = |from: usize, word: &[u8]| sql.get(from..from + 4).is_some_and(|text| text.eq_ignore_ascii_case(word));
    memchr::memchr2_iter(b'l', b'L', sql).any(|at| is(at, b"like") || (at > 0 && is(at - 1, b"glob")))
}

/// Checks every statement of a script; returns the offset of the statement that is too complex, and the reason.
///
/// # Errors
/// Offset in bytes, and the reason as a sentence.
pub(super) fn check_script(sql: &str) -> Result<(), (usize, String)> {
    let mut tokens = Tokens::of(sql);
    while tokens.offset() < sql.len() {
        let start = tokens.offset();
        statement(&mut tokens).check().map_err(|why| (start, why))?;
    }
    Ok(())
}

/// Checks a text of a schema that no migration of ours has made: only for what SQLite could not bear.
///
/// # Errors
/// The reason as a sentence.
pub(super) fn check_stored(sql: &str) -> Result<(), String> {
    let mut tokens = Tokens::of(sql);
    while tokens.offset() < sql.len() {
        let measure = statement(&mut tokens);
        if measure.depth.max(measure.parentheses) > STORED_DEPTH_MAX || measure.tokens > TOKENS_MAX {
            return Err(format!(
                "it nests more than {STORED_DEPTH_MAX} levels, or grows to more than {TOKENS_MAX} words"
            ));
        }
    }
    Ok(())
}

/// Measures up to the next semicolon or the end.
fn statement(tokens: &mut Tokens<'_>) -> Measure {
    let mut walk = Walk { levels: vec![Level::default()], ..Walk::default() };
    for token in tokens.by_ref() {
        if token == Token::Sign(b';') {
            break;
        }
        walk.step(token);
    }
    walk.finish()
}

/// A name without its quotes, as SQLite compares names.
pub(super) fn plain_name(name: &str) -> String {
    let Some(quote) = name.chars().next().filter(|first| matches!(first, '"' | '\'' | '`' | '[')) else {
        return name.to_ascii_lowercase();
    };
    let close = if quote == '[' { ']' } else { quote };
    // Without its end it is an error that SQLite reports.
    let bare = name[1..].strip_suffix(close).unwrap_or(&name[1..]);
    bare.replace(&[quote, quote].iter().collect::<String>(), &quote.to_string()).to_ascii_lowercase()
}

/// What may come next where tables are named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Place {
    /// Not in a FROM.
    #[default]
    Elsewhere,
    /// A table may be named here.
    Table,
    /// In a FROM, behind a table: a comma or JOIN leads to the next.
    Behind,
}

/// One parenthesis that is open, or the whole statement.
#[derive(Debug, Default)]
struct Level {
    place: Place,
    /// Compound arms and BETWEENs here.
    own: usize,
    /// The deepest level inside.
    inner: usize,
    /// The name before the parenthesis: of a common table expression with columns, or of a function.
    before: Option<String>,
    /// The common table expression whose body this is.
    body: Option<usize>,
    /// Common table expressions defined here.
    defined: Vec<(String, usize)>,
    /// Names whose meaning is not found yet, and the body each stands in.
    names: Vec<(String, Option<usize>)>,
}

/// A common table expression.
#[derive(Debug, Default)]
struct Body {
    depth: usize,
    tokens: usize,
    uses: Vec<usize>,
}

#[derive(Debug, Default)]
struct Walk {
    levels: Vec<Level>,
    bodies: Vec<Body>,
    /// Uses outside of every body.
    uses: Vec<usize>,
    tokens: usize,
    values: usize,
    patterns: usize,
    parentheses: usize,
    /// The last name or number, when nothing else came after it.
    last: Option<String>,
    /// The last token was IN.
    after_in: bool,
    /// The name before AS.
    before_as: Option<String>,
    /// A table name, unless a dot follows: then it is a schema's.
    named: Option<String>,
    /// Tables and views named with their schema, which no common table expression is.
    qualified: Vec<String>,
    /// The last token was the dot behind a schema.
    behind_schema: bool,
    /// The last token, if it was a sign.
    sign: u8,
}

impl Walk {
    fn step(&mut self, token: Token<'_>) {
        self.tokens += 1;
        let behind_schema = std::mem::take(&mut self.behind_schema);
        if let Some(name) = self.named.take() {
            if token == Token::Sign(b'.') {
                self.behind_schema = true;
            } else {
                let owner = self.levels.iter().rev().find_map(|level| level.body);
                self.level().names.push((name, owner));
            }
        }
        match token {
            Token::Sign(b'(') => self.open(),
            Token::Sign(b')') => self.close(),
            Token::Sign(sign) => self.operator(sign),
            Token::Quoted(name) if behind_schema => self.qualified.push(plain_name(name)),
            Token::Word(name) if behind_schema => self.qualified.push(plain_name(name)),
            Token::Quoted(name) => self.name(plain_name(name)),
            Token::Word(word) => self.word(&word.to_ascii_lowercase()),
            Token::Variable => self.forget(),
        }
        self.sign = if let Token::Sign(sign) = token { sign } else { 0 };
    }

    /// What came before means nothing for what comes next.
    fn forget(&mut self) {
        self.last = None;
        self.before_as = None;
        self.after_in = false;
    }

    fn level(&mut self) -> &mut Level {
        if self.levels.is_empty() {
            self.levels.push(Level::default());
        }
        let last = self.levels.len() - 1;
        &mut self.levels[last]
    }

    fn operator(&mut self, sign: u8) {
        self.values += usize::from(matches!((self.sign, sign), (b'|', b'|') | (b'-', b'>')));
        self.forget();
        let level = self.level();
        if sign == b',' && level.place != Place::Elsewhere {
            level.place = Place::Table;
        }
    }

    /// A keyword only where SQLite takes it for nothing else: what may be a name is one here.
    fn word(&mut self, word: &str) {
        self.patterns += usize::from(matches!(word, "like" | "glob"));
        match word {
            "as" => self.before_as = self.last.take(),
            "not" | "materialized" if self.before_as.is_some() => {}
            _ if self.keyword(word) => {
                self.forget();
                self.after_in = word == "in";
            }
            _ => self.name(word.to_owned()),
        }
    }

    fn keyword(&mut self, word: &str) -> bool {
        let level = self.level();
        match word {
            "from" | "join" => level.place = Place::Table,
            "select" | "where" | "group" | "order" | "having" | "limit" | "set" | "returning" | "values" => {
                level.place = Place::Elsewhere;
            }
            "union" | "intersect" | "except" => {
                level.place = Place::Elsewhere;
                level.own += 1;
            }
            "between" => level.own += 1,
            "in" | "and" | "or" | "not" | "on" | "using" | "exists" | "when" | "then" | "else" | "case"
            | "distinct" | "all" | "is" | "escape" | "into" | "check" | "default" | "references" => {}
            _ => return false,
        }
        true
    }

    fn name(&mut self, name: String) {
        let after_in = self.after_in;
        let level = self.level();
        if level.place == Place::Table {
            level.place = Place::Behind;
            self.named = Some(name.clone());
        } else if after_in {
            self.named = Some(name.clone());
        }
        self.forget();
        self.last = Some(name);
    }

    fn open(&mut self) {
        let (body, before) = (self.before_as.take(), self.last.take());
        self.forget();
        let level = self.level();
        // A parenthesis where a table is wanted stands for one, and may begin with one.
        let place = level.place;
        let inside = match place {
            Place::Table => {
                level.place = Place::Behind;
                Place::Table
            }
            Place::Behind | Place::Elsewhere => Place::Elsewhere,
        };
        self.values += usize::from(before.is_some());
        let body = body.map(|name| self.define(name));
        self.levels.push(Level { place: inside, before, body, ..Level::default() });
        self.parentheses = self.parentheses.max(self.levels.len() - 1);
    }

    /// A common table expression of this name begins. Until it ends, its size is where it began.
    fn define(&mut self, name: String) -> usize {
        self.bodies.push(Body { tokens: self.tokens, ..Body::default() });
        let number = self.bodies.len() - 1;
        self.level().defined.push((name, number));
        number
    }

    fn close(&mut self) {
        // One too many is an error that SQLite reports.
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
        let left = self.resolve(closed.defined, closed.names);
        self.last = closed.before;
        let level = self.level();
        level.inner = level.inner.max(depth);
        level.names.extend(left);
    }

    /// Finds what names mean here; returns those that mean something further out.
    fn resolve(
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
                // Itself: that is a recursive one, and SQLite puts it in place once.
                (Some(body), Some(owner)) if *body == owner => {}
                (Some(body), Some(owner)) => self.bodies[owner].uses.push(*body),
                (Some(body), None) => self.uses.push(*body),
                (None, _) => left.push((name, owner)),
            }
        }
        left
    }

    fn finish(mut self) -> Measure {
        // The last name of the text still waits for what follows it.
        self.step(Token::Sign(b' '));
        while self.levels.len() > 1 {
            self.close();
        }
        let top = self.levels.pop().unwrap_or_default();
        let left = self.resolve(top.defined, top.names);
        let mut sizes = Sizes { bodies: &self.bodies, known: vec![Known::No; self.bodies.len()], circle: false };
        let (depth, tokens) = sizes.of_all(&self.uses, DEPTH_MAX);
        Measure {
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
enum Known {
    No,
    /// Being measured.
    Open,
    Size(usize, usize),
}

/// Depth and tokens of bodies with everything they use in place.
struct Sizes<'a> {
    bodies: &'a [Body],
    known: Vec<Known>,
    circle: bool,
}

impl Sizes<'_> {
    /// The deepest, and the sum of the tokens.
    fn of_all(&mut self, uses: &[usize], left: usize) -> (usize, usize) {
        uses.iter().fold((0, 0), |(depth, tokens), used| {
            let (deep, large) = self.of(*used, left);
            (depth.max(deep), tokens.saturating_add(large))
        })
    }

    /// Goes no deeper than `left`: what would be is too deep in any case.
    fn of(&mut self, number: usize, left: usize) -> (usize, usize) {
        match self.known[number] {
            Known::Size(depth, tokens) => return (depth, tokens),
            Known::Open => {
                self.circle = true;
                return (0, 0);
            }
            Known::No if left == 0 => return (DEPTH_MAX, TOKENS_MAX),
            Known::No => self.known[number] = Known::Open,
        }
        let bodies = self.bodies;
        let body = &bodies[number];
        let (depth, tokens) = self.of_all(&body.uses, left - 1);
        let size = (depth + body.depth, tokens.saturating_add(body.tokens));
        self.known[number] = Known::Size(size.0, size.1);
        size
    }
}

#[cfg(test)]
#[path = "complexity_tests.rs"]
mod tests;
