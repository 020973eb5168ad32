//! `json_array`, `json_object`, `json_group_array` and `json_group_object`: the originals gather values without an end.
//!
//! SQLite looks at the length of a result when it is complete. These stop when it is too long.

use std::collections::VecDeque;

use rusqlite::functions::{Aggregate, Context, FunctionFlags, SubType, WindowAggregate};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Result, ffi};

use super::json::{Form, JSON};
use super::text::text_of;
use super::{Output, ResultBytes, failure, original, too_big};

pub(super) fn install(db: &Connection, bytes_max: &ResultBytes) -> Result<()> {
    for (form, array, object, group_array, group_object) in [
        (Form::Text, "json_array", "json_object", "json_group_array", "json_group_object"),
        (Form::Binary, "jsonb_array", "jsonb_object", "jsonb_group_array", "jsonb_group_object"),
    ] {
        let flags = form.flags() | FunctionFlags::SQLITE_SUBTYPE | FunctionFlags::SQLITE_RESULT_SUBTYPE;
        let whole = Whole { form, bytes_max: bytes_max.clone() };
        let (of_array, of_object) = (whole.clone(), whole.clone());
        db.create_scalar_function(array, -1, flags, move |ctx| of_array.array(ctx))?;
        db.create_scalar_function(object, -1, flags, move |ctx| of_object.object(ctx))?;
        let group = |kind| Group { kind, whole: whole.clone() };
        db.create_window_function(group_array, 1, flags, group(Kind::Array))?;
        db.create_window_function(group_object, 2, flags, group(Kind::Object))?;
    }
    Ok(())
}

/// A document made of values.
#[derive(Debug, Clone)]
struct Whole {
    form: Form,
    bytes_max: ResultBytes,
}

impl Whole {
    fn array(&self, ctx: &Context<'_>) -> Result<(Output, SubType)> {
        let mut json = vec![b'['];
        for index in 0..ctx.len() {
            separate(&mut json);
            self.value(&mut json, ctx.get_raw(index), ctx.get_subtype(index))?;
        }
        json.push(b']');
        self.finish(json)
    }

    fn object(&self, ctx: &Context<'_>) -> Result<(Output, SubType)> {
        if ctx.len() % 2 == 1 {
            return Err(error("json_object() requires an even number of arguments"));
        }
        let mut labels = Vec::with_capacity(ctx.len() / 2);
        for index in (0..ctx.len()).step_by(2) {
            // All of them before any value: the original reports a wrong label even after a wrong value.
            let ValueRef::Text(label) = ctx.get_raw(index) else {
                return Err(error("json_object() labels must be TEXT"));
            };
            labels.push((index, label));
        }
        let mut json = vec![b'{'];
        for (index, label) in labels {
            separate(&mut json);
            string(&mut json, label);
            json.push(b':');
            self.value(&mut json, ctx.get_raw(index + 1), ctx.get_subtype(index + 1))?;
        }
        json.push(b'}');
        self.finish(json)
    }

    /// Appends one value.
    fn value(&self, json: &mut Vec<u8>, value: ValueRef<'_>, subtype: u32) -> Result<()> {
        match value {
            ValueRef::Null => json.extend_from_slice(b"null"),
            ValueRef::Integer(number) => json.extend_from_slice(number.to_string().as_bytes()),
            ValueRef::Text(text) if subtype == JSON => json.extend_from_slice(text),
            ValueRef::Text(text) => string(json, text),
            // How a number with a fraction is written, and whether bytes are JSON, is SQLite's own affair.
            ValueRef::Real(_) | ValueRef::Blob(_) => match original::evaluate("json_array(?1)", &[value])? {
                Output::Text(array) => json.extend_from_slice(array.get(1..array.len() - 1).unwrap_or_default()),
                _ => return Err(error("malformed JSON")),
            },
        }
        if json.len() > self.bytes_max.get() { Err(too_big()) } else { Ok(()) }
    }

