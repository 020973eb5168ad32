//! The only printer: data on stdout, everything else on stderr.
//!
//! Commands hand over the API's JSON and a [`View`]; the format decides what becomes of it.

use std::io::{self, Write};

use clap::ValueEnum;
use serde_json::{Value, json};

use crate::error::{Exit, Failure, Result};
use crate::table::{Aligner, Column, View, csv_cell, printable, printable_json};

/// How data is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Columns for humans.
    Table,
    /// More columns.
    Wide,
    /// The API's own shape.
    Json,
    /// One JSON object per line.
    Jsonl,
    /// All columns, with a header; a text that a spreadsheet would run begins with '.
    Csv,
    /// Only the names (or ids), one per line.
    Name,
}

/// How much is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loudness {
    Normal,
    /// Nothing on success, except data whose format was asked for.
    Quiet,
}

/// Both streams and how to use them.
pub(crate) struct Output {
    stdout: Box<dyn Write + Send>,
    stderr: Box<dyn Write + Send>,
    pub(crate) format: Format,
    pub(crate) loudness: Loudness,
    /// Data goes nowhere: `--quiet` without `-o`.
    pub(crate) silent: bool,
    /// Whether a human watches stderr.
    pub(crate) watched: bool,
}

impl Output {
    pub(crate) fn new(stdout: Box<dyn Write + Send>, stderr: Box<dyn Write + Send>, watched: bool) -> Self {
        Self { stdout, stderr, format: Format::Table, loudness: Loudness::Normal, silent: false, watched }
    }

    /// Text as it is, on stdout.
    pub(crate) fn text(&mut self, text: &str) -> Result<()> {
        if self.silent { Ok(()) } else { self.secret(text) }
    }

    /// JSON, on stdout.
    pub(crate) fn json(&mut self, json: &str) -> Result<()> {
        self.text(&printable_json(json))
    }

    /// Text that is never left out, because it cannot be had again.
    pub(crate) fn secret(&mut self, text: &str) -> Result<()> {
        self.stdout.write_all(text.as_bytes()).map_err(|e| unwritable(&e))
    }

    /// Everything buffered goes out now; a full disk is noticed here at the latest.
    pub(crate) fn flush(&mut self) -> Result<()> {
        self.stdout.flush().map_err(|e| unwritable(&e))
    }

    /// One thing.
    pub(crate) fn item(&mut self, view: &View, item: &Value) -> Result<()> {
        match self.format {
            Format::Json => self.json(&format!("{item:#}\n")),
            _ => {
                let mut list = self.list(view)?;
                list.page(std::slice::from_ref(item))?;
                list.finish()
            }
        }
    }

    /// One thing as a column of facts; other formats as [`Output::item`].
    pub(crate) fn facts(&mut self, view: &View, item: &Value) -> Result<()> {
        if !matches!(self.format, Format::Table | Format::Wide) {
            return self.item(view, item);
        }
        let wide = self.format == Format::Wide;
        let shown = view.columns.iter().filter(|c| wide || !c.wide);
        let rows: Vec<_> = shown.map(|c| vec![c.title.to_owned(), c.cell(item)]).collect();
        self.text(&Aligner::default().lines(&rows))
    }

    /// Many things, page by page.
    pub(crate) fn list<'o>(&'o mut self, view: &'o View) -> Result<List<'o>> {
        let wide = self.format != Format::Table;
        let columns: Vec<_> = view.columns.iter().filter(|c| wide || !c.wide).collect();
        let mut list = List { out: self, name: view.name, columns, aligner: Aligner::default(), items: 0 };
        list.begin()?;
        Ok(list)
    }

    /// For the human, on stderr.
    pub(crate) fn note(&mut self, text: &str) {
        if self.loudness == Loudness::Normal {
            self.complain(text);
        }
    }

    /// For the human, on stderr, however quiet. What cannot be said is not worth failing for.
    pub(crate) fn complain(&mut self, text: &str) {
        // On a terminal both streams are one: what was printed first should stand first. A failure stays for the end.
        let _ = self.stdout.flush();
        let _ = writeln!(self.stderr, "{}", text.trim_end());
    }

    /// A question, on stderr, without a line's end.
    pub(crate) fn ask(&mut self, text: &str) {
        let _ = write!(self.stderr, "{text}");
        let _ = self.stderr.flush();
    }

    /// What went wrong, why, and what helps.
    pub(crate) fn failure(&mut self, failure: &Failure) {
        self.complain(&describe(failure));
    }
}

/// `error:` what · `cause:` why · `try:` the command that helps.
fn describe(failure: &Failure) -> String {
    /// More causes than this are a flood: the first ones show the pattern.
    const CAUSES_MAX: usize = 20;
    let mut text = format!("error: {}\n", printable(&failure.what));
    for cause in failure.causes.iter().take(CAUSES_MAX) {
        let indented = cause.lines().map(printable).collect::<Vec<_>>().join("\n       ");
        text.push_str(&format!("cause: {indented}\n"));
    }
    if failure.causes.len() > CAUSES_MAX {
        text.push_str(&format!("cause: and {} more\n", failure.causes.len() - CAUSES_MAX));
    }
    for step in &failure.tries {
        text.push_str(&format!("try:   {}\n", printable(step)));
    }
    let explain = format!("fleetctl explain {}", failure.code);
    if !failure.code.is_empty() && !failure.tries.contains(&explain) {
        text.push_str(&format!("try:   {explain}\n"));
    }
    if failure.exit == Exit::Usage && failure.code.is_empty() && failure.tries.is_empty() {
        text.push_str("try:   the same command with --help\n");
    }
    text
}

