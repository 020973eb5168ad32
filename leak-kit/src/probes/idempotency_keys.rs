use crate::error::Result;
use crate::findings::{FindingKind, ProbeOutcome};
use crate::session::{Call, Session};
use crate::world::Side;

/// The usual name of the header.
const HEADER: &str = "idempotency-key";

pub(super) async fn run(session: &Session, outcome: &mut ProbeOutcome) -> Result<()> {
    for (position, route) in session.writes().filter(|route| route.method == http::Method::POST).enumerate() {
        let label = route.label();
        for side in Side::BOTH {
            let key = format!("leak-kit-{}-{position}", side.letter());
            let first = session.send_as_owner(Call::own(route, side).header(HEADER, &key)).await?;
            let other = side.other();
            let second = session.send_as_owner(Call::own(route, other).header(HEADER, &key)).await?;
            outcome.attempt(&label);
            if first.is_success() {
                outcome.control(&label);
            }
            if let Some(hit) = second.find(&session.canaries, side) {
                outcome.report_hit(&label, &hit, &second);
            } else if first.is_success() && second.status == http::StatusCode::CONFLICT {
                let text = "an idempotency key of one tenant is refused for another tenant";
                outcome.report(FindingKind::ExistenceShown, &label, text, &second);
            }
        }
    }
    if outcome.attempt_count() == 0 {
        outcome.skip("no route adds anything");
    }
    Ok(())
}
