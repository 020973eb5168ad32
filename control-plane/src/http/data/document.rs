//! Answers as JSON, written piece by piece: an answer is held once, as rows, and never a second time as text.
//!
//! [`Document`] yields pieces of about [`PIECE_BYTES`], whatever the size of a row or a cell, and lets go of each row
//! when it is written. What the rows hold of the process's budget is given back with the last piece.

use std::collections::VecDeque;
use std::convert::Infallible;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::stream;
use serde::Serialize;
use tenant_engine::{AnswerHold, Rows, Value};

use super::value::Cell;

/// One piece: what a socket takes at once. A multiple of three, so that Base64 has no padding between pieces.
const PIECE_BYTES: usize = 48 << 10;

/// One answer and the text around its rows.
#[derive(Debug)]
struct Section {
    before: Vec<u8>,
    rows: Rows,
    after: Vec<u8>,
}

/// Text with answers in it.
#[derive(Debug, Default)]
pub(crate) struct Document {
    sections: VecDeque<Section>,
    open: Option<OpenSection>,
}

/// The section that is being written.
#[derive(Debug)]
struct OpenSection {
    rows: std::vec::IntoIter<Vec<Value>>,
    row: Option<std::vec::IntoIter<Value>>,
    long: Option<LongCell>,
    first_row: bool,
    first_cell: bool,
    after: Vec<u8>,
    _hold: AnswerHold,
}

/// A text or bytes of more than a piece, and how much of it was written.
#[derive(Debug)]
enum LongCell {
    Text(String, usize),
    Blob(Vec<u8>, usize),
}

impl Document {
    /// `{"columns":[…],"rows":[[…]…],"rows_affected":n}`.
    pub(crate) fn answer(rows: Rows) -> Self {
        let mut document = Self::default();
        document.push(rows, b"", b"");
        document
    }

    /// `{"results":[…]}`, an answer each.
    pub(crate) fn results(answers: Vec<Rows>) -> Self {
        let mut document = Self::default();
        let last = answers.len().saturating_sub(1);
        for (at, rows) in answers.into_iter().enumerate() {
            let before: &[u8] = if at == 0 { b"{\"results\":[" } else { b"," };
            document.push(rows, before, if at == last { b"]}" } else { b"" });
        }
        document
    }

    /// `{"tenant":…,"columns":[…],"rows":[[…]…]}` and a line feed.
    pub(crate) fn line(tenant: &str, rows: Rows) -> Self {
        let before = [b"{\"tenant\":", json(&tenant).as_slice(), b",\"columns\":", &json(&rows.columns)].concat();
        let before = [before.as_slice(), b",\"rows\":["].concat();
        Self { sections: VecDeque::from([Section { before, rows, after: b"]}\n".to_vec() }]), open: None }
    }

    /// A text of its own.
    pub(crate) fn text(text: Vec<u8>) -> Self {
        let section = Section { before: text, rows: Rows::default(), after: Vec::new() };
        Self { sections: VecDeque::from([section]), open: None }
    }

    fn push(&mut self, rows: Rows, outer_before: &[u8], outer_after: &[u8]) {
        let before = [outer_before, b"{\"columns\":", &json(&rows.columns), b",\"rows\":["].concat();
        let after = [b"],\"rows_affected\":", rows.rows_affected.to_string().as_bytes(), b"}", outer_after].concat();
        self.sections.push_back(Section { before, rows, after });
    }

    /// Writes a little; false at the end.
    fn step(&mut self, out: &mut Vec<u8>) -> bool {
        match &mut self.open {
            Some(open) => {
                if !open.step(out) {
                    self.open = None;
                }
                true
            }
            None => match self.sections.pop_front() {
                Some(section) => {
                    out.extend_from_slice(&section.before);
                    self.open = Some(OpenSection::new(section));
                    true
                }
                None => false,
            },
        }
    }
}

impl OpenSection {
    fn new(section: Section) -> Self {
        let Rows { rows, hold, .. } = section.rows;
        let (rows, after) = (rows.into_iter(), section.after);
        Self { rows, row: None, long: None, first_row: true, first_cell: true, after, _hold: hold }
    }

    /// One piece of a long cell, one cell, one beginning or end of a row, or the end; false after that.
    fn step(&mut self, out: &mut Vec<u8>) -> bool {
        if let Some(long) = &mut self.long {
            if !long.step(out) {
                self.long = None;
            }
            return true;
        }
        match self.row.as_mut().map(Iterator::next) {
            Some(Some(cell)) => self.cell(cell, out),
            Some(None) => {
                self.row = None;
                out.push(b']');
            }
            None => return self.next_row(out),
        }
        true
    }

    fn next_row(&mut self, out: &mut Vec<u8>) -> bool {
        let Some(row) = self.rows.next() else {
            out.append(&mut self.after);
            return false;
        };
        out.extend_from_slice(if std::mem::take(&mut self.first_row) { b"[" } else { b",[" });
        (self.row, self.first_cell) = (Some(row.into_iter()), true);
        true
    }

