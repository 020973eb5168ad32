//! `printf` and `format`: a result that is too long is an error.
//!
//! SQLite's own functions answer NULL for it, and an UPDATE would store that NULL over a tenant's text.

use rusqlite::functions::Context;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Result};

use super::{FunctionOutput, ResultBytes, default_flags, original, too_big};

pub(super) fn install_printf(db: &Connection, bytes_max: &ResultBytes) -> Result<()> {
    for name in ["printf", "format"] {
        let bytes_max = bytes_max.clone();
        db.create_scalar_function(name, -1, default_flags(), move |ctx| sql_printf(ctx, bytes_max.get()))?;
    }
    Ok(())
}

fn sql_printf(ctx: &Context<'_>, bytes_max: usize) -> Result<FunctionOutput> {
    let arguments: Vec<ValueRef<'_>> = (0..ctx.len()).map(|index| ctx.get_raw(index)).collect();
    if matches!(arguments.first(), None | Some(ValueRef::Null)) {
        return Ok(FunctionOutput::Null);
    }
    let rest: String = (2..=arguments.len()).map(|number| format!(", ?{number}")).collect();
    // An argument may be longer than a result may be: the format may shorten it.
    let within = arguments.iter().map(|argument| byte_length(*argument)).fold(bytes_max, usize::max);
    let evaluate = |format: &str| original::evaluate_within(&format!("printf({format}{rest})"), &arguments, within);
    match evaluate("?1")? {
        FunctionOutput::Text(text) if text.len() > bytes_max => Err(too_big()),
        // NULL also stands for an empty result. With one character more, an empty result is not NULL.
        FunctionOutput::Null if evaluate("'x' || ?1")? == FunctionOutput::Null => Err(too_big()),
        output => Ok(output),
    }
}

fn byte_length(value: ValueRef<'_>) -> usize {
    match value {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.len(),
        _ => 0,
    }
}
