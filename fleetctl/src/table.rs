//! PURE: rows of text to aligned lines, and JSON to text. Nothing here prints.

use serde_json::Value;
use unicode_width::UnicodeWidthStr;

/// How a value is shown to a human.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// As it is.
    Text,
    /// A time, to the second.
    Time,
    /// `1.5 MiB`.
    Bytes,
    /// `k=v,k2=v2`.
    Labels,
}

/// One column of a noun's table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    pub(crate) title: &'static str,
    /// JSON pointer into the item.
    pub(crate) at: &'static str,
    pub(crate) shape: Shape,
    /// Only with `-o wide` (and in CSV).
    pub(crate) wide: bool,
}

impl Column {
    pub(crate) const fn text(title: &'static str, at: &'static str) -> Self {
        Self { title, at, shape: Shape::Text, wide: false }
    }
    pub(crate) const fn time(title: &'static str, at: &'static str) -> Self {
        Self { title, at, shape: Shape::Time, wide: false }
    }
    pub(crate) const fn bytes(title: &'static str, at: &'static str) -> Self {
        Self { title, at, shape: Shape::Bytes, wide: false }
    }
    pub(crate) const fn labels(title: &'static str, at: &'static str) -> Self {
        Self { title, at, shape: Shape::Labels, wide: false }
    }
    #[must_use]
    pub(crate) const fn wide(mut self) -> Self {
        self.wide = true;
        self
    }

    /// What a human sees of this column.
    pub(crate) fn cell(&self, item: &Value) -> String {
        match (self.shape, item.pointer(self.at).unwrap_or(&Value::Null)) {
            (_, Value::Null) => "-".to_owned(),
            (Shape::Time, Value::String(time)) => to_the_second(time),
            (Shape::Bytes, Value::Number(n)) => bytes(n.as_u64().unwrap_or_default()),
            (Shape::Labels, Value::Object(labels)) if labels.is_empty() => "-".to_owned(),
            (_, value) => printable(&plain(value)),
        }
    }

    /// What a machine reads of this column: nothing shortened, empty when there is none.
    pub(crate) fn raw(&self, item: &Value) -> String {
        item.pointer(self.at).map(plain).unwrap_or_default()
    }

    /// The name of this column in CSV: the API's own.
    pub(crate) fn raw_title(&self) -> String {
        self.at.trim_start_matches('/').replace('/', ".")
    }
}

/// How a noun is shown.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) columns: &'static [Column],
    /// What `-o name` prints: a JSON pointer.
    pub(crate) name: &'static str,
}

/// `1 tenant`, `2 tenants`.
pub(crate) fn counted(n: u64, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}

/// A JSON value as text without quotes; objects of scalars as `k=v,k2=v2`.
pub(crate) fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Object(map) if map.values().all(|v| !v.is_object() && !v.is_array()) => {
            map.iter().map(|(k, v)| format!("{k}={}", plain(v))).collect::<Vec<_>>().join(",")
        }
        Value::Array(items) if items.iter().all(|v| !v.is_object() && !v.is_array()) => {
            items.iter().map(plain).collect::<Vec<_>>().join(",")
        }
        other => other.to_string(),
    }
}

/// Control characters escaped, and what changes the direction of text or is not seen: what tenants store must not steer
/// an operator's terminal, nor look like something else.
pub(crate) fn printable(text: &str) -> String {
    escaped(text, |c| c.is_control() || is_deceptive(c))
}

/// The same for a cell of CSV, where a cell may have lines; and a text that a spreadsheet would run as a formula begins
/// with an apostrophe, which spreadsheets show as text. JSON has the exact value.
pub(crate) fn csv_cell(text: &str) -> String {
    let cell = escaped(text, |c| (c.is_control() && !matches!(c, '\n' | '\r' | '\t')) || is_deceptive(c));
    let formula = cell.starts_with(['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠']);
    // A number is harmless, and stays one.
    if formula && cell.parse::<f64>().is_err() { format!("'{cell}") } else { cell }
}

/// JSON with the same characters escaped as JSON does it: the values stay the same.
pub(crate) fn printable_json(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    let mut units = [0; 2];
    for c in json.chars() {
        match (c.is_control() && c != '\n') || is_deceptive(c) {
            true => c.encode_utf16(&mut units).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}"))),
            false => out.push(c),
        }
    }
    out
}

