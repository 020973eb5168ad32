//! JSON functions that take disproportionate time or memory, or one level of stack for each step of a path.

use rusqlite::functions::{Context, FunctionFlags, SubType};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Result};

use super::{FunctionOutput, ResultBytes, default_flags, original, too_big, too_expensive};

/// Maximum product of the members of a patch and the bytes of both documents: `json_patch` searches for each member
/// from the beginning.
const PATCH_WORK_MAX: usize = 100_000_000;

/// Maximum steps of a path that is created. SQLite creates them by recursion, and reads no deeper JSON.
const PATH_STEPS_MAX: usize = 1_000;

/// SQLite's mark for a text that is JSON.
pub(super) const JSON: u32 = 74;

/// The kind of a result.
#[derive(Debug, Clone, Copy)]
pub(super) enum JsonForm {
    Text,
    Binary,
}

impl JsonForm {
    pub(super) fn result_mark(self) -> SubType {
        match self {
            Self::Text => Some(JSON),
            Self::Binary => None,
        }
    }

    pub(super) fn flags_for_result(self) -> FunctionFlags {
        match self {
            Self::Text => default_flags() | FunctionFlags::SQLITE_RESULT_SUBTYPE,
            Self::Binary => default_flags(),
        }
    }
}

pub(super) fn install_json(db: &Connection, bytes_max: &ResultBytes) -> Result<()> {
    for (form, patch, edits) in [
        (JsonForm::Text, "json_patch", ["json_insert", "json_set", "json_replace"]),
        (JsonForm::Binary, "jsonb_patch", ["jsonb_insert", "jsonb_set", "jsonb_replace"]),
    ] {
        db.create_scalar_function(patch, 2, form.flags_for_result(), move |ctx| patch_json(ctx, patch, form))?;
        for name in edits {
            let flags = form.flags_for_result() | FunctionFlags::SQLITE_SUBTYPE;
            let bytes_max = bytes_max.clone();
            db.create_scalar_function(name, -1, flags, move |ctx| edit_json(ctx, name, form, bytes_max.get()))?;
        }
    }
    for arguments in 1..=2 {
        let bytes_max = bytes_max.clone();
        db.create_scalar_function("json_pretty", arguments, default_flags(), move |ctx| {
            pretty_json(ctx, bytes_max.get())
        })?;
    }
    Ok(())
}

fn raw_bytes(value: ValueRef<'_>) -> &[u8] {
    match value {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes,
        _ => &[],
    }
}

fn patch_json(ctx: &Context<'_>, name: &str, form: JsonForm) -> Result<(FunctionOutput, SubType)> {
    let (target, patch) = (ctx.get_raw(0), ctx.get_raw(1));
    let members = match patch {
        ValueRef::Text(text) => memchr::memchr_iter(b':', text).count(),
        // Each pair takes a label and a value, of at least one byte each.
        other => raw_bytes(other).len() / 2,
    };
    let length = raw_bytes(target).len() + raw_bytes(patch).len();
    if members.saturating_mul(length) > PATCH_WORK_MAX {
        return Err(too_expensive(&format!("{name} has too many members for so long a document")));
    }
    call_original(name, &[target, patch], &[], form)
}

fn edit_json(ctx: &Context<'_>, name: &str, form: JsonForm, bytes_max: usize) -> Result<(FunctionOutput, SubType)> {
    let arguments: Vec<ValueRef<'_>> = (0..ctx.len()).map(|index| ctx.get_raw(index)).collect();
    for path in arguments.iter().skip(1).step_by(2) {
        if raw_bytes(*path).iter().filter(|byte| matches!(byte, b'.' | b'[')).count() > PATH_STEPS_MAX {
            return Err(too_expensive(&format!("a path of {name} has more than {PATH_STEPS_MAX} steps")));
        }
    }
    bound_arguments(&arguments, bytes_max)?;
    call_original(name, &arguments, &json_marks(ctx), form)
}

/// The values of an edit become part of one document.
fn bound_arguments(arguments: &[ValueRef<'_>], bytes_max: usize) -> Result<()> {
    let together: usize = arguments.iter().map(|value| raw_bytes(*value).len()).sum();
    if together > 2 * bytes_max { Err(too_big()) } else { Ok(()) }
}

/// The arguments that are marked as JSON.
fn json_marks(ctx: &Context<'_>) -> Vec<bool> {
    (0..ctx.len()).map(|index| ctx.get_subtype(index) == JSON).collect()
}

/// Calls the original function, with its marks of JSON.
fn call_original(
    name: &str,
    arguments: &[ValueRef<'_>],
    marks: &[bool],
    form: JsonForm,
) -> Result<(FunctionOutput, SubType)> {
    let list: Vec<String> = (0..arguments.len())
        .map(|index| match (marks.get(index), arguments[index]) {
            (Some(true), ValueRef::Text(_)) => format!("json(?{})", index + 1),
            _ => format!("?{}", index + 1),
        })
        .collect();
    let value = original::evaluate_original(&format!("{name}({})", list.join(",")), arguments)?;
    let mark = if value == FunctionOutput::Null { None } else { form.result_mark() };
    Ok((value, mark))
}

fn pretty_json(ctx: &Context<'_>, bytes_max: usize) -> Result<FunctionOutput> {
    let arguments: Vec<ValueRef<'_>> = (0..ctx.len()).map(|index| ctx.get_raw(index)).collect();
    let plain = original::evaluate_original("json(?1)", &arguments[..1])?;
    let FunctionOutput::Text(plain) = plain else { return Ok(FunctionOutput::Null) };
    let indent = arguments.get(1).map_or(4, |value| raw_bytes(*value).len().max(4));
    if printed_length(&plain, indent) > bytes_max {
        return Err(too_big());
    }
    let expression = if arguments.len() == 1 { "json_pretty(?1)" } else { "json_pretty(?1, ?2)" };
    original::evaluate_original(expression, &arguments)
}

/// Bytes of a JSON text with each element on its own line.
fn printed_length(json: &[u8], indent: usize) -> usize {
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
