//! `fleetctl version`: prints the program's version, without contacting a server.

use serde_json::json;

use crate::context::CommandContext;
use crate::error::{CommandExit, Result};
use crate::table::{TableColumn, TableView};

const VERSION: TableView = TableView {
    name: "/version",
    columns: &[
        TableColumn::of_text("fleetctl", "/version"),
        TableColumn::of_text("system", "/system"),
        TableColumn::of_text("build", "/build"),
    ],
};

/// Runs `fleetctl version`.
pub(crate) fn run_version_command(context: &mut CommandContext) -> Result<CommandExit> {
    let item = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "system": format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
        "build": if cfg!(debug_assertions) { "debug" } else { "release" },
    });
    context.out.print_facts(&VERSION, &item)?;
    Ok(CommandExit::Done)
}
