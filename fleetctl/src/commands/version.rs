//! `fleetctl version`: which program this is. Asks nobody.

use serde_json::json;

use crate::context::Context;
use crate::error::{Exit, Result};
use crate::table::{Column, View};

const VERSION: View = View {
    name: "/version",
    columns: &[
        Column::text("fleetctl", "/version"),
        Column::text("system", "/system"),
        Column::text("build", "/build"),
    ],
};

/// Runs `fleetctl version`.
pub(crate) fn run(context: &mut Context) -> Result<Exit> {
    let item = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "system": format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
        "build": if cfg!(debug_assertions) { "debug" } else { "release" },
    });
    context.out.facts(&VERSION, &item)?;
    Ok(Exit::Done)
}
