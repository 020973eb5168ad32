//! User input: lists of names, migration directories, confirmations. Its size is limited and it is checked first.

use std::io::{BufRead, Read};
use std::path::{Path, PathBuf};

use control_plane::ErrorKind;
use fleet_api::releases::ReleaseFile;
use fleet_api::secret_text::SecretText;
use secrecy::SecretString;
use serde_json::Value;

use crate::args::ConfirmArgs;
use crate::context::CommandContext;
use crate::error::{CommandFailure, Result, shorten_text};
use crate::ignored::{self, EntryKind, IgnoredEntry};
use crate::table::{count_noun, escape_text};

/// A list of a million names is about this long; a longer file is not a list of names.
const LIST_BYTES_MAX: u64 = 64 << 20;
/// Maximum size of one migration file: the maximum of the engines.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// Maximum number of files in a migration directory.
const FILES_MAX: usize = 10_000;
/// Maximum size of a connection string.
const SECRET_BYTES_MAX: u64 = 8 << 10;
/// Maximum size of a typed confirmation.
const ANSWER_BYTES_MAX: u64 = 1_024;

/// A name with its line number, so that a wrong name can be found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListedName {
    pub(crate) text: String,
    pub(crate) line: usize,
}

/// Reads one name per line. Skips blank lines and lines that begin with `#`.
fn read_names(file: &Path, context: &mut CommandContext) -> Result<Vec<ListedName>> {
    let shown = if file == Path::new("-") { "standard input".to_owned() } else { file.display().to_string() };
    let bytes = read_input(file, LIST_BYTES_MAX, context)?;
    parse_names(&bytes).map_err(|(line, why)| CommandFailure::usage_error(format!("line {line} of {shown} {why}")))
}

/// The names in a file, which must contain at least one. An empty list usually means that the program that wrote it
/// failed.
pub(crate) fn read_required_names(file: &Path, context: &mut CommandContext) -> Result<Vec<String>> {
    let listed = read_names(file, context)?;
    if listed.is_empty() {
        return Err(CommandFailure::usage_error(format!("{} names no tenant", file.display()))
            .code(ErrorKind::SelectionEmpty.code()));
    }
    Ok(listed.into_iter().map(|name| name.text).collect())
}

/// PURE: the names in the text, or the number of the wrong line with the reason.
fn parse_names(bytes: &[u8]) -> Result<Vec<ListedName>, (usize, &'static str)> {
    let mut out = Vec::new();
    for (at, line) in bytes.split(|b| *b == b'\n').enumerate() {
        let text = std::str::from_utf8(line).map_err(|_| (at + 1, "is not UTF-8"))?;
        let text = if at == 0 { text.trim_start_matches('\u{feff}') } else { text }.trim();
        if !text.is_empty() && !text.starts_with('#') {
            out.push(ListedName { text: text.to_owned(), line: at + 1 });
        }
    }
    Ok(out)
}

/// Reads a whole file or standard input (`-`), at most `max` bytes.
pub(crate) fn read_input(file: &Path, max: u64, context: &mut CommandContext) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let result = if file == Path::new("-") {
        context.stdin.by_ref().take(max + 1).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(context.absolute_path(file)).and_then(|f| f.take(max + 1).read_to_end(&mut bytes))
    };
    result.map_err(|e| unreadable_file(file, e))?;
    if bytes.len() as u64 > max {
        return Err(unreadable_file(file, format!("it is longer than {max} bytes")));
    }
    Ok(bytes)
}

fn unreadable_file(file: &Path, why: impl std::fmt::Display) -> CommandFailure {
    CommandFailure::usage_error(format!("cannot read '{}'", file.display()))
        .with_cause(why)
        .try_next("name a file or directory that this user may read; for a list, - is standard input")
}

/// The contents of a migration directory.
pub(crate) struct MigrationDirectory {
    /// The files, as the API expects them.
    pub(crate) files: Vec<ReleaseFile>,
    /// Entries that are not read.
    pub(crate) ignored: Vec<IgnoredEntry>,
}

/// Adds the entries of a directory that are not read to an answer that is printed as JSON.
pub(crate) fn add_ignored(ignored: &[IgnoredEntry], answer: &mut Value) {
    if !ignored.is_empty() && answer.is_object() {
        answer["ignored"] = ignored.iter().map(IgnoredEntry::to_json).collect();
    }
}

/// The `.sql` files of a migration directory, in the order of their names: those at its top, or those of its folders
/// `sqlite` and `postgres`. Warns of entries that look like migrations and are not read.
pub(crate) fn migration_files(directory: &Path, context: &mut CommandContext) -> Result<MigrationDirectory> {
    let (mut names, mut ignored) = (Vec::new(), Vec::new());
    for folder in ["", "sqlite", "postgres"] {
        let path = if folder.is_empty() { directory.to_path_buf() } else { directory.join(folder) };
        if folder.is_empty() || context.absolute_path(&path).is_dir() {
            names.extend(sql_files(&path, folder, &mut ignored, context)?);
        }
    }
    report_ignored(&mut ignored, context);
    if names.is_empty() || names.len() > FILES_MAX {
        return Err(CommandFailure::usage_error(format!(
            "'{}' contains {} .sql files",
            directory.display(),
            names.len()
        ))
        .with_cause(format!("a migration directory contains from 1 to {FILES_MAX} files like 0001_name.sql")));
    }
    names.sort();
    let files = names.into_iter().map(|name| migration_file(directory, name, context));
    let mut files = files.collect::<Result<Vec<_>>>()?;
    files.extend(sqlx_settings(directory, context)?);
    Ok(MigrationDirectory { files, ignored })
}

