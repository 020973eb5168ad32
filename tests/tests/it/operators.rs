//! What an operator asks: everything about a tenant, who changed what, and the same shape of answers for every number of names.

use fleet_tests::Served;
use serde_json::{Value, json};

use crate::shell::Shell;

/// A fleet in which something happened to each tenant.
fn fleet() -> Shell {
    let shell = Shell::init();
    shell.ok("tenant create acme globex initech -l plan=pro");
    shell.ok("tenant rename initech hooli");
    shell.ok("tenant protect acme");
    shell.ok("member add acme user-1 --role reader");
    shell.ok("backup run acme");
    shell.ok("backup verify acme");
    shell.ok("tenant read-only acme --reason 'the import runs'");
    shell.ok("tenant suspend globex --reason 'invoice 7'");
    shell
}

#[test]
fn a_description_tells_everything_about_each_tenant() {
    let mut shell = fleet();
    described(&shell);
    let served = Served::start(shell.path());
    shell.write("token", served.operator_token());
    shell.set("FLEET_URL", served.admin_url.clone());
    shell.set("FLEET_TOKEN_FILE", "token");
    described(&shell);
}

fn described(shell: &Shell) {
    let all = shell.json("tenant describe acme globex hooli");
    let [acme, globex, hooli] = [&all["items"][0], &all["items"][1], &all["items"][2]];
    assert_eq!((&acme["status"], &acme["state"]), (&json!("read-only"), &json!("active")), "{acme:#}");
    assert_eq!((&acme["state_reason"], &acme["protected"]), (&json!("the import runs"), &json!(true)));
    assert_eq!(acme["status_since"]["kind"], "tenant.read_only");
    assert!(acme["status_since"]["actor"].as_str().unwrap().contains('@'), "{acme:#}");
    assert!(acme["status_since"]["at"].as_str().unwrap().ends_with('Z'));
    assert_eq!((&acme["members"], &acme["labels"]), (&json!(1), &json!({"plan": "pro"})));
    assert!(acme["last_backup"]["size_bytes"].as_i64().unwrap() > 0);
    assert!(acme["last_backup"]["verified_at"].is_string());
    assert_eq!((&acme["last_success"]["kind"], &acme["last_failure"]), (&json!("read_only"), &Value::Null));
    assert_eq!(acme["open_operations"], json!([]));
    let file = acme["database"].as_str().unwrap();
    assert!(std::path::Path::new(file).is_file(), "{file}");
    assert_eq!((&globex["status"], &globex["state_reason"]), (&json!("suspended"), &json!("invoice 7")));
    assert_eq!((&hooli["status"], &hooli["aliases"]), (&json!("active"), &json!(["initech"])));
    let page = shell.ok("tenant describe acme globex");
    for told in ["read-only", "the import runs", "invoice 7", "LAST BACKUP", "fleet-data", "MEMBERS"] {
        assert!(page.contains(told), "{told}: {page}");
    }
    let one = shell.run("tenant describe acme nobody -o json");
    assert_eq!(one.code, Some(3), "{one:?}");
    assert_eq!(serde_json::from_str::<Value>(&one.stdout).unwrap()["items"].as_array().unwrap().len(), 1);
    shell.refused("tenant describe nobody", 5);
}

#[test]
fn a_read_only_tenant_is_listed_as_such() {
    let shell = fleet();
    let state_of = |list: &str| list.lines().find(|line| line.starts_with("acme")).unwrap().to_owned();
    for line in ["tenant list", "tenant get acme"] {
        let text = shell.ok(line);
        assert!(text.contains("read-only"), "{line}: {text}");
    }
    assert!(!state_of(&shell.ok("tenant list")).contains("active"));
    assert_eq!(shell.ok("tenant list --state read-only -o name"), "acme\n");
    assert_eq!(shell.ok("tenant list --state read-only,suspended -o name"), "acme\nglobex\n");
    assert_eq!(shell.ok("tenant list --state active -o name"), "acme\nhooli\n", "it is active as well");
    shell.ok("tenant read-only acme --off");
    assert!(state_of(&shell.ok("tenant list")).contains("active"));
}

#[test]
fn the_last_failure_is_told_with_its_code_and_operation() {
    let shell = Shell::init();
    shell.ok("tenant create acme");
    shell.write("m/0001_a.sql", "create table a (b integer check (b > 0));\ninsert into a values (-1);\n");
    let ran = shell.run("migrate run m acme");
    assert_ne!(ran.code, Some(0), "{ran:?}");
    let acme = shell.json("tenant describe acme")["items"][0].take();
    let failure = &acme["last_failure"];
    assert_eq!((&failure["kind"], &failure["state"]), (&json!("migrate"), &json!("failed")), "{acme:#}");
    assert!(failure["id"].as_str().unwrap().starts_with("op_"), "{failure}");
    assert!(failure["error"]["detail"].as_str().unwrap().to_lowercase().contains("check"), "{failure}");
    assert_eq!(acme["last_success"]["kind"], "create");
}

