//! Reads a dump with `pg_restore` without a server: whether it is complete, whose data it holds, and which of its
//! entries to restore.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;

use super::load::DumpContents;
use super::programs::{PostgresTools, start_program};
use crate::TenantId;
use crate::error::{Error, ErrorKind, Result};
use crate::migration::LedgerName;
use crate::own_tables;
use crate::postgres::migrations::ledger;
use crate::postgres::servers::locale::DatabaseLocale;

/// Longest time to read a dump once: hours for the largest, at the speed of a slow disk.
const READ_MAX: Duration = Duration::from_secs(6 * 3600);
/// An identity has a few hundred bytes, a list some hundred bytes for each object.
const TEXT_BYTES_MAX: u64 = 64 << 20;

/// Entries that are not restored: the objects that this program makes in every database, and those that belong to a
/// server.
const NOT_RESTORED: [&str; 8] = [
    "TABLE public _fleet_identity",
    "TABLE DATA public _fleet_identity",
    "CONSTRAINT public _fleet_identity _fleet_identity_pkey",
    "SCHEMA - public",
    "COMMENT - SCHEMA public",
    "ACL public TABLE _fleet_identity",
    // The comment holds the name of the ledger, which the layout records.
    "COMMENT public TABLE _fleet_identity",
    "ACL - SCHEMA public",
];
/// Rights on the server's own objects: a database has these from its template (`servers/rights.rs`).
const SERVERS_RIGHTS: [&str; 2] = ["ACL pg_catalog ", "ACL information_schema "];
/// Rights that are granted again after everything else (`grants.rs`).
const RIGHTS: [&str; 2] = ["ACL ", "DEFAULT ACL "];
/// Objects that usually only an administrator makes. They are restored where the fleet's roles may do so, and reported
/// otherwise.
const OPTIONAL: [&str; 6] = [
    "PUBLICATION ",
    "EVENT TRIGGER ",
    "SECURITY LABEL ",
    "COMMENT - EXTENSION ",
    "COMMENT - PUBLICATION ",
    "COMMENT - EVENT TRIGGER ",
];
/// A restored subscription would begin to read from another server.
const SUBSCRIPTION: [&str; 2] = ["SUBSCRIPTION ", "COMMENT - SUBSCRIPTION "];

/// The entries to restore from a dump. Fails unless the dump is complete and holds this tenant's data.
///
/// # Errors
/// [`ErrorKind::Corrupt`], [`ErrorKind::WrongTenant`], [`ErrorKind::ToolMissing`].
pub(in crate::postgres) async fn examine_dump(
    tools: &PostgresTools,
    dump: &Path,
    source: TenantId,
) -> Result<DumpContents> {
    let identity = ["--schema=public", "--table=_fleet_identity", "--file=-"];
    let (identity, whole) =
        tokio::join!(read_dump(tools, dump, &identity), read_dump(tools, dump, &["--file=/dev/null"]));
    // A dump of newer programs is not damaged; the error of the identity reader says so.
    let identity = whole.and(identity)?;
    let found = tenant_in(&identity)?;
    if found != source {
        let message = format!("the dump holds the data of {found}, expected {source}");
        return Err(Error::new(ErrorKind::WrongTenant, message));
    }
    list_contents(tools, dump, DumpOrigin::Ours, ledger::named_in_script(&identity)?).await
}

/// The entries to restore from a complete dump of a database that belongs to no fleet.
///
/// # Errors
/// [`ErrorKind::WrongTenant`] when the database carries an identity; [`ErrorKind::Corrupt`],
/// [`ErrorKind::ToolMissing`].
pub(in crate::postgres) async fn examine_foreign(
    tools: &PostgresTools,
    dump: &Path,
    ledger: &LedgerName,
) -> Result<DumpContents> {
    let list = read_dump(tools, dump, &["--list"]).await?;
    if list.lines().any(|line| line.contains(" TABLE public _fleet_identity ")) {
        let message = "that database already belongs to a fleet: back it up there and restore it, or clone it";
        return Err(Error::new(ErrorKind::WrongTenant, message));
    }
    list_contents(tools, dump, DumpOrigin::OfOthers, ledger.clone()).await
}

/// The SQL text of these entries.
pub(super) async fn script_text(tools: &PostgresTools, dump: &Path, list: &Path) -> Result<String> {
    read_dump(tools, dump, &["--file=-", "--use-list", &list.to_string_lossy()]).await
}

/// Whether the roles in a dump are those of a fleet.
#[derive(Clone, Copy, PartialEq, Eq)]
enum DumpOrigin {
    Ours,
    OfOthers,
}

