//! The server's programs, the user that runs them, and the data directory that every cluster is a copy of.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

/// The role that fleets use; may create databases and roles, nothing more.
pub const ROLE: &str = "fleet";
/// Its password: these servers hold no secrets and listen on loopback only.
pub const PASSWORD: &str = "fleet-test";

/// Free memory of the file system in memory below which clusters are made on disk.
const MEMORY_FREE_MIN: u64 = 4 << 30;

/// Where Debian puts each major version's programs.
const DEBIAN: &str = "/usr/lib/postgresql";

/// A program of the newest server that is installed, not Debian's wrapper of the same name.
///
/// # Panics
/// When no server is installed: `./check` installs one.
#[must_use]
pub fn bin(program: &str) -> PathBuf {
    directory().join(program)
}

fn directory() -> PathBuf {
    let versions = fs::read_dir(DEBIAN).into_iter().flatten().flatten();
    let newest = versions
        .filter(|entry| entry.path().join("bin/postgres").exists())
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .max();
    if let Some(newest) = newest {
        return Path::new(DEBIAN).join(newest.to_string()).join("bin");
    }
    let found = Command::new("pg_config").arg("--bindir").output().ok().filter(|out| out.status.success());
    let found = found.map(|out| PathBuf::from(String::from_utf8_lossy(&out.stdout).trim()));
    found
        .filter(|path| path.join("postgres").exists())
        .expect("no PostgreSQL server is installed: run ./check, which installs it")
}

/// The command, as a user that may run a server, ended by the kernel when the calling thread ends.
pub(crate) fn as_server_user(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "QUIT"]);
    if let Some(user) = server_user() {
        command.arg("--reuid").arg(user).arg("--regid").arg(user).arg("--clear-groups");
    }
    // No inherited directory that this user may not enter, no inherited settings of a client.
    command.arg(program).current_dir("/").stdin(Stdio::null());
    for setting in ["PGHOST", "PGPORT", "PGUSER", "PGPASSWORD", "PGDATABASE", "PGDATA"] {
        command.env_remove(setting);
    }
    command
}

/// `None`: whoever runs the test is not root and does it.
pub(crate) fn server_user() -> Option<&'static str> {
    rustix::process::geteuid().is_root().then_some("postgres")
}

pub(crate) fn run(command: &mut Command, what: &str) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// A directory of this machine's temporary space that the server's user owns.
pub(crate) fn own_directory(prefix: &str) -> tempfile::TempDir {
    let prefix = format!("{prefix}{}-", std::process::id());
    let dir = tempfile::Builder::new().prefix(&prefix).tempdir_in(scratch_space());
    let dir = dir.expect("the temporary directory can be written");
    if let Some(user) = server_user() {
        run(Command::new("chown").arg(format!("{user}:{user}")).arg(dir.path()), "chown");
    }
    dir
}

/// Where clusters are made: in memory, if there is plenty, because creating a database writes hundreds of files.
fn scratch_space() -> &'static Path {
    static SPACE: OnceLock<PathBuf> = OnceLock::new();
    SPACE.get_or_init(|| {
        let memory = Path::new("/dev/shm");
        let free = rustix::fs::statvfs(memory).map_or(0, |space| space.f_bavail * space.f_frsize);
        if free < MEMORY_FREE_MIN {
            return std::env::temp_dir();
        }
        remove_abandoned(memory);
        memory.to_owned()
    })
}

/// Removes the directories of tests that were killed: of every process that has ended.
fn remove_abandoned(space: &Path) {
    for entry in fs::read_dir(space).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner =
            name.to_str().and_then(|name| name.strip_prefix("fleet-pg-")?.split('-').next()?.parse::<u32>().ok());
        if owner.is_some_and(|owner| !Path::new(&format!("/proc/{owner}")).exists()) {
            // Another test may be doing the same.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// The data directory that clusters are copies of; made by whoever comes first.
pub(crate) fn template(other: bool) -> PathBuf {
    let version = run(Command::new(bin("postgres")).arg("--version"), "postgres --version");
    let version: String = String::from_utf8_lossy(&version.stdout).chars().filter(|c| c.is_ascii_digit()).collect();
    let place = scratch_space().join(format!(
        "fleet-postgres-{version}-{}{}",
        rustix::process::geteuid().as_raw(),
        if other { "-other" } else { "" }
    ));
    if !place.exists() {
        make_template(&place);
    }
    place
}

fn make_template(place: &Path) {
    let work = own_directory("fleet-initdb-");
    let data = work.path().join("data");
    let mut initdb = as_server_user(&bin("initdb"));
    initdb.args(["--username=postgres", "--auth-local=trust", "--auth-host=scram-sha-256", "--no-sync"]);
    run(initdb.args(["--encoding=UTF8", "--locale=C.UTF-8", "--pgdata"]).arg(&data), "initdb");
    let sql = format!("create role {ROLE} login createdb createrole password '{PASSWORD}';\n");
    let script = work.path().join("role.sql");
    fs::write(&script, sql).expect("the temporary directory can be written");
    let mut single = as_server_user(&bin("postgres"));
    single.arg("--single").arg("-D").arg(&data).arg("postgres");
    single.stdin(fs::File::open(&script).expect("it was just written"));
    run(&mut single, "postgres --single");
    // Of several that race, one wins, and they are all the same.
    let _ = fs::rename(&data, place);
}
