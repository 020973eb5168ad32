//! A server with TLS: the commands beside it, a certificate that is renewed, and SIGHUP.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use fleet_tests::{Served, workspace_root};
use reqwest::{Certificate, Client};
use serde_json::{Value, json};

use crate::shell::Shell;

/// The files of a certificate as Kubernetes mounts them: `live` is a link to the folder that is current.
struct Pair(PathBuf);

impl Pair {
    fn new(shell: &Shell, name: &str) -> Self {
        let pair = Self(shell.path().join("tls"));
        std::fs::create_dir(&pair.0).unwrap();
        pair.fill("first", name, name);
        std::os::unix::fs::symlink("first", pair.0.join("live")).unwrap();
        pair
    }

    fn flags(&self) -> [String; 4] {
        let path = |name: &str| self.0.join("live").join(name).display().to_string();
        ["--tls-certificate".to_owned(), path("c.pem"), "--tls-key".to_owned(), path("k.pem")]
    }

    fn start(&self, shell: &Shell) -> Served {
        let flags = self.flags();
        Served::start_with(shell.path(), &flags.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn fill(&self, folder: &str, certificate: &str, key: &str) {
        std::fs::create_dir_all(self.0.join(folder)).unwrap();
        std::fs::copy(fixture(&format!("{certificate}.crt")), self.0.join(folder).join("c.pem")).unwrap();
        std::fs::copy(fixture(&format!("{key}.key")), self.0.join(folder).join("k.pem")).unwrap();
    }

    /// Another folder is current from now on, in one step.
    fn swap(&self, folder: &str, certificate: &str, key: &str) {
        self.fill(folder, certificate, key);
        std::os::unix::fs::symlink(folder, self.0.join("next")).unwrap();
        std::fs::rename(self.0.join("next"), self.0.join("live")).unwrap();
    }

    /// New files take the place of those in the current folder, one after the other.
    fn rename(&self, certificate: &str, key: &str) {
        self.fill("made", certificate, key);
        for file in ["c.pem", "k.pem"] {
            std::fs::rename(self.0.join("made").join(file), self.0.join("live").join(file)).unwrap();
        }
    }
}

fn fixture(name: &str) -> PathBuf {
    workspace_root().join("control-plane/tests/fixtures").join(name)
}

/// A client that trusts one certificate alone.
fn trusting(name: &str) -> Client {
    let pem = std::fs::read(fixture(&format!("{name}.crt"))).unwrap();
    let only = [Certificate::from_pem(&pem).unwrap()];
    Client::builder().no_proxy().tls_certs_only(only).build().unwrap()
}

async fn answers(client: &Client, served: &Served) -> bool {
    client.get(format!("{}/livez", served.data_url)).send().await.is_ok_and(|answer| answer.status() == 200)
}

/// Waits until new connections meet this certificate, on both listeners.
async fn until_used(name: &str, served: &Served) {
    let until = Instant::now() + Duration::from_secs(60);
    while !answers(&trusting(name), served).await {
        assert!(Instant::now() < until, "{name} is not used");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let admin = trusting(name).get(format!("{}/livez", served.admin_url)).send().await.unwrap();
    assert_eq!(admin.status(), 200);
}

/// A line of `/readyz`, asked through the socket, where no certificate matters.
async fn ready(dir: &Path, check: &str) -> (bool, String) {
    let client = Client::builder().no_proxy().unix_socket(dir.join("fleet-data/socket/admin.sock")).build().unwrap();
    let answer: Value = client.get("http://localhost/readyz").send().await.unwrap().json().await.unwrap();
    let line = answer["checks"].as_array().unwrap().iter().find(|line| line["name"] == check).cloned();
    let detail = line.map_or_else(String::new, |line| line["detail"].as_str().unwrap().to_owned());
    (answer["ready"].as_bool().unwrap(), detail)
}

fn doctor(shell: &Shell) -> (Option<i32>, String) {
    let ran = shell.run("doctor -o jsonl");
    let line = ran.stdout.lines().find(|line| line.contains("\"name\":\"certificate\""));
    (ran.code, line.unwrap_or_else(|| panic!("{ran:?}")).to_owned())
}

#[test]
fn commands_beside_a_server_with_tls_go_on() {
    let shell = Shell::init();
    let pair = Pair::new(&shell, "localhost");
    let mut served = pair.start(&shell);
    assert!(served.admin_url.starts_with("https://"));
    shell.ok("tenant create acme");
    shell.ok("backup run --all");
    assert_eq!(shell.json("backup list acme")["items"].as_array().map(Vec::len), Some(1));
    assert!(doctor(&shell).1.contains("valid until 2126-10-30"));

    // A power cut leaves the socket's file; commands work with and without a server, and so does the next server.
    served.kill();
    let socket = shell.path().join("fleet-data/socket/admin.sock");
    assert!(socket.exists());
    shell.ok("backup run --all");
    served = pair.start(&shell);
    shell.ok("backup run --all");
    assert_eq!(shell.json("backup list acme")["items"].as_array().map(Vec::len), Some(3));
    assert_eq!(served.terminate(), Some(0));
    assert!(!socket.exists());
    shell.ok("tenant list");
}

#[test]
fn the_socket_demands_a_token_of_an_operator() {
    let shell = Shell::init();
    let _served = Served::start(shell.path());
    shell.write("fleet-data/operator.token", "flt_not_a_token");
    let said = shell.refused("tenant list", 12);
    assert!(said.contains("needs the token of an operator"), "{said}");
    std::fs::remove_file(shell.path().join("fleet-data/operator.token")).unwrap();
    assert!(shell.refused("tenant list", 12).contains("operator token cannot be read"));
}

/// A server of an earlier version says no word of a socket, and a socket may be gone.
#[test]
fn without_a_socket_the_address_is_used() {
    let shell = Shell::init();
    let _served = Served::start(shell.path());
    std::fs::remove_file(shell.path().join("fleet-data/socket/admin.sock")).unwrap();
    shell.ok("tenant list");
    let file = shell.path().join("fleet-data/endpoint.json");
    let mut endpoint: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!(endpoint["admin_socket"], json!("socket/admin.sock"));
    endpoint.as_object_mut().unwrap().remove("admin_socket");
    std::fs::write(&file, endpoint.to_string()).unwrap();
    shell.ok("tenant list");
}

#[tokio::test]
async fn a_renewed_certificate_is_used_and_open_connections_go_on() {
    let shell = Shell::init();
    let pair = Pair::new(&shell, "localhost");
    let mut served = pair.start(&shell);
    // It would not trust the next certificate: while it is answered, its connection is the one from before.
    let old = trusting("localhost");
    assert!(answers(&old, &served).await);
    pair.swap("second", "renewed", "renewed");
    until_used("renewed", &served).await;
    assert!(answers(&old, &served).await, "an open connection goes on");
    assert!(!answers(&trusting("localhost"), &served).await);
    pair.rename("localhost", "localhost");
    until_used("localhost", &served).await;

    // A broken pair is reported, and the one from before is used.
    pair.rename("renewed", "localhost");
    served.hang_up();
    let until = Instant::now() + Duration::from_secs(60);
    while ready(shell.path(), "certificate").await != (true, BROKEN.to_owned()) {
        assert!(Instant::now() < until, "{:?}", ready(shell.path(), "certificate").await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(answers(&trusting("localhost"), &served).await);
    let (code, line) = doctor(&shell);
    assert!(code == Some(0) && line.contains("\"warn\"") && line.contains("'c.pem'"), "{code:?} {line}");
    pair.fill("live", "renewed", "renewed");
    served.hang_up();
    until_used("renewed", &served).await;
    assert_eq!(ready(shell.path(), "certificate").await, (true, String::new()));
    assert_eq!(served.terminate(), Some(0));
}

const BROKEN: &str = "the new certificate cannot be used; the previous one stays in use";

#[tokio::test]
async fn an_expired_certificate_is_told() {
    let shell = Shell::init();
    let pair = Pair::new(&shell, "expired");
    let _served = pair.start(&shell);
    assert_eq!(ready(shell.path(), "certificate").await, (true, "the certificate has expired".to_owned()));
    let (code, line) = doctor(&shell);
    assert!(code == Some(4) && line.contains("\"fail\"") && line.contains("2025-04-01"), "{code:?} {line}");
}

#[tokio::test]
async fn a_hangup_ends_no_server() {
    let shell = Shell::init();
    let mut served = Served::start(shell.path());
    for _ in 0..3 {
        served.hang_up();
        assert!(answers(&Client::new(), &served).await);
    }
    assert_eq!(served.terminate(), Some(0));
    // From its first moment: nothing is open yet.
    let mut dev = shell.command();
    dev.args(["dev", "--data-dir", "play", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
    let mut dev = dev.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(dev.stdout.take().unwrap()));
    assert!(lines.next().unwrap().unwrap().contains("A fleet in"));
    for name in ["HUP", "HUP", "TERM"] {
        let sent = std::process::Command::new("kill").args([format!("-{name}"), dev.id().to_string()]).status();
        assert!(sent.unwrap().success());
    }
    assert_eq!(dev.wait().unwrap().code(), Some(0));
}

/// An address of a Unix socket holds about a hundred bytes; a path may be longer.
#[test]
fn a_data_directory_may_be_deep() {
    let shell = Shell::new();
    let deep = format!("{}/{}/fleet", "d".repeat(100), "e".repeat(100));
    shell.ok(&format!("init --data-dir {deep}"));
    let mut serve = shell.command();
    serve.args(["serve", "--data-dir", &deep, "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
    serve.args(Pair::new(&shell, "localhost").flags()).args(["-o", "json"]);
    let mut serve = serve.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(serve.stdout.take().unwrap()));
    assert!(lines.next().unwrap().is_ok());
    let ran = shell.run(&format!("tenant create acme --data-dir {deep}"));
    serve.kill().unwrap();
    serve.wait().unwrap();
    assert_eq!(ran.code, Some(0), "{ran:?}");
}
