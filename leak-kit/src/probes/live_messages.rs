use std::time::Duration;

use futures_util::StreamExt as _;

use crate::error::Result;
use crate::findings::{FindingKind, ProbeOutcome};
use crate::live::LiveConnection;
use crate::route::{Route, RouteClass};
use crate::session::{Call, Session};
use crate::world::Side;

/// How long a message may take.
const MESSAGE_MAX: Duration = Duration::from_secs(5);
/// How long the connection stays quiet before the other tenant acts.
const QUIET: Duration = Duration::from_millis(700);

pub(super) async fn run(session: &Session, outcome: &mut ProbeOutcome) -> Result<()> {
    let routes: Vec<&Route> = session.routes(RouteClass::Live).collect();
    if routes.is_empty() {
        outcome.skip("there is no route of the class `live`");
        return Ok(());
    }
    for route in routes {
        for side in Side::BOTH {
            check_route(session, outcome, route, side).await?;
        }
    }
    Ok(())
}

/// Listens as one tenant while the other one acts, and then while the listener acts.
async fn check_route(session: &Session, outcome: &mut ProbeOutcome, route: &Route, listener: Side) -> Result<()> {
    let (label, actor) = (route.label(), listener.other());
    outcome.attempt(&label);
    let Some(mut connection) = LiveConnection::open(session, &Call::own(route, listener)).await? else { return Ok(()) };
    connection.read_until_quiet(QUIET).await;
    change_everything(session, actor).await?;
    let foreign = connection.read_until_quiet(session.extras.settle.max(QUIET)).await;
    let request = format!("{label} as tenant {}", listener.letter());
    if let Some(message) = foreign.iter().find(|message| !is_keep_alive(message)) {
        let evidence = String::from_utf8_lossy(message).into_owned();
        let text = format!("a message arrived while only tenant {} acted", actor.letter());
        outcome.report_text(FindingKind::ForeignData, &label, text, request, evidence);
    }
    let changing = change_everything(session, listener);
    let arriving = tokio::time::timeout(MESSAGE_MAX, connection.messages.next());
    let (changed, arrived) = tokio::join!(changing, arriving);
    changed?;
    if matches!(arrived, Ok(Some(_))) {
        outcome.control(&label);
    }
    Ok(())
}

async fn change_everything(session: &Session, side: Side) -> Result<()> {
    for route in session.writes().filter(|route| route.method != http::Method::DELETE) {
        session.send_own(route, side).await?;
    }
    Ok(())
}

/// A comment or an id without data, which keeps the connection alive or tells its position.
fn is_keep_alive(message: &[u8]) -> bool {
    let text = String::from_utf8_lossy(message);
    let is_position = text.contains("\"type\":\"position\"");
    is_position || text.lines().all(|line| line.is_empty() || line.starts_with(':') || line.starts_with("id:"))
}
