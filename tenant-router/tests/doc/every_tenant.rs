// What the example of the loop in docs/embedding.md runs on: two tenants, each of which must get the schedule.

include!("tenants.rs");

async fn check_example() {
    let fleet = start_fleet("create table tasks (id integer primary key)").await;
    // A program calls it at each start.
    for _ in 0..2 {
        schedule_reports(fleet.router()).await.unwrap();
    }
    let operator = tenant_router::OperatorAccess::new("test", "look at the schedules");
    for name in ["acme", "globex"] {
        let jobs = fleet.router().list_jobs(&operator, fleet.tenant_id(name).unwrap(), None, 10).await.unwrap();
        let found: Vec<_> = jobs.iter().map(|job| (job.kind.as_str(), job.schedule.as_deref())).collect();
        assert_eq!(found, [("nightly-report", Some("0 3 * * *"))], "{name}");
    }
}
