//! Tests of the rules in ARCHITECTURE.md: which module may import what, and which words no source may contain.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use fleet_tests::workspace_root;

/// The crates from left to right; each may depend only on those to its left.
const CRATES: [&str; 8] =
    ["tenant-engine", "catalog", "tenant-router", "fleet-api", "control-plane", "fleet-client", "leak-kit", "fleetctl"];

/// Applications that the crates know nothing of.
const EXAMPLES: [&str; 2] = ["examples/tasks", "examples/leaky-zoo"];

/// The folders of each engine in `tenant-engine/src`, from left to right.
const ENGINE_FOLDERS: [(&str, &[&str]); 2] = [
    ("sqlite", &["limits", "storage", "migrations", "requests", "actions"]),
    ("postgres", &["servers", "migrations", "dumps", "requests", "actions"]),
];

/// A source file of the crates, with the part before its unit tests.
struct Source {
    /// Relative to the root, with `/`.
    path: String,
    code: String,
}

#[test]
fn crates_depend_only_on_crates_to_their_left() {
    for (position, name) in CRATES.iter().enumerate() {
        let manifest = fs::read_to_string(workspace_root().join(name).join("Cargo.toml")).unwrap();
        for right in &CRATES[position + 1..] {
            let named = manifest
                .lines()
                .any(|line| line.starts_with(right) && line[right.len()..].starts_with(['.', ' ', '=']));
            assert!(!named, "{name} must not depend on {right}, which is to its right");
        }
    }
}

/// An application that uses the client does not build the control plane.
#[test]
fn the_wire_types_depend_on_no_other_crate_and_the_client_only_on_them() {
    for (own, allowed) in [("fleet-api", ["fleet-api", "fleet-api"]), ("fleet-client", ["fleet-client", "fleet-api"])] {
        let manifest = fs::read_to_string(workspace_root().join(own).join("Cargo.toml")).unwrap();
        let built = manifest.split("[dev-dependencies]").next().unwrap();
        for name in CRATES.iter().filter(|name| !allowed.contains(name)) {
            assert!(!built.lines().any(|line| line.starts_with(name)), "{own} must not depend on {name}");
        }
    }
}

#[test]
fn each_library_is_used_only_where_it_belongs() {
    let rules: [(&str, &[&str]); 15] = [
        ("rusqlite::", &["tenant-engine/", "tenant-router/src/drivers/"]),
        ("sqlx::", &["catalog/", "tenant-engine/src/postgres/", "tenant-router/src/drivers/"]),
        ("hickory_resolver::", &["control-plane/src/domains/lookup.rs"]),
        ("object_store::", &["control-plane/src/backup/"]),
        ("async_compression::", &["control-plane/src/backup/"]),
        (
            "axum::",
            &[
                "control-plane/src/http/",
                "control-plane/src/serve.rs",
                "tenant-router/src/axum",
                "fleetctl/src/client.rs",
                "examples/tasks/src/",
                "examples/leaky-zoo/src/",
            ],
        ),
        (
            "reqwest::",
            &[
                "control-plane/src/webhooks/client.rs",
                "tenant-router/src/jwt/",
                "fleet-client/src/transport.rs",
                "fleetctl/src/ping.rs",
                "leak-kit/src/application.rs",
            ],
        ),
        ("env::var", &["fleetctl/src/settings.rs", "tenant-router/src/fleet.rs"]),
        ("unicode_width::", &["fleetctl/src/table.rs"]),
        ("indicatif::", &["fleetctl/src/progress"]),
        // A task that nobody counts outlives its process's orderly end.
        (
            "tokio::spawn",
            &[
                "control-plane/src/http/idempotency.rs",
                "control-plane/src/serve.rs",
                "control-plane/src/serve/",
                "control-plane/src/tasks.rs",
                "tenant-router/src/builder.rs",
                "tenant-router/src/jobs/runner.rs",
            ],
        ),
        ("thread::Builder", &["tenant-engine/src/sqlite/"]),
        // Times are arguments: only the clock of a process reads them.
        ("SystemTime::now", &["control-plane/src/clock.rs", "leak-kit/src/probes/", "tenant-router/src/fleet.rs"]),
        (
            "Timestamp::now",
            &[
                "control-plane/src/clock.rs",
                "fleetctl/src/commands/",
                "examples/tasks/src/digests.rs",
                "examples/tasks/src/members.rs",
                "fleet-client/src/sign_up.rs",
            ],
        ),
        ("println!", &["fleetctl/src/output.rs"]),
    ];
    for (needle, allowed) in rules {
        let strays: Vec<_> = sources()
            .into_iter()
            .filter(|s| uses(&s.code, needle) && !allowed.iter().any(|a| s.path.starts_with(a)))
            .map(|s| s.path)
            .collect();
        assert!(strays.is_empty(), "{needle} belongs in {allowed:?}, found in {strays:?}");
    }
}