/// With a schema filter that matches nothing, only the statements about the database itself are written.
const NO_SCHEMA: &str = "--schema= no schema has this name ";

/// The entries of each section. Only `pg_restore` knows the section of an entry: a comment is in the section of its
/// object.
async fn list_contents(
    tools: &PostgresTools,
    dump: &Path,
    rights: DumpOrigin,
    ledger: LedgerName,
) -> Result<DumpContents> {
    let list = async |section| read_dump(tools, dump, &["--list", section]).await;
    let (before, data, after) =
        tokio::try_join!(list("--section=pre-data"), list("--section=data"), list("--section=post-data"))?;
    let locale = DatabaseLocale::in_script(&read_dump(tools, dump, &["--create", NO_SCHEMA, "--file=-"]).await?)?;
    let lists = [&before, &data, &after];
    let optional = lists.iter().flat_map(|list| list.lines()).filter(|line| is_optional(line)).map(str::to_owned);
    let is_grant = |line: &&str| {
        is_one_of(line, &RIGHTS) && !is_one_of(line, &SERVERS_RIGHTS) && is_ours_to_restore(line, &ledger)
    };
    let grants = lists.iter().flat_map(|list| list.lines()).filter(is_grant).map(str::to_owned);
    let grants = (rights == DumpOrigin::Ours).then(|| grants.collect());
    let [before, data, after] = lists.map(|list| restored_entries(list, &ledger));
    Ok(DumpContents { before, data, after, optional: optional.collect(), grants, locale, ledger })
}

/// Runs `pg_restore` without a server and returns its output.
async fn read_dump(tools: &PostgresTools, dump: &Path, arguments: &[&str]) -> Result<String> {
    let mut command = tools.program_command("pg_restore");
    command.args(arguments).arg(dump).stdout(Stdio::piped());
    let child = start_program(&mut command)?;
    let output = tokio::time::timeout(READ_MAX, bounded_output(child)).await;
    let output = output.map_err(|_| Error::new(ErrorKind::Io, "reading the dump did not end"))?;
    let (complete, text, complaint) = output
        .map_err(|error| Error::new(ErrorKind::Io, format!("the dump cannot be read: {error}")).with_source(error))?;
    match complete {
        true => Ok(text),
        false if complaint.contains("unsupported version") => Err(too_new(&complaint)),
        false => Err(Error::new(ErrorKind::Corrupt, format!("the dump is damaged: {complaint}"))),
    }
}

/// Whether the program succeeded, its output, and its first complaint.
async fn bounded_output(mut child: tokio::process::Child) -> std::io::Result<(bool, String, String)> {
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let printed = async {
        match stdout {
            Some(stdout) => stdout.take(TEXT_BYTES_MAX).read_to_end(&mut out).await,
            None => Ok(0),
        }
    };
    let complained = async {
        match stderr {
            Some(stderr) => stderr.take(TEXT_BYTES_MAX).read_to_end(&mut err).await,
            None => Ok(0),
        }
    };
    let (printed, complained) = tokio::join!(printed, complained);
    printed?;
    complained?;
    let status = child.wait().await?;
    let complaint = String::from_utf8_lossy(&err).lines().next().unwrap_or("no reason given").to_owned();
    Ok((status.success(), String::from_utf8_lossy(&out).into_owned(), complaint))
}

fn too_new(complaint: &str) -> Error {
    let message = format!("the dump was made by newer programs than the pg_restore here: {complaint}");
    Error::new(ErrorKind::ToolTooOld, message)
}

/// PURE: the tenant in the rows of `_fleet_identity`, as COPY prints them.
fn tenant_in(copied: &str) -> Result<TenantId> {
    let corrupt = || Error::new(ErrorKind::Corrupt, "the dump does not say whose data it holds");
    let mut lines = copied.lines().skip_while(|line| !line.starts_with("COPY public._fleet_identity ("));
    let columns = lines.next().and_then(|line| line.split_once('(')?.1.split_once(')')).ok_or_else(corrupt)?.0;
    let column = columns.split(", ").position(|name| name == "tenant_id").ok_or_else(corrupt)?;
    let row = lines.next().filter(|row| *row != "\\.").ok_or_else(corrupt)?;
    let only = lines.next() == Some("\\.");
    let tenant = row.split('\t').nth(column).and_then(|text| text.parse().ok());
    tenant.filter(|_| only).ok_or_else(corrupt)
}

/// PURE: the entries of a list that are always restored.
fn restored_entries(list: &str, ledger: &LedgerName) -> Vec<String> {
    let kept = list.lines().filter(|line| {
        let apart = is_optional(line) || is_one_of(line, &SUBSCRIPTION) || is_one_of(line, &RIGHTS);
        parse_entry(line).is_some() && is_ours_to_restore(line, ledger) && !apart
    });
    kept.map(str::to_owned).collect()
}