    fn finish(&self, json: Vec<u8>) -> Result<(Output, SubType)> {
        match self.form {
            Form::Text => Ok((Output::Text(json), self.form.mark())),
            Form::Binary => {
                // Bytes of a text that is not JSON after all are an error there.
                let binary = original::evaluate("jsonb(?1)", &[ValueRef::Text(&json)])?;
                Ok((binary, self.form.mark()))
            }
        }
    }
}

fn error(message: &str) -> rusqlite::Error {
    failure(ffi::SQLITE_ERROR, Some(message.to_owned()))
}

/// A comma, except behind the opening bracket.
fn separate(json: &mut Vec<u8>) {
    if json.len() > 1 {
        json.push(b',');
    }
}

/// Appends a text in quotation marks.
fn string(json: &mut Vec<u8>, text: &[u8]) {
    json.push(b'"');
    for byte in text {
        match byte {
            b'"' | b'\\' => json.extend_from_slice(&[b'\\', *byte]),
            0x08 => json.extend_from_slice(b"\\b"),
            b'\t' => json.extend_from_slice(b"\\t"),
            b'\n' => json.extend_from_slice(b"\\n"),
            0x0c => json.extend_from_slice(b"\\f"),
            b'\r' => json.extend_from_slice(b"\\r"),
            0..0x20 => json.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => json.push(*byte),
        }
    }
    json.push(b'"');
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Array,
    Object,
}

/// One of the aggregate functions.
#[derive(Debug, Clone)]
struct Group {
    kind: Kind,
    whole: Whole,
}

/// What one group holds.
#[derive(Debug, Default)]
struct Elements {
    texts: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl Group {
    fn result(&self, elements: Option<&Elements>) -> Result<(Output, SubType)> {
        let (open, close) = if self.kind == Kind::Array { (b'[', b']') } else { (b'{', b'}') };
        let Some(elements) = elements else {
            return Ok((Output::Text(vec![open, close]), Some(JSON)));
        };
        let mut json = Vec::with_capacity(elements.bytes + 2);
        json.push(open);
        for text in &elements.texts {
            separate(&mut json);
            json.extend_from_slice(text);
        }
        json.push(close);
        self.whole.finish(json)
    }

    /// `None`: a member without a name is left out.
    fn element(&self, ctx: &Context<'_>) -> Result<Option<Vec<u8>>> {
        let mut text = Vec::new();
        if self.kind == Kind::Array {
            self.whole.value(&mut text, ctx.get_raw(0), ctx.get_subtype(0))?;
            return Ok(Some(text));
        }
        let Some(label) = text_of(ctx.get_raw(0))? else { return Ok(None) };
        // SQLite takes the name up to the first NUL.
        string(&mut text, &label[..label.iter().position(|byte| *byte == 0).unwrap_or(label.len())]);
        text.push(b':');
        self.whole.value(&mut text, ctx.get_raw(1), ctx.get_subtype(1))?;
        Ok(Some(text))
    }
}

impl Aggregate<Elements, (Output, SubType)> for Group {
    fn init(&self, _: &mut Context<'_>) -> Result<Elements> {
        Ok(Elements::default())
    }

    fn step(&self, ctx: &mut Context<'_>, elements: &mut Elements) -> Result<()> {
        let Some(text) = self.element(ctx)? else { return Ok(()) };
        elements.bytes += text.len() + 1;
        if elements.bytes > self.whole.bytes_max.get() {
            return Err(too_big());
        }
        elements.texts.push_back(text);
        Ok(())
    }

    fn finalize(&self, _: &mut Context<'_>, elements: Option<Elements>) -> Result<(Output, SubType)> {
        self.result(elements.as_ref())
    }
}

impl WindowAggregate<Elements, (Output, SubType)> for Group {
    fn value(&self, elements: Option<&mut Elements>) -> Result<(Output, SubType)> {
        self.result(elements.map(|elements| &*elements))
    }

    fn inverse(&self, _: &mut Context<'_>, elements: &mut Elements) -> Result<()> {
        if let Some(gone) = elements.texts.pop_front() {
            elements.bytes -= gone.len() + 1;
        }
        Ok(())
    }
}
