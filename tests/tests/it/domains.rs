//! `fleetctl tenant domain` as an operator types it, with a real DNS server on loopback.

use fleet_tests::Fleet;
use serde_json::json;

#[expect(dead_code, reason = "other tests use all of its replies")]
#[path = "../../../control-plane/tests/it/http/dns_server.rs"]
mod dns_server;

use dns_server::{DnsReply, DnsServer};

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_adds_proves_lists_and_removes_a_domain() {
    let dns = DnsServer::start().await;
    let fleet = Fleet::init();
    std::fs::write(fleet.dir().join("fleet.toml"), format!("dns_server = '{}'\n", dns.address)).unwrap();
    fleet.ok(&["tenant", "create", "acme"]);
    let added = fleet.run(&["tenant", "domain", "add", "acme", "Shop.example"]);
    let printed = String::from_utf8(added.stdout).unwrap() + &String::from_utf8(added.stderr).unwrap();
    let listed = fleet.json(&["tenant", "domain", "list", "acme"]);
    let domain = &listed["items"][0];
    let (name, value) = (domain["txt_name"].as_str().unwrap(), domain["txt_value"].as_str().unwrap());
    for part in [name, value, "pending", "fleetctl tenant domain verify acme shop.example"] {
        assert!(printed.contains(part), "{part}: {printed}");
    }

    let verify = ["tenant", "domain", "verify", "acme", "shop.example"];
    dns.set(name, DnsReply::Fail);
    assert_eq!(failure(&fleet, &verify), (15, "dns_unavailable".to_owned()));
    dns.set(name, DnsReply::Txt(Vec::new()));
    assert_eq!(failure(&fleet, &verify), (7, "domain_unproven".to_owned()));
    dns.set_txt(name, value);
    assert_eq!(fleet.json(&verify)["state"], "active");
    let described = fleet.json(&["tenant", "describe", "acme"]);
    assert_eq!(described["items"][0]["hosts"], json!(["shop.example"]));
    assert_eq!(fleet.ok(&["tenant", "get", "shop.example", "-o", "name"]), "acme");

    assert!(fleet.ok(&["tenant", "domain", "list", "acme"]).contains(value));
    assert_eq!(fleet.ok(&["tenant", "domain", "remove", "acme", "shop.example"]), "");
    assert_eq!(failure(&fleet, &["tenant", "domain", "remove", "acme", "shop.example"]).0, 5);
    assert_eq!(fleet.ok(&["tenant", "domain", "list", "acme", "-o", "name"]), "");
}

/// The exit code of a command that fails, and the error's code that it names.
fn failure(fleet: &Fleet, args: &[&str]) -> (i32, String) {
    let output = fleet.run(args);
    let stderr = String::from_utf8(output.stderr).unwrap();
    let code = stderr.split("fleetctl explain ").nth(1).and_then(|rest| rest.split_whitespace().next());
    (output.status.code().unwrap(), code.unwrap_or_default().to_owned())
}
