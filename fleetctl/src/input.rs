//! What users hand in: lists of names, migration directories, confirmations. Bounded and checked before anything is done.

use std::io::{BufRead, Read};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::args::Confirm;
use crate::context::Context;
use crate::error::{Failure, Result, shorten};
use crate::table::counted;

/// A list of a million names is about this long; more is not a list of names.
const LIST_BYTES_MAX: u64 = 64 << 20;
/// One migration file: as much as the engines take.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// Files in a migration directory.
const FILES_MAX: usize = 10_000;
/// A connection string.
const SECRET_BYTES_MAX: u64 = 8 << 10;
/// A typed confirmation.
const ANSWER_BYTES_MAX: u64 = 1_024;

/// A name with the line it stands on, so that a wrong one can be found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) text: String,
    pub(crate) line: usize,
}

/// One name per line; blank lines and lines that begin with `#` are skipped.
fn names(file: &Path, context: &mut Context) -> Result<Vec<Listed>> {
    let shown = if file == Path::new("-") { "standard input".to_owned() } else { file.display().to_string() };
    let bytes = read(file, LIST_BYTES_MAX, context)?;
    parse_names(&bytes).map_err(|(line, why)| Failure::usage(format!("line {line} of {shown} {why}")))
}

/// The names in a file, which must hold one: a list that came out empty is a slip of whatever made it.
pub(crate) fn listed(file: &Path, context: &mut Context) -> Result<Vec<String>> {
    let listed = names(file, context)?;
    if listed.is_empty() {
        return Err(Failure::usage(format!("{} names no tenant", file.display())).code("selection_empty"));
    }
    Ok(listed.into_iter().map(|name| name.text).collect())
}

/// PURE.
fn parse_names(bytes: &[u8]) -> Result<Vec<Listed>, (usize, &'static str)> {
    let mut out = Vec::new();
    for (at, line) in bytes.split(|b| *b == b'\n').enumerate() {
        let text = std::str::from_utf8(line).map_err(|_| (at + 1, "is not UTF-8"))?;
        let text = if at == 0 { text.trim_start_matches('\u{feff}') } else { text }.trim();
        if !text.is_empty() && !text.starts_with('#') {
            out.push(Listed { text: text.to_owned(), line: at + 1 });
        }
    }
    Ok(out)
}

/// A whole file or standard input (`-`), at most `max` bytes.
pub(crate) fn read(file: &Path, max: u64, context: &mut Context) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let result = if file == Path::new("-") {
        context.stdin.by_ref().take(max + 1).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(context.absolute(file)).and_then(|f| f.take(max + 1).read_to_end(&mut bytes))
    };
    result.map_err(|e| unreadable(file, e))?;
    if bytes.len() as u64 > max {
        return Err(unreadable(file, format!("it is longer than {max} bytes")));
    }
    Ok(bytes)
}

fn unreadable(file: &Path, why: impl std::fmt::Display) -> Failure {
    Failure::usage(format!("cannot read '{}'", file.display()))
        .because(why)
        .try_next("name a file or directory that this user may read; - is standard input where a list is taken")
}

/// Folders of a migration directory that hold one engine's files each.
const ENGINES: [&str; 2] = ["sqlite", "postgres"];

/// The `.sql` files of a migration directory, as the API takes them, in the order of their names: those at its top, or
/// those of its folders `sqlite` and `postgres`.
pub(crate) fn migration_files(directory: &Path, context: &Context) -> Result<Value> {
    let mut names = sql_files(directory, context)?;
    for engine in ENGINES {
        let folder = directory.join(engine);
        if context.absolute(&folder).is_dir() {
            names.extend(sql_files(&folder, context)?.into_iter().map(|name| format!("{engine}/{name}")));
        }
    }
    if names.is_empty() || names.len() > FILES_MAX {
        return Err(Failure::usage(format!("'{}' holds {} .sql files", directory.display(), names.len()))
            .because(format!("a migration directory holds from 1 to {FILES_MAX} files like 0001_name.sql")));
    }
    names.sort();
    let files = names.into_iter().map(|name| migration_file(directory, name, context));
    let mut files = files.collect::<Result<Vec<_>>>()?;
    files.extend(sqlx_settings(directory, context)?);
    Ok(Value::from(files))
}

/// The file with sqlx's settings.
const SQLX_SETTINGS: &str = "sqlx.toml";

