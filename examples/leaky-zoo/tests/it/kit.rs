//! The leak kit finds every leak with a probe that is meant for it, and nothing in the program without one.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use leak_kit::fleet::{FleetDatabases, FleetTenants};
use leak_kit::{
    HttpApplication, LeakReport, LeakTest, LeakTestSettings, ReportFormat, ServiceApplication, TestedApplication,
    WatchedOutput,
};
use leaky_zoo::leak::{LEAKS, Leak};
use leaky_zoo::zoo::Zoo;
use leaky_zoo::{document, routes_of};
use postgres_fixture::Cluster;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::log::{keep_log, logged_text};
use crate::stage::TestedFleet;

/// How many leaks are tried at the same time.
const AT_ONCE: usize = 4;
/// Longer than the background work of the zoo: a digest takes up to 300 ms.
const SETTLE: Duration = Duration::from_millis(500);
const SETTINGS: &str = include_str!("../../../tasks/leaktest.toml");

/// How the kit reaches the zoo.
#[derive(Clone, Copy)]
enum Transport {
    InProcess,
    Http,
}

/// What the kit says of the zoo with this leak. With a leak, only the probes that are meant for it run.
async fn report_on(fleet: &TestedFleet, leak: Option<&'static Leak>, transport: Transport) -> LeakReport {
    let application = fleet.application();
    let zoo = Zoo::new(application.clone(), None).unwrap();
    let routes = routes_of(&zoo, leak);
    let mut server = JoinSet::new();
    let tested: Arc<dyn TestedApplication> = match transport {
        Transport::InProcess => Arc::new(ServiceApplication::new(routes)),
        Transport::Http => {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}", listener.local_addr().unwrap());
            server.spawn(axum::serve(listener, routes).into_future());
            Arc::new(HttpApplication::new(&url).unwrap())
        }
    };
    let label = leak.map_or("clean", |leak| leak.name);
    let admin = Arc::new(application.fleet.clone());
    let tenants = FleetTenants::create(admin, label, application.new_server.as_deref()).await.unwrap();
    let settings = LeakTestSettings::parse(SETTINGS, std::path::Path::new(".")).unwrap();
    let test = LeakTest::new(tested, settings.inventory(&document::merged()).unwrap(), tenants.world());
    let accounts = tenants.link_accounts("payments").await.unwrap();
    application.router.catch_up().await.unwrap();
    let databases = FleetDatabases::new(application.router.clone(), "/orgs/", tenants.credentials());
    let test = settings.apply_accounts(test, "payments", &accounts).unwrap();
    let test = test.databases(Arc::new(databases)).fleet(Arc::new(tenants.changes())).settle(SETTLE);
    let test = test.output(WatchedOutput::of_text("log", || logged_text().into_bytes()));
    let probes = leak.map_or(&[][..], |leak| leak.probes);
    test.only(probes.iter().map(ToString::to_string)).unwrap().run().await.unwrap()
}

/// What is wrong with the report on a leak.
async fn try_leak(fleet: &TestedFleet, leak: &'static Leak, transport: Transport) -> Option<String> {
    let report = report_on(fleet, Some(leak), transport).await;
    let is_caught = report.findings().any(|finding| {
        // A leak shows on its own routes, in an output, or in the database.
        leak.routes.contains(&&*finding.route) || !finding.route.contains(' ')
    });
    (!is_caught).then(|| format!("{} is not caught:\n{}", leak.name, report.render(ReportFormat::Text)))
}

async fn try_leaks(
    fleet: &TestedFleet,
    leaks: Vec<&'static Leak>,
    at_once: usize,
    transport: Transport,
) -> Vec<String> {
    let tried = futures_util::stream::iter(leaks).map(|leak| try_leak(fleet, leak, transport));
    tried.buffer_unordered(at_once).filter_map(std::future::ready).collect().await
}

async fn try_zoo(cluster: Option<&Cluster>, transport: Transport) {
    keep_log();
    let fleet = TestedFleet::open(cluster).await;
    let clean = report_on(&fleet, None, transport).await;
    assert!(clean.is_clean(), "false alarms:\n{}", clean.render(ReportFormat::Text));
    // A leak that counts the whole fleet is seen only while nobody else changes it.
    let (quiet, others): (Vec<_>, Vec<_>) =
        LEAKS.iter().copied().partition(|leak| leak.probes.contains(&"interference"));
    let mut missed = try_leaks(&fleet, others, AT_ONCE, transport).await;
    missed.extend(try_leaks(&fleet, quiet, 1, transport).await);
    #[expect(clippy::print_stdout, reason = "the result that the documents quote")]
    {
        println!("{} of {} caught, 0 false alarms", LEAKS.len() - missed.len(), LEAKS.len());
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
    fleet.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_leak_is_caught_and_nothing_else_on_sqlite() {
    try_zoo(None, Transport::InProcess).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_leak_is_caught_and_nothing_else_on_postgres() {
    try_zoo(Some(&Cluster::start()), Transport::Http).await;
}
