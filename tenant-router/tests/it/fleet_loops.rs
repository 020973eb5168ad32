//! Loops of a program over many tenants.

use catalog::TenantState;
use catalog::events::{EventFilter, EventOrder};
use tenant_router::{ErrorKind, FleetLoop, JobSchedule, Tenant, Write};

use crate::job_world::{JobWorld, add_note};

#[tokio::test]
async fn a_loop_over_tenants_needs_a_reason_and_leaves_one_event() {
    let (fleet, ids) = JobWorld::start(&["acme", "globex", "hooli"]).await;
    fleet.world.update_tenant(ids[2], |update| update.state = Some(TenantState::Suspended)).await;
    let visit = async |tenant: Tenant<Write>| {
        if tenant.name() == "globex" {
            return Err("globex fails".to_owned());
        }
        let mut tx = tenant.write();
        let nightly = JobSchedule::parse("0 3 * * *").unwrap();
        tx.schedule("report", &nightly, &add_note("night")).await.map_err(|error| error.to_string())?;
        tx.commit().await.map_err(|error| error.to_string())
    };
    let all = || FleetLoop::over_all("deployment", "a report for each tenant");
    let refused = [
        FleetLoop::over_all("deployment", " "),
        FleetLoop::over_all("deploy\nment", "x"),
        all().labelled("plan=pro"),
        all().labelled("plan="),
        all().labelled(""),
        all().tenants([ids[2]]),
        all().tenants([]),
    ];
    for (number, which) in refused.into_iter().enumerate() {
        let error = fleet.router.for_each(which, visit).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LoopInvalid, "{number}: {error}");
    }
    let report = fleet.router.for_each(all().at_once(1), visit).await.unwrap();
    assert_eq!((report.done, report.failed), (1, 1), "a suspended tenant is not selected");
    assert_eq!(report.failures, [(ids[1], "globex fails".to_owned())]);
    let mut tx = fleet.world.catalog.read().await.unwrap();
    let events = catalog::events::read_events(&mut tx, &EventFilter::default(), EventOrder::Newest, None, 10).await;
    let loops: Vec<_> =
        events.unwrap().events.into_iter().filter(|record| record.event.kind == "fleet.loop_begun").collect();
    assert_eq!(loops.len(), 1, "one event for the whole loop, none for a refused one");
    assert_eq!((&*loops[0].event.actor, &loops[0].event.data["tenants"]), ("deployment", &serde_json::json!(2)));
    assert_eq!(fleet.list(ids[0]).await.len(), 1);
}
