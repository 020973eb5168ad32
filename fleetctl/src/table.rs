//! PURE: formats rows of text as aligned lines, and JSON as text. Nothing here prints.

use serde_json::Value;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// How a value is shown to people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CellFormat {
    /// Unchanged.
    Text,
    /// A time, precise to the second.
    Time,
    /// Binary units, such as `1.5 MiB`.
    Bytes,
    /// Pairs, such as `k=v,k2=v2`.
    Labels,
}

/// One column of a noun's table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TableColumn {
    pub(crate) title: &'static str,
    /// JSON pointer into the item.
    pub(crate) at: &'static str,
    pub(crate) shape: CellFormat,
    /// Shown only with `-o wide` and in CSV.
    pub(crate) wide: bool,
    /// The text may be cut at a narrow terminal, because it is only read: a message, not an id.
    pub(crate) cut: bool,
}

impl TableColumn {
    pub(crate) const fn of_text(title: &'static str, at: &'static str) -> Self {
        Self { title, at, shape: CellFormat::Text, wide: false, cut: false }
    }
    pub(crate) const fn of_time(title: &'static str, at: &'static str) -> Self {
        Self { title, at, shape: CellFormat::Time, wide: false, cut: false }
    }
    pub(crate) const fn of_bytes(title: &'static str, at: &'static str) -> Self {
        Self { title, at, shape: CellFormat::Bytes, wide: false, cut: false }
    }
    pub(crate) const fn of_labels(title: &'static str, at: &'static str) -> Self {
        Self { title, at, shape: CellFormat::Labels, wide: false, cut: false }
    }
    #[must_use]
    pub(crate) const fn only_wide(mut self) -> Self {
        self.wide = true;
        self
    }

    #[must_use]
    pub(crate) const fn may_cut(mut self) -> Self {
        self.cut = true;
        self
    }

    /// The cell of this column for people.
    pub(crate) fn human_cell(&self, item: &Value) -> String {
        match (self.shape, item.pointer(self.at).unwrap_or(&Value::Null)) {
            (_, Value::Null) => "-".to_owned(),
            (CellFormat::Time, Value::String(time)) => to_the_second(time),
            (CellFormat::Bytes, Value::Number(n)) => format_bytes(n.as_u64().unwrap_or_default()),
            (CellFormat::Labels, Value::Object(labels)) if labels.is_empty() => "-".to_owned(),
            (_, value) => escape_text(&plain_text(value)),
        }
    }

    /// The cell of this column for programs: not shortened; empty when the value is missing.
    pub(crate) fn machine_cell(&self, item: &Value) -> String {
        item.pointer(self.at).map(plain_text).unwrap_or_default()
    }

    /// The name of this column in CSV: the API's field name.
    pub(crate) fn machine_title(&self) -> String {
        self.at.trim_start_matches('/').replace('/', ".")
    }
}

/// The table of one noun.
#[derive(Debug)]
pub(crate) struct TableView {
    pub(crate) columns: &'static [TableColumn],
    /// JSON pointer to the value that `-o name` prints.
    pub(crate) name: &'static str,
}

/// A count with its noun: `1 tenant`, `2 tenants`.
pub(crate) fn count_noun(n: u64, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}

/// A JSON value as text without quotes; objects of scalars as `k=v,k2=v2`.
pub(crate) fn plain_text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Object(map) if map.values().all(|v| !v.is_object() && !v.is_array()) => {
            map.iter().map(|(k, v)| format!("{k}={}", plain_text(v))).collect::<Vec<_>>().join(",")
        }
        Value::Array(items) if items.iter().all(|v| !v.is_object() && !v.is_array()) => {
            items.iter().map(plain_text).collect::<Vec<_>>().join(",")
        }
        other => other.to_string(),
    }
}

/// Escapes control characters, and characters that are invisible or change the direction of text. Text that tenants
/// store must not control an operator's terminal or look like other text.
pub(crate) fn escape_text(text: &str) -> String {
    escape_where(text, |c| c.is_control() || is_deceptive(c))
}

