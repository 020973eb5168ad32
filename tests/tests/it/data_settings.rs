//! `fleetctl serve` with settings of the data API: its path, and issuers of JSON Web Tokens.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use fleet_tests::{Answer, Api, Fleet, Served};
use serde_json::{Value, json};

use crate::shell::Shell;

#[expect(dead_code, reason = "other tests change and count its answers")]
#[path = "../../../tenant-router/tests/it/key_server.rs"]
mod key_server;

use key_server::{KeyServer, made_by_pyjwt};

/// The secret of the tokens that `made_by_pyjwt` signs with a secret.
const LONG_SECRET: &str = "a secret of more than thirty-two bytes";

/// Two tenants, each with a task of its own name. `ada` is a member of the first.
async fn fleet_of_two() -> Fleet {
    let fleet = Fleet::with_tenants(&["acme", "globex"]);
    fleet.ok(&["member", "add", "acme", "ada", "--role", "reader"]);
    let served = Served::start(fleet.dir());
    for tenant in ["acme", "globex"] {
        let api = Api::new(&served.data_url, &fleet.token(tenant, "writer"));
        let insert = json!({"sql": "insert into tasks (title) values (?1)", "params": [tenant]});
        // Without settings, tenants are served as before.
        assert_eq!(api.post(&format!("/t/{tenant}/query"), &insert).await.ok()["rows_affected"], 1);
    }
    fleet
}

fn write_settings(dir: &Path, settings: &str) {
    std::fs::write(dir.join("fleet.toml"), settings).unwrap();
}

/// A table for the tokens of `made_by_pyjwt`.
fn issuer_table(more: &str) -> String {
    format!("[[jwt]]\nissuer = 'https://id.example/'\naudience = 'tasks'\n{more}\n")
}

/// The titles of all tasks at a path.
async fn titles(served: &Served, token: &str, path: &str) -> Answer {
    Api::new(&served.data_url, token).post(path, &json!({"sql": "select title from tasks"})).await
}

fn assert_title(answer: Answer, title: &str) {
    assert_eq!(answer.ok()["rows"], json!([[title]]));
}

