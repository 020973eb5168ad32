//! `instr`, `replace`, `trim`, `ltrim`, `rtrim` in linear time, and `unhex` with characters to skip.

use std::borrow::Cow;
use std::collections::HashMap;

use memchr::memmem;
use rusqlite::functions::Context;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Result};

use super::{FunctionOutput, ResultBytes, default_flags, original, too_big, too_expensive};

/// Maximum product of the lengths of a text and of the characters to skip. SQLite compares each with each, in a
/// nanosecond or two.
const UNHEX_WORK_MAX: usize = 50_000_000;

/// A longer character of a set is not UTF-8, but SQLite accepts it as one character.
const CHARACTER_BYTES_MAX: usize = 8;

/// Maximum product of set and text for such sets, where each is compared with each.
const STRANGE_WORK_MAX: usize = 50_000_000;

pub(super) fn install_text(db: &Connection, bytes_max: &ResultBytes) -> Result<()> {
    db.create_scalar_function("instr", 2, default_flags(), |ctx| sql_instr(ctx.get_raw(0), ctx.get_raw(1)))?;
    let bytes_max = bytes_max.clone();
    db.create_scalar_function("replace", 3, default_flags(), move |ctx| sql_replace(ctx, bytes_max.get()))?;
    for (name, ends) in [("trim", TrimEnds::Both), ("ltrim", TrimEnds::Left), ("rtrim", TrimEnds::Right)] {
        db.create_scalar_function(name, 2, default_flags(), move |ctx| sql_trim(ctx, name, ends))?;
    }
    db.create_scalar_function("unhex", 2, default_flags(), sql_unhex)
}

/// A value as text, converted as SQLite does; `None` for NULL.
pub(super) fn text_of(value: ValueRef<'_>) -> Result<Option<Cow<'_, [u8]>>> {
    Ok(match value {
        ValueRef::Null => None,
        ValueRef::Integer(number) => Some(Cow::Owned(number.to_string().into_bytes())),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(Cow::Borrowed(bytes)),
        // SQLite itself decides how many digits a number has.
        ValueRef::Real(_) => match original::evaluate_original("cast(?1 as text)", &[value])? {
            FunctionOutput::Text(text) => Some(Cow::Owned(text)),
            _ => None,
        },
    })
}

fn is_continuation(byte: u8) -> bool {
    byte & 0xc0 == 0x80
}

fn sql_instr(haystack: ValueRef<'_>, needle: ValueRef<'_>) -> Result<FunctionOutput> {
    if let (ValueRef::Blob(haystack), ValueRef::Blob(needle)) = (haystack, needle) {
        let found = memmem::find(haystack, needle).map_or(0, |at| at + 1);
        return Ok(FunctionOutput::Integer(i64::try_from(found).unwrap_or_default()));
    }
    let (Some(haystack), Some(needle)) = (text_of(haystack)?, text_of(needle)?) else {
        return Ok(FunctionOutput::Null);
    };
    Ok(FunctionOutput::Integer(i64::try_from(character_position(&haystack, &needle)).unwrap_or_default()))
}

/// The position, counted from 1, of the character where `needle` begins; 0 when it is not found. A match begins at the
/// start of a character.
fn character_position(haystack: &[u8], needle: &[u8]) -> usize {
    let found = match needle.first() {
        None => Some(0),
        Some(first) if is_continuation(*first) => haystack.starts_with(needle).then_some(0),
        Some(_) => memmem::find(haystack, needle),
    };
    found.map_or(0, |at| 1 + (1..=at).filter(|index| !is_continuation(haystack[*index])).count())
}

fn sql_replace(ctx: &Context<'_>, bytes_max: usize) -> Result<FunctionOutput> {
    let (Some(text), Some(pattern)) = (text_of(ctx.get_raw(0))?, text_of(ctx.get_raw(1))?) else {
        return Ok(FunctionOutput::Null);
    };
    // SQLite treats a pattern that begins with NUL as empty.
    if pattern.first().is_none_or(|first| *first == 0) {
        return Ok(FunctionOutput::Text(text.into_owned()));
    }
    let Some(with) = text_of(ctx.get_raw(2))? else { return Ok(FunctionOutput::Null) };
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
    Ok(FunctionOutput::Text(output))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TrimEnds {
    Both,
    Left,
    Right,
}

fn sql_trim(ctx: &Context<'_>, name: &str, ends: TrimEnds) -> Result<FunctionOutput> {
    let (Some(text), Some(set)) = (text_of(ctx.get_raw(0))?, text_of(ctx.get_raw(1))?) else {
        return Ok(FunctionOutput::Null);
    };
    let characters = CharacterSet::from_set(&set);
    if characters.has_strange {
        if text.len().saturating_mul(set.len()) > STRANGE_WORK_MAX {
            return Err(too_expensive("the characters to trim are not UTF-8"));
        }
        let expression = format!("{name}(?1, ?2)");
        return original::evaluate_original(&expression, &[ctx.get_raw(0), ctx.get_raw(1)]);
    }
    let mut rest: &[u8] = &text;
    if ends != TrimEnds::Right {
        while let Some(length) = characters.at_start(rest) {
            rest = &rest[length..];
        }
    }
    if ends != TrimEnds::Left {
        while let Some(length) = characters.at_end(rest) {
            rest = &rest[..rest.len() - length];
        }
    }
    Ok(FunctionOutput::Text(rest.to_vec()))
}

/// The characters of a set, each with its position: the first match is taken.
struct CharacterSet<'a> {
    places: HashMap<&'a [u8], usize>,
    /// Bit n is set when a character of the set has n bytes.
    lengths: u32,
    has_strange: bool,
}

impl<'a> CharacterSet<'a> {
    /// SQLite reads the set up to the first NUL. A character is one byte; after a byte from C0 on, it includes all
    /// continuation bytes.
    fn from_set(set: &'a [u8]) -> Self {
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

fn sql_unhex(ctx: &Context<'_>) -> Result<FunctionOutput> {
    let arguments = [ctx.get_raw(0), ctx.get_raw(1)];
    let length = |value| text_of(value).map(|text| text.map_or(0, |text| text.len()));
    if length(arguments[0])?.saturating_mul(length(arguments[1])?) > UNHEX_WORK_MAX {
        return Err(too_expensive("unhex has too many characters to skip for so long a text"));
    }
    original::evaluate_original("unhex(?1, ?2)", &arguments)
}
