//! Runs a test in a mount namespace of its own, where a directory is a small disk.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Set only by a parent test for its child: where the disk is.
const DISK: &str = "FLEET_TESTS_DISK";

/// A small disk to fill.
#[derive(Debug)]
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// In the test itself: runs the test `name` once more, in a child that has a disk with these options, and returns
    /// `None` when the child has passed. In the child: the disk. With `together`, temporary directories are on it.
    ///
    /// # Panics
    /// When the child fails.
    #[must_use]
    pub fn mounted(options: &str, together: bool, name: &str) -> Option<Self> {
        let script = format!("mount -t tmpfs -o {options} tmpfs \"${DISK}\"; exec \"$0\" \"$@\"");
        Self::in_child(&script, together, name)
    }

    /// As [`SmallDisk::mounted`]; the disk is an empty file system in user space (FUSE). `None` also where this machine
    /// has none.
    ///
    /// # Panics
    /// When the child fails.
    #[must_use]
    pub fn in_user_space(name: &str) -> Option<Self> {
        if !Path::new("/dev/fuse").exists() {
            return None;
        }
        let server = crate::workspace_root().join("tests/src/fuse_server.py");
        let script = format!("exec python3 '{}' \"${DISK}\" \"$0\" \"$@\"", server.display());
        Self::in_child(&script, false, name)
    }

    fn in_child(script: &str, together: bool, name: &str) -> Option<Self> {
        if let Some(disk) = disk_of_the_child() {
            return Some(Self(disk));
        }
        let disk = tempfile::tempdir().expect("a temporary directory");
        let mut command = Command::new("unshare");
        if !may_mount() {
            command.args(["--user", "--map-root-user"]);
        }
        command.args(["--mount", "sh", "-euc", script]).arg(std::env::current_exe().expect("a test has a path"));
        command.args(["--exact", name, "--nocapture"]).env(DISK, disk.path());
        if together {
            command.env("TMPDIR", disk.path());
        }
        let output = command.output().expect("unshare starts");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success() && out.contains("1 passed"), "{out}\n{err}");
        None
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Takes all blocks that are free, as any other program might.
    ///
    /// # Panics
    /// When the disk takes more than it has.
    pub fn fill(&self) {
        let filler = self.0.join("filler");
        let mut chunk = 1_u64 << 20;
        // Down to one block: three that are left are room enough for a process to start.
        while chunk >= 4_096 {
            let length = std::fs::metadata(&filler).map_or(0, |file| file.len());
            let took = Command::new("fallocate")
                .args(["-o", &length.to_string(), "-l", &chunk.to_string()])
                .arg(&filler)
                .stderr(std::process::Stdio::null())
                .status();
            if !took.expect("fallocate starts").success() {
                chunk /= 2;
            }
        }
    }

    /// Takes all inodes that are free.
    ///
    /// # Panics
    /// When the directory cannot be made.
    pub fn fill_inodes(&self) {
        let many = self.0.join("many");
        std::fs::create_dir(&many).expect("one inode is free");
        let _ = (0..1_000_000).take_while(|n| std::fs::write(many.join(n.to_string()), "").is_ok()).count();
    }

    /// Gives back what was taken.
    ///
    /// # Panics
    /// When it cannot be removed.
    pub fn free(&self) {
        let _ = std::fs::remove_file(self.0.join("filler"));
        let _ = std::fs::remove_dir_all(self.0.join("many"));
    }
}

#[expect(clippy::disallowed_methods, reason = "how a test tells itself in another process what to do")]
fn disk_of_the_child() -> Option<PathBuf> {
    std::env::var_os(DISK).map(PathBuf::from)
}

/// True when this process may mount without a user namespace.
fn may_mount() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0)
}