fn sqlx_settings(directory: &Path, context: &Context) -> Result<Option<Value>> {
    let Some(path) = settings_beside(&context.absolute(directory))? else { return Ok(None) };
    let folder = path.parent().unwrap_or(Path::new("."));
    migration_file(folder, SQLX_SETTINGS.to_owned(), context).map(Some)
}

/// The `sqlx.toml` in a migration directory, or in the directory around it if that one's migrations are these. It may
/// change checksums and the ledger's name.
fn settings_beside(directory: &Path) -> Result<Option<PathBuf>> {
    let directory = directory.canonicalize().map_err(|e| unreadable(directory, e))?;
    let own = directory.join(SQLX_SETTINGS);
    if own.is_file() {
        return Ok(Some(own));
    }
    let Some(project) = directory.parent() else { return Ok(None) };
    let path = project.join(SQLX_SETTINGS);
    if !path.is_file() {
        return Ok(None);
    }
    let text = std::fs::read_to_string(&path).map_err(|e| unreadable(&path, e))?;
    let table: toml::Table = text.parse().map_err(|e| unreadable(&path, e))?;
    let settings = table.get("migrate");
    let migrations = settings.and_then(|settings| settings.get("migrations-dir")?.as_str()).unwrap_or("migrations");
    let is_this = project.join(migrations).canonicalize().is_ok_and(|found| found == directory);
    Ok((settings.is_some() && is_this).then_some(path))
}

/// The names of the `.sql` files in one folder.
fn sql_files(folder: &Path, context: &Context) -> Result<Vec<String>> {
    let unreadable = |e: std::io::Error| unreadable(folder, e);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(context.absolute(folder)).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let name = entry.file_name();
        if Path::new(&name).extension().is_some_and(|e| e == "sql") && entry.path().is_file() {
            let shown = name.to_string_lossy().into_owned();
            let name =
                name.into_string().map_err(|_| Failure::usage(format!("the file name {shown:?} is not UTF-8")))?;
            names.push(name);
        }
    }
    Ok(names)
}

fn migration_file(directory: &Path, name: String, context: &Context) -> Result<Value> {
    let path = directory.join(&name);
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(context.absolute(&path));
    opened.and_then(|f| f.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)).map_err(|e| unreadable(&path, e))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(unreadable(&path, format!("it is longer than {FILE_BYTES_MAX} bytes")));
    }
    let sql = String::from_utf8(bytes).map_err(|_| unreadable(&path, "it is not UTF-8"))?;
    Ok(json!({"name": name, "sql": sql}))
}

/// A connection string from a file (or standard input): secrets are never flags, which others can see.
pub(crate) fn secret(file: &Path, context: &mut Context) -> Result<String> {
    let bytes = read(file, SECRET_BYTES_MAX, context)?;
    let text = String::from_utf8(bytes).map_err(|_| unreadable(file, "it is not UTF-8"))?;
    Ok(text.trim().to_owned())
}

/// Refuses another number of tenants than was said; a dry run does so, too.
pub(crate) fn expected(flags: &Confirm, tenants: &[String]) -> Result<()> {
    let count = tenants.len() as u64;
    match flags.expect_count.filter(|n| *n != count) {
        Some(expected) => {
            let what = format!("the selection means {}, but --expect-count says {expected}", counted(count, "tenant"));
            Err(Failure::usage(what).code("count_mismatch"))
        }
        None => Ok(()),
    }
}

/// Asks before something that cannot simply be taken back.
///
/// One tenant: its name is typed. Many: their number. Without a terminal the flags must say it.
pub(crate) fn confirm(context: &mut Context, flags: &Confirm, verb: &str, tenants: &[String]) -> Result<()> {
    expected(flags, tenants)?;
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
        return Err(Failure::usage(format!("this would {verb} {what}, and nobody is there to confirm it"))
            .code("confirmation_required")
            .try_next(format!("the same command with {flags}")));
    }
    context.out.ask(&format!("This will {verb} {what}. Type {wanted} to go on: "));
    let mut answer = String::new();
    let read = std::io::BufReader::new(context.stdin.by_ref().take(ANSWER_BYTES_MAX)).read_line(&mut answer);
    if read.is_ok() && answer.trim() == wanted {
        return Ok(());
    }
    Err(Failure::usage(format!("not confirmed: {:?} is not {wanted:?}", shorten(answer.trim())))
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