#[test]
fn the_audit_log_is_read_with_names_filters_and_pages() {
    let shell = fleet();
    let kinds = |line: &str| {
        let events = shell.json(line);
        let kinds = events["items"].as_array().unwrap().iter().map(|e| e["kind"].as_str().unwrap().to_owned());
        kinds.collect::<Vec<_>>()
    };
    assert_eq!(kinds("events --tenant globex --limit 1"), ["tenant.suspended"]);
    assert_eq!(kinds("events --tenant acme --kind tenant.read_only --since 1h"), ["tenant.read_only"]);
    assert_eq!(kinds("events --tenant acme --until 2h"), [""; 0]);
    let all = shell.json("events --limit 1000");
    let items = all["items"].as_array().unwrap();
    assert!(items.windows(2).all(|pair| pair[0]["seq"].as_i64() > pair[1]["seq"].as_i64()), "newest first");
    assert!(items.iter().any(|event| event["tenant"] == "hooli" && event["kind"] == "tenant.renamed"));
    let actor = items[0]["actor"].as_str().unwrap();
    assert_eq!(shell.json(&format!("events --actor {actor} --limit 1000"))["items"], all["items"]);
    let op = items.iter().find_map(|event| event["operation_id"].as_str()).unwrap();
    let of_op = shell.json(&format!("events --operation {op}"));
    assert!(of_op["items"].as_array().unwrap().iter().all(|event| event["operation_id"] == op));
    for bad in
        ["--kind tenant.suspend", "--kind ''", "--actor nobody", "--tenant nobody", "--operation op_1", "--since x"]
    {
        let ran = shell.run(&format!("events {bad}"));
        assert!(matches!(ran.code, Some(2 | 5)) && ran.stderr.contains("try:"), "{bad}: {ran:?}");
    }
    shell.ok("tenant delete hooli --no-backup --yes");
    shell.ok("tenant purge hooli --yes");
    let purged = shell.json("events --kind tenant.purged");
    assert_eq!(purged["items"][0]["tenant"], "hooli");
    assert_eq!(shell.json("events --tenant hooli --limit 1")["items"][0]["kind"], "tenant.purged");
    assert!(shell.ok("events --tenant hooli --limit 1").contains("hooli"));
}

#[tokio::test]
async fn pages_of_events_are_stable_and_tokens_have_names() {
    let shell = fleet();
    let served = Served::start(shell.path());
    let api = served.admin();
    let token = api.post("/v1/tokens", &json!({"operator": "admin", "label": "ci robot"})).await.ok();
    let robot = fleet_tests::Api::new(&served.admin_url, token["secret"].as_str().unwrap());
    let _ = robot.post("/v1/tenants/acme/members", &json!({"principal": "user-2", "role": "reader"})).await.ok();
    let by_robot = api.get("/v1/events?order=newest&actor=ci%20robot").await.ok();
    assert_eq!(by_robot["items"][0]["actor_name"], "ci robot", "{by_robot}");
    assert_eq!(by_robot["items"].as_array().unwrap().len(), 1);
    let whole = api.get("/v1/events?order=newest&limit=1000").await.ok()["items"].clone();
    let (mut pieces, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = api.get(&format!("/v1/events?order=newest&limit=3{cursor}")).await.ok();
        pieces.extend(page["items"].as_array().unwrap().clone());
        // What is written between two pages is newer than all of them.
        let _ = robot.post("/v1/tenants/acme/members", &json!({"principal": "user-2", "role": "writer"})).await.ok();
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(Value::from(pieces), whole);
    let refused = api.get("/v1/events?order=newest&after=3").await;
    assert_eq!(refused.status, 422, "{}", refused.body);
}

#[test]
fn the_shape_of_json_does_not_depend_on_the_number_of_names() {
    let shell = Shell::init();
    let keys = |line: &str| {
        let text = shell.ok(&format!("{line} -o json"));
        let value: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{line}: {e}: {text}"));
        let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(&value), ["items", "next_cursor"], "{line}: {text}");
        (value["items"].as_array().unwrap().len(), keys(&value["items"][0]))
    };
    let pairs = [
        ("tenant create a1", "tenant create b1 b2"),
        ("tenant describe a1", "tenant describe b1 b2"),
        ("tenant list a1", "tenant list b1 b2"),
        ("tenant label a1 x=y", "tenant label b1 b2 x=y"),
        ("tenant label a1 x=y --dry-run", "tenant label b1 b2 x=y --dry-run"),
        ("tenant protect a1 --off", "tenant protect b1 b2 --off"),
        ("tenant delete a1 --dry-run", "tenant delete b1 b2 --dry-run"),
        ("tenant delete a1 --no-backup --yes", "tenant delete b1 b2 --no-backup --yes --expect-count 2"),
    ];
    for (one, two) in pairs {
        let (one, two) = (keys(one), keys(two));
        assert_eq!((one.0, two.0), (1, 2));
        assert_eq!(one.1, two.1);
    }
}

