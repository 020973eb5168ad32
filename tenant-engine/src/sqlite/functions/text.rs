//! `instr`, `replace`, `trim`, `ltrim`, `rtrim` in linear time, and `unhex` with characters to skip.

use std::borrow::Cow;
use std::collections::HashMap;

use memchr::memmem;
use rusqlite::functions::Context;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Result};

use super::{Output, ResultBytes, flags, original, too_big, too_expensive};

/// Length of a text times length of the characters to skip. SQLite compares each with each, at a nanosecond or two.
const UNHEX_WORK_MAX: usize = 50_000_000;

/// A character of a set that is longer is not UTF-8; SQLite takes it as one all the same.
const CHARACTER_BYTES_MAX: usize = 8;

/// Set times text of such strange sets, compared each with each.
const STRANGE_WORK_MAX: usize = 50_000_000;

pub(super) fn install(db: &Connection, bytes_max: &ResultBytes) -> Result<()> {
    db.create_scalar_function("instr", 2, flags(), |ctx| instr(ctx.get_raw(0), ctx.get_raw(1)))?;
    let bytes_max = bytes_max.clone();
    db.create_scalar_function("replace", 3, flags(), move |ctx| replace(ctx, bytes_max.get()))?;
    for (name, ends) in [("trim", Ends::Both), ("ltrim", Ends::Left), ("rtrim", Ends::Right)] {
        db.create_scalar_function(name, 2, flags(), move |ctx| trim(ctx, name, ends))?;
    }
    db.create_scalar_function("unhex", 2, flags(), unhex)
}

