//! The only module that prints: data on stdout, everything else on stderr.
//!
//! Commands pass the API's JSON and a [`TableView`]; the output format decides how they are printed.

use std::io::{self, Write};

use clap::ValueEnum;
use serde_json::{Value, json};

use crate::error::{CommandExit, CommandFailure, Result};
use crate::table::{ColumnAligner, TableColumn, TableView, csv_cell, escape_text, printable_json};

/// How data is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFormat {
    /// Columns for people.
    #[value(alias = "text")]
    Table,
    /// More columns than a table.
    Wide,
    /// The API's own format.
    Json,
    /// One JSON object per line.
    Jsonl,
    /// All columns, with a header. A text that a spreadsheet would run begins with an apostrophe.
    Csv,
    /// Only the names (or ids), one per line.
    Name,
    /// A report for build servers: only of `leaktest`.
    #[value(hide = true)]
    Junit,
}

/// How much is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutputVerbosity {
    Normal,
    /// Nothing on success, except data whose format was requested.
    Quiet,
}

/// Both output streams and their settings.
pub(crate) struct CommandOutput {
    stdout: Box<dyn Write + Send>,
    stderr: Box<dyn Write + Send>,
    pub(crate) format: OutputFormat,
    pub(crate) loudness: OutputVerbosity,
    /// Data is not printed: `--quiet` without `-o`.
    pub(crate) silent: bool,
    /// True when stderr is a terminal.
    pub(crate) watched: bool,
    /// Width of the terminal of stdout; `None` when stdout is not a terminal, and nothing is cut.
    pub(crate) terminal: Option<usize>,
}

impl CommandOutput {
    pub(crate) fn new(stdout: Box<dyn Write + Send>, stderr: Box<dyn Write + Send>, watched: bool) -> Self {
        Self {
            stdout,
            stderr,
            format: OutputFormat::Table,
            loudness: OutputVerbosity::Normal,
            silent: false,
            watched,
            terminal: None,
        }
    }

    /// Prints text unchanged on stdout.
    pub(crate) fn print_text(&mut self, text: &str) -> Result<()> {
        if self.silent { Ok(()) } else { self.print_secret(text) }
    }

    /// Prints JSON on stdout.
    pub(crate) fn print_json(&mut self, json: &str) -> Result<()> {
        self.print_text(&printable_json(json))
    }

    /// Prints text that is never suppressed, because it cannot be shown again.
    pub(crate) fn print_secret(&mut self, text: &str) -> Result<()> {
        self.stdout.write_all(text.as_bytes()).map_err(|e| write_failure(&e))
    }

    /// Writes everything that is buffered. Reports a full disk at the latest here.
    pub(crate) fn flush_stdout(&mut self) -> Result<()> {
        self.stdout.flush().map_err(|e| write_failure(&e))
    }

    /// Prints one object.
    pub(crate) fn print_item(&mut self, view: &TableView, item: &Value) -> Result<()> {
        match self.format {
            OutputFormat::Json => self.print_json(&format!("{item:#}\n")),
            _ => {
                let mut list = self.begin_list(view)?;
                list.print_page(std::slice::from_ref(item))?;
                list.finish_list()
            }
        }
    }

    /// Prints one object as a column of facts; other formats as [`CommandOutput::print_item`].
    pub(crate) fn print_facts(&mut self, view: &TableView, item: &Value) -> Result<()> {
        if !matches!(self.format, OutputFormat::Table | OutputFormat::Wide) {
            return self.print_item(view, item);
        }
        let wide = self.format == OutputFormat::Wide;
        let shown = view.columns.iter().filter(|c| wide || !c.wide);
        let rows: Vec<_> = shown.map(|c| vec![c.title.to_owned(), c.human_cell(item)]).collect();
        self.print_text(&ColumnAligner::default().aligned_lines(&rows))
    }

    /// Begins a list of objects, printed page by page.
    pub(crate) fn begin_list<'o>(&'o mut self, view: &'o TableView) -> Result<ListPrinter<'o>> {
        let terminal = self.terminal;
        self.begin_list_within(view, terminal)
    }

    /// As [`CommandOutput::begin_list`], for findings. No word may be missing, so a terminal breaks the lines.
    pub(crate) fn begin_findings<'o>(&'o mut self, view: &'o TableView) -> Result<ListPrinter<'o>> {
        self.begin_list_within(view, None)
    }

