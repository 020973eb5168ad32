//! Code that must not compile: each file of `tests/compile_fail` has one line with an error, and `//~` names its code.
//!
//! The compiler runs on each file directly, with the library that was built for this test. So a case takes a second, and
//! no dependency is built again.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// The code and the line of an error.
type CompilerError = (String, u64);

/// The case that compiles: without it, every other case could fail for another reason.
const ALLOWED: &str = "allowed.rs";

#[test]
fn what_must_not_compile_is_refused_with_its_own_error() {
    let library = usable_library();
    let cases = case_files();
    assert!(cases.len() > 10, "{cases:?}");
    for case in cases {
        let expected = expected_errors(&std::fs::read_to_string(&case).unwrap());
        assert_eq!(expected.is_empty(), case.ends_with(ALLOWED), "{} marks its error", case.display());
        assert_eq!(compile(&case, &library), expected, "{}", case.display());
    }
}

fn case_directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/compile_fail")
}

fn case_files() -> Vec<PathBuf> {
    std::fs::read_dir(case_directory()).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// The newest library with which the allowed case compiles: others were built with fewer features.
fn usable_library() -> PathBuf {
    let files = std::fs::read_dir(build_directory()).unwrap().map(|entry| entry.unwrap());
    let mut libraries: Vec<_> = files
        .filter(|file| {
            let name = file.file_name().into_string().unwrap_or_default();
            name.starts_with("libtenant_router-") && name.ends_with(".rlib")
        })
        .collect();
    libraries.sort_by_key(|file| std::cmp::Reverse(file.metadata().unwrap().modified().unwrap()));
    let allowed = case_directory().join(ALLOWED);
    let mut paths = libraries.into_iter().map(|file| file.path());
    paths.find(|library| compile(&allowed, library).is_empty()).expect("the allowed case compiles")
}

fn build_directory() -> PathBuf {
    std::env::current_exe().unwrap().parent().unwrap().to_owned()
}

fn expected_errors(source: &str) -> BTreeSet<CompilerError> {
    let marked = source.lines().zip(1..).filter_map(|(line, number)| Some((line.split_once("//~ ")?.1, number)));
    marked.map(|(code, number)| (code.to_owned(), number)).collect()
}

fn compile(case: &Path, library: &Path) -> BTreeSet<CompilerError> {
    let output = tempfile::tempdir().unwrap();
    let mut rustc = Command::new("rustc");
    rustc.args(["--edition=2024", "--crate-type=lib", "--emit=metadata", "--error-format=json", "--cap-lints=allow"]);
    rustc.arg(format!("-Ldependency={}", build_directory().display()));
    rustc.arg(format!("--extern=tenant_router={}", library.display()));
    let output = rustc.arg("--out-dir").arg(output.path()).arg(case).output().unwrap();
    let messages = String::from_utf8(output.stderr).unwrap();
    let errors: BTreeSet<_> = messages.lines().filter_map(|line| compiler_error(line, &messages)).collect();
    assert_eq!(output.status.success(), errors.is_empty(), "{}: {messages}", case.display());
    errors
}

/// An error with its place. The summary at the end has none.
fn compiler_error(line: &str, messages: &str) -> Option<CompilerError> {
    let message: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{messages}"));
    let is_primary = |span: &&Value| span["is_primary"] == true;
    let place = message["spans"].as_array()?.iter().find(is_primary)?["line_start"].as_u64()?;
    (message["level"] == "error").then(|| (message["code"]["code"].as_str().unwrap_or_default().to_owned(), place))
}
