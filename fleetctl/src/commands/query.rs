//! `fleetctl query`: runs one read-only statement in many tenants; the first column is the tenant.

use clap::Args;
use fleet_api::queries::FleetQuery;
use fleet_client::ApiRequest;
use serde_json::value::to_raw_value;
use serde_json::{Map, Value, json};

use crate::args::{SelectionArgs, WhenEmpty, in_range};
use crate::context::CommandContext;
use crate::error::{CommandExit, CommandFailure, Result, shorten_text};
use crate::output::{OutputFormat, csv_line};
use crate::table::{ColumnAligner, escape_text, plain_text};

/// Maximum number of rows that are aligned together. Small answers get one width, and a huge answer is not delayed.
const ROWS_TOGETHER_MAX: usize = 1_000;
/// Maximum number of failed tenants shown; the others are counted.
const FAILED_SHOWN_MAX: usize = 20;

/// Flags of `query`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fleetctl query 'select count(*) from tasks' --all -o jsonl
  fleetctl query 'select id, title from tasks where done = ?1' acme --param 0
  fleetctl query 'select 1 from tasks limit 1' -l plan=pro -o name      # which tenants have any")]
pub(crate) struct QueryArgs {
    /// One SELECT statement
    sql: String,
    /// Tenants by name or id
    #[arg(value_name = "TENANT")]
    names: Vec<String>,
    #[command(flatten)]
    selection: SelectionArgs,
    /// A parameter, in order: JSON, or else text
    #[arg(long = "param", value_name = "VALUE", allow_hyphen_values = true)]
    params: Vec<String>,
    /// Maximum rows per tenant
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    rows_max: Option<u64>,
    /// Maximum number of tenants at once
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    concurrency: Option<u32>,
}

/// Runs `fleetctl query`.
pub(crate) async fn run_query_command(args: QueryArgs, context: &mut CommandContext) -> Result<CommandExit> {
    require_quoted(&args)?;
    let selection = args.selection.to_selection(&args.names, context, WhenEmpty::Refuse)?;
    let params = args.params.iter().map(|text| to_raw_value(&parse_parameter(text)));
    let query = FleetQuery {
        sql: args.sql,
        params: params
            .collect::<Result<_, _>>()
            .map_err(|e| CommandFailure::usage_error("a parameter is not JSON").with_cause(e))?,
        selection,
        rows_max: in_range("--rows-max", args.rows_max)?,
        concurrency: in_range("--concurrency", args.concurrency.map(u64::from))?,
        reason: None,
    };
    let client = context.api_client().await?;
    let mut lines = client.send_request(&ApiRequest::post("/v1/queries", &query)).await?.into_lines();
    let mut printer = QueryPrinter::new(context)?;
    let mut summary = None;
    while let Some(line) = lines.next_line().await? {
        let answer: Value = serde_json::from_slice(&line)
            .map_err(|e| CommandFailure::unexpected_answer("a line of the answer is not JSON").with_cause(e))?;
        match answer.get("summary") {
            Some(last) => summary = Some(last.clone()),
            None => printer.print_tenant(&answer)?,
        }
    }
    let summary = summary
        .ok_or_else(|| CommandFailure::new(CommandExit::Failed, "the answer ended early: some tenants are missing"))?;
    printer.finish_query(&summary)
}

/// Words that can begin a statement.
const VERBS: [&str; 12] =
    ["select", "with", "values", "insert", "update", "delete", "pragma", "explain", "table", "show", "create", "drop"];

/// Requires the statement to be one argument. Without quotes a shell makes each word an argument, and the words after
/// the first would be read as names of tenants.
fn require_quoted(args: &QueryArgs) -> Result<()> {
    let is_verb = |word: &str| VERBS.contains(&word.to_ascii_lowercase().as_str());
    let words: Vec<&str> = std::iter::once(&args.sql).chain(&args.names).map(String::as_str).collect();
    if let Some(statement) = args.names.iter().find(|name| name.contains(char::is_whitespace)) {
        let tenants: Vec<&str> = words.into_iter().filter(|word| *word != statement.as_str()).collect();
        return Err(CommandFailure::usage_error("the SQL comes first, then the tenants").try_next(format!(
            "fleetctl query '{}' {}",
            shorten_text(statement),
            tenants.join(" ")
        )));
    }
    let begins = words.iter().position(|word| is_verb(word)).filter(|_| words.len() > 1);
    let Some(begins) = begins.filter(|_| !args.sql.contains(char::is_whitespace)) else { return Ok(()) };
    // With another selection, all words are the statement. Otherwise the first or the last word is the tenant.
    let (tenants, statement) = words.split_at(begins);
    let example = if tenants.is_empty() { vec!["TENANT"] } else { tenants.to_vec() };
    Err(CommandFailure::usage_error("the SQL is not quoted: the shell split it into several arguments")
        .with_cause(format!("{:?} was read as the name of a tenant", shorten_text(&args.names[0])))
        .try_next(format!("fleetctl query '{}' {}", shorten_text(&statement.join(" ")), example.join(" "))))
}

