//! The command line: which leak a process uses.

use std::process::{Command, Output};

use leaky_zoo::leak::LEAKS;

fn run(flags: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_leaky-zoo")).args(flags).output().unwrap()
}

#[test]
fn the_list_has_a_line_for_each_leak() {
    let output = run(&["--list"]);
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let fields: Vec<Vec<&str>> = text.lines().map(|line| line.split('\t').collect()).collect();
    assert_eq!(fields.len(), LEAKS.len());
    for (fields, leak) in fields.iter().zip(LEAKS) {
        assert_eq!(*fields, [leak.name, leak.class, &*leak.probes.join(",")]);
    }
}

#[test]
fn a_process_with_several_leaks_needs_a_choice() {
    let error = |flags: &[&str]| {
        let output = run(flags);
        assert!(!output.status.success(), "{flags:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let unknown = error(&["--leak", "unknown"]);
    assert!(unknown.contains("unknown") && unknown.contains("none"), "{unknown}");
    if LEAKS.len() > 1 {
        let missing = error(&[]);
        assert!(LEAKS.iter().all(|leak| missing.contains(leak.name)), "{missing}");
    }
}
