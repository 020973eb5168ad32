//! Makes a snapshot of a catalog on Postgres with `pg_dump`. An operator restores it with `pg_restore` alone.
//!
//! The address is passed in the child's environment, which only its owner can read, never in its arguments.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use secrecy::ExposeSecret as _;
use sqlx::AnyConnection;
use tokio::process::Command;

use crate::dsn::CatalogDsn;
use crate::error::{Error, ErrorKind, Result};
use crate::error_mapping;
use crate::row;

/// Maximum duration. A catalog of a million tenants takes a minute.
const DUMP_MAX: Duration = Duration::from_secs(600);

/// Directories of each major version's programs, in packages of Debian and of Red Hat.
const PLACES: [(&str, &str); 2] = [("/usr/lib/postgresql", ""), ("/usr", "pgsql-")];

/// Maximum length of a program's message in an error.
const COMPLAINT_MAX: usize = 500;

/// Dumps the catalog's schema to `target`, an existing empty file, in pg_dump's custom format.
pub(super) async fn run_pg_dump(dsn: &CatalogDsn, connection: &mut AnyConnection, target: &Path) -> Result<()> {
    let sql = "select cast(current_setting('server_version_num') as bigint) / 10000 as major, \
               cast(quote_ident(current_schema()) as text) as catalog_schema";
    let row = sqlx::query(sql).fetch_one(connection).await.map_err(error_mapping::catalog_error)?;
    let program = find_pg_dump(row::int_column(&row, "major")?).await?;
    let mut dump = Command::new(&program);
    dump.args(["--format=custom", "--no-owner", "--no-acl", "--no-password", "--lock-wait-timeout=10000"]);
    dump.arg("--schema").arg(row::text_column(&row, "catalog_schema")?).arg("--file").arg(target);
    dump.envs(dsn.pg_environment()?.iter().map(|(name, value)| (*name, value.expose_secret())));
    let output = program_output(dump).await?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said: String = said.trim().chars().take(COMPLAINT_MAX).collect();
    Err(Error::new(ErrorKind::Unavailable, format!("pg_dump could not copy the catalog: {said}")))
}

/// The oldest installed `pg_dump` that is not older than the server; `pg_dump` refuses newer servers.
async fn find_pg_dump(server: i64) -> Result<PathBuf> {
    let mut found = installed_programs();
    if let Some(major) = version_on_path().await {
        found.push((major, PathBuf::from("pg_dump")));
    }
    found.sort_by_key(|(major, _)| *major);
    if let Some((_, path)) = found.iter().find(|(major, _)| *major >= server) {
        return Ok(path.clone());
    }
    let have = match found.last() {
        Some((major, _)) => format!("the newest installed version is {major}"),
        None => "none is installed".to_owned(),
    };
    let message = format!(
        "a copy of the catalog needs pg_dump of version {server} or newer, as its server has; {have}: \
         install postgresql-client-{server}"
    );
    Err(Error::new(ErrorKind::ToolMissing, message))
}

fn installed_programs() -> Vec<(i64, PathBuf)> {
    let mut found = Vec::new();
    for (directory, prefix) in PLACES {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let major = entry.file_name().to_str().and_then(|name| name.strip_prefix(prefix)?.parse().ok());
            let path = entry.path().join("bin/pg_dump");
            if let Some(major) = major.filter(|_| path.exists()) {
                found.push((major, path));
            }
        }
    }
    found
}

/// Parses `pg_dump (PostgreSQL) 17.2 (Debian …)`.
async fn version_on_path() -> Option<i64> {
    let mut ask = Command::new("pg_dump");
    ask.arg("--version");
    let said = program_output(ask).await.ok()?;
    major_version(&String::from_utf8_lossy(&said.stdout))
}

fn major_version(version: &str) -> Option<i64> {
    let number = version.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    let digits: String = number.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

async fn program_output(mut command: Command) -> Result<std::process::Output> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    match tokio::time::timeout(DUMP_MAX, command.output()).await {
        Ok(done) => done.map_err(|error| {
            Error::new(ErrorKind::ToolMissing, format!("pg_dump cannot be run: {error}")).with_source(error)
        }),
        Err(_) => {
            let message = format!("pg_dump did not copy the catalog within {} s", DUMP_MAX.as_secs());
            Err(Error::new(ErrorKind::Unavailable, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_the_program_says() {
        for (said, expected) in [
            ("pg_dump (PostgreSQL) 17.2 (Debian 17.2-1.pgdg120+1)\n", Some(17)),
            ("pg_dump (PostgreSQL) 16beta1", Some(16)),
            ("pg_dump (PostgreSQL) 9.6.24", Some(9)),
            ("", None),
        ] {
            assert_eq!(major_version(said), expected, "{said}");
        }
    }

    #[tokio::test]
    async fn a_program_older_than_the_server_is_no_help() {
        let error = find_pg_dump(999).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ToolMissing);
        assert!(error.to_string().contains("postgresql-client-999"), "{error}");
    }
}