    fn begin_list_within<'o>(&'o mut self, view: &'o TableView, terminal: Option<usize>) -> Result<ListPrinter<'o>> {
        let wide = self.format != OutputFormat::Table;
        let columns: Vec<_> = view.columns.iter().filter(|c| wide || !c.wide).collect();
        let aligner = match terminal.filter(|_| self.format == OutputFormat::Table) {
            Some(total) => ColumnAligner::for_terminal(total, &columns),
            None => ColumnAligner::default(),
        };
        let mut list = ListPrinter { out: self, name: view.name, columns, aligner, items: 0 };
        list.print_start()?;
        Ok(list)
    }

    /// Prints a note for people on stderr, unless quiet.
    pub(crate) fn print_note(&mut self, text: &str) {
        if self.loudness == OutputVerbosity::Normal {
            self.print_message(text);
        }
    }

    /// Prints a message on stderr, even when quiet. An error of stderr is ignored.
    pub(crate) fn print_message(&mut self, text: &str) {
        // On a terminal both streams are one, so earlier data must appear first. A failed flush is reported at the end.
        let _ = self.stdout.flush();
        let _ = writeln!(self.stderr, "{}", text.trim_end());
    }

    /// Prints a question on stderr, without a line break.
    pub(crate) fn print_question(&mut self, text: &str) {
        let _ = write!(self.stderr, "{text}");
        let _ = self.stderr.flush();
    }

    /// Prints an error, its causes and the next steps.
    pub(crate) fn print_failure(&mut self, failure: &CommandFailure) {
        self.print_message(&failure_text(failure));
    }
}

/// Lines with `error:`, `cause:` and `try:` for the error, its causes and the next steps.
fn failure_text(failure: &CommandFailure) -> String {
    /// Maximum number of causes: the first ones show the pattern.
    const CAUSES_MAX: usize = 20;
    let mut text = format!("error: {}\n", escape_text(&failure.what));
    for cause in failure.causes.iter().take(CAUSES_MAX) {
        let indented = cause.lines().map(escape_text).collect::<Vec<_>>().join("\n       ");
        text.push_str(&format!("cause: {indented}\n"));
    }
    if failure.causes.len() > CAUSES_MAX {
        text.push_str(&format!("cause: and {} more\n", failure.causes.len() - CAUSES_MAX));
    }
    for step in &failure.tries {
        text.push_str(&format!("try:   {}\n", escape_text(step)));
    }
    let explain = format!("fleetctl explain {}", failure.code);
    if !failure.code.is_empty() && !failure.tries.contains(&explain) {
        text.push_str(&format!("try:   {explain}\n"));
    }
    if failure.exit == CommandExit::Usage && failure.code.is_empty() && failure.tries.is_empty() {
        text.push_str("try:   the same command with --help\n");
    }
    text
}

/// With a closed pipe (`| head`) the command ends quietly. Other errors are reported.
fn write_failure(error: &io::Error) -> CommandFailure {
    let exit = if error.kind() == io::ErrorKind::BrokenPipe { CommandExit::Done } else { CommandExit::Failed };
    CommandFailure::new(exit, "cannot write to standard output").with_cause(error).code("")
}

/// A list that is being printed.
pub(crate) struct ListPrinter<'o> {
    out: &'o mut CommandOutput,
    name: &'o str,
    columns: Vec<&'o TableColumn>,
    aligner: ColumnAligner,
    items: usize,
}

