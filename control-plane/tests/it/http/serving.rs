//! Starting, ending in order, and TLS.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use control_plane::config::TlsFiles;
use control_plane::serve::{self, ServeOptions};
use control_plane::{App, Config};
use reqwest::Method;
use serde_json::json;

use crate::http::site::{Site, send};

#[tokio::test]
async fn one_serves_a_directory_and_says_where() {
    let site = Site::start().await;
    let data_dir = site.app.config.data_dir.clone();
    let endpoint = serve::find_running(&data_dir).unwrap().unwrap();
    assert_eq!((endpoint.admin_url.as_str(), endpoint.pid), (site.admin.as_str(), std::process::id()));
    let mode = std::fs::metadata(data_dir.join("endpoint.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let second = App::open(site.app.config.clone()).await.unwrap();
    let refused = serve::start_server(Arc::clone(&second), ServeOptions::default()).await.unwrap_err();
    assert_eq!((refused.code(), control_plane::http::status_of(&refused.kind).as_u16()), ("already_serving", 409));
    second.shut_down(Duration::from_secs(1)).await;
    site.stop().await;
    assert_eq!(serve::find_running(&data_dir).unwrap(), None);
    assert!(!data_dir.join("endpoint.json").exists());
}

#[tokio::test]
async fn what_cannot_be_served_is_refused_with_its_reason() {
    let dir = tempfile::tempdir().unwrap();
    let base = crate::http::site::config(&dir);
    App::init_fleet(&base).await.unwrap();
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = |config: &mut Config| config.listen = holder.local_addr().unwrap();
    let open = |config: &mut Config| config.admin_listen = "0.0.0.0:0".parse().unwrap();
    let tls =
        |config: &mut Config| config.tls = Some(TlsFiles { certificate: "/no/cert".into(), key: "/no/key".into() });
    for (change, code) in
        [(&taken as &dyn Fn(&mut Config), "address_in_use"), (&open, "admin_exposed"), (&tls, "tls_invalid")]
    {
        let mut config = base.clone();
        change(&mut config);
        let app = App::open(config).await.unwrap();
        assert_eq!(serve::start_server(Arc::clone(&app), ServeOptions::default()).await.unwrap_err().code(), code);
        assert_eq!(serve::find_running(&base.data_dir).unwrap(), None, "nothing is left behind");
        app.shut_down(Duration::from_secs(1)).await;
    }
}

#[tokio::test]
async fn a_server_that_ends_says_so_before_it_closes() {
    let options = ServeOptions { notice: Duration::from_secs(2), ..ServeOptions::default() };
    let mut site = Site::start_with(options, |_| ()).await;
    let ready = |site: &Site| send(site.client.get(format!("{}/readyz", site.admin)));
    assert_eq!(ready(&site).await.status, 200);
    let stopping = tokio::spawn(site.serving().stop_serving());
    let mut status = 200;
    while status == 200 {
        status = ready(&site).await.status;
    }
    assert_eq!(status, 503);
    stopping.await.unwrap();
    assert!(site.client.get(format!("{}/livez", site.admin)).send().await.unwrap_err().is_connect());
}

/// Requests are sent on connections of their own without pause while the server ends; every one that it accepted is
/// answered, and every acknowledged write is there afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_was_begun_is_lost_at_the_end() {
    let mut site = Site::with_tenants(&["acme"]).await;
    let token = site.tenant_token("acme", "writer").await;
    let url = format!("{}/t/acme/query", site.data);
    let (acknowledged, over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let writers: Vec<_> = (0..4)
        .map(|_| {
            let (url, token) = (url.clone(), token.clone());
            let (acknowledged, over) = (Arc::clone(&acknowledged), Arc::clone(&over));
            tokio::spawn(async move {
                let client =
                    reqwest::Client::builder().no_proxy().tls_certs_only([]).pool_max_idle_per_host(0).build().unwrap();
                let body = json!({ "sql": "insert into notes (body) values ('x')" });
                while !over.load(Ordering::SeqCst) {
                    match client.post(&url).bearer_auth(&token).json(&body).send().await {
                        Ok(answer) if answer.status() == 200 => {
                            answer.bytes().await.expect("an answer that was begun is whole");
                            acknowledged.fetch_add(1, Ordering::SeqCst);
                        }
                        Ok(answer) => assert_eq!(answer.status(), 503),
                        // Not accepted any more, or closed before the request was read.
                        Err(error) => assert!(error.is_connect() || error.is_request(), "{error:?}"),
                    }
                }
            })
        })
        .collect();
    while acknowledged.load(Ordering::SeqCst) < 50 {
        tokio::task::yield_now().await;
    }
    site.serving().stop_serving().await;
    over.store(true, Ordering::SeqCst);
    for writer in writers {
        writer.await.unwrap();
    }
    let app = App::open(site.app.config.clone()).await.unwrap();
    let again = serve::start_server(app, ServeOptions::default()).await.unwrap();
    let count = site.client.post(format!("{}/t/acme/query", again.server_endpoint().data_url)).bearer_auth(&token);
    let rows =
        send(count.json(&json!({ "sql": "select count(*) from notes" }))).await.ok()["rows"][0][0].as_u64().unwrap();
    let acknowledged = acknowledged.load(Ordering::SeqCst) as u64 + 1;
    // A write may have been done and its answer cut with the listener: never the other way round.
    assert!((acknowledged..=acknowledged + 4).contains(&rows), "{acknowledged} acknowledged, {rows} found");
    again.stop_serving().await;
}

/// A stream of an operation that stands still would never end by itself.
#[tokio::test]
async fn streams_and_long_polls_end_with_the_server() {
    let mut site = Site::start().await;
    let names: Vec<_> = (0..500).map(|n| json!({ "name": format!("t{n}") })).collect();
    let started = site.post("/v1/tenants/batch", &json!({ "tenants": names })).await.ok();
    let operation = format!("/v1/operations/{}", started["id"].as_str().unwrap());
    assert_eq!(site.post(&format!("{operation}/pause"), &json!({})).await.ok()["state"], "paused");
    let stream = site.admin(Method::GET, &format!("{operation}/events")).send().await.unwrap();
    assert_eq!(stream.status(), 200);
    let began = std::time::Instant::now();
    site.serving().stop_serving().await;
    assert!(stream.text().await.unwrap().contains("event:"), "the stream ends whole");
    assert!(began.elapsed() < Duration::from_secs(20), "nobody waited for the drain to run out");
}

/// A statement is run only when all of it has arrived.
#[tokio::test]
async fn a_body_that_breaks_off_is_no_request() {
    let site = Site::with_tenants(&["acme"]).await;
    let token = site.tenant_token("acme", "writer").await;
    let head = format!("POST /t/acme/query HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n");
    let insert = r#"{"sql":"insert into notes values (7, 'x')"}"#;
    let cut = format!("{head}content-type: application/json\r\ncontent-length: {}\r\n\r\n{}", insert.len() + 1, insert);
    let address = site.data.trim_start_matches("http://").to_owned();
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    std::io::Write::write_all(&mut stream, cut.as_bytes()).unwrap();
    drop(stream);
    let count = json!({ "sql": "select count(*) from notes" });
    assert_eq!(site.ask("acme", &token, &count).await.ok()["rows"], json!([[1]]));
    site.stop().await;
}

#[tokio::test]
async fn tls_is_spoken_when_it_is_configured() {
    let fixture = |name: &str| std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    let tls = TlsFiles { certificate: fixture("localhost.crt"), key: fixture("localhost.key") };
    let site = Site::start_with(ServeOptions::default(), |config| config.tls = Some(tls)).await;
    assert!(site.admin.starts_with("https://127.0.0.1:"));
    let pem = std::fs::read(fixture("localhost.crt")).unwrap();
    let trusting = reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([reqwest::Certificate::from_pem(&pem).unwrap()])
        .build()
        .unwrap();
    let answer = send(trusting.get(format!("{}/v1/status", site.admin)).bearer_auth(&site.token)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(site.client.get(format!("{}/livez", site.admin)).send().await.is_err(), "an unknown certificate");
    let plain = site.admin.replace("https://", "http://");
    assert!(site.client.get(format!("{plain}/livez")).send().await.is_err());
    site.stop().await;
}
