//! Checks of the process itself: its secrets, its limit of open files and its runner.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::check::HealthCheck;
use crate::app::App;

/// Minimum limit of open files: enough for a few thousand open tenants with their write-ahead logs.
const OPEN_FILES_MIN: u64 = 8_192;

/// Checks that only its owner can read a secret's file.
pub(super) fn private_file_check(name: &str, file: &Path) -> HealthCheck {
    match std::fs::metadata(file) {
        Ok(found) if found.permissions().mode() & 0o077 == 0 => HealthCheck::new_ok(name, "only its owner can read it"),
        Ok(_) => HealthCheck::new_failure(
            name,
            "users other than its owner can read it",
            "chmod 600, and replace its contents",
        ),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            HealthCheck::new_ok(name, "not kept in the data directory")
        }
        Err(error) => {
            HealthCheck::new_unknown(name, format!("cannot look at it: {error}"), "check who owns its directory")
        }
    }
}

/// Checks the limit of open files.
pub(super) fn open_files() -> HealthCheck {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    match limit {
        Some(limit) if limit < OPEN_FILES_MIN => HealthCheck::new_warning(
            "open_files",
            format!("at most {limit}"),
            "raise the limit of open files (ulimit -n, LimitNOFILE=)",
        ),
        Some(limit) => HealthCheck::new_ok("open_files", format!("at most {limit}")),
        None => HealthCheck::new_ok("open_files", "no limit"),
    }
}

/// Checks that steps are claimed and run.
pub(super) fn runner_check(app: &App) -> HealthCheck {
    if app.runner.is_alive() {
        HealthCheck::new_ok("runner", "claims and runs steps")
    } else {
        HealthCheck::new_failure("runner", "steps are not being run", "check the log, then restart")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::check::HealthVerdict;

    #[test]
    fn a_secret_that_others_can_read_fails() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key");
        std::fs::write(&file, "x").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(private_file_check("key", &file).verdict, HealthVerdict::Fail);
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(private_file_check("key", &file).verdict, HealthVerdict::Ok);
        assert_eq!(private_file_check("key", &dir.path().join("none")).verdict, HealthVerdict::Ok);
    }
}