/// Some seconds of work without a table to work on.
const SLOW: &str = "create table slow (n integer);\ninsert into slow with recursive c(x) as \
    (select 1 union all select x + 1 from c where x < 6000000) select count(*) from c;\n";

fn migration() -> Value {
    json!({"selection": {"all": true}, "files": [{"name": "0001_slow.sql", "sql": SLOW}]})
}

#[tokio::test]
async fn a_slow_template_is_built_in_sight_and_by_the_next_process_when_the_first_dies() {
    let shell = Shell::init();
    let dir = shell.path();
    let mut served = Served::start(dir);
    let begun = served.admin().post("/v1/migrations", &migration()).await.ok();
    let id = begun["id"].as_str().unwrap().to_owned();
    let seen = served.admin().get("/v1/operations").await.ok()["items"][0].take();
    assert_eq!(seen["id"], json!(id), "{seen}");
    assert!(seen["phase"].as_str().unwrap().contains("template"), "{seen}");
    assert!(shell.ok("op list -o wide").contains("building the template"));
    let shown = shell.run(&format!("op get {id}"));
    assert!(shown.stderr.contains("building the template"), "{shown:?}");
    served.kill();
    let served = Served::start(dir);
    let ended = served.admin().finished(&id).await;
    assert_eq!((&ended["state"], &ended["phase"]), (&json!("succeeded"), &Value::Null), "{ended}");
    let status = served.admin().get("/v1/status").await.ok();
    assert!(status["current_release"].is_string(), "{status}");
    let events = served.admin().get(&format!("/v1/events?op={id}")).await.ok();
    let kinds: Vec<_> = events["items"].as_array().unwrap().iter().map(|e| e["kind"].as_str().unwrap()).collect();
    let expected =
        ["operation.submitted", "operation.opening", "operation.opened", "release.activated", "operation.ended"];
    assert_eq!(kinds, expected);
}

#[tokio::test]
async fn an_operation_is_cancelled_while_its_template_is_built() {
    let shell = Shell::init();
    shell.ok("tenant create acme");
    let served = Served::start(shell.path());
    let api = served.admin();
    let begun = api.post("/v1/migrations", &migration()).await.ok();
    let id = begun["id"].as_str().unwrap().to_owned();
    assert!(begun["phase"].as_str().unwrap().contains("template"), "{begun}");
    let cancelled = api.post(&format!("/v1/operations/{id}/cancel"), &json!({})).await.ok();
    assert_eq!(cancelled["state"], "cancelled", "{cancelled}");
    assert!(cancelled["finished_at"].is_string(), "{cancelled}");
    let status = api.get("/v1/status").await.ok();
    assert_eq!(status["current_release"], Value::Null);
    assert_eq!(api.get("/v1/tenants/acme").await.ok()["schema_version"], Value::Null);
}

#[test]
fn staff_act_as_a_member_by_a_ticket_for_a_reason_that_the_tenant_sees() {
    let shell = Shell::init();
    shell.ok("tenant create acme");
    shell.ok("member add acme user-1 --role reader");
    let manager = shell.ok("token create --tenant acme --role manager -o name");
    let without = shell.run("tenant impersonate acme user-1");
    assert!(without.code == Some(2) && without.stderr.contains("reason"), "{without:?}");
    shell.refused("tenant impersonate acme nobody --reason test", 5);
    shell.refused("tenant impersonate nowhere user-1 --reason test", 5);
    let served = Served::start(shell.path());
    let made = shell.json("tenant impersonate acme user-1 --reason 'ticket 4711'");
    assert_eq!((&made["tenant"], &made["member"]), (&json!("acme"), &json!("user-1")));
    let name = shell.ok("tenant impersonate acme user-1 --reason 'ticket 4711' -o name");
    assert!(name.trim().starts_with("ftk_"), "{name}");
    let audit = |token: &str| {
        let answer = std::process::Command::new("curl")
            .args(["-s", &format!("{}/t/acme/audit", served.data_url), "-H", &format!("Authorization: Bearer {token}")])
            .output()
            .unwrap();
        serde_json::from_slice::<Value>(&answer.stdout).unwrap()
    };
    assert_eq!(audit(made["ticket"].as_str().unwrap())["code"], "unauthenticated", "a ticket is not a credential");
    let log = audit(manager.trim());
    let entry = &log["items"][0];
    assert_eq!(
        (&entry["kind"], &entry["on_behalf_of"], &entry["reason"]),
        (&json!("impersonation.requested"), &json!("user-1"), &json!("ticket 4711")),
        "{log:#}"
    );
}