impl ListPrinter<'_> {
    fn print_start(&mut self) -> Result<()> {
        match self.out.format {
            OutputFormat::Json => self.out.print_text("{\"items\":["),
            OutputFormat::Csv => self.print_csv_line(|c| c.machine_title()),
            _ => Ok(()),
        }
    }

    /// Prints more items at once.
    pub(crate) fn print_page(&mut self, items: &[Value]) -> Result<()> {
        match self.out.format {
            OutputFormat::Table | OutputFormat::Wide | OutputFormat::Junit => self.print_rows(items)?,
            OutputFormat::Json => {
                for (at, item) in items.iter().enumerate() {
                    let comma = if self.items + at == 0 { "" } else { "," };
                    self.out.print_json(&format!("{comma}\n{item}"))?;
                }
            }
            OutputFormat::Jsonl => items.iter().try_for_each(|item| self.out.print_json(&format!("{item}\n")))?,
            OutputFormat::Csv => items.iter().try_for_each(|item| self.print_csv_line(|c| c.machine_cell(item)))?,
            OutputFormat::Name => {
                let name = |item: &Value| item.pointer(self.name).map(crate::table::plain_text).unwrap_or_default();
                items.iter().try_for_each(|item| self.out.print_text(&format!("{}\n", escape_text(&name(item)))))?;
            }
        }
        self.items += items.len();
        Ok(())
    }

    fn print_rows(&mut self, items: &[Value]) -> Result<()> {
        if items.is_empty() {
            return Ok(());
        }
        let header = (self.items == 0).then(|| self.columns.iter().map(|c| c.title.to_owned()).collect());
        let cells = |item| self.columns.iter().map(|c| c.human_cell(item)).collect();
        let rows: Vec<Vec<String>> = header.into_iter().chain(items.iter().map(cells)).collect();
        let lines = self.aligner.aligned_lines(&rows);
        self.out.print_text(&lines)
    }

    fn print_csv_line(&mut self, cell: impl Fn(&TableColumn) -> String) -> Result<()> {
        let line = csv_line(self.columns.iter().map(|c| cell(c)));
        self.out.print_text(&line)
    }

    /// Ends the list.
    pub(crate) fn finish_list(self) -> Result<()> {
        match self.out.format {
            OutputFormat::Json => self.out.print_text(&format!("\n],\"next_cursor\":{}}}\n", json!(null))),
            OutputFormat::Table | OutputFormat::Wide if self.items == 0 => {
                self.out.print_note("none");
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// One record: cells without formulas and control characters, quoted where necessary.
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

    const VIEW: TableView = TableView {
        name: "/name",
        columns: &[TableColumn::of_text("NAME", "/name"), TableColumn::of_text("N", "/deep/n").only_wide()],
    };

    fn printed(format: OutputFormat, pages: &[Vec<Value>]) -> String {
        let sink = Sink::default();
        let mut out = CommandOutput::new(Box::new(sink.clone()), Box::new(Sink::default()), false);
        out.format = format;
        let mut list = out.begin_list(&VIEW).unwrap();
        pages.iter().for_each(|page| list.print_page(page).unwrap());
        list.finish_list().unwrap();
        String::from_utf8(sink.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn every_format_prints_every_page() {
        let pages =
            [vec![json!({"name": "acme", "deep": {"n": 1}})], vec![json!({"name": "b,c", "deep": {"n": null}})]];
        assert_eq!(printed(OutputFormat::Table, &pages), "NAME\nacme\nb,c\n");
        assert_eq!(printed(OutputFormat::Wide, &pages), "NAME  N\nacme  1\nb,c   -\n");
        assert_eq!(printed(OutputFormat::Csv, &pages), "name,deep.n\nacme,1\n\"b,c\",\n");
        assert_eq!(printed(OutputFormat::Name, &pages), "acme\nb,c\n");
        assert_eq!(printed(OutputFormat::Jsonl, &pages).lines().count(), 2);
        let json: Value = serde_json::from_str(&printed(OutputFormat::Json, &pages)).unwrap();
        assert_eq!(json["items"][1]["name"], "b,c");
        assert_eq!(json["next_cursor"], Value::Null);
    }

    #[test]
    fn an_empty_list_is_valid_in_every_format() {
        assert_eq!(printed(OutputFormat::Table, &[]), "");
        assert_eq!(printed(OutputFormat::Name, &[]), "");
        assert_eq!(printed(OutputFormat::Csv, &[]), "name,deep.n\n");
        let json: Value = serde_json::from_str(&printed(OutputFormat::Json, &[])).unwrap();
        assert_eq!(json, json!({"items": [], "next_cursor": null}));
    }

    #[test]
    fn a_failure_says_what_why_and_what_helps() {
        let failure = CommandFailure::new(CommandExit::NotFound, "no tenant is called 'x'")
            .with_cause("a\nb")
            .try_next("fleetctl tenant list");
        assert_eq!(
            failure_text(&failure.code("not_found")),
            "error: no tenant is called 'x'\ncause: a\n       b\ntry:   fleetctl tenant list\ntry:   fleetctl explain not_found\n"
        );
    }

    #[test]
    fn a_flood_of_causes_is_cut() {
        let failure = (0..50).fold(CommandFailure::usage_error("x"), |f, n| f.with_cause(n));
        assert!(failure_text(&failure).contains("cause: and 30 more\n"));
    }
}
