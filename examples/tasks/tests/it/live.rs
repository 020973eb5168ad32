//! Live updates: whom a change reaches, and what a page gets after its connection was lost.

use std::process::Command;

use futures_util::StreamExt as _;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::on_both_engines;
use crate::processes::TasksProcess;
use crate::running::{Browser, RunningTasks, new_browser, sign_up_form};

on_both_engines! {
    a_change_reaches_the_open_pages_of_its_organisation
    a_removed_member_is_disconnected
}

/// Longer than any wait here takes, so that a lost message fails the test.
const LONG: std::time::Duration = std::time::Duration::from_secs(30);

type PageSocket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Connects as the page does; the status of a refusal.
async fn connect(browser: &Browser, organisation: &str, after: Option<i64>, origin: &str) -> Result<PageSocket, u16> {
    let after = after.map(|seq| format!("?after={seq}")).unwrap_or_default();
    let url = format!("{}/orgs/{organisation}/api/live{after}", browser.url.replace("http", "ws"));
    let mut request = url.into_client_request().unwrap();
    request.headers_mut().insert("origin", origin.parse().unwrap());
    request.headers_mut().insert("cookie", browser.cookie.as_deref().unwrap_or("none=").parse().unwrap());
    match connect_async(request).await {
        Ok((socket, _)) => Ok(socket),
        Err(Error::Http(response)) => Err(response.status().as_u16()),
        Err(error) => panic!("{error}"),
    }
}

async fn open_page(browser: &Browser, organisation: &str, after: Option<i64>) -> PageSocket {
    let mut socket = connect(browser, organisation, after, &browser.url).await.unwrap();
    let ready = next_message(&mut socket).await.unwrap();
    assert_eq!(ready["type"], "ready", "{ready}");
    socket
}

/// The next message; the code of the close frame otherwise.
async fn next_message(socket: &mut PageSocket) -> Result<Value, u16> {
    match tokio::time::timeout(LONG, socket.next()).await.expect("a message comes").unwrap().unwrap() {
        Message::Text(text) => Ok(serde_json::from_str(&text).unwrap()),
        Message::Close(frame) => Err(frame.unwrap().code.into()),
        other => panic!("{other:?} is not a message"),
    }
}

async fn next_task(socket: &mut PageSocket) -> Value {
    next_message(socket).await.unwrap()["data"].clone()
}

async fn a_change_reaches_the_open_pages_of_its_organisation(running: &RunningTasks) {
    let (alice, bob) = (running.sign_up("acme").await, running.sign_up("globex").await);
    let (reader, _) = running.invite(&alice, "acme", "reader").await;
    let mut pages = [open_page(&alice, "acme", None).await, open_page(&reader, "acme", None).await];
    let mut of_globex = open_page(&bob, "globex", None).await;
    let task = alice.post("/orgs/acme/api/tasks", &json!({ "title": "of acme" })).await.body;
    assert_eq!(task["id"], 1);
    let changes = [
        (Method::POST, "tasks/1/comments", json!({ "text": "about it" })),
        (Method::PUT, "tasks/1", json!({ "title": "another", "version": 1 })),
        (Method::PUT, "tasks/1/done", json!({ "done": true, "version": 2 })),
        (Method::DELETE, "tasks/1", json!({ "version": 3 })),
    ];
    for (method, path, body) in &changes {
        let answer = alice.change(method.clone(), &format!("/orgs/acme/api/{path}"), body).await;
        assert!(answer.status.is_success(), "{method} {path}: {}", answer.text);
    }
    let refused = alice.delete_seen("/orgs/acme/api/tasks/1", 3).await;
    assert_eq!(refused.status, 404);
    bob.post("/orgs/globex/api/tasks", &json!({ "title": "of globex" })).await;
    alice.post("/orgs/acme/api/tasks", &json!({ "title": "second" })).await;
    for page in &mut pages {
        for _ in 0..=changes.len() {
            assert_eq!(next_task(page).await, json!({ "task": 1 }));
        }
        assert_eq!(next_task(page).await["task"], task_after(&alice).await, "a refused change is not announced");
    }
    assert_eq!(next_task(&mut of_globex).await, json!({ "task": 1 }));
    for origin in ["https://evil.example", "null"] {
        assert_eq!(connect(&alice, "acme", None, origin).await.map(drop), Err(403), "{origin}");
    }
    assert_eq!(connect(&bob, "acme", None, &bob.url).await.map(drop), Err(404));
    assert_eq!(connect(&running.visitor(), "acme", None, &bob.url).await.map(drop), Err(401));
}

/// The id of the only task.
async fn task_after(browser: &Browser) -> Value {
    browser.get("/orgs/acme/api/tasks").await.body[0]["id"].clone()
}

async fn a_removed_member_is_disconnected(running: &RunningTasks) {
    let alice = running.sign_up("acme").await;
    let (bob, id) = running.invite(&alice, "acme", "writer").await;
    let mut page = open_page(&bob, "acme", None).await;
    assert!(alice.delete(&format!("/orgs/acme/api/members/{id}")).await.status.is_success());
    alice.post("/orgs/acme/api/tasks", &json!({ "title": "not for bob" })).await;
    let closed = tokio::time::timeout(std::time::Duration::from_secs(5), next_message(&mut page)).await;
    assert_eq!(closed.expect("within 5 s"), Err(1008));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_gets_what_it_missed_when_a_process_was_killed() {
    let dir = tempfile::tempdir().unwrap();
    let first = TasksProcess::start(dir.path(), None);
    let mut alice = new_browser(&first.url);
    let answer = alice.post("/api/organisations", &sign_up_form("acme", uuid::Uuid::now_v7())).await;
    alice.keep_cookie(&answer);
    let mut page = open_page(&alice, "acme", None).await;
    alice.post("/orgs/acme/api/tasks", &json!({ "title": "seen" })).await;
    let seen = next_message(&mut page).await.unwrap();
    // The page has not read the second message when the process dies.
    alice.post("/orgs/acme/api/tasks", &json!({ "title": "missed" })).await;
    drop(first);
    let second = TasksProcess::start(dir.path(), None);
    alice.url.clone_from(&second.url);
    let mut page = open_page(&alice, "acme", seen["seq"].as_i64()).await;
    assert_eq!(next_task(&mut page).await, json!({ "task": 2 }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_tells_the_open_pages_and_stops_the_process_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut process = TasksProcess::start(dir.path(), None);
    let mut alice = new_browser(&process.url);
    let answer = alice.post("/api/organisations", &sign_up_form("acme", uuid::Uuid::now_v7())).await;
    alice.keep_cookie(&answer);
    let mut page = open_page(&alice, "acme", None).await;
    let pid = process.child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert_eq!(next_message(&mut page).await, Err(1001));
    // Answers the close frame.
    while let Some(Ok(_)) = page.next().await {}
    assert!(process.child.wait().unwrap().success());
}