/// JSON if it parses as JSON, otherwise text: `--param 5` is a number, `--param abc` a text.
fn parse_parameter(text: &str) -> Value {
    match serde_json::from_str(text) {
        // An integer that JSON would round stays text, with all its digits.
        Ok(Value::Number(number)) if !number.is_i64() && !text.contains(['.', 'e', 'E']) => json!(text.trim()),
        Ok(value) => value,
        Err(_) => json!(text),
    }
}

struct QueryPrinter<'c> {
    context: &'c mut CommandContext,
    aligner: ColumnAligner,
    /// Rows of a table that wait to be aligned with later rows.
    waiting: Vec<Vec<String>>,
    /// The columns that were last printed as a header.
    header: Option<Vec<String>>,
    printed: usize,
    failed: usize,
    /// The error code of the first failed tenant.
    code: Option<String>,
}

impl<'c> QueryPrinter<'c> {
    fn new(context: &'c mut CommandContext) -> Result<Self> {
        if context.out.format == OutputFormat::Json {
            context.out.print_text("{\"items\":[")?;
        }
        Ok(Self {
            context,
            aligner: ColumnAligner::default(),
            waiting: Vec::new(),
            header: None,
            printed: 0,
            failed: 0,
            code: None,
        })
    }

    /// Prints one tenant's answer: its rows, or its error.
    fn print_tenant(&mut self, answer: &Value) -> Result<()> {
        let name = plain_text(&answer["tenant"]);
        if let Some(error) = answer.get("error") {
            self.note_failure(&name, &format!("{}: {}", plain_text(&error["code"]), plain_text(&error["detail"])));
            self.code.get_or_insert_with(|| plain_text(&error["code"]));
        }
        match self.context.out.format {
            OutputFormat::Json => self.print_json(answer),
            _ if answer.get("error").is_some() => Ok(()),
            OutputFormat::Jsonl => self.print_jsonl(&name, answer),
            OutputFormat::Name => self.print_name(&name, answer),
            OutputFormat::Csv => self.print_csv(&name, answer),
            OutputFormat::Table | OutputFormat::Wide | OutputFormat::Junit => self.add_table_rows(&name, answer),
        }
    }

    fn note_failure(&mut self, name: &str, why: &str) {
        self.failed += 1;
        if self.failed <= FAILED_SHOWN_MAX {
            self.context.out.print_message(&format!("error: {}", escape_text(&format!("{name}: {why}"))));
        }
    }

    fn print_json(&mut self, answer: &Value) -> Result<()> {
        let comma = if self.printed == 0 { "" } else { "," };
        self.printed += 1;
        self.context.out.print_json(&format!("{comma}\n{answer}"))
    }

    fn print_jsonl(&mut self, name: &str, answer: &Value) -> Result<()> {
        let columns = answer_columns(answer);
        for row in answer_rows(answer) {
            let mut object = Map::new();
            object.insert(columns[0].clone(), json!(name));
            object.extend(columns[1..].iter().cloned().zip(row.iter().cloned()));
            self.context.out.print_json(&format!("{}\n", Value::Object(object)))?;
        }
        Ok(())
    }

    fn print_name(&mut self, name: &str, answer: &Value) -> Result<()> {
        if answer_rows(answer).next().is_some() { self.context.out.print_text(&format!("{name}\n")) } else { Ok(()) }
    }

    /// A file has one header. A tenant with other columns would be misread, so it is an error.
    fn print_csv(&mut self, name: &str, answer: &Value) -> Result<()> {
        let columns = answer_columns(answer);
        match &self.header {
            None => self.context.out.print_text(&csv_line(columns.iter().cloned()))?,
            Some(header) if *header != columns => {
                self.note_failure(name, "its columns differ from those of earlier tenants; use -o jsonl");
                return Ok(());
            }
            Some(_) => {}
        }
        self.header = Some(columns);
        for row in answer_rows(answer) {
            let cells = std::iter::once(name.to_owned()).chain(row.iter().map(cell_text));
            self.context.out.print_text(&csv_line(cells))?;
        }
        Ok(())
    }