/// As [`escape_text`], for a cell of CSV, which may have several lines. A text that a spreadsheet would run as a
/// formula gets a leading apostrophe, so that it is shown as text. JSON has the exact value.
pub(crate) fn csv_cell(text: &str) -> String {
    let cell = escape_where(text, |c| (c.is_control() && !matches!(c, '\n' | '\r' | '\t')) || is_deceptive(c));
    let formula = cell.starts_with(['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠']);
    // A number is harmless and stays unchanged.
    if formula && cell.parse::<f64>().is_err() { format!("'{cell}") } else { cell }
}

/// Escapes the same characters in JSON, in JSON's own way: the values stay unchanged.
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

fn escape_where(text: &str, harmful: impl Fn(char) -> bool) -> String {
    if !text.chars().any(&harmful) {
        return text.to_owned();
    }
    let shown = |c: char| if harmful(c) { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(shown).collect()
}

/// Direction marks and overrides, line and paragraph separators, and zero-width characters. The joiners of scripts and
/// emoji stay.
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

/// Formats a size in binary units, with at most one decimal.
pub(crate) fn format_bytes(n: u64) -> String {
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

/// Minimum width of a cell that may be cut; beyond that, another column is left out.
const CUT_TO_MIN: usize = 16;
/// Spaces between two columns.
const GAP: usize = 2;

/// The columns that a terminal shows, and their widths. PURE.
///
/// First, cells that may be cut are cut. Then columns are left out from the end; the first two stay, because they name
/// the row. Only if that is not enough, other cells are cut.
fn fit_columns(widths: &[usize], cuts: &[bool], total: usize) -> Vec<Option<usize>> {
    let least = |at: usize| if cuts[at] { widths[at].min(CUT_TO_MIN) } else { widths[at] };
    let mut shown: Vec<usize> = (0..widths.len()).collect();
    let room = |shown: &[usize]| total.saturating_sub(GAP * shown.len().saturating_sub(1));
    let needed = |shown: &[usize]| shown.iter().map(|at| least(*at)).sum::<usize>();
    while needed(&shown) > room(&shown) && shown.len() > 2 {
        shown.pop();
    }
    let mut out = vec![None; widths.len()];
    shown.iter().for_each(|at| out[*at] = Some(least(*at)));
    let mut free = room(&shown).saturating_sub(needed(&shown));
    for at in shown.iter().copied().filter(|at| cuts[*at]) {
        let more = (widths[at] - least(at)).min(free);
        out[at] = Some(least(at) + more);
        free -= more;
    }
    let mut over = needed(&shown).saturating_sub(room(&shown));
    // The widest column loses one character at a time, so that equal columns are cut alike.
    while over > 0 {
        let Some(widest) = out.iter_mut().flatten().max_by_key(|width| **width).filter(|width| **width > 1) else {
            break;
        };
        *widest -= 1;
        over -= 1;
    }
    out
}

/// At most `width` columns of a text, with `…` in place of the rest.
fn cut_to(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut out = String::new();
    for c in text.chars() {
        if out.width() + c.width().unwrap_or_default() + 1 > width {
            break;
        }
        out.push(c);
    }
    out.push('…');
    out
}

/// Aligns rows that arrive page by page. Widths never shrink, so later pages stay aligned.
#[derive(Debug, Default)]
pub(crate) struct ColumnAligner {
    widths: Vec<usize>,
    /// The terminal's width and which columns may be cut; with `None` nothing is cut or left out.
    terminal: Option<(usize, Vec<bool>)>,
}

impl ColumnAligner {
    /// An aligner for a terminal of this width.
    pub(crate) fn for_terminal(total: usize, columns: &[&TableColumn]) -> Self {
        Self { widths: Vec::new(), terminal: Some((total, columns.iter().map(|column| column.cut).collect())) }
    }

    pub(crate) fn aligned_lines(&mut self, rows: &[Vec<String>]) -> String {
        for row in rows {
            self.widths.resize(self.widths.len().max(row.len()), 0);
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(cell.width());
            }
        }
        let shown = match &self.terminal {
            Some((total, cuts)) => fit_columns(&self.widths, cuts, *total),
            None => self.widths.iter().copied().map(Some).collect(),
        };
        rows.iter().map(|row| aligned_line(row, &shown)).collect()
    }
}

fn aligned_line(row: &[String], widths: &[Option<usize>]) -> String {
    let mut line = String::new();
    for (cell, width) in row.iter().zip(widths) {
        let Some(width) = *width else { continue };
        let cell = cut_to(cell, width);
        line.push_str(&cell);
        line.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.width()) + GAP));
    }
    format!("{}\n", line.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn cells_are_short_for_humans_and_whole_for_machines() {
        let item = json!({"at": "2026-11-23T03:35:06.123Z", "n": 1_536, "l": {"a": "1", "b": "2"}, "e": {}, "x": null});
        assert_eq!(TableColumn::of_time("AT", "/at").human_cell(&item), "2026-11-23T03:35:06Z");
        assert_eq!(TableColumn::of_time("AT", "/at").machine_cell(&item), "2026-11-23T03:35:06.123Z");
        assert_eq!(TableColumn::of_bytes("N", "/n").human_cell(&item), "1.5 KiB");
        assert_eq!(TableColumn::of_bytes("N", "/n").machine_cell(&item), "1536");
        assert_eq!(TableColumn::of_labels("L", "/l").human_cell(&item), "a=1,b=2");
        assert_eq!(TableColumn::of_labels("E", "/e").human_cell(&item), "-");
        assert_eq!(TableColumn::of_text("X", "/x").human_cell(&item), "-");
        assert_eq!(TableColumn::of_text("X", "/x").machine_cell(&item), "");
    }

    #[test]
    fn sizes_have_one_decimal_at_most() {
        for (n, text) in
            [(0, "0 B"), (1_023, "1023 B"), (1_024, "1.0 KiB"), (150 * 1_024, "150 KiB"), (u64::MAX, "16384 PiB")]
        {
            assert_eq!(format_bytes(n), text);
        }
    }

    #[test]
    fn a_narrow_terminal_cuts_messages_then_leaves_columns_out_and_never_shows_more_than_fits() {
        // Name, state, id, message.
        let cuts = [false, false, false, true];
        assert_eq!(fit_columns(&[10, 8, 35, 10], &cuts, 80), [Some(10), Some(8), Some(35), Some(10)]);
        assert_eq!(fit_columns(&[10, 8, 35, 400], &cuts, 80), [Some(10), Some(8), Some(35), Some(21)]);
        assert_eq!(fit_columns(&[63, 8, 35, 400], &cuts, 80), [Some(63), Some(8), None, None]);
        assert_eq!(fit_columns(&[90, 8], &cuts, 80), [Some(70), Some(8)]);
        assert_eq!(fit_columns(&[], &[], 80), []);
        for total in 1..200 {
            let all = fit_columns(&[63, 10, 35, 20, 1_000, 14], &[false, false, false, false, true, false], total);
            let shown: Vec<usize> = all.into_iter().flatten().collect();
            let used: usize = shown.iter().sum::<usize>() + GAP * (shown.len() - 1);
            assert!(used <= total.max(2 + GAP), "{total}: {shown:?}");
        }
        assert_eq!(cut_to("日本語です", 5), "日本…");
        assert_eq!(cut_to("short", 5), "short");
        assert_eq!(cut_to("longer", 1), "…");
    }

    #[test]
    fn rows_line_up_and_end_without_blanks() {
        let mut aligner = ColumnAligner::default();
        let row = |cells: &[&str]| cells.iter().map(|c| (*c).to_owned()).collect::<Vec<_>>();
        assert_eq!(aligner.aligned_lines(&[row(&["NAME", "N"]), row(&["日本", "10"])]), "NAME  N\n日本  10\n");
        assert_eq!(aligner.aligned_lines(&[row(&["a", "1"])]), "a     1\n");
    }

    #[test]
    fn control_characters_cannot_steer_the_terminal() {
        assert_eq!(escape_text("a\u{1b}[31mred\n"), "a\\u{1b}[31mred\\n");
        assert_eq!(escape_text("héé"), "héé");
        assert_eq!(escape_text("a\u{9b}31m"), "a\\u{9b}31m");
        assert_eq!(
            escape_text("ab\u{202e}cd\u{2066}\u{200b}\u{2028}\u{feff}"),
            "ab\\u{202e}cd\\u{2066}\\u{200b}\\u{2028}\\u{feff}"
        );
        assert_eq!(escape_text("👨\u{200d}👩"), "👨\u{200d}👩");
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
