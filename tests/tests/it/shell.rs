//! A directory to type commands in, and what came of each.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use fleet_tests::fleetctl;
use serde_json::Value;
use tempfile::TempDir;

/// An empty directory, and variables set for every command.
pub(crate) struct Shell {
    dir: TempDir,
    variables: Vec<(&'static str, String)>,
}

/// What came of a command.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Shell {
    pub(crate) fn new() -> Self {
        Self { dir: TempDir::new().unwrap(), variables: Vec::new() }
    }

    /// With a fleet in it.
    pub(crate) fn init() -> Self {
        let shell = Self::new();
        shell.ok("init");
        shell
    }

    pub(crate) fn set(&mut self, variable: &'static str, value: impl Into<String>) {
        self.variables.push((variable, value.into()));
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn write(&self, file: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.dir.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = fleetctl(self.dir.path());
        command.envs(self.variables.iter().map(|(k, v)| (*k, v.as_str())));
        command
    }

    /// Runs one line: words separated by blanks, `'…'` around a word that holds some.
    pub(crate) fn run(&self, line: &str) -> Ran {
        self.fed(line, b"")
    }

    /// The same with this standard input.
    pub(crate) fn fed(&self, line: &str, stdin: &[u8]) -> Ran {
        self.args(&words(line), stdin)
    }

    pub(crate) fn args(&self, args: &[String], stdin: &[u8]) -> Ran {
        let mut command = self.command();
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // A command that never reads its input closes the pipe: that is its right.
        let _ = child.stdin.take().unwrap().write_all(stdin);
        let output = child.wait_with_output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("every output is UTF-8");
        Ran { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// Runs a line that must succeed; its stdout.
    pub(crate) fn ok(&self, line: &str) -> String {
        let ran = self.run(line);
        assert_eq!(ran.code, Some(0), "fleetctl {line}\n{}{}", ran.stdout, ran.stderr);
        ran.stdout
    }

    /// Runs a line that must succeed, with `-o json`.
    pub(crate) fn json(&self, line: &str) -> Value {
        let text = self.ok(&format!("{line} -o json"));
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("fleetctl {line} printed no JSON ({e}): {text}"))
    }

    /// Runs a line that must end with this code; what it complained of.
    pub(crate) fn refused(&self, line: &str, code: i32) -> String {
        let ran = self.run(line);
        assert_eq!(ran.code, Some(code), "fleetctl {line}\n{}{}", ran.stdout, ran.stderr);
        ran.stderr
    }
}

/// Words of a line, with `'…'` for words that hold blanks.
pub(crate) fn words(line: &str) -> Vec<String> {
    let mut out = Vec::new();
    for (at, part) in line.split('\'').enumerate() {
        match at % 2 {
            0 => out.extend(part.split_whitespace().map(str::to_owned)),
            _ => out.push(part.to_owned()),
        }
    }
    out
}
