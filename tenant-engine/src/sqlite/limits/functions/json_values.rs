//! Replaces `json_array`, `json_object`, `json_group_array` and `json_group_object`, whose originals collect values
//! without a limit.
//!
//! SQLite checks the length of a result only when it is complete. These functions stop when the result becomes too
//! long.

use std::collections::VecDeque;

use rusqlite::functions::{Aggregate, Context, FunctionFlags, SubType, WindowAggregate};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Result, ffi};

use super::json::{JSON, JsonForm};
use super::text::text_of;
use super::{FunctionOutput, ResultBytes, original, sqlite_failure, too_big};

pub(super) fn install_json_values(db: &Connection, bytes_max: &ResultBytes) -> Result<()> {
    for (form, array, object, group_array, group_object) in [
        (JsonForm::Text, "json_array", "json_object", "json_group_array", "json_group_object"),
        (JsonForm::Binary, "jsonb_array", "jsonb_object", "jsonb_group_array", "jsonb_group_object"),
    ] {
        let flags = form.flags_for_result() | FunctionFlags::SQLITE_SUBTYPE | FunctionFlags::SQLITE_RESULT_SUBTYPE;
        let whole = JsonBuilder { form, bytes_max: bytes_max.clone() };
        let (of_array, of_object) = (whole.clone(), whole.clone());
        db.create_scalar_function(array, -1, flags, move |ctx| of_array.build_array(ctx))?;
        db.create_scalar_function(object, -1, flags, move |ctx| of_object.build_object(ctx))?;
        let group = |kind| JsonAggregate { kind, whole: whole.clone() };
        db.create_window_function(group_array, 1, flags, group(AggregateKind::Array))?;
        db.create_window_function(group_object, 2, flags, group(AggregateKind::Object))?;
    }
    Ok(())
}

/// A document that is built from values.
#[derive(Debug, Clone)]
struct JsonBuilder {
    form: JsonForm,
    bytes_max: ResultBytes,
}

impl JsonBuilder {
    fn build_array(&self, ctx: &Context<'_>) -> Result<(FunctionOutput, SubType)> {
        let mut json = vec![b'['];
        for index in 0..ctx.len() {
            append_separator(&mut json);
            self.append_value(&mut json, ctx.get_raw(index), ctx.get_subtype(index))?;
        }
        json.push(b']');
        self.finish_document(json)
    }

    fn build_object(&self, ctx: &Context<'_>) -> Result<(FunctionOutput, SubType)> {
        if ctx.len() % 2 == 1 {
            return Err(sqlite_error("json_object() requires an even number of arguments"));
        }
        let mut labels = Vec::with_capacity(ctx.len() / 2);
        for index in (0..ctx.len()).step_by(2) {
            // All labels are checked before any value: the original reports a wrong label even after a wrong value.
            let ValueRef::Text(label) = ctx.get_raw(index) else {
                return Err(sqlite_error("json_object() labels must be TEXT"));
            };
            labels.push((index, label));
        }
        let mut json = vec![b'{'];
        for (index, label) in labels {
            append_separator(&mut json);
            append_string(&mut json, label);
            json.push(b':');
            self.append_value(&mut json, ctx.get_raw(index + 1), ctx.get_subtype(index + 1))?;
        }
        json.push(b'}');
        self.finish_document(json)
    }

    /// Appends one value.
    fn append_value(&self, json: &mut Vec<u8>, value: ValueRef<'_>, subtype: u32) -> Result<()> {
        match value {
            ValueRef::Null => json.extend_from_slice(b"null"),
            ValueRef::Integer(number) => json.extend_from_slice(number.to_string().as_bytes()),
            ValueRef::Text(text) if subtype == JSON => json.extend_from_slice(text),
            ValueRef::Text(text) => append_string(json, text),
            // SQLite itself decides how a fraction is written, and whether bytes are JSON.
            ValueRef::Real(_) | ValueRef::Blob(_) => match original::evaluate_original("json_array(?1)", &[value])? {
                FunctionOutput::Text(array) => {
                    json.extend_from_slice(array.get(1..array.len() - 1).unwrap_or_default())
                }
                _ => return Err(sqlite_error("malformed JSON")),
            },
        }
        if json.len() > self.bytes_max.get() { Err(too_big()) } else { Ok(()) }
    }

