//! The real binary, as a user would run it.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The root of the workspace.
///
/// # Panics
/// Never: the package lies in the workspace.
#[must_use]
pub fn workspace_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package lies in the workspace").to_path_buf()
}

/// `fleetctl` with an environment of its own, to be run in `dir`.
///
/// # Panics
/// When the binary was not built: `cargo build --bins` (which `./check` does) comes first.
#[must_use]
pub fn fleetctl(dir: &Path) -> Command {
    let mut command = Command::new(binary());
    command.current_dir(dir).env_clear().env("PATH", "/usr/bin:/bin").env("HOME", dir).env("NO_COLOR", "1");
    command
}

fn binary() -> PathBuf {
    let tests = std::env::current_exe().expect("a test has a path");
    let profile = tests.parent().and_then(Path::parent).expect("tests are built into <target>/<profile>/deps");
    let binary = profile.join("fleetctl");
    assert!(binary.exists(), "{} is not there: run `cargo build --bins` first", binary.display());
    binary
}
