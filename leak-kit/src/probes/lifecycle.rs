use crate::databases::FleetControl;
use crate::error::Result;
use crate::findings::{FindingKind, ProbeOutcome};
use crate::session::Session;
use crate::views::{TenantView, reading_calls};
use crate::world::Side;

pub(super) async fn run(session: &Session, outcome: &mut ProbeOutcome) -> Result<()> {
    let Some(fleet) = session.extras.fleet.clone() else {
        outcome.skip("the kit cannot change the fleet behind the application");
        return Ok(());
    };
    check_restore(session, outcome, &*fleet).await?;
    check_suspension(session, outcome, &*fleet).await
}

/// After a restore no answer may show what came after the backup.
async fn check_restore(session: &Session, outcome: &mut ProbeOutcome, fleet: &dyn FleetControl) -> Result<()> {
    let side = Side::First;
    let backup = fleet.back_up(side).await?;
    let (one, two) = (TenantView::read(session, side).await?, TenantView::read(session, side).await?);
    let issued = session.canaries.issued();
    for route in session.writes().filter(|route| route.method != http::Method::DELETE) {
        session.send_own(route, side).await?;
    }
    session.settle().await;
    // Whatever the application remembers now is newer than the backup.
    let newer = TenantView::read(session, side).await?;
    for (route, _) in newer.changes(session, (&one, &two)) {
        outcome.control(route);
    }
    fleet.restore(side, &backup).await?;
    fleet.settle().await;
    let restored = TenantView::read(session, side).await?;
    let unlike_before = restored.changes(session, (&one, &two));
    let newer_changes = restored.changes(session, (&newer, &newer));
    let unlike_newer: Vec<_> = newer_changes.into_iter().map(|(_, answer)| &answer.path).collect();
    // Files and other data outside the database are not restored. So only routes count that show its rows.
    let is_stored = |route: &str| session.reach_of(route).is_some_and(|reach| reach.shows_rows);
    for (route, exchange) in unlike_before.into_iter().filter(|(route, _)| is_stored(route)) {
        if let Some(hit) = session.canaries.find_newer(&exchange.body, side, issued) {
            outcome.report_hit(route, &hit, exchange);
        } else if exchange.is_success() && !unlike_newer.contains(&&exchange.path) {
            let text = "after a restore, the answer is still the one from before it";
            outcome.report(FindingKind::ForeignData, route, text, exchange);
        }
    }
    Ok(())
}

/// A suspended tenant serves nobody, whatever was remembered.
async fn check_suspension(session: &Session, outcome: &mut ProbeOutcome, fleet: &dyn FleetControl) -> Result<()> {
    let side = Side::First;
    TenantView::read(session, side).await?;
    fleet.suspend(side).await?;
    fleet.settle().await;
    for call in reading_calls(session, side) {
        let exchange = session.send(&call).await?;
        if exchange.is_success() {
            let text = "a suspended tenant is still served";
            outcome.report(FindingKind::ForeignData, &call.route.label(), text, &exchange);
        }
    }
    fleet.resume(side).await?;
    fleet.settle().await;
    Ok(())
}