/// Maximum number of ignored entries that are printed: a project's root has hundreds of entries.
const IGNORED_TOLD_MAX: usize = 20;

fn report_ignored(ignored: &mut [IgnoredEntry], context: &mut CommandContext) {
    ignored.sort_by(|one, other| one.name.cmp(&other.name));
    let alike = ignored.iter().filter_map(|entry| entry.why.as_ref().map(|why| (&entry.name, why)));
    for (name, why) in alike.clone().take(IGNORED_TOLD_MAX) {
        context.out.print_message(&format!("warning: '{}' is ignored: {why}", escape_text(name)));
    }
    let more = alike.count().saturating_sub(IGNORED_TOLD_MAX);
    if more > 0 {
        context.out.print_message(&format!("warning: {more} more entries that look like migrations are ignored"));
    }
    let others: Vec<_> =
        ignored.iter().filter(|entry| entry.why.is_none()).map(|entry| escape_text(&entry.name)).collect();
    let shown = others.iter().take(IGNORED_TOLD_MAX).cloned().collect::<Vec<_>>().join(", ");
    match others.len().saturating_sub(IGNORED_TOLD_MAX) {
        _ if others.is_empty() => {}
        0 => context.out.print_note(&format!("ignored: {shown}")),
        more => context.out.print_note(&format!("ignored: {shown} and {more} more")),
    }
}

/// The file with sqlx's settings.
const SQLX_SETTINGS: &str = "sqlx.toml";

fn sqlx_settings(directory: &Path, context: &CommandContext) -> Result<Option<ReleaseFile>> {
    let Some(path) = settings_beside(&context.absolute_path(directory))? else { return Ok(None) };
    let folder = path.parent().unwrap_or(Path::new("."));
    migration_file(folder, SQLX_SETTINGS.to_owned(), context).map(Some)
}

/// The `sqlx.toml` in a migration directory, or in its parent if the parent's migrations are this directory. It may
/// change checksums and the ledger's name.
fn settings_beside(directory: &Path) -> Result<Option<PathBuf>> {
    let directory = directory.canonicalize().map_err(|e| unreadable_file(directory, e))?;
    let own = directory.join(SQLX_SETTINGS);
    if own.is_file() {
        return Ok(Some(own));
    }
    let Some(project) = directory.parent() else { return Ok(None) };
    let path = project.join(SQLX_SETTINGS);
    if !path.is_file() {
        return Ok(None);
    }
    let text = std::fs::read_to_string(&path).map_err(|e| unreadable_file(&path, e))?;
    let table: toml::Table = text.parse().map_err(|e| unreadable_file(&path, e))?;
    let settings = table.get("migrate");
    let migrations = settings.and_then(|settings| settings.get("migrations-dir")?.as_str()).unwrap_or("migrations");
    let is_this = project.join(migrations).canonicalize().is_ok_and(|found| found == directory);
    Ok((settings.is_some() && is_this).then_some(path))
}

/// The names of the `.sql` files in one folder, with the folder's name. Adds entries that are not read to `ignored`.
fn sql_files(
    path: &Path,
    folder: &str,
    ignored: &mut Vec<IgnoredEntry>,
    context: &CommandContext,
) -> Result<Vec<String>> {
    let unreadable = |e: std::io::Error| unreadable_file(path, e);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(context.absolute_path(path)).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let (name, kind) = (entry.file_name(), entry_kind(&entry.path()));
        let is_sql = kind == EntryKind::File && Path::new(&name).extension().is_some_and(|e| e == "sql");
        let shown = name.to_string_lossy().into_owned();
        ignored.extend(ignored::ignored_entry(folder, &shown, &kind));
        if is_sql {
            let name = name
                .into_string()
                .map_err(|_| CommandFailure::usage_error(format!("the file name {shown:?} is not UTF-8")))?;
            names.push(if folder.is_empty() { name } else { format!("{folder}/{name}") });
        }
    }
    Ok(names)
}

fn entry_kind(path: &Path) -> EntryKind {
    match std::fs::metadata(path) {
        Ok(found) if found.is_file() => EntryKind::File,
        Ok(found) if found.is_dir() => EntryKind::Folder { has_sql: has_sql(path) },
        _ => EntryKind::Other,
    }
}

/// In a folder that is not read, only the first entries are checked.
fn has_sql(folder: &Path) -> bool {
    let is_sql = |name: std::ffi::OsString| name.to_string_lossy().to_ascii_lowercase().ends_with(".sql");
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.take(FILES_MAX).any(|entry| is_sql(entry.file_name()))
}