fn assert_refused(answer: &Answer, status: u16, code: &str, what: &str) {
    assert_eq!((answer.status, answer.json()["code"].as_str()), (status, Some(code)), "{what}: {}", answer.body);
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("{name} is missing"))
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_an_issuer_open_the_tenants_of_their_members() {
    let (fleet, made) = (fleet_of_two().await, made_by_pyjwt());
    let keys = KeyServer::start(&made["sets"]["first"]);
    let source = format!("algorithms = 'rsa'\njwks_url = '{}'\ntenant_claim = 'org'", keys.url);
    write_settings(fleet.dir(), &format!("data_path = '/orgs/{{tenant}}'\n{}", issuer_table(&source)));
    let served = Served::start(fleet.dir());
    let good = text(&made["good"], "rsa");
    assert_title(titles(&served, good, "/orgs/acme/query").await, "acme");
    assert_refused(&titles(&served, good, "/orgs/globex/query").await, 404, "not_found", "no member there");
    for (name, token) in made["bad"].as_object().unwrap() {
        let answer = titles(&served, token.as_str().unwrap(), "/orgs/acme/query").await;
        assert_refused(&answer, 401, "unauthenticated", name);
    }
    assert_title(titles(&served, &fleet.token("globex", "reader"), "/orgs/globex/query").await, "globex");

    let (of_acme, of_globex) = (text(&made["claims"], "acme"), text(&made["claims"], "globex"));
    assert_title(titles(&served, of_acme, "/query").await, "acme");
    assert_title(titles(&served, of_acme, "/orgs/acme/query").await, "acme");
    assert_refused(&titles(&served, of_globex, "/query").await, 404, "not_found", "a claim grants nothing");
    for (token, tenant) in [(of_globex, "acme"), (of_acme, "globex")] {
        let answer = titles(&served, token, &format!("/orgs/{tenant}/query")).await;
        assert_refused(&answer, 400, "tenant_ambiguous", "a claim that disagrees");
    }
    let insert = json!({"sql": "insert into tasks (title) values ('x')"});
    let refused = Api::new(&served.data_url, good).post("/orgs/acme/query", &insert).await;
    assert_refused(&refused, 403, "read_only", "the membership decides");
    let admin = Api::new(&served.admin_url, good).get("/v1/status").await;
    assert_refused(&admin, 401, "unauthenticated", "the admin API takes its own tokens only");
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_are_served_below_the_set_path_only() {
    let fleet = fleet_of_two().await;
    let token = fleet.token("acme", "reader");
    write_settings(fleet.dir(), "data_path = '/file/{tenant}'\n");
    let served = Served::start_with(fleet.dir(), &["--data-path", "/api/v1/orgs/{tenant}"]);
    assert_title(titles(&served, &token, "/api/v1/orgs/acme/query").await, "acme");
    let batch = json!({"statements": [{"sql": "select title from tasks"}]});
    let batch = Api::new(&served.data_url, &token).post("/api/v1/orgs/acme/batch", &batch).await.ok();
    assert_eq!(batch["results"][0]["rows"], json!([["acme"]]));
    for path in ["/t/acme/query", "/file/acme/query", "/api/v1/orgs/acme", "/api/v1/orgs/query"] {
        assert_refused(&titles(&served, &token, path).await, 404, "not_found", path);
    }
    assert_title(titles(&served, &token, "/query").await, "acme");
    let service = fleet.ok(&["token", "create", "--service", "--role", "reader", "-o", "name"]);
    let unnamed = titles(&served, &service, "/query").await;
    assert_refused(&unnamed, 400, "tenant_unnamed", "nothing names the tenant");
    assert!(unnamed.body.contains("/api/v1/orgs/{tenant}/query"), "{}", unnamed.body);
    assert_eq!(Api::anonymous(&served.data_url).get("/readyz").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_may_be_in_files() {
    let (fleet, made) = (fleet_of_two().await, made_by_pyjwt());
    std::fs::write(fleet.dir().join("secret"), format!("{}\n", text(&made, "secret"))).unwrap();
    std::fs::set_permissions(fleet.dir().join("secret"), Permissions::from_mode(0o600)).unwrap();
    std::fs::write(fleet.dir().join("key.pem"), text(&made["public"], "ed25519")).unwrap();
    for (source, accepted, refused) in [
        ("algorithms = 'hmac'\nsecret_file = 'secret'", "secret", "ed25519"),
        ("algorithms = 'ed25519'\npublic_key_file = 'key.pem'", "ed25519", "secret"),
    ] {
        write_settings(fleet.dir(), &issuer_table(source));
        let served = Served::start(fleet.dir());
        assert_title(titles(&served, text(&made["good"], accepted), "/t/acme/query").await, "acme");
        let answer = titles(&served, text(&made["good"], refused), "/t/acme/query").await;
        assert_refused(&answer, 401, "unauthenticated", refused);
    }
}

/// Settings of one good table, with one line replaced or added.
fn with_line(line: &str) -> String {
    let key = line.split(' ').next().unwrap();
    let good = ["issuer = 'a'", "audience = 'b'", "algorithms = 'rsa'", "jwks_url = 'https://id.example/keys'"];
    let kept = good.iter().filter(|kept| kept.split(' ').next() != Some(key));
    kept.copied().chain([line]).fold("[[jwt]]\n".to_owned(), |text, line| text + line + "\n")
}

fn without_key(key: &str) -> String {
    with_line(&format!("{key} = 'x'")).lines().filter(|line| !line.starts_with(key)).map(|l| format!("{l}\n")).collect()
}

#[test]
fn every_wrong_table_is_refused_by_file_number_and_key() {
    let shell = Shell::new();
    for (file, text, mode) in [("short", "short", 0o600), ("open", LONG_SECRET, 0o640), ("no.pem", "no key", 0o644)] {
        std::fs::set_permissions(shell.write(file, text), Permissions::from_mode(mode)).unwrap();
    }
    std::fs::set_permissions(shell.write("secret", LONG_SECRET), Permissions::from_mode(0o600)).unwrap();
    let hmac =
        |file: &str| format!("[[jwt]]\nissuer = 'a'\naudience = 'b'\nalgorithms = 'hmac'\nsecret_file = '{file}'\n");
    let two = |more: &str| format!("{}{}", hmac("secret"), hmac("secret").replace("issuer = 'a'", more));
    let pem = |file: &str| with_line(&format!("public_key_file = '{file}'")).replace("jwks_url", "#");
    for (settings, told) in [
        (with_line("colour = 'red'"), "table 1: colour: this key does not exist"),
        (with_line(&format!("secret = '{LONG_SECRET}'")), "table 1: secret: a secret is not allowed in this file"),
        (with_line("issuer = 7"), "table 1: issuer: it must be a text"),
        (with_line("issuer = ''"), "table 1: issuer: it is empty"),
        (without_key("issuer"), "table 1: issuer: it is missing"),
        (without_key("audience"), "table 1: audience: it is missing"),
        (without_key("algorithms"), "table 1: algorithms: it is missing"),
        (without_key("jwks_url"), "table 1: jwks_url: it is missing; set one of"),
        (with_line("secret_file = 'secret'"), "table 1: secret_file: only one of jwks_url and secret_file"),
        (with_line("algorithms = 'RS256'"), "table 1: algorithms: expected rsa, ecdsa, ed25519 or hmac"),
        (with_line("algorithms = 'hmac'"), "table 1: algorithms: hmac needs secret_file"),
        (hmac("secret").replace("hmac", "rsa"), "table 1: algorithms: it must be hmac"),
        (with_line("jwks_url = 'http://id.example/keys'"), "table 1: jwks_url: "),
        (with_line("jwks_url = 'id.example'"), "table 1: jwks_url: "),
        (with_line("jwks_url = 'https://user:hunter2@id.example/'"), "table 1: jwks_url: "),
        (hmac("missing"), "table 1: secret_file: "),
        (hmac("short"), "table 1: secret_file: "),
        (hmac("open"), "chmod 600"),
        (pem("missing"), "table 1: public_key_file: "),
        (pem("no.pem"), "table 1: public_key_file: "),
        (two("issuer = 'a'"), "table 2: issuer: it is the issuer of table 1"),
        (two("issuer = 'c'"), "table 2: principal_prefix: "),
        ("[jwt]\nissuer = 'a'\n".to_owned(), "written as [[jwt]]"),
        ("jwt = 'a'\n".to_owned(), "written as [[jwt]]"),
    ] {
        shell.write("fleet.toml", &settings);
        // Without a fleet, accepted settings fail with another exit code.
        let said = shell.refused("serve", 2);
        assert!(said.contains(told) && said.contains("/fleet.toml"), "{settings}\n{said}");
        assert!(said.contains("fleetctl explain jwt_invalid"), "{said}");
        assert!(!said.contains(LONG_SECRET) && !said.contains("hunter2"), "{said}");
    }
    for (settings, told) in [
        (with_line("jwks_url = 'http://id.example/keys'"), "https://"),
        (hmac("short"), "less than 32 bytes"),
        (pem("no.pem"), "public key"),
    ] {
        shell.write("fleet.toml", &settings);
        assert!(shell.refused("serve", 2).contains(told), "{settings}");
    }
    for settings in [
        hmac("secret"),
        two("issuer = 'c'\nprincipal_prefix = 'c:'").replacen(
            "issuer = 'a'",
            "issuer = 'a'\nprincipal_prefix = 'a:'",
            1,
        ),
    ] {
        shell.write("fleet.toml", &settings);
        shell.refused("serve", 5);
    }
}

#[test]
fn a_wrong_path_is_refused_by_its_source() {
    let mut shell = Shell::new();
    shell.write("fleet.toml", "data_path = '/v1/{tenant}'\n");
    let said = shell.refused("serve", 2);
    assert!(said.contains("/fleet.toml") && said.contains("/v1 itself"), "{said}");
    assert!(said.contains("use a path such as /orgs/{tenant}") && said.contains("explain data_path_invalid"), "{said}");
    assert!(shell.refused("serve --data-path /orgs", 2).contains("set by: flag"));
    shell.set("FLEET_DATA_PATH", "orgs/{tenant}");
    assert!(shell.refused("serve", 2).contains("FLEET_DATA_PATH"));
}

#[test]
fn settings_are_shown_without_secrets_and_read_by_servers_only() {
    let shell = Shell::init();
    shell.write(".config/fleetctl/config.toml", with_line("issuer = 'of-the-user'"));
    shell.write("secret", LONG_SECRET);
    shell.write(
        "fleet.toml",
        with_line("jwks_url = 'https://user:hunter2@id.example/'") + &with_line("secret_file = 'secret'"),
    );
    let shown = shell.ok("config show --origin");
    let line = |key: &str| shown.lines().find(|line| line.starts_with(key)).unwrap().to_owned();
    assert!(line("jwt[1].issuer ").ends_with("/fleet.toml") && !shown.contains("of-the-user"), "{shown}");
    assert!(line("jwt[1].jwks_url ").contains("https://***@id.example/"), "{shown}");
    assert!(line("jwt[2].secret_file ").contains("secret"), "{shown}");
    assert!(line("data_path ").contains("/t/{tenant}") && !shown.contains("hunter2") && !shown.contains(LONG_SECRET));
    // A cron job needs no right to read the secrets of issuers.
    shell.ok("tenant list");
}
