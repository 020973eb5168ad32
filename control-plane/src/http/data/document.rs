//! Answers as JSON, written piece by piece. An answer is held once, as rows, and never a second time as text.
//!
//! [`AnswerDocument`] yields pieces of about [`PIECE_BYTES`], whatever the size of a row or a cell. It releases each
//! row when it is written. The rows' share of the process's memory budget is returned with the last piece.

use std::collections::VecDeque;
use std::convert::Infallible;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::stream;
use serde::Serialize;
use tenant_engine::{AnswerHold, Rows, SqlValue};

use super::value::JsonCell;

/// The size of a piece: what a socket takes at once. A multiple of three, so that Base64 has no padding between pieces.
const PIECE_BYTES: usize = 48 << 10;

/// One answer and the text around its rows.
#[derive(Debug)]
struct AnswerSection {
    before: Vec<u8>,
    rows: Rows,
    after: Vec<u8>,
}

/// Text with answers in it.
#[derive(Debug, Default)]
pub(crate) struct AnswerDocument {
    sections: VecDeque<AnswerSection>,
    open: Option<OpenSection>,
}

/// The section that is being written.
#[derive(Debug)]
struct OpenSection {
    rows: std::vec::IntoIter<Vec<SqlValue>>,
    row: Option<std::vec::IntoIter<SqlValue>>,
    long: Option<LongCell>,
    first_row: bool,
    first_cell: bool,
    after: Vec<u8>,
    _hold: AnswerHold,
}

/// A text or blob that is longer than a piece, and how much of it was written.
#[derive(Debug)]
enum LongCell {
    Text(String, usize),
    Blob(Vec<u8>, usize),
}

impl AnswerDocument {
    /// The document `{"columns":[…],"rows":[[…]…],"rows_affected":n}`.
    pub(crate) fn answer_of(rows: Rows) -> Self {
        let mut document = Self::default();
        document.push_section(rows, b"", b"");
        document
    }

    /// The document `{"results":[…]}`, with one answer per statement.
    pub(crate) fn results_of(answers: Vec<Rows>) -> Self {
        let mut document = Self::default();
        let last = answers.len().saturating_sub(1);
        for (at, rows) in answers.into_iter().enumerate() {
            let before: &[u8] = if at == 0 { b"{\"results\":[" } else { b"," };
            document.push_section(rows, before, if at == last { b"]}" } else { b"" });
        }
        document
    }

    /// The line `{"tenant":…,"columns":[…],"rows":[[…]…]}` with a line feed.
    pub(crate) fn tenant_line(tenant: &str, rows: Rows) -> Self {
        let before =
            [b"{\"tenant\":", json_bytes(&tenant).as_slice(), b",\"columns\":", &json_bytes(&rows.columns)].concat();
        let before = [before.as_slice(), b",\"rows\":["].concat();
        Self { sections: VecDeque::from([AnswerSection { before, rows, after: b"]}\n".to_vec() }]), open: None }
    }

    /// A document that consists of this text.
    pub(crate) fn plain_text(text: Vec<u8>) -> Self {
        let section = AnswerSection { before: text, rows: Rows::default(), after: Vec::new() };
        Self { sections: VecDeque::from([section]), open: None }
    }

    fn push_section(&mut self, rows: Rows, outer_before: &[u8], outer_after: &[u8]) {
        let before = [outer_before, b"{\"columns\":", &json_bytes(&rows.columns), b",\"rows\":["].concat();
        let after = [b"],\"rows_affected\":", rows.rows_affected.to_string().as_bytes(), b"}", outer_after].concat();
        self.sections.push_back(AnswerSection { before, rows, after });
    }

