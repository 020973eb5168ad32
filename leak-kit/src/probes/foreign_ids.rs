use std::collections::BTreeSet;

use crate::error::Result;
use crate::findings::{FindingKind, ProbeOutcome};
use crate::route::Route;
use crate::session::{Call, Session};
use crate::views::TenantView;
use crate::world::Side;

/// Maximum number of keys that are tried with each route.
const KEYS_MAX: usize = 5;

pub(super) async fn run(session: &Session, outcome: &mut ProbeOutcome) -> Result<()> {
    let with_keys: Vec<&Route> = session.reads().filter(|route| route.path_parameters().next().is_some()).collect();
    if with_keys.is_empty() {
        outcome.skip("no route that reads has a key in its path");
        return Ok(());
    }
    // The lists say which keys are whose now.
    for side in Side::BOTH {
        TenantView::read(session, side).await?;
    }
    for route in with_keys {
        for side in Side::BOTH {
            check_route(session, outcome, route, side).await?;
        }
    }
    Ok(())
}

/// As the tenant, asks for rows that only the other tenant has.
async fn check_route(session: &Session, outcome: &mut ProbeOutcome, route: &Route, side: Side) -> Result<()> {
    let Some(parameter) = route.path_parameters().last() else { return Ok(()) };
    let (label, other) = (route.label(), side.other());
    let own: BTreeSet<String> = session.known().of(side, route, &parameter.name).iter().cloned().collect();
    let theirs: Vec<String> = session.known().of(other, route, &parameter.name).to_vec();
    let foreign: Vec<&String> = theirs.iter().filter(|key| !own.contains(*key)).rev().take(KEYS_MAX).collect();
    let Some(example) = foreign.first() else { return Ok(()) };
    let ask = |key: &str| Call::own(route, side).parameter(&parameter.name, key);
    let unused = unused_key(example);
    let (one, two) = (session.send(&ask(&unused)).await?, session.send(&ask(&unused)).await?);
    let (one, two) = (one.comparable_row(&unused), two.comparable_row(&unused));
    let expected = two.clone().without_varying(&one, &two);
    for key in foreign {
        let shown = session.send(&Call::own(route, other).parameter(&parameter.name, key)).await?;
        if shown.is_success() {
            outcome.control(&label);
        }
        let exchange = session.send(&ask(key)).await?;
        if let Some(hit) = exchange.find(&session.canaries, other) {
            outcome.report_hit(&label, &hit, &exchange);
        } else if exchange.comparable_row(key).without_varying(&one, &two) != expected {
            let text = format!("a key of tenant {} is answered differently from a key that nobody has", other.letter());
            outcome.report(FindingKind::ExistenceShown, &label, text, &exchange);
        }
    }
    Ok(())
}

/// A key like this one that nobody has.
fn unused_key(like: &str) -> String {
    match like.parse::<u64>() {
        Ok(_) => "9".repeat(like.len().max(9)),
        // The same form: letters stay letters, digits stay digits.
        Err(_) => like
            .chars()
            .map(|c| match c {
                'a'..='e' => 'f',
                '0'..='8' => '9',
                _ => c,
            })
            .collect(),
    }
}
