//! `fleetctl config`: the effective settings and their sources.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::context::CommandContext;
use crate::error::{CommandExit, Result};
use crate::issuer_tables::IssuerTables;
use crate::settings::{CATALOG_URL, CommandSettings, SETTINGS, SettingPlace};
use crate::table::{TableColumn, TableView};

const PLAIN: TableView = TableView {
    name: "/key",
    columns: &[TableColumn::of_text("KEY", "/key"), TableColumn::of_text("VALUE", "/value")],
};
const WITH_ORIGIN: TableView = TableView {
    name: "/key",
    columns: &[
        TableColumn::of_text("KEY", "/key"),
        TableColumn::of_text("VALUE", "/value"),
        TableColumn::of_text("ORIGIN", "/origin"),
        TableColumn::of_text("VARIABLE", "/variable").only_wide(),
    ],
};

/// Commands of settings.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Show the effective settings
    Show(ConfigShowArgs),
}

/// Flags of `config show`.
#[derive(Debug, Args)]
pub(crate) struct ConfigShowArgs {
    /// Also print the source of each setting
    #[arg(long)]
    origin: bool,
}

/// Runs `fleetctl config …`.
pub(crate) fn run_config_command(verb: &ConfigCommand, context: &mut CommandContext) -> Result<CommandExit> {
    let ConfigCommand::Show(args) = verb;
    let mut rows: Vec<_> = SETTINGS.iter().map(|s| setting_row(&context.settings, s)).collect();
    rows.extend(issuer_rows(context.settings.issuer_tables()));
    let mut list = context.out.begin_list(if args.origin { &WITH_ORIGIN } else { &PLAIN })?;
    list.print_page(&rows)?;
    list.finish_list()?;
    Ok(CommandExit::Done)
}

fn setting_row(settings: &CommandSettings, setting: &crate::settings::SettingDefinition) -> Value {
    let value = settings.get(setting.key).map(|value| match setting.place {
        // Without its password the address is not secret, and the user must see which database it names.
        SettingPlace::EnvironmentOnly if setting.key == CATALOG_URL => control_plane::data_dir::shown_url(value),
        SettingPlace::EnvironmentOnly => "(set, not shown)".to_owned(),
        SettingPlace::Anywhere => without_password(value),
    });
    let origin = settings.value_origin(setting.key).map(ToString::to_string);
    json!({"key": setting.key, "value": value, "origin": origin, "variable": setting.variable})
}

/// The rows of the tables `[[jwt]]`. They contain the paths of secrets, never the secrets.
fn issuer_rows(tables: &IssuerTables) -> impl Iterator<Item = Value> {
    let origin = tables.file().display().to_string();
    let row = move |(key, value): (String, &str)| json!({"key": key, "value": without_password(value), "origin": origin, "variable": null});
    tables.shown_values().map(row)
}

/// Removes the secret from `scheme://user:secret@host`.
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
