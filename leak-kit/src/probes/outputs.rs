use crate::error::Result;
use crate::findings::{FindingKind, ProbeOutcome};
use crate::route::RouteClass;
use crate::session::{Call, Session};
use crate::world::{Caller, Side};

pub(super) async fn run(session: &Session, outcome: &mut ProbeOutcome) -> Result<()> {
    read_public_routes(session, outcome).await?;
    if session.extras.outputs.is_empty() && outcome.attempt_count() == 0 {
        outcome.skip("no log or directory was named, and there is no public route");
        return Ok(());
    }
    for output in &session.extras.outputs {
        for (name, bytes) in output.read()? {
            outcome.attempt(&name);
            if !bytes.is_empty() {
                outcome.control(&name);
            }
            let hit = Side::BOTH.into_iter().find_map(|side| session.canaries.find(&bytes, side));
            if let Some(hit) = hit {
                let text = format!("it contains a text of tenant {} ({})", hit.side.letter(), hit.planted_by);
                outcome.report_text(FindingKind::DataInOutput, &name, text, String::new(), hit.context);
            }
        }
    }
    Ok(())
}

/// Metrics and other answers for everyone, after all other probes have run.
async fn read_public_routes(session: &Session, outcome: &mut ProbeOutcome) -> Result<()> {
    for route in session.routes(RouteClass::Public).filter(|route| route.only_reads()) {
        let exchange = session.send(&Call::own(route, Side::First).by(Caller::Nobody)).await?;
        outcome.attempt(&route.label());
        if exchange.is_success() {
            outcome.control(&route.label());
        }
        if let Some(hit) = Side::BOTH.into_iter().find_map(|side| exchange.find(&session.canaries, side)) {
            outcome.report_hit(&route.label(), &hit, &exchange);
        }
    }
    Ok(())
}