/// False for objects that the layout makes.
fn is_ours_to_restore(line: &str, ledger: &LedgerName) -> bool {
    let object = |entry: &str| entry.rsplit_once(' ').map_or(entry, |(object, _owner)| object).to_owned();
    parse_entry(line).is_none_or(|entry| {
        let object = object(entry);
        !NOT_RESTORED.contains(&object.as_str()) && !is_of_ledger(&object, ledger) && !is_own_definition(&object)
    })
}

/// One of the fleet's own tables, with its keys, indexes and rights. Its rows are restored into the table that a restore makes.
fn is_own_definition(object: &str) -> bool {
    own_tables::own_table_names().any(|name| {
        object == format!("TABLE public {name}")
            || object == format!("ACL public TABLE {name}")
            || object.strip_prefix("CONSTRAINT public ").is_some_and(|rest| rest.starts_with(&format!("{name} ")))
            || object.strip_prefix("INDEX public ").is_some_and(|index| index.starts_with(name))
    })
}

/// The ledger's table, its rights and its key. After a table is renamed, its key still has the old name.
fn is_of_ledger(object: &str, ledger: &LedgerName) -> bool {
    let key = object.strip_prefix(&format!("CONSTRAINT public {ledger} "));
    object == format!("TABLE public {ledger}")
        || object == format!("ACL public TABLE {ledger}")
        || key.is_some_and(|key| key.ends_with("_pkey"))
}

/// A line is `<id>; <table> <object> <kind> <schema> <name> <owner>`, or a comment.
fn parse_entry(line: &str) -> Option<&str> {
    let (number, entry) = line.split_once("; ")?;
    number.parse::<u32>().ok()?;
    Some(entry.splitn(3, ' ').nth(2).unwrap_or_default())
}

fn is_optional(line: &str) -> bool {
    is_one_of(line, &OPTIONAL)
}

fn is_one_of(line: &str, kinds: &[&str]) -> bool {
    parse_entry(line).is_some_and(|entry| kinds.iter().any(|kind| entry.starts_with(kind)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tenant_is_found_wherever_its_column_stands() {
        let tenant = TenantId::generate();
        let copied = |rows: &str| {
            format!("SET x;\n\nCOPY public._fleet_identity (one, tenant_id, op_id) FROM stdin;\n{rows}\\.\n\n\n")
        };
        assert_eq!(tenant_in(&copied(&format!("1\t{tenant}\t\\N\n"))).unwrap(), tenant);
        let two = format!("1\t{tenant}\t\\N\n2\t{tenant}\t\\N\n");
        for bad in [copied(""), copied(&two), copied("1\tnonsense\t\\N\n"), String::new()] {
            assert_eq!(tenant_in(&bad).unwrap_err().kind(), ErrorKind::Corrupt);
        }
    }

    #[test]
    fn our_own_tables_and_the_servers_things_are_left_out() {
        let kept = [
            "3384; 0 16417 TABLE DATA public _sqlx_migrations fleet",
            "3385; 0 16418 TABLE DATA public ops fleet",
            "216; 1259 16417 TABLE public _sqlx_migrations fleet_owner",
            "215; 1259 16417 TABLE public projects fleet_owner",
            "215; 1259 16417 TABLE other _fleet_identity fleet_owner",
            "2; 3079 16384 EXTENSION - pgcrypto ",
        ];
        let left = [
            ";",
            "; Archive created at 2026-01-01 10:00:00",
            "214; 1259 16410 TABLE public _fleet_identity fleet",
            "3383; 0 16410 TABLE DATA public _fleet_identity fleet",
            "3236; 2606 16416 CONSTRAINT public _fleet_identity _fleet_identity_pkey fleet",
            "3400; 0 0 COMMENT - EXTENSION pgcrypto ",
            "217; 1259 16418 TABLE public ops fleet",
            "3237; 2606 16418 CONSTRAINT public ops _sqlx_migrations_pkey fleet",
            "3238; 0 0 ACL public TABLE ops fleet",
            "3239; 0 0 COMMENT public TABLE _fleet_identity fleet",
            "5; 2615 2200 SCHEMA - public pg_database_owner",
        ];
        let list = kept.iter().chain(&left).flat_map(|line| [*line, "\n"]).collect::<String>();
        assert_eq!(restored_entries(&list, &LedgerName::parse("ops").unwrap()), kept);
        let optional = list.lines().filter(|line| is_optional(line)).collect::<Vec<_>>();
        assert_eq!(optional, ["3400; 0 0 COMMENT - EXTENSION pgcrypto "]);
    }
}