    fn finish_document(&self, json: Vec<u8>) -> Result<(FunctionOutput, SubType)> {
        match self.form {
            JsonForm::Text => Ok((FunctionOutput::Text(json), self.form.result_mark())),
            JsonForm::Binary => {
                // SQLite reports an error for bytes that turn out not to be JSON.
                let binary = original::evaluate_original("jsonb(?1)", &[ValueRef::Text(&json)])?;
                Ok((binary, self.form.result_mark()))
            }
        }
    }
}

fn sqlite_error(message: &str) -> rusqlite::Error {
    sqlite_failure(ffi::SQLITE_ERROR, Some(message.to_owned()))
}

/// Appends a comma, except after the opening bracket.
fn append_separator(json: &mut Vec<u8>) {
    if json.len() > 1 {
        json.push(b',');
    }
}

/// Appends a text in quotation marks.
fn append_string(json: &mut Vec<u8>, text: &[u8]) {
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
enum AggregateKind {
    Array,
    Object,
}

/// One of the aggregate functions.
#[derive(Debug, Clone)]
struct JsonAggregate {
    kind: AggregateKind,
    whole: JsonBuilder,
}

/// The elements of one group.
#[derive(Debug, Default)]
struct GroupElements {
    texts: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl JsonAggregate {
    fn group_result(&self, elements: Option<&GroupElements>) -> Result<(FunctionOutput, SubType)> {
        let (open, close) = if self.kind == AggregateKind::Array { (b'[', b']') } else { (b'{', b'}') };
        let Some(elements) = elements else {
            return Ok((FunctionOutput::Text(vec![open, close]), Some(JSON)));
        };
        let mut json = Vec::with_capacity(elements.bytes + 2);
        json.push(open);
        for text in &elements.texts {
            append_separator(&mut json);
            json.extend_from_slice(text);
        }
        json.push(close);
        self.whole.finish_document(json)
    }

    /// The text of an element; `None` for a member without a name, which is left out.
    fn group_element(&self, ctx: &Context<'_>) -> Result<Option<Vec<u8>>> {
        let mut text = Vec::new();
        if self.kind == AggregateKind::Array {
            self.whole.append_value(&mut text, ctx.get_raw(0), ctx.get_subtype(0))?;
            return Ok(Some(text));
        }
        let Some(label) = text_of(ctx.get_raw(0))? else { return Ok(None) };
        // SQLite takes the name up to the first NUL.
        append_string(&mut text, &label[..label.iter().position(|byte| *byte == 0).unwrap_or(label.len())]);
        text.push(b':');
        self.whole.append_value(&mut text, ctx.get_raw(1), ctx.get_subtype(1))?;
        Ok(Some(text))
    }
}

impl Aggregate<GroupElements, (FunctionOutput, SubType)> for JsonAggregate {
    fn init(&self, _: &mut Context<'_>) -> Result<GroupElements> {
        Ok(GroupElements::default())
    }

    fn step(&self, ctx: &mut Context<'_>, elements: &mut GroupElements) -> Result<()> {
        let Some(text) = self.group_element(ctx)? else { return Ok(()) };
        elements.bytes += text.len() + 1;
        if elements.bytes > self.whole.bytes_max.get() {
            return Err(too_big());
        }
        elements.texts.push_back(text);
        Ok(())
    }

    fn finalize(&self, _: &mut Context<'_>, elements: Option<GroupElements>) -> Result<(FunctionOutput, SubType)> {
        self.group_result(elements.as_ref())
    }
}

impl WindowAggregate<GroupElements, (FunctionOutput, SubType)> for JsonAggregate {
    fn value(&self, elements: Option<&mut GroupElements>) -> Result<(FunctionOutput, SubType)> {
        self.group_result(elements.map(|elements| &*elements))
    }

    fn inverse(&self, _: &mut Context<'_>, elements: &mut GroupElements) -> Result<()> {
        if let Some(gone) = elements.texts.pop_front() {
            elements.bytes -= gone.len() + 1;
        }
        Ok(())
    }
}