/// A value as text, in SQLite's way; `None` for NULL.
pub(super) fn text_of(value: ValueRef<'_>) -> Result<Option<Cow<'_, [u8]>>> {
    Ok(match value {
        ValueRef::Null => None,
        ValueRef::Integer(number) => Some(Cow::Owned(number.to_string().into_bytes())),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(Cow::Borrowed(bytes)),
        // How many digits a number has is SQLite's own affair.
        ValueRef::Real(_) => match original::evaluate("cast(?1 as text)", &[value])? {
            Output::Text(text) => Some(Cow::Owned(text)),
            _ => None,
        },
    })
}

fn is_continuation(byte: u8) -> bool {
    byte & 0xc0 == 0x80
}

fn instr(haystack: ValueRef<'_>, needle: ValueRef<'_>) -> Result<Output> {
    if let (ValueRef::Blob(haystack), ValueRef::Blob(needle)) = (haystack, needle) {
        let found = memmem::find(haystack, needle).map_or(0, |at| at + 1);
        return Ok(Output::Integer(i64::try_from(found).unwrap_or_default()));
    }
    let (Some(haystack), Some(needle)) = (text_of(haystack)?, text_of(needle)?) else { return Ok(Output::Null) };
    Ok(Output::Integer(i64::try_from(position(&haystack, &needle)).unwrap_or_default()))
}

/// The character, from 1, where `needle` begins; 0 when it is not there. A match begins where a character begins.
fn position(haystack: &[u8], needle: &[u8]) -> usize {
    let found = match needle.first() {
        None => Some(0),
        Some(first) if is_continuation(*first) => haystack.starts_with(needle).then_some(0),
        Some(_) => memmem::find(haystack, needle),
    };
    found.map_or(0, |at| 1 + (1..=at).filter(|index| !is_continuation(haystack[*index])).count())
}

fn replace(ctx: &Context<'_>, bytes_max: usize) -> Result<Output> {
    let (Some(text), Some(pattern)) = (text_of(ctx.get_raw(0))?, text_of(ctx.get_raw(1))?) else {
        return Ok(Output::Null);
    };
    // SQLite takes a pattern that begins with NUL for an empty one.
    if pattern.first().is_none_or(|first| *first == 0) {
        return Ok(Output::Text(text.into_owned()));
    }
    let Some(with) = text_of(ctx.get_raw(2))? else { return Ok(Output::Null) };
    let mut output = Vec::with_capacity(text.len());
    let mut from = 0;
    for at in memmem::find_iter(&text, pattern.as_ref()) {
        output.extend_from_slice(&text[from..at]);
        output.extend_from_slice(&with);
        from = at + pattern.len();
        if output.len() > bytes_max {
            return Err(too_big());
        }
    }
    output.extend_from_slice(&text[from..]);
    Ok(Output::Text(output))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ends {
    Both,
    Left,
    Right,
}

fn trim(ctx: &Context<'_>, name: &str, ends: Ends) -> Result<Output> {
    let (Some(text), Some(set)) = (text_of(ctx.get_raw(0))?, text_of(ctx.get_raw(1))?) else {
        return Ok(Output::Null);
    };
    let characters = Characters::of(&set);
    if characters.has_strange {
        if text.len().saturating_mul(set.len()) > STRANGE_WORK_MAX {
            return Err(too_expensive("the characters to trim are not UTF-8"));
        }
        let expression = format!("{name}(?1, ?2)");
        return original::evaluate(&expression, &[ctx.get_raw(0), ctx.get_raw(1)]);
    }
    let mut rest: &[u8] = &text;
    if ends != Ends::Right {
        while let Some(length) = characters.at_start(rest) {
            rest = &rest[length..];
        }
    }
    if ends != Ends::Left {
        while let Some(length) = characters.at_end(rest) {
            rest = &rest[..rest.len() - length];
        }
    }
    Ok(Output::Text(rest.to_vec()))
}

/// The characters of a set, each with its place in it: the first one that fits is taken.
struct Characters<'a> {
    places: HashMap<&'a [u8], usize>,
    /// Bit n: one has n bytes.
    lengths: u32,
    has_strange: bool,
}

impl<'a> Characters<'a> {
    /// SQLite reads the set up to the first NUL. A character is a byte, and after one from C0 on all that continue it.
    fn of(set: &'a [u8]) -> Self {
        let mut characters = Self { places: HashMap::new(), lengths: 0, has_strange: false };
        let mut rest = &set[..set.iter().position(|byte| *byte == 0).unwrap_or(set.len())];
        while let Some(first) = rest.first() {
            let more =
                if *first < 0xc0 { 0 } else { rest[1..].iter().take_while(|byte| is_continuation(**byte)).count() };
            let (character, after) = rest.split_at(1 + more);
            let place = characters.places.len();
            characters.places.entry(character).or_insert(place);
            match character.len() {
                length if length > CHARACTER_BYTES_MAX => characters.has_strange = true,
                length => characters.lengths |= 1 << length,
            }
            rest = after;
        }
        characters
    }

    fn at_start(&self, text: &[u8]) -> Option<usize> {
        self.first_of(text, |length| &text[..length])
    }

    fn at_end(&self, text: &[u8]) -> Option<usize> {
        self.first_of(text, |length| &text[text.len() - length..])
    }

    fn first_of<'t>(&self, text: &'t [u8], part: impl Fn(usize) -> &'t [u8]) -> Option<usize> {
        let lengths = (1..=CHARACTER_BYTES_MAX.min(text.len())).filter(|length| self.lengths & (1 << length) != 0);
        let found = lengths.filter_map(|length| self.places.get(part(length)).map(|place| (*place, length)));
        found.min().map(|(_, length)| length)
    }
}

fn unhex(ctx: &Context<'_>) -> Result<Output> {
    let arguments = [ctx.get_raw(0), ctx.get_raw(1)];
    let length = |value| text_of(value).map(|text| text.map_or(0, |text| text.len()));
    if length(arguments[0])?.saturating_mul(length(arguments[1])?) > UNHEX_WORK_MAX {
        return Err(too_expensive("unhex has too many characters to skip for so long a text"));
    }
    original::evaluate("unhex(?1, ?2)", &arguments)
}