#[test]
fn control_plane_layers_import_only_downwards() {
    for source in sources().into_iter().filter(|s| s.path.starts_with("control-plane/src/")) {
        let Some(own) = module_of(&source.path) else { continue };
        let layer = layer(own).unwrap_or_else(|| panic!("{own} has no layer: name it here and in ARCHITECTURE.md"));
        let modules = imports(&source.code).into_iter().filter(|name| is_module(name));
        for imported in modules {
            let other = self::layer(&imported).unwrap_or_else(|| panic!("{imported} has no layer"));
            assert!(
                other < layer || imported == own,
                "{} (layer {layer}) imports crate::{imported} (layer {other})",
                source.path
            );
        }
    }
}

#[test]
fn engine_rooms_import_only_from_rooms_to_their_left() {
    for (engine, folders) in ENGINE_FOLDERS {
        let folder = format!("tenant-engine/src/{engine}/");
        let head = fs::read_to_string(workspace_root().join(&folder).join("mod.rs")).unwrap();
        assert!(head.contains(&folders.join("  ◀──  ")), "the head of {folder}mod.rs must tell the order {folders:?}");
        let position = |name: &str| folders.iter().position(|folder| *folder == name);
        for source in sources() {
            // `mod.rs` holds the engine itself, which all folders may name and which joins them.
            let Some(inside) = source.path.strip_prefix(&folder).filter(|inside| *inside != "mod.rs") else { continue };
            // A file beside `mod.rs` is in no folder: all folders use it, and it uses none.
            let own = inside.split_once('/').map(|(name, _)| {
                position(name)
                    .unwrap_or_else(|| panic!("{name} has no place in the order: name it here and in {folder}mod.rs"))
            });
            for path in used_paths(&source) {
                let [in_engine, name, ..] = path.as_slice() else { continue };
                let Some(other) = position(name).filter(|_| in_engine == engine) else { continue };
                assert!(own.is_some_and(|own| other <= own), "{} imports from {name}", source.path);
            }
        }
    }
}

/// A reader meets a type far from its file. So a name means one thing, or at most two that one reader never meets
/// together. The exceptions are the names that traits of libraries give, and the error types that each crate has.
#[test]
fn no_type_name_is_defined_more_than_twice() {
    const GIVEN: [&str; 9] = ["Err", "Error", "ErrorKind", "Future", "Item", "Output", "Rejection", "Result", "Target"];
    let mut defined: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for source in sources() {
        for name in source.code.lines().filter_map(type_name) {
            defined.entry(name).or_default().push(source.path.clone());
        }
    }
    assert!(defined.len() > 500, "only {} types were found", defined.len());
    for (name, places) in defined.iter().filter(|(name, _)| !GIVEN.contains(&name.as_str())) {
        assert!(places.len() <= 2, "{name} is defined in {places:?}: two words tell them apart");
    }
}

#[test]
fn nothing_unfinished_is_left() {
    for source in sources() {
        for word in ["todo!(", "unimplemented!(", "dbg!(", "#[ignore", "FIXME", "XXX"] {
            assert!(!source.code.contains(word), "{} holds {word}", source.path);
        }
    }
}

#[test]
fn files_and_functions_stay_readable() {
    for source in sources() {
        let lines = source.code.lines().count();
        assert!(lines <= 500, "{} has {lines} lines before its tests: split it by noun", source.path);
        if let Some((name, lines)) = longest_function(&source.code)
            && lines > 70
        {
            panic!("{}: fn {name} has {lines} lines", source.path);
        }
    }
}

