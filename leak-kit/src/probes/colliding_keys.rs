use crate::error::Result;
use crate::exchange::Exchange;
use crate::findings::ProbeOutcome;
use crate::session::{Call, Session};
use crate::views::reading_calls;
use crate::world::{Caller, Side, TenantAddress};

/// The order in which the tenants send the same request. Whatever the first answer leaves behind meets the other tenant.
const ORDER: [Side; 4] = [Side::Second, Side::First, Side::Second, Side::First];

pub(super) async fn run(session: &Session, outcome: &mut ProbeOutcome) -> Result<()> {
    for call in reading_calls(session, Side::First) {
        for side in ORDER {
            // The keys of A, as B sends them, too: many keys are the same.
            let call = call.clone().to(TenantAddress::Of(side)).by(Caller::Member(side));
            check_answer(session, outcome, side, &call).await?;
        }
    }
    for call in session.writes().map(|route| Call::own(route, Side::First)) {
        for side in Side::BOTH {
            let exchange = session.send_own(call.route, side).await?;
            judge(session, outcome, side, &call.route.label(), &exchange);
        }
    }
    Ok(())
}

async fn check_answer(session: &Session, outcome: &mut ProbeOutcome, side: Side, call: &Call<'_>) -> Result<()> {
    let exchange = session.send(call).await?;
    judge(session, outcome, side, &call.route.label(), &exchange);
    Ok(())
}

fn judge(session: &Session, outcome: &mut ProbeOutcome, side: Side, route: &str, exchange: &Exchange) {
    outcome.attempt(route);
    if exchange.is_success() && exchange.find(&session.canaries, side).is_some() {
        outcome.control(route);
    }
    if let Some(hit) = exchange.find(&session.canaries, side.other()) {
        outcome.report_hit(route, &hit, exchange);
    }
}
