//! Gives both tenants data: the same keys where possible, and different canaries.

use http::Method;

use crate::error::Result;
use crate::route::Route;
use crate::session::Session;
use crate::views::calls_with_keys;
use crate::world::Side;

/// How many rows each tenant gets through each route that adds rows. The numbers differ, so that counts differ, too.
const FIRST_ROWS: usize = 3;
const SECOND_ROWS: usize = 5;

/// Plants rows in the databases, then through the application's own routes.
pub(crate) async fn plant_data(session: &Session) -> Result<()> {
    if let Some(databases) = &session.extras.databases {
        for side in Side::BOTH {
            databases.plant_rows(side, &session.canaries).await?;
        }
    }
    let adds = |route: &&Route| route.method == Method::POST;
    let is_whole = |route: &&Route| route.path_parameters().next().is_none();
    for round in 0..SECOND_ROWS {
        send_each(session, round, session.writes().filter(adds).filter(is_whole)).await?;
    }
    send_each(session, 0, session.reads()).await?;
    for round in 0..SECOND_ROWS {
        send_each(session, round, session.writes().filter(adds).filter(|route| !is_whole(route))).await?;
    }
    for route in session.writes().filter(|route| matches!(route.method, Method::PUT | Method::PATCH)) {
        for side in Side::BOTH {
            change_some_row(session, route, side).await?;
        }
    }
    session.settle().await;
    send_each(session, 0, session.reads()).await
}

/// Sends each route's request as both tenants, A first. In late rounds only B sends.
async fn send_each<'r>(session: &Session, round: usize, routes: impl Iterator<Item = &'r Route>) -> Result<()> {
    for route in routes {
        for side in Side::BOTH {
            if side == Side::Second || round < FIRST_ROWS {
                session.send_own(route, side).await?;
            }
        }
    }
    Ok(())
}

/// Changes the first row that may be changed: an application may protect some of them.
async fn change_some_row(session: &Session, route: &Route, side: Side) -> Result<()> {
    for call in calls_with_keys(session, route, side) {
        if session.send_as_owner(call).await?.is_success() {
            break;
        }
    }
    Ok(())
}