#[test]
fn the_map_stays_short_and_every_link_of_a_document_leads_somewhere() {
    let root = workspace_root();
    let size = fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap().len();
    assert!(
        size <= 10_240,
        "ARCHITECTURE.md has {size} bytes: a decision belongs in docs/decisions, a detail in a module's head"
    );
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        for link in links(&text) {
            let target = document.parent().unwrap().join(&link);
            assert!(target.exists(), "{} links to {link}, which is not there", document.display());
        }
    }
}

#[test]
fn banned_crates_are_not_built() {
    let tree = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--workspace",
            "--all-features",
            "--edges",
            "normal,build",
            "--prefix",
            "none",
            "--format",
            "{p}",
        ])
        .args(["--offline", "--locked"])
        .current_dir(workspace_root())
        .output()
        .unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let built = String::from_utf8_lossy(&tree.stdout).into_owned();
    for banned in ["ring", "openssl-sys", "native-tls"] {
        assert!(
            !built.lines().any(|line| line.starts_with(&format!("{banned} v"))),
            "{banned} is built; see deny.toml"
        );
    }
}

/// The documents for people: at the root, in `docs/`, and beside each crate and example.
fn documents() -> Vec<PathBuf> {
    let root = workspace_root();
    let folders = ["", "docs", "docs/decisions", "bench"].into_iter().chain(EXAMPLES).chain(CRATES);
    let entries =
        folders.flat_map(|folder| fs::read_dir(root.join(folder)).unwrap().map(|entry| entry.unwrap().path()));
    let found: Vec<_> = entries.filter(|path| path.extension().is_some_and(|e| e == "md")).collect();
    assert!(found.len() > 50, "only {} documents were found", found.len());
    found
}

/// The relative targets of Markdown links, without their anchors.
fn links(text: &str) -> Vec<String> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target);
    let relative = targets.filter(|target| !target.contains("://") && !target.starts_with('#'));
    relative.map(|target| target.split('#').next().unwrap_or_default().to_owned()).collect()
}

/// True when code (not a comment) uses the path `needle`; a longer identifier that ends in it does not count.
fn uses(code: &str, needle: &str) -> bool {
    code.lines().map(str::trim_start).filter(|l| !l.starts_with("//")).any(|line| {
        line.match_indices(needle).any(|(at, _)| {
            !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_')
                // `crate::axum::…` is a module of ours, not the library.
                && !line[..at].ends_with("crate::") && !line[..at].ends_with("super::")
        })
    })
}

/// The layer of a top-level module of the control plane, as ARCHITECTURE.md numbers them.
fn layer(module: &str) -> Option<u8> {
    Some(match module {
        "config" | "clock" | "descriptors" | "disks" | "tasks" | "telemetry" | "metrics" | "error" | "time_text" => 0,
        "plan" | "tls" | "data_dir" | "event_views" => 1,
        "backup" | "auth" | "domains" => 2,
        "operation" | "webhooks" => 3,
        "replacement" => 4,
        "runner" => 5,
        "operations" => 6,
        "background" | "scrub" => 7,
        "app" => 8,
        "health" | "isolation" => 9,
        "http" => 10,
        "serve" => 11,
        "catalog_admin" | "new_identity" => 12,
        "lib" => 13,
        _ => return None,
    })
}

/// Whether a name after `crate::` is a module of the control plane, and not a macro or a re-exported type.
fn is_module(name: &str) -> bool {
    let source = workspace_root().join("control-plane/src");
    source.join(format!("{name}.rs")).is_file() || source.join(name).is_dir()
}

fn module_of(path: &str) -> Option<&str> {
    let rest = path.strip_prefix("control-plane/src/")?;
    Some(rest.split_once('/').map_or_else(|| rest.trim_end_matches(".rs"), |(folder, _)| folder))
}

/// The first segments after `crate::` in code, comments left out.
fn imports(code: &str) -> Vec<String> {
    code.lines()
        .map(str::trim_start)
        .filter(|line| !line.starts_with("//"))
        .flat_map(|line| {
            line.match_indices("crate::").map(|(at, m)| line[at + m.len()..].to_owned()).collect::<Vec<_>>()
        })
        .map(|rest| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect())
        .collect()
}