fn escaped(text: &str, harmful: impl Fn(char) -> bool) -> String {
    if !text.chars().any(&harmful) {
        return text.to_owned();
    }
    let shown = |c: char| if harmful(c) { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(shown).collect()
}

/// Marks and overrides of direction, separators of lines and paragraphs, and characters without a width. The joiners of
/// scripts and emoji stay.
fn is_deceptive(c: char) -> bool {
    matches!(
        c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
    )
}

fn to_the_second(time: &str) -> String {
    match (time.find('.'), time.ends_with('Z')) {
        (Some(dot), true) => format!("{}Z", &time[..dot]),
        _ => time.to_owned(),
    }
}

/// Binary units, at most one decimal.
pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 || value >= 100.0 {
        format!("{value:.0} {}", UNITS[unit])
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

/// Lines up rows that arrive page by page: a width never shrinks, so later pages stay in line.
#[derive(Debug, Default)]
pub(crate) struct Aligner {
    widths: Vec<usize>,
}

impl Aligner {
    pub(crate) fn lines(&mut self, rows: &[Vec<String>]) -> String {
        for row in rows {
            self.widths.resize(self.widths.len().max(row.len()), 0);
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(cell.width());
            }
        }
        rows.iter().map(|row| self.line(row)).collect()
    }

    fn line(&self, row: &[String]) -> String {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&self.widths) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.width()) + 2));
        }
        format!("{}\n", line.trim_end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn cells_are_short_for_humans_and_whole_for_machines() {
        let item = json!({"at": "2026-11-23T03:35:06.123Z", "n": 1_536, "l": {"a": "1", "b": "2"}, "e": {}, "x": null});
        assert_eq!(Column::time("AT", "/at").cell(&item), "2026-11-23T03:35:06Z");
        assert_eq!(Column::time("AT", "/at").raw(&item), "2026-11-23T03:35:06.123Z");
        assert_eq!(Column::bytes("N", "/n").cell(&item), "1.5 KiB");
        assert_eq!(Column::bytes("N", "/n").raw(&item), "1536");
        assert_eq!(Column::labels("L", "/l").cell(&item), "a=1,b=2");
        assert_eq!(Column::labels("E", "/e").cell(&item), "-");
        assert_eq!(Column::text("X", "/x").cell(&item), "-");
        assert_eq!(Column::text("X", "/x").raw(&item), "");
    }

    #[test]
    fn sizes_have_one_decimal_at_most() {
        for (n, text) in
            [(0, "0 B"), (1_023, "1023 B"), (1_024, "1.0 KiB"), (150 * 1_024, "150 KiB"), (u64::MAX, "16384 PiB")]
        {
            assert_eq!(bytes(n), text);
        }
    }

    #[test]
    fn rows_line_up_and_end_without_blanks() {
        let mut aligner = Aligner::default();
        let row = |cells: &[&str]| cells.iter().map(|c| (*c).to_owned()).collect::<Vec<_>>();
        assert_eq!(aligner.lines(&[row(&["NAME", "N"]), row(&["日本", "10"])]), "NAME  N\n日本  10\n");
        assert_eq!(aligner.lines(&[row(&["a", "1"])]), "a     1\n");
    }

    #[test]
    fn control_characters_cannot_steer_the_terminal() {
        assert_eq!(printable("a\u{1b}[31mred\n"), "a\\u{1b}[31mred\\n");
        assert_eq!(printable("héé"), "héé");
        assert_eq!(printable("a\u{9b}31m"), "a\\u{9b}31m");
        assert_eq!(
            printable("ab\u{202e}cd\u{2066}\u{200b}\u{2028}\u{feff}"),
            "ab\\u{202e}cd\\u{2066}\\u{200b}\\u{2028}\\u{feff}"
        );
        assert_eq!(printable("👨\u{200d}👩"), "👨\u{200d}👩");
    }

    #[test]
    fn a_cell_of_csv_is_no_formula_and_a_number_stays_one() {
        for formula in [
            "=1+1",
            "+1+1",
            "-1+1",
            "@sum(a1)",
            "\t=1",
            "\r=1",
            "\n=1",
            "＝1",
            "-cmd|' /c calc'!a0",
            "=\"a\"",
            "+",
            "-",
        ] {
            assert_eq!(csv_cell(formula), format!("'{formula}"));
        }
        for harmless in ["-5", "+5", "-1.5e3", "-inf", "1=1", "a@b", "", "two\nlines", "a\tb"] {
            assert_eq!(csv_cell(harmless), harmless);
        }
        assert_eq!(csv_cell("a\u{1b}[2J\u{202e}b"), "a\\u{1b}[2J\\u{202e}b");
    }

    #[test]
    fn json_keeps_its_values_and_steers_no_terminal() {
        let value = json!({"a\u{7f}": "x\u{9b}y\u{202e}z\u{e0041}é\n"});
        let text = printable_json(&format!("{value:#}"));
        assert!(!text.chars().any(|c| (c.is_control() && c != '\n') || is_deceptive(c)), "{text}");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
    }
}
