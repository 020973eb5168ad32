//! `fleetctl explain`: the meaning of an error code, its causes, and the next steps.

use clap::Args;
use serde_json::json;

use crate::context::CommandContext;
use crate::error::{CommandExit, CommandFailure, Result};
use crate::explanations::{CodeExplanation, all_explanations, find_explanation};
use crate::output::OutputFormat;
use crate::table::{TableColumn, TableView};

const VIEW: TableView = TableView {
    name: "/code",
    columns: &[
        TableColumn::of_text("CODE", "/code"),
        TableColumn::of_text("MEANING", "/meaning").may_cut(),
        TableColumn::of_text("CAUSES", "/causes").only_wide(),
        TableColumn::of_text("NEXT", "/next").only_wide(),
    ],
};

/// Flags of `explain`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fleetctl explain fenced
  fleetctl explain            # every code")]
pub(crate) struct ExplainArgs {
    /// An error code, as printed after `error:` or in an answer's `code`
    code: Option<String>,
}

/// Runs `fleetctl explain`.
pub(crate) fn run_explain_command(args: &ExplainArgs, context: &mut CommandContext) -> Result<CommandExit> {
    match &args.code {
        None => {
            let items: Vec<_> = all_explanations().map(explanation_json).collect();
            let mut list = context.out.begin_list(&VIEW)?;
            list.print_page(&items)?;
            list.finish_list()?;
        }
        Some(code) => {
            let found = find_explanation(code).ok_or_else(|| unknown_code(code))?;
            match context.out.format {
                OutputFormat::Table | OutputFormat::Wide => context.out.print_text(&explanation_text(found))?,
                _ => context.out.print_item(&VIEW, &explanation_json(found))?,
            }
        }
    }
    Ok(CommandExit::Done)
}

fn explanation_json(e: &CodeExplanation) -> serde_json::Value {
    json!({"code": e.code, "meaning": e.meaning, "causes": e.causes, "next": e.next})
}

fn explanation_text(e: &CodeExplanation) -> String {
    format!("{}\n\n  means   {}\n  causes  {}\n  next    {}\n", e.code, e.meaning, e.causes, e.next)
}

fn unknown_code(code: &str) -> CommandFailure {
    let failure = CommandFailure::new(CommandExit::NotFound, format!("there is no error code {code:?}"));
    let near = all_explanations().map(|e| e.code).find(|known| known.contains(code) || code.contains(known));
    match near {
        Some(near) if !code.is_empty() => failure.try_next(format!("fleetctl explain {near}")),
        _ => failure.try_next("fleetctl explain      # lists every code"),
    }
}
