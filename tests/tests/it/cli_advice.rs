//! What a mistake is answered with: the cause, and the command that was meant.

use std::io::{Read, Write};
use std::net::TcpListener;

use fleet_tests::Served;

use crate::shell::Shell;

/// Each line is refused with this exit code, and what is said holds all of these words.
fn advised(shell: &Shell, cases: &[(&str, i32, &[&str])]) {
    for (line, code, words) in cases {
        let ran = shell.run(line);
        assert_eq!(ran.code, Some(*code), "{line}: {ran:?}");
        for word in *words {
            assert!(ran.stderr.contains(word), "{line}: {word:?} is not in {}", ran.stderr);
        }
    }
}

#[test]
fn a_command_that_was_nearly_right_is_answered_with_the_right_one() {
    let shell = Shell::init();
    shell.ok("tenant create acme globex");
    std::fs::create_dir(shell.path().join("disk2")).unwrap();
    shell.ok(&format!("server add disk2 --base {}/disk2", shell.path().display()));
    shell.ok("backup run acme");
    let op = shell.ok("op list --kind backup -o name").trim().to_owned();
    let backup = shell.ok("backup list -o name").trim().to_owned();
    advised(
        &shell,
        &[
            ("query acme select \\* from t", 2, &["not quoted", "fleetctl query 'select \\* from t' acme"]),
            ("query select 1 acme", 2, &["not quoted", "try:"]),
            (
                "query SELECT count(x) from t --all",
                2,
                &["not quoted", "fleetctl query 'SELECT count(x) from t' TENANT"],
            ),
            ("query acme 'select 1'", 2, &["SQL comes first", "fleetctl query 'select 1' acme"]),
            ("tenant move acme disk2", 2, &["disk2 is a server", "fleetctl tenant move acme --to disk2"]),
            ("tenant move acme globex disk2", 2, &["fleetctl tenant move acme globex --to disk2"]),
            ("tenant move acme nowhere", 5, &["no tenant named nowhere"]),
            ("tenant lst", 2, &["list"]),
            ("tenat list", 2, &["tenant"]),
            ("list", 2, &["fleetctl tenant list", "fleetctl op list"]),
        ],
    );
    for (line, said, shown) in [
        (format!("tenant get {op}"), "is the id of an operation", "fleetctl op get"),
        (format!("tenant describe {backup}"), "is the id of a backup", "fleetctl backup get"),
        (format!("backup run {op}"), "is the id of an operation", "fleetctl op get"),
        (format!("query 'select 1' {op}"), "is the id of an operation", "fleetctl op get"),
        (format!("op get {backup}"), "is the id of a backup", "fleetctl op list"),
        (format!("backup get {op}"), "is the id of an operation", "fleetctl backup list"),
        (format!("server get {op}"), "is the id of an operation", "fleetctl op get"),
        ("op get acme".to_owned(), "'acme' is not the id of any operation", "fleetctl op list"),
        ("op get op_12".to_owned(), "expected op_ and 32 hex digits", "fleetctl op list"),
        ("tenant get tnt_12".to_owned(), "expected tnt_ and 32 hex digits", "fleetctl tenant list"),
    ] {
        let ran = shell.run(&line);
        assert!(matches!(ran.code, Some(2 | 5)), "{line}: {ran:?}");
        assert!(ran.stderr.contains(said) && ran.stderr.contains(shown), "{line}: {}", ran.stderr);
    }
    let secret = shell.ok("token create --operator viewer -o name").trim().to_owned();
    for line in [format!("token revoke {secret}"), format!("tenant get {secret}"), format!("op get {secret}")] {
        let ran = shell.run(&line);
        assert!(!ran.stderr.contains(&secret[8..20]), "{line}: {}", ran.stderr);
    }
}

