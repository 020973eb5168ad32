use std::collections::BTreeSet;

use crate::error::Result;
use crate::findings::{FindingKind, ProbeOutcome};
use crate::route::Route;
use crate::session::{Call, Session};
use crate::views::TenantView;
use crate::world::{Caller, Side, TenantAddress};

/// Maximum number of foreign keys that are tried with each route.
const KEYS_MAX: usize = 3;

pub(super) async fn run(session: &Session, outcome: &mut ProbeOutcome) -> Result<()> {
    let victim = Side::Second;
    for route in session.writes() {
        let label = route.label();
        let (one, two) = (TenantView::read(session, victim).await?, TenantView::read(session, victim).await?);
        for call in hostile_calls(session, route) {
            session.send(&call).await?;
        }
        session.settle().await;
        let after = TenantView::read(session, victim).await?;
        outcome.attempt(&label);
        if let Some((shown_by, exchange)) = after.changes(session, (&one, &two)).first() {
            let text = format!("tenant a sent it, and the answer for tenant b at {shown_by} changed");
            outcome.report(FindingKind::ForeignEffect, &label, text, exchange);
        }
        for exchange in after.answers.values() {
            if let Some(hit) = exchange.find(&session.canaries, Side::First) {
                outcome.report_hit(&label, &hit, exchange);
            }
        }
        // The same change does its work for its own tenant.
        if session.reach_of(&route.label()).is_some() {
            outcome.control(&label);
        }
    }
    Ok(())
}

/// Changes that A sends to B's address, or to its own with B's keys.
fn hostile_calls<'r>(session: &Session, route: &'r Route) -> Vec<Call<'r>> {
    let mut calls = Vec::new();
    if session.can_name_tenants(route) {
        for caller in [Caller::Member(Side::First), Caller::Nobody, Caller::Stranger] {
            calls.push(Call::own(route, Side::First).to(TenantAddress::Of(Side::Second)).by(caller));
        }
    }
    if let Some(parameter) = route.path_parameters().last() {
        let known = session.known();
        let own: BTreeSet<_> = known.of(Side::First, route, &parameter.name).iter().collect();
        let theirs = known.of(Side::Second, route, &parameter.name).iter().filter(|key| !own.contains(key));
        calls.extend(theirs.take(KEYS_MAX).map(|key| Call::own(route, Side::First).parameter(&parameter.name, key)));
    }
    calls
}
