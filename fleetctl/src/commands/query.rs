//! `fleetctl query`: one read-only statement in many tenants, a tenant column first.

use clap::Args;
use serde_json::{Map, Value, json};

use crate::args::{Selection, WhenEmpty};
use crate::client::Request;
use crate::context::Context;
use crate::error::{Exit, Failure, Result};
use crate::output::{Format, csv_line};
use crate::table::{Aligner, plain, printable};

/// Rows lined up together: a screenful of small answers has one width, and a huge answer is not held back.
const ROWS_TOGETHER_MAX: usize = 1_000;
/// Failed tenants shown; the others are counted.
const FAILED_SHOWN_MAX: usize = 20;

/// Flags of `query`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fleetctl query 'select count(*) from tasks' --all -o jsonl
  fleetctl query 'select id, title from tasks where done = ?1' acme --param 0
  fleetctl query 'select 1 from tasks limit 1' -l plan=pro -o name      # which tenants have any")]
pub(crate) struct Query {
    /// One SELECT
    sql: String,
    /// Tenants by name or id
    #[arg(value_name = "TENANT")]
    names: Vec<String>,
    #[command(flatten)]
    selection: Selection,
    /// A parameter, in order: JSON, or else text
    #[arg(long = "param", value_name = "VALUE", allow_hyphen_values = true)]
    params: Vec<String>,
    /// Rows of each tenant at most
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    rows_max: Option<u64>,
    /// Tenants at once
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    concurrency: Option<u32>,
}

/// Runs `fleetctl query`.
pub(crate) async fn run(args: Query, context: &mut Context) -> Result<Exit> {
    let selection = args.selection.resolve(&args.names, context, WhenEmpty::Refuse)?;
    let params: Vec<_> = args.params.iter().map(|p| parameter(p)).collect();
    let mut body = json!({"sql": args.sql, "params": params, "selection": selection});
    if let Some(max) = args.rows_max {
        body["rows_max"] = json!(max);
    }
    if let Some(concurrency) = args.concurrency {
        body["concurrency"] = json!(concurrency);
    }
    let client = context.client().await?;
    let mut lines = client.send(&Request::post("/v1/queries", body)).await?.lines();
    let mut printer = Printer::new(context)?;
    let mut summary = None;
    while let Some(line) = lines.next().await? {
        let answer: Value = serde_json::from_slice(&line)
            .map_err(|e| Failure::unexpected("a line of the answer is not JSON").because(e))?;
        match answer.get("summary") {
            Some(last) => summary = Some(last.clone()),
            None => printer.tenant(&answer)?,
        }
    }
    let summary =
        summary.ok_or_else(|| Failure::new(Exit::Failed, "the answer ended early: some tenants are missing"))?;
    printer.finish(&summary)
}

/// JSON where it is JSON, else text: `--param 5` is a number, `--param abc` a text.
fn parameter(text: &str) -> Value {
    match serde_json::from_str(text) {
        // An integer that JSON would round stays a text, with all its digits.
        Ok(Value::Number(number)) if !number.is_i64() && !text.contains(['.', 'e', 'E']) => json!(text.trim()),
        Ok(value) => value,
        Err(_) => json!(text),
    }
}

struct Printer<'c> {
    context: &'c mut Context,
    aligner: Aligner,
    /// Rows of a table that wait for others to be lined up with.
    waiting: Vec<Vec<String>>,
    /// The columns last printed as a header.
    header: Option<Vec<String>>,
    printed: usize,
    failed: usize,
    /// Why the first tenant failed.
    code: Option<String>,
}

impl<'c> Printer<'c> {
    fn new(context: &'c mut Context) -> Result<Self> {
        if context.out.format == Format::Json {
            context.out.text("{\"items\":[")?;
        }
        Ok(Self {
            context,
            aligner: Aligner::default(),
            waiting: Vec::new(),
            header: None,
            printed: 0,
            failed: 0,
            code: None,
        })
    }

    /// One tenant's answer: rows, or why there are none.
    fn tenant(&mut self, answer: &Value) -> Result<()> {
        let name = plain(&answer["tenant"]);
        if let Some(error) = answer.get("error") {
            self.fail(&name, &format!("{}: {}", plain(&error["code"]), plain(&error["detail"])));
            self.code.get_or_insert_with(|| plain(&error["code"]));
        }
        match self.context.out.format {
            Format::Json => self.json(answer),
            _ if answer.get("error").is_some() => Ok(()),
            Format::Jsonl => self.jsonl(&name, answer),
            Format::Name => self.name(&name, answer),
            Format::Csv => self.csv(&name, answer),
            Format::Table | Format::Wide => self.table(&name, answer),
        }
    }

    fn fail(&mut self, name: &str, why: &str) {
        self.failed += 1;
        if self.failed <= FAILED_SHOWN_MAX {
            self.context.out.complain(&format!("error: {}", printable(&format!("{name}: {why}"))));
        }
    }

    fn json(&mut self, answer: &Value) -> Result<()> {
        let comma = if self.printed == 0 { "" } else { "," };
        self.printed += 1;
        self.context.out.json(&format!("{comma}\n{answer}"))
    }

    fn jsonl(&mut self, name: &str, answer: &Value) -> Result<()> {
        let columns = columns(answer);
        for row in rows(answer) {
            let mut object = Map::new();
            object.insert(columns[0].clone(), json!(name));
            object.extend(columns[1..].iter().cloned().zip(row.iter().cloned()));
            self.context.out.json(&format!("{}\n", Value::Object(object)))?;
        }
        Ok(())
    }

