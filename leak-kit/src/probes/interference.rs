use std::collections::BTreeSet;

use crate::error::Result;
use crate::findings::{FindingKind, ProbeOutcome};
use crate::route::Route;
use crate::session::{Call, Session};
use crate::views::TenantView;
use crate::world::Side;

pub(super) async fn run(session: &Session, outcome: &mut ProbeOutcome) -> Result<()> {
    for actor in Side::BOTH {
        check_actor(session, outcome, actor).await?;
        check_own_changes(session, outcome, actor).await?;
    }
    Ok(())
}

/// Lets only one tenant act, and compares what the other sees before and after.
async fn check_actor(session: &Session, outcome: &mut ProbeOutcome, actor: Side) -> Result<()> {
    let watched = actor.other();
    session.settle().await;
    let (one, two) = (TenantView::read(session, watched).await?, TenantView::read(session, watched).await?);
    let stored = fingerprint(session, watched).await?;
    // The watched tenant only reads, between the changes of the actor: what runs for "the latest tenant" meets it.
    let quiet: Vec<&Route> = session.reads().filter(|route| route.path_parameters().next().is_none()).collect();
    for route in session.writes().filter(|route| route.method != http::Method::DELETE) {
        let written = session.send_own(route, actor).await?;
        if let Some(route) = quiet.first() {
            session.send(&Call::own(route, watched)).await?;
        }
        // The work goes on after the answer, and the watched tenant sent the latest request.
        if written.status == http::StatusCode::ACCEPTED {
            session.settle().await;
        }
    }
    session.settle().await;
    for route in &quiet {
        session.send(&Call::own(route, actor)).await?;
    }
    let after = TenantView::read(session, watched).await?;
    for (route, exchange) in after.changes(session, (&one, &two)) {
        let text = format!("the answer changed while only tenant {} acted", actor.letter());
        outcome.report(FindingKind::ForeignEffect, route, text, exchange);
    }
    if stored.is_some() && fingerprint(session, watched).await? != stored {
        let text =
            format!("the database of tenant {} changed while only tenant {} acted", watched.letter(), actor.letter());
        outcome.report_text(FindingKind::ForeignEffect, "database", text, String::new(), String::new());
    }
    Ok(())
}

async fn fingerprint(session: &Session, side: Side) -> Result<Option<String>> {
    match &session.extras.databases {
        Some(databases) => databases.fingerprint(side).await.map(Some),
        None => Ok(None),
    }
}

/// The control: the changes of a tenant show in its own answers. An answer that follows the data of its tenant and is the
/// same for both is not the tenant's own.
async fn check_own_changes(session: &Session, outcome: &mut ProbeOutcome, side: Side) -> Result<()> {
    let (one, two) = (TenantView::read(session, side).await?, TenantView::read(session, side).await?);
    for route in session.writes().filter(|route| route.method != http::Method::DELETE) {
        session.send_own(route, side).await?;
    }
    session.settle().await;
    let after = TenantView::read(session, side).await?;
    let changed: BTreeSet<&str> = after.changes(session, (&one, &two)).into_iter().map(|(route, _)| route).collect();
    changed.iter().for_each(|route| outcome.control(route));
    let other = TenantView::read(session, side.other()).await?;
    for ((route, path), exchange) in &after.answers {
        let same = other.answers.iter().find(|((_, their_path), answer)| {
            let (own, theirs) = (&session.world.tenant(side).name, &session.world.tenant(side.other()).name);
            let is_same_path = their_path.replace(theirs.as_str(), own) == *path;
            is_same_path && answer.is_success() && answer.comparable(theirs).body == exchange.comparable(own).body
        });
        let has_data = exchange.is_success() && exchange.body.len() > 2;
        if let Some((_, theirs)) = same.filter(|_| changed.contains(route.as_str()) && has_data) {
            let text = "both tenants get the same answer, although it follows the data of one of them";
            outcome.report(FindingKind::ForeignData, route, text, theirs);
        }
    }
    Ok(())
}
