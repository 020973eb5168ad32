//! JSON functions that take time or memory out of proportion, or a level of stack for each step of a path.

use rusqlite::functions::{Context, FunctionFlags, SubType};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Result};

use super::{Output, ResultBytes, flags, original, too_big, too_expensive};

/// Members of a patch times bytes of both documents: `json_patch` looks for each member from the beginning.
const PATCH_WORK_MAX: usize = 100_000_000;

/// Steps of a path that is to be made. SQLite makes them by recursion, and reads no JSON that is deeper.
const PATH_STEPS_MAX: usize = 1_000;

/// How SQLite marks a text that is JSON.
pub(super) const JSON: u32 = 74;

/// Kind of a result.
#[derive(Debug, Clone, Copy)]
pub(super) enum Form {
    Text,
    Binary,
}

impl Form {
    pub(super) fn mark(self) -> SubType {
        match self {
            Self::Text => Some(JSON),
            Self::Binary => None,
        }
    }

    pub(super) fn flags(self) -> FunctionFlags {
        match self {
            Self::Text => flags() | FunctionFlags::SQLITE_RESULT_SUBTYPE,
            Self::Binary => flags(),
        }
    }
}

pub(super) fn install(db: &Connection, bytes_max: &ResultBytes) -> Result<()> {
    for (form, patch, edits) in [
        (Form::Text, "json_patch", ["json_insert", "json_set", "json_replace"]),
        (Form::Binary, "jsonb_patch", ["jsonb_insert", "jsonb_set", "jsonb_replace"]),
    ] {
        db.create_scalar_function(patch, 2, form.flags(), move |ctx| patched(ctx, patch, form))?;
        for name in edits {
            let flags = form.flags() | FunctionFlags::SQLITE_SUBTYPE;
            let bytes_max = bytes_max.clone();
            db.create_scalar_function(name, -1, flags, move |ctx| edited(ctx, name, form, bytes_max.get()))?;
        }
    }
    for arguments in 1..=2 {
        let bytes_max = bytes_max.clone();
        db.create_scalar_function("json_pretty", arguments, flags(), move |ctx| pretty(ctx, bytes_max.get()))?;
    }
    Ok(())
}

fn bytes(value: ValueRef<'_>) -> &[u8] {
    match value {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes,
        _ => &[],
    }
}

fn patched(ctx: &Context<'_>, name: &str, form: Form) -> Result<(Output, SubType)> {
    let (target, patch) = (ctx.get_raw(0), ctx.get_raw(1));
    let members = match patch {
        ValueRef::Text(text) => memchr::memchr_iter(b':', text).count(),
        // Each takes a label and a value, of a byte at least.
        other => bytes(other).len() / 2,
    };
    let length = bytes(target).len() + bytes(patch).len();
    if members.saturating_mul(length) > PATCH_WORK_MAX {
        return Err(too_expensive(&format!("{name} has too many members for so long a document")));
    }
    call(name, &[target, patch], &[], form)
}

fn edited(ctx: &Context<'_>, name: &str, form: Form, bytes_max: usize) -> Result<(Output, SubType)> {
    let arguments: Vec<ValueRef<'_>> = (0..ctx.len()).map(|index| ctx.get_raw(index)).collect();
    for path in arguments.iter().skip(1).step_by(2) {
        if bytes(*path).iter().filter(|byte| matches!(byte, b'.' | b'[')).count() > PATH_STEPS_MAX {
            return Err(too_expensive(&format!("a path of {name} has more than {PATH_STEPS_MAX} steps")));
        }
    }
    bounded(&arguments, bytes_max)?;
    call(name, &arguments, &marks(ctx), form)
}

/// The values of an edit become part of one document.
fn bounded(arguments: &[ValueRef<'_>], bytes_max: usize) -> Result<()> {
    let together: usize = arguments.iter().map(|value| bytes(*value).len()).sum();
    if together > 2 * bytes_max { Err(too_big()) } else { Ok(()) }
}

/// Which arguments are marked as JSON.
fn marks(ctx: &Context<'_>) -> Vec<bool> {
    (0..ctx.len()).map(|index| ctx.get_subtype(index) == JSON).collect()
}

/// Calls the original; what is marked as JSON is marked there, too.
fn call(name: &str, arguments: &[ValueRef<'_>], marks: &[bool], form: Form) -> Result<(Output, SubType)> {
    let list: Vec<String> = (0..arguments.len())
        .map(|index| match (marks.get(index), arguments[index]) {
            (Some(true), ValueRef::Text(_)) => format!("json(?{})", index + 1),
            _ => format!("?{}", index + 1),
        })
        .collect();
    let value = original::evaluate(&format!("{name}({})", list.join(",")), arguments)?;
    let mark = if value == Output::Null { None } else { form.mark() };
    Ok((value, mark))
}

fn pretty(ctx: &Context<'_>, bytes_max: usize) -> Result<Output> {
    let arguments: Vec<ValueRef<'_>> = (0..ctx.len()).map(|index| ctx.get_raw(index)).collect();
    let plain = original::evaluate("json(?1)", &arguments[..1])?;
    let Output::Text(plain) = plain else { return Ok(Output::Null) };
    let indent = arguments.get(1).map_or(4, |value| bytes(*value).len().max(4));
    if printed(&plain, indent) > bytes_max {
        return Err(too_big());
    }
    let expression = if arguments.len() == 1 { "json_pretty(?1)" } else { "json_pretty(?1, ?2)" };
    original::evaluate(expression, &arguments)
}

/// Bytes that a JSON text takes when each of its elements has a line of its own.
fn printed(json: &[u8], indent: usize) -> usize {
    let (mut total, mut depth, mut in_string, mut escaped) = (json.len(), 0_usize, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            b',' => {}
            b':' => total += 1,
            _ => {}
        }
        if !in_string && matches!(byte, b'[' | b'{' | b']' | b'}' | b',') {
            total = total.saturating_add(1 + depth.saturating_mul(indent));
        }
    }
    total
}
