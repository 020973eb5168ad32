//! Each leak is real, and the program without it does not leak: the same requests to both.

use futures_util::StreamExt as _;
use leaky_zoo::leak::{LEAKS, Leak};

use crate::log::keep_log;
use crate::stage::TestedFleet;
use crate::symptoms::leak_shows;

/// How many leaks are tried at the same time: most of the time, a test waits for the fleet.
const AT_ONCE: usize = 4;

/// The leak kit tries them on PostgreSQL, too.
#[tokio::test(flavor = "multi_thread")]
async fn each_leak_is_real_on_sqlite() {
    keep_log();
    let fleet = TestedFleet::open(None).await;
    let wrong: Vec<String> = futures_util::stream::iter(LEAKS.iter().copied())
        .map(|leak| try_leak(&fleet, leak))
        .buffer_unordered(AT_ONCE)
        .filter_map(std::future::ready)
        .collect()
        .await;
    assert!(wrong.is_empty(), "{wrong:#?}");
    fleet.close().await;
}

/// What is wrong with a leak.
async fn try_leak(fleet: &TestedFleet, leak: &'static Leak) -> Option<String> {
    let clean = fleet.stage(&format!("{}-clean", leak.name), None).await;
    if leak_shows(leak.name, &clean).await {
        return Some(format!("{}: it shows without the leak", leak.name));
    }
    drop(clean);
    let leaky = fleet.stage(&format!("{}-leaky", leak.name), Some(leak)).await;
    let shows = leak_shows(leak.name, &leaky).await;
    (!shows).then(|| format!("{}: it does not show", leak.name))
}
