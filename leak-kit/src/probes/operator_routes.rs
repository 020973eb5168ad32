use crate::error::Result;
use crate::findings::{FindingKind, ProbeOutcome};
use crate::route::RouteClass;
use crate::session::{Call, Session};
use crate::world::{Caller, Side};

pub(super) async fn run(session: &Session, outcome: &mut ProbeOutcome) -> Result<()> {
    let operator = session.routes(RouteClass::Operator);
    let public = session.routes(RouteClass::Public).filter(|route| route.only_reads());
    for route in operator.chain(public) {
        let (label, is_public) = (route.label(), route.class == Some(RouteClass::Public));
        for caller in [Caller::Member(Side::First), Caller::Nobody] {
            let exchange = session.send(&Call::own(route, Side::First).by(caller)).await?;
            // Any answer of the route is enough: it must have no tenant's data, and no success for an operator's route.
            outcome.control(&label);
            let hit = Side::BOTH.into_iter().find_map(|side| exchange.find(&session.canaries, side));
            if let Some(hit) = hit {
                outcome.report_hit(&label, &hit, &exchange);
            } else if !is_public && exchange.is_success() {
                let text = "the route for operators accepts a caller that is not an operator";
                outcome.report(FindingKind::ForeignEffect, &label, text, &exchange);
            }
        }
    }
    if outcome.attempt_count() == 0 {
        outcome.skip("there is no route for operators or for everyone");
    }
    Ok(())
}