#[test]
fn plural_nouns_are_understood() {
    let shell = Shell::init();
    shell.ok("tenant create acme");
    for line in
        ["tenants list", "servers list", "backups list", "operations list", "tokens list", "releases list", "event"]
    {
        shell.ok(line);
    }
}

#[test]
fn an_address_that_is_no_admin_api_is_told_from_one_that_is() {
    let mut shell = Shell::init();
    shell.ok("tenant create acme");
    let served = Served::start(shell.path());
    shell.write("token", served.operator_token());
    shell.set("FLEET_TOKEN_FILE", "token");
    shell.ok(&format!("tenant list --url {}", served.admin_url));
    shell.ok(&format!("tenant list --url {}/", served.admin_url));
    for path in ["/v1", "/v1/", "/v1/tenants"] {
        let said = shell.refused(&format!("tenant list --url {}{path}", served.admin_url), 2);
        assert!(said.contains("no /v1") && said.contains(&format!("--url {}", served.admin_url)), "{said}");
    }
    let said = shell.refused(&format!("tenant list --url {}", served.data_url), 5);
    assert!(said.contains("serves tenants' data") && said.contains("admin address"), "{said}");
    for (status, kind, body) in [
        ("404 Not Found", "text/html; charset=utf-8", "<h1>nginx</h1>"),
        ("200 OK", "text/html", "<h1>hello</h1>"),
        ("404 Not Found", "application/json", "{\"detail\":\"Not Found\"}"),
        ("302 Found", "text/plain", "elsewhere"),
        ("500 Internal Server Error", "text/plain", "oops"),
    ] {
        let stranger = stranger(status, kind, body);
        let said = shell.refused(&format!("tenant list --url {stranger}"), 15);
        assert!(said.contains("not a control plane") && said.contains("try:"), "{status} {kind}: {said}");
    }
    let said = shell.refused(&format!("tenant list --url {}", served.admin_url.replace("http:", "https:")), 15);
    assert!(said.contains("use http://"), "{said}");
}

#[test]
fn a_token_that_is_not_enough_says_what_is_needed_and_how_to_get_it() {
    let mut shell = Shell::init();
    shell.ok("tenant create acme");
    let viewer = shell.ok("token create --operator viewer -o name");
    let expired = shell.ok("token create --operator admin --expires-in 1s -o name");
    let revoked = shell.ok("token create --operator admin -o name");
    let id = shell.json("token list")["items"].as_array().unwrap().last().unwrap()["id"].as_str().unwrap().to_owned();
    shell.ok(&format!("token revoke {id}"));
    let served = Served::start(shell.path());
    shell.set("FLEET_URL", served.admin_url.clone());
    for (token, line, words) in [
        (
            &viewer,
            "backup run acme",
            &["POST /v1/backups needs the role operator", "role viewer", "--operator operator"][..],
        ),
        (&viewer, "tenant delete acme --yes", &["needs the role admin", "--operator admin"]),
        (&expired, "tenant list", &["token expired", "token create --operator"]),
        (&revoked, "tenant list", &["token was revoked", "token create --operator"]),
        (&id, "tenant list", &["id of a token, not its secret"]),
    ] {
        shell.write("token", token);
        let asked = || shell.run(&format!("{line} --token-file token"));
        // A second may not have passed yet.
        let ran = std::iter::repeat_with(asked).find(|ran| ran.code != Some(0)).unwrap();
        assert!(matches!(ran.code, Some(2 | 12)), "{line}: {ran:?}");
        words.iter().for_each(|word| assert!(ran.stderr.contains(word), "{line}: {word}: {}", ran.stderr));
    }
}

/// A web server that always answers so.
fn stranger(status: &str, kind: &str, body: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let answer = format!(
        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let Ok(mut connection) = connection else { return };
            // The request fits one read; what comes of it does not matter to the answer.
            let _ = connection.read(&mut [0; 4096]);
            let _ = connection.write_all(answer.as_bytes());
        }
    });
    format!("http://{address}")
}