/// The paths in code that begin with `crate` or `super`, as segments from the root of the crate.
fn used_paths(source: &Source) -> Vec<Vec<String>> {
    let code: Vec<&str> = source.code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let code = code.join("\n");
    let own = module_segments(&source.path);
    let mut found = Vec::new();
    for root in ["crate::", "super::"] {
        for (at, _) in code.match_indices(root) {
            // The second `super` of a path, or the end of a longer name.
            if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':') {
                continue;
            }
            let mut rest = &code[at..];
            let mut base = own.clone();
            while let Some(above) = rest.strip_prefix("super::") {
                (rest, base) = (above, base[..base.len().saturating_sub(1)].to_vec());
            }
            if let Some(below) = rest.strip_prefix("crate::") {
                (rest, base) = (below, Vec::new());
            }
            add_leaves(rest, base, &mut found);
        }
    }
    found
}

/// Adds each path of a tree like `a::{b, c::d}`, which begins a text, behind `base`.
fn add_leaves(tree: &str, mut base: Vec<String>, found: &mut Vec<Vec<String>>) {
    let Some(group) = tree.strip_prefix('{') else {
        let name: String = tree.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let rest = &tree[name.len()..];
        base.push(name);
        return match rest.strip_prefix("::") {
            Some(below) => add_leaves(below, base, found),
            None => found.push(base),
        };
    };
    let (mut depth, mut start) = (0_usize, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                add_leaves(group[start..at].trim_start(), base.clone(), found);
                start = at + 1;
                if c == '}' {
                    return;
                }
            }
            _ => {}
        }
    }
}

/// The path of a file's module, from the root of its crate.
fn module_segments(path: &str) -> Vec<String> {
    let inside = path.split_once("/src/").map_or("", |(_, inside)| inside).trim_end_matches(".rs");
    inside.split('/').filter(|segment| *segment != "mod").map(str::to_owned).collect()
}

fn longest_function(code: &str) -> Option<(String, usize)> {
    let lines: Vec<&str> = code.lines().collect();
    let mut longest = None;
    for (start, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else { continue };
        let indent = &line[..line.len() - line.trim_start().len()];
        let end = format!("{indent}}}");
        // A declaration in a trait has no body to be long.
        let body = lines[start..].iter().position(|l| l.ends_with(['{', ';', '}'])).map(|n| lines[start + n]);
        if body.is_none_or(|line| line.ends_with(';')) {
            continue;
        }
        let length = lines[start..].iter().position(|l| *l == end).map_or(1, |n| n + 1);
        if longest.as_ref().is_none_or(|(_, n)| length > *n) {
            longest = Some((name, length));
        }
    }
    longest
}

/// The name that a line defines, if it defines a type.
fn type_name(line: &str) -> Option<String> {
    let mut words = line.split_whitespace().skip_while(|word| *word == "pub" || word.starts_with("pub("));
    let kind = words.next()?;
    let name = words.next().filter(|_| matches!(kind, "struct" | "enum" | "trait" | "type"))?;
    Some(name.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect())
}

fn function_name(line: &str) -> Option<String> {
    let mut words = line.split_whitespace();
    let fn_at = words.by_ref().take(5).position(|w| w == "fn")?;
    let before: Vec<_> = line.split_whitespace().take(fn_at).collect();
    let only_qualifiers = before.iter().all(|w| matches!(*w, "pub" | "async" | "const") || w.starts_with("pub("));
    only_qualifiers.then(|| words.next().unwrap_or_default().split(['(', '<']).next().unwrap_or_default().to_owned())
}

fn sources() -> Vec<Source> {
    let root = workspace_root();
    CRATES
        .into_iter()
        .chain(EXAMPLES)
        .flat_map(|name| rust_files(&root.join(name).join("src")))
        .filter(|file| !file.ends_with("tests.rs"))
        .map(|file| {
            let text = fs::read_to_string(&file).unwrap();
            let code = text.split("\n#[cfg(test)]\n").next().unwrap().to_owned();
            let path = file.strip_prefix(&root).unwrap().to_string_lossy().replace('\\', "/");
            Source { path, code }
        })
        .collect()
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
    found
}