    fn add_table_rows(&mut self, name: &str, answer: &Value) -> Result<()> {
        let columns = answer_columns(answer);
        if self.header.as_ref() != Some(&columns) {
            self.print_waiting()?;
            self.waiting.push(columns.iter().map(|c| escape_text(c)).collect());
            self.header = Some(columns);
        }
        let shown = |value: &Value| if value.is_null() { "-".to_owned() } else { escape_text(&cell_text(value)) };
        let line = |row: &Vec<Value>| std::iter::once(name.to_owned()).chain(row.iter().map(shown)).collect();
        self.waiting.extend(answer_rows(answer).map(line));
        if self.waiting.len() < ROWS_TOGETHER_MAX { Ok(()) } else { self.print_waiting() }
    }

    fn print_waiting(&mut self) -> Result<()> {
        let text = self.aligner.aligned_lines(&std::mem::take(&mut self.waiting));
        self.context.out.print_text(&text)
    }

    fn finish_query(mut self, summary: &Value) -> Result<CommandExit> {
        self.print_waiting()?;
        let out = &mut self.context.out;
        if out.format == OutputFormat::Json {
            out.print_text(&format!("\n],\"summary\":{summary}}}\n"))?;
        }
        out.flush_stdout()?;
        if self.failed > FAILED_SHOWN_MAX {
            out.print_message(&format!("error: and {} more", self.failed - FAILED_SHOWN_MAX));
        }
        if let Some(code) = &self.code {
            out.print_message(&format!("try:   fleetctl explain {code}"));
        }
        let n = |key: &str| summary[key].as_u64().unwrap_or_default();
        let (rows, tenants) = (count_of_noun(n("rows"), "row"), count_of_noun(n("tenants"), "tenant"));
        out.print_note(&format!("{rows} of {tenants}, {} failed", self.failed));
        Ok(match (self.failed as u64, n("tenants")) {
            (0, _) => CommandExit::Done,
            (failed, tenants) if failed >= tenants => CommandExit::Failed,
            _ => CommandExit::Partial,
        })
    }
}

/// A database's value in a table or CSV. Numbers that JSON cannot represent become numbers again; a blob stays base64.
fn cell_text(value: &Value) -> String {
    match value.get("$int").or_else(|| value.get("$real")).or_else(|| value.get("$blob")) {
        Some(tagged) => plain_text(tagged),
        None => plain_text(value),
    }
}

/// A count with its noun: `1 row`, `2 rows`.
fn count_of_noun(n: u64, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}

/// `tenant` first, then the query's columns. A duplicate name gets a number, so that no column is lost.
fn answer_columns(answer: &Value) -> Vec<String> {
    let mut out = vec!["tenant".to_owned()];
    for column in answer["columns"].as_array().into_iter().flatten().map(plain_text) {
        let numbered = (2..).map(|n| format!("{column}_{n}"));
        let free = std::iter::once(column.clone()).chain(numbered).find(|c| !out.contains(c));
        out.extend(free);
    }
    out
}

fn answer_rows(answer: &Value) -> impl Iterator<Item = &Vec<Value>> {
    answer["rows"].as_array().into_iter().flatten().filter_map(Value::as_array)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_column_is_lost_to_a_name_that_is_taken() {
        let answer = json!({"columns": ["tenant", "a", "a", "a_2"], "rows": []});
        assert_eq!(answer_columns(&answer), ["tenant", "tenant_2", "a", "a_2", "a_2_2"]);
    }

    #[test]
    fn what_json_cannot_carry_is_shown_as_it_is_in_the_database() {
        assert_eq!(cell_text(&json!({"$int": "9223372036854775807"})), "9223372036854775807");
        assert_eq!(cell_text(&json!({"$real": "-inf"})), "-inf");
        assert_eq!(cell_text(&json!({"$blob": "AP8="})), "AP8=");
        assert_eq!((cell_text(&json!(1.5)), cell_text(&Value::Null)), ("1.5".to_owned(), String::new()));
    }

    #[test]
    fn parameters_are_json_or_text() {
        assert_eq!(parse_parameter("5"), json!(5));
        assert_eq!(parse_parameter("-5"), json!(-5));
        assert_eq!(parse_parameter("null"), Value::Null);
        assert_eq!(parse_parameter("9223372036854775808"), json!("9223372036854775808"));
        assert_eq!(parse_parameter("184467440737095516160"), json!("184467440737095516160"));
        assert_eq!(parse_parameter("abc"), json!("abc"));
        assert_eq!(parse_parameter("\"5\""), json!("5"));
    }
}
