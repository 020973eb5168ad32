//! `fleetctl config`: the settings in force, and where each came from.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::context::Context;
use crate::error::{Exit, Result};
use crate::settings::{CATALOG_URL, Place, SETTINGS, Settings};
use crate::table::{Column, View};

const PLAIN: View = View { name: "/key", columns: &[Column::text("KEY", "/key"), Column::text("VALUE", "/value")] };
const WITH_ORIGIN: View = View {
    name: "/key",
    columns: &[
        Column::text("KEY", "/key"),
        Column::text("VALUE", "/value"),
        Column::text("ORIGIN", "/origin"),
        Column::text("VARIABLE", "/variable").wide(),
    ],
};

/// What can be done with settings.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Show the settings in force
    Show(Show),
}

/// Flags of `config show`.
#[derive(Debug, Args)]
pub(crate) struct Show {
    /// Also where each came from
    #[arg(long)]
    origin: bool,
}

/// Runs `fleetctl config …`.
pub(crate) fn run(verb: &Verb, context: &mut Context) -> Result<Exit> {
    let Verb::Show(args) = verb;
    let rows: Vec<_> = SETTINGS.iter().map(|s| row(&context.settings, s)).collect();
    let mut list = context.out.list(if args.origin { &WITH_ORIGIN } else { &PLAIN })?;
    list.page(&rows)?;
    list.finish()?;
    Ok(Exit::Done)
}

fn row(settings: &Settings, setting: &crate::settings::Setting) -> Value {
    let value = settings.get(setting.key).map(|value| match setting.place {
        // Without its password it is no secret, and which database it is must be seen.
        Place::EnvironmentOnly if setting.key == CATALOG_URL => control_plane::home::shown_url(value),
        Place::EnvironmentOnly => "(set, not shown)".to_owned(),
        Place::Anywhere => without_password(value),
    });
    let origin = settings.origin(setting.key).map(ToString::to_string);
    json!({"key": setting.key, "value": value, "origin": origin, "variable": setting.variable})
}

/// `scheme://user:secret@host` loses its secret.
fn without_password(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let authority = rest.find('/').unwrap_or(rest.len());
    match rest[..authority].rfind('@') {
        Some(at) => format!("{scheme}://***{}", &rest[at..]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_in_addresses_are_not_shown() {
        assert_eq!(without_password("s3://key:secret@bucket/x@y"), "s3://***@bucket/x@y");
        assert_eq!(without_password("s3://bucket/prefix"), "s3://bucket/prefix");
        assert_eq!(without_password("./fleet-data"), "./fleet-data");
    }
}