    fn name(&mut self, name: &str, answer: &Value) -> Result<()> {
        if rows(answer).next().is_some() { self.context.out.text(&format!("{name}\n")) } else { Ok(()) }
    }

    /// One header for the whole file: a tenant with other columns would be read wrongly, so it is an error.
    fn csv(&mut self, name: &str, answer: &Value) -> Result<()> {
        let columns = columns(answer);
        match &self.header {
            None => self.context.out.text(&csv_line(columns.iter().cloned()))?,
            Some(header) if *header != columns => {
                self.fail(name, "its columns differ from those before; use -o jsonl");
                return Ok(());
            }
            Some(_) => {}
        }
        self.header = Some(columns);
        for row in rows(answer) {
            let cells = std::iter::once(name.to_owned()).chain(row.iter().map(cell));
            self.context.out.text(&csv_line(cells))?;
        }
        Ok(())
    }

    fn table(&mut self, name: &str, answer: &Value) -> Result<()> {
        let columns = columns(answer);
        if self.header.as_ref() != Some(&columns) {
            self.print_waiting()?;
            self.waiting.push(columns.iter().map(|c| printable(c)).collect());
            self.header = Some(columns);
        }
        let shown = |value: &Value| if value.is_null() { "-".to_owned() } else { printable(&cell(value)) };
        let line = |row: &Vec<Value>| std::iter::once(name.to_owned()).chain(row.iter().map(shown)).collect();
        self.waiting.extend(rows(answer).map(line));
        if self.waiting.len() < ROWS_TOGETHER_MAX { Ok(()) } else { self.print_waiting() }
    }

    fn print_waiting(&mut self) -> Result<()> {
        let text = self.aligner.lines(&std::mem::take(&mut self.waiting));
        self.context.out.text(&text)
    }

    fn finish(mut self, summary: &Value) -> Result<Exit> {
        self.print_waiting()?;
        let out = &mut self.context.out;
        if out.format == Format::Json {
            out.text(&format!("\n],\"summary\":{summary}}}\n"))?;
        }
        out.flush()?;
        if self.failed > FAILED_SHOWN_MAX {
            out.complain(&format!("error: and {} more", self.failed - FAILED_SHOWN_MAX));
        }
        if let Some(code) = &self.code {
            out.complain(&format!("try:   fleetctl explain {code}"));
        }
        let n = |key: &str| summary[key].as_u64().unwrap_or_default();
        let (rows, tenants) = (counted(n("rows"), "row"), counted(n("tenants"), "tenant"));
        out.note(&format!("{rows} of {tenants}, {} failed", self.failed));
        Ok(match (self.failed as u64, n("tenants")) {
            (0, _) => Exit::Done,
            (failed, tenants) if failed >= tenants => Exit::Failed,
            _ => Exit::Partial,
        })
    }
}

/// A database's value in a table or CSV: numbers that JSON cannot carry are numbers again; a blob stays base64.
fn cell(value: &Value) -> String {
    match value.get("$int").or_else(|| value.get("$real")).or_else(|| value.get("$blob")) {
        Some(tagged) => plain(tagged),
        None => plain(value),
    }
}

/// `1 row`, `2 rows`.
fn counted(n: u64, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}

/// `tenant` first, then the query's own; a name that is already taken gets a number, so that nothing is lost.
fn columns(answer: &Value) -> Vec<String> {
    let mut out = vec!["tenant".to_owned()];
    for column in answer["columns"].as_array().into_iter().flatten().map(plain) {
        let numbered = (2..).map(|n| format!("{column}_{n}"));
        let free = std::iter::once(column.clone()).chain(numbered).find(|c| !out.contains(c));
        out.extend(free);
    }
    out
}

fn rows(answer: &Value) -> impl Iterator<Item = &Vec<Value>> {
    answer["rows"].as_array().into_iter().flatten().filter_map(Value::as_array)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_column_is_lost_to_a_name_that_is_taken() {
        let answer = json!({"columns": ["tenant", "a", "a", "a_2"], "rows": []});
        assert_eq!(columns(&answer), ["tenant", "tenant_2", "a", "a_2", "a_2_2"]);
    }

    #[test]
    fn what_json_cannot_carry_is_shown_as_it_is_in_the_database() {
        assert_eq!(cell(&json!({"$int": "9223372036854775807"})), "9223372036854775807");
        assert_eq!(cell(&json!({"$real": "-inf"})), "-inf");
        assert_eq!(cell(&json!({"$blob": "AP8="})), "AP8=");
        assert_eq!((cell(&json!(1.5)), cell(&Value::Null)), ("1.5".to_owned(), String::new()));
    }

    #[test]
    fn parameters_are_json_or_text() {
        assert_eq!(parameter("5"), json!(5));
        assert_eq!(parameter("-5"), json!(-5));
        assert_eq!(parameter("null"), Value::Null);
        assert_eq!(parameter("9223372036854775808"), json!("9223372036854775808"));
        assert_eq!(parameter("184467440737095516160"), json!("184467440737095516160"));
        assert_eq!(parameter("abc"), json!("abc"));
        assert_eq!(parameter("\"5\""), json!("5"));
    }
}
