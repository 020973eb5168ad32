//! `fleetctl explain`: what an error code means, why it happens, what helps.

use clap::Args;
use serde_json::json;

use crate::context::Context;
use crate::error::{Exit, Failure, Result};
use crate::explanations::{Explanation, all, find};
use crate::output::Format;
use crate::table::{Column, View};

const VIEW: View = View {
    name: "/code",
    columns: &[
        Column::text("CODE", "/code"),
        Column::text("MEANING", "/meaning"),
        Column::text("CAUSES", "/causes").wide(),
        Column::text("NEXT", "/next").wide(),
    ],
};

/// Flags of `explain`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  fleetctl explain fenced
  fleetctl explain            # every code")]
pub(crate) struct Explain {
    /// An error code, as printed after `error:` or in an answer's `code`
    code: Option<String>,
}

/// Runs `fleetctl explain`.
pub(crate) fn run(args: &Explain, context: &mut Context) -> Result<Exit> {
    match &args.code {
        None => {
            let items: Vec<_> = all().map(item).collect();
            let mut list = context.out.list(&VIEW)?;
            list.page(&items)?;
            list.finish()?;
        }
        Some(code) => {
            let found = find(code).ok_or_else(|| unknown(code))?;
            match context.out.format {
                Format::Table | Format::Wide => context.out.text(&prose(found))?,
                _ => context.out.item(&VIEW, &item(found))?,
            }
        }
    }
    Ok(Exit::Done)
}

fn item(e: &Explanation) -> serde_json::Value {
    json!({"code": e.code, "meaning": e.meaning, "causes": e.causes, "next": e.next})
}

fn prose(e: &Explanation) -> String {
    format!("{}\n\n  means   {}\n  causes  {}\n  next    {}\n", e.code, e.meaning, e.causes, e.next)
}

fn unknown(code: &str) -> Failure {
    let failure = Failure::new(Exit::NotFound, format!("there is no error code {code:?}"));
    let near = all().map(|e| e.code).find(|known| known.contains(code) || code.contains(known));
    match near {
        Some(near) if !code.is_empty() => failure.try_next(format!("fleetctl explain {near}")),
        _ => failure.try_next("fleetctl explain      # lists every code"),
    }
}