/// A closed pipe is the reader's choice (`| head`): the command ends quietly. Anything else is told.
fn unwritable(error: &io::Error) -> Failure {
    let exit = if error.kind() == io::ErrorKind::BrokenPipe { Exit::Done } else { Exit::Failed };
    Failure::new(exit, "cannot write to standard output").because(error).code("")
}

/// A list being printed.
pub(crate) struct List<'o> {
    out: &'o mut Output,
    name: &'o str,
    columns: Vec<&'o Column>,
    aligner: Aligner,
    items: usize,
}

impl List<'_> {
    fn begin(&mut self) -> Result<()> {
        match self.out.format {
            Format::Json => self.out.text("{\"items\":["),
            Format::Csv => self.csv(|c| c.raw_title()),
            _ => Ok(()),
        }
    }

    /// More items, printed now.
    pub(crate) fn page(&mut self, items: &[Value]) -> Result<()> {
        match self.out.format {
            Format::Table | Format::Wide => self.rows(items)?,
            Format::Json => {
                for (at, item) in items.iter().enumerate() {
                    let comma = if self.items + at == 0 { "" } else { "," };
                    self.out.json(&format!("{comma}\n{item}"))?;
                }
            }
            Format::Jsonl => items.iter().try_for_each(|item| self.out.json(&format!("{item}\n")))?,
            Format::Csv => items.iter().try_for_each(|item| self.csv(|c| c.raw(item)))?,
            Format::Name => {
                let name = |item: &Value| item.pointer(self.name).map(crate::table::plain).unwrap_or_default();
                items.iter().try_for_each(|item| self.out.text(&format!("{}\n", printable(&name(item)))))?;
            }
        }
        self.items += items.len();
        Ok(())
    }

    fn rows(&mut self, items: &[Value]) -> Result<()> {
        if items.is_empty() {
            return Ok(());
        }
        let header = (self.items == 0).then(|| self.columns.iter().map(|c| c.title.to_owned()).collect());
        let cells = |item| self.columns.iter().map(|c| c.cell(item)).collect();
        let rows: Vec<Vec<String>> = header.into_iter().chain(items.iter().map(cells)).collect();
        let lines = self.aligner.lines(&rows);
        self.out.text(&lines)
    }

    fn csv(&mut self, cell: impl Fn(&Column) -> String) -> Result<()> {
        let line = csv_line(self.columns.iter().map(|c| cell(c)));
        self.out.text(&line)
    }

    /// The end of the list.
    pub(crate) fn finish(self) -> Result<()> {
        match self.out.format {
            Format::Json => self.out.text(&format!("\n],\"next_cursor\":{}}}\n", json!(null))),
            Format::Table | Format::Wide if self.items == 0 => {
                self.out.note("none");
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// One record: each cell without formulas and control characters, quoted where needed.
pub(crate) fn csv_line(cells: impl Iterator<Item = String>) -> String {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let written = writer.write_record(cells.map(|cell| csv_cell(&cell).into_bytes())).is_ok();
    let line = if written { writer.into_inner().unwrap_or_default() } else { Vec::new() };
    String::from_utf8(line).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    const VIEW: View =
        View { name: "/name", columns: &[Column::text("NAME", "/name"), Column::text("N", "/deep/n").wide()] };

    fn printed(format: Format, pages: &[Vec<Value>]) -> String {
        let sink = Sink::default();
        let mut out = Output::new(Box::new(sink.clone()), Box::new(Sink::default()), false);
        out.format = format;
        let mut list = out.list(&VIEW).unwrap();
        pages.iter().for_each(|page| list.page(page).unwrap());
        list.finish().unwrap();
        String::from_utf8(sink.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn every_format_prints_every_page() {
        let pages =
            [vec![json!({"name": "acme", "deep": {"n": 1}})], vec![json!({"name": "b,c", "deep": {"n": null}})]];
        assert_eq!(printed(Format::Table, &pages), "NAME\nacme\nb,c\n");
        assert_eq!(printed(Format::Wide, &pages), "NAME  N\nacme  1\nb,c   -\n");
        assert_eq!(printed(Format::Csv, &pages), "name,deep.n\nacme,1\n\"b,c\",\n");
        assert_eq!(printed(Format::Name, &pages), "acme\nb,c\n");
        assert_eq!(printed(Format::Jsonl, &pages).lines().count(), 2);
        let json: Value = serde_json::from_str(&printed(Format::Json, &pages)).unwrap();
        assert_eq!(json["items"][1]["name"], "b,c");
        assert_eq!(json["next_cursor"], Value::Null);
    }

    #[test]
    fn an_empty_list_is_valid_in_every_format() {
        assert_eq!(printed(Format::Table, &[]), "");
        assert_eq!(printed(Format::Name, &[]), "");
        assert_eq!(printed(Format::Csv, &[]), "name,deep.n\n");
        let json: Value = serde_json::from_str(&printed(Format::Json, &[])).unwrap();
        assert_eq!(json, json!({"items": [], "next_cursor": null}));
    }

    #[test]
    fn a_failure_says_what_why_and_what_helps() {
        let failure =
            Failure::new(Exit::NotFound, "no tenant is called 'x'").because("a\nb").try_next("fleetctl tenant list");
        assert_eq!(
            describe(&failure.code("not_found")),
            "error: no tenant is called 'x'\ncause: a\n       b\ntry:   fleetctl tenant list\ntry:   fleetctl explain not_found\n"
        );
    }

    #[test]
    fn a_flood_of_causes_is_cut() {
        let failure = (0..50).fold(Failure::usage("x"), |f, n| f.because(n));
        assert!(describe(&failure).contains("cause: and 30 more\n"));
    }
}