    fn cell(&mut self, cell: Value, out: &mut Vec<u8>) {
        if !std::mem::take(&mut self.first_cell) {
            out.push(b',');
        }
        match cell {
            Value::Text(text) if text.len() > PIECE_BYTES => {
                out.push(b'"');
                self.long = Some(LongCell::Text(text, 0));
            }
            Value::Blob(bytes) if bytes.len() > PIECE_BYTES => {
                out.extend_from_slice(b"{\"$blob\":\"");
                self.long = Some(LongCell::Blob(bytes, 0));
            }
            short => write(out, &Cell(&short)),
        }
    }
}

impl LongCell {
    /// Writes the next piece, or the end; false after that.
    fn step(&mut self, out: &mut Vec<u8>) -> bool {
        match self {
            Self::Text(text, at) if *at < text.len() => {
                let end = text.ceil_char_boundary((*at + PIECE_BYTES).min(text.len()));
                let quoted = json(&&text[*at..end]);
                out.extend_from_slice(&quoted[1..quoted.len() - 1]);
                *at = end;
                true
            }
            Self::Blob(bytes, at) if *at < bytes.len() => {
                let end = (*at + PIECE_BYTES).min(bytes.len());
                out.extend_from_slice(STANDARD.encode(&bytes[*at..end]).as_bytes());
                *at = end;
                true
            }
            Self::Text(..) => {
                out.push(b'"');
                false
            }
            Self::Blob(..) => {
                out.extend_from_slice(b"\"}");
                false
            }
        }
    }
}

impl Iterator for Document {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let mut piece = Vec::new();
        while piece.len() < PIECE_BYTES && self.step(&mut piece) {}
        (!piece.is_empty()).then(|| piece.into())
    }
}

impl IntoResponse for Document {
    /// A short answer is sent with its length, a long one in chunks.
    fn into_response(mut self) -> Response {
        let (first, second) = (self.next().unwrap_or_default(), self.next());
        let body = match second {
            None => Body::from(first),
            Some(second) => {
                let pieces = [first, second].into_iter().chain(self);
                Body::from_stream(stream::iter(pieces.map(Ok::<_, Infallible>)))
            }
        };
        ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response()
    }
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("names and cells are plain JSON")
}

fn write(out: &mut Vec<u8>, value: &impl Serialize) {
    serde_json::to_writer(out, value).expect("a cell is plain JSON and memory takes it");
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// The same, made in one piece.
    fn whole(rows: &Rows) -> serde_json::Value {
        let cell = |cell| serde_json::to_value(Cell(cell)).unwrap();
        let lines: Vec<Vec<_>> = rows.rows.iter().map(|row| row.iter().map(cell).collect()).collect();
        json!({ "columns": rows.columns, "rows": lines, "rows_affected": rows.rows_affected })
    }

    fn rows(rows: Vec<Vec<Value>>) -> Rows {
        let columns = rows.first().map_or(0, Vec::len);
        Rows { columns: (0..columns).map(|at| format!("c\"{at}")).collect(), rows, rows_affected: 3, ..Rows::default() }
    }

    fn text(document: Document) -> String {
        let pieces: Vec<_> = document.collect();
        // Escapes take up to six bytes.
        assert!(pieces.iter().all(|piece| piece.len() < 8 * PIECE_BYTES));
        String::from_utf8(pieces.concat()).unwrap()
    }

    fn samples() -> Vec<Rows> {
        let long = |unit: &str, bytes: usize| unit.repeat(bytes / unit.len() + 1);
        let cells =
            |n: i64| vec![Value::Integer(n), Value::Null, Value::Real(0.5), "a\"\u{0}é".into(), Value::Boolean(true)];
        vec![
            Rows::default(),
            rows(vec![vec![]]),
            rows((0..5_000).map(cells).collect()),
            rows(vec![vec![long("é\u{1F980}x", 200_000).into(), long("\u{0}\"", 100_000).into(), 1.into()]]),
            rows((0..3).map(|n| vec![Value::Blob(vec![n; PIECE_BYTES * 2 + usize::from(n)]), "x".into()]).collect()),
            rows(vec![vec!["x".repeat(PIECE_BYTES).into()], vec!["x".repeat(PIECE_BYTES + 1).into()]]),
        ]
    }

    #[test]
    fn the_pieces_of_an_answer_are_the_answer() {
        for rows in samples() {
            assert_eq!(text(Document::answer(rows.clone())), whole(&rows).to_string());
        }
        let answers: Vec<_> = samples().iter().map(whole).collect();
        assert_eq!(text(Document::results(samples())), json!({ "results": answers }).to_string());
        let line: serde_json::Value =
            serde_json::from_str(&text(Document::line("a\"b", rows(vec![vec![1.into()]])))).unwrap();
        assert_eq!(line, json!({ "tenant": "a\"b", "columns": ["c\"0"], "rows": [[1]] }));
    }

    #[test]
    fn rows_are_let_go_while_they_are_written() {
        let mut document = Document::answer(rows(vec![vec!["x".repeat(PIECE_BYTES * 3).into()], vec!["y".into()]]));
        assert_eq!(document.by_ref().take(2).count(), 2);
        assert!(document.open.as_ref().is_some_and(|open| open.rows.len() == 1));
        assert_eq!(text(document).chars().filter(|char| *char == 'y').count(), 1);
    }
}
