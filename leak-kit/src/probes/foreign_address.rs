use crate::error::Result;
use crate::exchange::Exchange;
use crate::findings::{FindingKind, ProbeOutcome};
use crate::route::{Route, RouteClass};
use crate::session::{Call, Session};
use crate::world::{Caller, Side, TenantAddress};

/// Callers that may not open tenant B.
const CALLERS: [Caller; 3] = [Caller::Member(Side::First), Caller::Nobody, Caller::Stranger];

pub(super) async fn run(session: &Session, outcome: &mut ProbeOutcome) -> Result<()> {
    if !session.world.names_tenants() {
        outcome.skip("only the credential says which tenant a request is for");
        return Ok(());
    }
    let live = session.routes(RouteClass::Live);
    let routes = session.routes(RouteClass::Tenant).chain(live);
    for route in routes.filter(|route| session.can_name_tenants(route)) {
        // Both tenants use the route first: what the application remembers of them must not help the caller.
        for side in Side::BOTH {
            let is_served = match route.class {
                Some(RouteClass::Live) => send_head(session, &Call::own(route, side)).await?.is_success(),
                _ => session.send_own(route, side).await?.is_success(),
            };
            if is_served {
                outcome.control(&route.label());
            }
        }
        for caller in CALLERS {
            check_caller(session, outcome, route, caller).await?;
        }
    }
    Ok(())
}

/// Compares the answer for B with the answers for a tenant that nobody has.
async fn check_caller(session: &Session, outcome: &mut ProbeOutcome, route: &Route, caller: Caller) -> Result<()> {
    let call = |address: TenantAddress| Call::own(route, Side::Second).to(address).by(caller);
    let unknown = TenantAddress::Unknown;
    let (one, two) =
        (send_head(session, &call(unknown.clone())).await?, send_head(session, &call(unknown.clone())).await?);
    let foreign = send_head(session, &call(TenantAddress::Of(Side::Second))).await?;
    let label = route.label();
    outcome.attempt(&label);
    if let Some(hit) = foreign.find(&session.canaries, Side::Second) {
        outcome.report_hit(&label, &hit, &foreign);
        return Ok(());
    }
    let name = session.world.name_of(&unknown);
    let (one, two) = (one.comparable(&name), two.comparable(&name));
    let expected = two.clone().without_varying(&one, &two);
    let name = session.world.name_of(&TenantAddress::Of(Side::Second));
    if foreign.comparable(&name).without_varying(&one, &two) == expected {
        return Ok(());
    }
    let (kind, text) = match foreign.is_success() {
        true => {
            (FindingKind::ForeignEffect, "the request was accepted for a tenant that the caller is not in".to_owned())
        }
        false => {
            let text =
                format!("the answer differs from the answer for an unknown tenant, which is {}", expected.status);
            (FindingKind::ExistenceShown, text)
        }
    };
    outcome.report(kind, &label, text, &foreign);
    Ok(())
}

/// Sends the request; of a long connection, reads only the head of the answer.
async fn send_head(session: &Session, call: &Call<'_>) -> Result<Exchange> {
    if call.route.class != Some(RouteClass::Live) {
        return session.send(call).await;
    }
    let (parts, _) = session.open(call).await?.into_parts();
    let request = format!("{} as {}", call.route.label(), crate::session::caller_word(call.caller));
    let (path, body) = (session.path_of(call), bytes::Bytes::new());
    Ok(Exchange { request, path, status: parts.status, headers: parts.headers, body })
}