    /// Writes a little more. False at the end.
    fn write_step(&mut self, out: &mut Vec<u8>) -> bool {
        match &mut self.open {
            Some(open) => {
                if !open.write_part(out) {
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
    fn new(section: AnswerSection) -> Self {
        let Rows { rows, hold, .. } = section.rows;
        let (rows, after) = (rows.into_iter(), section.after);
        Self { rows, row: None, long: None, first_row: true, first_cell: true, after, _hold: hold }
    }

    /// Writes one piece of a long cell, one cell, one start or end of a row, or the end. False after that.
    fn write_part(&mut self, out: &mut Vec<u8>) -> bool {
        if let Some(long) = &mut self.long {
            if !long.write_piece(out) {
                self.long = None;
            }
            return true;
        }
        match self.row.as_mut().map(Iterator::next) {
            Some(Some(cell)) => self.write_cell(cell, out),
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

    fn write_cell(&mut self, cell: SqlValue, out: &mut Vec<u8>) {
        if !std::mem::take(&mut self.first_cell) {
            out.push(b',');
        }
        match cell {
            SqlValue::Text(text) if text.len() > PIECE_BYTES => {
                out.push(b'"');
                self.long = Some(LongCell::Text(text, 0));
            }
            SqlValue::Blob(bytes) if bytes.len() > PIECE_BYTES => {
                out.extend_from_slice(b"{\"$blob\":\"");
                self.long = Some(LongCell::Blob(bytes, 0));
            }
            short => write_json(out, &JsonCell(&short)),
        }
    }
}

impl LongCell {
    /// Writes the next piece, or the end. False after that.
    fn write_piece(&mut self, out: &mut Vec<u8>) -> bool {
        match self {
            Self::Text(text, at) if *at < text.len() => {
                let end = text.ceil_char_boundary((*at + PIECE_BYTES).min(text.len()));
                let quoted = json_bytes(&&text[*at..end]);
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

impl Iterator for AnswerDocument {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let mut piece = Vec::new();
        while piece.len() < PIECE_BYTES && self.write_step(&mut piece) {}
        (!piece.is_empty()).then(|| piece.into())
    }
}

impl IntoResponse for AnswerDocument {
    /// Sends a short answer with its length, and a long one in chunks.
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

fn json_bytes(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("names and cells are plain JSON")
}

fn write_json(out: &mut Vec<u8>, value: &impl Serialize) {
    serde_json::to_writer(out, value).expect("a cell is plain JSON and memory takes it");
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// The document built in one piece.
    fn whole(rows: &Rows) -> serde_json::Value {
        let cell = |cell| serde_json::to_value(JsonCell(cell)).unwrap();
        let lines: Vec<Vec<_>> = rows.rows.iter().map(|row| row.iter().map(cell).collect()).collect();
        json!({ "columns": rows.columns, "rows": lines, "rows_affected": rows.rows_affected })
    }

    fn rows(rows: Vec<Vec<SqlValue>>) -> Rows {
        let columns = rows.first().map_or(0, Vec::len);
        Rows { columns: (0..columns).map(|at| format!("c\"{at}")).collect(), rows, rows_affected: 3, ..Rows::default() }
    }

    fn text(document: AnswerDocument) -> String {
        let pieces: Vec<_> = document.collect();
        // Escapes take up to six bytes.
        assert!(pieces.iter().all(|piece| piece.len() < 8 * PIECE_BYTES));
        String::from_utf8(pieces.concat()).unwrap()
    }

    fn samples() -> Vec<Rows> {
        let long = |unit: &str, bytes: usize| unit.repeat(bytes / unit.len() + 1);
        let cells = |n: i64| {
            vec![SqlValue::Integer(n), SqlValue::Null, SqlValue::Real(0.5), "a\"\u{0}é".into(), SqlValue::Boolean(true)]
        };
        vec![
            Rows::default(),
            rows(vec![vec![]]),
            rows((0..5_000).map(cells).collect()),
            rows(vec![vec![long("é\u{1F980}x", 200_000).into(), long("\u{0}\"", 100_000).into(), 1.into()]]),
            rows((0..3).map(|n| vec![SqlValue::Blob(vec![n; PIECE_BYTES * 2 + usize::from(n)]), "x".into()]).collect()),
            rows(vec![vec!["x".repeat(PIECE_BYTES).into()], vec!["x".repeat(PIECE_BYTES + 1).into()]]),
        ]
    }

    #[test]
    fn the_pieces_of_an_answer_are_the_answer() {
        for rows in samples() {
            assert_eq!(text(AnswerDocument::answer_of(rows.clone())), whole(&rows).to_string());
        }
        let answers: Vec<_> = samples().iter().map(whole).collect();
        assert_eq!(text(AnswerDocument::results_of(samples())), json!({ "results": answers }).to_string());
        let line: serde_json::Value =
            serde_json::from_str(&text(AnswerDocument::tenant_line("a\"b", rows(vec![vec![1.into()]])))).unwrap();
        assert_eq!(line, json!({ "tenant": "a\"b", "columns": ["c\"0"], "rows": [[1]] }));
    }

    #[test]
    fn rows_are_let_go_while_they_are_written() {
        let mut document =
            AnswerDocument::answer_of(rows(vec![vec!["x".repeat(PIECE_BYTES * 3).into()], vec!["y".into()]]));
        assert_eq!(document.by_ref().take(2).count(), 2);
        assert!(document.open.as_ref().is_some_and(|open| open.rows.len() == 1));
        assert_eq!(text(document).chars().filter(|char| *char == 'y').count(), 1);
    }
}
