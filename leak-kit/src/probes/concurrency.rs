use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};

use crate::error::Result;
use crate::exchange::Exchange;
use crate::findings::ProbeOutcome;
use crate::session::{Call, Session};
use crate::views::reading_calls;
use crate::world::{Caller, Side, TenantAddress};

/// How many requests run at once.
const AT_ONCE: usize = 64;
/// How often each request is sent.
const ROUNDS: usize = 24;
/// Each request of this number is abandoned before its answer comes.
const ABANDONED_EACH: usize = 7;

pub(super) async fn run(session: &Session, outcome: &mut ProbeOutcome) -> Result<()> {
    let reads = reading_calls(session, Side::First);
    let writes: Vec<Call<'_>> = session
        .writes()
        .filter(|route| route.method == http::Method::POST && session.reach_of(&route.label()).is_some())
        .map(|route| Call::own(route, Side::First))
        .collect();
    let calls: Vec<(usize, Side, Call<'_>)> = (0..ROUNDS)
        .flat_map(|round| reads.iter().chain(writes.iter().filter(move |_| round % 8 == 0)))
        .enumerate()
        .map(|(number, call)| {
            let side = if number.wrapping_mul(2_654_435_761) & 0x100 == 0 { Side::First } else { Side::Second };
            let call = Call { values: side, ..call.clone() };
            (number, side, call.to(TenantAddress::Of(side)).by(Caller::Member(side)))
        })
        .collect();
    let mut waiting = Vec::new();
    for (number, side, call) in calls {
        waiting.push(answer_of(session, number, side, call));
    }
    let mut answers = stream::iter(waiting).buffer_unordered(AT_ONCE);
    while let Some((side, route, exchange)) = answers.next().await {
        let Some(exchange) = exchange? else { continue };
        outcome.attempt(&route);
        if exchange.is_success() && exchange.find(&session.canaries, side).is_some() {
            outcome.control(&route);
        }
        if let Some(hit) = exchange.find(&session.canaries, side.other()) {
            outcome.report_hit(&route, &hit, &exchange);
        }
    }
    Ok(())
}

async fn answer_of(
    session: &Session,
    number: usize,
    side: Side,
    call: Call<'_>,
) -> (Side, String, Result<Option<Exchange>>) {
    let route = call.route.label();
    if !number.is_multiple_of(ABANDONED_EACH) {
        return (side, route, session.send(&call).await.map(Some));
    }
    // The connection is dropped in the middle of the request.
    let wait = Duration::from_micros(200 + (number as u64 * 37) % 3_000);
    let exchange = tokio::time::timeout(wait, session.send(&call)).await.ok();
    (side, route, exchange.transpose())
}