fn migration_file(directory: &Path, name: String, context: &CommandContext) -> Result<ReleaseFile> {
    let path = directory.join(&name);
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(context.absolute_path(&path));
    opened.and_then(|f| f.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)).map_err(|e| unreadable_file(&path, e))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(unreadable_file(&path, format!("it is longer than {FILE_BYTES_MAX} bytes")));
    }
    let sql = String::from_utf8(bytes).map_err(|_| unreadable_file(&path, "it is not UTF-8"))?;
    Ok(ReleaseFile { name, sql })
}

/// A connection string from a file or standard input. Secrets are never flags, which other users can see.
pub(crate) fn read_secret(file: &Path, context: &mut CommandContext) -> Result<SecretText> {
    let bytes = read_input(file, SECRET_BYTES_MAX, context)?;
    let text = String::from_utf8(bytes).map_err(|_| unreadable_file(file, "it is not UTF-8"))?;
    Ok(SecretString::from(text.trim()).into())
}

/// Refuses a number of tenants other than `--expect-count`, in a dry run too.
pub(crate) fn check_expected_count(flags: &ConfirmArgs, tenants: &[String]) -> Result<()> {
    let count = tenants.len() as u64;
    match flags.expect_count.filter(|n| *n != count) {
        Some(expected) => {
            let what = format!("the selection has {}, but --expect-count says {expected}", count_noun(count, "tenant"));
            Err(CommandFailure::usage_error(what).code(ErrorKind::CountMismatch.code()))
        }
        None => Ok(()),
    }
}

/// Asks for confirmation before a command that is hard to undo.
///
/// For one tenant the user types its name, for several their number. Without a terminal the flags must confirm.
pub(crate) fn confirm_tenants(
    context: &mut CommandContext,
    flags: &ConfirmArgs,
    verb: &str,
    tenants: &[String],
) -> Result<()> {
    check_expected_count(flags, tenants)?;
    let count = tenants.len() as u64;
    let said = flags.yes && (tenants.len() <= 1 || flags.expect_count.is_some());
    if said || tenants.is_empty() {
        return Ok(());
    }
    let (wanted, what) = match tenants {
        [one] => (one.clone(), format!("the tenant {one:?}")),
        _ => (count.to_string(), format!("{count} tenants")),
    };
    if !context.asks {
        let flags = if tenants.len() == 1 { "--yes".to_owned() } else { format!("--yes --expect-count {count}") };
        return Err(CommandFailure::usage_error(format!(
            "this would {verb} {what}, and there is no terminal to confirm it"
        ))
        .code("confirmation_required")
        .try_next(format!("the same command with {flags}")));
    }
    confirm_typed(context, &format!("This will {verb} {what}"), &wanted)
}

/// Asks the user to type `wanted`.
pub(crate) fn confirm_typed(context: &mut CommandContext, what: &str, wanted: &str) -> Result<()> {
    context.out.print_question(&format!("{what}. Type {wanted} to go on: "));
    let mut answer = String::new();
    let read = std::io::BufReader::new(context.stdin.by_ref().take(ANSWER_BYTES_MAX)).read_line(&mut answer);
    if read.is_ok() && answer.trim() == wanted {
        return Ok(());
    }
    Err(CommandFailure::usage_error(format!("not confirmed: {:?} is not {wanted:?}", shorten_text(answer.trim())))
        .code("confirmation_required"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_have_comments_blank_lines_and_any_line_end() {
        let names = parse_names("\u{feff}acme\r\n\n# old\n  globex  \nlast".as_bytes()).unwrap();
        let seen: Vec<_> = names.iter().map(|n| (n.text.as_str(), n.line)).collect();
        assert_eq!(seen, [("acme", 1), ("globex", 4), ("last", 5)]);
        assert_eq!(parse_names(b"a\n\xff\n"), Err((2, "is not UTF-8")));
        assert_eq!(parse_names(b"nul\0name").unwrap()[0].text, "nul\0name");
    }

    #[test]
    fn the_settings_of_sqlx_travel_with_the_migrations_that_they_are_for() {
        let project = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(project.path().join(name), text).unwrap();
        std::fs::create_dir_all(project.path().join("migrations")).unwrap();
        let found = |directory: &str| {
            let settings = settings_beside(&project.path().join(directory)).unwrap();
            settings.map(|path| path.strip_prefix(project.path().canonicalize().unwrap()).unwrap().to_owned())
        };
        assert_eq!(found("migrations"), None);
        write("sqlx.toml", "[common]\ndatabase-url-var = 'X'");
        assert_eq!(found("migrations"), None);
        write("sqlx.toml", "[migrate]\ntable-name = 'ops'");
        assert_eq!(found("migrations").unwrap(), Path::new("sqlx.toml"));
        write("sqlx.toml", "[migrate]\nmigrations-dir = 'elsewhere'");
        assert_eq!(found("migrations"), None);
        write("sqlx.toml", "[migrate]\nmigrations-dir = './migrations/'");
        assert_eq!(found("migrations").unwrap(), Path::new("sqlx.toml"));
        write("migrations/sqlx.toml", "");
        assert_eq!(found("migrations").unwrap(), Path::new("migrations/sqlx.toml"));
    }
}
